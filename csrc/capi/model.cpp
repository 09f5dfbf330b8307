// Models and cancel flags of the C interface.
#include "base/limits.h"
#include "capi/objects.h"

namespace ke::capi {
namespace {

std::shared_ptr<ModelObject> load(const char* path, const kosmos_load_options& o) {
  KE_CHECK(path != nullptr, InvalidRequest, "path: expected the path of a model file, got NULL");
  KE_CHECK(o.threads >= 0 && o.threads <= limits::kMaxThreads, InvalidRequest, "threads: expected 0..",
           limits::kMaxThreads, ", got ", o.threads);
  KE_CHECK(o.copy == 0 || o.copy == 1, InvalidRequest, "copy: expected 0 or 1, got ", o.copy);
  const std::shared_ptr<CancelObject> flag = o.cancel ? object_of<CancelObject>(o.cancel, "cancel") : nullptr;
  LoadOptions options;
  options.backend.device = o.device ? o.device : "auto";
  options.backend.isa = o.isa ? o.isa : "";
  options.backend.threads = o.threads;
  options.mmproj = o.mmproj ? o.mmproj : "";
  options.kv_type = kv_type_of(o.kv_type ? o.kv_type : "f16");
  KE_CHECK(!o.shared_weights || *o.shared_weights, InvalidRequest,
           "shared_weights: expected a folder, or NULL, got an empty path");
  options.shared_weights = o.shared_weights ? o.shared_weights : "";
  options.mode = o.copy ? LoadMode::Copy : LoadMode::Mmap;
  options.on_progress = [&](uint64_t done, uint64_t total) {
    if (flag) flag->token.check();
    KE_CHECK(!o.on_progress || o.on_progress(done, total, o.user) == 0, Cancelled,
             "the load was ended by the progress callback");
  };

  auto model = std::make_shared<ModelObject>();
  const std::shared_ptr<Engine> engine = Engine::load(path, options);
  const ModelInfo& about = engine->model().info();
  const Backend& backend = engine->backend();
  model->engine = engine;
  model->name = about.name;
  model->notice = about.notice;
  model->architecture = about.architecture;
  model->preprocessing = about.preprocessing;
  model->tasks = about.tasks();
  for (const std::string& task : model->tasks) model->task_names.push_back(task.c_str());
  model->device = backend.name();
  model->description = backend.description();
  model->isa = backend.isa();
  kosmos_model_info& info = model->info;
  info.name = model->name.c_str();
  info.notice = model->notice.c_str();
  info.device = model->device.c_str();
  info.description = model->description.c_str();
  info.isa = model->isa.c_str();
  info.threads = backend.threads();
  info.context_length = static_cast<int32_t>(about.context);
  info.image_tokens = static_cast<int32_t>(about.image_tokens);
  info.location_bins = static_cast<int32_t>(about.grounding ? about.grounding->bins : 0);
  info.vocabulary = static_cast<int32_t>(about.vocab);
  info.max_tokens = static_cast<int32_t>(about.max_new_tokens);
  info.no_repeat_ngram_size = static_cast<int32_t>(about.no_repeat_ngram_size);
  info.repetition_penalty = about.repetition_penalty;
  info.file_bytes = engine->file().file_bytes();
  info.architecture = model->architecture.c_str();
  info.preprocessing = model->preprocessing.c_str();
  info.tasks = model->task_names.data();
  info.task_count = model->task_names.size();
  const PromptFormats& prompts = about.prompts;  // live as long as the engine
  info.prompt_caption = prompts.caption.c_str();
  info.prompt_caption_detailed = prompts.caption_detailed.c_str();
  info.prompt_question = prompts.question.c_str();
  info.prompt_locate = prompts.locate.c_str();
  info.prompt_describe = prompts.describe.c_str();
  info.prompt_grounding = prompts.grounding.c_str();
  info.width = static_cast<int32_t>(about.width);
  info.kv_type = engine->kv_type();
  info.kv_token_bytes = engine->kv_position_bytes();
  info.weight_bytes_shared = engine->sharing().shared_bytes;
  info.prompt_read = prompts.read.c_str();
  info.prompt_markdown = prompts.markdown.c_str();
  model->on_log = o.on_log;
  model->user = o.user;
  model->log(KOSMOS_LOG_INFO, "loaded ", path, ": ", model->name, " on ", model->description);
  const Sharing& sharing = engine->sharing();
  if (!sharing.note.empty()) model->log(KOSMOS_LOG_WARNING, "shared weights: ", sharing.note);
  if (options.backend.device == "auto")
    for (const auto& [name, reason] : list_devices())
      if (!reason.empty()) model->log(KOSMOS_LOG_DEBUG, "device ", name, " is not used: ", reason);
  return model;
}

}  // namespace

// In a forked child the worker threads are not there, and waiting for them would not end: the engine is left alone.
ModelObject::~ModelObject() {
  if (process != process_number()) new (std::nothrow) std::shared_ptr<const Engine>(std::move(engine));
}

std::shared_ptr<ModelObject> model_of(const kosmos_model* handle) {
  std::shared_ptr<ModelObject> model = object_of<ModelObject>(handle, "model");
  if (model->process != process_number())
    throw StatusError(KOSMOS_ERROR_FORKED, "the model was loaded by the parent process: load it again in this one");
  return model;
}

CallCancel::CallCancel(kosmos_cancel* handle, kosmos_abort_callback on_abort, void* user)
    : flag(handle ? object_of<CancelObject>(handle, "cancel") : nullptr),
      token([f = flag, on_abort, user] { return (f && f->token.cancelled()) || (on_abort && on_abort(user) != 0); }) {}

}  // namespace ke::capi

using namespace ke;
using namespace ke::capi;

kosmos_status kosmos_cancel_create(kosmos_cancel** cancel, kosmos_error** error) noexcept {
  return guarded_new(cancel, error, "cancel",
                     [] { return insert_handle(Kind::Cancel, std::make_shared<CancelObject>()); });
}

kosmos_status kosmos_cancel_set(kosmos_cancel* cancel, kosmos_error** error) noexcept {
  return guarded(error, [&] { object_of<CancelObject>(cancel, "cancel")->token.cancel(); });
}

void kosmos_cancel_free(kosmos_cancel* cancel) noexcept { take_handle(cancel, Kind::Cancel); }

kosmos_status kosmos_model_load(const char* path, const kosmos_load_options* options, kosmos_model** model,
                                kosmos_error** error) noexcept {
  return guarded_new(model, error, "model", [&] {
    return insert_handle(Kind::Model, load(path, read_struct(options, "kosmos_load_options")));
  });
}

kosmos_status kosmos_model_get(const kosmos_model* model, kosmos_model_info* info, kosmos_error** error) noexcept {
  return guarded(error, [&] { write_struct(object_of<ModelObject>(model, "model")->info, info, "kosmos_model_info"); });
}

void kosmos_model_free(kosmos_model* model) noexcept { take_handle(model, Kind::Model); }
