// A file of panels (panels.h), made once per model and kernel layout and then mapped by any number of processes.
//
//   header      PanelFileHeader
//   panels      of each entry, at a multiple of 4,096 bytes
//   table       PanelEntry of each
//   origin      path of the model file, for people
//
// All numbers are little endian. The checksum is of the header (its own bytes as zeros), the table and the origin. It
// finds damage, not forgery: whoever can write into the user's folder can write any weights. So every place is checked
// against the file, and an entry is used only where the model asks for exactly its source, layout and size.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/blake2b.h"
#include "base/mapped_file.h"

namespace ke::cpu {

// To be raised whenever the same tensor gives other panels (tests/native/shared_weights.cpp holds their digest).
constexpr uint32_t kPanelLayout = 2;
constexpr uint32_t kComputed = 0xffffffff;  // PanelEntry::file of weights that are computed from several tensors

struct PanelFileKey {
  Digest model;        // of the contents of its files
  uint32_t group = 0;  // panels that the kernels take at once
  uint32_t to_i8 = 0;  // Kernels::prefers_i8
};

struct PanelFileHeader {
  char magic[8];
  uint32_t layout;  // kPanelLayout
  uint32_t entries;
  Digest model;
  uint32_t group, to_i8;
  uint64_t file_bytes, table, origin_bytes;
  Digest checksum;
};
static_assert(sizeof(PanelFileHeader) == 112);

// What panels are of. Two sources are the same where all of this is.
struct PanelSourceKey {
  uint32_t file;    // of the model's; kComputed: of none
  uint32_t dtype;   // of the tensor
  uint64_t offset;  // of the tensor in its file; of computed weights: how many of them came before
  int64_t rows, cols;
  uint32_t type, zero;  // PanelType
  int64_t packed_cols;
  uint64_t bytes;  // of the panels
  auto operator<=>(const PanelSourceKey&) const = default;
};

struct PanelEntry {
  PanelSourceKey source;
  uint64_t place;  // in the file
  Digest digest;   // of the panels, see digest_of
};
static_assert(sizeof(PanelEntry) == 96);

using DigestOf = std::function<Digest(std::span<const uint8_t>)>;

class PanelFile {
 public:
  // ModelNotFound, Io and OutOfMemory as MappedFile (owner: Trusted); ModelCorrupt, saying what is wrong, if it is not
  // whole or not a file of this version.
  explicit PanelFile(const std::string& path);

  const PanelFileKey& key() const { return key_; }
  const std::string& origin() const { return origin_; }
  uint64_t bytes() const { return file_.bytes().size(); }
  const std::vector<PanelEntry>& entries() const { return entries_; }  // ascending by source
  const uint8_t* find(const PanelSourceKey& source) const;             // nullptr: it is not here
  // How many entries' panels are not what was written.
  size_t damaged(const DigestOf& digest_of) const;

 private:
  MappedFile file_;
  PanelFileKey key_;
  std::string origin_;
  std::vector<PanelEntry> entries_;
};

// Writes one under a name of its own and renames it when it is whole. No failure throws: the first ends the writing,
// removes the file, and is told by error().
class PanelWriter {
 public:
  PanelWriter(std::string path, const PanelFileKey& key, std::string origin);
  ~PanelWriter();
  PanelWriter(const PanelWriter&) = delete;
  PanelWriter& operator=(const PanelWriter&) = delete;

  void add(const PanelSourceKey& source, const uint8_t* panels, const Digest& digest);  // not twice the same source
  bool has(const PanelSourceKey& source) const;
  bool finish();  // whether the file is there now
  const std::string& error() const { return error_; }
  static std::string temporary_of(const std::string& path, const std::string& tag);

 private:
  void write(const void* bytes, size_t size, uint64_t place);
  void give_up(const std::string& what, int error);

  std::string path_, temporary_, origin_, error_;
  PanelFileHeader header_;
  std::vector<PanelEntry> entries_;
  uint64_t end_;
  int fd_ = -1;
};

// Digest of many bytes, by pieces of 1 MB (the last may be shorter): that of all their digests, one after another.
// run(n, piece): calls piece(i) for 0 .. n - 1, in any order and on any thread.
Digest digest_by_pieces(std::span<const uint8_t> bytes,
                        const std::function<void(int64_t, const std::function<void(int64_t)>&)>& run);

}  // namespace ke::cpu
