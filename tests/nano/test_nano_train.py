"""Training data and parts of the wider nano's recipe: batches, vocabulary, dense heads, shards, curves."""

import json
import random

import numpy as np
import pytest
from helpers.nano_toy import write_toy
from wide import archive, batches, curves, language, spec


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return archive.World(write_toy(tmp_path_factory.mktemp("toy") / "world.zip"), pixels=False)


@pytest.fixture(scope="module")
def vocabulary(world, tmp_path_factory):
    pytest.importorskip("sentencepiece", reason="the vocabulary is trained with sentencepiece")
    import vocabulary

    path = str(tmp_path_factory.mktemp("vocabulary") / vocabulary.MODEL_FILE)
    vocabulary.train(path, 700, batches.sentences(world, 900))
    return vocabulary.Vocabulary(path)


@pytest.fixture(scope="module")
def maker(world, vocabulary):
    return batches.Maker(world, vocabulary.path, size=6, picture=64, seed=5)


def test_a_batch_is_a_function_of_its_number(maker):
    a, b, c = maker[3], maker[3], maker[4]
    assert all(np.array_equal(a[k], b[k]) for k in a)
    assert not np.array_equal(a["params"], c["params"])


def test_texts_fit_their_slots_and_labels_are_the_next_tokens(maker, vocabulary):
    for step in range(6):
        b = maker[step]
        assert int(b["left_out"]) == 0
        kinds = batches.LONG if b["long"] else batches.SHORT
        assert b["ids"].shape == (6, sum(room for _, room in kinds))
        at = 0
        for kind, room in kinds:
            ids, labels = b["ids"][0, at : at + room], b["labels"][0, at : at + room]
            known = np.flatnonzero(labels != batches.IGNORE)
            assert len(known) and labels[known[-1]] == batches.EOS, kind
            assert np.array_equal(labels[known[:-1]], ids[known[:-1] + 1]), kind
            at += room


def test_targets_read_back_as_the_texts_they_came_from(maker, vocabulary):
    scenes = maker.scenes(0)
    packed = maker.pack(scenes, (("caption", 64),), random.Random(0))
    for row, scene in zip(packed["labels"], scenes, strict=True):
        said = vocabulary.decode([i for i in row.tolist() if i not in (batches.IGNORE, batches.EOS)])
        assert said.replace(" ", "") == language.caption(scene)[1].replace(" ", "")


def test_extras_have_two_captions_and_a_line(maker):
    b = maker[batches.EXTRA_EVERY]
    assert b["pair_ids"].shape == (3, 2, batches.EXTRA_ROOM)
    assert (b["line_labels"] == batches.EOS).any(1).all()
    assert "pair_ids" not in maker[1]


def test_labels_of_the_heads_are_the_scenes(maker, world):
    scenes = maker.scenes(2)
    labels = maker.labels(scenes)
    classes = batches.classes_of(world)
    for b, s in enumerate(scenes):
        assert labels["count"][b] == len(s.objects)
        for i, o in enumerate(s.objects):
            assert classes[labels["class"][b, i]] == (o.kind if o.kind in ("word", "number") else o.name)
            assert (labels["color"][b, i] == batches.NO_COLOR) == (o.color is None)


def test_seeds_of_training_and_figures_never_meet(world, vocabulary):
    last = batches.Maker(world, vocabulary.path, 512, 64, seed=3).first_scene + 512 * 500_000
    assert last < 800_000_000 < batches.HELD_OUT_SEED < batches.VALID_SEED


def test_curves_are_drawn(tmp_path):
    log = tmp_path / "log.jsonl"
    rows = [{"stage": "a", "samples": 1000 * i, "loss": {"class": 5 / i, "box": 3 / i}} for i in range(1, 9)]
    rows += [{"stage": "a", "samples": 8000, "valid": {"named": 0.5}}, {"stage": "b", "step": 1}]
    log.write_text("\n".join(map(json.dumps, rows)))
    curves.draw_curves(str(log), str(tmp_path / "curves.png"))
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_shards_come_back_whole(tmp_path):
    torch = pytest.importorskip("torch", reason="shards hold torch tensors")
    from wide import checkpoints

    weights = {f"w{i}": torch.randn(50, 20).half().float() for i in range(9)}
    prefix = str(tmp_path / "carry")
    paths = checkpoints.write_shards(prefix, weights, {"stage": "a", "vocabulary": b"\x00\x01"}, limit=5000)
    assert len(paths) == 5
    back, about = checkpoints.read_shards(prefix)
    assert about == {"stage": "a", "vocabulary": b"\x00\x01"}
    assert all(torch.equal(back[k], v) for k, v in weights.items())
    assert len(checkpoints.write_shards(prefix, weights, {})) == 1
    assert len(list(tmp_path.glob("carry-*.pt"))) == 1


def test_every_object_owns_a_patch_and_heads_learn(maker, world):
    torch = pytest.importorskip("torch", reason="the heads are torch modules")
    from wide import heads

    torch.manual_seed(0)
    owner = torch.zeros(1, 32, 32, dtype=torch.uint8)
    owner[0, 1:15, 1:15] = 1
    owner[0, 20, 20] = 2  # a speck still owns a patch
    patches = heads.patch_owner(owner, 4)
    assert patches.shape == (1, 16)
    assert (patches == 1).sum() == 4 and (patches == 2).sum() == 1
    model = heads.DenseHeads(32, len(batches.classes_of(world)))
    batch = {k: torch.as_tensor(v) for k, v in maker.labels(maker.scenes(0)).items()}
    features = torch.nn.functional.normalize(torch.randn(6, 17, 32), dim=-1)
    patches = torch.stack([torch.arange(16) % (int(n) + 1) for n in batch["count"]])
    optimiser = torch.optim.Adam(model.parameters(), 0.05)
    losses = []
    for _ in range(30):
        loss, _ = model.loss(features, patches, batch)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    assert set(heads.read_out(model, features, patches, batch)) == {"named", "color", "iou", "count", "kind"}


def test_heads_of_a_latent_look_at_its_own_cell():
    pytest.importorskip("torch", reason="steps are torch code")
    from wide import steps

    same = steps.cell_patches({"latents": 64, "heads": 4, "image": 128, "patch": 16})
    assert (same == same[:, :1]).all() and same[:, 0].tolist() == list(range(64))
    four = steps.cell_patches({"latents": 64, "heads": 4, "image": 224, "patch": 14})
    assert sorted(four.flatten().tolist()) == list(range(256))
    between = steps.cell_patches({"latents": 64, "heads": 4, "image": 192, "patch": 16})
    assert len(set(between.flatten().tolist())) == 144


def test_scene_arrays_have_fixed_shapes(maker, world):
    a = spec.arrays(maker.scenes(0), world, 64)
    assert a["where"].shape == (6, 1 + spec.MAX_LAYERS, 2) and a["where"].dtype == np.int32
    assert a["params"].shape == (6, 1 + spec.MAX_LAYERS, spec.ROW - 2)
