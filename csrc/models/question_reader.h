// A Q-Former that reads the words beside an image (InstructBLIP): what its file says of the vocabulary, the checks, and
// the reader itself.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "models/bridge.h"
#include "models/image_encoder.h"
#include "text/tokenizer.h"

namespace ke {

struct QuestionConfig {
  int64_t vocab = 0;
  int64_t positions = 0;                    // tokens of a text, with those at its begin and end
  int32_t begin = 0, end = 0, unknown = 0;  // [CLS], [SEP], [UNK]
  std::vector<std::string> pieces;          // WordPieceVocabulary's
};
// <architecture>.qformer.* of the text.
Schema question_rows(const std::string& architecture, QuestionConfig& q);
void check_question(const GgufFile& file, const std::string& architecture, const QuestionConfig& q);

// bridge_parts, with a reader instead of a projector.
SquareParts reading_bridge_parts(const QformerConfig& q, const QuestionConfig& text, const VisionConfig& v,
                                 const DecoderConfig& d);

}  // namespace ke
