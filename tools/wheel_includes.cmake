# Included at the end of project() through CMAKE_PROJECT_INCLUDE when messages are built against ROS 2 wheels.
# The wheels' exported targets name Python headers under /opt/python/ of the machine that built the wheels, and
# cmake refuses include directories that do not exist. They are not needed: the generated code is given the
# headers of the interpreter at hand.
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

# Deferred: the targets come into being with find_package, after project().
cmake_language(DEFER CALL hri_emo_drop_wheel_includes)
