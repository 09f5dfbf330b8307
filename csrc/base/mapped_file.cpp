// MappedFile for POSIX systems.
#include "base/mapped_file.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"

namespace ke {

namespace {

// Closes the descriptor on every path; a mapping outlives it.
struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) close(fd);
  }
};

[[noreturn]] void refuse(const std::string& path, const char* what, int error) {
  fail(error == ENOMEM ? ErrorCode::OutOfMemory : ErrorCode::Io, path, ": ", what, ": ", std::strerror(error));
}

void read_all(const std::string& path, int fd, uint8_t* out, size_t size) {
  for (size_t done = 0; done < size;) {
    const size_t ask = size - done < (size_t{1} << 30) ? size - done : size_t{1} << 30;
    const ssize_t got = pread(fd, out + done, ask, static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) refuse(path, "cannot read", errno);
    KE_CHECK(got > 0, Io, path, ": became shorter while it was read: ", done, " of ", size, " bytes");
    done += static_cast<size_t>(got);
  }
}

}  // namespace

std::string distrust(const struct stat& status) {
  if (status.st_uid != geteuid() && status.st_uid != 0)
    return concat("belongs to user ", status.st_uid, "; expected ", geteuid(), " or root");
  if (status.st_mode & (S_IWGRP | S_IWOTH)) return "others may write it";
  return "";
}

static FileIdentity identity_of(const struct stat& s) {
#ifdef __APPLE__
  const struct timespec modified = s.st_mtimespec, changed = s.st_ctimespec;
#else
  const struct timespec modified = s.st_mtim, changed = s.st_ctim;
#endif
  const auto ns = [](const struct timespec& t) { return static_cast<int64_t>(t.tv_sec) * 1000000000 + t.tv_nsec; };
  return {static_cast<uint64_t>(s.st_dev), static_cast<uint64_t>(s.st_ino), static_cast<uint64_t>(s.st_size),
          ns(modified), ns(changed)};
}

MappedFile::MappedFile(const std::string& path, MapMode mode, FileOwner owner) : mode_(mode) {
  KE_CHECK(path.find('\0') == std::string::npos, ModelNotFound, "a path cannot contain a zero byte");
  // O_NONBLOCK: opening a pipe returns at once; it is refused below.
  const Descriptor file{
      open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | (owner == FileOwner::Trusted ? O_NOFOLLOW : 0))};
  if (file.fd < 0) {
    KE_CHECK(errno != ENOENT && errno != ENOTDIR, ModelNotFound, path, ": no such file");
    refuse(path, "cannot open", errno);
  }
  struct stat status;
  if (fstat(file.fd, &status) != 0) refuse(path, "cannot examine", errno);
  KE_CHECK(S_ISREG(status.st_mode), Io, path, ": expected a regular file, found ",
           S_ISDIR(status.st_mode) ? "a directory" : "something else");
  if (owner == FileOwner::Trusted) {
    const std::string why = distrust(status);
    KE_CHECK(why.empty(), Io, path, ": ", why);
  }
  identity_ = identity_of(status);
  const size_t size = static_cast<size_t>(status.st_size);
  if (size == 0) return;

  const bool copy = mode == MapMode::Copy;
  void* address = copy ? mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
                       : mmap(nullptr, size, PROT_READ, MAP_SHARED, file.fd, 0);
  if (address == MAP_FAILED) refuse(path, copy ? "cannot get memory for a copy" : "cannot map", errno);
  data_ = static_cast<uint8_t*>(address);
  size_ = size;
  if (!copy) return;
  try {
    read_all(path, file.fd, data_, size);
  } catch (...) {
    munmap(data_, size_);
    throw;
  }
}

MappedFile::~MappedFile() {
  if (data_) munmap(data_, size_);
}

void MappedFile::release(size_t offset, size_t length) const {
  KE_ASSERT(offset <= size_ && length <= size_ - offset);
  if (mode_ == MapMode::Copy) return;
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t begin = (offset + page - 1) / page * page;
  const size_t end = (offset + length) / page * page;
  if (begin < end) madvise(data_ + begin, end - begin, MADV_DONTNEED);  // only advice: a failure does not matter
}

}  // namespace ke
