#include "layers/position.h"

#include <algorithm>
#include <cmath>

namespace ke {

std::vector<float> rope_table(const RopePositions& shape, int64_t positions) {
  const int64_t half = shape.dims / 2;
  std::vector<float> frequency, table(static_cast<size_t>(positions * shape.dims));
  for (int64_t i = 0; i < half; i++) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(shape.dims);
    frequency.push_back(1.0f / static_cast<float>(std::pow(double{shape.base}, double{exponent})) / shape.scale);
  }
  for (int64_t p = 0; p < positions; p++)
    for (int64_t i = 0; i < half; i++) {
      const float angle = static_cast<float>(p) * frequency[i];
      table[p * shape.dims + i] = std::cos(angle);
      table[p * shape.dims + half + i] = std::sin(angle);
    }
  return table;
}

int64_t relative_bucket(const RelativePositions& shape, int64_t distance) {
  const int64_t buckets = shape.both_ways ? shape.buckets / 2 : shape.buckets, exact = buckets / 2;
  const int64_t first = shape.both_ways && distance > 0 ? buckets : 0;
  const int64_t far = shape.both_ways ? std::abs(distance) : std::max<int64_t>(-distance, 0);
  if (far < exact) return first + far;
  const double range = std::log(static_cast<double>(shape.max_distance) / static_cast<double>(exact));
  const float share = std::log(static_cast<float>(far) / static_cast<float>(exact)) / static_cast<float>(range);
  const auto behind = static_cast<int64_t>(share * static_cast<float>(buckets - exact));
  return first + std::min(exact + behind, buckets - 1);
}

std::vector<float> alibi_slopes(const AlibiPositions& shape) {
  int64_t count = 1;
  while (count < shape.heads) count *= 2;
  std::vector<float> all, slopes;
  for (int64_t i = 1; i <= count; i++)
    all.push_back(1.0f / std::exp2(static_cast<float>(i) * (shape.most / static_cast<float>(count))));
  if (count == shape.heads) return all;
  for (int64_t i = 1; i < count; i += 2) slopes.push_back(all[i]);
  for (int64_t i = 0; i < count; i += 2) slopes.push_back(all[i]);
  slopes.resize(static_cast<size_t>(shape.heads));
  return slopes;
}

Positions::Positions(Backend& backend, Weights& weights, const PositionShape& shape, int64_t width, int64_t context,
                     const std::string& prefix)
    : backend_(backend), shape_(shape) {
  if (std::holds_alternative<SinusoidPositions>(shape)) {
    // In float32 as the reference computes it (Kosmos2TextSinusoidalPositionalEmbedding.get_embedding).
    const int64_t half = width / 2;
    const float step = static_cast<float>(-(std::log(10000.0) / static_cast<double>(half - 1)));
    for (int64_t i = 0; i < half; i++) frequency_.push_back(std::exp(static_cast<float>(i) * step));
  } else if (const auto* learned = std::get_if<LearnedPositions>(&shape)) {
    learned_ = weights.matrix(prefix + "position_embd.weight", learned->offset + context, width);
  } else if (const auto* rope = std::get_if<RopePositions>(&shape)) {
    table_ = load_floats(backend, rope_table(*rope, context), context, rope->dims);
  } else if (const auto* relative = std::get_if<RelativePositions>(&shape)) {
    const std::vector<float> learned =
        weights.floats(prefix + "attn_rel_b.weight", {relative->buckets, relative->heads});
    set_bias(relative->heads, context, relative->both_ways, [&](int64_t head, int64_t distance) {
      return learned[static_cast<size_t>(relative_bucket(*relative, distance) * relative->heads + head)];
    });
  } else if (const auto* alibi = std::get_if<AlibiPositions>(&shape)) {
    const std::vector<float> slopes = alibi_slopes(*alibi);
    set_bias(alibi->heads, context, /*both_ways=*/false, [&](int64_t head, int64_t distance) {
      return slopes[static_cast<size_t>(head)] * static_cast<float>(distance);
    });
  }
}

// A row per head: distances -context + 1 .. context - 1, or to 0 where nobody looks ahead; then the padding.
void Positions::set_bias(int64_t heads, int64_t context, bool both_ways,
                         const std::function<float(int64_t, int64_t)>& value) {
  const int64_t last = both_ways ? context - 1 : 0;
  bias_.zero = context - 1;
  bias_.stride = bias_.zero + last + 16;
  std::vector<float> table(static_cast<size_t>(heads * bias_.stride));
  for (int64_t head = 0; head < heads; head++)
    for (int64_t distance = -bias_.zero; distance <= last; distance++)
      table[static_cast<size_t>(head * bias_.stride + bias_.zero + distance)] = value(head, distance);
  table_ = load_floats(backend_, table, heads, bias_.stride);
  bias_.table = table_.get();
}

void Positions::add_to(Workspace& ws, Mat x) const {
  if (const auto* sinusoid = std::get_if<SinusoidPositions>(&shape_)) {
    const int64_t d = x.cols, half = d / 2;
    ws.positions.resize(static_cast<size_t>(x.rows * d));
    for (int64_t r = 0; r < x.rows; r++) {
      float* row = ws.positions.data() + r * d;
      const float p = static_cast<float>(ws.kv_positions[r].pos + sinusoid->offset);
      for (int64_t i = 0; i < half; i++) {
        const float angle = p * frequency_[i];
        row[i] = std::sin(angle);
        row[half + i] = std::cos(angle);
      }
    }
    const Mat vectors = ws.take(x.rows, d);
    backend_.write(ws.positions.data(), vectors);
    backend_.add(vectors, x);
  } else if (const auto* learned = std::get_if<LearnedPositions>(&shape_)) {
    ws.ids.clear();
    for (int64_t r = 0; r < x.rows; r++)
      ws.ids.push_back(static_cast<int32_t>(ws.kv_positions[r].pos + learned->offset));
    const Mat vectors = ws.take(x.rows, x.cols);
    backend_.embed_rows(learned_, ws.ids, 1.0f, vectors);
    backend_.add(vectors, x);
  }
}

void Positions::turn(Mat qk, int64_t heads, const std::vector<KvPosition>& positions) const {
  const auto* rope = std::get_if<RopePositions>(&shape_);
  if (rope) backend_.rope(qk, heads, {table_.get(), rope->dims, rope->interleaved}, positions);
}

}  // namespace ke
