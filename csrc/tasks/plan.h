// The verbs as plans: which segments in which order, and how the answer is to be read. Nothing is computed here, so
// that a plan can be made where the model is not. The words come from the model file; what a caller types is data: it
// never becomes a tag.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/prompt.h"
#include "models/info.h"

namespace ke {

enum class Verb { Caption, Ground, Locate, Describe, Ask, Read };

// What a verb takes besides the image.
struct VerbTraits {
  Verb verb;
  std::string_view name;
  std::string_view text;      // what its text is called: "prompt", "phrase", "question"; empty: it takes none
  std::string_view place;     // of its format: "{question}"; empty: none
  bool needs_text = false;    // else it may be left out
  bool takes_box = false;     // and needs one
  bool takes_ground = false;  // the option
  bool ground = false;        // its default
  bool takes_detailed = false;
  bool takes_markdown = false;
  bool takes_choices = false;
  bool takes_examples = false;
  bool takes_turns = false;  // and may then go without an image
  bool takes_template = false;
  bool takes_lead_in = true;
};
const VerbTraits& traits_of(Verb verb);
// InvalidRequest for a name of no verb.
Verb verb_named(std::string_view name);

// What goes before a request to show how it is to be answered (few-shot); its image, and for describe its boxes, are at
// its place.
struct Example {
  std::string text;  // ask: the question
  std::string answer;
};

// A question of a conversation and its answer. An image that it brings is at its place.
struct Turn {
  std::string text, answer;
  bool image = false;
};

struct VerbRequest {
  Verb verb = Verb::Caption;
  bool ground = false;                  // caption, ask, describe: boxes are asked for
  bool detailed = false;                // caption: at length
  bool markdown = false;                // read: the page as Markdown
  bool choices = false;                 // the answer is one of a list
  std::optional<std::string> text;      // as VerbTraits says
  std::vector<Example> examples;        // at most limits::kMaxExamples
  std::vector<Turn> turns{};            // ask: the conversation so far, behind the examples; at most limits::kMaxTurns
  bool image = true;                    // ask: else the question brings no image of its own
  std::optional<std::string> format{};  // the caller's own in place of the model's (models/info.h, PromptFormats)
};

// A segment whose images and boxes are yet to be filled in.
struct PlanSegment {
  enum class Kind { Text, Tags, Image, Boxes, Ids, Rows };  // as those of Segment
  Kind kind = Kind::Text;
  std::string text{};
  std::vector<int32_t> ids{};
  size_t place =
      0;  // which image (rows count as such) or boxes: the examples come first, then the turns, then the request itself
};

struct Plan {
  std::vector<PlanSegment> segments;
  bool one_object = false;         // AnswerRequest::one_object
  bool markdown = false;           // AnswerRequest::markdown
  bool grammar = false;            // the default of the option
  std::vector<std::string> notes;  // for AnswerRequest::notes
};

// InvalidRequest where boxes are asked for or given and the model writes or reads none, for a text that is missing,
// not well-formed or blank, for too many examples, and for a format without its place.
Plan plan_verb(const ModelInfo& model, const VerbRequest& request);
// A free sequence. InvalidRequest where it is empty or too long, and for boxes as above.
Plan plan_sequence(const ModelInfo& model, std::vector<PlanSegment> segments);

using ImageHandle = std::shared_ptr<const ImageEmbedding>;
using Cells = std::vector<std::pair<int32_t, int32_t>>;
// The plan as a prompt's segments: images[place] and boxes[place] are filled in.
std::vector<Segment> filled(std::vector<PlanSegment> segments, const std::vector<ImageHandle>& images,
                            const std::vector<Cells>& boxes);

}  // namespace ke
