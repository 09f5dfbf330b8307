"""min_score leaves out what the model is not sure of; one that says what it was trained for notes other requests."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from helpers.tiny import write_tiny
from PIL import Image, ImageChops

import kosmos_edge
from kosmos_edge import InvalidRequest, Model, cli
from kosmos_edge.inference import trained
from kosmos_edge.results import Done, Entity, EntityEvent

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
if not EXAMPLES.is_dir():
    pytest.skip("examples/ is not beside the tests", allow_module_level=True)
CARROT = EXAMPLES / "scene-00003.png"  # an orange carrot, a fire truck and a black diamond


@pytest.fixture(scope="module")
def nano() -> Iterator[Model]:
    with kosmos_edge.load("nano", threads=1) as model:
        yield model


def command(*arguments: Any) -> Result:
    return CliRunner().invoke(cli.cli, [str(a) for a in arguments], standalone_mode=False)


def between(entities: list[Entity]) -> float:
    """A threshold that the least sure one does not reach, and all others do."""
    scores = sorted(e.phrase_score for e in entities if e.phrase_score is not None)
    assert len(scores) == len(entities) > 1 and scores[0] < scores[1]
    return (scores[0] + scores[1]) / 2


def test_entities_below_it_are_left_out_and_noted(nano: Model) -> None:
    everything = nano.caption(CARROT, ground=True)
    limit = between(everything.entities)
    some = nano.caption(CARROT, ground=True, min_score=limit)
    kept = [e for e in everything.entities if e.phrase_score is not None and e.phrase_score >= limit]
    assert some.entities == kept and len(kept) == len(everything.entities) - 1
    assert (some.text, some.token_ids, some.to_hf()) == (everything.text, everything.token_ids, everything.to_hf())
    (note,) = some.notes
    gone = next(e for e in everything.entities if e not in kept)
    assert f'"{gone.phrase}"' in note and "min_score" in note and everything.notes == []
    assert nano.caption(CARROT, ground=True, min_score=0).entities == everything.entities


def test_a_stream_gives_the_same_entities(nano: Model) -> None:
    limit = between(nano.caption(CARROT, ground=True).entities)
    events = list(nano.caption(CARROT, ground=True, min_score=limit, stream=True))
    done = events[-1]
    assert isinstance(done, Done)
    assert [e.entity for e in events if isinstance(e, EntityEvent)] == done.result.entities
    assert done.result.entities == nano.caption(CARROT, ground=True, min_score=limit).entities


def test_every_way_to_ask_takes_it(nano: Model) -> None:
    limit = between(nano.caption(CARROT, ground=True).entities)
    wanted = [e.phrase for e in nano.caption(CARROT, ground=True, min_score=limit).entities]
    (batched,) = nano.batch([CARROT], ground=True, min_score=limit)
    assert [e.phrase for e in batched.entities] == wanted  # type: ignore[union-attr]
    assert [e.phrase for e in nano.ground(CARROT, min_score=limit).entities] == wanted
    with kosmos_edge.load("nano", threads=1, isolation="process") as worker:
        remote = worker.caption(CARROT, ground=True, min_score=limit)
        assert [e.phrase for e in remote.entities] == wanted
        assert worker.locate(CARROT, "a fire truck").entities == nano.locate(CARROT, "a fire truck").entities


def test_locate_goes_by_whether_boxes_follow(nano: Model) -> None:
    found = nano.locate(CARROT, "a fire truck", logprobs=True)
    (entity,) = found.entities
    assert found.logprobs is not None and entity.phrase_score is None
    assert entity.found_score == entity.sureness == pytest.approx(math.exp(found.logprobs[0]))
    assert entity.to_dict()["found_score"] == entity.found_score
    unasked = nano.locate(CARROT, "a fire truck")
    assert unasked.entities == found.entities and unasked.logprobs is None
    beside = (entity.found_score or 0) + 1e-4
    refused = nano.locate(CARROT, "a fire truck", min_score=min(beside, 1))
    assert refused.entities == [] and refused.text == found.text
    assert any("min_score" in note for note in refused.notes) and "the model gave no box" not in str(refused.notes)
    (event, _) = [e for e in nano.locate(CARROT, "a fire truck", stream=True) if isinstance(e, EntityEvent | Done)]
    assert isinstance(event, EntityEvent) and event.entity == entity
    assert all(e.found_score is None for e in nano.caption(CARROT, ground=True).entities)


def test_what_has_no_score_is_kept() -> None:
    assert Entity("x", (0, 1), ()).reaches(1)
    assert Entity("x", (0, 1), (), 0.1, 0.5).reaches(0.5) and not Entity("x", (0, 1), (), 0.9, 0.4).reaches(0.5)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, True, "0.5"])
def test_other_values_are_refused(nano: Model, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"min_score: expected a number in 0..1"):
        nano.caption(CARROT, min_score=value)


def test_the_command_line_prints_draws_and_batches_what_is_left(nano: Model, tmp_path: Path) -> None:
    everything = nano.caption(CARROT, ground=True)
    limit = between(everything.entities)
    kept = nano.caption(CARROT, ground=True, min_score=limit).entities
    done = command("caption", CARROT, "-m", "nano", "-q", "--min-score", limit, "--draw", tmp_path / "some.png")
    rows = [line.split("\t") for line in done.stdout.splitlines()[1:]]
    assert [row[0] for row in rows] == [e.phrase for e in kept]
    assert [row[2:] for row in rows] == [[f"{e.score:.3f}", f"{e.phrase_score:.3f}"] for e in kept]
    command("caption", CARROT, "-m", "nano", "-q", "--draw", tmp_path / "all.png")
    with Image.open(tmp_path / "some.png") as some, Image.open(tmp_path / "all.png") as every:
        assert ImageChops.difference(some.convert("RGB"), every.convert("RGB")).getbbox() is not None
    line = json.loads(command("batch", CARROT, "-m", "nano", "-q", "--min-score", limit).stdout)
    assert [e["phrase"] for e in line["entities"]] == [e.phrase for e in kept]
    table = command("locate", CARROT, "a fire truck", "-m", "nano", "-q", "-f", "csv").stdout
    assert '""score""' in table and '""phrase_score""' in table and '""found_score""' in table
    assert command("locate", CARROT, "a fire truck", "-m", "nano", "-q", "--min-score", 1).stdout == ""
    for verb in (["ground", CARROT], ["describe", CARROT, "--box", "85,65,205,145"], ["ask", CARROT, "What is this?"]):
        assert command(*verb, "-m", "nano", "-q", "--min-score", limit).exit_code == 0


# ---- what a model was trained for


def notes_of(model: Model) -> dict[str, list[str]]:
    """The notes of one request of each kind."""
    shot = EXAMPLES / "scene-00000.png"
    few: dict[str, Any] = {"max_tokens": 2}
    words = "Describe this image in detail:"
    return {
        "caption": model.caption(CARROT, **few).notes,
        "caption_long": model.caption(CARROT, "long", ground=True, **few).notes,
        "caption as ground": model.ground(CARROT, **few).notes,
        "caption_long as ground": model.ground(CARROT, words, **few).notes,
        "prompt": model.ground(CARROT, "Here is", **few).notes,
        "locate": [n for n in model.locate(CARROT, "a cat", **few).notes if "no box" not in n],
        "describe": model.describe(CARROT, (85, 65, 205, 145), **few).notes,
        "describe_plain": model.describe(CARROT, (85, 65, 205, 145), ground=False, **few).notes,
        "ask": model.ask(CARROT, "What is this?", **few).notes,
        "ask_boxes": model.ask(CARROT, "What is this?", ground=True, **few).notes,
        "examples": model.caption(CARROT, examples=[(shot, "a cat.")], **few).notes,
        "examples of ask": model.ask(CARROT, "What is this?", examples=[(shot, "What?", "a cat")], **few).notes,
        "generate": model.generate([shot, "a cat", CARROT, "a dog"], **few).notes,
        "caption as generate": model.generate([CARROT, "<grounding>An image of"], raw=True, **few).notes,
        "ask as generate": model.generate([CARROT, "Question: What is this? Answer:"], **few).notes,
        "ask as generate, alone": model.generate(["Question: What is a cat? Answer:"], **few).notes,
        "caption as score": model.score(CARROT, ["a cat"]).notes,
        "prompt as score": model.score(CARROT, ["a cat"], "It is {text}").notes,
        "prompt as classify": model.classify(CARROT, ["a cat", "a dog"]).notes,
    }


def test_nano_notes_what_it_was_not_trained_for(nano: Model) -> None:
    listed = str(nano.model_info["trained_tasks"]).split(", ")
    assert set(listed) < set(trained.KINDS)
    for name, notes in notes_of(nano).items():
        kind = name.partition(" ")[0]
        said = [trained.KINDS[kind] in note and trained.UNTRAINED in note for note in notes]
        assert said == ([] if kind in listed else [True]), (name, notes)


def test_a_model_that_does_not_say_notes_nothing(tmp_path: Path) -> None:
    write_tiny(tmp_path / "tiny.gguf")
    with kosmos_edge.load(tmp_path / "tiny.gguf", threads=1) as model:
        assert model.model_info["trained_tasks"] == ""
        assert not any(notes_of(model).values())


def test_the_list_is_the_files(tmp_path: Path) -> None:
    key = "kosmos2.trained_tasks"
    write_tiny(tmp_path / "a.gguf", edit=lambda content: content.metadata.update({key: ("str", "examples, caption")}))
    with kosmos_edge.load(tmp_path / "a.gguf", threads=1) as model:
        noted = {name for name, notes in notes_of(model).items() if notes}
        assert noted == {name for name in notes_of(model) if name.split()[0] not in ("caption", "examples")} | {
            "examples of ask"
        }


def test_the_command_line_says_it_once() -> None:
    shot = f"{EXAMPLES / 'scene-00000.png'}::a cat."
    done = command("caption", CARROT, CARROT, "-m", "nano", "--shot", shot)
    assert done.stderr.count(trained.UNTRAINED) == 1 and trained.UNTRAINED not in done.stdout
    assert "few-shot" in next(line for line in done.stderr.splitlines() if trained.UNTRAINED in line)
    assert trained.UNTRAINED not in command("caption", CARROT, "-m", "nano").stderr
    assert trained.UNTRAINED not in command("caption", CARROT, "-m", "nano", "--shot", shot, "-q").stderr
    free = command("generate", "--image", CARROT, "--text", "So this is", "-m", "nano")
    assert free.stderr.count(trained.UNTRAINED) == 1
