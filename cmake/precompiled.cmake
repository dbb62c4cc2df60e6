# What makes a release build short.
#
#   kinfs_precompile(GROUP TARGET...)
#       GROUP: core; command (core, and what command lines use); tests (core, GoogleTest)
#   kinfs_unite(TARGET FILES)
#
# Precompiled headers are those of the standard library and of third parties, never one of kinfs, so that the layers
# hold as without them. A group of targets shares one; it costs seconds, and saves a quarter of what each file takes.
#
# United, FILES sources of a target are compiled as one, which takes a third of the time where all of them instantiate
# the same big templates. Change one and all are compiled: for what is seldom worked at.
#
# In release by g++ only: the builds under the sanitizers, and those by clang for the fuzz targets, go without, and so
# find the file that forgot an include.
if(CMAKE_BUILD_TYPE STREQUAL "Release" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  set(precompile ON)
else()
  set(precompile OFF)
endif()
option(KINFS_PRECOMPILE "precompile third-party headers, and unite sources" ${precompile})

set(PRECOMPILED_core
  <algorithm> <array> <atomic> <charconv> <chrono> <coroutine> <cstdint> <cstring> <deque> <filesystem> <fstream>
  <functional> <map> <memory> <mutex> <optional> <random> <set> <span> <sstream> <string> <string_view> <thread>
  <tuple> <unordered_map> <utility> <variant> <vector> <fmt/format.h> <tl/expected.hpp>)
set(PRECOMPILED_command ${PRECOMPILED_core} <CLI/CLI.hpp> <nlohmann/json.hpp>)
set(PRECOMPILED_tests ${PRECOMPILED_core} <gtest/gtest.h>)

function(kinfs_precompile group)
  if(NOT KINFS_PRECOMPILE)
    return()
  endif()
  set(owner kinfs_precompiled_${group})
  if(NOT TARGET ${owner})
    # A precompiled header belongs to a target, and a target has a source. The flags must be those of its users.
    file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/gen/precompiled.cc CONTENT "" @ONLY)
    add_library(${owner} OBJECT ${CMAKE_BINARY_DIR}/gen/precompiled.cc)
    target_link_libraries(${owner} PRIVATE fmt::fmt)
    if(NOT group STREQUAL "core")
      target_compile_options(${owner} PRIVATE ${KINFS_RUN_ONCE})
    endif()
    if(group STREQUAL "tests")
      target_link_libraries(${owner} PRIVATE GTest::gtest)
    endif()
    target_precompile_headers(${owner} PRIVATE ${PRECOMPILED_${group}})
  endif()
  foreach(target IN LISTS ARGN)
    target_precompile_headers(${target} REUSE_FROM ${owner})
    # ccache keeps what was compiled with one only when the compiler reads it this way.
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      target_compile_options(${target} PRIVATE -fpch-preprocess)
    endif()
  endforeach()
endfunction()

function(kinfs_unite target files)
  if(KINFS_PRECOMPILE)
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE ${files})
  endif()
endfunction()
