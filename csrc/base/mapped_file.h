// The bytes of a regular file, read-only: mapped into memory, or copied into it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace ke {

// Mapped pages are read from the disk when they are touched; if someone truncates the file meanwhile, the system kills
// the process (SIGBUS). A copy is immune to that and costs the file's size in memory.
enum class MapMode { Map, Copy };

class MappedFile {
 public:
  // ModelNotFound when nothing is there; Io when it is no regular file or the system refuses; OutOfMemory.
  MappedFile(const std::string& path, MapMode mode);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const uint8_t> bytes() const { return {data_, size_}; }

  // The whole pages inside bytes()[offset, offset + length) will not be needed soon: the system may take them back.
  // They stay readable. Nothing happens in copy mode.
  void release(size_t offset, size_t length) const;

 private:
  uint8_t* data_ = nullptr;  // nullptr when the file is empty
  size_t size_ = 0;
  MapMode mode_;
};

}  // namespace ke
