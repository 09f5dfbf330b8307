#include "cpu/memory.h"

#include <cstdlib>
#include <cstring>

#include "base/error.h"

#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace ke::cpu {

namespace {

constexpr size_t kAlign = 64;
constexpr size_t kMapped = size_t{1} << 20;  // from here on a mapping of its own

#ifdef __linux__
// A mapping that starts where a huge page can, so that all but its end may lie in huge pages; nullptr if refused.
void* map_aligned(size_t bytes) {
  constexpr size_t huge = size_t{2} << 20;
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t whole = (bytes + page - 1) / page * page;
  if (whole < bytes || whole + huge < whole) return nullptr;
  void* p = mmap(nullptr, whole + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return nullptr;
  const size_t before = (huge - reinterpret_cast<uintptr_t>(p) % huge) % huge;
  uint8_t* start = static_cast<uint8_t*>(p) + before;
  if (before) munmap(p, before);
  if (huge - before) munmap(start + whole, huge - before);
  return start;
}
#endif

}  // namespace

Memory::Memory(size_t bytes) {
  if (bytes == 0) return;
  const size_t rounded = (bytes + kAlign - 1) / kAlign * kAlign;
  void* p = nullptr;
  if (rounded >= bytes) {  // else the rounding overflowed
#ifdef __linux__
    if (bytes >= kMapped) {
      p = map_aligned(bytes);
      if (p) madvise(p, bytes, MADV_HUGEPAGE);  // a wish: fewer address look-ups while weights stream by
    } else
#endif
    {
      p = std::aligned_alloc(kAlign, rounded);
      if (p) std::memset(p, 0, rounded);
    }
  }
  KE_CHECK(p, OutOfMemory, "not enough memory: the system refused ", bytes, " bytes (", bytes >> 20, " MB)");
  data_ = static_cast<uint8_t*>(p);
  bytes_ = bytes;
}

Memory::~Memory() {
#ifdef __linux__
  if (bytes_ >= kMapped) {
    munmap(data_, bytes_);
    return;
  }
#endif
  std::free(data_);
}

}  // namespace ke::cpu
