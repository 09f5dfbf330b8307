// Tokenizer, boxes, entities and streaming decoders for Python: text/*.h.
#include <nanobind/stl/shared_ptr.h>

#include "bindings/bind_common.h"
#include "format/gguf.h"
#include "text/byte_bpe.h"
#include "text/grounding.h"
#include "text/load_tokenizer.h"
#include "text/spm_bpe.h"
#include "text/stream.h"
#include "text/unigram.h"
#include "text/word_piece.h"

namespace ke {

using BoxTuple = std::tuple<double, double, double, double>;
using PairList = std::vector<std::pair<int32_t, int32_t>>;
// phrase, start, end, boxes, cells, tokens
using EntityTuple = std::tuple<std::string, int64_t, int64_t, std::vector<BoxTuple>, PairList, PairList>;

static BoxTuple box_tuple(const Box& box) { return {box.x1, box.y1, box.x2, box.y2}; }

static std::vector<EntityTuple> entity_list(const std::vector<Entity>& entities) {
  std::vector<EntityTuple> out;
  for (const Entity& e : entities) {
    std::vector<BoxTuple> boxes;
    for (const Box& box : e.boxes) boxes.push_back(box_tuple(box));
    PairList tokens;
    for (const std::vector<int32_t>& pair : e.tokens) tokens.emplace_back(pair.at(0), pair.at(1));
    out.emplace_back(e.phrase, e.start, e.end, std::move(boxes), e.cells, std::move(tokens));
  }
  return out;
}

static std::pair<std::string, std::vector<EntityTuple>> grounded_tuple(const Grounded& grounded) {
  return {grounded.text, entity_list(grounded.entities)};
}

static std::vector<std::string> strings_of(const TextList& texts) {
  std::vector<std::string> out;
  out.reserve(nb::len(texts));
  for (nb::handle text : texts) out.push_back(utf8_of(text));
  return out;
}

static std::string string_of(const BufferArg& buffer) {
  const BufferView blob(buffer);
  return {blob.bytes().begin(), blob.bytes().end()};
}

static std::shared_ptr<Tokenizer> make_unigram(const TextList& pieces, std::vector<float> scores,
                                               std::vector<int32_t> types, const BufferArg& charsmap, int32_t unk) {
  return std::make_shared<Unigram>(
      UnigramVocabulary{strings_of(pieces), std::move(scores), std::move(types), string_of(charsmap), unk});
}

static std::shared_ptr<Tokenizer> make_spm_bpe(const TextList& pieces, std::vector<float> scores,
                                               std::vector<int32_t> types, const BufferArg& charsmap, int32_t unk,
                                               bool blank_prefix, bool prefix_every_stretch, bool prefix_before_blank,
                                               bool fold_blanks) {
  return std::make_shared<SpmBpe>(SpmBpeVocabulary{strings_of(pieces), std::move(scores), std::move(types),
                                                   string_of(charsmap), unk, blank_prefix, prefix_every_stretch,
                                                   prefix_before_blank, fold_blanks});
}

static std::shared_ptr<Tokenizer> make_byte_bpe(const TextList& pieces, std::vector<int32_t> types,
                                                const TextList& merges, const std::string& pretokenizer,
                                                bool whole_pieces, bool nfc) {
  const bool gpt2 = pretokenizer == "gpt2", cl100k = pretokenizer == "cl100k", clip = pretokenizer == "clip";
  KE_CHECK(gpt2 || cl100k || clip || pretokenizer == "qwen2", InvalidRequest, "pretokenizer is '", pretokenizer,
           "', expected 'gpt2', 'cl100k', 'qwen2' or 'clip'");
  return std::make_shared<ByteBpe>(ByteBpeVocabulary{strings_of(pieces), std::move(types), strings_of(merges),
                                                     gpt2     ? Pretokenizer::Gpt2
                                                     : cl100k ? Pretokenizer::Cl100k
                                                     : clip   ? Pretokenizer::Clip
                                                              : Pretokenizer::Qwen2,
                                                     whole_pieces, nfc || clip, clip});
}

static std::shared_ptr<Tokenizer> make_word_piece(const TextList& pieces, std::vector<int32_t> types, int32_t unk) {
  return std::make_shared<WordPiece>(WordPieceVocabulary{strings_of(pieces), std::move(types), unk});
}

static std::vector<int32_t> encode_parts(const Tokenizer& t,
                                         const nb::typed<nb::sequence, std::pair<TextArg, bool>>& parts,
                                         bool at_start) {
  std::vector<std::pair<std::string, bool>> texts;
  for (nb::handle part : parts) {
    const auto [text, tags] = nb::cast<std::pair<nb::object, bool>>(part);
    texts.emplace_back(utf8_of(text), tags);
  }
  std::vector<TextPart> views;
  for (const auto& [text, tags] : texts) views.push_back({text, tags});
  nb::gil_scoped_release release;
  return t.encode_parts(views, at_start);
}

static void bind_tokenizer(nb::module_& m) {
  nb::class_<Tokenizer>(m, "Tokenizer", "Text <-> ids. The constructor makes a sentencepiece unigram vocabulary.")
      .def(
          nb::new_(&make_unigram), nb::arg("pieces"), nb::arg("scores"), nb::arg("types"),
          nb::arg("charsmap") = nb::bytes("", 0), nb::arg("unk") = 3,
          "pieces: str or UTF-8 bytes by id; scores: log-probabilities; types: 1 normal, 2 unknown, 3 control, 4 tag,\n"
          "5 unused; charsmap: sentencepiece's precompiled_charsmap. Raises ModelCorrupt.")
      .def_static("spm_bpe", &make_spm_bpe, nb::arg("pieces"), nb::arg("scores"), nb::arg("types"),
                  nb::arg("charsmap") = nb::bytes("", 0), nb::arg("unk") = 0, nb::arg("blank_prefix") = true,
                  nb::arg("prefix_every_stretch") = true, nb::arg("prefix_before_blank") = true,
                  nb::arg("fold_blanks") = false,
                  "sentencepiece BPE; type 6: a byte, spelled <0x00> to <0xFF>. Raises ModelCorrupt.")
      .def_static("byte_bpe", &make_byte_bpe, nb::arg("pieces"), nb::arg("types"), nb::arg("merges"),
                  nb::arg("pretokenizer"), nb::arg("whole_pieces") = false, nb::arg("nfc") = false,
                  "Byte-level BPE; merges: 'left right', the first goes first; pretokenizer: 'gpt2', 'cl100k',\n"
                  "'qwen2', or 'clip', whose words end in </w> and are made small; nfc: texts are brought into "
                  "Unicode's form C first. Raises ModelCorrupt, InvalidRequest.")
      .def_static("word_piece", &make_word_piece, nb::arg("pieces"), nb::arg("types"), nb::arg("unk") = 100,
                  "BERT's uncased WordPiece; a piece that goes on with a word begins with ##. Raises ModelCorrupt.")
      .def_static(
          "load",
          [](const std::string& path) {
            nb::gil_scoped_release release;
            return std::const_pointer_cast<Tokenizer>(make_tokenizer(*GgufFile::open(path, LoadMode::Mmap)));
          },
          nb::arg("path"), "The tokenizer of a GGUF file. Raises ModelNotFound, ModelCorrupt.")
      .def(
          "encode",
          [](const Tokenizer& t, const TextArg& text, bool at_start) {
            const std::string utf8 = utf8_of(text);
            nb::gil_scoped_release release;
            return t.encode(utf8, at_start);
          },
          nb::arg("text"), nb::arg("at_start") = true,
          "Ids of plain text: tag strings in it are ordinary characters. at_start: it begins the prompt. Raises\n"
          "InvalidRequest.")
      .def(
          "encode_with_tags",
          [](const Tokenizer& t, const TextArg& text, bool at_start) {
            const std::string utf8 = utf8_of(text);
            nb::gil_scoped_release release;
            return t.encode_with_tags(utf8, at_start);
          },
          nb::arg("text"), nb::arg("at_start") = true,
          "Ids of text whose tag strings become tag ids. Raises InvalidRequest.")
      .def("encode_parts", &encode_parts, nb::arg("parts"), nb::arg("at_start") = true,
           "Ids of texts that follow each other: [(text, whether its tag strings are tags)]. Raises InvalidRequest.")
      .def("decode", &Tokenizer::decode, nb::arg("ids"),
           "Text of ids: control, unknown and unused ids are skipped, tags stay. Raises InvalidRequest.")
      .def("piece", &Tokenizer::piece, nb::arg("id"), "The piece of an id. Raises InvalidRequest.")
      .def("text", &Tokenizer::text, nb::arg("id"),
           "What an id adds to a decoded text; U+FFFD for a part of a character. Raises InvalidRequest.")
      .def(
          "type", [](const Tokenizer& t, int32_t id) { return static_cast<int32_t>(t.type(id)); }, nb::arg("id"),
          "1 normal, 2 unknown, 3 control, 4 tag, 5 unused, 6 byte. Raises InvalidRequest.")
      .def(
          "find", [](const Tokenizer& t, const TextArg& piece) { return t.find(utf8_of(piece)); }, nb::arg("piece"),
          "The id of a piece, -1 when there is none.")
      .def_prop_ro("size", &Tokenizer::size, "Number of ids.")
      .def("__len__", &Tokenizer::size)
      // Last: in the stub the type of this name is hidden behind it.
      .def(
          "bytes",
          [](const Tokenizer& t, int32_t id) {
            const std::string bytes = t.bytes(id);
            return nb::bytes(bytes.data(), bytes.size());
          },
          nb::arg("id"), "The bytes that an id adds to a decoded text. Raises InvalidRequest.");
}

static void bind_streams(nb::module_& m) {
  nb::class_<StreamDecoder>(m, "StreamDecoder", "Text deltas for ids that arrive one by one.")
      .def(nb::init<const Tokenizer&, bool>(), nb::arg("tokenizer"), nb::arg("keep_tags") = false,
           nb::keep_alive<1, 2>())
      .def("push", &StreamDecoder::push, nb::arg("id"),
           "The text that this id adds, often empty. Raises InvalidRequest.")
      .def("finish", &StreamDecoder::finish,
           "What was held back: an unfinished character, which becomes U+FFFD, or a run of byte tokens.");
  nb::class_<StreamGrounder>(m, "StreamGrounder", "Entities of parse_grounded, each as soon as its </object> arrives.")
      .def(nb::init<const Tokenizer&, int64_t>(), nb::arg("tokenizer"), nb::arg("bins") = 32, nb::keep_alive<1, 2>())
      .def(
          "push", [](StreamGrounder& g, int32_t id) { return entity_list(g.push(id)); }, nb::arg("id"),
          "The entities that this id completed, in the form of parse_grounded. Raises InvalidRequest.");
}

void bind_text(nb::module_& m) {
  bind_tokenizer(m);
  bind_streams(m);
  m.def(
      "box_to_cells",
      [](double x1, double y1, double x2, double y2, int64_t bins) { return box_to_cells({x1, y1, x2, y2}, bins); },
      nb::arg("x1"), nb::arg("y1"), nb::arg("x2"), nb::arg("y2"), nb::arg("bins") = 32,
      "(upper-left cell, lower-right cell) of a box in fractions of the picture. Raises InvalidRequest.");
  m.def(
      "cells_to_box",
      [](int32_t upper_left, int32_t lower_right, int64_t bins) {
        return box_tuple(cells_to_box(upper_left, lower_right, bins));
      },
      nb::arg("i"), nb::arg("j"), nb::arg("bins") = 32,
      "(x1, y1, x2, y2) in fractions of the picture, for the upper-left cell i and the lower-right cell j. Raises\n"
      "InvalidRequest.");
  m.def(
      "parse_grounded",
      [](const Tokenizer& t, const std::vector<int32_t>& ids, int64_t bins) {
        return grounded_tuple(parse_grounded(t, ids, bins));
      },
      nb::arg("tokenizer"), nb::arg("ids"), nb::arg("bins") = 32,
      "(text, [(phrase, start, end, [(x1, y1, x2, y2)], [(cell, cell)], [(index in ids, index in ids)])]) as\n"
      "transformers' clean_text_and_extract_entities_with_bboxes finds them. Raises InvalidRequest.");
  m.def(
      "parse_grounded_text",
      [](const TextArg& text, int64_t bins) { return grounded_tuple(parse_grounded(utf8_of(text), bins)); },
      nb::arg("text"), nb::arg("bins") = 32, "parse_grounded of decoded text; the last list is empty.");
  m.def(
      "clean_up_tokenization", [](const TextArg& text) { return clean_up_tokenization(utf8_of(text)); },
      nb::arg("text"), "transformers' clean-up of blanks: ' .' becomes '.', and so on.");
}

}  // namespace ke
