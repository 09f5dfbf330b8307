// Ranking texts by how likely they are behind a prompt.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "models/info.h"

namespace ke {

// What stands around every text that is ranked.
struct ScoreTemplate {
  std::string before;  // given
  std::string after;   // scored with the text
};

// Of a template with one {text}, and at most one {image} before it; else InvalidRequest.
ScoreTemplate split_template(std::string_view text);
// The caption's words, then the text.
ScoreTemplate default_template(const ModelInfo& model);

// What the ranking goes by: the sum of ln p, its mean per token, or the sum by the number of the text's characters
// (code points, without the template's words: lm-evaluation-harness, acc_norm).
enum class Normalize { Sum, Mean, Characters };

struct RankRequest {
  std::shared_ptr<const ImageEmbedding> image;  // nullptr: the texts stand behind no image
  std::vector<std::string> texts;               // 1..limits::kMaxTexts
  ScoreTemplate around;
  Normalize normalize = Normalize::Sum;
  std::vector<Segment> prompt{};  // not empty: what the texts stand behind, instead of the image and `around`
};

struct RankedText {
  size_t index = 0;     // in RankRequest::texts
  double score = 0;     // what the ranking goes by
  double share = 0;     // softmax of all scores; they sum to 1
  double sum = 0;       // ln p of the text and what stands behind it
  double mean = 0;      // per token
  bool greedy = false;  // each of its tokens was the likeliest at its place
  std::vector<int32_t> ids;
  std::vector<float> logprobs;  // per token
};

struct Ranking {
  std::vector<RankedText> rows;    // by falling score; equal ones in the order given
  std::vector<std::string> notes;  // what should be known about the request
  size_t tokens = 0;               // of all texts
  size_t reused = 0;               // positions of the prompt that were not computed again
};

// InvalidRequest, ModelCorrupt, ContextTooLong, Cancelled.
Ranking rank_texts(const Engine& engine, const RankRequest& request, const CancelToken* cancel);

}  // namespace ke
