#include "cpu/shared_panels.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>

#include "base/error.h"
#include "cpu/known_digests.h"
#include "format/gguf.h"

namespace ke::cpu {

namespace {

namespace fs = std::filesystem;

constexpr auto kLockPause = std::chrono::milliseconds(20);

// Makes the folder, for this user alone, where it is missing. Io if it cannot be made, or others may write into it.
void take_folder(const std::string& folder) {
  KE_CHECK(folder.find('\0') == std::string::npos, Io, "a path cannot contain a zero byte");
  struct stat status;
  if (stat(folder.c_str(), &status) != 0) {
    std::error_code error;
    const fs::path parent = fs::path(folder).parent_path();
    if (!parent.empty()) fs::create_directories(parent, error);
    if (mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST)
      fail(ErrorCode::Io, folder, ": cannot be made: ", std::strerror(errno));
    KE_CHECK(stat(folder.c_str(), &status) == 0, Io, folder, ": cannot be examined: ", std::strerror(errno));
  }
  KE_CHECK(S_ISDIR(status.st_mode), Io, folder, ": expected a folder");
  const std::string why = distrust(status);
  KE_CHECK(why.empty(), Io, folder, ": ", why);
}

// What killed makers of this file have left; under its lock.
void remove_parts(const std::string& folder, const std::string& path) {
  const std::string begin = fs::path(path).filename().string() + ".", end = ".part";
  std::error_code error;
  for (fs::directory_iterator i(folder, error), last; !error && i != last; i.increment(error)) {
    const std::string name = i->path().filename().string();
    if (name.starts_with(begin) && name.ends_with(end)) unlink(i->path().c_str());
  }
}

}  // namespace

SharedPanels::SharedPanels(ThreadPool& pool, const std::string& isa, int group, bool to_i8,
                           const SharingRequest& request)
    : pool_(pool), folder_(request.folder), step_(request.step) {
  key_.group = static_cast<uint32_t>(group);
  key_.to_i8 = to_i8;
  for (const MappedFile* file : request.model->files()) model_.push_back(file->bytes());
  try {
    take_folder(folder_);
    key_.model = model_digest(request);
    path_ = concat(folder_, "/", hex_of(key_.model).substr(0, 32), "-l", kPanelLayout, "-", isa, ".weights");
    open_or_make(request);
  } catch (const Error& e) {
    if (e.code() == ErrorCode::Cancelled || e.code() == ErrorCode::Internal) throw;
    note(e.what());
    writer_.reset();
    lock_.reset();
  }
}

SharedPanels::~SharedPanels() = default;

void SharedPanels::note(const std::string& text) { sharing_.note += (sharing_.note.empty() ? "" : "; ") + text; }

void SharedPanels::open_or_make(const SharingRequest& request) {
  if (step_ != SharingStep::MakeAgain && open(path_, false)) return;
  if (step_ == SharingStep::Use) return note(concat(path_, ": is not there"));
  lock(request, path_ + ".lock");
  if (step_ != SharingStep::MakeAgain && open(path_, true)) {
    lock_.reset();
    return;
  }
  remove_parts(folder_, path_);
  const std::vector<const MappedFile*> files = request.model->files();
  writer_ = std::make_unique<PanelWriter>(path_, key_, request.model->path());
}

// complain: say what is wrong with a file that is there.
bool SharedPanels::open(const std::string& path, bool complain) {
  try {
    auto file = std::make_shared<const PanelFile>(path);
    const PanelFileKey& key = file->key();
    KE_CHECK(key.model == key_.model && key.group == key_.group && key.to_i8 == key_.to_i8, ModelCorrupt, path,
             ": has the weights of ", hex_of(key.model).substr(0, 32), ", group ", key.group, "; expected ",
             hex_of(key_.model).substr(0, 32), ", group ", key_.group);
    file_ = std::move(file);
    sharing_.file = path;
    return true;
  } catch (const Error& e) {
    if (complain && e.code() != ErrorCode::ModelNotFound) note(concat("made again, ", e.what()));
    return false;
  }
}

void SharedPanels::lock(const SharingRequest& request, const std::string& path) {
  lock_ = std::make_unique<FileLock>(path);
  while (!lock_->try_lock()) {
    if (request.wait) request.wait();
    std::this_thread::sleep_for(kLockPause);
  }
}

Digest SharedPanels::digest_of(std::span<const uint8_t> bytes) {
  return digest_by_pieces(bytes, [&](int64_t n, const std::function<void(int64_t)>& piece) {
    pool_.parallel_for(n, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) piece(i);
    });
  });
}

// Of all its files. Reading them takes about as long as packing, so what is known of a file in this state is kept.
Digest SharedPanels::model_digest(const SharingRequest& request) {
  constexpr size_t stretch = size_t{64} << 20;  // between two looks at whether the load goes on
  std::vector<uint8_t> all;
  for (const MappedFile* file : request.model->files()) {
    std::optional<Digest> digest = known_digest(folder_, file->identity());
    if (!digest) {
      std::vector<uint8_t> stretches;
      const std::span<const uint8_t> bytes = file->bytes();
      for (size_t begin = 0; begin < bytes.size(); begin += stretch) {
        if (request.wait) request.wait();
        const size_t length = std::min(stretch, bytes.size() - begin);
        const Digest part = digest_of(bytes.subspan(begin, length));
        stretches.insert(stretches.end(), part.begin(), part.end());
        file->release(begin, length);
      }
      digest = blake2b(stretches);
      know_digest(folder_, file->identity(), *digest);
    }
    all.insert(all.end(), digest->begin(), digest->end());
  }
  return blake2b(all);
}

PanelSourceKey SharedPanels::source_of(const Tensor& t, const PanelKey& key, uint64_t computed) const {
  PanelSourceKey source{kComputed, static_cast<uint32_t>(t.dtype),  computed, t.rows(),
                        t.cols(),  static_cast<uint32_t>(key.type), 0,        key.packed_cols,
                        key.bytes};
  const auto begin_of = [](const uint8_t* p) { return reinterpret_cast<uintptr_t>(p); };
  for (size_t i = 0; i < model_.size(); ++i) {
    const uintptr_t begin = begin_of(model_[i].data()), at = begin_of(t.data);
    if (at < begin || at >= begin + model_[i].size()) continue;
    source.file = static_cast<uint32_t>(i);
    source.offset = at - begin;
  }
  return source;
}

const uint8_t* SharedPanels::find(const Tensor& tensor, const PanelKey& key) {
  if (!file_) return nullptr;
  const PanelSourceKey source = source_of(tensor, key, computed_);
  if (source.file == kComputed) return nullptr;
  const uint8_t* panels = file_->find(source);
  if (panels)
    sharing_.shared_bytes += key.bytes;
  else
    ++missing_;
  return panels;
}

const uint8_t* SharedPanels::keep(const Tensor& tensor, const PanelKey& key, const uint8_t* panels) {
  const PanelSourceKey source = source_of(tensor, key, computed_);
  if (source.file == kComputed) ++computed_;
  if (writer_ && !writer_->has(source)) writer_->add(source, panels, digest_of({panels, key.bytes}));
  if (file_ && source.file == kComputed) {
    const uint8_t* stored = file_->find(source);
    if (stored && std::memcmp(stored, panels, key.bytes) == 0) {
      sharing_.shared_bytes += key.bytes;
      return stored;
    }
    ++missing_;
  }
  sharing_.private_bytes += key.bytes;
  return nullptr;
}

Sharing SharedPanels::finish(std::optional<SharingStep>* again) {
  if (writer_) {
    if (writer_->finish()) {
      *again = SharingStep::Use;
      sharing_.made = true;
    } else {
      note(writer_->error());
    }
    writer_.reset();
  } else if (file_ && missing_ > 0) {
    note(concat(path_, ": lacks ", missing_, " of the matrices"));
    if (step_ == SharingStep::UseOrMake) *again = SharingStep::MakeAgain;
  }
  lock_.reset();
  return sharing_;
}

}  // namespace ke::cpu
