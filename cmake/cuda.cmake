# The CUDA backend as a library of its own (csrc/backend/device_library.h): -DKOSMOS_EDGE_CUDA=ON, with nvcc on the path
# or -DCMAKE_CUDA_COMPILER. The runtime is linked in, so that the machine needs a driver and nothing else.
# Architectures: machine code for Turing to Hopper, and portable code that drivers translate for later cards.
set(KOSMOS_EDGE_CUDA_ARCHITECTURES "75-real;80-real;86-real;89-real;90a-real;90-virtual" CACHE STRING
    "What the CUDA kernels are compiled for, as CMAKE_CUDA_ARCHITECTURES")
set(CMAKE_CUDA_ARCHITECTURES ${KOSMOS_EDGE_CUDA_ARCHITECTURES})
enable_language(CUDA)
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)

file(GLOB KE_CUDA CONFIGURE_DEPENDS csrc/cuda/*.cpp csrc/cuda/*.cu csrc/quant/*.cpp csrc/backend/fused.cpp
     csrc/backend/sampling.cpp csrc/backend/logits.cpp)
list(FILTER KE_CUDA EXCLUDE REGEX "/quant/(feedback|triangular)[.]cpp$")  # only calibration on the CPU needs them
add_library(kosmos_edge_cuda SHARED ${KE_CUDA})
target_include_directories(kosmos_edge_cuda PRIVATE csrc ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
target_compile_options(kosmos_edge_cuda PRIVATE
                       "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-ffp-contract=off>"
                       "$<$<COMPILE_LANGUAGE:CUDA>:-Xptxas=-v;--expt-relaxed-constexpr>")
set_target_properties(kosmos_edge_cuda PROPERTIES CUDA_RUNTIME_LIBRARY Static CUDA_VISIBILITY_PRESET hidden)
target_link_libraries(kosmos_edge_cuda PRIVATE Threads::Threads ${CMAKE_DL_LIBS})
target_link_options(kosmos_edge_cuda PRIVATE LINKER:-z,nodelete LINKER:-z,defs LINKER:--exclude-libs,ALL)
if(SKBUILD)
  install(TARGETS kosmos_edge_cuda LIBRARY DESTINATION kosmos_edge/lib)
else()
  install(TARGETS kosmos_edge_cuda LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT cuda)
endif()
