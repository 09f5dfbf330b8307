// A lock that processes of one machine take in turn. The system releases it when its owner ends, however that is.
#pragma once
#include <string>

namespace ke {

class FileLock {
 public:
  // Makes the file if it is missing; Io if the system refuses.
  explicit FileLock(const std::string& path);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

  bool try_lock();  // false: another process, or another FileLock of this one, has it; Io where files cannot be locked

 private:
  std::string path_;
  int fd_ = -1;
};

}  // namespace ke
