# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
# Included at the end of project() through CMAKE_PROJECT_INCLUDE when tools/setup builds messages against
# ROS 2 wheels. A build in a ROS workspace does without.

# The wheels' exported targets name Python headers under /opt/python/ of the machine that built the wheels,
# and cmake refuses include directories that do not exist. They are not needed: the generated code is given
# the headers of the interpreter at hand.
function(hri_emo_drop_wheel_includes)
  get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(includes ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(includes)
      list(FILTER includes EXCLUDE REGEX "^/opt/python/")
      set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${includes}")
    endif()
  endforeach()
endfunction()

# One compiler run per type support instead of one per message: nearly all of its time goes into headers
# that every message includes again. (The other targets repeat static names or specialise templates too
# late when their files are joined, and stay as they are.)
function(hri_emo_join_sources)
  get_property(targets DIRECTORY PROPERTY BUILDSYSTEM_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(type ${target} TYPE)
    if(type STREQUAL "SHARED_LIBRARY" AND target MATCHES "__rosidl_typesupport_(c|cpp|fastrtps_c|fastrtps_cpp|introspection_c)$")
      set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 0)
    endif()
  endforeach()
endfunction()

# Deferred: the targets come into being after project().
cmake_language(DEFER CALL hri_emo_drop_wheel_includes)
cmake_language(DEFER CALL hri_emo_join_sources)
