#include "layers/resampler.h"

#include <algorithm>
#include <cmath>

#include "layers/attend.h"

namespace ke {

// Wraps host floats as a tensor for Backend::upload.
static Tensor view(const std::vector<float>& w, int64_t rows, int64_t cols) {
  Tensor t;
  t.shape = {rows, cols};
  t.data = reinterpret_cast<const uint8_t*>(w.data());
  t.bytes = w.size() * sizeof(float);
  return t;
}

// y (m, out) = x (m, in) W^T + b, in float32 on the backend, host to host.
static std::vector<float> apply(Backend& backend, const std::vector<float>& w, const float* bias, int64_t out,
                                int64_t in, const std::vector<float>& x) {
  const int64_t m = static_cast<int64_t>(x.size()) / in;
  std::unique_ptr<Linear> linear = backend.upload({view(w, out, in)}, bias, MatmulUse::Once);
  std::unique_ptr<Buffer> bx = load_floats(backend, x, m, in), by = backend.alloc(m * out);
  backend.linear(*linear, Mat(*bx, m, in), Activation::None, {}, Mat(*by, m, out));
  std::vector<float> y(m * out);
  backend.read(Mat(*by, m, out), y.data());
  return y;
}

static bool stored_in_blocks(const Tensor& t) { return dtype_info(t.dtype).block_elems > 1; }

static std::vector<float> transpose(const std::vector<float>& a, int64_t rows, int64_t cols) {
  std::vector<float> t(a.size());
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < cols; j++) t[j * rows + i] = a[i * cols + j];
  return t;
}

std::vector<float> Resampler::widen(const std::vector<float>& rows, float extra) const {
  const int64_t from = head_width(), to = wide_head(), heads = static_cast<int64_t>(rows.size()) / from;
  std::vector<float> out(static_cast<size_t>(heads * to), 0.0f);
  for (int64_t h = 0; h < heads; h++) {
    std::copy_n(rows.begin() + h * from, from, out.begin() + h * to);
    if (to > from) out[static_cast<size_t>(h * to + from)] = extra;
  }
  return out;
}

Resampler::Resampler(Backend& backend, Weights& weights, const ResamplerShape& s) : backend_(backend), shape_(s) {
  const int64_t d = s.width, dv = s.feature_width, dw = wide();
  const std::vector<float> query = weights.floats("mm.latent_query", {s.latents, d});
  const std::vector<float> wd_t = transpose(weights.floats("mm.dense.weight", {d, dv}), d, dv);  // (dv, d)
  const std::vector<float> bd = weights.vector("mm.dense.bias", d);

  q_ = load_floats(backend,
                   widen(apply(backend, weights.floats("mm.attn_q.weight", {d, d}),
                               weights.vector("mm.attn_q.bias", d).data(), d, d, query),
                         1.0f),
                   s.latents, dw);

  bool quantized = stored_in_blocks(weights.matrix("mm.dense.weight", d, dv));
  std::vector<float> folded, folded_bias, latent(s.latents * 2 * dw);
  for (int part = 0; part < 2; part++) {
    const std::string name = part == 0 ? "mm.attn_k" : "mm.attn_v";
    quantized |= stored_in_blocks(weights.matrix(name + ".weight", d, d));
    const std::vector<float> w = weights.floats(name + ".weight", {d, d}), b = weights.vector(name + ".bias", d);
    const std::vector<float> w_wd = widen(apply(backend, w, nullptr, d, d, wd_t), 0.0f);  // (dv, dw)
    const std::vector<float> rows = transpose(w_wd, dv, dw);
    folded.insert(folded.end(), rows.begin(), rows.end());
    const std::vector<float> fb = widen(apply(backend, w, b.data(), d, d, bd), 0.0f);  // W bd + b
    folded_bias.insert(folded_bias.end(), fb.begin(), fb.end());
    const std::vector<float> own = widen(apply(backend, w, b.data(), d, d, query), 0.0f);  // (latents, dw)
    for (int64_t i = 0; i < s.latents; i++)
      std::copy_n(own.begin() + i * dw, dw, latent.begin() + i * 2 * dw + part * dw);
  }
  latent_kv_ = load_floats(backend, latent, s.latents, 2 * dw);

  if (backend.observes()) {
    dense_ = load_linear(backend, weights, {{"mm.dense", d}}, dv, true);
    query_ = load_floats(backend, query, s.latents, d);
  }

  // The encoder's own products are rounded to 8 bits; once more adds little (docs/kernels.md).
  kv_ = backend.upload({view(folded, 2 * dw, dv)}, folded_bias.data(),
                       quantized ? MatmulUse::RoundedLargeBatch : MatmulUse::Any);
  if (!s.weighted) {
    out_ = load_linear(backend, weights, {{"mm.attn_out", d}}, d, true);
  } else {
    const std::vector<float> out = widen(weights.floats("mm.attn_out.weight", {d, d}), 0.0f);
    out_ = backend.upload({view(out, d, dw)}, weights.vector("mm.attn_out.bias", d).data());
  }
}

Mat Resampler::forward_weighted(Workspace& ws, Mat features, int64_t copies, const CancelToken* cancel) const {
  const int64_t n = features.rows, d = wide(), m = shape_.latents;
  KE_ASSERT(n > 0 && n <= shape_.features && copies >= 1 && (copies == 1 || shape_.weighted));
  Mat kv = ws.take(n + m, 2 * d), a = ws.take(m, d), y = ws.take(m, shape_.width);
  for (int64_t begin = 0; begin < n; begin += kRowsAtOnce) {  // image keys first
    if (cancel) cancel->check();
    const int64_t end = std::min(n, begin + kRowsAtOnce);
    backend_.linear(*kv_, features.row_range(begin, end), Activation::None, {}, kv.row_range(begin, end));
  }
  backend_.copy(Mat(*latent_kv_, m, 2 * d), kv.row_range(n, n + m));
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_width()));
  const float bonus = std::log(static_cast<float>(copies)) / scale;
  for (int64_t h = 0; copies > 1 && h < shape_.heads; h++) {
    const int64_t at = h * wide_head() + head_width();
    backend_.write(&bonus, kv.row_range(n - 1, n).col_range(at, at + 1));
  }
  attend(backend_, Mat(*q_, m, d), kv.col_range(0, d), kv.col_range(d, 2 * d), shape_.heads, scale, a, ScoreType::Float,
         cancel);
  if (dense_) observe(ws, features, a);
  backend_.linear(*out_, a, Activation::None, {}, y);
  return y;
}

void Resampler::observe(Workspace& ws, Mat features, Mat a) const {
  const int64_t d = shape_.width;
  const Mat dense = ws.take(features.rows, d), query(*query_, shape_.latents, d);
  backend_.linear(*dense_, features, Activation::None, {}, dense);
  backend_.observe("mm.attn_q.weight", query);
  for (const char* name : {"mm.attn_k.weight", "mm.attn_v.weight"}) {
    backend_.observe(name, dense);
    backend_.observe(name, query);
  }
  if (!shape_.weighted) return;  // else out_ has no name, since its input is wider than the file's matrix
  const Mat narrow = ws.take(a.rows, d);
  for (int64_t h = 0; h < shape_.heads; h++)
    backend_.copy(a.col_range(h * wide_head(), h * wide_head() + head_width()),
                  narrow.col_range(h * head_width(), (h + 1) * head_width()));
  backend_.observe("mm.attn_out.weight", narrow);
}

}  // namespace ke
