"""The variant of nano that learns in context: its tokens are the runtime's, it trains, and its file runs."""

import json
import math
from itertools import islice, product
from pathlib import Path

import numpy as np
import pytest
from helpers import nano_toy  # noqa: F401  # the recipe's folder is on the path from here on

torch = pytest.importorskip("torch", reason="nano is trained with torch")
pytest.importorskip("sentencepiece", reason="the vocabulary is trained with sentencepiece")

import export  # noqa: E402
from data import normalise  # noqa: E402
from incontext import bank, sequence, train, words  # noqa: E402
from incontext.pictures import kind_of, paint, singles  # noqa: E402
from model import Resampler  # noqa: E402
from world import squash  # noqa: E402

import kosmos_edge  # noqa: E402
from kosmos_edge import _core, convert  # noqa: E402
from kosmos_edge.convert.models import kosmos2  # noqa: E402
from kosmos_edge.inference.ability_plans import plan_classify  # noqa: E402

ABOUT = Path(train.__file__).parent / "about.json"
SMALL = {"dim": 64, "heads": 2, "ffn": 128, "latents": 2, "text_layers": 2}  # not one latent, as the recipe has
SHOWN = ("pozil", "kezut", "pozil", "vegof")  # words of three shots and of what is asked about


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    return train.vocabulary_of(str(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def model(vocabulary):
    torch.manual_seed(0)
    return train.fresh_model(vocabulary, decoder=SMALL).eval()


@pytest.fixture(scope="module")
def runtime(model, vocabulary, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    export.write(str(folder / "hf"), model, vocabulary)
    (folder / "hf" / "kosmos_edge.json").write_text(ABOUT.read_text())
    convert.convert(folder / "hf", folder / "small.gguf", type="f32")
    with kosmos_edge.load(folder / "small.gguf", threads=1) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def scenes():
    return list(islice(singles(920_000_000), len(SHOWN)))


def test_the_vit_is_the_packaged_nanos(scenes):
    """Read out of its GGUF file: with the file's resampler its rows are those of the runtime"""
    config, weights = bank.read_tower()
    with kosmos_edge.load("nano", threads=1) as nano:
        file = _core.GgufFile(str(nano.path))
        stored = {name: (dtype, shape) for name, dtype, shape, *_ in file.tensors()}
        given = {}
        for source, name, _ in kosmos2.tensor_table(kosmos2.Config()):
            if source.startswith("image_to_text_projection."):
                dtype, shape = stored[name]
                floats = _core.dequantize(dtype, file.tensor_data(name), math.prod(shape))
                values = torch.from_numpy(np.frombuffer(floats, np.float32).reshape(shape).copy())
                given[source.removeprefix("image_to_text_projection.")] = values
        resampler = Resampler({**config, "dim": 256, "heads": 4, "ffn": 1024, "latents": 64})
        resampler.load_state_dict(given)
        for scene in scenes[:2]:
            image = paint(scene)
            theirs = np.frombuffer(nano.encode(image).tobytes(), np.float32).reshape(64, 256)
            with torch.no_grad():
                pixels = normalise(np.array(squash(image, config["image"]))[None])
                ours = resampler(bank.tower(config, weights)(pixels))[0].numpy()
            assert np.abs(ours - theirs).max() < 0.05 * np.abs(theirs).max()
            assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.999


def test_training_has_the_tokens_of_the_runtimes_few_shot_prompt(model, vocabulary, runtime, scenes):
    images = [runtime.encode(paint(scene)) for scene in scenes]
    shots = list(zip(images[:-1], SHOWN, strict=False))
    plan = plan_classify(runtime._info, images[-1], SHOWN[:2], None, words.PROMPT, None, None, shots)
    given = [("image", s.source.embedding) if not isinstance(s, tuple) else s for s in plan.segments]
    theirs = images[0].engine.prompt_ids(given)
    made = sequence.Sequence(vocabulary, SMALL["latents"])
    named = np.array([[words.WORDS.index(word) for word in SHOWN]])
    ours = made.ids(named)[0].tolist()
    assert made.stride == 2 + SMALL["latents"] + 2 and len(ours) == 1 + 4 * made.stride
    slots = set(made.slots(len(SHOWN)).tolist())
    assert [t for i, t in enumerate(theirs) if i not in slots] == [t for i, t in enumerate(ours[:-1]) if i not in slots]
    assert len(theirs) == len(ours) - 1 == made.asking(len(SHOWN))[-1] + 1


def test_the_runtime_says_what_training_computes(model, vocabulary, runtime, scenes):
    """Positions, masks and rows of several pictures: log-probabilities of the labels behind 0 to 3 shots"""
    made = sequence.Sequence(vocabulary, SMALL["latents"])
    named = np.array([[words.WORDS.index(word) for word in SHOWN]])
    with torch.no_grad():
        pixels = normalise(np.stack([np.asarray(squash(paint(s), model.config["image"])) for s in scenes]))
        rows = model.image_tokens(model.features(pixels))[None]
        said = model.logits(made.hidden(model, rows, made.ids(named))[0, made.asking(len(SHOWN))]).log_softmax(-1)
    images = [runtime.encode(paint(scene)) for scene in scenes]
    labels = ("kezut", "pozil", "vegof")
    for k in range(len(SHOWN)):
        shots = list(zip(images[:k], SHOWN, strict=False))
        ranking = runtime.classify(images[k], labels, prompt=words.PROMPT, examples=shots).ranking
        theirs = {row.text: row.logprob_sum for row in ranking}
        for label in labels:
            expected = said[k, made.words[words.WORDS.index(label)]].item()
            assert theirs[label] == pytest.approx(expected, abs=2e-2), (k, label)


def test_the_first_layer_looks_at_the_picture_that_was_just_shown(model, vocabulary):
    """Before any training"""
    made = sequence.Sequence(vocabulary, SMALL["latents"])
    rows = torch.randn(1, 3, 2, SMALL["dim"]) * SMALL["dim"] ** -0.5
    rows[..., train.reserved(SMALL)[0]] = 0
    text, seen = model.text_model.model, []
    layer = text.layers[0].self_attn
    hook = layer.register_forward_hook(lambda m, given, out: seen.append(given))
    with torch.no_grad():
        made.hidden(model, rows, made.ids(np.array([[1, 2, 3]])))
    hook.remove()
    query, memory, mask = seen[0]
    q, k = (p(x)[0].unflatten(-1, (2, -1)).transpose(0, 1) for p, x in ((layer.q_proj, query), (layer.k_proj, memory)))
    weights = (q @ k.mT * q.shape[-1] ** -0.5 + mask).softmax(-1).mean(0)
    for n in range(3):
        slots = [1 + n * made.stride + 1, 1 + n * made.stride + 2]
        for place in (slots[1] + 2, slots[1] + 3):  # the prompt's word and the label
            assert weights[place, slots].sum() > 0.5


def test_the_start_looks_up_but_must_learn_what_counts(vocabulary):
    """Kinds that are alike in nothing are told apart before any training; not so what a word means of a kind"""
    torch.manual_seed(3)
    made = sequence.Sequence(vocabulary, 1)
    fresh = train.fresh_model(vocabulary).eval()
    dim = fresh.config["dim"]
    kinds = list(product(range(12), range(10)))
    rows = torch.randn(len(kinds), 1, dim)
    places, flag = train.reserved(fresh.config)
    rows[..., [*places, flag]] = 0
    rows *= dim**-0.5 / rows.pow(2).mean().sqrt()
    trainer = train.Trainer(fresh, vocabulary)
    assert trainer.sequence.stride == made.stride == 5
    found = train.look(trainer, rows, {kind: [n] for n, kind in enumerate(kinds)}, count=100)
    assert found["kind"][-1] > 0.6 and 0.35 < found["kind"][0] < 0.65
    assert max(found["shape"][-1], found["color"][-1]) < 0.75  # rows that do not tell what kinds have in common


def test_thirty_steps_lower_the_loss_and_leave_the_labels_alone(model, vocabulary):
    rng = np.random.default_rng(0)
    kinds = [(s, c) for s in range(12) for c in range(10) for _ in range(2)]
    by_kind = {kind: [2 * n, 2 * n + 1] for n, kind in enumerate(dict.fromkeys(kinds))}
    rows = torch.from_numpy(rng.normal(0, 0.1, (len(kinds), 2, SMALL["dim"])).astype(np.float32))
    small = train.fresh_model(vocabulary, decoder=SMALL)
    trainer = train.Trainer(small, vocabulary)
    before = {name: t.clone() for name, t in small.state_dict().items()}
    seen = []
    for step in range(30):
        pictures, named = train.batch_at(step, 16, by_kind, seed=1)
        each, end = trainer.train(rows[torch.from_numpy(pictures)], named, 1.0)
        seen.append(each[4:].mean().item())
    assert np.mean(seen[-5:]) < np.mean(seen[:5]) - 0.5 and math.isfinite(end)
    after = small.state_dict()
    labels = trainer.labels
    assert torch.equal(
        after["text_model.model.embed_tokens.weight"][labels], before["text_model.model.embed_tokens.weight"][labels]
    )
    moved = {name for name, t in after.items() if not torch.equal(t, before[name])}
    assert moved and all(name.startswith("text_model.") for name in moved)
    resumed = train.Trainer(train.fresh_model(vocabulary, decoder=SMALL), vocabulary)
    resumed.resume(trainer.state())
    assert resumed.step == 30
    pictures, named = train.batch_at(30, 16, by_kind, seed=1)
    again = [t.train(rows[torch.from_numpy(pictures)], named, 1.0)[0] for t in (trainer, resumed)]
    assert torch.equal(*again)


def test_rows_learn_to_name_what_the_features_tell(vocabulary):
    """Features with shape and colour in every second place; the rows end with the length of embeddings"""
    rng = np.random.default_rng(1)
    kinds = np.stack([rng.integers(0, 12, 600), rng.integers(0, 10, 600)], 1)
    codes = rng.normal(size=(2, 12, 256))
    features = rng.normal(0, 0.02, (600, 65, 256))
    features[:, ::2] += codes[0, kinds[:, 0]][:, None]
    features[:, 1::2] += codes[1, kinds[:, 1]][:, None]
    features = (features / np.linalg.norm(features, axis=-1, keepdims=True)).astype(np.float16)
    small = train.fresh_model(vocabulary, decoder=SMALL)
    told = []
    named = train.train_rows(small, features, kinds, 40, batch=64, log=lambda **row: told.append(row))
    assert told[-1]["loss"] < told[0]["loss"] - 0.5 and named.shape == (2,)
    rows = train.rows_of(small, features[:50])
    assert rows.shape == (50, 2, SMALL["dim"])
    assert rows.pow(2).mean().sqrt().item() == pytest.approx(SMALL["dim"] ** -0.5, rel=0.1)


def test_a_bank_has_the_features_of_its_scenes(tmp_path):
    bank.build(str(tmp_path), 5, seed=910_000_000, batch=3)
    made = bank.Bank(str(tmp_path))
    scenes = list(islice(singles(910_000_000), 5))
    assert json.loads((tmp_path / "seeds.json").read_text()) == [scene.seed for scene in scenes]
    assert [tuple(kind) for kind in made.kinds] == [kind_of(scene) for scene in scenes]
    with torch.no_grad():
        pixels = normalise(np.array(squash(paint(scenes[4]), 128))[None])
        expected = bank.tower(*bank.read_tower())(pixels)[0].numpy()
    assert np.abs(made.features[4] - expected).max() < 1e-3
    assert made.by_kind[kind_of(scenes[4])][-1] == 4


def test_the_stages_go_on_from_each_other(tmp_path, monkeypatch):
    """All commands in small, on features drawn at random for every kind"""
    monkeypatch.setattr(train, "DECODER", SMALL)
    rng = np.random.default_rng(2)
    kinds = np.array([*product(range(12), range(10))] * 2)
    for name in ("bank", "valid"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "kinds.npy", kinds)
        np.save(tmp_path / name / "features.npy", rng.normal(0, 0.06, (len(kinds), 65, 256)).astype(np.float16))

    def run(*arguments):
        a = train.parser().parse_args([*arguments, "--run", str(tmp_path)])
        train.STAGES[a.stage](a, train.Log(str(tmp_path / "log.jsonl")))

    run("rows", "--steps", "2")
    for steps in ("2", "3"):
        run("episodes", "--steps", steps, "--batch", "3", "--every", "1", "--look", "2")
    run("export", "--out", str(tmp_path / "hf"))
    told = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in told if row["stage"] == "episodes"] == [1, 2, 3]
    assert [row["step"] for row in told if row["stage"] == "look"] == [0, 2, 3]
    assert all(len(row[rule]) == 5 for row in told if row["stage"] == "look" for rule in ("shape", "color", "kind"))
    read_back, _ = export.read(str(tmp_path / "hf"))
    kept = train.load(str(tmp_path / "episodes.pt"))["model"]
    assert all(torch.equal(t, kept[name]) for name, t in read_back.state_dict().items())
