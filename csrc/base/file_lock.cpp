#include "base/file_lock.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/error.h"

namespace ke {

FileLock::FileLock(const std::string& path) : path_(path) {
  fd_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
  KE_CHECK(fd_ >= 0, Io, path, ": cannot be opened for writing: ", std::strerror(errno));
}

// Unlocked by hand, because a child that was forked meanwhile has the descriptor, too.
FileLock::~FileLock() {
  flock(fd_, LOCK_UN);
  close(fd_);
}

bool FileLock::try_lock() {
  while (flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    KE_CHECK(errno == EWOULDBLOCK, Io, path_, ": cannot be locked: ", std::strerror(errno));
    return false;
  }
  return true;
}

}  // namespace ke
