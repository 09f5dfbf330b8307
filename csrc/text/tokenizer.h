// Text <-> ids. Shared by all kinds of tokenizers: pieces, tags, and how bytes of pieces become text. The kinds
// themselves are unigram.h, spm_bpe.h and byte_bpe.h; load_tokenizer.h chooses one for a model file.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/piece_table.h"

namespace ke {

// How the bytes of an id become text.
enum class Joining {
  Whole,    // whole characters
  ByteRun,  // one byte; a run of them is text if it is well-formed, else each byte is U+FFFD (transformers'
            // ByteFallback)
  Bytes,    // any bytes; each ill-formed stretch becomes U+FFFD (transformers' ByteLevel)
};

struct TextPart {
  std::string_view text;
  bool tags = false;  // whether tag strings in it become tags
};

// Immutable: for use by several threads at once.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // Plain text: tag and control strings inside are ordinary characters. at_start: nothing precedes the text in its
  // prompt. O(n log n) time, linear memory. InvalidRequest for ill-formed UTF-8 (with the byte offset) and for more
  // than 16 MiB.
  std::vector<int32_t> encode(std::string_view text, bool at_start = true) const;
  // Strings of Tag pieces become those ids (leftmost, then longest); every stretch of text between tags is encoded on
  // its own. Control strings ("</s>") stay text. Errors as encode.
  std::vector<int32_t> encode_with_tags(std::string_view text, bool at_start = true) const;
  // Several texts that follow each other. BPE kinds join text across parts, as if one string had been given of which
  // only some stretches may hold tags; unigram encodes each part on its own. Errors as encode, for all parts together.
  std::vector<int32_t> encode_parts(std::span<const TextPart> parts, bool at_start = true) const;

  // The text of all ids: well-formed UTF-8, tags as they are. InvalidRequest for an id outside 0..size-1, as in all
  // functions below.
  std::string decode(const std::vector<int32_t>& ids) const;
  // What one id adds to the bytes of a decoded text: blanks as blanks, tags as they are; empty for Control, Unknown and
  // Unused pieces, as transformers' skip_special_tokens does. Well-formed by itself only where joining(id) is Whole.
  virtual std::string bytes(int32_t id) const = 0;
  virtual Joining joining(int32_t id) const = 0;
  std::string text(int32_t id) const;  // bytes(id) with U+FFFD for bytes that are not a whole character
  bool drops_first_blank() const { return drops_first_blank_; }  // a decoded text does not begin with its first blank

  int32_t size() const { return table_.size(); }
  const std::string& piece(int32_t id) const { return table_.checked_piece(id); }
  PieceType type(int32_t id) const { return table_.checked_type(id); }
  int32_t find(std::string_view piece) const { return table_.find(piece); }  // -1 if there is none

 protected:
  struct Rules {
    bool joins_parts = true;
    bool drops_first_blank = false;
  };
  Tokenizer(PieceTable table, Rules rules);

  // Appends the ids of plain, well-formed text. at_start: it begins its prompt.
  virtual void encode_stretch(std::string_view text, bool at_start, std::vector<int32_t>& ids) const = 0;

  const PieceTable& table() const { return table_; }

 private:
  PieceTable table_;
  PieceTrie tags_;
  bool joins_parts_, drops_first_blank_;
};

}  // namespace ke
