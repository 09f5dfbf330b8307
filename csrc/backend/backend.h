// What a device must do for a model: ~20 coarse operations on float32 matrices.
// The model graph is written once against this class; a device implements the primitives and may override
// the fused operations, whose default bodies (fused.cpp) are composed of primitives.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "backend/sampling.h"
#include "backend/sharing.h"
#include "format/tensor.h"

namespace ke {

// Device memory for float32 activations. On the CPU device_data() is host memory; elsewhere only the backend reads it.
class Buffer {
 public:
  virtual ~Buffer() = default;
  float* data = nullptr;  // base address on the device
  int64_t count = 0;      // floats
};

// A row-major float32 matrix inside a buffer; a view, never owns.
struct Mat {
  float* data = nullptr;  // address on the device of element (0, 0)
  int64_t rows = 0, cols = 0;
  int64_t stride = 0;  // floats from one row to the next, >= cols

  Mat() = default;
  Mat(float* d, int64_t r, int64_t c, int64_t s) : data(d), rows(r), cols(c), stride(s) {}
  Mat(const Buffer& b, int64_t r, int64_t c) : data(b.data), rows(r), cols(c), stride(c) {}
  Mat row_range(int64_t begin, int64_t end) const { return {data + begin * stride, end - begin, cols, stride}; }
  Mat col_range(int64_t begin, int64_t end) const { return {data + begin, rows, end - begin, stride}; }
};

// An uploaded matrix product y = x W^T + b in the device's own layout. Made of one or more parts stacked by output
// rows (q, k and v are one Linear with three parts, each of its own type).
class Linear {
 public:
  virtual ~Linear() = default;
  int64_t in = 0, out = 0;
};

// Keys and values of one sequence, all layers. Grows by Backend::reserve; never shrinks.
class KvCache {
 public:
  virtual ~KvCache() = default;
  int layers = 0;
  int64_t width = 0;                 // KV heads * head_dim
  int64_t capacity = 0;              // positions that fit
  virtual size_t bytes() const = 0;  // of device memory, for `capacity` positions
};

// Where one row of a batch belongs: its sequence's cache and its position in it.
struct KvPosition {
  KvCache* cache = nullptr;
  int32_t pos = 0;
};

// Layer: (x - mean) / sqrt(var + eps) * gamma + beta, biased variance. Rms: x / sqrt(mean(x^2) + eps) * gamma + beta.
enum class NormKind { Layer, Rms };

struct Norm {
  const Buffer* gamma = nullptr;  // (cols)
  const Buffer* beta = nullptr;   // (cols), or nullptr: zeros
  float eps = 1e-5f;
  NormKind kind = NormKind::Layer;
};

// GeluErf: x/2 (1 + erf(x / sqrt 2)). QuickGelu: x / (1 + e^(-1.702 x)). Relu: max(x, 0).
// GeluTanh: x/2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))). Silu: x / (1 + e^-x).
enum class Activation { None, GeluErf, QuickGelu, Relu, GeluTanh, Silu };

// Rotary positions: in the first `dims` values of each head, pair i at position p becomes
//   (a, b) -> (a cos - b sin, b cos + a sin), cos and sin being table[p][i] and table[p][dims / 2 + i].
// Pairs are values (i, i + dims / 2), or if interleaved (2 i, 2 i + 1). dims is even.
struct Rope {
  const Buffer* table = nullptr;  // (positions, dims)
  int64_t dims = 0;
  bool interleaved = false;
};

// Added to the scores of attention by how far a key stands from its query: for head h, a query at position i and a key
// at position j table[h stride + zero + j - i]. At least 15 values stand behind the last one of each head that is
// meant.
struct RelativeBias {
  const Buffer* table = nullptr;  // (heads, stride); nullptr: nothing is added
  int64_t stride = 0, zero = 0;   // zero: where j = i
};

// What an uploaded matrix is for. LargeBatch: it is always multiplied with hundreds of rows at once, so that arithmetic
// decides and not bytes; a device may then keep quantized weights with more bits and coarser scales than the file's
// type has. RoundedLargeBatch: likewise, and floats, which are products of quantized matrices, may be kept with 8 bits.
// Once: for a few products during the load; not worth sharing.
enum class MatmulUse { Any, LargeBatch, RoundedLargeBatch, Once };

// Of attention. Int8: a device may compute scores from queries and keys of 8 bits; for models whose products are
// rounded like that.
enum class ScoreType { Float, Int8 };

// Which instruction set multiplies one row with matrices of a shape, and what was measured (cpu/one_row.h).
struct KernelChoice {
  std::string types;                                  // of the weights: "q4_k", "q4_k+q6_k" where parts differ
  int64_t in, out;                                    // the matrix is (out, in)
  std::string chosen;                                 // empty: still measured
  std::vector<std::pair<std::string, double>> rates;  // instruction set, bytes of weights per second; 0: no time yet
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::string name() const = 0;           // "cpu", "cuda:0"
  virtual std::string description() const = 0;    // for people: "cpu (avx512vnni, 2 threads)"
  virtual std::string isa() const { return ""; }  // instruction set of a CPU backend
  virtual int threads() const { return 1; }
  virtual std::vector<KernelChoice> kernel_choices() const { return {}; }

  // ---- memory
  virtual std::unique_ptr<Buffer> alloc(int64_t floats) = 0;
  virtual void write(const float* host, Mat dst) = 0;  // host rows are contiguous (dst.cols apart)
  virtual void read(Mat src, float* host) = 0;
  // parts: matrices (out_i, in) stacked by rows; bias: sum(out_i) floats or nullptr. Reads each part once, in order.
  virtual std::unique_ptr<Linear> upload(const std::vector<Tensor>& parts, const float* bias,
                                         MatmulUse use = MatmulUse::Any) = 0;
  // What is uploaded from here to end_sharing() is looked up in a file of the request's model, or such a file is made
  // from it; the model must live until then. The default shares nothing. Troubles become the note of end_sharing().
  virtual void begin_sharing(const SharingRequest&) {}
  // again: set to the step that the load is to be repeated with, where that gives what was asked for.
  virtual Sharing end_sharing(std::optional<SharingStep>* again);
  virtual std::unique_ptr<KvCache> alloc_kv(int layers, int64_t kv_heads, int64_t head_dim, int64_t capacity,
                                            DType type) = 0;   // type: F32, F16 or Q8_0
  virtual void reserve(KvCache& cache, int64_t capacity) = 0;  // keeps what is stored
  // Positions [begin, end) of every layer of src -> dst (same layers, width and type; reserves what dst needs). What
  // dst holds before `begin` stays; what it holds from `end` on is void.
  virtual void kv_copy(const KvCache& src, KvCache& dst, int64_t begin, int64_t end) = 0;

  // ---- primitives. Outputs never alias inputs unless said.
  // y (m, out) = act(x (m, in) W^T + b) + residual; residual may be y itself (y += ...) or absent (data == nullptr).
  virtual void linear(const Linear& w, Mat x, Activation act, Mat residual, Mat y) = 0;
  // Each row by itself, see NormKind; y may be x.
  virtual void norm(Mat x, const Norm& norm, Mat y) = 0;
  // x /= max(||x||_2, eps) per row, in place.
  virtual void l2_normalize(Mat x, float eps) = 0;
  // y += x, same shape.
  virtual void add(Mat x, Mat y) = 0;
  // y += factor * x, same shape.
  virtual void add_scaled(Mat x, float factor, Mat y) = 0;
  // y = factor * x, same shape; y may be x.
  virtual void scale(Mat x, float factor, Mat y) = 0;
  // y = act(gate) * up, same shapes; y may be gate or up. (SwiGLU and GeGLU: gate and up are halves of one product.)
  virtual void gate(Mat gate, Activation act, Mat up, Mat y) = 0;
  virtual void copy(Mat x, Mat y) = 0;
  // Turns the queries or keys of `heads` heads, x (m, heads*d), in place; row r is at position positions[r].pos.
  virtual void rope(Mat x, int64_t heads, const Rope& rope, const std::vector<KvPosition>& positions) = 0;
  // softmax(q k^T * scale) v per head, no mask. q (m, heads*d), k and v (n, kv_heads*d), out (m, heads*d). heads is a
  // multiple of kv_heads; head j reads keys and values of KV head j / (heads / kv_heads). d: multiples of 8 up to 256.
  // With a bias softmax(q k^T * scale + bias): rows of q and of k are at positions 0, 1, ...; scores are floats.
  virtual void attention(Mat q, Mat k, Mat v, int64_t heads, float scale, Mat out,
                         ScoreType score_type = ScoreType::Float, const RelativeBias& bias = {}) = 0;
  // Stores row r of k and v (m, width) at positions[r] of one layer.
  virtual void kv_write(Mat k, Mat v, int layer, const std::vector<KvPosition>& positions) = 0;
  // Row r of q attends to positions 0..positions[r].pos of its own cache (causal; kv_write comes first). Heads share KV
  // heads, and scores take a bias, as in attention().
  virtual void kv_attention(Mat q, int layer, int64_t heads, float scale, const std::vector<KvPosition>& positions,
                            Mat out, const RelativeBias& bias = {}) = 0;

  // ---- fused; the defaults (fused.cpp) are norm into scratch, then linear.
  // y = act(norm(x) W^T + b) + residual. scratch (m, in) may be overwritten.
  virtual void norm_linear(Mat x, const Norm& norm, const Linear& w, Activation act, Mat residual, Mat scratch, Mat y);
  // Only some rows of W: y (m, outputs.size()), column i the one that norm_linear gives for row outputs[i], bit for
  // bit.
  virtual void norm_linear_rows(Mat x, const Norm& norm, const Linear& w, std::span<const int32_t> outputs, Mat scratch,
                                Mat y);
  // Row r of y = factor * row ids[r] of the table, a matrix (rows, y.cols) in the host's memory; where ids[r] < 0 row r
  // of y stays as it is. The default decodes on the host and writes.
  virtual void embed_rows(const Tensor& table, std::span<const int32_t> ids, float factor, Mat y);

  // ---- sampling
  // Whether the device samples tokens itself. If not, the engine reads the logits and samples from them.
  virtual bool samples_on_device() const { return false; }
  // sampled[r]: the token that rules[r] gives from row r of logits, as TokenSampler samples it; as many rules and
  // results as rows. The default (sampling.cpp) does it on the host.
  virtual void sample(Mat logits, std::span<const SamplingRule> rules, std::span<Sampled> sampled);

  virtual void sync() {}  // returns when all work is done

  // ---- calibration (recorder.h)
  // Whether products are recorded. Then a layer that folds matrices into one also makes their inputs and tells them.
  virtual bool observes() const { return false; }
  // x is what the tensor would be multiplied with, were it not folded.
  virtual void observe(const std::string&, Mat) {}
};

struct BackendOptions {
  std::string device = "auto";  // "auto", "cpu", "cuda", "cuda:1", "metal"
  int threads = 0;              // 0: default_thread_count()
  std::string isa;              // empty: KOSMOS_EDGE_ISA, else the best this machine has
};

// Throws DeviceUnavailable, saying what is available and why the one asked for is not.
std::shared_ptr<Backend> make_backend(const BackendOptions& options);

// Every device this build knows, best first, with the reason why it cannot be used here (empty when it can).
std::vector<std::pair<std::string, std::string>> list_devices();

}  // namespace ke
