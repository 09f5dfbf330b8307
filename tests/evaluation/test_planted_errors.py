"""Planted errors: with one wrong rule in the harness every metric has another figure on data made for it. A metric that
no planted error changes would be tested by nothing here; that there is none is a test of its own."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.eval_scripted import Scripted, draw_picture, evaluate, values, write_json, write_lines
from test_box_tasks import BOX, entities, refs
from test_caption_and_vqa_tasks import METEOR_COUNTS, caption, caption_data, reply, vqa_data
from test_choice_tasks import RECORDS, birds, photos, raven, sentiments

from kosmos_edge.evaluation.metrics import answers, auc, bleu, chair, cider_d, java, meteor, pope, ptb, rouge_l
from kosmos_edge.evaluation.registry import TASKS, find_task
from kosmos_edge.evaluation.report import report
from kosmos_edge.evaluation.run import Settings, is_prompt_task
from kosmos_edge.evaluation.table import markdown as table
from kosmos_edge.evaluation.tasks import (
    captions,
    choosing,
    common,
    commonsense,
    grounding,
    language,
    reasoning,
    referring,
    vqa,
)
from kosmos_edge.evaluation.tasks.boxes import corners

Plant = Callable[[pytest.MonkeyPatch], None]
Answer = Callable[[str, list[str]], Any]


def put(where: Any, name: str, value: Any) -> Plant:
    """The error: a wrong value in a module."""
    return lambda monkeypatch: monkeypatch.setattr(where, name, value)


@pytest.fixture(autouse=True)
def java_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """METEOR's program counts as it does, SPICE's is told from the captions that it gets."""

    def counted(metric: str, said: Any, references: Any) -> Any:
        return METEOR_COUNTS[: len(said)] if metric == "meteor" else [(float("\n" not in text), 1.0) for text in said]

    monkeypatch.setattr(java, "why_not", lambda metric: "")
    monkeypatch.setattr(java, "parts_of", counted)


# ---- boxes that just reach an IoU of 0.5

HALF = (20.0, 20.0, 40.0, 30.0)
PHRASES = {"Two men": [(0.0, 0.0, 10.0, 5.0)], "red hats": [HALF], "A dog {x}": [HALF], "a dog {x}": [HALF]}
EXPRESSIONS = {"red ball": [(8.0, 8.0, 40.0, 24.0)], "the ball": [(0.0, 8.0, 32.0, 40.0), BOX], "left thing": []}


def located(boxes: dict[str, list[Any]]) -> Answer:
    return lambda prompt, images: boxes[prompt.rpartition("<phrase> ")[2].removesuffix("</phrase>")]


def shifted(prediction: Any) -> Any:
    """Off by one pixel."""
    return [(x1 + 1, y1, x2 + 1, y2) for x1, y1, x2, y2 in corners(prediction)]


# ---- rankings that need the blank between the prompt and the text


def likes(text: str) -> Callable[[str, str, list[str]], float]:
    return lambda prompt, said, images: (1.0 if prompt.endswith(" ") else -1.0) if said == text else 0.0


def without_blank(module: Any) -> Plant:
    real = module.Rank
    return put(module, "Rank", lambda given, *rest: real([*given[:-1], given[-1].rstrip()], *rest))


# ---- data


def coco(folder: Path) -> Any:
    return caption_data(folder, "coco")


def refcoco(folder: Path) -> Any:
    return refs(folder, "refcoco", "unc")


def refcocog(folder: Path) -> Any:
    return refs(folder, "refcocog", "umd")


def memes(folder: Path) -> None:
    write_lines(folder / "dev.jsonl", [{"id": i, "img": f"{i}.png", "label": int(i > 0)} for i in range(4)])
    for i in range(4):
        draw_picture(folder / f"{i}.png", i)


def seed_bench(folder: Path) -> None:
    asked = {"question": "?", "answer": "A", "data_id": "0.png", "data_type": "image", "question_id": 1}
    asked |= {f"choice_{letter}": text for letter, text in zip("abcd", ("one two", "x", "y", "z"), strict=True)}
    write_json(folder / "SEED-Bench.json", {"question_type": {"S": 1}, "questions": [{**asked, "question_type_id": 1}]})
    draw_picture(folder / "0.png")


def classes(folder: Path) -> None:
    (photos(folder) / "classnames.txt").write_text("tench\nGreat dog\n")


def page(folder: Path) -> None:
    place = folder / "book" / "01"
    draw_picture(place / "processed_data" / "0100001.png")
    (place / "processed_data" / "0100001.html").write_text("<p>x")
    (place / "dataset.csv").write_text("question,id,element_id,answer_start,answer\nWho?,bk010000100001,3,0,The Owl\n")


def things(folder: Path) -> None:
    write_lines(folder / "relative-size.jsonl", [{"a": "a", "b": "b", "answer": False}])
    for name in ("memory-color", "color-terms"):
        write_lines(folder / f"{name}.jsonl", [{"object": "the sky", "color": "blue"}])


def piqa(folder: Path) -> None:
    write_lines(folder / "valid.jsonl", [RECORDS["piqa"] | {"sol1": "a b c", "sol2": "dddd"}])
    (folder / "valid-labels.lst").write_text("1\n")


def objects(folder: Path) -> None:
    asked = [{"question_id": i, "image": f"{i}.png", "text": "?", "label": ("no", "yes")[i % 2]} for i in range(6)]
    write_lines(folder / "coco_pope_random.json", asked)
    for i in range(6):
        draw_picture(folder / "val2014" / f"{i}.png", i)
    record = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(2)],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": [{"image_id": i, "category_id": 1} for i in range(2)],
    }
    write_json(folder / "instances_val2014.json", record)
    (folder / "synonyms.txt").write_text("dog\ncat\n")


def as_it_is(text: str) -> str:
    return text


SUM, MEAN = language._WAYS[0][1], language._WAYS[2][1]
LENGTHS = (("acc", MEAN), ("acc_norm", SUM), ("acc_token", SUM))
POPE_SAYS = ["It is", "Yes", "It is", "Yes", "It is", "nothing of it"]

# task, the metrics whose figure changes, data, what the model says, how it ranks, what is planted
CASES: list[tuple[str, str, Callable[[Path], Any], Any, Any, Plant]] = [
    ("coco-caption", "cider bleu1 bleu2 bleu3 bleu4 rouge_l", coco, caption, None, put(ptb, "words", str.split)),
    ("coco-caption", "cider spice bleu4 rouge_l", coco, caption, None, put(captions, "first_line", as_it_is)),
    ("coco-caption", "cider", coco, caption, None, put(cider_d, "_SIGMA", 1.0)),
    ("coco-caption", "bleu1 bleu4", coco, caption, None, put(bleu, "_SMALL", 1.0)),
    ("coco-caption", "rouge_l", coco, caption, None, put(rouge_l, "_BETA", 1.0)),
    ("coco-caption", "meteor", coco, caption, None, put(meteor, "_STAGES", (1.0, 1.0, 1.0, 1.0))),
    ("vqav2", "vqa_accuracy", vqa_data, reply, None, put(vqa, "short", as_it_is)),
    (
        "flickr30k-entities",
        "r1 r5 r10 r_all r1_merged r5_merged r10_merged r_all_merged r1_people r1_clothing r1_other r1_animals",
        entities, located(PHRASES), None, put(grounding, "corners", shifted),
    ),
    (
        "flickr30k-entities", "r1_merged r_all_merged",
        entities, located(PHRASES), None, put(grounding, "merged", lambda given: given[0]),
    ),
    ("refcoco", "accuracy mean upper", refcoco, located(EXPRESSIONS), None, put(referring, "corners", shifted)),
    (
        "refcocog-reg", "cider", refcocog, lambda prompt, images: "left thing. It", None,
        put(referring, "first_line", lambda text: text.replace(".", " and")),
    ),
    ("refcocog-reg", "meteor", refcocog, lambda prompt, images: "x", None, put(meteor, "_GAMMA", 0.0)),
    (
        "hatefulmemes", "auc", memes, None, None,
        put(auc, "roc_auc", lambda scores, labels: sum(a > b for a in scores for b in scores) / 3),
    ),
    ("hatefulmemes", "accuracy", memes, None, likes("yes"), without_blank(choosing)),
    ("rendered-sst2", "accuracy", sentiments, None, likes("positive"), without_blank(choosing)),
    ("rendered-sst2-cot", "accuracy", sentiments, None, likes("positive"), without_blank(choosing)),
    ("seed-bench", "accuracy", seed_bench, None, likes("one two"), without_blank(choosing)),
    ("imagenet", "accuracy", classes, lambda p, images: " Tench.\nIt", None, put(choosing, "first_line", as_it_is)),
    (
        "iq50", "accuracy margin", raven, None,
        lambda prompt, text, images: float("-c2" in images[-1]) * (1 if text == "Yes" else -1),
        put(reasoning, "sums", lambda ranking: dict(zip(("No", "Yes"), common.sums(ranking).values(), strict=True))),
    ),
    ("websrc", "em f1", page, lambda prompt, images: " owl.", None, put(answers, "plain", as_it_is)),
    ("websrc-picture", "em f1", page, lambda prompt, images: "owl\nlives", None, put(reasoning, "short", as_it_is)),
    (
        "bird-descriptions", "accuracy", birds, lambda prompt, images: "Downy", None,
        put(reasoning, "_names", lambda text, name, other: name in text),
    ),
    ("bird-descriptions", "likelihood", birds, None, likes("downy woodpecker"), without_blank(reasoning)),
    ("relative-size", "accuracy", things, None, likes("No"), without_blank(commonsense)),
    ("memory-color", "accuracy", things, None, likes("blue"), without_blank(commonsense)),
    (
        "piqa", "acc acc_norm acc_token", piqa, None,
        lambda prompt, text, images: -3.0 if text == "a b c" else -2.5, put(language, "_WAYS", LENGTHS),
    ),
    (
        "pope", "accuracy precision recall f1 yes_share", objects,
        lambda prompt, images: POPE_SAYS[int(images[0][0])], None,
        put(pope, "says_yes", lambda text: "yes" in text.lower()),
    ),
    (
        "chair", "chair_i chair_s", objects, lambda prompt, images: ["Two dogs and cats", "dogs"][int(images[0][0])],
        None, put(chair, "_singular", as_it_is),
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[f"{case[0]}-{number}" for number, case in enumerate(CASES)])
def test_a_planted_error_changes_the_figures(case: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, metrics, make, said, rated, plant = case
    make(tmp_path)
    model = Scripted(said or (lambda prompt, images: ""), rated or (lambda prompt, text, images: 0.0))
    right = values(evaluate(name, tmp_path, model)[0])
    assert all(right[metric] is not None for metric in metrics.split()), right
    plant(monkeypatch)
    wrong = values(evaluate(name, tmp_path, model)[0])
    assert not [metric for metric in metrics.split() if wrong[metric] == right[metric]], (right, wrong)


@pytest.mark.parametrize("case", {case[0]: case for case in CASES}.values(), ids=lambda case: case[0])
def test_two_types_are_compared_in_pairs(case: Any, tmp_path: Path) -> None:
    """Every task: a type that answers nothing against one that answers as above."""
    name, _, make, said, rated, _ = case
    make(tmp_path)
    model = Scripted(said or (lambda prompt, images: ""), rated or (lambda prompt, text, images: 0.0))
    one, items, first = evaluate(name, tmp_path, model)
    other, _, second = evaluate(name, tmp_path, Scripted())
    settings = Settings(str(tmp_path))
    made = report(find_task(name), [first, replace(second, type="q4_0")], settings, len(items))
    assert [figures["metrics"] for figures in made["types"]] == [one["metrics"], other["metrics"]]
    (difference,) = made["differences"]
    assert (difference["type"], difference["against"]) == ("q4_0", "f16")
    before, after = values(one), values(other)
    both = {metric for metric in before if before[metric] is not None and after[metric] is not None}
    assert both and set(difference["metrics"]) == both
    for metric in both:
        found = difference["metrics"][metric]
        assert found["value"] == pytest.approx(after[metric] - before[metric])
        if one["metrics"][metric]["items"] > 1:
            assert found["ci95"][0] <= found["value"] <= found["ci95"][1] and 0 < found["p"] <= 1
    assert name in table(find_task(name), made)


def test_every_metric_has_a_planted_error() -> None:
    """Tasks that score by the same code share them; so do the types of phrases."""

    def scored_by(name: str) -> str:
        return type(find_task(name)).score.__qualname__

    planted = {(scored_by(case[0]), metric) for case in CASES for metric in case[1].split()}
    tasks = [find_task(name) for name in TASKS]
    known = {(scored_by(task.NAME), metric.name) for task in tasks if is_prompt_task(task) for metric in task.METRICS}
    types = {("Flickr30kEntities.score", f"r1_{kind}") for kind in ("bodyparts", "vehicles", "instruments", "scene")}
    assert known - planted == types
