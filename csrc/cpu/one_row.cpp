#include "cpu/one_row.h"

#include <algorithm>

#include "cpu/upload.h"

namespace ke::cpu {

namespace {

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// As a file calls the type; I8 and floats are never asked for.
const char* type_name(PanelType type) {
  static const char* const names[] = {"f32",  "f16",  "bf16", "q8_0", "q4_0", "q4_1",   "q5_0",   "q5_1",
                                      "q3_k", "q4_k", "q5_k", "q6_k", "i8",   "iq4_nl", "iq4_xs", "q2_k"};
  return names[static_cast<int>(type)];
}

}  // namespace

OneRowShape* OneRowChoice::shape_of(const CpuLinear& linear) {
  std::vector<PanelType> types;
  size_t bytes = 0;
  for (const CpuLinear::Part& part : linear.parts) {
    if (part.type == PanelType::I8) return nullptr;
    types.push_back(part.type);
    bytes += part.bytes();
  }
  if (candidates_.size() < 2 || linear.floats || bytes < kMeasured) return nullptr;
  std::lock_guard lock(mutex_);
  for (OneRowShape& shape : shapes_)
    if (shape.in == linear.packed_in && shape.out == linear.out && shape.types == types) return &shape;
  OneRowShape& shape = shapes_.emplace_back();
  shape.in = linear.packed_in;
  shape.out = linear.out;
  shape.types = std::move(types);
  shape.bytes = bytes;
  shape.rates.resize(candidates_.size());
  return &shape;
}

OneRowChoice::Trial::Trial(OneRowChoice& choice, OneRowShape* shape)
    : choice_(choice), shape_(shape), kernel_(&choice.candidates_[0]) {
  if (!shape) return;
  if (const OneRowKernel* chosen = shape->chosen.load(std::memory_order_acquire)) {
    kernel_ = chosen;
    return;
  }
  {
    std::lock_guard lock(choice.mutex_);
    candidate_ = shape->next++ % choice.candidates_.size();
  }
  kernel_ = &choice.candidates_[candidate_];
  measured_ = true;
  start_ = std::chrono::steady_clock::now();
}

void OneRowChoice::Trial::done() {
  if (!measured_) return;
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  std::lock_guard lock(choice_.mutex_);
  if (shape_->chosen.load(std::memory_order_relaxed)) return;
  shape_->rates[candidate_].push_back(static_cast<double>(shape_->bytes) / std::max(seconds, 1e-9));
  for (const auto& rates : shape_->rates)
    if (rates.size() < kTrials) return;
  size_t best = 0;
  for (size_t i = 1; i < shape_->rates.size(); ++i)
    if (median(shape_->rates[i]) > median(shape_->rates[best]) * (best == 0 ? kGain : 1.0)) best = i;
  shape_->chosen.store(&choice_.candidates_[best], std::memory_order_release);
}

std::vector<KernelChoice> OneRowChoice::report() const {
  std::lock_guard lock(mutex_);
  std::vector<KernelChoice> out;
  for (const OneRowShape& shape : shapes_) {
    KernelChoice choice;
    for (size_t i = 0; i < shape.types.size(); ++i)
      if (i == 0 || shape.types[i] != shape.types[i - 1])
        choice.types += (i ? "+" : "") + std::string(type_name(shape.types[i]));
    choice.in = shape.in;
    choice.out = shape.out;
    if (const OneRowKernel* chosen = shape.chosen.load()) choice.chosen = chosen->isa;
    for (size_t i = 0; i < candidates_.size(); ++i)
      choice.rates.emplace_back(candidates_[i].isa, shape.rates[i].empty() ? 0.0 : median(shape.rates[i]));
    out.push_back(std::move(choice));
  }
  return out;
}

}  // namespace ke::cpu
