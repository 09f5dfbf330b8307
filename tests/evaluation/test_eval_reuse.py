"""What the items of an evaluation have in common is computed once: counted on the small model of the package."""

from pathlib import Path
from typing import Any

import pytest
from helpers.eval_scripted import draw_picture, write_json, write_lines

from kosmos_edge import Model, load
from kosmos_edge.evaluation.log import Log
from kosmos_edge.evaluation.registry import find_task
from kosmos_edge.evaluation.run import Settings, run
from kosmos_edge.evaluation.task import Variant
from kosmos_edge.results import Ranking


class Counting:
    """The model, with the reused positions of each ranking and the images that were encoded."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.reused: list[int] = []
        self.encoded: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode(self, image: Path) -> Any:
        self.encoded.append(image.name)
        return self._model.encode(image)

    def score_segments(self, *given: Any, **named: Any) -> Ranking:
        found = self._model.score_segments(*given, **named)
        self.reused.append(found.timings.reused_tokens)
        return found


def evaluate(name: str, folder: Path, **variant: Any) -> Counting:
    model = Counting(load("nano", threads=1))
    task = find_task(name)
    items = task.load(folder, Variant(**variant))  # type: ignore[call-arg]
    run(task, items, model, "q4_k_m", Log(None, False), Settings(str(folder)), lambda *_: None)
    return model


@pytest.mark.parametrize("cells", [3, 8])
def test_the_cells_of_a_matrix_are_computed_once_for_its_candidates(cells: int, tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(cells + 6)]
    for number, name in enumerate(names):
        draw_picture(tmp_path / name, number)
    record = {"id": 1, "images": names[:cells], "candidates": names[cells:], "answer": 0}
    write_json(tmp_path / "items.json", [record])
    model = evaluate("iq50", tmp_path)
    assert len(model.reused) == 6 and min(model.reused[1:]) >= cells * model.image_tokens > model.reused[0]
    assert sorted(model.encoded) == sorted(names)  # each once


def test_the_images_of_a_question_are_shared_by_its_answers_and_examples_by_endings(tmp_path: Path) -> None:
    for number in range(2):
        draw_picture(tmp_path / f"{number}.png", number)
    questions = [
        {"question": "Which?", "answer": "A", "data_id": f"{n % 2}.png", "data_type": "image", "question_id": n}
        | {f"choice_{letter}": letter for letter in "abcd"}
        | {"question_type_id": 1}
        for n in (0, 2, 1, 3)
    ]
    write_json(tmp_path / "SEED-Bench.json", {"question_type": {"S": 1}, "questions": questions})
    model = evaluate("seed-bench", tmp_path)
    assert sorted(model.encoded) == ["0.png", "1.png"]  # two questions about each
    assert model.reused[1] >= model.image_tokens and model.reused[3] >= model.image_tokens
    sentence = {"sentence": "The dog saw the cat so _ ran away.", "option1": "the dog", "option2": "the cat"}
    write_lines(tmp_path / "dev.jsonl", [sentence | {"answer": "1"}])
    shots = [sentence | {"sentence": f"Bo {n} saw a cat so _ ran.", "answer": "2"} for n in range(9)]
    write_lines(tmp_path / "train.jsonl", shots)
    short, long = (evaluate("winogrande", tmp_path, shots=k) for k in (1, 8))
    # the second option's context goes on behind the examples and the sentence that the first one had
    assert long.reused[1] > short.reused[1] + 7 * 5 and long.reused[0] < long.reused[1]
