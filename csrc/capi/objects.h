// What the handles of the C interface stand for. Const once they have a handle.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "capi/support.h"
#include "engine/engine.h"
#include "tasks/answer.h"
#include "tasks/prompts.h"
#include "tasks/rank.h"

namespace ke::capi {

struct ErrorObject {
  static constexpr Kind kind = Kind::Error;
  kosmos_status status = KOSMOS_OK;
  std::string message;
};

struct CancelObject {
  static constexpr Kind kind = Kind::Cancel;
  CancelToken token;
};

struct ModelObject {
  static constexpr Kind kind = Kind::Model;
  std::shared_ptr<const Engine> engine;
  const ModelInfo& about() const { return engine->model().info(); }
  std::string name, notice, device, description, isa, architecture, preprocessing;
  std::vector<std::string> tasks;
  std::vector<const char*> task_names;  // of tasks
  kosmos_model_info info{};
  kosmos_log_callback on_log = nullptr;
  void* user = nullptr;
  int64_t process = process_number();

  ModelObject() = default;
  ~ModelObject();
  ModelObject(const ModelObject&) = delete;
  ModelObject& operator=(const ModelObject&) = delete;

  template <class... Args>
  void log(int32_t level, const Args&... args) const {
    if (on_log) on_log(level, well_formed(concat(args...)).c_str(), user);
  }
};

struct ImageObject {
  static constexpr Kind kind = Kind::Image;
  std::shared_ptr<const ImageEmbedding> embedding;
  std::weak_ptr<const Engine> engine;  // that encoded it; an image must not keep a freed model in memory
  int32_t width = 0, height = 0;
};

// An entity as it is handed out; the view points into this object.
struct EntityObject {
  std::string phrase;
  size_t start = 0, end = 0;
  double score = 0, phrase_score = 0, phrase_mean = 0, found_score = 0;
  std::vector<kosmos_box> boxes;

  EntityObject(const AnswerEntity& e, int32_t width, int32_t height);
  kosmos_entity view() const;
};

struct ResultObject {
  static constexpr Kind kind = Kind::Result;
  std::string text, device, model;
  std::vector<EntityObject> entities;
  std::vector<int32_t> token_ids;
  std::vector<float> logprobs, top_logprobs;
  std::vector<int32_t> top_token_ids;
  std::vector<std::string> notes;
  std::vector<const char*> note_texts;  // of notes
  kosmos_result_info info{};
};

struct RankingObject {
  static constexpr Kind kind = Kind::Ranking;
  Ranking ranking;
  std::string device, model;
  std::vector<const char*> note_texts;  // of ranking.notes
  kosmos_ranking_info info{};
};

// The model of a handle; KOSMOS_ERROR_FORKED in a child of the process that loaded it.
std::shared_ptr<ModelObject> model_of(const kosmos_model* handle);
// The image of a handle, checked to be one of this model.
std::shared_ptr<ImageObject> image_of(const kosmos_image* handle, const ModelObject& model, const char* name);

// The token that a call polls: the host's flag and its abort callback.
struct CallCancel {
  CallCancel(kosmos_cancel* handle, kosmos_abort_callback on_abort, void* user);
  std::shared_ptr<CancelObject> flag;
  CancelToken token;
};

kosmos_box box_of(const Box& box, std::pair<int32_t, int32_t> cells, double score, int32_t width, int32_t height);
// The cells of a region; pixels are of a picture of width x height (0: there is none).
std::pair<int32_t, int32_t> cells_of(const kosmos_region& region, int32_t width, int32_t height, int64_t bins,
                                     const char* name);

}  // namespace ke::capi
