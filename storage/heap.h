// How a program that moves blocks all day uses memory.
#pragma once

namespace kinfs {

/// Has malloc reuse the memory of blocks, within bounds. Called by main(), before other threads are there.
void keep_block_memory();

}  // namespace kinfs
