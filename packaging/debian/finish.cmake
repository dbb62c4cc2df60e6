# What Debian wants of a package beyond what is installed elsewhere: compressed manual pages and a change log. cpack
# runs it over the tree that becomes the package.
set(root "${CPACK_TEMPORARY_INSTALL_DIRECTORY}/usr/share")
configure_file("${CPACK_KINFS_PACKAGING}/debian/changelog" "${root}/doc/kinfs/changelog" COPYONLY)
file(REMOVE "${root}/doc/kinfs/LICENSE") # the copyright file names the copy that every Debian has
file(GLOB_RECURSE pages "${root}/man/*" "${root}/doc/kinfs/changelog")
execute_process(COMMAND gzip -9 -n ${pages} COMMAND_ERROR_IS_FATAL ANY)
file(CREATE_LINK mount.kinfs.8.gz "${root}/man/man8/mount.fuse.kinfs.8.gz" SYMBOLIC)
