#include "engine/prompt.h"

#include <atomic>

#include "base/error.h"

namespace ke {

static std::atomic<uint64_t> embeddings_made{0};

ImageEmbedding::ImageEmbedding() : serial(++embeddings_made) {}

namespace {

class Builder {
 public:
  Builder(const Model& model, const Tokenizer& tokenizer) : model_(model), tokenizer_(tokenizer) {
    token(model.format.bos);
  }

  void segment(const Segment& s) {
    switch (s.kind) {
      case Segment::Kind::Text:
        tokens(tokenizer_.encode(s.text));
        break;
      case Segment::Kind::Tags:
        tokens(tokenizer_.encode_with_tags(s.text));
        break;
      case Segment::Kind::Image:
        image(s.image);
        break;
      case Segment::Kind::Boxes:
        boxes(s.cells);
        break;
      case Segment::Kind::Ids:
        tokens(s.ids);
        break;
    }
  }

  Prompt prompt;

 private:
  void token(int32_t id) {
    prompt.ids.push_back(id);
    prompt.embedding.push_back(nullptr);
  }

  void tokens(const std::vector<int32_t>& ids) {
    for (int32_t id : ids) {
      KE_CHECK(id >= 0 && id < model_.vocab, InvalidRequest, "token id ", id, " is outside 0..", model_.vocab - 1);
      token(id);
    }
  }

  void image(const std::shared_ptr<const ImageEmbedding>& e) {
    KE_CHECK(e, InvalidRequest, "an image segment has no encoded picture");
    KE_CHECK(e->rows == model_.image_tokens && e->cols == model_.width, InvalidRequest, "the encoded picture has ",
             e->rows, " x ", e->cols, " values, this model needs ", model_.image_tokens, " x ", model_.width,
             ": it was encoded by another model");
    token(model_.format.image_begin);
    prompt.pictures.push_back({prompt.ids.size(), e});
    for (int64_t j = 0; j < e->rows; j++) {
      prompt.ids.push_back(model_.format.first_slot + static_cast<int32_t>(j));
      prompt.embedding.push_back(e->values.data() + j * e->cols);
    }
    token(model_.format.image_end);
  }

  void boxes(const std::vector<std::pair<int32_t, int32_t>>& cells) {
    const PromptFormat& f = model_.format;
    const int64_t n = f.location_bins * f.location_bins;
    KE_CHECK(!cells.empty(), InvalidRequest, "a box segment holds no box");
    token(f.object_begin);
    for (size_t i = 0; i < cells.size(); i++) {
      if (i > 0) token(f.delimiter);
      for (int32_t cell : {cells[i].first, cells[i].second}) {
        KE_CHECK(cell >= 0 && cell < n, InvalidRequest, "location cell ", cell, " is outside 0..", n - 1);
        token(f.first_location + cell);
      }
    }
    token(f.object_end);
  }

  const Model& model_;
  const Tokenizer& tokenizer_;
};

}  // namespace

Prompt build_prompt(const Model& model, const Tokenizer& tokenizer, const std::vector<Segment>& segments) {
  KE_CHECK(!segments.empty(), InvalidRequest, "the prompt is empty: expected at least one text, picture or box");
  Builder builder(model, tokenizer);
  for (const Segment& s : segments) builder.segment(s);
  return std::move(builder.prompt);
}

}  // namespace ke
