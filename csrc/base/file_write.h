// Writing that fails instead of ending the process.
#pragma once
#include <cstddef>
#include <cstdint>

namespace ke {

// Writes all bytes at this place. 0, or the system's error number. (Beyond the size that this process may write, the
// system sends SIGXFSZ, which by default ends it; here that is EFBIG alone.)
int write_at(int fd, const void* bytes, size_t size, uint64_t place);

}  // namespace ke
