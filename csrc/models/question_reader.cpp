#include "models/question_reader.h"

#include "text/word_piece.h"

namespace ke {
namespace {

std::shared_ptr<const Tokenizer> tokenizer_of(const QuestionConfig& q) {
  WordPieceVocabulary v;
  v.pieces = q.pieces;
  v.types.assign(v.pieces.size(), static_cast<int32_t>(PieceType::Normal));
  for (const int32_t id : {q.begin, q.end})
    v.types.at(static_cast<size_t>(id)) = static_cast<int32_t>(PieceType::Control);
  v.types.at(static_cast<size_t>(q.unknown)) = static_cast<int32_t>(PieceType::Unknown);
  v.unk = q.unknown;
  return std::make_shared<WordPiece>(std::move(v));
}

class QuestionReader : public WordsReader {
 public:
  QuestionReader(Backend& backend, Weights& weights, const QformerShape& shape, const QuestionConfig& q)
      : qformer_(backend, weights, shape),
        tokenizer_(tokenizer_of(q)),
        begin_(q.begin),
        end_(q.end),
        positions_(static_cast<size_t>(q.positions)),
        rows_(shape.queries),
        feature_width_(shape.feature_width) {}

  int64_t rows() const override { return rows_; }
  int64_t feature_width() const override { return feature_width_; }

  Mat read(Workspace& ws, Mat features, std::string_view words) const override {
    std::vector<int32_t> ids = tokenizer_->encode(words);
    KE_CHECK(ids.size() + 2 <= positions_, ContextTooLong, "the words beside a picture are ", ids.size(),
             " tokens for the part of this model that looks at it; expected at most ", positions_ - 2,
             ": ask for less at a time, or begin a new chat");
    ids.insert(ids.begin(), begin_);
    ids.push_back(end_);
    return qformer_.forward_with(ws, features, ids);
  }

 private:
  const Qformer qformer_;
  const std::shared_ptr<const Tokenizer> tokenizer_;
  const int32_t begin_, end_;
  const size_t positions_;
  const int64_t rows_, feature_width_;
};

}  // namespace

Schema question_rows(const std::string& architecture, QuestionConfig& q) {
  return {
      named("qformer.vocab", whole(architecture + ".qformer.vocab_size", 4, 1 << 20, &q.vocab)),
      named("qformer.positions", whole(architecture + ".qformer.context_length", 3, 65536, &q.positions)),
      fixed_text(architecture + ".qformer.tokenizer", "bert-uncased"),
      pieces(architecture + ".qformer.tokens", &q.pieces, architecture + ".qformer.vocab_size of them, all different"),
      token_id(architecture + ".qformer.begin_token_id", &q.begin, "a token of its own"),
      token_id(architecture + ".qformer.end_token_id", &q.end, "a token of its own"),
      token_id(architecture + ".qformer.unknown_token_id", &q.unknown, "a token of its own"),
  };
}

void check_question(const GgufFile& file, const std::string& architecture, const QuestionConfig& q) {
  check_count(file, architecture + ".qformer.tokens", q.pieces.size(), static_cast<uint64_t>(q.vocab),
              architecture + ".qformer.vocab_size");
  for (const auto& [key, id] :
       {std::pair(".qformer.begin_token_id", q.begin), std::pair(".qformer.end_token_id", q.end),
        std::pair(".qformer.unknown_token_id", q.unknown)})
    check_file(file, id < q.vocab, architecture, key, " is ", id, "; expected less than ", architecture,
               ".qformer.vocab_size, ", q.vocab);
  check_file(file, q.begin != q.end && q.begin != q.unknown && q.end != q.unknown, architecture,
             ".qformer.begin_token_id is ", q.begin, ", end_token_id ", q.end, ", unknown_token_id ", q.unknown,
             "; expected three tokens");
  try {
    (void)tokenizer_of(q);
  } catch (const Error& e) {
    fail(e.code(), file.path(), ": ", architecture, ".qformer.tokens: ", e.what());
  }
}

SquareParts reading_bridge_parts(const QformerConfig& q, const QuestionConfig& text, const VisionConfig& v,
                                 const DecoderConfig& d) {
  SquareParts p = bridge_parts(q, v, d);
  QformerShape shape = qformer_shape(q, v, d);
  shape.text_vocab = text.vocab, shape.text_positions = text.positions;
  p.load_projector = {};
  p.load_reader = [shape, text](Backend& backend, Weights& weights) {
    return std::make_unique<QuestionReader>(backend, weights, shape, text);
  };
  return p;
}

}  // namespace ke
