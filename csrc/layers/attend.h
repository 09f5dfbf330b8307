// Attention of large matrices in parts between which it can be cancelled.
#pragma once
#include "backend/backend.h"
#include "base/cancel.h"

namespace ke {

// Rows that go through a block's products at once where there are thousands: the largest matrices are those between two
// products, and a product of more rows is no faster.
constexpr int64_t kRowsAtOnce = 1024;

// Backend::attention of `heads` heads that share no keys, some heads at a time: as many as keep all threads busy. The
// bits are those of all heads at once.
void attend(Backend& backend, Mat q, Mat k, Mat v, int64_t heads, float scale, Mat out, ScoreType score_type,
            const CancelToken* cancel);

}  // namespace ke
