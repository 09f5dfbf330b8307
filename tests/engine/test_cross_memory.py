"""Models whose text looks at images through cross-attention: each row looks at the last image before it, however it
comes to be computed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.cuda_emulated import use_cuda
from helpers.reference import Prompt, attention, log_softmax
from helpers.tiny import Tiny, TinyConfig, TinyVocabulary, write_tiny
from models.llava import ADDED, PIECES, LlavaReference, metadata_of, rms, tensor_shapes, weights_of
from models.llava import NUMBERS as LLAVA_NUMBERS
from models.llava import VISION as LLAVA_VISION

from kosmos_edge import _core
from kosmos_edge.errors import InvalidRequest

A = "flamingo"
NUMBERS = {**LLAVA_NUMBERS, "block_count": 3, "context_length": 256}
VISION = {**LLAVA_VISION, "block_count": 2}
PATCHES, WIDTH, KV_WIDTH, FF = 16, 256, 128, 512
EVERY, FIRST = 2, 0  # of the blocks that a cross layer precedes
GATES = {"attn": 0.9, "ffn": -0.6}
LEAD, BETWEEN, TAIL = [270, 300, 281], [311, 290, 305, 266], [320, 275]
PICTURES = [np.random.default_rng(seed).integers(0, 256, (40, 48, 3), np.uint8) for seed in range(3)]


class Definition(LlavaReference):
    """LLaMA whose blocks 0 and 2 have a cross layer in front; rows: images stand in the sequence, too."""

    def __init__(self, metadata: dict[str, Any], weights: dict[str, np.ndarray], rows: bool) -> None:
        super().__init__(metadata, weights)
        self.rows = rows
        self.looks: list[tuple[int, np.ndarray]] = []  # from which position on rows look at which image

    def prompt(self, segments: list[list[int] | np.ndarray]) -> Prompt:
        """Flamingo's: the <image> token looks at its own image. With rows it stands in front of them and does not."""
        ids, vectors, self.looks = [self.bos], {}, []
        for segment in segments:
            if not isinstance(segment, np.ndarray):
                ids += segment
            elif self.rows:
                ids.append(self.image_id)
                self.looks.append((len(ids), segment))
                vectors.update({len(ids) + j: row for j, row in enumerate(segment)})
                ids += [self.image_id] * len(segment)
            else:
                self.looks.append((len(ids), segment))
                ids.append(self.image_id)
        return Prompt(ids, vectors)

    def before_block(self, i: int, x: np.ndarray, first: int) -> np.ndarray:
        """open_flamingo's GatedCrossAttentionBlock; what looks at nothing has the feed-forward alone."""
        if i < FIRST or (i - FIRST) % EVERY:
            return x
        w, b, x = self.weights, f"blk.{i}.cross.", x.copy()
        group = self.heads // self.kv_heads
        for r in range(len(x)):
            seen = [features for at, features in self.looks if at <= first + r]
            if seen:
                q = rms(x[r : r + 1], w[b + "attn_norm.weight"], self.eps) @ w[b + "attn_q.weight"].T
                k, v = (
                    (seen[-1] @ w[b + f"attn_{n}.weight"].T)
                    .reshape(len(seen[-1]), self.kv_heads, -1)
                    .repeat(group, 1)
                    .reshape(len(seen[-1]), -1)
                    for n in "kv"
                )
                gate = np.tanh(w[b + "attn_alpha"][0])
                x[r] += gate * (attention(q, k, v, self.heads) @ w[b + "attn_output.weight"].T)[0]
        h = rms(x, w[b + "ffn_norm.weight"], self.eps)
        opened = h @ w[b + "ffn_gate.weight"].T
        hidden = opened / (1 + np.exp(-opened)) * (h @ w[b + "ffn_up.weight"].T)
        return x + np.tanh(w[b + "ffn_alpha"][0]) * (hidden @ w[b + "ffn_down.weight"].T)


@dataclass
class Case:
    path: Path
    rows: bool
    definition: Definition
    features: list[np.ndarray]
    image_token: int

    def engine(self, **options: Any) -> Any:
        return _core.testing.flamingo(str(self.path), rows=self.rows, **options)

    def defined(self, segments: list[int | list[int]]) -> Prompt:
        """The definition's prompt; numbers are images."""
        return self.definition.prompt([self.features[s] if isinstance(s, int) else s for s in segments])


def make(rows: bool) -> tuple[Tiny, int]:
    """Without rows the memory is narrower than the decoder."""
    vocabulary = TinyVocabulary([*PIECES.pieces, *ADDED], [*PIECES.scores, 0.0, 0.0], [*PIECES.types, 4, 3])
    memory = WIDTH if rows else 192
    shapes = tensor_shapes(NUMBERS, {**VISION, "block_count": 3}, len(vocabulary.pieces))
    shapes = {name: shape for name, shape in shapes.items() if not name.startswith("mm.")}
    shapes |= {"mm.0.weight": (memory, VISION["embedding_length"]), "mm.0.bias": (memory,)}
    for i in range(FIRST, NUMBERS["block_count"], EVERY):
        b = f"blk.{i}.cross."
        shapes |= {f"{b}{n}_norm.weight": (WIDTH,) for n in ("attn", "ffn")}
        shapes |= {f"{b}attn_{n}.weight": (KV_WIDTH, memory) for n in "kv"}
        shapes |= {f"{b}attn_{n}.weight": (WIDTH, WIDTH) for n in ("q", "output")}
        shapes |= {f"{b}ffn_{n}.weight": (FF, WIDTH) for n in ("gate", "up")} | {f"{b}ffn_down.weight": (WIDTH, FF)}
    weights = weights_of(shapes, 5)
    image_token = vocabulary.id("<image>")
    weights["output.weight"][image_token] = 0  # the definition's search does not know that it never comes
    for i in range(FIRST, NUMBERS["block_count"], EVERY):
        b = f"blk.{i}.cross."
        weights |= {f"{b}{part}_alpha": np.array([gate], np.float32) for part, gate in GATES.items()}
    metadata = metadata_of(NUMBERS, VISION, vocabulary, 64)
    metadata = {key.replace("llava.", f"{A}."): value for key, value in metadata.items()}
    for key in ("vision.feature_layer", "image.aspect", "projector"):
        del metadata[f"{A}.{key}"]
    metadata["general.architecture"] = ("str", A)
    metadata["clip.projector_type"] = ("str", A)
    metadata["clip.vision.projection_dim"] = ("u32", memory)
    return Tiny(TinyConfig(), vocabulary, weights, metadata), image_token


@pytest.fixture(scope="module", params=[False, True], ids=["memory alone", "memory and rows"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    tiny, image_token = make(request.param)
    path = tmp_path_factory.mktemp("cross") / "flamingo.gguf"
    write_tiny(path, tiny=tiny)
    known = {
        f"{A}.vision.feature_layer": ("i32", -1),
        f"{A}.image.aspect": ("str", "squash"),
        f"{A}.projector": ("str", "linear"),
    }
    named = {key.replace(f"{A}.", "llava."): value for key, value in (tiny.metadata | known).items()}
    definition = Definition(named, tiny.weights, request.param)
    squashed = [np.asarray(_square(picture)) for picture in PICTURES]
    return Case(path, request.param, definition, [definition.encode_image(s) for s in squashed], image_token)


def _square(picture: np.ndarray) -> Any:
    from PIL import Image

    size = (VISION["image_size"], VISION["image_size"])
    return Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)


def encode(engine: Any, number: int, keep: bool = False) -> Any:
    picture = PICTURES[number]
    return engine.encode_image(picture.tobytes(), picture.shape[1], picture.shape[0], keep=keep)


def segments_of(engine: Any, segments: list[Any]) -> list[tuple[str, Any]]:
    """Numbers are images to encode, lists are ids, the rest are encoded images."""
    return [
        ("image", encode(engine, s)) if isinstance(s, int) else ("ids", s) if isinstance(s, list) else ("image", s)
        for s in segments
    ]


def logits_of(engine: Any, segments: list[tuple[str, Any]]) -> np.ndarray:
    values, rows, cols = engine.logits(segments)
    return np.frombuffer(values, np.float32).reshape(rows, cols)


def params_of(**values: Any) -> Any:
    params = _core.GenerateParams()
    for name, value in ({"max_tokens": 6, "logprobs": True} | values).items():
        setattr(params, name, value)
    return params


PROMPTS: dict[str, list[Any]] = {
    "text around two images": [LEAD, 0, BETWEEN, 1, TAIL],
    "two images in a row": [0, 1, TAIL],
    "the answer follows the image": [LEAD, 1],
    "no image": [LEAD, BETWEEN],
}


@pytest.mark.parametrize("name", PROMPTS)
def test_the_logits_of_every_row_are_the_definitions(case: Case, name: str) -> None:
    engine = case.engine()
    prompt = case.defined(PROMPTS[name])
    assert engine.prompt_ids(segments_of(engine, PROMPTS[name])) == prompt.ids
    want, got = case.definition.logits(prompt), logits_of(engine, segments_of(engine, PROMPTS[name]))
    assert got.shape == want.shape
    assert (np.abs(got - want).max(-1) <= 1e-4 * np.abs(want).max(-1)).all()


def test_rows_before_an_image_do_not_see_it_and_those_behind_do(case: Case) -> None:
    engine = case.engine()
    one, other = (logits_of(engine, segments_of(engine, [LEAD, n, BETWEEN, 1, TAIL])) for n in (0, 2))
    first = 1 + len(LEAD) + case.rows
    np.testing.assert_array_equal(one[:first], other[:first])
    assert (np.abs(one[first:] - other[first:]).max(-1) > 1e-3).all()


@pytest.mark.parametrize("name", PROMPTS)
def test_every_way_to_an_answer_looks_at_the_last_image(case: Case, name: str) -> None:
    """Greedy search, beams, choices and scores: the log-probabilities are those of the whole text's rows."""
    engine = case.engine()
    segments = segments_of(engine, PROMPTS[name])
    defined = case.definition.generate(case.defined(PROMPTS[name]), 6)
    for params in (params_of(), params_of(num_beams=3), params_of(choices=["a cat", "a dog in snow"], max_tokens=12)):
        got = engine.generate(segments, params)
        if params.num_beams == 1 and not params.choices:
            assert got.token_ids == defined.ids
            np.testing.assert_allclose(got.logprobs, defined.logprobs, atol=1e-3)
        rows = log_softmax(logits_of(engine, [*segments, ("ids", got.token_ids)]))
        first = len(got.prompt_ids) - 1
        want = [rows[first + i, token] for i, token in enumerate(got.token_ids)]
        np.testing.assert_allclose(got.logprobs, want, atol=1e-5)
        scored = engine.score(segments, [[("ids", got.token_ids)], [("ids", [*TAIL, *LEAD])]]).continuations
        np.testing.assert_allclose(scored[0].logprobs, want, atol=1e-5)


def test_a_batch_gives_the_bits_of_each_answer_alone(case: Case) -> None:
    """The prompts' images live as long as their rows are computed, whoever else holds them."""
    engine, params = case.engine(), params_of(hash_logits=True)
    prompts = [*PROMPTS.values(), [LEAD, 2, BETWEEN, 1, TAIL], [2, TAIL]]
    alone = [engine.generate(segments_of(engine, prompt), params) for prompt in prompts]
    batch = _core.Batch(engine, len(prompts))
    for prompt in prompts:
        batch.add(segments_of(engine, prompt), params)
    got = {}
    while batch.open:
        for finished in batch.step():
            got[finished.key] = finished.result()
    for key, want in enumerate(alone):
        assert got[key].token_ids == want.token_ids and got[key].logprobs == want.logprobs
        assert got[key].logits_hash == want.logits_hash


def test_what_looked_at_another_image_is_not_reused(case: Case) -> None:
    """Also where the image's only trace among the ids is a token that text can spell, or the answer's place."""
    engine, fresh, params = case.engine(), case.engine(prefix_bytes=0), params_of(hash_logits=True)
    kept = encode(engine, 0, keep=True)
    second, third = encode(engine, 1), encode(engine, 2)
    token = [case.image_token] * (PATCHES + 1 if case.rows else 1)
    opening = len(engine.prompt_ids([("image", kept), ("ids", BETWEEN)]))
    before = opening + case.rows  # positions that do not see the second image
    everything = opening + len(token) + len(TAIL) - 1  # but for the last, whose logits are wanted
    calls: list[tuple[list[Any], int]] = [
        ([kept, BETWEEN, second, TAIL], 0),
        ([kept, BETWEEN, second, TAIL], everything),
        ([kept, BETWEEN, third, TAIL], before),
        ([kept, BETWEEN, token, TAIL], before),
        ([kept, BETWEEN, second, TAIL], before),
        ([kept, BETWEEN, second], everything - len(TAIL)),
        ([kept, BETWEEN, third], before),
        ([third, BETWEEN, second, TAIL], 1 + case.rows),  # what stands before any first image
    ]
    for number, (segments, reused) in enumerate(calls):
        got = engine.generate(segments_of(engine, segments), params)
        numbers = {id(kept): 0, id(second): 1, id(third): 2}
        want = fresh.generate(segments_of(fresh, [numbers.get(id(s), s) for s in segments]), params)
        assert want.reused == 0
        assert got.token_ids == want.token_ids and got.logits_hash == want.logits_hash, number
        assert got.reused == reused, number


def test_an_image_can_be_saved_and_restored(case: Case) -> None:
    engine = case.engine()
    image = encode(engine, 0)
    assert image.shape == case.features[0].shape
    values = image.tobytes()
    got = np.frombuffer(values, np.float32).reshape(image.shape)
    assert np.abs(got - case.features[0]).max() <= 1e-4 * np.abs(got).max()
    again = engine.restore_image(values)
    assert again.shape == image.shape and again.tobytes() == values
    one, other = (logits_of(engine, [("image", e), ("ids", TAIL)]) for e in (image, again))
    assert one.tobytes() == other.tobytes()
    with pytest.raises(InvalidRequest, match=f"has {PATCHES} x {image.shape[1]} values, got 4"):
        engine.restore_image(values[:16])


def test_a_cuda_device_answers_as_the_processor(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    use_cuda(monkeypatch)
    segments = PROMPTS["text around two images"]
    one, other = (
        logits_of(engine, segments_of(engine, segments)) for engine in (case.engine(), case.engine(device="cuda"))
    )
    assert (np.abs(one - other).max(-1) <= 1e-3 * np.abs(one).max(-1)).all()
