// glibc's malloc takes whatever is over 128 KiB from the kernel and gives it back at once. Each buffer of a block, and
// there are some at each hop, is then made of pages that the kernel clears and maps one by one: about a hundred page
// faults for each MiB that is written, and three hundred for each that is read.
#include "storage/heap.h"

#include <malloc.h>

namespace kinfs {
namespace {

constexpr int kFromTheKernelBytes = 4 << 20;  // larger than any message
constexpr int kKeptBytes = 32 << 20;          // what stays free at the top of an arena
constexpr int kArenas = 2;                    // each has gaps of its own: more of them would only hold more

}  // namespace

void keep_block_memory() {
  ::mallopt(M_MMAP_THRESHOLD, kFromTheKernelBytes);
  ::mallopt(M_TRIM_THRESHOLD, kKeptBytes);
  ::mallopt(M_ARENA_MAX, kArenas);
}

}  // namespace kinfs
