# -DCMAKE_UNITY_BUILD=ON compiles each folder of csrc/ as one file, in a third of the time: for CI, which compiles everything
# several times. A name that two files of a folder keep to themselves is an error then: rename one, or list its file here.
set(CMAKE_UNITY_BUILD_BATCH_SIZE 0)  # no limit: what is compiled together does not change with the number of files
foreach(source ${KE_SOURCES})
  cmake_path(GET source PARENT_PATH folder)
  cmake_path(GET folder FILENAME group)
  set_source_files_properties(${source} PROPERTIES UNITY_GROUP ${group})
endforeach()
set_source_files_properties(
  csrc/bindings/bind_merge.cpp csrc/bindings/bind_ops.cpp csrc/bindings/bind_testing_cross.cpp
  csrc/bindings/bind_text.cpp csrc/cpu/linear.cpp csrc/engine/score.cpp csrc/image/resize.cpp csrc/models/pair.cpp
  csrc/quant/dtype.cpp csrc/quant/legacy_codec.cpp csrc/tasks/run.cpp csrc/text/lowercase.cpp csrc/text/pretokenize.cpp
  PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
