# Sanitizer builds: -DKOSMOS_EDGE_SANITIZE=address,undefined or =thread. Any report ends the program with an error.
# -O1: these builds are for finding faults, and must compile in reasonable time. The kernels of vector sets are left out
# of UndefinedBehaviorSanitizer, with which they would compile for ten minutes; the same text is in it as "scalar".
set(KOSMOS_EDGE_SANITIZE "" CACHE STRING "Sanitizers to build with: address,undefined or thread (empty: none)")
set(KE_KERNEL_OPTIONS -O3)
set(KE_SCALAR_OPTIONS)
if(KOSMOS_EDGE_SANITIZE)
  set(CMAKE_BUILD_TYPE None)
  set(KE_SANITIZE -fsanitize=${KOSMOS_EDGE_SANITIZE} -fno-sanitize-recover=all)
  add_compile_options(${KE_SANITIZE} -O1 -g1 -fno-omit-frame-pointer)
  add_link_options(${KE_SANITIZE})
  set(KE_KERNEL_OPTIONS -O1)
  if(KOSMOS_EDGE_SANITIZE MATCHES undefined)
    set(KE_KERNEL_OPTIONS -O2 -fno-sanitize=undefined)
    set(KE_SCALAR_OPTIONS -O1 -fsanitize=undefined -fno-sanitize-recover=all)
  endif()
endif()
