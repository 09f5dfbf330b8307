// Backend::sample on the device: rules go there, ids come back.
#include <algorithm>
#include <bit>
#include <cstring>

#include "cuda/cuda_backend.h"

namespace ke::cuda {

namespace {

constexpr size_t kMinRuleBytes = size_t{64} << 10;  // bytes; memory that stays where it is keeps a pass the same

RuleRow rule_row(const SamplingRule& rule, int64_t cols, int32_t first_range) {
  const Sampling& s = rule.sampling;
  RuleRow row{};
  row.random = rule.random;
  row.first_range = first_range;
  row.ranges = static_cast<int32_t>(rule.allowed.size());
  row.drawn = s.temperature != 0;
  row.sorted = row.drawn && (s.top_p < 1 || (s.top_k > 0 && s.top_k < cols));
  row.scale = row.drawn ? s.scale() : 0;
  row.top_k = s.top_k;
  row.top_p = s.top_p;
  return row;
}

}  // namespace

void CudaBackend::sample(Mat logits, std::span<const SamplingRule> rules, std::span<Sampled> sampled) {
  const int64_t rows = logits.rows, cols = logits.cols, chunks = (cols + kVocabChunk - 1) / kVocabChunk;
  check_rules(rules, rows, cols);
  KE_ASSERT(rules.size() == sampled.size());
  if (rows == 0) return;
  if (chunks > kMaxVocabChunks) return Backend::sample(logits, rules, sampled);

  std::vector<RuleRow> heads;
  std::vector<IdPair> ranges;
  bool sorted = false;
  for (const SamplingRule& rule : rules) {
    heads.push_back(rule_row(rule, cols, static_cast<int32_t>(ranges.size())));
    for (const IdRange& r : rule.allowed) ranges.push_back({r.begin, r.end});
    sorted |= heads.back().sorted != 0;
  }
  const size_t head_bytes = heads.size() * sizeof(RuleRow), range_bytes = ranges.size() * sizeof(IdPair);
  std::vector<uint8_t> packed(head_bytes + range_bytes);
  std::memcpy(packed.data(), heads.data(), head_bytes);
  std::memcpy(packed.data() + head_bytes, ranges.data(), range_bytes);

  const auto lock = enter();
  grow(rules_, std::bit_ceil(std::max(packed.size(), kMinRuleBytes)));
  const size_t all_chunks = static_cast<size_t>(rows * chunks), ids = static_cast<size_t>(rows * cols);
  grow(sampled_, all_chunks * (2 * sizeof(double) + sizeof(LogitStats)) + heads.size() * sizeof(SampledRow));
  if (sorted) grow(sorted_, ids * (sizeof(uint64_t) + sizeof(Candidate)));
  SampleTask t;
  t.logits = {logits.data, rows, cols, logits.stride};
  t.rules = rules_.as<RuleRow>();
  t.ranges = reinterpret_cast<const IdPair*>(t.rules + rows);
  t.sums = sampled_.as<double>();
  t.stats = reinterpret_cast<LogitStats*>(t.sums + 2 * all_chunks);
  t.sampled = reinterpret_cast<SampledRow*>(t.stats + all_chunks);
  t.sorted = sorted ? sorted_.as<uint64_t>() : nullptr;
  t.candidates = sorted ? reinterpret_cast<Candidate*>(t.sorted + ids) : nullptr;

  // No deferred launch reads the rules: sampling waits for its own launches below.
  check(cudaMemcpyAsync(rules_.data(), packed.data(), packed.size(), cudaMemcpyHostToDevice, *stream_),
        "copy to the device");
  const Key key = key_of(t.logits, t.rules, t.sums, t.sorted);
  queue_->add("find the highest logits", key, [=](cudaStream_t stream) { return launch_logit_stats(stream, t); });
  queue_->add("sum the softmax", key, [=](cudaStream_t stream) { return launch_softmax_sums(stream, t); });
  if (sorted) queue_->add("sort tokens", key, [=](cudaStream_t stream) { return launch_sort(stream, t); });
  queue_->add("sample tokens", key, [=](cudaStream_t stream) { return launch_sample(stream, t); });
  flush();
  std::vector<SampledRow> rows_sampled(heads.size());
  check(cudaMemcpyAsync(rows_sampled.data(), t.sampled, rows_sampled.size() * sizeof(SampledRow),
                        cudaMemcpyDeviceToHost, *stream_),
        "copy from the device");
  check(cudaStreamSynchronize(*stream_), "sample tokens");
  for (size_t r = 0; r < rows_sampled.size(); r++) {
    const SampledRow& c = rows_sampled[r];
    sampled[r] = {c.id, c.finite != 0, c.logit, c.top, c.sum};
  }
}

}  // namespace ke::cuda
