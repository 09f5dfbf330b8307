// Runs every kernel of every instruction set that this processor has against the scalar definition: bit for bit where
// that is promised (quantized products, additions), within bounds of rounding elsewhere; and a row alone against the
// same row in a batch, bit for bit. For processors that only an emulator offers, and for new ones.
//   selftest [available [brief]]
// available: the names that must be found here, best first, with commas ("neondot,scalar"); brief: the best of them
// alone and few rows, for a processor whose other sets were compared on another one.
// Prints one line per instruction set and kernel; the exit code is 1 when anything differs, 2 for wrong names.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "base/error.h"
#include "cpu/select.h"
#include "quant/codec.h"

using namespace ke;

namespace {

using Floats = std::vector<float>;

const DType kTypes[] = {DType::F32,  DType::F16,  DType::BF16, DType::Q8_0,   DType::Q4_0,
                        DType::Q4_1, DType::Q5_0, DType::Q5_1, DType::Q2_K,   DType::Q3_K,
                        DType::Q4_K, DType::Q5_K, DType::Q6_K, DType::IQ4_NL, DType::IQ4_XS};
const int kRows[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 33, 71};
int most_rows = 71;  // 17 in brief

std::mt19937 random_bits(20);

Floats normals(int64_t n) {
  std::normal_distribution<float> normal;
  Floats v(n);
  for (float& x : v) x = normal(random_bits);
  return v;
}

// One backend of one thread and what it returns for an operation.
class Runner {
 public:
  explicit Runner(const std::string& isa) {
    BackendOptions options;
    options.device = "cpu";
    options.threads = 1;
    options.isa = isa;
    backend_ = make_backend(options);
  }
  Backend& backend() { return *backend_; }

  std::unique_ptr<Buffer> put(const Floats& v) {
    auto b = backend_->alloc(static_cast<int64_t>(v.size()));
    backend_->write(v.data(), Mat(*b, 1, static_cast<int64_t>(v.size())));
    return b;
  }
  Floats get(Mat m) {
    Floats v(m.rows * m.cols);
    backend_->read(m, v.data());
    return v;
  }
  Floats linear(const Linear& w, const float* x, int64_t rows, Activation act, const float* residual) {
    auto bx = put(Floats(x, x + rows * w.in)),
         by = put(residual ? Floats(residual, residual + rows * w.out) : Floats(rows * w.out));
    const Mat y(*by, rows, w.out);
    backend_->linear(w, Mat(*bx, rows, w.in), act, residual ? y : Mat(), y);
    return get(y);
  }

 private:
  std::shared_ptr<Backend> backend_;
};

// What is said of one kernel: how many results were compared and how many were wrong, with the first of them.
class Report {
 public:
  Report(std::string isa, std::string kernel) : isa_(std::move(isa)), kernel_(std::move(kernel)) {}
  ~Report() {
    std::printf("%-10s %-28s %10ld values  %s%s\n", isa_.c_str(), kernel_.c_str(), compared_, wrong_ ? "WRONG: " : "ok",
                wrong_ ? first_.c_str() : "");
    std::fflush(stdout);
    total_wrong += wrong_;
  }
  void same_bits(const Floats& got, const Floats& want, const char* where) {
    for (size_t i = 0; i < want.size(); ++i) check(std::memcmp(&got[i], &want[i], 4) == 0, got[i], want[i], where, i);
  }
  // |got - want| <= bound[i]
  void near(const Floats& got, const Floats& want, const std::vector<double>& bound, const char* where) {
    for (size_t i = 0; i < want.size(); ++i)
      check(std::fabs(static_cast<double>(got[i]) - want[i]) <= bound[i], got[i], want[i], where, i);
  }
  // |got - want| <= relative * (|want| + 1)
  void near(const Floats& got, const Floats& want, double relative, const char* where) {
    std::vector<double> bound(want.size());
    for (size_t i = 0; i < want.size(); ++i) bound[i] = relative * (std::fabs(want[i]) + 1);
    near(got, want, bound, where);
  }
  static long total_wrong;

 private:
  void check(bool right, float got, float want, const char* where, size_t i) {
    ++compared_;
    if (right) return;
    if (!wrong_++) {
      char text[160];
      std::snprintf(text, sizeof text, "%s, value %zu: %.9g instead of %.9g", where, i, got, want);
      first_ = text;
    }
  }
  std::string isa_, kernel_, first_;
  long compared_ = 0, wrong_ = 0;
};
long Report::total_wrong = 0;

// A matrix of one storage type, as a file has it.
struct Stored {
  DType type;
  int64_t rows, cols;
  std::vector<uint8_t> bytes;

  Tensor tensor() const {
    Tensor t;
    t.name = "w";
    t.dtype = type;
    t.shape = {rows, cols};
    t.data = bytes.data();
    t.bytes = bytes.size();
    return t;
  }
};

Stored encoded(DType type, int64_t rows, int64_t cols) {
  Stored s{type, rows, cols, std::vector<uint8_t>(dtype_bytes(type, rows * cols))};
  const Floats w = normals(rows * cols);
  if (type == DType::F32)
    std::memcpy(s.bytes.data(), w.data(), s.bytes.size());
  else
    encode(type, w.data(), s.bytes.data(), rows * cols, cols);
  return s;
}

// Blocks that no encoder writes: every code, scale and minimum at its extreme (mode 0), or any bytes (mode 1). The
// float scales are 1 and 0.5.
Stored extreme(DType type, int64_t rows, int64_t cols, int mode) {
  Stored s{type, rows, cols, std::vector<uint8_t>(dtype_bytes(type, rows * cols), 0xff)};
  if (mode == 1)
    for (uint8_t& b : s.bytes) b = static_cast<uint8_t>(random_bits());
  const size_t size = dtype_bytes(type, dtype_info(type).block_elems);
  for (size_t at = 0; at < s.bytes.size(); at += size) {
    uint8_t* block = s.bytes.data() + at;
    if (mode == 0 && type == DType::Q8_0) std::memset(block + 2, 0x80, 32);
    if (mode == 0 && type == DType::Q6_K) std::memset(block + 192, 0x80, 16);
    if (mode == 0 && (type == DType::IQ4_NL || type == DType::IQ4_XS)) std::memset(block, 0, size);  // -127, -32
    const uint16_t one = 0x3c00, half = 0x3800;
    std::memcpy(block + (type == DType::Q6_K   ? 208
                         : type == DType::Q3_K ? 108
                         : type == DType::Q2_K ? 80
                                               : 0),
                &one, 2);
    if (type == DType::Q2_K) std::memcpy(block + 82, &half, 2);
    if (type == DType::Q4_1 || type == DType::Q5_1 || type == DType::Q4_K || type == DType::Q5_K)
      std::memcpy(block + 2, &half, 2);
  }
  return s;
}

// Rows of activations with some far from the rest, zeros, and codes at their extremes.
Floats activations(int64_t rows, int64_t cols) {
  Floats x = normals(rows * cols);
  for (int64_t r = 0; r < rows; ++r) {
    x[r * cols + random_bits() % cols] *= 40;
    for (int64_t k = 0; k < cols; ++k) {
      if (r % 7 == 3) x[r * cols + k] = 0;
      if (r % 7 == 5) x[r * cols + k] = r % 2 ? 127.0f : -127.0f;
      if (r % 7 == 6) x[r * cols + k] = k % 2 ? 127.0f : -127.0f;
    }
  }
  return x;
}

void test_products(const std::string& isa, Runner& run, Runner& scalar, DType type, MatmulUse use) {
  const bool floats = dtype_info(type).block_elems == 1;
  const bool blocks_of_256 = dtype_info(type).block_elems == 256;
  Report report(
      isa, concat(use == MatmulUse::LargeBatch ? "linear, for a large batch, " : "linear ", dtype_info(type).name));
  std::vector<Stored> matrices;
  matrices.push_back(encoded(type, 150, 256));
  matrices.push_back(encoded(type, 70, 768));
  if (!blocks_of_256) matrices.push_back(encoded(type, 33, 544));
  if (floats) {
    matrices.push_back(encoded(type, 17, 5));
    matrices.push_back(encoded(type, 1, 1));
    matrices.push_back(encoded(type, 31, 588));
  } else {
    matrices.push_back(extreme(type, 16, 8192, 0));
    matrices.push_back(extreme(type, 40, 512, 1));
  }
  for (const Stored& m : matrices) {
    const int64_t most = m.cols > 1000 ? 8 : most_rows;
    const Floats x = activations(most, m.cols), bias = normals(m.rows), residual = normals(most * m.rows);
    const auto w = run.backend().upload({m.tensor()}, bias.data(), use),
               ws = scalar.backend().upload({m.tensor()}, bias.data(), use);
    const Floats want = scalar.linear(*ws, x.data(), most, Activation::None, residual.data());
    const Floats whole = run.linear(*w, x.data(), most, Activation::None, residual.data());
    if (floats) {  // both within n + 2 roundings of the sum of magnitudes
      Floats values(m.rows * m.cols);
      decode(type, m.bytes.data(), values.data(), m.rows * m.cols);
      std::vector<double> bound(want.size());
      for (int64_t r = 0; r < most; ++r)
        for (int64_t o = 0; o < m.rows; ++o) {
          double size = std::fabs(bias[o]) + std::fabs(residual[r * m.rows + o]);
          for (int64_t k = 0; k < m.cols; ++k)
            size += std::fabs(static_cast<double>(x[r * m.cols + k]) * values[o * m.cols + k]);
          bound[r * m.rows + o] = 2 * (m.cols + 2) * 6e-8 * size;
        }
      report.near(whole, want, bound, "against scalar");
    } else {
      report.same_bits(whole, want, "against scalar");
    }
    for (int rows : kRows) {
      if (rows > most) break;
      if (most_rows < 71 && rows % 5 > 1) continue;
      const int64_t first = (rows * 7) % (most - rows + 1);
      const Floats part =
          run.linear(*w, x.data() + first * m.cols, rows, Activation::None, residual.data() + first * m.rows);
      const Floats same(whole.begin() + first * m.rows, whole.begin() + (first + rows) * m.rows);
      char where[80];
      std::snprintf(where, sizeof where, "%d rows against the batch, %ld x %ld", rows, static_cast<long>(m.rows),
                    static_cast<long>(m.cols));
      report.same_bits(part, same, where);
    }
  }
}

// Floats that may be kept with 8 bits: off by no more than half a step of each block's weights and activations, and
// by a hundredth of the root mean square on the whole; floats as ever where rows do not end with a block.
void test_rounded_floats(const std::string& isa, Runner& run) {
  Report report(isa, "linear, rounded floats");
  constexpr int64_t rows = 70, n = 33, block = 256;
  for (const int64_t cols : {int64_t{256}, int64_t{768}, int64_t{320}}) {
    const Stored m = encoded(DType::F32, rows, cols);
    const Floats x = normals(n * cols), bias = normals(rows);
    const auto exact = run.backend().upload({m.tensor()}, bias.data(), MatmulUse::Any),
               rounded = run.backend().upload({m.tensor()}, bias.data(), MatmulUse::RoundedLargeBatch);
    const Floats want = run.linear(*exact, x.data(), n, Activation::None, nullptr);
    const Floats got = run.linear(*rounded, x.data(), n, Activation::None, nullptr);
    Floats w(rows * cols);
    decode(DType::F32, m.bytes.data(), w.data(), rows * cols);
    std::vector<double> bound(want.size());
    double off = 0, all = 0;
    for (int64_t r = 0; r < n; ++r)
      for (int64_t o = 0; o < rows; ++o) {
        double sum = 1e-4;
        for (int64_t b = 0; b + block <= cols && cols % block == 0; b += block) {
          double top_x = 0, top_w = 0, size_x = 0, size_w = 0;
          for (int64_t k = b; k < b + block; ++k) {
            const double a = std::fabs(x[r * cols + k]), c = std::fabs(w[o * cols + k]);
            top_x = std::max(top_x, a), top_w = std::max(top_w, c), size_x += a, size_w += c;
          }
          sum += (top_x * size_w + top_w * size_x) / 254 * 1.01;
        }
        const int64_t i = r * rows + o;
        bound[i] = sum;
        off += (got[i] - want[i]) * (got[i] - want[i]), all += want[i] * want[i];
      }
    report.near(got, want, bound, "product");
    report.near({static_cast<float>(std::sqrt(off / all))}, {0.0f}, std::vector<double>{0.015}, "root mean square");
  }
}

void test_activations(const std::string& isa, Runner& run, Runner& scalar) {
  Report report(isa, "activations");
  Floats eye(64 * 64), x(64 * 64);
  for (int i = 0; i < 64; ++i) eye[i * 65] = 1;
  for (size_t i = 0; i < x.size(); ++i) x[i] = (static_cast<float>(i) - 2048) / 200;
  Stored s{DType::F32, 64, 64, std::vector<uint8_t>(eye.size() * 4)};
  std::memcpy(s.bytes.data(), eye.data(), s.bytes.size());
  const auto w = run.backend().upload({s.tensor()}, nullptr), ws = scalar.backend().upload({s.tensor()}, nullptr);
  for (Activation a :
       {Activation::GeluErf, Activation::QuickGelu, Activation::Relu, Activation::GeluTanh, Activation::Silu})
    report.near(run.linear(*w, x.data(), 64, a, nullptr), scalar.linear(*ws, x.data(), 64, a, nullptr), 8e-7,
                "against scalar");
}

void test_rows(const std::string& isa, Runner& run, Runner& scalar) {
  Report norms(isa, "norm, l2_normalize, gate"), adds(isa, "add, copy, scale, rope");
  for (int64_t cols : {1, 7, 16, 63, 64, 65, 256, 1000}) {
    const int64_t rows = 5;
    const Floats x = normals(rows * cols), y = normals(rows * cols), gamma = normals(cols), beta = normals(cols);
    const auto apply = [&](Runner& r, auto f) {
      auto bx = r.put(x), by = r.put(y), g = r.put(gamma), b = r.put(beta);
      const Mat mx(*bx, rows, cols), my(*by, rows, cols);
      f(r.backend(), mx, my, Norm{g.get(), b.get(), 1e-5f});
      return r.get(my);
    };
    const auto norm = [](Backend& b, Mat from, Mat to, const Norm& n) { b.norm(from, n, to); };
    const auto rms = [](Backend& b, Mat from, Mat to, const Norm& n) {
      b.norm(from, {n.gamma, nullptr, n.eps, NormKind::Rms}, to);
    };
    const auto gate = [](Backend& b, Mat from, Mat to, const Norm&) { b.gate(from, Activation::Silu, to, to); };
    const auto scaled = [](Backend& b, Mat from, Mat to, const Norm&) { b.add_scaled(from, 0.37f, to); };
    const auto scale = [](Backend& b, Mat from, Mat to, const Norm&) { b.scale(from, 0.37f, to); };
    const auto rope = [](Backend& b, Mat, Mat to, const Norm& n) {  // gamma is as good as any row of a table
      const std::vector<KvPosition> positions(static_cast<size_t>(to.rows));
      for (bool interleaved : {false, true}) b.rope(to, 1, {n.gamma, to.cols / 2 * 2, interleaved}, positions);
    };
    const auto l2 = [](Backend& b, Mat, Mat to, const Norm&) { b.l2_normalize(to, 1e-12f); };
    const auto add = [](Backend& b, Mat from, Mat to, const Norm&) { b.add(from, to); };
    const auto copy = [](Backend& b, Mat from, Mat to, const Norm&) { b.copy(from, to); };
    norms.near(apply(run, norm), apply(scalar, norm), cols < 16 ? 1e-4 : 4e-6, "layer_norm");
    norms.near(apply(run, l2), apply(scalar, l2), 1e-6, "l2_normalize");
    norms.near(apply(run, rms), apply(scalar, rms), 4e-6, "rms norm");
    norms.near(apply(run, gate), apply(scalar, gate), 4e-6, "gate");
    adds.same_bits(apply(run, scaled), apply(scalar, scaled), "add_scaled");
    adds.same_bits(apply(run, scale), apply(scalar, scale), "scale");
    adds.same_bits(apply(run, rope), apply(scalar, rope), "rope");
    adds.same_bits(apply(run, add), apply(scalar, add), "add");
    adds.same_bits(apply(run, copy), x, "copy");
  }
}

void test_attention(const std::string& isa, Runner& run, Runner& scalar) {
  struct Shape {
    int64_t m, n, heads, dim;
  };
  Report report(isa, "attention");
  for (const Shape& s : {Shape{1, 1, 1, 8}, Shape{9, 65, 2, 64}, Shape{7, 33, 3, 24}, Shape{13, 150, 1, 256},
                         Shape{8, 1100, 1, 64}, Shape{1, 1281, 2, 96}}) {
    const int64_t width = s.heads * s.dim;
    const Floats q = normals(s.m * width), k = normals(s.n * width), v = normals(s.n * width);
    const float scale = 1 / std::sqrt(static_cast<float>(s.dim));
    const auto plain = [&](Runner& r, int64_t rows, ScoreType score_type) {
      auto bq = r.put(q), bk = r.put(k), bv = r.put(v), out = r.put(Floats(s.m * width));
      const Mat to(*out, rows, width);
      r.backend().attention(Mat(*bq, rows, width), Mat(*bk, s.n, width), Mat(*bv, s.n, width), s.heads, scale, to,
                            score_type);
      return r.get(to);
    };
    for (ScoreType p : {ScoreType::Float, ScoreType::Int8}) {
      const Floats whole = plain(run, s.m, p);
      // Over many keys values are rounded, too, where that is faster, and in tile registers to 15 bits.
      const bool in_tiles = isa == "avx512amx" && s.dim % 64 == 0;
      const double bound = p == ScoreType::Float ? 2e-6 : s.n > cpu::kOnePassKeys ? 5e-3 : in_tiles ? 2e-4 : 2e-6;
      report.near(whole, plain(scalar, s.m, p), bound, p == ScoreType::Float ? "plain" : "int8 scores");
      report.same_bits(plain(run, 1, p), Floats(whole.begin(), whole.begin() + width), "one row against the batch");
    }

    for (DType type : {DType::F32, DType::F16, DType::Q8_0}) {
      const auto cached = [&](Runner& r) {
        auto bq = r.put(Floats(q.begin(), q.begin() + width)), bk = r.put(k), bv = r.put(v), out = r.put(Floats(width));
        auto cache = r.backend().alloc_kv(2, s.heads, s.dim, 20, type);
        std::vector<KvPosition> positions;
        for (int64_t i = 0; i < s.n; ++i) positions.push_back({cache.get(), static_cast<int32_t>(i)});
        r.backend().reserve(*cache, s.n);
        r.backend().kv_write(Mat(*bk, s.n, width), Mat(*bv, s.n, width), 1, positions);
        r.backend().kv_attention(Mat(*bq, 1, width), 1, s.heads, scale, {positions.back()}, Mat(*out, 1, width));
        return r.get(Mat(*out, 1, width));
      };
      report.near(cached(run), cached(scalar), 2e-6,
                  type == DType::F32   ? "cache, float32"
                  : type == DType::F16 ? "cache, float16"
                                       : "cache, 8 bits");
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::string found;
  const std::vector<std::string> isas = cpu::available_isas();
  for (const std::string& isa : isas) found += (found.empty() ? "" : ",") + isa;
  std::printf("available: %s; chosen: %s\n", found.c_str(), Runner("").backend().isa().c_str());
  if (argc > 1 && found != argv[1]) {
    std::printf("WRONG: expected %s\n", argv[1]);
    return 2;
  }
  const bool brief = argc > 2 && std::string(argv[2]) == "brief";
  if (argc > 2 && !brief) {
    std::printf("WRONG: expected brief, not %s\n", argv[2]);
    return 2;
  }
  if (brief) most_rows = 17;
  Runner scalar("scalar");
  for (const std::string& isa : isas) {
    if (brief && isa != isas.front()) break;
    Runner run(isa);
    for (DType type : kTypes) test_products(isa, run, scalar, type, MatmulUse::Any);
    if (isa != "avx2")
      test_products(isa, run, scalar, DType::Q6_K, MatmulUse::LargeBatch);  // it computes Q6_K as stored
    test_rounded_floats(isa, run);
    test_activations(isa, run, scalar);
    test_rows(isa, run, scalar);
    test_attention(isa, run, scalar);
  }
  std::printf(Report::total_wrong ? "%ld values are wrong\n" : "all right\n", Report::total_wrong);
  return Report::total_wrong ? 1 : 0;
}
