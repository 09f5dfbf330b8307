#include "base/file_write.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <unistd.h>

namespace ke {

namespace {

class NoSizeSignal {
 public:
  NoSizeSignal() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGXFSZ);
    pthread_sigmask(SIG_BLOCK, &set_, &before_);
  }
  ~NoSizeSignal() {
    sigset_t pending;
    int taken;
    if (!sigismember(&before_, SIGXFSZ) && sigpending(&pending) == 0 && sigismember(&pending, SIGXFSZ))
      sigwait(&set_, &taken);
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  NoSizeSignal(const NoSizeSignal&) = delete;
  NoSizeSignal& operator=(const NoSizeSignal&) = delete;

 private:
  sigset_t set_, before_;
};

}  // namespace

int write_at(int fd, const void* bytes, size_t size, uint64_t place) {
  const NoSizeSignal quiet;
  for (size_t done = 0; done < size;) {
    const size_t ask = std::min(size - done, size_t{1} << 28);
    const ssize_t put = pwrite(fd, static_cast<const uint8_t*>(bytes) + done, ask, static_cast<off_t>(place + done));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return put < 0 ? errno : ENOSPC;
    done += static_cast<size_t>(put);
  }
  return 0;
}

}  // namespace ke
