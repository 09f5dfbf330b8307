# The C interface as a shared library with its header, pkg-config file and CMake package; all that kosmos.h promises.
# In a wheel they lie inside the Python package (kosmos_edge/lib, kosmos_edge/include; see kosmos_edge/native.py).
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
if(SKBUILD)
  set(CMAKE_INSTALL_LIBDIR kosmos_edge/lib)
  set(CMAKE_INSTALL_BINDIR kosmos_edge/lib)
  set(CMAKE_INSTALL_INCLUDEDIR kosmos_edge/include)
endif()

file(GLOB KE_CAPI CONFIGURE_DEPENDS csrc/capi/*.cpp)
add_library(kosmos_edge SHARED ${KE_CAPI})
add_library(kosmos_edge::kosmos_edge ALIAS kosmos_edge)
set_target_properties(kosmos_edge PROPERTIES UNITY_BUILD OFF)  # names of its own are those of the core
target_compile_options(kosmos_edge PRIVATE -Wall -Wextra)
target_compile_definitions(kosmos_edge PRIVATE KOSMOS_BUILD)
target_link_libraries(kosmos_edge PRIVATE kosmos_edge_core)
target_include_directories(kosmos_edge PUBLIC $<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}/include>
                                              $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
file(STRINGS include/kosmos.h KE_ABI REGEX "define KOSMOS_ABI_VERSION")
string(REGEX MATCH "[0-9]+" KE_ABI "${KE_ABI}")
set_target_properties(kosmos_edge PROPERTIES SOVERSION ${KE_ABI})
if(UNIX AND NOT APPLE)
  # nodelete: worker threads must not lose their code to a dlclose.
  target_link_options(kosmos_edge PRIVATE LINKER:--version-script=${CMAKE_CURRENT_SOURCE_DIR}/cmake/kosmos.map
                                          LINKER:-z,nodelete)
  if(NOT KOSMOS_EDGE_SANITIZE)  # the sanitizers' run time comes with the program
    target_link_options(kosmos_edge PRIVATE LINKER:-z,defs)
  endif()
  set_target_properties(kosmos_edge PROPERTIES LINK_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/cmake/kosmos.map)
endif()

file(RELATIVE_PATH KE_PC_INCLUDE /${CMAKE_INSTALL_LIBDIR}/pkgconfig /${CMAKE_INSTALL_INCLUDEDIR})
set(KE_PC_LIBS "-L\${libdir} -lkosmos_edge")
if(SKBUILD)  # a wheel has no links, so the name without a number is not there
  set(KE_PC_LIBS "\${libdir}/libkosmos_edge.so.${KE_ABI}")
  if(APPLE)
    set(KE_PC_LIBS "\${libdir}/libkosmos_edge.${KE_ABI}.dylib")
  endif()
  install(TARGETS kosmos_edge EXPORT kosmos_edge LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT capi
          NAMELINK_SKIP RUNTIME DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT capi)
else()
  install(TARGETS kosmos_edge EXPORT kosmos_edge COMPONENT capi)
endif()
install(FILES include/kosmos.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT capi)
configure_file(cmake/kosmos-edge.pc.in kosmos-edge.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/kosmos-edge.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig
        COMPONENT capi)
set(KE_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/kosmos_edge)
install(EXPORT kosmos_edge NAMESPACE kosmos_edge:: DESTINATION ${KE_CMAKE_DIR} FILE kosmos_edge-targets.cmake
        COMPONENT capi)
write_basic_package_version_file(kosmos_edge-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES cmake/kosmos_edge-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/kosmos_edge-config-version.cmake
        DESTINATION ${KE_CMAKE_DIR} COMPONENT capi)
