// Boxes and entities, after transformers' models/kosmos2/processing_kosmos2.py. Its regular expressions are written out
// as one scan: none of them can match in two ways, so no backtracking is needed.
#include "text/grounding.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/error.h"
#include "text/utf8.h"

namespace ke {

namespace {

constexpr std::string_view kPhrase = "<phrase>", kPhraseEnd = "</phrase>";
constexpr std::string_view kObject = "<object>", kObjectEnd = "</object>";
constexpr std::string_view kDelimiter = "</delimiter_of_multi_objects/>";
constexpr std::string_view kLocation = "<patch_index_";

struct Location {
  int64_t cell;  // saturates far outside every grid
  size_t at;     // byte where its tag begins
};

struct Match {
  bool has_phrase = false;
  size_t start = 0, end = 0;  // bytes of the phrase, or twice the position of <object>
  std::vector<std::pair<Location, Location>> pairs;
};

// Reads fixed strings and location tags at a moving position; a failed read leaves the position alone.
struct Scanner {
  std::string_view text;
  size_t at;

  bool take(std::string_view literal) {
    if (text.compare(at, literal.size(), literal) != 0) return false;
    at += literal.size();
    return true;
  }
  std::optional<Location> take_location() {
    Scanner s = *this;
    if (!s.take(kLocation)) return std::nullopt;
    const size_t digits = s.at;
    int64_t cell = 0;
    for (; s.at < text.size() && text[s.at] >= '0' && text[s.at] <= '9'; ++s.at) {
      cell = std::min<int64_t>(cell * 10 + (text[s.at] - '0'), int64_t{1} << 40);
    }
    if (s.at == digits || !s.take(">")) return std::nullopt;
    const Location location{cell, at};
    at = s.at;
    return location;
  }
  // <phrase>([^<]+)</phrase>
  bool take_phrase(Match& match) {
    Scanner s = *this;
    if (!s.take(kPhrase)) return false;
    match.start = s.at;
    match.end = s.at = std::min(text.find('<', s.at), text.size());
    if (match.end == match.start || !s.take(kPhraseEnd)) return false;
    at = s.at;
    return true;
  }
  // <object>(pair(delimiter pair)*)</object>
  bool take_object(Match& match) {
    Scanner s = *this;
    if (!s.take(kObject)) return false;
    do {
      const auto first = s.take_location();
      const auto second = first ? s.take_location() : std::nullopt;
      if (!second) return false;
      match.pairs.emplace_back(*first, *second);
    } while (s.take(kDelimiter));
    if (!s.take(kObjectEnd)) return false;
    at = s.at;
    return true;
  }
};

// Every match of transformers' entity pattern, from left to right.
std::vector<Match> find_matches(std::string_view text) {
  std::vector<Match> matches;
  for (size_t at = text.find('<'); at < text.size(); at = text.find('<', at)) {
    Scanner scanner{text, at};
    Match match;
    match.has_phrase = scanner.take_phrase(match);
    if (!match.has_phrase) match.start = match.end = at;
    if (scanner.take_object(match)) {
      matches.push_back(std::move(match));
      at = scanner.at;
    } else {
      ++at;
    }
  }
  return matches;
}

// The text without tags (the shortest <...> within one line each), and for every byte position how many code points of
// the text before it are left when the tags that end before it are removed.
struct Visible {
  std::string text;
  std::vector<int64_t> before;  // (text.size() + 1)
};

Visible remove_tags(std::string_view text) {
  Visible visible;
  visible.before.resize(text.size() + 1);
  int64_t count = 0;
  size_t no_tag_before = 0;  // a '<' before this byte is known to have no '>' on its line
  for (size_t at = 0; at < text.size();) {
    size_t tag_end = 0;
    if (text[at] == '<' && at >= no_tag_before) {
      const size_t stop = std::min(text.find_first_of(">\n", at), text.size());
      if (stop < text.size() && text[stop] == '>') {
        tag_end = stop + 1;
      } else {
        no_tag_before = stop;
      }
    }
    if (tag_end > 0) {
      for (int64_t inside = count; at < tag_end; ++at) {
        visible.before[at] = inside;
        inside += !utf8::is_continuation(text[at]);
      }
    } else {
      visible.before[at] = count;
      count += !utf8::is_continuation(text[at]);
      visible.text += text[at++];
    }
  }
  visible.before[text.size()] = count;
  return visible;
}

struct Strip {
  std::string_view text;
  int64_t leading = 0, trailing = 0;  // code points removed; an all-blank text counts in both, as in Python
};

Strip strip(std::string_view text) {
  size_t begin = 0, end = 0;  // of what stays
  int64_t leading = 0, trailing = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t length = utf8::character_length(text, at);
    if (utf8::is_blank(utf8::code_point(text, at, length))) {
      ++trailing;
    } else {
      if (end == 0) {
        begin = at;
        leading = trailing;
      }
      end = at + length;
      trailing = 0;
    }
    at += length;
  }
  if (end == 0) leading = trailing;
  return {text.substr(begin, end - begin), leading, trailing};
}

// token_of maps a byte of text to an index into ids; empty when there are no ids.
Grounded parse(std::string_view text, int64_t bins, const std::vector<std::pair<size_t, int32_t>>& tokens) {
  check_bins(bins);
  const auto inside = [&](const std::pair<Location, Location>& pair) {
    return std::max(pair.first.cell, pair.second.cell) < bins * bins;
  };
  const auto token_at = [&](size_t byte) {
    const auto after = std::upper_bound(tokens.begin(), tokens.end(), byte,
                                        [](size_t wanted, const auto& token) { return wanted < token.first; });
    return std::prev(after)->second;
  };
  const Visible visible = remove_tags(text);
  const Strip whole = strip(visible.text);
  Grounded grounded{std::string(whole.text), {}};
  for (const Match& match : find_matches(text)) {
    if (!std::all_of(match.pairs.begin(), match.pairs.end(), inside)) continue;
    Entity* entity = nullptr;
    for (const auto& [first, second] : match.pairs) {
      if (entity == nullptr || !match.has_phrase) {
        entity = &grounded.entities.emplace_back();
        const std::string raw = match.has_phrase ? std::string(text.substr(match.start, match.end - match.start))
                                                 : concat(kLocation, first.cell, ">", kLocation, second.cell, ">");
        const Strip name = strip(raw);
        entity->phrase = name.text;
        entity->start = visible.before[match.start] - whole.leading + name.leading;
        entity->end = visible.before[match.end] - whole.leading - name.trailing;
        if (!tokens.empty() && match.has_phrase)
          entity->phrase_tokens = {token_at(match.start), token_at(match.end - 1) + 1};
      }
      entity->cells.emplace_back(static_cast<int32_t>(first.cell), static_cast<int32_t>(second.cell));
      entity->boxes.push_back(cells_to_box(entity->cells.back().first, entity->cells.back().second, bins));
      if (!tokens.empty()) entity->tokens.emplace_back(token_at(first.at), token_at(second.at));
    }
  }
  return grounded;
}

}  // namespace

void check_bins(int64_t bins) {
  KE_CHECK(bins >= 1 && bins <= 1024, InvalidRequest, "location bins: 1 to 1024 are allowed, not ", bins);
}

std::pair<int32_t, int32_t> box_to_cells(const Box& box, int64_t bins) {
  check_bins(bins);
  const auto& [x1, y1, x2, y2] = box;
  KE_CHECK(0 <= x1 && x1 < x2 && x2 <= 1 && 0 <= y1 && y1 < y2 && y2 <= 1, InvalidRequest,
           "a box is (x1, y1, x2, y2) with 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1, not (", x1, ", ", y1, ", ", x2,
           ", ", y2, ")");
  const double n = static_cast<double>(bins);
  const auto lower = [&](double v) { return std::min(static_cast<int64_t>(std::floor(v * n)), bins - 1); };
  const auto upper = [&](double v, int64_t low) { return std::max(static_cast<int64_t>(std::ceil(v * n - 1)), low); };
  const int64_t left = lower(x1), top = lower(y1);
  const int64_t right = upper(x2, left), bottom = upper(y2, top);
  return {static_cast<int32_t>(top * bins + left), static_cast<int32_t>(bottom * bins + right)};
}

Box cells_to_box(int32_t upper_left, int32_t lower_right, int64_t bins) {
  check_bins(bins);
  for (const int32_t cell : {upper_left, lower_right}) {
    KE_CHECK(cell >= 0 && cell < bins * bins, InvalidRequest, "cell ", cell, " is outside the grid of ", bins, " x ",
             bins);
  }
  const double size = 1.0 / static_cast<double>(bins);
  const auto column = [&](int32_t cell) { return static_cast<double>(cell % bins); };
  const auto row = [&](int32_t cell) { return static_cast<double>(cell / bins); };
  const bool edges = column(upper_left) == column(lower_right) || row(upper_left) == row(lower_right);
  const double near = edges ? 0.0 : size / 2, far = edges ? size : size / 2;
  return {column(upper_left) * size + near, row(upper_left) * size + near, column(lower_right) * size + far,
          row(lower_right) * size + far};
}

Grounded parse_grounded(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, int64_t bins) {
  std::string text;
  std::vector<std::pair<size_t, int32_t>> tokens;  // byte of text where a token begins, its index in ids
  for (size_t i = 0; i < ids.size(); ++i) {
    const std::string piece = tokenizer.text(ids[i]);
    if (piece.empty()) continue;
    const size_t skip = tokens.empty() && piece[0] == ' ' ? 1 : 0;  // as Tokenizer::decode
    tokens.emplace_back(text.size(), static_cast<int32_t>(i));
    text.append(piece, skip);
  }
  return parse(text, bins, tokens);
}

Grounded parse_grounded(std::string_view text, int64_t bins) {
  const size_t bad = utf8::first_ill_formed(text);
  KE_CHECK(bad == std::string_view::npos, InvalidRequest, "the text is not well-formed UTF-8 at byte ", bad);
  return parse(text, bins, {});
}

}  // namespace ke
