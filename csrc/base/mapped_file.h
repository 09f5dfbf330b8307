// The bytes of a regular file, read-only: mapped into memory, or copied into it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace ke {

// Mapped pages are read from disk on first access; if another process truncates the file meanwhile, the system kills
// this process (SIGBUS). A copy is immune to that and takes as much memory as the file is long.
enum class MapMode { Map, Copy };

class MappedFile {
 public:
  // ModelNotFound if there is no file; Io if it is not a regular file or the system refuses; OutOfMemory.
  MappedFile(const std::string& path, MapMode mode);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const uint8_t> bytes() const { return {data_, size_}; }

  // Tells the system that the whole pages inside bytes()[offset, offset + length) are not needed soon, so that it may
  // free them. They stay readable. Does nothing in copy mode.
  void release(size_t offset, size_t length) const;

 private:
  uint8_t* data_ = nullptr;  // nullptr when the file is empty
  size_t size_ = 0;
  MapMode mode_;
};

}  // namespace ke
