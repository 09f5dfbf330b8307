// kosmos_edge._core.testing: a decoder and a vision tower of any shape, for tests against other implementations.
#include <nanobind/stl/unique_ptr.h>

#include <cstring>
#include <memory>

#include "bindings/bind_common.h"
#include "engine/engine.h"
#include "format/gguf.h"
#include "layers/decoder.h"
#include "layers/grid_vit.h"
#include "layers/projector.h"
#include "layers/qformer.h"
#include "layers/resampler.h"
#include "layers/vit.h"

namespace ke {
namespace {

// Values of a dict by name; what is absent has the default.
class Given {
 public:
  explicit Given(const nb::dict& values) : values_(values) {}
  template <class T>
  T get(const char* name, T absent) const {
    return values_.contains(name) ? nb::cast<T>(values_[name]) : absent;
  }
  int64_t count(const char* name) const { return nb::cast<int64_t>(values_[name]); }

 private:
  const nb::dict& values_;
};

BlockShape block_shape(const Given& g);

// "cross": a dict of the block's values, "every", "first", "memory_width", "head_norms".
CrossShape cross_shape(const Given& g) {
  CrossShape s;
  s.every = g.count("every"), s.first = g.get<int64_t>("first", 0), s.memory_width = g.count("memory_width");
  s.head_norms = g.get("head_norms", false), s.block = block_shape(g);
  return s;
}

BlockShape block_shape(const Given& g) {
  BlockShape s;
  s.width = g.count("width"), s.ff_width = g.count("ff_width"), s.heads = g.count("heads");
  s.kv_heads = g.get("kv_heads", s.heads), s.head_dim = g.get("head_dim", s.width / s.heads);
  s.norm.kind = g.get<std::string>("norm", "layer") == "rms" ? NormKind::Rms : NormKind::Layer;
  s.norm.eps = g.get("eps", 1e-5f), s.norm.bias = g.get("norm_bias", true);
  s.bias = g.get("bias", true), s.post_norm = g.get("post_norm", false), s.qk_norm = g.get("qk_norm", false),
  s.attn_sub_norm = s.ffn_sub_norm = g.get("sub_norms", false);
  s.ffn_sub_norm = g.get("ffn_sub_norm", s.ffn_sub_norm);
  s.activation = activation_named(g.get<std::string>("activation", "gelu_erf")), s.gated = g.get("gated", false);
  return s;
}

PositionShape position_shape(const Given& g) {
  const auto kind = g.get<std::string>("position", "none");
  if (kind == "sinusoid") return SinusoidPositions{g.count("offset")};
  if (kind == "learned") return LearnedPositions{g.count("offset")};
  if (kind == "rope")
    return RopePositions{g.get("base", 10000.0f), g.count("dims"), g.get("interleaved", false), g.get("scale", 1.0f)};
  if (kind == "alibi") return AlibiPositions{g.count("heads"), g.get("most", 8.0f)};
  KE_CHECK(kind == "none", InvalidRequest, "unknown position '", kind, "'");
  return NoPositions{};
}

std::vector<float> floats_of(nb::handle object) {
  const BufferView view(object);
  std::vector<float> v(view.bytes().size() / sizeof(float));
  std::memcpy(v.data(), view.bytes().data(), v.size() * sizeof(float));
  return v;
}

nb::bytes bytes_of(const std::vector<float>& v) { return nb::bytes(v.data(), v.size() * sizeof(float)); }

// A file's weights on a backend.
struct Loaded {
  std::shared_ptr<Backend> backend;
  Weights weights;
  Workspace workspace;
  Loaded(const std::string& path, const std::string& device, const std::string& isa, int threads)
      : backend(make_backend({device, threads, isa})),
        weights(GgufFile::open(path, LoadMode::Mmap)),
        workspace(*backend) {}
};

// One sequence.
class TestDecoder : Loaded {
 public:
  TestDecoder(const std::string& path, const nb::dict& values, const std::string& device, const std::string& isa,
              int threads)
      : Loaded(path, device, isa, threads),
        shape_(shape(Given(values))),
        decoder_(*backend, weights, shape_, kv_type_of(Given(values).get<std::string>("kv_type", "f16"))) {
    weights.finish();
    restart();
  }

  size_t cache_bytes() const { return cache_->bytes(); }
  void restart() { cache_ = decoder_.new_cache(shape_.context); }

  // Features (n, cross memory_width) that rows may look at; its number.
  int remember(nb::handle features) {
    const std::vector<float> host = floats_of(features);
    const int64_t cols = shape_.cross.memory_width, n = static_cast<int64_t>(host.size()) / cols;
    const std::unique_ptr<Buffer> on_device = load_floats(*backend, host, n, cols);
    memories_.push_back(decoder_.new_memory(Mat(*on_device, n, cols)));
    return static_cast<int>(memories_.size()) - 1;
  }

  // Rows of ids from position `start` on, negative ones being the next of the vectors (n, width), on the host or on the
  // device; memories: what each row looks at (-1: nothing), or empty. Float32 logits (logit rows, vocab_subset or
  // vocab).
  nb::bytes forward(const std::vector<int32_t>& ids, int32_t start, const std::vector<int32_t>& logit_rows,
                    nb::handle vectors, bool on_device, const std::vector<int32_t>& vocab_subset,
                    const std::vector<int>& memories, const std::vector<int32_t>& segments) {
    const std::vector<float> host = vectors.is_none() ? std::vector<float>() : floats_of(vectors);
    const int64_t d = shape_.block.width, n = static_cast<int64_t>(host.size()) / d;
    const std::unique_ptr<Buffer> memory = load_floats(*backend, host, n, d);
    std::vector<InputRow> rows;
    int64_t next = 0;
    for (size_t i = 0; i < ids.size(); i++) {
      InputRow row{ids[i], nullptr, {cache_.get(), start + static_cast<int32_t>(i)}};
      if (ids[i] < 0) {
        KE_CHECK(next < n, InvalidRequest, "there are ", n, " vectors only");
        (on_device ? row.device_embedding : row.embedding) = (on_device ? memory->data : host.data()) + d * next++;
      }
      if (!segments.empty()) row.segment = segments.at(i);
      if (!memories.empty() && memories.at(i) >= 0) row.memory = memories_.at(memories[i]).get();
      rows.push_back(row);
    }
    std::vector<float> logits(logit_rows.size() *
                              (vocab_subset.empty() ? static_cast<size_t>(shape_.vocab) : vocab_subset.size()));
    decoder_.forward(workspace, rows, logit_rows, logits.data(), nullptr, vocab_subset);
    return bytes_of(logits);
  }

 private:
  static DecoderShape shape(const Given& g) {
    DecoderShape s;
    s.block = block_shape(g);
    s.layers = g.count("layers"), s.vocab = g.count("vocab"), s.context = g.count("context");
    s.embedding_scale = g.get("embedding_scale", 1.0f), s.position = position_shape(g);
    if (const nb::dict cross = g.get("cross", nb::dict()); cross.size() > 0) s.cross = cross_shape(Given(cross));
    s.segments = g.get<int64_t>("segments", 0);
    s.final_norm = g.get("final_norm", true), s.tied_output = g.get("tied_output", true);
    return s;
  }
  DecoderShape shape_;
  Decoder decoder_;
  std::unique_ptr<KvCache> cache_;
  std::vector<std::unique_ptr<CrossMemory>> memories_;
};

// A vision tower, with a projector of linear products where "project_width" is given.
class TestTower : Loaded {
 public:
  TestTower(const std::string& path, const nb::dict& values, const std::string& device, const std::string& isa,
            int threads)
      : Loaded(path, device, isa, threads), shape_(shape(Given(values))), vit_(*backend, weights, shape_) {
    const Given g(values);
    if (const int64_t width = g.get<int64_t>("project_width", 0)) {
      MlpShape mlp;
      mlp.feature_width = shape_.block.width, mlp.width = width, mlp.products = g.count("products");
      projector_ = load_mlp(*backend, weights, mlp);
    }
    weights.finish();
  }

  // patches (patches, patch_values) -> (rows, width)
  nb::bytes forward(nb::handle patches) {
    const std::vector<float> host = floats_of(patches);
    KE_CHECK(static_cast<int64_t>(host.size()) == shape_.patches * shape_.patch_values, InvalidRequest, "expected ",
             shape_.patches, " x ", shape_.patch_values, " values, got ", host.size());
    Mat y = vit_.forward(workspace, host.data(), nullptr);
    if (projector_) {
      const int64_t rows = projector_->rows(y.rows);
      y = projector_->forward(workspace, y);
      KE_ASSERT(y.rows == rows);
    }
    std::vector<float> out(static_cast<size_t>(y.rows * y.cols));
    backend->read(y, out.data());
    return bytes_of(out);
  }

 private:
  static VitShape shape(const Given& g) {
    VitShape s;
    s.block = block_shape(g);
    s.patches = g.count("patches"), s.patch_values = g.count("patch_values"), s.layers = g.count("layers");
    s.class_token = g.get("class_token", true), s.patch_bias = g.get("patch_bias", false);
    s.pre_norm = g.get("pre_norm", true), s.post_norm = g.get("last_norm", true);
    s.keep_class = g.get("keep_class", true), s.unit_length = g.get("unit_length", false);
    return s;
  }
  VitShape shape_;
  Vit vit_;
  std::unique_ptr<Projector> projector_;
};

// A grid's encoder and the resampler behind it, whose last key may stand for several.
class TestPage : Loaded {
 public:
  TestPage(const std::string& path, const nb::dict& values, const std::string& device, const std::string& isa,
           int threads)
      : Loaded(path, device, isa, threads),
        shape_(shape(Given(values))),
        vit_(*backend, weights, shape_),
        resampler_(*backend, weights, resampler(Given(values))) {
    weights.finish();
  }

  // patches (rows * cols, patch_values) -> the encoder's features (rows * cols + 0 or 1, width), (latents, width)
  nb::tuple forward(nb::handle patches, int64_t rows, int64_t cols) {
    const std::vector<float> host = floats_of(patches);
    KE_CHECK(static_cast<int64_t>(host.size()) == rows * cols * shape_.patch_values, InvalidRequest, "expected ",
             rows * cols, " x ", shape_.patch_values, " values, got ", host.size());
    const Mat x = vit_.forward(workspace, host.data(), rows, cols, nullptr);
    std::vector<float> features(static_cast<size_t>(x.rows * x.cols));
    backend->read(x, features.data());
    const Mat y = resampler_.forward_weighted(workspace, x, std::max<int64_t>(1, vit_.padding(rows, cols)), nullptr);
    std::vector<float> tokens(static_cast<size_t>(y.rows * y.cols));
    backend->read(y, tokens.data());
    return nb::make_tuple(bytes_of(features), bytes_of(tokens));
  }
  int64_t workspace_bytes() const { return workspace.bytes(); }

 private:
  static GridVitShape shape(const Given& g) {
    GridVitShape s;
    s.block = block_shape(g);
    s.layers = g.count("layers"), s.patch_values = g.count("patch_values");
    s.max_patches = g.count("max_patches"), s.table_rows = g.count("table_rows");
    return s;
  }
  static ResamplerShape resampler(const Given& g) {
    return {g.count("max_patches"),   g.count("width"),         g.count("latents"),
            g.count("project_width"), g.count("project_heads"), true};
  }
  GridVitShape shape_;
  GridVit vit_;
  Resampler resampler_;
};

// A Q-Former, which may read text.
class TestQformer : Loaded {
 public:
  TestQformer(const std::string& path, const nb::dict& values, const std::string& device, const std::string& isa,
              int threads)
      : Loaded(path, device, isa, threads), shape_(shape(Given(values))), qformer_(*backend, weights, shape_) {
    weights.finish();
  }

  // features (n, feature_width) -> (queries, project_width)
  nb::bytes forward(nb::handle features, const std::vector<int32_t>& text) {
    const std::vector<float> host = floats_of(features);
    const int64_t cols = shape_.feature_width, n = static_cast<int64_t>(host.size()) / cols;
    workspace.begin();
    const Mat x = workspace.take(n, cols);
    backend->write(host.data(), x);
    const Mat y = qformer_.forward_with(workspace, x, text);
    std::vector<float> out(static_cast<size_t>(y.rows * y.cols));
    backend->read(y, out.data());
    return bytes_of(out);
  }

 private:
  static QformerShape shape(const Given& g) {
    QformerShape s;
    s.block = block_shape(g);
    s.layers = g.count("layers"), s.queries = g.count("queries"), s.cross_every = g.count("cross_every");
    s.feature_width = g.count("feature_width"), s.width = g.count("project_width");
    s.text_vocab = g.get<int64_t>("text_vocab", 0), s.text_positions = g.get<int64_t>("text_positions", 0);
    return s;
  }
  QformerShape shape_;
  Qformer qformer_;
};

}  // namespace

void bind_layers(nb::module_& m) {
  nb::module_ t = nb::cast<nb::module_>(m.attr("testing"));
  nb::class_<TestDecoder>(t, "Decoder")
      .def(nb::init<const std::string&, const nb::dict&, const std::string&, const std::string&, int>(),
           nb::arg("path"), nb::arg("shape"), nb::arg("device") = "cpu", nb::arg("isa") = "", nb::arg("threads") = 1)
      .def("restart", &TestDecoder::restart)
      .def_prop_ro("cache_bytes", &TestDecoder::cache_bytes)
      .def("forward", &TestDecoder::forward, nb::arg("ids"), nb::arg("start"), nb::arg("logit_rows"),
           nb::arg("vectors").none() = nb::none(), nb::arg("on_device") = false,
           nb::arg("vocab_subset") = std::vector<int32_t>(), nb::arg("memories") = std::vector<int>(),
           nb::arg("segments") = std::vector<int32_t>())
      .def("remember", &TestDecoder::remember);
  nb::class_<TestTower>(t, "Tower")
      .def(nb::init<const std::string&, const nb::dict&, const std::string&, const std::string&, int>(),
           nb::arg("path"), nb::arg("shape"), nb::arg("device") = "cpu", nb::arg("isa") = "", nb::arg("threads") = 1)
      .def("forward", &TestTower::forward);
  nb::class_<TestPage>(t, "Page")
      .def(nb::init<const std::string&, const nb::dict&, const std::string&, const std::string&, int>(),
           nb::arg("path"), nb::arg("shape"), nb::arg("device") = "cpu", nb::arg("isa") = "", nb::arg("threads") = 1)
      .def("forward", &TestPage::forward)
      .def_prop_ro("workspace_bytes", &TestPage::workspace_bytes);
  nb::class_<TestQformer>(t, "Qformer")
      .def(nb::init<const std::string&, const nb::dict&, const std::string&, const std::string&, int>(),
           nb::arg("path"), nb::arg("shape"), nb::arg("device") = "cpu", nb::arg("isa") = "", nb::arg("threads") = 1)
      .def("forward", &TestQformer::forward, nb::arg("features"), nb::arg("text") = std::vector<int32_t>());
  t.def("rope_table", [](float base, int64_t dims, float scale, int64_t positions) {
    return bytes_of(rope_table({base, dims, false, scale}, positions));
  });
}

}  // namespace ke
