// One load's use of a folder of panel files: finds the model's file and maps it, or makes it while the model loads.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backend/sharing.h"
#include "base/file_lock.h"
#include "base/thread_pool.h"
#include "cpu/kernels.h"
#include "cpu/panel_file.h"
#include "format/tensor.h"

namespace ke::cpu {

// How a tensor is packed.
struct PanelKey {
  PanelType type;
  int64_t packed_cols;
  size_t bytes;
};

class SharedPanels {
 public:
  // isa: of the kernels; weights that are computed may differ from one to the next, so each has its file.
  // Throws what request.wait throws, and nothing else: where there is no folder, no disk space and so on, the load goes
  // on without, and finish() says why.
  SharedPanels(ThreadPool& pool, const std::string& isa, int group, bool to_i8, const SharingRequest& request);
  ~SharedPanels();

  // The tensor's panels in the mapped file; nullptr: to be packed, and then told to keep(). For tensors of the model's
  // files only, which say by their place what they are.
  const uint8_t* find(const Tensor& tensor, const PanelKey& key);
  // Writes the panels where a file is made. Where one is mapped: weights that are computed are compared with what it
  // has, and the equal bytes in it are to be used instead; else nullptr.
  const uint8_t* keep(const Tensor& tensor, const PanelKey& key, const uint8_t* panels);
  std::shared_ptr<const PanelFile> file() const { return file_; }

  Sharing finish(std::optional<SharingStep>* again);

 private:
  void open_or_make(const SharingRequest& request);
  bool open(const std::string& path, bool complain);
  void lock(const SharingRequest& request, const std::string& path);
  Digest model_digest(const SharingRequest& request);
  Digest digest_of(std::span<const uint8_t> bytes);
  PanelSourceKey source_of(const Tensor& tensor, const PanelKey& key, uint64_t computed) const;
  void note(const std::string& text);

  ThreadPool& pool_;
  std::string folder_, path_;
  PanelFileKey key_;
  std::vector<std::span<const uint8_t>> model_;  // bytes of the model's files
  SharingStep step_;
  std::shared_ptr<const PanelFile> file_;
  std::unique_ptr<FileLock> lock_;
  std::unique_ptr<PanelWriter> writer_;
  uint64_t computed_ = 0;  // weights of no file so far
  size_t missing_ = 0;     // weights that the mapped file should have
  Sharing sharing_;
};

}  // namespace ke::cpu
