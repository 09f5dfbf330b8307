# Sanitizer builds: -DKOSMOS_EDGE_SANITIZE=address,undefined or =thread. Any report ends the program with an error.
# -O1 everywhere, also where a target asks for more: these builds are for finding faults, and compile in reasonable time.
set(KOSMOS_EDGE_SANITIZE "" CACHE STRING "Sanitizers to build with: address,undefined or thread (empty: none)")
if(KOSMOS_EDGE_SANITIZE)
  set(CMAKE_BUILD_TYPE None)
  set(KE_SANITIZE -fsanitize=${KOSMOS_EDGE_SANITIZE} -fno-sanitize-recover=all)
  add_compile_options(${KE_SANITIZE} -O1 -g1 -fno-omit-frame-pointer)
  add_link_options(${KE_SANITIZE})
  set(KE_KERNEL_OPTIMIZATION -O1)
else()
  set(KE_KERNEL_OPTIMIZATION -O3)
endif()
