"""The language tasks of `eval` ask what lm-evaluation-harness's own functions make of the same records."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.eval_scripted import write_lines

from kosmos_edge.evaluation.registry import find_task
from kosmos_edge.evaluation.task import Variant

SWAG = {"activity_label": "Roof [x] work", "ctx_a": "A man sits. [title] He waits.", "ctx_b": "the roof", "label": 1}
SWAG |= {"endings": ["falls  [step] down.", " is [title] new."], "ctx": "", "ind": 1}
SCHEMAS = [
    ("The cat bit Bo. They fled as it fell.", "it", ["The cat", "Bo"]),
    ("Ann told Sue that her cat ran off.", "her", ["Ann", "Sue"]),
    ("Ann met Sue. She was glad to go.", "She", ["The woman", "Sue"]),
]
GAPS = [("Bo saw Al, so _ ran. Then _ fell.", "Bo", "the dog"), ("Then it was _ .", "him", "her")]
CAUSES = [("My body cast a shadow.", "cause"), ("  The man ran. ", "effect")]


def asked(name: str, folder: Path) -> list[Any]:
    return [item.asked[1] for item in find_task(name).load(folder, Variant())]  # type: ignore[call-arg]


def plain(text: str) -> str:
    """Blanks at both ends are of the harness's delimiters."""
    return text.strip()


def test_hellaswag(tmp_path: Path) -> None:
    utils = pytest.importorskip("lm_eval.tasks.hellaswag.utils", reason="lm-eval is not installed")
    datasets = pytest.importorskip("datasets")
    write_lines(tmp_path / "hellaswag_val.jsonl", [SWAG])
    (theirs,) = utils.process_docs(datasets.Dataset.from_list([SWAG]))
    (ours,) = asked("hellaswag", tmp_path)
    assert ours.contexts == (theirs["query"],) and list(ours.endings) == theirs["choices"]
    assert ours.answer == theirs["gold"]


def test_winograd(tmp_path: Path) -> None:
    utils = pytest.importorskip("lm_eval.tasks.wsc273.utils", reason="lm-eval is not installed")
    datasets = pytest.importorskip("datasets")
    records = [
        {
            "text": text,
            "pronoun": pronoun,
            "pronoun_loc": text.index(f" {pronoun} ") + 1,
            "options": options,
            "label": 0,
        }
        for text, pronoun, options in SCHEMAS
    ]
    write_lines(tmp_path / "wsc273.jsonl", records)
    for theirs, ours in zip(
        utils.process_doc(datasets.Dataset.from_list(records)), asked("winograd", tmp_path), strict=True
    ):
        before = theirs["text"][: theirs["pronoun_loc"]]
        assert list(ours.contexts) == [before + option for option in theirs["options"]]
        end = theirs["text"][theirs["pronoun_loc"] + len(theirs["pronoun"]) :]
        assert ours.endings == (plain(end),)


def test_winogrande(tmp_path: Path) -> None:
    utils = pytest.importorskip("lm_eval.tasks.winogrande.preprocess_winogrande", reason="lm-eval is not installed")
    records = [{"sentence": s, "option1": a, "option2": b, "answer": "2"} for s, a, b in GAPS]
    write_lines(tmp_path / "dev.jsonl", records)
    for record, ours in zip(records, asked("winogrande", tmp_path), strict=True):
        assert list(ours.contexts) == utils.doc_to_choice(record) and ours.endings == (utils.doc_to_target(record),)
        assert ours.answer == utils.doc_to_text(record)


def test_copa(tmp_path: Path) -> None:
    utils = pytest.importorskip("lm_eval.tasks.super_glue.copa.utils", reason="lm-eval is not installed")
    records = [
        {"premise": premise, "question": kind, "choice1": "The sun was up.", "choice2": "I slept.", "label": 1}
        for premise, kind in CAUSES
    ]
    write_lines(tmp_path / "val.jsonl", records)
    for record, ours in zip(records, asked("copa", tmp_path), strict=True):
        assert ours.contexts == (utils.doc_to_text(record),) and ours.answer == 1
        assert list(ours.endings) == [plain(choice) for choice in utils.doc_to_choice(record)]


@pytest.mark.parametrize("name", ["boolq", "cb", "piqa"])
def test_templates(name: str, tmp_path: Path) -> None:
    """Of the harness's files of the tasks, filled in by its own function."""
    tasks = pytest.importorskip("lm_eval.tasks", reason="lm-eval is not installed")
    from lm_eval.utils import apply_template

    file = {"boolq": "super_glue/boolq/default.yaml", "cb": "super_glue/cb/default.yaml", "piqa": "piqa/piqa.yaml"}[
        name
    ]
    text = (Path(tasks.__file__).parent / file).read_text(encoding="utf-8")
    (line,) = (line for line in text.splitlines() if line.startswith("doc_to_text:"))
    template = json.loads(line.partition(":")[2])
    record: dict[str, Any] = {
        "boolq": {"passage": "A tree -- is tall.", "question": "is it tall", "label": True},
        "cb": {"premise": "A: No.", "hypothesis": "he said yes", "label": "neutral"},
        "piqa": {"goal": "open a jar", "sol1": "turn it", "sol2": "eat it"},
    }[name]
    write_lines(tmp_path / ("valid.jsonl" if name == "piqa" else "val.jsonl"), [record])
    (tmp_path / "valid-labels.lst").write_text("1\n")
    (ours,) = asked(name, tmp_path)
    assert ours.contexts == (apply_template(template, record),)
    assert ours.answer == {"boolq": 1, "cb": 2, "piqa": 1}[name]
