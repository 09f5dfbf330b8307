"""OwlEval: 82 questions of mPLUG-Owl about 50 images, which people grade. No metric; --out writes the answers,
and `eval sheet` makes a page to grade them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kosmos_edge.evaluation.statistics import Metric, Part
from kosmos_edge.evaluation.task import Generate, Item, Steps, Variant
from kosmos_edge.evaluation.tasks.common import Prompted
from kosmos_edge.evaluation.tasks.records import find, read_lines, reading, text_of

_TOKENS = 256


class OwlEval(Prompted):
    """One item per question, or per conversation about an image."""

    NAME = "owleval"
    SUMMARY = "OwlEval, answers for people to grade; no metric."
    FILES = "questions.jsonl and cases/, as in the folder OwlEval of mPLUG-Owl (or this folder inside)"
    METRICS: tuple[Metric, ...] = ()
    LINES = True
    PROMPT = "Question: {question} Answer:"

    def load(self, folder: Path, variant: Variant) -> list[Item]:
        """Questions in order; those of one image that are turns of a conversation are one item."""
        path = find(folder, "questions.jsonl", "OwlEval/questions.jsonl")
        pictures = {one.stem: one for one in sorted(find(path.parent, "cases").iterdir())}
        turns: dict[str, list[tuple[Any, str]]] = {}
        images: dict[str, str] = {}
        seen: set[Any] = set()
        with reading(path) as records:
            for one in records.each(read_lines(path)):
                image = pictures.get(Path(one["image"]).stem)  # some names have another suffix
                if image is None:
                    raise ValueError(f"{one['image']} is not in {path.parent / 'cases'}")
                if (id := one["question_id"]) in seen:
                    raise ValueError(f"question {id} is there twice")
                seen.add(id)
                name = str(one["image"] if "multi_turn" in str(one["category"]) else id)
                turns.setdefault(name, []).append((id, text_of(one["question"], "question")))
                images[name] = str(image)
        return [Item(name, images[name], None, asked=asked) for name, asked in turns.items()]

    def steps(self, item: Item) -> Steps:
        """The questions one after another, with the answers so far."""
        image = Path(item.image)
        before, answers = "", []
        for number, question in item.asked:
            prompt = f"{before}{self.PROMPT.replace('{question}', question)}"
            result = yield Generate("generate", {"segments": [image, prompt], "max_tokens": _TOKENS})
            answers.append({"question_id": number, "answer": result.text.strip()})
            before = f"{prompt} {result.text.strip()} "
        return {"answers": answers}

    def score(self, item: Item, prediction: Mapping[str, Any]) -> dict[str, Part]:
        """People do that."""
        return {}

    def results(self, items: Sequence[Item], predictions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The lines of the authors' answer files; model_id is added where they are written."""
        out = []
        for item, prediction in zip(items, predictions, strict=True):
            said = {one["question_id"]: one["answer"] for one in prediction.get("answers", ())}
            for number, question in item.asked:
                record = {"image": Path(item.image).name, "question_id": number, "question": question}
                out.append(record | {"answer": said.get(number, "")})
        return out


OWLEVAL = OwlEval()
