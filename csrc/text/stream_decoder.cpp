#include "text/stream_decoder.h"

#include <utility>

#include "text/utf8.h"

namespace ke {

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool keep_tags)
    : tokenizer_(tokenizer), keep_tags_(keep_tags) {}

std::string StreamDecoder::push(int32_t id) {
  if (!keep_tags_ && tokenizer_.type(id) == PieceType::Tag) return {};
  std::string piece = tokenizer_.bytes(id);
  if (piece.empty()) return {};
  const Joining joining = tokenizer_.joining(id);
  std::string out;
  if (joining == Joining::Bytes) {
    held_ += piece;
    held_.erase(0, utf8::append_repaired(held_, /*whole=*/false, out));
  } else if (joining == Joining::ByteRun) {
    run_ = true;
    held_ += piece;
  } else {
    out = held_.empty() ? std::move(piece) : flushed() + piece;
  }
  return without_first_blank(std::move(out));
}

std::string StreamDecoder::finish() { return without_first_blank(flushed()); }

std::string StreamDecoder::flushed() {
  const std::string held = std::exchange(held_, {});
  if (!std::exchange(run_, false) || utf8::first_ill_formed(held) == std::string::npos) return utf8::repaired(held);
  std::string out;
  for (size_t i = 0; i < held.size(); ++i) out += utf8::kReplacement;
  return out;
}

std::string StreamDecoder::without_first_blank(std::string text) {
  if (text.empty()) return text;
  if (std::exchange(first_, false) && tokenizer_.drops_first_blank() && text[0] == ' ') text.erase(0, 1);
  return text;
}

}  // namespace ke
