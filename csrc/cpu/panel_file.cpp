#include "cpu/panel_file.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file_write.h"

namespace ke::cpu {

namespace {

constexpr char kMagic[8] = {'K', 'E', 'P', 'A', 'N', 'E', 'L', 'S'};
constexpr uint64_t kPage = 4096, kMaxEntries = 1 << 17, kMaxOrigin = 4096;

uint64_t padded(uint64_t place) { return (place + kPage - 1) / kPage * kPage; }

Digest checksum_of(PanelFileHeader header, std::span<const uint8_t> rest) {
  header.checksum = {};
  std::vector<uint8_t> all(sizeof header + rest.size());
  std::memcpy(all.data(), &header, sizeof header);
  if (!rest.empty()) std::memcpy(all.data() + sizeof header, rest.data(), rest.size());
  return blake2b(all);
}

}  // namespace

PanelFile::PanelFile(const std::string& path) : file_(path, MapMode::Map, FileOwner::Trusted) {
  const std::span<const uint8_t> all = file_.bytes();
  const auto check = [&](bool ok, const auto&... what) { KE_CHECK(ok, ModelCorrupt, path, ": ", what...); };
  PanelFileHeader h;
  check(all.size() >= sizeof h, "expected at least ", sizeof h, " bytes, found ", all.size());
  std::memcpy(&h, all.data(), sizeof h);
  check(std::memcmp(h.magic, kMagic, sizeof kMagic) == 0, "not a file of shared weights: expected it to begin with ",
        std::string_view(kMagic, sizeof kMagic));
  check(h.layout == kPanelLayout, "layout ", h.layout, "; expected ", kPanelLayout);
  check(h.file_bytes == all.size(), "expected ", h.file_bytes, " bytes, found ", all.size());
  check(h.entries <= kMaxEntries && h.origin_bytes <= kMaxOrigin && h.table >= sizeof h && h.table <= all.size() &&
            all.size() - h.table == h.entries * sizeof(PanelEntry) + h.origin_bytes,
        "the table of ", h.entries, " entries at byte ", h.table, " does not end with the file");
  check(checksum_of(h, all.subspan(h.table)) == h.checksum, "header and table do not have their checksum");
  entries_.resize(h.entries);
  if (h.entries) std::memcpy(entries_.data(), all.data() + h.table, h.entries * sizeof(PanelEntry));
  for (size_t i = 0; i < entries_.size(); ++i) {
    const PanelEntry& e = entries_[i];
    check(e.place % kPage == 0 && e.place >= sizeof h && e.place <= h.table && e.source.bytes <= h.table - e.place,
          "entry ", i, ": ", e.source.bytes, " bytes at ", e.place, " are not before the table at ", h.table);
    check(i == 0 || entries_[i - 1].source < e.source, "entry ", i, " is not in order");
  }
  origin_.assign(reinterpret_cast<const char*>(all.data() + all.size() - h.origin_bytes), h.origin_bytes);
  key_ = {h.model, h.group, h.to_i8};
}

const uint8_t* PanelFile::find(const PanelSourceKey& source) const {
  const auto at = std::lower_bound(entries_.begin(), entries_.end(), source,
                                   [](const PanelEntry& e, const PanelSourceKey& wanted) { return e.source < wanted; });
  return at != entries_.end() && at->source == source ? file_.bytes().data() + at->place : nullptr;
}

size_t PanelFile::damaged(const DigestOf& digest_of) const {
  return static_cast<size_t>(std::count_if(entries_.begin(), entries_.end(), [&](const PanelEntry& e) {
    return digest_of(file_.bytes().subspan(e.place, e.source.bytes)) != e.digest;
  }));
}

std::string PanelWriter::temporary_of(const std::string& path, const std::string& tag) {
  return path + "." + tag + ".part";
}

PanelWriter::PanelWriter(std::string path, const PanelFileKey& key, std::string origin)
    : path_(std::move(path)),
      temporary_(temporary_of(path_, std::to_string(getpid()))),
      origin_(origin.size() <= kMaxOrigin ? std::move(origin) : ""),
      header_{},
      end_(padded(sizeof header_)) {
  std::memcpy(header_.magic, kMagic, sizeof kMagic);
  header_.layout = kPanelLayout;
  header_.model = key.model;
  header_.group = key.group;
  header_.to_i8 = key.to_i8;
  unlink(temporary_.c_str());  // of a process that had this number and was killed
  fd_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd_ < 0) give_up("cannot be made", errno);
}

PanelWriter::~PanelWriter() {
  if (fd_ < 0) return;
  close(fd_);
  unlink(temporary_.c_str());
}

void PanelWriter::give_up(const std::string& what, int error) {
  error_ = concat(temporary_, ": ", what, ": ", std::strerror(error));
  if (fd_ < 0) return;
  close(fd_);
  unlink(temporary_.c_str());
  fd_ = -1;
}

void PanelWriter::write(const void* bytes, size_t size, uint64_t place) {
  if (fd_ < 0) return;
  const int error = write_at(fd_, bytes, size, place);
  if (error) give_up("cannot be written", error);
}

bool PanelWriter::has(const PanelSourceKey& source) const {
  return std::any_of(entries_.begin(), entries_.end(), [&](const PanelEntry& e) { return e.source == source; });
}

void PanelWriter::add(const PanelSourceKey& source, const uint8_t* panels, const Digest& digest) {
  if (fd_ < 0) return;
  write(panels, source.bytes, end_);
  entries_.push_back({source, end_, digest});
  end_ = padded(end_ + source.bytes);
}

bool PanelWriter::finish() {
  if (fd_ < 0) return false;
  std::sort(entries_.begin(), entries_.end(),
            [](const PanelEntry& a, const PanelEntry& b) { return a.source < b.source; });
  std::vector<uint8_t> rest(entries_.size() * sizeof(PanelEntry) + origin_.size());
  if (!entries_.empty()) std::memcpy(rest.data(), entries_.data(), entries_.size() * sizeof(PanelEntry));
  if (!origin_.empty()) std::memcpy(rest.data() + rest.size() - origin_.size(), origin_.data(), origin_.size());
  header_.entries = static_cast<uint32_t>(entries_.size());
  header_.table = end_;
  header_.origin_bytes = origin_.size();
  header_.file_bytes = end_ + rest.size();
  header_.checksum = checksum_of(header_, rest);
  write(rest.data(), rest.size(), end_);
  write(&header_, sizeof header_, 0);
  if (fd_ >= 0 && fsync(fd_) != 0) give_up("cannot be written", errno);
  if (fd_ >= 0 && std::rename(temporary_.c_str(), path_.c_str()) != 0) give_up("cannot be renamed", errno);
  if (fd_ < 0) return false;
  close(fd_);
  fd_ = -1;
  return true;
}

Digest digest_by_pieces(std::span<const uint8_t> bytes,
                        const std::function<void(int64_t, const std::function<void(int64_t)>&)>& run) {
  constexpr size_t piece = size_t{1} << 20;
  const size_t count = (bytes.size() + piece - 1) / piece;
  std::vector<Digest> digests(count);
  run(static_cast<int64_t>(count), [&](int64_t i) {
    const size_t begin = static_cast<size_t>(i) * piece;
    digests[static_cast<size_t>(i)] = blake2b(bytes.subspan(begin, std::min(piece, bytes.size() - begin)));
  });
  return blake2b({reinterpret_cast<const uint8_t*>(digests.data()), count * sizeof(Digest)});
}

}  // namespace ke::cpu
