"""Training the wider nano on a CPU: scope, its renderer, several processes as one run, and a chunk that is resumed."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.nano_toy import write_toy
from helpers.tiny import write_tiny
from relabel import relabel
from wide import archive, batches, language, spec
from wide.scope import SCOPES, within

from kosmos_edge import _core, hub
from kosmos_edge.inference import trained

NANO = Path(__file__).resolve().parents[2] / "tools" / "nano"


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("toy") / "world.zip")


def rows(name, coloured, held_out=1):
    common = {"kind": "noun", "name": name}
    out = [{**common, "tint": False, "split": "train"} for _ in range(coloured)]
    out += [{**common, "tint": False, "split": "test"} for _ in range(held_out)]
    return [*out, {**common, "tint": True, "split": "train"}]


def test_a_scope_keeps_nouns_with_enough_coloured_cutouts():
    others = [{"kind": k, "name": "x", "tint": k != "unknown", "split": "train"} for k in ("shape", "word", "unknown")]
    sprites = [*rows("cat", 7), *rows("dog", 6), *rows("owl", 9, held_out=0), *others]
    kept = within(SCOPES["icons"], sprites)
    assert {s["name"] for s in kept if s["kind"] == "noun"} == {"cat"}
    assert not any(s["tint"] and s["split"] == "test" for s in kept if s["kind"] == "noun")
    assert {s["kind"] for s in kept} == {"noun", "shape", "unknown"}
    assert within(SCOPES["all"], sprites) is sprites


@pytest.mark.parametrize("scope", SCOPES)
def test_every_scope_has_words_for_the_model_file(scope):
    about = json.loads((NANO / "wide" / f"about-{scope}.json").read_text())
    assert about["name"] == "nano" and about["license"] == "mit"
    assert about["notice"].startswith("nano answers:") and "pull kosmos-2" in about["notice"]
    assert set(about["trained_tasks"]) < set(trained.KINDS)


def test_the_file_that_ships_says_what_its_recipe_says():
    about = json.loads((NANO / "wide" / "about-icons.json").read_text())
    metadata = _core.GgufFile(str(hub.nano_path())).metadata()
    assert metadata["kosmos2.notice"] == about["notice"]
    assert metadata["kosmos2.trained_tasks"].split(", ") == about["trained_tasks"]


def test_relabelling_leaves_the_tensors(tmp_path):
    write_tiny(tmp_path / "tiny.gguf")
    old = tmp_path / "old.gguf"
    shutil.copy(tmp_path / "tiny.gguf", old)
    about = {"notice": "knows little", "trained_tasks": ["caption", "ask"]}
    for _ in range(2):
        relabel(tmp_path / "tiny.gguf", about)
    new = _core.GgufFile(str(tmp_path / "tiny.gguf"))
    before = _core.GgufFile(str(old))
    told = {"kosmos2.notice": "knows little", "kosmos2.trained_tasks": "caption, ask"}
    assert new.metadata() == before.metadata() | told
    assert [t[:3] for t in new.tensors()] == [t[:3] for t in before.tensors()]
    assert all(new.tensor_data(name) == before.tensor_data(name) for name, *_ in new.tensors())
    with pytest.raises(ValueError, match="sing"):
        relabel(tmp_path / "tiny.gguf", {**about, "trained_tasks": ["sing"]})


def test_scenes_keep_to_their_scope(toy):
    world = archive.World(toy, pixels=False)
    world.scope = SCOPES["icons"]
    pools = spec.Pools(world)
    scenes = [spec.sample(pools, seed) for seed in range(300)]
    practised = [spec.sample(pools, seed, practice=pools.scope.practice) for seed in range(300)]
    assert {o.kind for s in scenes for o in s.objects} == {"noun", "shape"}
    assert max(len(s.objects) for s in scenes) == 4
    for s in scenes:
        for o in s.objects:
            longest = max(o.box[2] - o.box[0], o.box[3] - o.box[1])
            least, most = (0.21, 0.58) if s.shapes_alone else (0.3, 0.8)
            assert least - 1e-6 <= longest <= most + 1e-6
    assert np.mean([len(s.objects) for s in practised]) > np.mean([len(s.objects) for s in scenes]) + 0.3


def test_half_of_the_pictures_with_texts_are_practice_with_more_that_show_nothing(toy):
    world = archive.World(toy, pixels=False)
    world.scope = SCOPES["icons"]
    maker = batches.Maker(world, None, 200, 64)
    plain, practised = (maker.scenes(1)[half::2] for half in (0, 1))
    for half, scenes in enumerate((plain, practised)):
        practice = (None, world.scope.reading)[half]
        again = [spec.sample(maker.pools, s.seed, practice=practice) for s in scenes]
        assert [(s.ground, s.objects) for s in again] == [(s.ground, s.objects) for s in scenes]
    scenes = [spec.sample(maker.pools, seed, practice=world.scope.reading) for seed in range(600)]
    nothing = [s for s in scenes if not s.objects]
    assert 0.2 < len(nothing) / len(scenes) < 0.4
    assert np.mean([s.kind == "photo" for s in nothing]) > 0.75
    assert not any(s.warp != spec.NO_WARP for scene in plain for s in scene.layers)


def test_saying_nothing_weighs_most(toy):
    class Letters:
        def encode(self, text, target=False):
            return [5 + ord(c) % 50 for c in text][:20]

    world = archive.World(toy, pixels=False)
    world.scope = SCOPES["icons"]
    maker = batches.Maker(world, None, 1, 64)
    maker.vocabulary = Letters()
    for seed, count in ((1, 0), (2, 2)):
        scene = spec.sample(maker.pools, seed, count=count)
        for kind in ("caption", "plain", "detailed", "locate", "describe", "ask"):
            weights = set(maker.pack([scene], [(kind, 64)], random.Random(3))["weights"].ravel()) - {1.0}
            answers = {batches.ANSWER_WEIGHT} if kind in ("locate", "ask") else set()
            silence = kind in ("caption", "plain", "detailed") and count == 0
            assert weights == ({batches.NOTHING_WEIGHT} if silence else answers)


def test_some_scenes_are_v0s_world_and_are_asked_as_it_is(toy):
    world = archive.World(toy, pixels=False)
    world.scope = SCOPES["icons"]
    pools, rng, names = spec.Pools(world), random.Random(1), language.known_names(world)
    alone = [s for s in (spec.sample(pools, seed) for seed in range(600)) if s.shapes_alone]
    assert 20 < len(alone) < 90
    for s in alone:
        assert s.kind != "photo" and 1 <= len(s.objects) <= 4 and {o.kind for o in s.objects} == {"shape"}
    asked = {batches.make_text("ask", s, rng, names)[0] for s in alone for _ in range(9)}
    assert any("What shape is" in q for q in asked) and any("things" in q for q in asked)
    located = {batches.make_text("locate", s, rng, names)[0] for s in alone for _ in range(9)}
    assert any(q.endswith(" shape</phrase>") for q in located)


def test_the_processors_renderer_paints_what_the_reference_paints(toy):
    pytest.importorskip("numba", reason="the renderer is compiled by numba")
    pytest.importorskip("torch", reason="it gives tensors")
    from wide import fast, paint

    world = archive.World(toy)
    world.scope = SCOPES["icons"]
    pools = spec.Pools(world)
    scenes = [spec.sample(pools, seed, practice=None if seed % 2 else pools.scope.practice) for seed in range(24)]
    assert any(layer.warp != spec.NO_WARP for s in scenes for layer in s.layers)
    pixels, owner = fast.Painter(world, 96).pictures(spec.arrays(scenes, world, 96))
    assert any(s.grain for s in scenes) and any(s.light != (1.0, 0.0, 0.0) for s in scenes)
    for s, mine, mine_owner in zip(scenes, pixels.numpy(), owner.numpy(), strict=True):
        theirs, their_owner = paint.paint_arrays(s, world, 96)
        assert np.abs(mine.transpose(1, 2, 0) - theirs).max() < 2e-3
        assert (mine_owner != their_owner).mean() < 1e-3


def train(toy, run, *arguments):
    """The training command; -> the rows of its log so far"""
    command = [sys.executable, "-m", "wide.train", arguments[0], "--world", str(toy), "--run", str(run)]
    command += ["--preset", "tiny", "--supersample", "1", "--sentences", "900", "--log-every", "1", *arguments[1:]]
    environment = {**os.environ, "PYTHONPATH": str(NANO)}  # tests start programs without the folder they stand in
    ended = subprocess.run(command, cwd=NANO, env=environment, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return [json.loads(line) for line in (Path(run) / "log.jsonl").read_text().splitlines()]


def test_two_processes_are_one_run_that_resumes(toy, tmp_path):
    pytest.importorskip("sentencepiece", reason="the vocabulary is trained with sentencepiece")
    torch = pytest.importorskip("torch", reason="training is torch code")
    from wide import checkpoints

    both = ("--batch", "8", "--processes", "2")
    log = train(toy, tmp_path, "a", *both, "--steps", "3")
    assert [r["samples"] for r in log if "loss" in r] == [16, 32, 48]
    first = checkpoints.load(str(tmp_path / "a.pt"))["model"]
    log = train(toy, tmp_path, "a", *both, "--steps", "5")
    assert [r["step"] for r in log if "loss" in r] == [1, 2, 3, 4, 5]
    second = checkpoints.load(str(tmp_path / "a.pt"))["model"]
    assert any(not torch.equal(first[k], second[k]) for k in first)
    log = train(toy, tmp_path, "c", *both, "--steps", "2", "--warm-steps", "3")
    losses = [r["loss"] for r in log if r.get("stage") == "c" and "loss" in r]
    assert len(losses) == 2 and {"words", "places", "dense", "extra"} <= set(losses[0])
    assert (tmp_path / "carry-0.pt").exists() and (tmp_path / "curves.png").exists()


def test_gradients_of_a_team_are_the_mean_of_its_members(tmp_path):
    pytest.importorskip("torch", reason="training is torch code")
    program = tmp_path / "member.py"
    program.write_text(
        f"import sys, torch\nsys.path.insert(0, {str(NANO)!r})\n"
        "from wide.parallel import Team\n"
        "team = Team()\n"
        "p = [torch.nn.Parameter(torch.zeros(n)) for n in (3, 4, 1)]\n"
        "for step in range(50):\n"
        "    for i, v in enumerate(p[:2]):\n"
        "        v.grad = torch.full_like(v, float(step + i + 10 * team.rank))\n"
        "    team.average(p)\n"
        "    assert all((v.grad == step + i + 5).all() for i, v in enumerate(p[:2])), (team.rank, step)\n"
        "assert p[2].grad is None and team.same(team.rank == 0) and team.numbered(3) == 6 + team.rank\n"
        "p[0].data += team.rank\n"
        "team.alike(p)\n"
        "assert (p[0] == 0).all()\n"
    )
    from wide import parallel

    assert parallel.launch(2, [], program=[sys.executable, str(program)]) == 0


def test_a_member_that_fails_ends_the_run(tmp_path):
    pytest.importorskip("torch", reason="training is torch code")
    from wide import parallel

    program = tmp_path / "member.py"
    program.write_text("import os, sys, time\nsys.exit(7) if os.environ['RANK'] == '1' else time.sleep(300)\n")
    assert parallel.launch(2, [], program=[sys.executable, str(program)]) == 7


def test_scenes_as_a_folder_are_what_bench_quality_reads(toy, tmp_path):
    quality_cases = pytest.importorskip("kosmos_edge.quality.cases", reason="the package is not installed")
    from wide import scenes

    world = archive.World(toy)
    seeds = range(batches.HELD_OUT_SEED, batches.HELD_OUT_SEED + 24)
    cases = quality_cases.labelled_cases(scenes.write(world, str(tmp_path), "test", seeds), None, None)
    assert len(cases) == 24
    pools = spec.Pools(world)
    kinds = {q.kind for case in cases for q in case.questions}
    assert {"exist", "count", "color", "relation"} <= kinds
    for i, case in enumerate(cases):
        scene = spec.sample(pools, batches.HELD_OUT_SEED + i, "test", "test")
        assert [thing.name for thing in case.things] == [language.name_of(o) for o in scene.objects]
        assert np.allclose([t.box for t in case.things], [o.box for o in scene.objects], atol=1e-4)
    assert cases[0].picture().width == scenes.PAINTED


def test_the_vit_alone_sees_fuller_pictures_than_the_texts(toy):
    world = archive.World(toy, pixels=False)
    world.scope = SCOPES["icons"]
    alone = batches.Maker(world, None, 64, 96, texts=False).scenes(0)
    texts = batches.Maker(world, None, 64, 96).scenes(0)
    assert sum(len(s.objects) for s in alone) > sum(len(s.objects) for s in texts)
