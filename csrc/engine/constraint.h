// Rules about which token may come next: well-formed location tags, or one of a list of given answers.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "backend/sampling.h"
#include "models/info.h"

namespace ke {

class Constraint {
 public:
  virtual ~Constraint() = default;
  virtual std::unique_ptr<Constraint> clone() const = 0;
  // Adds the tokens of a vocabulary that may come next, ascending, at least one.
  virtual void allowed(int32_t vocab, std::vector<IdRange>& ranges) const = 0;
  // Adds the tokens that may come next, ascending, where these are few; none: they are many.
  virtual void next_set(std::vector<int32_t>&) const {}
  // Adds at most `most` tokens that are likely to come next, one behind the other: likely enough that it pays to
  // compute what follows them before it is known that they come.
  virtual void draft(std::vector<int32_t>&, size_t) const {}
  virtual void accept(int32_t id) = 0;             // the next token of prompt or answer
  virtual bool complete() const { return false; }  // the answer is whole: nothing may follow
};

// Keeps <phrase> text </phrase> [<object> cell cell [delimiter cell cell]... </object>] well formed: location tokens
// only inside <object>, in pairs whose second cell is not left of or above the first. Says nothing about ordinary text.
std::unique_ptr<Constraint> location_grammar(const Grounding& grounding, int32_t eos);

// The answer is exactly one of these token sequences; where one is the beginning of another, `eos` may end it early.
std::unique_ptr<Constraint> one_of(std::vector<std::vector<int32_t>> choices, int32_t eos);

}  // namespace ke
