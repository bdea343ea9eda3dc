# find_package(martlet): what a CMakeLists.txt of the user's links its program `function` with.
if(NOT TARGET martlet::martlet)
  find_package(Threads REQUIRED)
  add_library(martlet::martlet STATIC IMPORTED)
  set_target_properties(martlet::martlet PROPERTIES
    IMPORTED_LOCATION "$ENV{MARTLET_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${CMAKE_CURRENT_LIST_DIR}/../include"
    INTERFACE_COMPILE_FEATURES cxx_std_20
    INTERFACE_LINK_LIBRARIES Threads::Threads)
endif()
