#include "engine/prompt.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <optional>

#include "base/error.h"
#include "engine/prefix_cache.h"
#include "engine/source.h"

namespace ke {

static std::atomic<uint64_t> embeddings_made{0};

ImageEmbedding::ImageEmbedding() : serial(++embeddings_made) {}

void ImageEmbedding::forget() const {
  if (prefix) prefix->clear();
  if (!last_reading) return;
  const std::lock_guard lock(last_reading->mutex);
  last_reading->words.clear();
  last_reading->image.reset();
}

namespace {

constexpr size_t kSeenAlways = std::numeric_limits<size_t>::max();

class Builder {
 public:
  Builder(const Model& model, const Tokenizer& tokenizer, bool goes_on)
      : model_(model),
        tokenizer_(tokenizer),
        goes_on_(goes_on),
        begin_is_text_(model.info().begin_is_text && !goes_on) {}

  void segment(const Segment& s) {
    const bool text = s.kind == Segment::Kind::Text || s.kind == Segment::Kind::Tags;
    if (text && s.text.empty()) return;  // so that an image behind it may still be the first
    const bool seen = s.kind == Segment::Kind::Image || s.kind == Segment::Kind::Rows;
    if (!seen || !model_.info().image_before_begin) begin();
    switch (s.kind) {
      case Segment::Kind::Text:
      case Segment::Kind::Tags:
        texts_.push_back({s.text, s.kind == Segment::Kind::Tags});
        return;
      case Segment::Kind::Image:
        end_texts();
        return image(s.image, joins_image() ? std::vector<int32_t>{} : model_.info().image.before,
                     model_.info().image.after);
      case Segment::Kind::Rows:
        end_texts();
        return image(s.image, {}, {});
      case Segment::Kind::Boxes:
        end_texts();
        return boxes(s.cells);
      case Segment::Kind::Ids:
        end_texts();
        return tokens(s.ids);
    }
  }

  Prompt take() {
    begin();
    end_texts();
    if (!goes_on_)
      for (int32_t id : model_.info().end) token(id);
    for (size_t i = 0; i < prompt_.images.size(); i++) end_document(i);
    return std::move(prompt_);
  }

 private:
  void begin() {
    if (begun_at_) return;
    for (int32_t id : model_.info().begin) token(id);
    begun_at_ = prompt_.ids.size();
  }

  // Texts that follow each other are one text to tokenizers that join them.
  void end_texts() {
    if (texts_.empty()) return;
    const bool at_start = !begin_is_text_ && prompt_.ids.size() == begun_at_;
    tokens(tokenizer_.encode_parts(texts_, at_start));
    texts_.clear();
  }

  void token(int32_t id) { prompt_.ids.push_back(id); }

  void tokens(const std::vector<int32_t>& ids) {
    for (int32_t id : ids) {
      KE_CHECK(id >= 0 && id < model_.info().vocab, InvalidRequest, "token id ", id, " is outside 0..",
               model_.info().vocab - 1);
      token(id);
    }
  }

  void image(const std::shared_ptr<const ImageEmbedding>& e, const std::vector<int32_t>& before,
             const std::vector<int32_t>& after) {
    KE_CHECK(e, InvalidRequest, "an image segment has no encoded picture");
    const ModelInfo& info = model_.info();
    KE_CHECK(e->features->model == model_.serial(), InvalidRequest,
             "the encoded picture was encoded by another model than the one of this prompt");
    const size_t begin = prompt_.ids.size(), first = begin + before.size();
    const size_t end = first + static_cast<size_t>(e->features->rows) + after.size();
    for (int32_t id : before) token(id);
    prompt_.images.push_back({begin, end, first, kSeenAlways, e});
    prompt_.image_segment = info.image.segment;
    for (int64_t j = 0; j < e->features->rows; j++) token(info.image.row_id(j));
    for (int32_t id : after) token(id);
  }

  // Whether the next image stands right behind another one and begins with that one's end.
  bool joins_image() const {
    return model_.info().image.joined && !prompt_.images.empty() && prompt_.images.back().end == prompt_.ids.size();
  }

  // Sets from where on an image is not looked at, although no other has come.
  void end_document(size_t image) {
    const int32_t end = model_.info().document_end;
    if (end < 0) return;
    const auto begin = prompt_.ids.begin() + static_cast<ptrdiff_t>(prompt_.images[image].first);
    const auto found = std::find(begin, prompt_.ids.end(), end);
    if (found != prompt_.ids.end()) prompt_.images[image].unseen = static_cast<size_t>(found - prompt_.ids.begin()) + 1;
  }

  void boxes(const std::vector<std::pair<int32_t, int32_t>>& cells) {
    KE_CHECK(model_.info().grounding, InvalidRequest, "boxes: ", kNoGrounding);
    const Grounding& f = *model_.info().grounding;
    const int64_t n = f.bins * f.bins;
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
  const bool goes_on_, begin_is_text_;
  Prompt prompt_;
  std::optional<size_t> begun_at_;  // the position behind ModelInfo::begin, once that stands
  std::vector<TextPart> texts_;     // since the last segment of another kind
};

}  // namespace

const Prompt& Prompt::told() const { return source ? source->prompt() : *this; }

InputRow Prompt::row(size_t position, KvCache* cache) const {
  InputRow out{ids[position], nullptr, {cache, static_cast<int32_t>(position)}};
  if (source) out.memory = source->memory();
  const auto last = [&](size_t PlacedImage::* bound) -> const PlacedImage* {
    const auto behind = std::upper_bound(images.begin(), images.end(), position,
                                         [&](size_t at, const PlacedImage& p) { return at < p.*bound; });
    return behind == images.begin() ? nullptr : &*std::prev(behind);
  };
  if (const PlacedImage* placed = last(&PlacedImage::begin))
    if (position < placed->end) out.segment = image_segment;
  if (const PlacedImage* placed = last(&PlacedImage::first)) {
    const ImageFeatures& features = *placed->image->features;
    const auto index = static_cast<int64_t>(position - placed->first);
    if (index < features.rows) features.place(index, out);
    if (position < placed->unseen) out.memory = features.memory();
  }
  return out;
}

InputRow Prompt::row_behind(int32_t id, size_t position, KvCache* cache) const {
  InputRow out{id, nullptr, {cache, static_cast<int32_t>(position)}};
  if (source) out.memory = source->memory();
  if (!images.empty() && ids.size() <= images.back().unseen) out.memory = images.back().image->features->memory();
  return out;
}

std::vector<std::string> words_beside_images(const std::vector<Segment>& segments) {
  std::vector<std::string> out;
  std::vector<size_t> open;  // whose words these are
  std::string words;
  const auto close = [&] {
    for (const size_t image : open) out[image] = words;
    open.clear();
    words.clear();
  };
  for (const Segment& s : segments) {
    if (s.kind == Segment::Kind::Text || s.kind == Segment::Kind::Tags) {
      words += s.text;
      continue;
    }
    if (s.kind == Segment::Kind::Image) {
      if (!open.empty() && words.find_first_not_of(" \t\r\n") != std::string::npos) close();
      open.push_back(out.size());
    }
    if (s.kind == Segment::Kind::Image || s.kind == Segment::Kind::Rows) out.emplace_back();
    words += ' ';
  }
  close();
  return out;
}

Prompt build_prompt(const Model& model, const Tokenizer& tokenizer, const std::vector<Segment>& segments,
                    bool goes_on) {
  KE_CHECK(!segments.empty(), InvalidRequest, "the prompt is empty: expected at least one text, picture or box");
  Builder builder(model, tokenizer, goes_on);
  for (const Segment& s : segments) builder.segment(s);
  return builder.take();
}

}  // namespace ke
