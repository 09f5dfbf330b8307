// kosmos_edge._core.testing: answers as they grow, and what reading one costs.
#include <functional>
#include <memory>
#include <tuple>

#include "bindings/answer_values.h"
#include "text/grounded_reader.h"
#include "text/stop_finder.h"

namespace ke {
namespace {

nb::tuple grounded_tuple(const Grounded& grounded) {
  nb::list entities;
  for (const Entity& e : grounded.entities) {
    std::vector<std::pair<int32_t, int32_t>> tokens;
    for (const std::vector<int32_t>& pair : e.tokens) tokens.emplace_back(pair.at(0), pair.at(1));
    entities.append(nb::make_tuple(e.phrase, e.start, e.end, e.cells, tokens, e.phrase_tokens));
  }
  return nb::make_tuple(grounded.text, entities);
}

std::shared_ptr<const AnswerParser> parser_of(int64_t bins) {
  if (bins < 0) return box_text_answers();
  return bins > 0 ? grounded_answers(bins) : plain_answers();
}

// The answers of a page of 16 x 16 patches of one pixel, so that coordinates are pixels of an image of 16 x 16.
constexpr int64_t kPage = 16;
AnswerReader page_reader(const Tokenizer& tokenizer, bool markdown, bool image) {
  static const std::shared_ptr<const AnswerParser> parser = page_answers(1, kPage * kPage);
  const int64_t side = image ? kPage : 0;
  return {tokenizer, *parser, {side, side, markdown}};
}

// A tokenizer that counts how often a piece is decoded.
class Counting final : public Tokenizer {
 public:
  explicit Counting(const Tokenizer& inner)
      : Tokenizer(table_of(inner), {.joins_parts = true, .drops_first_blank = inner.drops_first_blank()}),
        inner_(inner) {}
  std::string bytes(int32_t id) const override {
    ++decoded;
    return inner_.bytes(id);
  }
  Joining joining(int32_t id) const override { return inner_.joining(id); }
  mutable int64_t decoded = 0;

 private:
  static PieceTable table_of(const Tokenizer& inner) {
    std::vector<std::string> pieces;
    std::vector<int32_t> types;
    for (int32_t id = 0; id < inner.size(); id++) {
      pieces.push_back(inner.piece(id));
      types.push_back(static_cast<int32_t>(inner.type(id)));
    }
    return {std::move(pieces), std::move(types), PieceType::Byte};
  }
  void encode_stretch(std::string_view, bool, std::vector<int32_t>&) const override { KE_ASSERT(false); }

  const Tokenizer& inner_;
};

// (events, pieces decoded while the answer grew, pieces decoded in all)
nb::tuple stream_cost(const Tokenizer& tokenizer, int64_t bins, const std::vector<int32_t>& ids,
                      const std::vector<std::string>& stop) {
  const Counting counting(tokenizer);
  const std::shared_ptr<const AnswerParser> parser = parser_of(bins);
  const AnswerReader reader(counting, *parser);
  AnswerStream stream(reader, {}, stop);
  StopFinder finder(counting, stop);
  size_t events = 0;
  const std::vector<float> logprobs(ids.size(), -1.0f);
  for (const int32_t id : ids) {
    (void)finder.push(id);
    (void)stream.push(id, -1.0f);
    events += stream.events().size();
  }
  const int64_t growing = counting.decoded;
  events += stream.finish(reader.read({}, ids, logprobs, stop)).size();
  return nb::make_tuple(events, growing, counting.decoded);
}

}  // namespace

void bind_testing_text(nb::module_& m) {
  nb::module_ t = nb::cast<nb::module_>(m.attr("testing"));
  nb::class_<GroundedReader>(t, "GroundedReader")
      .def(nb::init<const Tokenizer&, int64_t>(), nb::arg("tokenizer"), nb::arg("bins"), nb::keep_alive<1, 2>())
      .def("push", &GroundedReader::push)
      .def("finish", &GroundedReader::finish)
      .def("byte_of", &GroundedReader::byte_of)
      .def("unchanged", &GroundedReader::unchanged)
      .def_prop_ro("text", [](const GroundedReader& r) { return std::string(r.text()); })
      .def_prop_ro("last_word", &GroundedReader::last_word)
      .def_prop_ro("settled", &GroundedReader::settled)
      .def_prop_ro("grounded", [](const GroundedReader& r) { return grounded_tuple(r.grounded()); });
  t.def("parse_grounded", [](const Tokenizer& tokenizer, const std::vector<int32_t>& ids, int64_t bins) {
    return grounded_tuple(parse_grounded(tokenizer, ids, bins));
  });
  nb::class_<StopFinder>(t, "StopFinder")
      .def(nb::init<const Tokenizer&, const std::vector<std::string>&>(), nb::keep_alive<1, 2>())
      .def("push", [](StopFinder& f, int32_t id) {
        const std::string* found = f.push(id);
        return found ? nb::object(nb::str(found->c_str(), found->size())) : nb::object(nb::none());
      });
  // An answer in the making, for a tokenizer and a grid of bins x bins without a model.
  nb::class_<AnswerStream>(t, "AnswerStream").def("push", &AnswerStream::push).def("events", [](AnswerStream& s) {
    return event_list(s.events());
  });
  t.def(
      "answer_stream",
      [](const Tokenizer& tokenizer, int64_t bins, const std::vector<int32_t>& kept,
         const std::vector<std::string>& stop) {
        return new AnswerStream(AnswerReader(tokenizer, *parser_of(bins)), kept, stop);
      },
      nb::rv_policy::take_ownership, nb::keep_alive<0, 1>());
  t.def("read_answer", [](const Tokenizer& tokenizer, int64_t bins, const std::vector<int32_t>& kept,
                          const std::vector<int32_t>& answer, const std::vector<float>& logprobs,
                          const std::vector<std::string>& stop) {
    return answer_tuple(AnswerReader(tokenizer, *parser_of(bins)).read(kept, answer, logprobs, stop));
  });
  t.def("finish_stream", [](AnswerStream& stream, const Tokenizer& tokenizer, int64_t bins,
                            const std::vector<int32_t>& kept, const std::vector<int32_t>& answer,
                            const std::vector<float>& logprobs, const std::vector<std::string>& stop) {
    return event_list(stream.finish(AnswerReader(tokenizer, *parser_of(bins)).read(kept, answer, logprobs, stop)));
  });
  // (text, entities, notes, whether it ends in a line) of a page's answer, and its stream: (events while it grows,
  // events at its end).
  t.def("read_page",
        [](const Tokenizer& tokenizer, const std::vector<int32_t>& answer, const std::vector<float>& logprobs,
           bool markdown, bool image, const std::vector<std::string>& stop) {
          const Answer read = page_reader(tokenizer, markdown, image).read({}, answer, logprobs, stop);
          return std::tuple_cat(answer_tuple(read), std::make_tuple(read.notes, read.ends_in_entity));
        });
  t.def("stream_page", [](const Tokenizer& tokenizer, const std::vector<int32_t>& answer, bool markdown) {
    const AnswerReader reader = page_reader(tokenizer, markdown, true);
    AnswerStream stream(reader, {}, {});
    std::vector<std::vector<AnswerEventValue>> growing;
    const std::vector<float> logprobs(answer.size(), -1.0f);
    for (const int32_t id : answer) {
      (void)stream.push(id, -1.0f);
      growing.push_back(event_list(stream.events()));
    }
    return std::make_pair(growing, event_list(stream.finish(reader.read({}, answer, logprobs))));
  });
  t.def("stream_cost", &stream_cost, nb::arg("tokenizer"), nb::arg("bins"), nb::arg("ids"), nb::arg("stop"));
}

}  // namespace ke
