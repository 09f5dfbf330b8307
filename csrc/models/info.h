// What a model says of itself, read from its file before any weight is: the numbers and rules that the engine, the
// tasks and the bindings work by. Whoever needs to behave differently for a model asks for a property here, never for
// its name.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

namespace ke {

class AnswerParser;

// The formats of the verbs' prompts, with their places {question}, {phrase}, {boxes}; tag strings in them are tags. The
// image stands at {image}, and before a format that has no such place. locate, describe and grounding are empty where a
// model writes no boxes.
struct PromptFormats {
  std::string caption, caption_detailed, question, locate, describe, grounding;
  std::string read{}, markdown{};  // a page's text lines with boxes; the page as Markdown
  std::string system{};            // plain text that stands once, before the first turn
  std::string follow_up{};         // of a question without an image; empty: question's, without the image's place
  // Prompts are turns of a chat: the answers of examples follow a blank, where the format does not end with one,
  // and end as the model's own answers do. Where a text ends these (ModelInfo::stop), the next question's format begins
  // with it.
  bool chat = false;
  std::string lead = " ";  // what stands between a format's words and the answer of an example or of a ranking
  bool closed = true;      // in a chat: else what ends the answers of examples and turns is `between` alone
  std::string between{};   // plain text that stands between an example or a turn of a chat and what follows it
  // Where answers have boxes as text (ModelInfo::text_boxes), grounding is the whole format of a question that wants
  // boxes, with {question}, and these are its words where the caller has none.
  std::string grounding_words{};
};

// How an image stands in a prompt: ids before it, one id for each of its rows, ids after it. Where rows look at images
// (ImageFeatures::memory), the ids before still look at the image in front; all behind them look at this one. The
// single <image> token of a Flamingo, which looks at its own image, is thus an id after an image without rows.
struct ImageLayout {
  std::vector<int32_t> before, after;
  int32_t row = 0;       // id of the first row: a placeholder, which the n-gram rule sees and the decoder does not
  int32_t row_step = 0;  // how much the ids of the following rows grow; 0: all rows have the same
  int32_t segment = 0;   // the decoder's segment of all of these, where it has segments; everything else has segment 0
  bool joined = false;   // right behind another image `before` is left out: what ends that one begins this one
  int32_t row_id(int64_t index) const { return row + static_cast<int32_t>(index) * row_step; }
};

// How a model writes boxes: location tokens, which number the cells of a grid, and the tags around them.
struct Grounding {
  int32_t phrase_begin = 0, phrase_end = 0, object_begin = 0, object_end = 0, delimiter = 0;
  int32_t first_location = 0;  // id of cell 0
  int64_t bins = 0;            // cells per axis
  bool is_location(int32_t id) const { return id >= first_location && id < first_location + bins * bins; }
  // Whether these ids of an answer end in a phrase that is not closed yet.
  bool in_phrase(std::span<const int32_t> answer) const {
    for (size_t i = answer.size(); i-- > 0;)
      if (answer[i] == phrase_begin || answer[i] == phrase_end) return answer[i] == phrase_begin;
    return false;
  }
  // Whether an entity's scores are made of the log-probability of this id behind these.
  bool is_scored(int32_t id, std::span<const int32_t> answer) const {
    return is_location(id) || (id != phrase_end && in_phrase(answer));
  }
};

// A number or text of a part of the model, under the name that its schema gives it: "vision.width".
struct Fact {
  std::string name;
  std::variant<int64_t, double, std::string, std::vector<double>> value;
};

// Why what needs location tokens is refused.
constexpr const char* kNoGrounding = "this model has no location tokens";
// Why what needs text of a model that only compares is refused, and the other way round.
constexpr const char* kOnlyCompares =
    "this model compares images and texts (similarity, embed_image, embed_text); it writes and scores no text";
constexpr const char* kComparesNot =
    "this model writes text and has no vectors of images and texts to compare; expected a model such as CLIP";
// Why a verb without words of the model's and of the caller's is refused.
constexpr const char* kNoPrompt = "this model has no prompt for it";

struct ModelInfo {
  std::string architecture;
  std::string name;                                      // general.name; may be empty
  std::string notice;                                    // what users should know of the model's limits; may be empty
  std::string trained_tasks;                             // tasks/trained.h; empty: the file does not say
  std::string preprocessing;                             // what becomes of an image before the encoder, for people
  int64_t context = 0;                                   // positions of prompt and answer together, or of each
  int64_t vocab = 0;                                     // token ids
  int64_t width = 0;                                     // of a row of the decoder
  int64_t image_tokens = 0;                              // rows of one image in the sequence, at most
  int64_t max_new_tokens = 0, no_repeat_ngram_size = 0;  // defaults of generation; 0: no n-gram rule
  double repetition_penalty = 1;                         // likewise; 1: none
  std::vector<int32_t> begin;                            // ids that every prompt begins with
  bool image_before_begin = false;                       // they stand behind the images that a prompt begins with
  bool begin_is_text = false;                            // a text right behind them is not the first of its prompt
  // An encoder reads prompts, and answers are those of a decoder that looks at what it made of them: the id that the
  // decoder's sequence begins with. None: prompt and answer are one sequence.
  std::optional<int32_t> answer_start{};
  std::vector<int32_t> end{};  // ids that every prompt ends with
  int32_t eos = 0;
  int32_t document_end = -1;  // behind this id of a prompt nothing is looked at until the next image; -1: there is none
  std::vector<std::string> stop;  // texts that end an answer, too; they are none of it
  std::vector<int32_t> never;     // ids that no answer holds: placeholders, unused ones
  ImageLayout image;
  std::optional<Grounding> grounding;  // none: the model cannot write boxes of location tokens
  bool text_boxes = false;             // answers may hold boxes as text (box_text_answers), whose scores need it, too
  bool page_lines = false;             // answers are pages (page_answers), whose scores need every token's probability
  std::shared_ptr<const AnswerParser> answers;
  PromptFormats prompts;
  std::vector<Fact> facts;
  // Of a model that writes no text, but makes vectors of images and of texts, to be compared: their length, and by what
  // cosines are multiplied before a softmax, as it was trained. 0: it writes text.
  int64_t embedding = 0;
  double similarity_scale = 0;

  // Whether an entity's scores are made of the log-probability of this id behind these.
  bool is_scored(int32_t id, std::span<const int32_t> answer) const {
    return page_lines || text_boxes || (grounding && grounding->is_scored(id, answer));
  }

  // The tasks that it can do: "caption", "ask", ...
  std::vector<std::string> tasks() const {
    if (embedding > 0) return {"similarity"};
    std::vector<std::string> out;
    if (!prompts.caption.empty()) out.push_back("caption");
    if (!prompts.question.empty()) out.push_back("ask");
    if (!prompts.read.empty()) out.push_back("read");
    out.insert(out.end(), {"generate", "score"});
    if (grounding) out.insert(out.end(), {"ground", "locate", "describe"});
    if (text_boxes && !prompts.grounding.empty()) out.push_back("ground");
    if (text_boxes && !prompts.locate.empty()) out.push_back("locate");
    return out;
  }
};

}  // namespace ke
