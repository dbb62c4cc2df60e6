# The installed files that depend on where they come to lie, or that are there already. `cmake --install` and cpack run
# it with CMAKE_INSTALL_PREFIX and, in the environment, DESTDIR; CMakeLists.txt gives it `packaging` and `sbin`.
set(root "$ENV{DESTDIR}")

set(unit "${root}${CMAKE_INSTALL_PREFIX}/lib/systemd/system/kinfsd.service")
message(STATUS "Installing: ${unit}")
file(READ "${packaging}/systemd/kinfsd.service" text)
string(REPLACE "/usr/sbin/" "${CMAKE_INSTALL_PREFIX}/${sbin}/" text "${text}")
file(WRITE "${unit}" "${text}")
file(CHMOD "${unit}" PERMISSIONS OWNER_READ OWNER_WRITE GROUP_READ WORLD_READ)

# By this name mount(8) looks for it once something is mounted, as for a remount: else mount.fuse would run `kinfs`.
message(STATUS "Installing: ${root}${CMAKE_INSTALL_PREFIX}/${sbin}/mount.fuse.kinfs")
file(CREATE_LINK mount.kinfs "${root}${CMAKE_INSTALL_PREFIX}/${sbin}/mount.fuse.kinfs" SYMBOLIC)
