// Engine, its parameters and results. The GIL is released while anything is computed.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>

#include <cstring>

#include "bindings/bind_engine.h"

namespace ke {

std::vector<Segment> to_segments(const nb::sequence& list) {
  std::vector<Segment> out;
  for (nb::handle item : list) {
    const auto [kind, value] = nb::cast<std::pair<std::string, nb::object>>(item);
    Segment s;
    if (kind == "text" || kind == "tags") {
      s.kind = kind == "text" ? Segment::Kind::Text : Segment::Kind::Tags;
      s.text = utf8_of(value);
    } else if (kind == "image" || kind == "rows") {
      s.kind = kind == "image" ? Segment::Kind::Image : Segment::Kind::Rows;
      s.image = nb::cast<std::shared_ptr<ImageEmbedding>>(value);
    } else if (kind == "boxes") {
      s.kind = Segment::Kind::Boxes;
      s.cells = nb::cast<std::vector<std::pair<int32_t, int32_t>>>(value);
    } else if (kind == "ids") {
      s.kind = Segment::Kind::Ids;
      s.ids = nb::cast<std::vector<int32_t>>(value);
    } else {
      fail(ErrorCode::InvalidRequest, "segment kind '", kind, "' is none of text, tags, image, rows, boxes, ids");
    }
    out.push_back(std::move(s));
  }
  return out;
}

std::shared_ptr<nb::object> shared_object(nb::object object) {
  return {new nb::object(std::move(object)), [](nb::object* o) {
            nb::gil_scoped_acquire acquire;
            delete o;
          }};
}

OnToken to_on_token(nb::object callable) {
  if (callable.is_none()) return nullptr;
  return [held = shared_object(std::move(callable))](int32_t id, float logprob) {
    nb::gil_scoped_acquire acquire;
    const nb::object go_on = (*held)(id, logprob);
    if (go_on.is_none()) return true;
    KE_CHECK(PyBool_Check(go_on.ptr()), InvalidRequest, "on_token must return True, False or None, got ",
             nb::cast<std::string>(nb::type_name(go_on.type())));
    return nb::cast<bool>(go_on);
  };
}

const char* reason_name(FinishReason r) {
  switch (r) {
    case FinishReason::Eos:
      return "stop";
    case FinishReason::StopString:
      return "stop_string";
    case FinishReason::Length:
      return "length";
    case FinishReason::Choice:
      return "choice";
    case FinishReason::Callback:
      return "callback";
  }
  return "";
}

namespace {

ImageView image_view(const BufferView& buffer, int64_t width, int64_t height) {
  check_image_size(width, height, "a picture");
  const size_t expected = static_cast<size_t>(width) * static_cast<size_t>(height) * 3;
  KE_CHECK(buffer.bytes().size() == expected, InvalidRequest, "RGB buffer of ", width, " x ", height, " needs ",
           expected, " bytes, got ", buffer.bytes().size());
  return {buffer.bytes().data(), width, height};
}

nb::bytes to_bytes(const std::vector<float>& v) { return nb::bytes(v.data(), v.size() * sizeof(float)); }

std::shared_ptr<Engine> load(const std::string& path, const std::string& device, int threads, const std::string& mode,
                             const std::string& isa, size_t prefix_bytes, const CancelToken* cancel,
                             const std::string& mmproj, nb::object progress, const std::string& kv_type,
                             const std::string& drafts, std::shared_ptr<ActivationRecorder> recorder,
                             const std::string& shared_weights) {
  LoadOptions o;
  o.recorder = std::move(recorder);
  std::shared_ptr<nb::object> held;
  if (!progress.is_none()) held = shared_object(std::move(progress));
  if (cancel || held)
    o.on_progress = [cancel, held](uint64_t done, uint64_t total) {
      if (cancel) cancel->check();
      if (!held) return;
      nb::gil_scoped_acquire acquire;
      (*held)(done, total);
    };
  o.backend = {device, threads, isa};
  KE_CHECK(mode == "mmap" || mode == "copy", InvalidRequest, "mode must be 'mmap' or 'copy', got '", mode, "'");
  o.prefix_bytes = prefix_bytes;
  o.mmproj = mmproj;
  o.kv_type = kv_type_of(kv_type);
  o.drafts = drafts;
  o.shared_weights = shared_weights;
  o.mode = mode == "mmap" ? LoadMode::Mmap : LoadMode::Copy;
  nb::gil_scoped_release release;
  return Engine::load(path, o);
}

std::shared_ptr<ImageEmbedding> encode_image(const Engine& e, const BufferArg& rgb, int64_t width, int64_t height,
                                             const CancelToken* cancel, bool keep) {
  const BufferView buffer(rgb);
  const ImageView view = image_view(buffer, width, height);
  nb::gil_scoped_release release;
  return std::const_pointer_cast<ImageEmbedding>(e.encode_image(view, cancel, keep));
}

std::shared_ptr<PreparedImage> prepare_image(const Engine& e, const BufferArg& rgb, int64_t width, int64_t height) {
  const BufferView buffer(rgb);
  const ImageView view = image_view(buffer, width, height);
  nb::gil_scoped_release release;
  return std::const_pointer_cast<PreparedImage>(std::shared_ptr<const PreparedImage>(e.prepare_image(view, nullptr)));
}

std::shared_ptr<ImageEmbedding> encode_prepared(const Engine& e, const PreparedImage& image, const CancelToken* cancel,
                                                bool keep) {
  nb::gil_scoped_release release;
  return std::const_pointer_cast<ImageEmbedding>(e.encode_prepared(image, cancel, keep));
}

std::vector<float> to_floats(const BufferArg& values) {
  const BufferView buffer(values);
  const std::span<const uint8_t> bytes = buffer.bytes();
  KE_CHECK(bytes.size() % sizeof(float) == 0, InvalidRequest, "float32 values are wanted, got ", bytes.size(),
           " bytes");
  std::vector<float> floats(bytes.size() / sizeof(float));
  if (!floats.empty()) std::memcpy(floats.data(), bytes.data(), bytes.size());
  return floats;
}

std::shared_ptr<ImageEmbedding> restore_image(const Engine& e, const BufferArg& values, int64_t width, int64_t height,
                                              bool keep) {
  return std::const_pointer_cast<ImageEmbedding>(e.restore_image(to_floats(values), width, height, keep));
}

std::shared_ptr<ImageEmbedding> given_rows(const Engine& e, const BufferArg& values, int64_t count, bool keep) {
  return std::const_pointer_cast<ImageEmbedding>(e.given_rows(to_floats(values), count, keep));
}

std::shared_ptr<ImageEmbedding> read_image(const Engine& e, const ImageEmbedding& image, const TextArg& words) {
  const std::string text = utf8_of(words);
  nb::gil_scoped_release release;
  return std::const_pointer_cast<ImageEmbedding>(e.read_image(image, text));
}

std::pair<nb::bytes, size_t> embed_texts(const Engine& e, const TextList& texts, bool truncate,
                                         const CancelToken* cancel) {
  std::vector<std::string> given;
  for (nb::handle text : texts) given.push_back(utf8_of(text));
  std::vector<float> values;
  size_t cut = 0;
  {
    nb::gil_scoped_release release;
    values = e.embed_texts(given, truncate, cancel, &cut);
  }
  return {to_bytes(values), cut};
}

Generation run_generate(const Engine& e, const SegmentList& segments, const GenerateParams& params,
                        TokenCallback on_token, const CancelToken* cancel) {
  const std::vector<Segment> s = to_segments(segments);
  const OnToken callback = to_on_token(std::move(on_token));
  nb::gil_scoped_release release;
  if (!params.guided_by_self) return e.generate(e.prompt(s), params, callback, cancel);
  GenerateParams guided = params;
  guided.blind = e.blind_prompt(s);
  return e.generate(e.prompt(s), guided, callback, cancel);
}

Scoring run_score(const Engine& e, const SegmentList& segments,
                  const nb::typed<nb::sequence, SegmentList>& continuations, const CancelToken* cancel) {
  const std::vector<Segment> s = to_segments(segments);
  std::vector<std::vector<Segment>> c;
  for (nb::handle item : continuations) c.push_back(to_segments(nb::cast<nb::sequence>(item)));
  nb::gil_scoped_release release;
  return e.score(e.prompt(s), c, cancel);
}

std::tuple<nb::bytes, int64_t, int64_t> run_states(const Engine& e, const SegmentList& segments,
                                                   const std::vector<int32_t>& answer) {
  const std::vector<Segment> s = to_segments(segments);
  std::vector<float> v;
  {
    nb::gil_scoped_release release;
    v = e.states(e.prompt(s), answer, nullptr);
  }
  const int64_t width = e.model().info().width;
  return {to_bytes(v), static_cast<int64_t>(v.size()) / width, width};
}

void set_relevance(GenerateParams& p, nb::object callable) {
  p.relevance = nullptr;
  if (callable.is_none()) return;
  p.relevance = [held = shared_object(std::move(callable))](const std::vector<int32_t>& answer,
                                                            const std::vector<int32_t>& candidates) {
    nb::gil_scoped_acquire acquire;
    return nb::cast<std::vector<double>>((*held)(answer, candidates));
  };
}

std::tuple<nb::bytes, int64_t, int64_t> run_logits(const Engine& e, const SegmentList& segments,
                                                   const std::vector<int32_t>& answer) {
  const std::vector<Segment> s = to_segments(segments);
  std::vector<float> v;
  {
    nb::gil_scoped_release release;
    v = e.logits(e.prompt(s), answer, nullptr);
  }
  const int64_t vocab = e.model().info().vocab;
  return {to_bytes(v), static_cast<int64_t>(v.size()) / vocab, vocab};
}

}  // namespace

void bind_engine(nb::module_& m) {
  nb::class_<CancelToken>(m, "CancelToken", "Cancels a running call from another thread.")
      .def(nb::init<>())
      .def("cancel", &CancelToken::cancel)
      .def_prop_ro("cancelled", &CancelToken::cancelled);

  nb::class_<PreparedImage>(m, "PreparedImage", "A picture as the encoder of the model that prepared it takes it.");

  nb::class_<ImageEmbedding>(m, "ImageEmbedding",
                             "An encoded picture: (rows, width) float32; rows are image tokens, or features.")
      .def_prop_ro("shape",
                   [](const ImageEmbedding& e) { return std::pair(e.features->shape()[0], e.features->shape()[1]); })
      .def_ro("encode_ms", &ImageEmbedding::encode_ms)
      .def_prop_ro("kept_positions", [](const ImageEmbedding& e) { return e.prefix ? e.prefix->positions() : 0; })
      .def_prop_ro("kept_bytes", [](const ImageEmbedding& e) { return e.prefix ? e.prefix->bytes() : 0; })
      .def("forget",
           [](const ImageEmbedding& e) {
             nb::gil_scoped_release release;
             e.forget();
           })
      .def("tobytes", [](const ImageEmbedding& e) { return to_bytes(e.features->save()); });

  nb::class_<GenerateParams>(m, "GenerateParams", "Decoding parameters; ranges are checked by Engine.generate.")
      .def(nb::init<>())
      .def_rw("max_tokens", &GenerateParams::max_tokens)
      .def_rw("num_beams", &GenerateParams::num_beams)
      .def_rw("length_penalty", &GenerateParams::length_penalty)
      .def_rw("stop", &GenerateParams::stop)
      .def_rw("choices", &GenerateParams::choices)
      .def_rw("grammar", &GenerateParams::grammar)
      .def_rw("logprobs", &GenerateParams::logprobs)
      .def_rw("top_logprobs", &GenerateParams::top_logprobs)
      .def_rw("hash_logits", &GenerateParams::hash_logits)
      .def_rw("draft", &GenerateParams::draft)
      .def_rw("degeneration_penalty", &GenerateParams::degeneration_penalty)
      .def_rw("image_weight", &GenerateParams::image_weight)
      .def_rw("guided_by_self", &GenerateParams::guided_by_self)
      .def("set_relevance", &set_relevance, nb::arg("relevance").none(),
           "(ids of the answer so far, candidates) -> a score for each candidate behind them; None: there is none.")
#define KE_SAMPLER_FIELD(type, field)                                  \
  .def_prop_rw(                                                        \
      #field, [](const GenerateParams& p) { return p.sampler.field; }, \
      [](GenerateParams& p, type value) { p.sampler.field = value; })
          KE_SAMPLER_FIELD(float, temperature) KE_SAMPLER_FIELD(int32_t, top_k) KE_SAMPLER_FIELD(uint64_t, seed)
              KE_SAMPLER_FIELD(int32_t, no_repeat_ngram_size) KE_SAMPLER_FIELD(float, repetition_penalty)
#undef KE_SAMPLER_FIELD
      .def_prop_rw(
          "top_p", [](const GenerateParams& p) { return p.sampler.top_p; },
          [](GenerateParams& p, double value) { p.sampler.top_p = narrow_top_p(value); });

  nb::class_<Generation>(m, "Generation", "An answer in token ids.")
      .def_ro("prompt_ids", &Generation::prompt_ids)
      .def_ro("token_ids", &Generation::ids)
      .def_ro("logprobs", &Generation::logprobs)
      .def_prop_ro(
          "top",
          [](const Generation& g) {
            std::vector<std::pair<int32_t, float>> out;
            for (const TokenLogprob& t : g.top) out.emplace_back(t.id, t.logprob);
            return out;
          },
          "[(id, ln p)]: top_logprobs of them for each id, the most likely first.")
      .def_prop_ro("finish_reason", [](const Generation& g) { return reason_name(g.reason); })
      .def_ro("stop_string", &Generation::stop_string)
      .def_ro("passes", &Generation::passes)
      .def_ro("drafted", &Generation::drafted, "Tokens that were tried ahead of their turn.")
      .def_ro("accepted", &Generation::accepted, "Those of them that came.")
      .def_ro("logits_hash", &Generation::logits_hash)
      .def_ro("reused", &Generation::reused)
      .def_ro("prefill_ms", &Generation::prefill_ms)
      .def_ro("decode_ms", &Generation::decode_ms);

  nb::class_<Scored>(m, "Scored", "A continuation's tokens and how likely they are.")
      .def_ro("token_ids", &Scored::ids)
      .def_ro("logprobs", &Scored::logprobs)
      .def_ro("greedy", &Scored::greedy);

  nb::class_<Scoring>(m, "Scoring", "How likely each continuation is.")
      .def_ro("continuations", &Scoring::continuations)
      .def_ro("reused", &Scoring::reused);

  nb::class_<Engine>(m, "Engine", "A model file on a device.")
      .def(nb::new_(&load), nb::arg("path"), nb::arg("device") = "auto", nb::arg("threads") = 0,
           nb::arg("mode") = "mmap", nb::arg("isa") = "", nb::arg("prefix_bytes") = LoadOptions{}.prefix_bytes,
           nb::arg("cancel").none() = nb::none(), nb::arg("mmproj") = "", nb::arg("progress").none() = nb::none(),
           nb::arg("kv_type") = "f16", nb::arg("drafts") = "", nb::arg("recorder").none() = nb::none(),
           nb::arg("shared_weights") = "")
      .def_prop_ro("metadata", [](const Engine& e) { return metadata_dict(e.file(), /*skip_longer_than=*/4096); })
      .def_prop_ro("info", [](const Engine& e) { return info_dict(e.model().info()); })
      .def_prop_ro("device", [](const Engine& e) { return e.backend().name(); })
      .def_prop_ro("description", [](const Engine& e) { return e.backend().description(); })
      .def_prop_ro("fallback", &Engine::fallback)
      .def_prop_ro(
          "sharing",
          [](const Engine& e) {
            const Sharing& s = e.sharing();
            AnyDict d;
            d["file"] = nb::steal(PyUnicode_DecodeFSDefault(s.file.c_str()));
            d["shared_bytes"] = s.shared_bytes;
            d["private_bytes"] = s.private_bytes;
            d["made"] = s.made;
            d["note"] = nb::steal(PyUnicode_DecodeFSDefault(s.note.c_str()));
            return d;
          },
          "How weights are shared with other processes: file (that is mapped; empty: none), shared_bytes,\n"
          "private_bytes, made (during this load), note (why not; empty: nothing to say).")
      .def_prop_ro("isa", [](const Engine& e) { return e.backend().isa(); })
      .def_prop_ro("threads", [](const Engine& e) { return e.backend().threads(); })
      .def_prop_ro(
          "kernel_choices", [](const Engine& e) { return choice_list(e.backend().kernel_choices()); },
          "Of each shape of matrix where there is a choice, a dict: types of the weights, in, out, chosen (the "
          "instruction set of products with one row; None: still measured), bytes_per_s of each candidate.")
      .def_prop_rw(
          "drafts", [](const Engine& e) { return draft_mode_name(e.drafts().mode()); },
          [](const Engine& e, const std::string& mode) { e.drafts().set_mode(draft_mode_of(mode, "drafts")); },
          "Which tokens are tried ahead of their turn by what earlier answers said: auto, fixed or off\n"
          "(docs/batching.md). Answers do not depend on it. Raises InvalidRequest.")
      .def_prop_ro("kv_type", &Engine::kv_type, "How keys and values are kept: f32, f16 or q8_0.")
      .def_prop_ro("kv_position_bytes", &Engine::kv_position_bytes, "Of keys and values, for a position of a sequence.")
      .def_prop_ro("context_length", [](const Engine& e) { return e.model().info().context; })
      .def_prop_ro("image_tokens", [](const Engine& e) { return e.model().info().image_tokens; })
      .def_prop_ro("location_bins",
                   [](const Engine& e) {
                     const auto& grounding = e.model().info().grounding;
                     return grounding ? grounding->bins : 0;
                   })
      .def_prop_ro("tokenizer", [](const Engine& e) { return std::const_pointer_cast<Tokenizer>(e.tokenizer()); })
      .def("encode_image", &encode_image, nb::arg("rgb"), nb::arg("width"), nb::arg("height"),
           nb::arg("cancel").none() = nb::none(), nb::arg("keep") = false)
      .def("prepare_image", &prepare_image, nb::arg("rgb"), nb::arg("width"), nb::arg("height"),
           "What is done to a picture before the encoder; needs no computing thread.")
      .def("encode_prepared", &encode_prepared, nb::arg("image"), nb::arg("cancel").none() = nb::none(),
           nb::arg("keep") = false)
      .def("given_rows", &given_rows, nb::arg("values"), nb::arg("count"), nb::arg("keep") = false,
           "Rows of the caller's own, for a segment ('rows', ...): (count, width) float32. Raises InvalidRequest.")
      .def("read_image", &read_image, nb::arg("image"), nb::arg("words"),
           "The rows of a picture beside these words, of a model whose rows depend on them. Raises InvalidRequest,\n"
           "ContextTooLong.")
      .def("restore_image", &restore_image, nb::arg("values"), nb::arg("width") = 0, nb::arg("height") = 0,
           nb::arg("keep") = false, "The same features of ImageEmbedding.tobytes(); width, height: of the picture.")
      .def("embed_texts", &embed_texts, nb::arg("texts"), nb::arg("truncate") = false,
           nb::arg("cancel").none() = nb::none(),
           "Of a model that compares images and texts: the vectors of texts, (texts, embedding) float32, each of "
           "length\n"
           "1, and how many texts were cut. Raises InvalidRequest, ContextTooLong, Cancelled.")
      .def("generate", &run_generate, nb::arg("segments"), nb::arg("params"), nb::arg("on_token").none() = nb::none(),
           nb::arg("cancel").none() = nb::none())
      .def("score", &run_score, nb::arg("segments"), nb::arg("continuations"), nb::arg("cancel").none() = nb::none())
      .def(
          "prompt_ids",
          [](const Engine& e, const SegmentList& segments) {
            const std::vector<Segment> s = to_segments(segments);
            nb::gil_scoped_release release;
            return e.prompt(s).told().ids;
          },
          nb::arg("segments"))
      .def("states", &run_states, nb::arg("segments"), nb::arg("answer") = std::vector<int32_t>{},
           "As logits, the last layer's hidden states behind the last norm: (positions, width) float32.")
      .def("logits", &run_logits, nb::arg("segments"), nb::arg("answer") = std::vector<int32_t>{});
}

}  // namespace ke
