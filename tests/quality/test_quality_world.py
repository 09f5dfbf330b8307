"""The shapes of nano's world: a seed is a scene for ever, boxes and answers are true, painting needs Pillow alone."""

import hashlib
import json
import random
import subprocess
import sys

import numpy as np

from kosmos_edge.quality import nano_questions, nano_world
from kosmos_edge.quality.nano_world import HELD_OUT_SEED, render, sample_scene, truth

SCENES = [sample_scene(HELD_OUT_SEED + i) for i in range(60)]


def known(scene: nano_world.Scene) -> list[nano_questions.Known]:
    return [(o.shape, o.color, o.box) for o in scene.objects]


def test_a_seed_is_the_same_scene_for_ever() -> None:
    """nano was trained on and measured with these: a changed stream of random numbers would mix the two sets."""
    facts = [
        {**truth(scene), "objects": [(o.name, [round(v, 3) for v in o.box]) for o in scene.objects]} for scene in SCENES
    ]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    assert digest == "2488d293b1844dd510035612f765328f2e78a28087d5b680067d9819e2eeb724"
    assert truth(SCENES[0])["objects"] == [
        {"shape": "arrow", "color": "yellow", "box": [0.30766, 0.51353, 0.74332, 0.78047]},
        {"shape": "heart", "color": "yellow", "box": [0.39159, 0.06036, 0.80324, 0.4805]},
    ]


def test_objects_are_inside_apart_in_colour_and_ordered() -> None:
    for scene in SCENES:
        assert 1 <= len(scene.objects) <= nano_world.MAX_OBJECTS
        assert sorted(scene.paint_order) == list(range(len(scene.objects)))
        middles = [o.box[0] + o.box[2] for o in scene.objects]
        assert middles == sorted(middles)
        for o in scene.objects:
            assert 0 <= o.box[0] < o.box[2] <= 1 and 0 <= o.box[1] < o.box[3] <= 1


def test_the_painted_object_fills_its_box() -> None:
    scene = next(s for s in SCENES if len(s.objects) == 1 and nano_world.BACKGROUNDS[s.background.kind] == "plain")
    (o,) = scene.objects
    size = 400
    pixels = np.asarray(render(scene, size)).astype(int)
    there = np.argwhere(np.abs(pixels - o.fill).max(-1) <= 2)
    (y1, x1), (y2, x2) = there.min(0), there.max(0) + 1
    assert np.abs(np.array([x1, y1, x2, y2]) / size - o.box).max() < 0.01


def test_painting_is_deterministic_and_of_every_kind() -> None:
    kinds = {scene.background.kind for scene in SCENES}
    assert kinds == set(range(len(nano_world.BACKGROUNDS)))
    for scene in SCENES[:20]:
        assert render(scene, 64).tobytes() == render(sample_scene(scene.seed), 64).tobytes()


def test_stripes_have_their_period_and_both_tones() -> None:
    ground = nano_world.Background(3, 0, (60.0, 60.0, 60.0), (100.0, 100.0, 100.0), 0.0, 0.25)
    row = np.asarray(nano_world._paint_background(ground, 200))[17, :, 0].astype(int)
    assert row.min() == 60 and row.max() >= 99
    assert np.abs(row[:150] - row[50:]).max() <= 12  # one period is 50 pixels


def test_answers_are_true() -> None:
    for scene in SCENES:
        objects, ground = known(scene), (scene.background.kind, scene.background.tone)
        names = [o.name for o in scene.objects]
        count, exist, found = (
            nano_questions.ask(objects, ground, random.Random(7), kind, style=False)
            for kind in ("count", "exist", "color")
        )
        assert count is not None and exist is not None
        assert count[1] == nano_questions.NUMBERS[len(names)]
        thing = exist[0].split("?")[0].split()[3:5]
        if len(thing) == 2 and thing[0] in nano_world.COLORS and thing[1] in nano_world.SHAPES:
            assert (exist[1] == "yes") == (" ".join(thing) in names)
        if found:
            shape = next(name for name in nano_world.SHAPES if name in found[0])
            assert f"{found[1]} {shape}" in names


def test_the_world_needs_pillow_alone() -> None:
    program = (
        "import sys; from kosmos_edge.quality import nano_world as w, nano_questions; w.render(w.sample_scene(1), 32)\n"
        "print('HEAVY', sorted({'numpy', 'torch', 'kosmos_edge._core'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout
