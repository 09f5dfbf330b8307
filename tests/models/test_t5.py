"""Models with Flan-T5: what the suite over all models does not ask. What the encoder reads and the decoder begins with,
positions of an answer against the definition, what is reused, where each stack's context ends, distances, rows of one's
own, neighbours in a batch, a CUDA device."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from helpers import sweep
from helpers.cuda_emulated import use_cuda
from helpers.golden_cases import relative_error
from helpers.tiny import make_picture, write_tiny

import kosmos_edge
from kosmos_edge import _core
from kosmos_edge.errors import ContextTooLong, InvalidRequest, ModelCorrupt
from models.blip2_t5 import EOS, PAD
from models.description import Described, described

NAMES = ["blip2_t5", "instructblip_t5"]
BLIP2 = described()["blip2_t5"]
ANSWER = [9, 14, 3, 40, 40, 8, 22]


def encode(engine: _core.Engine, picture: np.ndarray, keep: bool = False) -> _core.ImageEmbedding:
    height, width, _ = picture.shape
    return engine.encode_image(picture.tobytes(), width, height, None, keep)


def logits(engine: _core.Engine, segments: list, answer: list[int]) -> np.ndarray:
    data, rows, vocab = engine.logits(segments, answer)
    return np.frombuffer(data, np.float32).reshape(rows, vocab)


def generate(engine: _core.Engine, segments: list, max_tokens: int = 6) -> _core.Generation:
    params = _core.GenerateParams()
    params.max_tokens = max_tokens
    return engine.generate(segments, params)


def write(path: Path, of: Described = BLIP2, **changes: tuple) -> Path:
    """The tiny model with other metadata (keys behind its name, dots as __)."""
    keys = {f"{of.architecture}." + key.replace("__", "."): entry for key, entry in changes.items()}
    write_tiny(path, tiny=dataclasses.replace(of.tiny, metadata=dict(of.tiny.metadata) | keys))
    return path


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, _core.Engine]:
    folder = tmp_path_factory.mktemp("t5")
    return {name: _core.Engine(str(write(folder / name, described()[name])), threads=1) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_the_encoder_reads_the_prompt_and_its_end(engines: dict[str, _core.Engine], name: str) -> None:
    """Images stand where they are put; texts are encoded by themselves; what goes on from a prompt has no end."""
    engine, tokenizer = engines[name], engines[name].tokenizer
    image, rows = ("image", encode(engine, make_picture(1, 60, 60))), [BLIP2.tiny.vocabulary.id("<image>")] * 8
    words, text = tokenizer.encode("It is"), ("text", "It is")
    assert engine.prompt_ids([image]) == [*rows, EOS]
    assert engine.prompt_ids([image, text]) == [*rows, *words, EOS]
    assert engine.prompt_ids([text, image, text]) == [*words, *rows, *words, EOS]
    assert engine.prompt_ids([text]) == [*words, EOS]
    made = generate(engine, [image, text])
    assert made.prompt_ids == [*rows, *words, EOS] and PAD not in made.token_ids[:1]
    scored = engine.score([image], [[text]]).continuations[0]
    assert scored.token_ids == words


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("asked", ["ask", "generate from two pictures"])
def test_each_position_of_an_answer(engines: dict[str, _core.Engine], name: str, asked: str) -> None:
    of, engine = described()[name], engines[name]
    pictures = [make_picture(seed, 100, 80) for seed in (1, 2)]
    segments = [(kind, encode(engine, pictures[v]) if kind == "image" else v) for kind, v in of.prompts[asked]]
    expected = of.definition.logits(of.prompt(asked, engine.tokenizer, pictures), tuple(ANSWER))
    assert relative_error(logits(engine, segments, ANSWER), expected) < 1e-4


def test_far_positions(engines: dict[str, _core.Engine]) -> None:
    """A prompt and an answer longer than the distances that have a bucket of their own, and beyond the last one."""
    engine, rng = engines["blip2_t5"], np.random.default_rng(0)
    picture = make_picture(1, 100, 80)
    words, answer = ([int(i) for i in rng.integers(3, 90, n)] for n in (290, 200))
    prompt = BLIP2.definition.prompt([BLIP2.definition.encode_image(picture), words])
    expected = BLIP2.definition.logits(prompt, tuple(answer))
    found = logits(engine, [("image", encode(engine, picture)), ("ids", words)], answer)
    assert relative_error(found, expected) < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_an_equal_prompt_is_not_read_again(engines: dict[str, _core.Engine], name: str) -> None:
    """All of it or nothing; by kept images and by texts alone; other words, other images and others' ends read anew."""
    engine = engines[name]
    kept = [("image", encode(engine, make_picture(seed, 60, 60), keep=True)) for seed in (1, 2)]
    first, other = ("text", "what is this"), ("text", "what is that")
    prompts = [[kept[0], first], [kept[0], other], [kept[0], first, kept[1]], [kept[1], first], [first], [other]]
    alone = [generate(engine, prompt) for prompt in prompts]
    assert [made.reused for made in alone] == [0] * len(prompts)
    assert len({tuple(made.token_ids) for made in alone}) > 2
    for prompt, before in zip(prompts, alone, strict=True):
        generate(engine, prompt)
        again = generate(engine, prompt)
        assert again.token_ids == before.token_ids and again.reused == len(engine.prompt_ids(prompt))
    engine.score(prompts[0], [[("text", "a cat")]])
    assert engine.score(prompts[0], [[("text", "a cat")]]).reused == len(engine.prompt_ids(prompts[0]))


def test_nothing_is_kept_where_nothing_may_be(tmp_path: Path) -> None:
    with kosmos_edge.load(write(tmp_path / "x.gguf"), threads=1, prefix_cache_mb=0) as model:
        image = model.encode(make_picture(1, 60, 60))
        for _ in range(2):
            assert model.ask(image, "what is this", max_tokens=3).timings.reused_tokens == 0


def test_a_conversation_is_read_with_all_that_was_said(tmp_path: Path) -> None:
    """The next question's answer is that to the whole transcript as one prompt, which ends once."""
    with kosmos_edge.load(write(tmp_path / "x.gguf"), threads=1) as model:
        engine, picture = model._open.engine, make_picture(3, 70, 70)
        chat = model.chat(picture)
        first = chat.ask("what is this", max_tokens=5)
        second = chat.ask("where", max_tokens=5)
        parts = ["Question: what is this Answer: " + first.text, "Question: where Answer:"]
        prompt = [("image", encode(engine, picture)), *(("text", part) for part in parts)]
        assert second.timings.prompt_tokens == len(engine.prompt_ids(prompt))
        assert second.token_ids == generate(engine, prompt, 5).token_ids


def test_where_a_context_ends(tmp_path: Path) -> None:
    """Prompt and answer have it to themselves."""
    engine = _core.Engine(
        str(write(tmp_path / "x.gguf", context_length=("u32", 64), generation__max_new_tokens=("u32", 8)))
    )
    assert len(generate(engine, [("ids", [5] * 63)], 63).token_ids) <= 63
    with pytest.raises(ContextTooLong, match="the prompt has 65 tokens, the encoder of the model has 64 positions"):
        generate(engine, [("ids", [5] * 64)], 1)
    with pytest.raises(ContextTooLong, match="up to 64 are to follow"):
        generate(engine, [("ids", [5])], 64)
    with pytest.raises(ContextTooLong, match="the encoder"):
        engine.score([("ids", [5] * 64)], [[("text", "a")]])
    with pytest.raises(ContextTooLong, match="the encoder"):
        engine.logits([("ids", [5] * 64)])
    with pytest.raises(InvalidRequest, match="token id 999"):
        engine.logits([("ids", [5])], [999])


def test_rows_of_ones_own_are_read_as_an_images(engines: dict[str, _core.Engine]) -> None:
    engine = engines["blip2_t5"]
    image = encode(engine, make_picture(1, 60, 60))
    rows = engine.given_rows(image.tobytes(), 8, False)
    text = ("text", "It is")
    np.testing.assert_array_equal(
        logits(engine, [("rows", rows), text], ANSWER), logits(engine, [("image", image), text], ANSWER)
    )


def test_neighbours_in_a_batch_keep_what_they_read(engines: dict[str, _core.Engine]) -> None:
    """Prompts of different lengths, with and without images, begun one after the other in the same passes."""
    engine = engines["blip2_t5"]
    images = [("image", encode(engine, make_picture(seed, 60, 60))) for seed in (1, 2)]
    prompts = [
        [images[0]], [images[1], ("text", "what is this dog")], [("text", "a")], [images[1], images[0], ("text", "cat")]
    ]  # fmt: skip
    params = _core.GenerateParams()
    params.max_tokens, params.logprobs = 9, True
    alone = [engine.generate(prompt, params) for prompt in prompts]
    members, found = _core.Batch(engine, 3), {}
    waiting = list(prompts)
    while waiting or members.open:
        if waiting and members.open < 3:
            members.add(waiting.pop(0), params)
        found |= {f.key: f.result() for f in members.step(None)}
    for key, one in enumerate(alone):
        assert found[key].token_ids == one.token_ids and found[key].logprobs == one.logprobs


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"attention__relative_buckets_count": ("u32", 30)}, "expected a multiple of 4"),
        ({"attention__relative_max_distance": ("u32", 16)}, "expected more than half of"),
        ({"attention__relative_buckets_count": ("u32", 64)}, "attn_rel_b"),
        ({"image__token_id": ("u32", EOS)}, "the end of an answer, which a placeholder never is"),
        ({"encoder__block_count": ("u32", 4)}, r"enc\.blk\.3"),
        ({"encoder__block_count": ("u32", 2)}, r"enc\.blk\.2"),
    ],
)
def test_what_contradicts_the_tensors_is_refused(changes: dict[str, tuple], message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelCorrupt, match=message):
        kosmos_edge.load(write(tmp_path / "x.gguf", **changes))


def test_small_types(tmp_path: Path) -> None:
    made = kosmos_edge.convert.requantize(write(tmp_path / "a.gguf"), tmp_path / "b.gguf", type="q4_k_m").output
    stored = {name: dtype for name, dtype, *_ in _core.GgufFile(str(made)).tensors()}
    assert stored["enc.attn_rel_b.weight"] == stored["attn_rel_b.weight"] == stored["mm.query"] == "F32"
    assert stored["enc.blk.0.attn_q.weight"] == stored["blk.0.cross.attn_q.weight"] == "Q4_K"
    assert stored["output.weight"] == stored["enc.blk.2.ffn_down.weight"] == "Q6_K"


@pytest.mark.parametrize("dtype", sweep.some(["F32", "Q8_0"], 2, 1))
def test_on_a_cuda_device(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both stacks, behind the same rows of an image."""
    use_cuda(monkeypatch)
    path = tmp_path / "x.gguf"
    write_tiny(path, dtype, tiny=BLIP2.tiny)
    values, found = encode(_core.Engine(str(path)), make_picture(4, 90, 60)).tobytes(), []
    for device in ("cpu", "cuda"):
        engine = _core.Engine(str(path), device=device)
        found.append(logits(engine, [("image", engine.restore_image(values)), ("text", "It is a cat")], ANSWER))
    assert relative_error(found[1], found[0]) < 1e-4
