"""KOSMOS-2.5: what the suite over all models does not ask, and where each of its traps is held.

Pictures are whitened over all channels before they are resized, small ones are enlarged, patches are ordered by row,
column and channel, ids of rows and columns begin at 1: `whitened_grid` in tests/models/kosmos2_5.py, here for every
aspect, and against transformers' processor in tests/parity/test_parity_page.py. The encoder does not look at padding,
the resampler does, with its weight: here, at every amount of padding. Attention of the encoder is scaled, the gate is
the third GELU of the family, the encoder's norms have no mean and another epsilon, rows have unit length, keys are the
picture's and then the latents', image rows are scaled as tokens are, positions (from 2, sines before cosines) and
segments are added unscaled, no norm stands behind the decoder's attention but one in its feed-forward part: the
definition in tests/models/kosmos2_5.py has each of these, and test_answers.py holds all positions to it.

Heads of 96 values, answers beyond position 2,100, the rule against repeats, which sees the placeholders:
tests/parity/test_parity_kosmos2_5.py. The head that is the embedding or absent, names of tensors, the rule that files
do not take over from the checkpoint, six bits for the embedding: tests/convert/test_convert_kosmos2_5.py. Positions of
each sequence of a batch, quantized files, streams, workers: the suite. The opening of pictures (alpha, EXIF) is the
same for all models: tests/api.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import sweep
from helpers.cuda_emulated import use_cuda
from helpers.golden_cases import relative_error
from helpers.tiny import make_picture, make_weight, write_tiny

import kosmos_edge
from kosmos_edge import _core
from kosmos_edge.errors import InvalidRequest, ModelCorrupt
from models.description import described
from models.kosmos2_5 import CHAT, NUMBERS, VOCABULARY, Kosmos2_5Reference

OF = described()["kosmos2_5"]
MOST, ROWS = NUMBERS["vision.max_patches"], NUMBERS["image_token_count"]
PATCH = 4


def write(path: Path, **changes: Any) -> Path:
    """The tiny model with other metadata: keys behind "kosmos2_5.", or whole ones; dots as __; None: without it."""
    metadata = dict(OF.tiny.metadata)
    for key, entry in changes.items():
        name = key.replace("__", ".")
        name = name if name.startswith("tokenizer.") else f"kosmos2_5.{name}"
        metadata[name] = entry
        if entry is None:
            del metadata[name]
    write_tiny(path, tiny=dataclasses.replace(OF.tiny, metadata=metadata))
    return path


def encode(engine: _core.Engine, picture: np.ndarray) -> _core.ImageEmbedding:
    height, width, _ = picture.shape
    return engine.encode_image(picture.tobytes(), width, height)


def values(embedding: _core.ImageEmbedding) -> np.ndarray:
    return np.frombuffer(embedding.tobytes(), np.float32).reshape(embedding.shape)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> kosmos_edge.Model:
    path = write(tmp_path_factory.mktemp("kosmos2_5") / "tiny.gguf")
    return kosmos_edge.load(path, threads=1)


# ---- pictures


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((240, 20), (1, 16)),
        ((100, 50), (3, 6)),
        ((1, 1), (4, 4)),  # enlarged, and of one color
        ((37, 41), (5, 4)),
        ((50, 100), (6, 3)),
        ((20, 240), (16, 1)),
        ((24, 16), (4, 6)),  # no padding; not resized
        ((8, 12), (6, 4)),  # no padding; enlarged
    ],
)
def test_pictures_of_every_aspect(model: kosmos_edge.Model, size: tuple[int, int], grid: tuple[int, int]) -> None:
    picture = make_picture(3, *size)
    rows, columns, _ = _core.testing.patch_grid(picture.tobytes(), *size, PATCH, MOST)
    assert (rows, columns) == grid
    got, want = values(encode(model._open.engine, picture)), OF.definition.encode_image(picture)
    assert got.shape == (ROWS, NUMBERS["embedding_length"]) and relative_error(got, want) < 1e-4


def test_the_weight_of_the_padding_matters() -> None:
    """To leave it out would show: the test above is not blind."""
    picture = make_picture(3, 240, 20)  # 8 rows of padding, a third
    whole = OF.definition.encode_image(picture)
    seen = OF.definition.resample(OF.definition.vision_rows(picture)[:16])
    one = OF.definition.resample(OF.definition.vision_rows(picture)[:17])
    assert relative_error(seen, whole) > 1e-3 and relative_error(one, whole) > 1e-3


def test_a_picture_that_is_too_long_is_refused(model: kosmos_edge.Model) -> None:
    """A side of so many patches would need a row that the published tables do not have."""
    for size in [(4 * MOST * MOST, 4), (4, 4 * MOST * MOST)]:
        with pytest.raises(InvalidRequest, match=rf"at most {MOST - 1} patches, and it has {MOST}"):
            encode(model._open.engine, np.zeros((size[1], size[0], 3), np.uint8))


# ---- prompts


def test_the_ids_of_a_prompt(model: kosmos_edge.Model) -> None:
    """A row's placeholder is <s>, which begins the prompt, too; text beside a tag is encoded as it is."""
    engine, tag = model._open.engine, VOCABULARY.id
    image = encode(engine, make_picture(1, 60, 60))
    ids = engine.prompt_ids([("image", image), ("tags", "<ocr>")])
    assert ids == [0, tag("<image>"), *[0] * ROWS, tag("</image>"), tag("<ocr>")]
    joined = engine.prompt_ids([("image", image), ("tags", "<md>"), ("text", "Total")])
    spelled = engine.prompt_ids([("text", "Total")])[1:]
    assert joined == [*ids[:-1], tag("<md>"), *spelled]
    assert engine.prompt_ids([("text", " Total")])[1:] == [tag("ĠTotal")] != spelled


def test_segments_are_those_of_images_alone(model: kosmos_edge.Model, tmp_path: Path) -> None:
    """The tags beside an image belong to it, in each of several images; the words between do not."""
    engine = model._open.engine
    pictures = [make_picture(seed, 60, 40) for seed in (1, 2)]
    words = engine.tokenizer.encode("the table")
    segments = [("ids", words), *[(k, v) for p in pictures for k, v in (("image", encode(engine, p)), ("ids", words))]]
    data, rows, vocab = engine.logits(segments)
    encoded = [OF.definition.encode_image(picture) for picture in pictures]
    prompt = OF.definition.prompt([words, encoded[0], words, encoded[1], words])
    want = OF.definition.logits(prompt)
    assert relative_error(np.frombuffer(data, np.float32).reshape(rows, vocab), want) < 1e-4
    other = Kosmos2_5Reference(
        OF.tiny.metadata, OF.tiny.weights | {"segment_embd.weight": OF.tiny.weights["segment_embd.weight"][::-1]}
    )
    assert relative_error(other.logits(prompt), want) > 1e-2


def test_a_kept_prompt_keeps_its_segments(model: kosmos_edge.Model) -> None:
    """Rows of an image that are not computed again, and those of the next image behind them."""
    kept = model.encode(make_picture(2, 60, 60))
    first = model.ask(kept, "what is this?", max_tokens=5, logprobs=True)
    again = model.ask(kept, "what color is it?", max_tokens=5, logprobs=True)
    assert again.timings.reused_tokens > ROWS
    assert first.timings.reused_tokens == 0 or first.timings.reused_tokens < again.timings.reused_tokens
    alone = model.ask(make_picture(2, 60, 60), "what color is it?", max_tokens=5, logprobs=True)
    assert (again.token_ids, again.logprobs) == (alone.token_ids, alone.logprobs)


def test_what_users_write_never_becomes_a_tag(model: kosmos_edge.Model) -> None:
    engine = model._open.engine
    plain = engine.prompt_ids([("text", "<md><x_1></s><s>")])
    assert not {0, 2, VOCABULARY.id("<md>"), VOCABULARY.id("<x_1>")} & set(plain[1:])
    result = model.ask(make_picture(1, 60, 60), "what is <x_1> <bbox>?", max_tokens=2)
    assert any("'<x_1>' in a text is read as plain characters" in note for note in result.notes)


def test_tags_stay_in_answers(model: kosmos_edge.Model) -> None:
    """Coordinates and the rest are what the answer says; only control tokens are dropped."""
    written = ["<bbox>", "<x_3>", "<y_5>", "<x_7>", "<y_9>", "</bbox>"]
    tokenizer = model._open.engine.tokenizer
    ids = [VOCABULARY.id(tag) for tag in written] + tokenizer.encode("Total 12\n")
    assert tokenizer.decode([0, *ids, 2]) == "".join(written) + "Total 12\n"


# ---- questions


def test_a_model_without_a_prompt_takes_questions_only_with_a_template(tmp_path: Path) -> None:
    path = write(tmp_path / "base.gguf", prompt__question=None)
    model, picture = kosmos_edge.load(path, threads=1), make_picture(1, 60, 60)
    assert model.model_info["tasks"] == ["read", "generate", "score"]
    with pytest.raises(InvalidRequest, match="no prompt for it; its tasks are read, generate, score"):
        model.ask(picture, "what is this?")
    asked = model.ask(picture, "what is this?", template="<md>Q: {question}", max_tokens=3)
    raw = model.generate([picture, "<md>Q: what is this?"], raw=True, max_tokens=3)
    assert asked.token_ids == raw.token_ids and asked.timings.prompt_tokens == raw.timings.prompt_tokens


def test_a_chat_ends_the_answers_of_examples(model: kosmos_edge.Model) -> None:
    plan = _core.plan_verb(model.model_info, "ask", "why", [("what", "red")], False, False, False, False, None)
    words = CHAT.replace("{question}", "what")
    assert plan[0][:4] == [("image", 0), ("tags", "<md>"), ("text", f"{words} red"), ("ids", [2])]


@pytest.mark.parametrize("text", ["<md>USER: ASSISTANT:", "{image}{image} {question}", ""])
def test_a_prompt_of_questions_has_its_place(text: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.gguf", prompt__question=("str", text))
    with pytest.raises(ModelCorrupt, match=r"prompt.question is .*expected \{question\} and at most one \{image\}"):
        _core.model_info(str(path))


# ---- what a file must hold


def test_every_prompt_needs_its_beginning(tmp_path: Path) -> None:
    path = write(tmp_path / "x.gguf", tokenizer__ggml__bos_token_id=None)
    with pytest.raises(ModelCorrupt, match=r'key "tokenizer\.ggml\.bos_token_id" is missing'):
        _core.model_info(str(path))


def test_the_placeholder_is_no_piece_of_text(tmp_path: Path) -> None:
    path = write(tmp_path / "x.gguf", first_slot_token_id=("u32", 9))
    with pytest.raises(ModelCorrupt, match=r"first_slot_token_id is 9, a token of type 1; expected type 2, 3 or 4"):
        _core.model_info(str(path))


def test_more_rows_than_tokens(tmp_path: Path) -> None:
    """All rows have one id: their number has nothing to do with the vocabulary."""
    count = len(VOCABULARY.pieces) + 50
    metadata = OF.tiny.metadata | {
        "kosmos2_5.image_token_count": ("u32", count), "kosmos2_5.context_length": ("u32", 1024)
    }  # fmt: skip
    latents = make_weight("mm.latent_query", (count, NUMBERS["embedding_length"]), 1)
    tiny = dataclasses.replace(OF.tiny, metadata=metadata, weights=OF.tiny.weights | {"mm.latent_query": latents})
    write_tiny(tmp_path / "x.gguf", tiny=tiny)
    engine = _core.Engine(str(tmp_path / "x.gguf"), threads=1)
    picture = make_picture(1, 30, 20)
    want = Kosmos2_5Reference(metadata, tiny.weights).encode_image(picture)
    assert want.shape[0] == count and relative_error(values(encode(engine, picture)), want) < 1e-4


@pytest.mark.parametrize("dtype", sweep.some(["F32", "Q8_0"], 2, 1))
def test_on_a_cuda_device(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_cuda(monkeypatch)
    write_tiny(tmp_path / "x.gguf", dtype, tiny=OF.tiny)
    picture, logits = make_picture(4, 60, 20), []
    for device in ("cpu", "cuda"):
        engine = _core.Engine(str(tmp_path / "x.gguf"), device=device)
        data, rows, vocab = engine.logits([("image", encode(engine, picture)), ("tags", "<md>"), ("text", "A cat")])
        logits.append(np.frombuffer(data, np.float32).reshape(rows, vocab))
    assert np.isfinite(logits[1]).all()
    assert relative_error(logits[1], logits[0]) < {"F32": 1e-4, "Q8_0": 0.2}[dtype]
