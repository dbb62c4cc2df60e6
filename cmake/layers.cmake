# Layers: a folder's headers are seen only by the targets above it, because each folder has an include root
# of its own that holds nothing but a link to that folder. An upward include does not compile.
#
#   kinfs_layer_root(NAME FOLDER)   makes ${CMAKE_BINARY_DIR}/layer/NAME/NAME -> FOLDER
#   kinfs_proto(TARGET FILE)        compiles FILE.proto; the header is "FOLDER/FILE.pb.h", private to TARGET
function(kinfs_layer_root name folder)
  file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/layer/${name})
  file(CREATE_LINK ${CMAKE_SOURCE_DIR}/${folder} ${CMAKE_BINARY_DIR}/layer/${name}/${name} SYMBOLIC)
  set(${name}_ROOT ${CMAKE_BINARY_DIR}/layer/${name} PARENT_SCOPE)
endfunction()

function(kinfs_proto target folder file)
  set(out ${CMAKE_BINARY_DIR}/gen/${folder})
  file(MAKE_DIRECTORY ${out})
  add_custom_command(
    OUTPUT ${out}/${file}.pb.cc ${out}/${file}.pb.h
    COMMAND protobuf::protoc --cpp_out=${CMAKE_BINARY_DIR}/gen -I ${CMAKE_SOURCE_DIR}
            ${CMAKE_SOURCE_DIR}/${folder}/${file}.proto
    DEPENDS ${CMAKE_SOURCE_DIR}/${folder}/${file}.proto
    VERBATIM)
  target_sources(${target} PRIVATE ${out}/${file}.pb.cc)
  set_source_files_properties(${out}/${file}.pb.cc PROPERTIES
                              COMPILE_OPTIONS "-Wno-all;-Wno-extra;-Wno-pedantic;-Wno-shadow")
  target_include_directories(${target} SYSTEM PRIVATE ${CMAKE_BINARY_DIR}/gen)
  target_link_libraries(${target} PRIVATE protobuf::libprotobuf)
endfunction()
