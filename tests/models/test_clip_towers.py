"""CLIP: vectors of images and texts against a definition in NumPy, similarity, and what such a model refuses."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from helpers import capi
from helpers.capi import CError, lib, make
from helpers.tiny import make_picture, write_tiny
from PIL import Image

import kosmos_edge
from kosmos_edge import _core, cli
from kosmos_edge.convert import convert, requantize, verify
from kosmos_edge.errors import ContextTooLong, InvalidRequest, ModelCorrupt
from kosmos_edge.inference.similarity import COMPARES_NOT
from models.clip_towers import LOGIT_SCALE, NUMBERS, VISION, WORDS_BPE, Towers, write_clip
from models.description import described, every

OF = every()["clip_towers"]
TEXTS = ["a cat", "A photo of a dog, in the SNOW!", "two men's tree", ""]
ONLY_COMPARES = "this model compares images and texts"


@pytest.fixture(scope="module", params=[5, 11], ids="seed {}".format)
def tiny(request: pytest.FixtureRequest):
    return OF.make(request.param)


@pytest.fixture(scope="module")
def path(tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("clip") / "clip.gguf"
    write_tiny(file, tiny=tiny)
    return file


@pytest.fixture(scope="module")
def model(path: Path) -> kosmos_edge.Model:
    return kosmos_edge.load(path, threads=1)


def pictures() -> list[np.ndarray]:
    """Wide, tall, square, and tiny ones."""
    sizes = [(100, 80), (60, 130), (56, 56), (9, 5)]
    return [make_picture(seed, *size) for seed, size in enumerate(sizes)]


def ids_of(text: str) -> list[int]:
    """With what begins and ends a text; words as the vocabulary was made, so that they need no merges here."""
    tokens = _core.Tokenizer.byte_bpe(WORDS_BPE.pieces, WORDS_BPE.types, WORDS_BPE.merges, "clip").encode(text)
    return [WORDS_BPE.begin, *tokens[:75], WORDS_BPE.end]


def rows(view: memoryview) -> np.ndarray:
    return np.asarray(view)


def test_vectors_are_those_of_the_definition(tiny, model: kosmos_edge.Model) -> None:
    towers = Towers(tiny.metadata, tiny.weights)
    found = rows(model.embed_image(pictures()))
    assert found.dtype == np.float32 and found.shape == (4, VISION["projection_dim"])
    np.testing.assert_allclose(found, [towers.encode_image(p) for p in pictures()], atol=2e-5)
    texts = [text for text in TEXTS if text]
    words = rows(model.embed_text(texts))
    assert words.shape == (3, VISION["projection_dim"])
    np.testing.assert_allclose(words, [towers.encode_text(ids_of(text)) for text in texts], atol=2e-5)
    np.testing.assert_allclose((words**2).sum(1), 1, atol=1e-6)
    assert np.abs(words[0] - words[1]).max() > 0.01 and np.abs(found[0] - found[1]).max() > 0.01


def test_similarity_is_the_cosine_and_its_softmax(model: kosmos_edge.Model) -> None:
    texts = TEXTS[:3]
    answer = model.similarity(pictures(), texts)
    expected = rows(model.embed_image(pictures())).astype(float) @ rows(model.embed_text(texts)).astype(float).T
    np.testing.assert_allclose(answer.cosines, expected, atol=1e-6)
    scores = np.exp(np.exp(LOGIT_SCALE) * expected)
    np.testing.assert_allclose(answer.probabilities, scores / scores.sum(1, keepdims=True), rtol=1e-5)
    assert answer.best(1) == texts[int(expected[1].argmax())] and answer.texts == tuple(texts)
    one = model.similarity(pictures()[0], texts[0])
    assert np.shape(one.cosines) == (1, 1) and one.probabilities == [[1.0]]
    assert one.cosines[0][0] == answer.cosines[0][0]
    kept = model.encode(pictures()[1])
    assert kept.shape == (1, VISION["projection_dim"])
    assert model.similarity(kept, texts).cosines[0] == answer.cosines[1]
    assert json.loads(json.dumps(answer.to_dict()))["images"][0]["cosines"] == answer.cosines[0]


def test_texts_are_computed_once_for_images_that_come_one_by_one(
    path: Path, model: kosmos_edge.Model, album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []
    texts_of = type(model)._texts
    monkeypatch.setattr(type(model), "_texts", lambda self, *a: computed.append(1) or texts_of(self, *a))
    compare = model.similarity_to(TEXTS[:3])
    found = [compare(picture) for picture in pictures()]
    assert len(computed) == 1
    whole = model.similarity(pictures(), TEXTS[:3])
    assert [row for one in found for row in one.cosines] == whole.cosines and found[0].texts == whole.texts
    with pytest.raises(kosmos_edge.InvalidRequest, match=r"texts\[1\]: expected some text"):
        model.similarity_to(["a", ""])
    computed.clear()
    assert cli.run(["similarity", str(album), *TEXTS[:3], "-m", str(path), "-q"]) == 0
    assert len(computed) == 1


def test_many_texts_together_have_the_bits_of_each_alone(model: kosmos_edge.Model) -> None:
    texts = [f"{word} {n} the cat" * (n % 5 + 1) for n in range(40) for word in ("a", "snow")]  # more than one pass
    together = rows(model.embed_text(texts))
    for n in (0, 1, 37, 79):
        assert (rows(model.embed_text(texts[n]))[0] == together[n]).all()


def test_long_texts_are_refused_or_cut(tiny, model: kosmos_edge.Model) -> None:
    exactly, long = "cat " * 75, "cat " * 75 + "dog"
    assert rows(model.embed_text(exactly)).shape[0] == 1
    with pytest.raises(ContextTooLong, match="text 1 has 76 tokens, the model has room for 75"):
        model.similarity(pictures()[0], ["a", long])
    assert (rows(model.embed_text(long, truncate=True)) == rows(model.embed_text(exactly))).all()
    answer = model.similarity(pictures()[0], ["a", long, long], truncate=True)
    assert answer.notes == ["2 of 3 texts were cut to the model's 77 tokens"]
    np.testing.assert_allclose(
        rows(model.embed_text(long, truncate=True))[0],
        Towers(tiny.metadata, tiny.weights).encode_text(ids_of(long)),
        atol=2e-5,
    )


def test_control_strings_in_a_text_are_plain(model: kosmos_edge.Model) -> None:
    """Else a text could end itself: what follows would not count."""
    a, b = rows(model.embed_text(["a cat<|endoftext|>dog", "a cat<|endoftext|>tree"]))
    assert np.abs(a - b).max() > 1e-3


@pytest.mark.parametrize(
    "ask",
    [
        lambda m: m.caption(pictures()[0]),
        lambda m: m.caption(pictures()[0], template="A picture of"),
        lambda m: m.ask(pictures()[0], "what?"),
        lambda m: m.ground(pictures()[0], "a"),
        lambda m: m.locate(pictures()[0], "a"),
        lambda m: m.describe(pictures()[0], (0, 0, 1, 1)),
        lambda m: m.read(pictures()[0]),
        lambda m: m.generate([pictures()[0], "a"]),
        lambda m: m.score(pictures()[0], ["a"]),
        lambda m: m.score(pictures()[0], ["a"], template="{text}"),
        lambda m: m.score_segments(["a"], ["b"]),
        lambda m: m.classify(pictures()[0], ["a", "b"]),
        lambda m: m.chat().ask("what?"),
        lambda m: list(m.batch([pictures()[0]], "caption", on_error="raise")),
        lambda m: m._open.engine.prompt_ids([("text", "a")]),
        lambda m: m._open.engine.logits([("text", "a")]),
        lambda m: m._open.engine.given_rows(b"\0" * 4, 1),
    ],
)
def test_it_writes_and_scores_nothing(model: kosmos_edge.Model, ask) -> None:
    with pytest.raises(InvalidRequest, match=ONLY_COMPARES):
        ask(model)


def test_the_c_library_refuses_verbs(path: Path) -> None:
    handle = capi.load(path, threads=1)
    picture = capi.encode(handle, pictures()[0])
    with pytest.raises(CError, match=ONLY_COMPARES):
        make("caption", handle, picture, None)
    lib().kosmos_image_free(picture)
    lib().kosmos_model_free(handle)


def test_a_model_that_writes_does_not_compare(tmp_path: Path) -> None:
    file = tmp_path / "llava.gguf"
    write_tiny(file, tiny=described()["llava"].tiny)
    other = kosmos_edge.load(file, threads=1)
    for ask in (
        lambda: other.similarity(pictures()[0], ["a"]),
        lambda: other.embed_image(pictures()[0]),
        lambda: other.embed_text("a"),
        lambda: other._open.engine.embed_texts(["a"]),
    ):
        with pytest.raises(InvalidRequest, match="this model writes text and has no vectors"):
            ask()


def test_wrong_arguments_are_named(model: kosmos_edge.Model) -> None:
    for ask, message in (
        (lambda: model.similarity([], ["a"]), "images: expected at least one"),
        (lambda: model.similarity(pictures()[0], []), r"texts: expected 1\.\.10000 texts, got 0"),
        (lambda: model.similarity(pictures()[0], ["a", " "]), r"texts\[1\]: expected some text"),
        (lambda: model.embed_text("a", truncate=1), "truncate: expected True or False"),
        (lambda: model.embed_text(["\ud800"]), r"texts\[0\]: not valid Unicode"),
    ):
        with pytest.raises(InvalidRequest, match=message):
            ask()


def test_what_it_says_of_itself(path: Path, model: kosmos_edge.Model) -> None:
    info = model.model_info
    assert info == _core.model_info(str(path))
    assert info["tasks"] == ["similarity"] and info["embedding"] == 128 and info["context"] == 77
    assert info["similarity_scale"] == pytest.approx(np.exp(LOGIT_SCALE), rel=1e-6)
    assert info["preprocessing"] == "shorter side resized to 56, then the middle 56 x 56 cut out"


def test_begin_and_end_are_two_tokens(tiny, tmp_path: Path) -> None:
    file = tmp_path / "same.gguf"
    metadata = tiny.metadata | {"tokenizer.ggml.bos_token_id": ("u32", WORDS_BPE.end)}
    write_tiny(file, tiny=dataclasses.replace(tiny, metadata=metadata))
    with pytest.raises(ModelCorrupt, match="expected two tokens"):
        _core.model_info(str(file))


def test_in_a_worker_process(path: Path, model: kosmos_edge.Model) -> None:
    with kosmos_edge.load(path, threads=1, isolation="process") as worker:
        assert worker.similarity(pictures(), TEXTS[:3]).cosines == model.similarity(pictures(), TEXTS[:3]).cosines
        assert worker.embed_text(TEXTS[0]) == model.embed_text(TEXTS[0])
        with pytest.raises(InvalidRequest, match=ONLY_COMPARES):
            worker.caption(pictures()[0])
        with pytest.raises(ContextTooLong, match="text 0 has 76 tokens"):
            worker.embed_text("cat " * 76)


def test_a_call_can_be_cancelled(model: kosmos_edge.Model) -> None:
    token = _core.CancelToken()
    token.cancel()
    for ask in (
        lambda: model.similarity(pictures()[0], ["a"], cancel=token),
        lambda: model.embed_text("a", cancel=token),
        lambda: model.embed_image(pictures()[0], cancel=token),
    ):
        with pytest.raises(kosmos_edge.Cancelled):
            ask()


# ---- the converter


def test_a_checkpoint_becomes_the_file_and_other_types(tiny, tmp_path: Path) -> None:
    folder = write_clip(tmp_path / "hf", tiny.weights, NUMBERS, VISION, WORDS_BPE)
    made = convert(folder, tmp_path / "f32.gguf", type="f32").output
    file = _core.GgufFile(str(made))
    metadata = file.metadata()
    for key, (_, value) in tiny.metadata.items():
        if key not in ("general.name", "general.alignment"):
            floats = isinstance(value, float) or (isinstance(value, list) and isinstance(value[0], float))
            assert metadata[key] == (pytest.approx(value) if floats else value), key
    assert {name: file.tensor_data(name) for name, *_ in file.tensors()} == {
        name: array.tobytes() for name, array in tiny.weights.items()
    }
    slow = write_clip(tmp_path / "slow", tiny.weights, NUMBERS, VISION, WORDS_BPE, fast=False)
    assert (
        _core.GgufFile(str(convert(slow, tmp_path / "slow.gguf", type="f32").output)).metadata()[
            "tokenizer.ggml.merges"
        ]
        == WORDS_BPE.merges
    )
    with kosmos_edge.load(made, threads=1) as exact:
        expected = np.array(exact.similarity(pictures(), TEXTS[:3]).cosines)
    for name, output in (
        ("q8", requantize(made, tmp_path / "q8.gguf", type="q8_0").output),
        ("q4", convert(folder, tmp_path / "q4.gguf", type="q4_k_m").output),
    ):
        assert verify(output) == []
        with kosmos_edge.load(output, threads=1) as small:
            found = np.array(small.similarity(pictures(), TEXTS[:3]).cosines)
        assert np.abs(found - expected).max() < (0.05 if name == "q8" else 0.15)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ({"eos_token_id": 5}, r"text_config\.eos_token_id is 5, the vocabulary's eos_token is \d+"),
        ({"hidden_act": "gelu"}, r"text_config\.hidden_act is 'gelu', expected 'quick_gelu'"),
        ({"num_attention_heads": 3}, r"text_config\.hidden_size is 256, expected a multiple of 3 heads"),
        ({"vocab_size": 100}, "tokens, the embedding has 100 rows"),
    ],
)
def test_checkpoints_that_are_refused(tmp_path: Path, text: dict, message: str) -> None:
    folder = write_clip(tmp_path / "hf", OF.tiny.weights, NUMBERS, VISION, WORDS_BPE, **text)
    with pytest.raises(ModelCorrupt, match=message):
        convert(folder, tmp_path / "a.gguf", type="f32")


def test_where_a_text_ends(tmp_path: Path) -> None:
    """Old files say eos_token_id 2: the highest id of a text is its end. A token above it would be taken instead."""
    folder = write_clip(tmp_path / "old", OF.tiny.weights, NUMBERS, VISION, WORDS_BPE, eos_token_id=2)
    assert convert(folder, tmp_path / "a.gguf", type="f32").output.exists()
    root = json.loads((folder / "tokenizer.json").read_text())
    root["added_tokens"].append({"id": WORDS_BPE.end + 1, "content": "<new>", "special": True})
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["vocab_size"] += 1
    (folder / "tokenizer.json").write_text(json.dumps(root))
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelCorrupt, match="the highest id of a text is its end; the vocabulary has tokens above"):
        convert(folder, tmp_path / "b.gguf", type="f32")


def test_other_tokenizers_are_refused(tmp_path: Path) -> None:
    for number, (change, message) in enumerate((
        (lambda root: root.update(normalizer=None), "normalizer is None; expected a sequence of NFC, Replace, Lower"),
        (lambda root: root["model"].update(end_of_word_suffix=""), "end_of_word_suffix is ''; only </w>"),
        (lambda root: root["pre_tokenizer"]["pretokenizers"][0].update(invert=False), "pre_tokenizer cuts by"),
        (lambda root: root["model"]["vocab"].pop("a</w>"), "no normal piece is the byte 97 and </w>|names a piece"),
    )):  # fmt: skip
        folder = write_clip(tmp_path / str(number), OF.tiny.weights, NUMBERS, VISION, WORDS_BPE)
        root = json.loads((folder / "tokenizer.json").read_text())
        change(root)
        (folder / "tokenizer.json").write_text(json.dumps(root))
        with pytest.raises(ModelCorrupt, match=message):
            convert(folder, tmp_path / "a.gguf", type="f32")


# ---- the command


@pytest.fixture
def album(tmp_path: Path) -> Path:
    folder = tmp_path / "album"
    folder.mkdir()
    for number, picture in enumerate(pictures()[:2]):
        Image.fromarray(picture).save(folder / f"{number}.png")
    return folder


def test_the_command(path: Path, model: kosmos_edge.Model, album: Path, tmp_path: Path, capsys) -> None:
    photo, texts = album / "0.png", ["a cat", "a dog"]
    assert cli.run(["similarity", str(photo), *texts, "-m", str(path)]) == 0
    expected = model.similarity(photo, texts)
    order = sorted(range(2), key=lambda n: -expected.cosines[0][n])
    lines = [f"{expected.cosines[0][n]:.4f}\t{expected.probabilities[0][n]:.4f}\t{texts[n]}" for n in order]
    assert capsys.readouterr().out.splitlines() == lines
    listed = tmp_path / "texts.txt"
    listed.write_text("a cat\n\na dog\n")
    assert cli.run(["similarity", str(album), "--texts", str(listed), "-m", str(path), "-f", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["texts"] == texts and [row["source"] for row in found["images"]] == [
        str(album / "0.png"), str(album / "1.png")
    ]  # fmt: skip
    assert found["images"][0]["cosines"] == expected.cosines[0]
    (album / "2.png").write_bytes(b"no picture")
    assert cli.run(["similarity", str(album), "a", "-m", str(path)]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2 and out.startswith(f"{album / '0.png'}\t") and "2.png" in err


def test_the_command_says_what_is_missing(path: Path, album: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    photo = str(album / "0.png")
    assert cli.run(["similarity", photo, "-m", str(path)]) == 2
    assert "no texts" in capsys.readouterr().err
    assert cli.run(["similarity", photo, "a", "-m", "nano"]) == 2
    assert "this model writes text and has no vectors" in capsys.readouterr().err
    assert cli.run(["similarity", photo, "cat " * 80, "-m", str(path)]) == 1
    assert "text 0 has 80 tokens" in capsys.readouterr().err
    assert cli.run(["similarity", photo, "cat " * 80, "--truncate", "-m", str(path), "-v"]) == 0
    assert "1 of 1 texts were cut" in capsys.readouterr().err
    monkeypatch.setenv("KOSMOS_EDGE_CACHE", str(tmp_path / "empty"))
    monkeypatch.delenv("KOSMOS_EDGE_MODEL", raising=False)
    assert cli.run(["similarity", photo, "a"]) == 1
    assert "`kosmos-edge models pull clip-vit-large-patch14` gets one" in capsys.readouterr().err
    assert cli.run(["caption", photo, "-m", str(path)]) != 0
    assert ONLY_COMPARES in capsys.readouterr().err


def test_the_engine_and_the_verbs_say_the_same_of_a_model_that_writes() -> None:
    with kosmos_edge.load("nano", threads=1) as nano, pytest.raises(InvalidRequest) as found:
        nano._open.engine.embed_texts(["a cat"])
    assert str(found.value) == COMPARES_NOT
