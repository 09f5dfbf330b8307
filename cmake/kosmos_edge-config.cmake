# find_package(kosmos_edge) -> target kosmos_edge::kosmos_edge
include("${CMAKE_CURRENT_LIST_DIR}/kosmos_edge-targets.cmake")
