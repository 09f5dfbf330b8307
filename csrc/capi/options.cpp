#include "capi/options.h"

#include <algorithm>
#include <cmath>

#include "base/limits.h"
#include "tasks/options.h"
#include "tasks/prompts.h"
#include "text/utf8.h"

namespace ke::capi {
namespace {

template <class Number>
void check_range(const char* name, Number value, Number low, Number high, const char* unset) {
  KE_CHECK(value >= low && value <= high, InvalidRequest, name, ": expected ", low, "..", high, unset, ", got ", value);
}

std::vector<std::string> check_texts(const char* name, const char* const* texts, size_t count, size_t most,
                                     bool blank_allowed) {
  KE_CHECK(count <= most, InvalidRequest, name, ": expected at most ", most, " texts, got ", count);
  KE_CHECK(count == 0 || texts != nullptr, InvalidRequest, name, ": expected ", count, " texts, got NULL");
  std::vector<std::string> out;
  for (size_t i = 0; i < count; i++) {
    const std::string label = concat(name, "[", i, "]");
    KE_CHECK(texts[i] != nullptr, InvalidRequest, label, ": expected a text, got NULL");
    if (blank_allowed) {
      KE_CHECK(texts[i][0] != 0, InvalidRequest, label, ": an empty text would end every answer at once");
      KE_CHECK(utf8::first_ill_formed(texts[i]) == std::string_view::npos, InvalidRequest, label,
               ": not well-formed UTF-8");
    } else {
      check_words(label, texts[i]);
    }
    out.emplace_back(texts[i]);
  }
  return out;
}

}  // namespace

std::string_view given_text(const char* name, const char* text) {
  KE_CHECK(text != nullptr, InvalidRequest, name, ": expected a text, got NULL");
  check_words(name, text);
  return text;
}

AnswerRequest check_options(const kosmos_options& o, const VerbTraits* traits, const ModelObject& object) {
  using namespace limits;
  const kosmos_model_info& model = object.info;
  AnswerRequest out;
  GenerateParams& p = out.params;
  const int32_t context = model.context_length;
  check_range("max_tokens", o.max_tokens, 0, context, " (0: the model's default)");
  check_range("num_beams", o.num_beams, 0, kMaxBeams, " (0: 1)");
  check_range("temperature", o.temperature, 0.0, kMaxTemperature, "");
  check_range("top_p", o.top_p, 0.0, 1.0, " (0: off)");
  check_range("top_k", o.top_k, 0, model.vocabulary, " (0: off)");
  check_range("no_repeat_ngram_size", o.no_repeat_ngram_size, -1, context, " (0: the model's default, -1: off)");
  check_range("top_logprobs", o.top_logprobs, 0, kMaxTopLogprobs, " (0: none)");
  if (o.repetition_penalty != 0)
    check_range("repetition_penalty", o.repetition_penalty, kMinRepetitionPenalty, kMaxRepetitionPenalty,
                " (0: the model's default, 1: off)");
  check_range("min_score", o.min_score, 0.0, 1.0, " (0: all)");
  p.max_tokens = o.max_tokens ? o.max_tokens : model.max_tokens;
  p.num_beams = o.num_beams ? o.num_beams : 1;
  p.sampler.temperature = static_cast<float>(o.temperature);
  p.sampler.top_k = o.top_k;
  p.sampler.top_p = o.top_p == 0 ? 1 : narrow_top_p(o.top_p);
  p.sampler.seed = o.seed;
  p.sampler.no_repeat_ngram_size = o.no_repeat_ngram_size == 0    ? model.no_repeat_ngram_size
                                   : o.no_repeat_ngram_size == -1 ? 0
                                                                  : o.no_repeat_ngram_size;
  p.sampler.repetition_penalty =
      static_cast<float>(o.repetition_penalty == 0 ? model.repetition_penalty : o.repetition_penalty);
  const bool has_penalty = switched("use_length_penalty", o.use_length_penalty, false);
  if (has_penalty) {
    check_range("length_penalty", o.length_penalty, -kMaxLengthPenalty, kMaxLengthPenalty, "");
    p.length_penalty = static_cast<float>(o.length_penalty);
  } else {
    KE_CHECK(o.length_penalty == 0, InvalidRequest, "length_penalty ", o.length_penalty,
             " needs use_length_penalty KOSMOS_ON");
  }
  p.logprobs = switched("logprobs", o.logprobs, false);
  p.top_logprobs = o.top_logprobs;
  p.choices = check_texts("choices", o.choices, o.choice_count, kMaxChoices, false);
  KE_CHECK(traits == nullptr || traits->takes_choices || p.choices.empty(), InvalidRequest,
           "choices: only ask and generate take them");
  p.grammar = switched("grammar", o.grammar, traits != nullptr && p.choices.empty() && model.location_bins > 0);
  out.stop = check_texts("stop", o.stop, o.stop_count, kMaxStops, true);
  out.keep_prompt = switched("lead_in", o.lead_in, false);
  KE_CHECK(traits == nullptr || traits->takes_lead_in || !out.keep_prompt, InvalidRequest, "lead_in: ", traits->name,
           " does not take it");
  out.min_score = o.min_score;
  KE_CHECK((traits && traits->takes_ground) || o.ground == 0, InvalidRequest,
           "ground: this function does not take it, leave it 0");
  KE_CHECK((traits && traits->takes_detailed) || o.detailed == 0, InvalidRequest,
           "detailed: only caption takes it, leave it 0");
  KE_CHECK((traits && traits->takes_markdown) || o.markdown == 0, InvalidRequest,
           "markdown: only read takes it, leave it 0");
  KE_CHECK((traits && traits->takes_examples) || o.example_count == 0, InvalidRequest,
           "examples: only caption, describe and ask take them");
  KE_CHECK((traits && traits->takes_turns) || o.turn_count == 0, InvalidRequest, "turns: only ask takes them");
  KE_CHECK((traits && traits->takes_template) || o.template_text == nullptr, InvalidRequest,
           "template_text: only caption, locate, describe and ask take one");
  check_together({.num_beams = p.num_beams,
                  .temperature = o.temperature,
                  .top_k = o.top_k != 0,
                  .top_p = o.top_p != 0,
                  .length_penalty = has_penalty,
                  .stop = !out.stop.empty(),
                  .choices = !p.choices.empty(),
                  .grammar = p.grammar,
                  .grounds = object.about().grounding.has_value()});
  if (!p.choices.empty()) {  // the default of max_tokens is no reason to cut a choice off
    const AnswerReader reader(*object.engine->tokenizer(), *object.about().answers);
    const int32_t most = o.max_tokens == 0 ? context : p.max_tokens;
    p.max_tokens = std::max(p.max_tokens, reader.check_choices({}, p.choices, out.stop, most));
  }
  return out;
}

}  // namespace ke::capi
