# Fuzz programs: -DKOSMOS_EDGE_FUZZ=ON builds kosmos_edge_fuzz, the seeded driver of all targets (with
# -DKOSMOS_EDGE_SANITIZE=address,undefined in CI). With clang each target is a libFuzzer program as well, from the same
# sources; mutants of the driver (its FOLDER argument) are a corpus to begin with.
set(KE_FUZZ tests/fuzz/gguf_draft.cpp tests/fuzz/gguf_mutations.cpp)
add_executable(kosmos_edge_fuzz tests/fuzz/driver.cpp tests/fuzz/target_gguf.cpp tests/fuzz/target_image.cpp
                                tests/fuzz/target_tokenizer.cpp ${KE_FUZZ})
set_target_properties(kosmos_edge_fuzz PROPERTIES UNITY_BUILD OFF)
target_compile_options(kosmos_edge_fuzz PRIVATE -Wall -Wextra)
target_link_libraries(kosmos_edge_fuzz PRIVATE kosmos_edge_core)
if(CMAKE_CXX_COMPILER_ID MATCHES "Clang" AND NOT APPLE)
  foreach(target gguf image tokenizer)
    add_executable(libfuzzer_${target} tests/fuzz/target_${target}.cpp ${KE_FUZZ})
    target_compile_definitions(libfuzzer_${target} PRIVATE KE_LIBFUZZER)
    target_compile_options(libfuzzer_${target} PRIVATE -fsanitize=fuzzer)
    target_link_options(libfuzzer_${target} PRIVATE -fsanitize=fuzzer)
    target_link_libraries(libfuzzer_${target} PRIVATE kosmos_edge_core)
  endforeach()
endif()
