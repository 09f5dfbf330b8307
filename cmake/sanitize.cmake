# Sanitizer builds: -DKOSMOS_EDGE_SANITIZE=address,undefined or =thread. Any report ends the program with an error.
# -Og: these builds are for finding faults, and instrumented code compiles in half the time that -O1 takes. The kernels of
# vector sets are left out of UndefinedBehaviorSanitizer, with which they would compile for ten minutes; the same text is
# in it as "scalar".
set(KOSMOS_EDGE_SANITIZE "" CACHE STRING "Sanitizers to build with: address,undefined or thread (empty: none)")
option(KOSMOS_EDGE_SANITIZE_KERNELS "Instrument the kernels too; without, long runs of everything else are quick" ON)
set(KE_KERNEL_OPTIONS -O3)
set(KE_SCALAR_OPTIONS)
if(KOSMOS_EDGE_SANITIZE)
  set(CMAKE_BUILD_TYPE None)
  set(KE_SANITIZE -fsanitize=${KOSMOS_EDGE_SANITIZE} -fno-sanitize-recover=all)
  add_compile_options(${KE_SANITIZE} -Og -g1 -fno-omit-frame-pointer)
  add_link_options(${KE_SANITIZE})
  set(KE_KERNEL_OPTIONS -O1)
  if(NOT KOSMOS_EDGE_SANITIZE_KERNELS)
    set(KE_KERNEL_OPTIONS -O3 -fno-sanitize=all)
  elseif(KOSMOS_EDGE_SANITIZE MATCHES undefined)
    set(KE_KERNEL_OPTIONS -O1 -fno-sanitize=undefined)
    set(KE_SCALAR_OPTIONS -Og -fsanitize=undefined -fno-sanitize-recover=all)
  endif()
endif()
