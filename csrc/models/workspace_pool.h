// Workspaces not in use; a call leases one, so that callers in parallel never share activations. The memory of large
// ones is given back: a page's encoder needs hundreds of megabytes for seconds, and the answer that follows takes as
// many.
#pragma once
#include <memory>
#include <mutex>
#include <vector>

#include "layers/workspace.h"

namespace ke {

class WorkspacePool {
 public:
  static constexpr int64_t kKeptBytes = int64_t{128} << 20;
  explicit WorkspacePool(Backend& backend) : backend_(backend) {}
  class Lease {
   public:
    Lease(WorkspacePool& pool, std::unique_ptr<Workspace> ws) : pool_(pool), ws_(std::move(ws)) {}
    ~Lease() {
      if (ws_->bytes() > kKeptBytes) ws_->release();
      std::lock_guard lock(pool_.mutex_);
      pool_.free_.push_back(std::move(ws_));
    }
    Workspace& operator*() { return *ws_; }

   private:
    WorkspacePool& pool_;
    std::unique_ptr<Workspace> ws_;
  };
  Lease lease() {
    std::lock_guard lock(mutex_);
    if (free_.empty()) {
      free_.reserve(++made_);  // so that giving one back never allocates
      return {*this, std::make_unique<Workspace>(backend_)};
    }
    std::unique_ptr<Workspace> ws = std::move(free_.back());
    free_.pop_back();
    return {*this, std::move(ws)};
  }

 private:
  Backend& backend_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Workspace>> free_;
  size_t made_ = 0;
};

}  // namespace ke
