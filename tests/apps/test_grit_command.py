"""kosmos-edge grit, with nano and trees that were written by hand: no spaCy is needed."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from helpers.grit_trees import tree

import kosmos_edge
from kosmos_edge import cli
from kosmos_edge.apps.grit import Asked, EngineDetector, Span, iou, read_records
from kosmos_edge.quality.nano_questions import name_of, phrase_of
from kosmos_edge.quality.nano_world import HELD_OUT_SEED, render, sample_scene


@pytest.fixture(scope="module")
def model():
    with kosmos_edge.load("nano") as loaded:
        yield loaded


def scenes(count):
    """Scenes of two different things: (scene, the caption's tree, the true boxes)."""
    found, seed = [], HELD_OUT_SEED
    while len(found) < count:
        scene = sample_scene(seed)
        things = [(o.shape, o.color, o.box) for o in scene.objects]
        seed += 1
        if len(things) == 2 and name_of(things[0]) != name_of(things[1]):
            (a, one, thing), (b, other, last) = (phrase_of(o).split() for o in things)
            words = f"{a}>2:det {one}>2:amod {thing}>2:ROOT with>2:prep:ADP {b}>6:det {other}>6:amod {last}>3:pobj"
            found.append((scene, tree(words, "0-3 4-7"), [o[2] for o in things]))
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(folder of 12 scenes, file of their trees, true boxes by key)"""
    root = tmp_path_factory.mktemp("grit")
    (root / "in").mkdir()
    true, trees = {}, []
    for number, (scene, parsed, boxes) in enumerate(scenes(12)):
        render(scene, 224).save(root / "in" / f"{number:02}.png", compress_level=1)
        (root / "in" / f"{number:02}.txt").write_text(parsed.text)
        trees.append(json.dumps(parsed.to_dict()))
        true[f"{number:02}.png"] = boxes
    (root / "trees.jsonl").write_text("\n".join(trees) + "\n")
    return root / "in", root / "trees.jsonl", true


def words(world, out, *more):
    return ["grit", "build", str(world[0]), "--trees", str(world[1]), "-o", str(out), "--records", "json", *more]


def test_nanos_world_end_to_end(world, tmp_path, capsys):
    assert cli.run(words(world, tmp_path / "out", "-m", "nano")) == 0
    done = capsys.readouterr()
    assert done.out == "" and "12 pairs: 12 records" in done.err
    records = read_records(tmp_path / "out" / "records.jsonl")
    right = 0
    for record in records:
        assert all(row[:2] == [0, len(record["caption"])] for row in record["ref_exps"])  # "... with a blue star"
        for row, true in zip(record["noun_chunks"], world[2][record["key"]], strict=False):
            right += iou(tuple(row[2:6]), true) >= 0.5
    assert len(records) == 12 and right >= 22  # of 24
    facts = json.loads((tmp_path / "out" / "statistics.json").read_text())
    assert facts["parser"] == {"name": "trees", "file": "trees.jsonl"} and facts["detector"]["name"] == "nano"
    assert facts["mean_words"] == 7 and facts["published"]["pictures"] == 90_614_680


def test_a_killed_run_is_resumed_to_the_same_bytes(world, tmp_path):
    """SIGKILL while it works; then --resume, beside a run that nobody disturbed."""
    command = [sys.executable, "-P", "-m", "kosmos_edge", *words(world, tmp_path / "out", "-m", "nano", "-q")]
    command += ["--batch-size", "1", "-t", "1"]
    running = subprocess.Popen(command)
    journal, deadline = tmp_path / "out" / "journal.sqlite3-wal", time.monotonic() + 60
    while not journal.exists() or journal.stat().st_size < 20_000:
        assert time.monotonic() < deadline
        if running.poll() is not None:  # it was faster than we are
            break
        time.sleep(0.002)
    running.send_signal(signal.SIGKILL)
    killed = running.wait() == -signal.SIGKILL
    assert killed != (tmp_path / "out" / "records.jsonl").exists()
    assert cli.run(words(world, tmp_path / "out", "-m", "nano", "-q", "--resume")) == 0
    assert cli.run(words(world, tmp_path / "whole", "-m", "nano", "-q")) == 0
    for name in ("records.jsonl", "statistics.json", "sheet.html", "failed.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_an_earlier_run_is_refused_before_the_model_is_loaded(world, tmp_path, capsys):
    (tmp_path / "records.jsonl").write_text("mine")
    assert cli.run(words(world, tmp_path, "-m", "no-such-model.gguf")) == 2
    assert "--overwrite begins again" in capsys.readouterr().err
    assert (tmp_path / "records.jsonl").read_text() == "mine"


def test_failures_are_told_and_counted(world, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.png").write_bytes((world[0] / "00.png").read_bytes())
    (folder / "a.txt").write_text((world[0] / "00.txt").read_text())
    (folder / "b.png").write_bytes(b"")
    (folder / "b.txt").write_text((world[0] / "00.txt").read_text())
    (folder / "c.txt").write_text("a caption of nothing")
    (folder / "d.png").write_bytes((world[0] / "01.png").read_bytes())
    (folder / "d.txt").write_text("a caption without a tree")
    run = ["grit", "build", str(folder), "--trees", str(world[1]), "--records", "json", "-m", "nano"]
    assert cli.run([*run, "-o", str(tmp_path / "out")]) == 1
    err = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in err if line[0] in "abcd"] == ["b.png", "d.png", "c.txt"]
    assert "4 pairs: 1 records" in err[-1] and "3 failed" in err[-1]
    assert len((tmp_path / "out" / "failed.jsonl").read_text().splitlines()) == 3
    assert cli.run([*run, "-o", str(tmp_path / "fast"), "--fail-fast", "-q"]) == 1
    assert not (tmp_path / "fast" / "records.jsonl").exists()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--detector", "http://x/", "--context"], "belongs to the model"),
        (["--pipeline", "en"], "exclude each other"),
        (["--threshold", "2"], "--threshold"),
        (["--shard", "3/2"], "shard"),
        (["--abstract", "no-such-file"], "--abstract"),
        (["--detector", "no-such-folder"], "--detector|onnxruntime"),
        (["--captions", "no-such-file"], "no-such-file"),
    ],
)
def test_wrong_usage(world, tmp_path, capsys, more, says):
    import re

    assert cli.run(words(world, tmp_path / "out", *more)) in (1, 2)
    assert re.search(says, capsys.readouterr().err)
    assert not (tmp_path / "out" / "records.jsonl").exists()


def test_broken_trees(world, tmp_path, capsys):
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n')
    run = ["grit", "build", str(world[0]), "--trees", str(tmp_path / "bad.jsonl"), "-o", str(tmp_path / "out")]
    assert cli.run([*run, "--records", "json"]) == 2
    assert "bad.jsonl, line 1: a tree: expected text" in capsys.readouterr().err


def test_nothing_is_written_to_stdout(world, tmp_path):
    command = [sys.executable, "-P", "-m", "kosmos_edge", *words(world, tmp_path / "out", "-m", "nano", "-q")]
    done = subprocess.run(["bash", "-c", 'exec "$@" >&- 2>&-', "bash", *command], env=os.environ, check=False)
    assert done.returncode == 0 and len(read_records(tmp_path / "out" / "records.jsonl")) == 12


# ---- our own engine as detector


def test_context_stands_before_the_phrase(model):
    """And the words before it are left out, and counted, where they would be tags or do not fit."""
    scene, parsed, _ = scenes(1)[0]
    picture, phrase = kosmos_edge.open_image(render(scene, 224)), parsed.text.partition(" with ")[0]
    before = ["a dog and ", "<object> and ", "a {dog} and ", "x " * 3000]
    asked = [Asked(picture, b"same", b + phrase, (Span(len(b), len(b + phrase)),)) for b in before]
    plain = EngineDetector(model, "1").detect(asked)
    context = EngineDetector(model, "1", context=True).detect(asked)
    assert [found.without_context for found in plain] == [0, 0, 0, 0]
    assert [found.without_context for found in context] == [0, 1, 1, 1]
    assert all(found.boxes[0] for found in plain)
    assert [found.boxes for found in context[1:]] == [found.boxes for found in plain[1:]]
    with_words = model.locate(picture, phrase, template="<grounding>a dog and<phrase> {phrase}</phrase>")
    alone = model.locate(picture, phrase)
    for found, answer in ((context[0], with_words), (plain[0], alone)):
        assert [one.box for one in found.boxes[0]] == [box.normalized for box in answer.boxes]
        assert [one.score for one in found.boxes[0]] == [answer.entities[0].found_score for _ in answer.boxes]
        assert [one.place for one in found.boxes[0]] == [box.score for box in answer.boxes]
    assert context[0] != plain[0]


def test_the_detector_does_not_mind_the_batch(model):
    pictures = [kosmos_edge.open_image(render(sample_scene(HELD_OUT_SEED + n), 224)) for n in range(4)]
    spans = (Span(0, 12), Span(17, 30))
    asked = [Asked(one, bytes([n]), "a red circle and a blue square", spans) for n, one in enumerate(pictures)]
    detector = EngineDetector(model, "1")
    assert detector.detect(asked) == [found for one in asked for found in detector.detect([one])]


def test_the_files_of_the_model_are_its_identity(model, tmp_path):
    from kosmos_edge.folders import Journal

    (tmp_path / "mmproj.gguf").write_bytes(b"another part")
    with Journal(None) as journal:
        one = EngineDetector(model, "1").identity(journal)
        assert one == EngineDetector(model, "1").identity(journal)
        assert one != EngineDetector(model, "2").identity(journal)
        assert one != EngineDetector(model, "1", context=True).identity(journal)
        both = [str(model.path), str(tmp_path / "mmproj.gguf")]
        assert one != EngineDetector(model, "1", files=both).identity(journal)


def test_a_model_without_boxes_is_refused(tmp_path):
    from helpers.programs import boxless_model

    from kosmos_edge.errors import InvalidRequest

    with kosmos_edge.load(boxless_model(tmp_path)) as loaded, pytest.raises(InvalidRequest, match="no boxes"):
        EngineDetector(loaded, "1")
