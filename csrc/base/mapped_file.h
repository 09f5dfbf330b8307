// The bytes of a regular file, read-only: mapped into memory, or copied into it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

struct stat;

namespace ke {

// Mapped pages are read from disk on first access; if another process truncates the file meanwhile, the system kills
// this process (SIGBUS). A copy is immune to that and takes as much memory as the file is long.
enum class MapMode { Map, Copy };

// Whose file may be opened. Trusted: it belongs to this user or to root, nobody else may write it, and it is no link.
enum class FileOwner { Anyone, Trusted };

// Which file it was, and in which state: any write to it, or another file in its place, changes this.
struct FileIdentity {
  uint64_t device = 0, number = 0, bytes = 0;
  int64_t modified_ns = 0, changed_ns = 0;  // the second is set by the system alone
};

class MappedFile {
 public:
  // ModelNotFound if there is no file; Io if it is not a regular file, not trusted, or the system refuses; OutOfMemory.
  MappedFile(const std::string& path, MapMode mode, FileOwner owner = FileOwner::Anyone);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const uint8_t> bytes() const { return {data_, size_}; }
  const FileIdentity& identity() const { return identity_; }  // when it was opened

  // Tells the system that the whole pages inside bytes()[offset, offset + length) are not needed soon, so that it may
  // free them. They stay readable. Does nothing in copy mode.
  void release(size_t offset, size_t length) const;

 private:
  uint8_t* data_ = nullptr;  // nullptr when the file is empty
  size_t size_ = 0;
  MapMode mode_;
  FileIdentity identity_;
};

// Why a file or folder of this status (struct stat) is not Trusted; empty: it is.
std::string distrust(const struct stat& status);

}  // namespace ke
