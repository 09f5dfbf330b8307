"""Sampling on the emulated CUDA device: kernels against the definition in csrc/backend/sampling.cpp, whole
models against the processor's answers, and what is read back.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.cuda_emulated import EmulatedDevice, lend_device, use_cuda
from helpers.ops_reference import f32
from helpers.tiny import TinyConfig, make_vocabulary, write_tiny

from kosmos_edge import _core
from kosmos_edge.errors import KosmosError, ModelCorrupt

EXACT = _core.isa() != "scalar"  # whose multiply-adds round twice: its logits are not the device's to the bit
CHOSEN = 24  # bytes of a chosen token: id, flag, logit, highest logit, sum
SIZES = [1, 7, 8, 31, 511, 512, 513, 1029, 4000, 65037]


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Path:
    """See use_cuda."""
    return use_cuda(monkeypatch)


@pytest.fixture
def device(cuda: Path) -> Iterator[EmulatedDevice]:
    """See lend_device."""
    yield from lend_device(cuda)


@pytest.fixture
def both(cuda: Path):
    """Single operations on the CPU, by the host's definition, and on the device."""
    return [_core.testing.Ops("", 1), _core.testing.Ops("", 1, "cuda")]


def some_ranges(rng: np.random.Generator, cols: int, most: int) -> list[tuple[int, int]]:
    """Ascending ranges without overlap, some of them neighbours."""
    edges = np.unique(rng.integers(0, cols + 1, 2 * int(rng.integers(1, most + 1))))
    ranges = [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=False)]
    return ranges or [(0, cols)]


def some_rule(rng: np.random.Generator, cols: int):
    """Any rule that a request may make."""
    allowed = [(0, cols)] if rng.random() < 0.3 else some_ranges(rng, cols, 40)
    temperature = float(rng.choice([0, 1e-45, 1e-39, 3e-38, 0.01, 0.7, 1, 5, 100]))
    top_k = int(rng.choice([0, 0, 1, 2, 50, cols, cols + 1]))
    top_p = float(rng.choice([1, 1, 1e-45, 1e-6, 0.3, 0.9, 0.999]))
    return allowed, temperature, top_k, top_p, float(rng.random())


@pytest.mark.parametrize("cols", SIZES)
def test_any_rule(both, cols: int) -> None:
    """Whatever rows, ranges, temperature, top-k and top-p: the definition's choice, bit for bit."""
    cpu, cuda = both
    rng = np.random.default_rng(cols)
    for spread in (0.01, 1, 3, 60) if cols < 60000 else (3,):
        rows = 5
        logits = f32(rng.standard_normal((rows, cols)) * spread)
        rules = [some_rule(rng, cols) for _ in range(rows)]
        assert cuda.sample(logits, rows, cols, 3, rules) == cpu.sample(logits, rows, cols, 3, rules), rules


@pytest.mark.parametrize("cols", [1, 9, 600, 5000])
def test_the_best(both, cols: int) -> None:
    """Without a temperature: the first of the highest, its logit, and the sum of a softmax over the whole row."""
    rng = np.random.default_rng(cols)
    logits = np.round(rng.standard_normal((8, cols)) * 2).astype(np.float32)  # full of equals
    logits[0] = 0
    logits[1] = np.where(rng.random(cols) < 0.5, 0.0, -0.0)
    allowed = [some_ranges(rng, cols, 9) for _ in range(8)]
    rules = [(a, 0.0, 0, 1.0, 0.0) for a in allowed]
    for ops in both:
        for row, ranges, (i, finite, logit, top, total) in zip(
            logits, allowed, ops.sample(f32(logits), 8, cols, 0, rules), strict=True
        ):
            may = np.concatenate([np.arange(a, b) for a, b in ranges])
            assert finite
            assert i == may[np.argmax(row[may])]
            assert (logit, top) == (row[i], row.max())
            assert total == pytest.approx(np.exp(row.astype(np.float64) - row.max()).sum(), rel=1e-6)


def test_a_draw(both) -> None:
    """The token whose stretch of the unit interval holds the random number, by float64 probabilities."""
    rng = np.random.default_rng(3)
    cols, draws = 1500, 60
    logits = np.repeat(f32(rng.standard_normal((1, cols)) * 2), draws, 0)
    randoms = (np.arange(draws) + 0.5) / draws
    p = np.exp((logits[0].astype(np.float64) - logits[0].max()) / 0.8)
    order = np.lexsort((np.arange(cols), -logits[0]))
    for top_k, top_p in [(0, 1.0), (20, 1.0), (0, 0.5), (300, 0.4)]:
        kept = np.arange(cols) if (top_k, top_p) == (0, 1.0) else order[: top_k or cols]
        if top_p < 1:
            share = np.cumsum(p[kept]) / (p[kept].sum() if top_k else p.sum())
            kept = kept[: int(np.argmax(share >= top_p)) + 1]
        edges = np.cumsum(p[kept]) / p[kept].sum()
        want = [int(kept[np.argmax(edges > u)]) for u in randoms]
        rules = [([(0, cols)], 0.8, top_k, top_p, float(u)) for u in randoms]
        for ops in both:
            assert [c[0] for c in ops.sample(f32(logits), draws, cols, 0, rules)] == want


@pytest.mark.parametrize("temperature", [1e-45, 1e-40, 2.9e-39, 3e-39, 1e-38])
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (9, 1.0), (0, 0.9), (9, 0.5), (0, 1e-45)])
def test_the_smallest_temperatures_draw_the_best(both, temperature: float, top_k: int, top_p: float) -> None:
    rng = np.random.default_rng(4)
    cols = 1500
    logits = f32(rng.standard_normal((4, cols)) * 3)
    rules = [([(0, cols)], temperature, top_k, top_p, u) for u in (1e-12, 0.3, 0.7, 0.999999)]
    for ops in both:
        assert [c[0] for c in ops.sample(logits, 4, cols, 0, rules)] == logits.reshape(4, cols).argmax(1).tolist()


@pytest.mark.parametrize("cols", [64, 2048, 40000])
def test_random_numbers_on_an_edge(both, cols: int) -> None:
    """Equal weights and random numbers that are whole multiples of them: sums are exact, and so is the edge."""
    cpu, cuda = both
    places = [0, 1, 3, cols // 2, cols - 1]
    randoms = [float(np.float64(i) / cols) for i in places] + [float(np.nextafter(1.0, 0.0))]
    logits = np.ones((len(randoms), cols), np.float32)
    rules = [([(0, cols)], 1.0, 0, 1.0, u) for u in randoms]
    want = cpu.sample(f32(logits), len(randoms), cols, 0, rules)
    if cols < 4096:  # i / cols is exact
        assert [c[0] for c in want] == [*places, cols - 1]
    assert cuda.sample(f32(logits), len(randoms), cols, 0, rules) == want


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 700, 1999])
def test_a_logit_that_is_no_number(both, value: float, place: int) -> None:
    """It is told of its row, wherever it stands, allowed or not, and whatever the rule; the other rows are chosen."""
    cols = 2000
    logits = np.zeros((4, cols), np.float32)
    logits[:, 5] = 1
    logits[1:3, place] = value
    whole, part = [(0, cols)], [(5, 6)]
    rules = [(whole, 0.0, 0, 1.0, 0.5), (part, 0.0, 0, 1.0, 0.5), (part, 1.0, 3, 0.9, 0.5), (whole, 1.0, 0, 0.9, 0.5)]
    for ops in both:
        made = ops.sample(f32(logits), 4, cols, 0, rules)
        assert [c[1] for c in made] == [True, False, False, True]
        assert made[0][0] == 5


@pytest.mark.parametrize("allowed", [[], [(5, 5)], [(7, 9), (3, 4)], [(0, 4), (3, 6)], [(-1, 3)], [(90, 101)]])
def test_ranges_that_are_none(both, allowed: list[tuple[int, int]]) -> None:
    """Empty, out of order, overlapping or outside the row: refused before anything is read by them."""
    for ops in both:
        with pytest.raises(KosmosError, match="sampling"):
            ops.sample(f32(np.zeros((1, 100))), 1, 100, 0, [(allowed, 0.0, 0, 1.0, 0.0)])


def test_more_tokens_than_the_device_takes(both) -> None:
    """A vocabulary that is too large for the kernels is chosen from on the host."""
    cols = 1536 * 512 + 1
    logits = np.zeros((1, cols), np.float32)
    logits[0, -1] = 1
    rules = [([(0, cols)], 0.0, 0, 1.0, 0.0)]
    want, got = (ops.sample(f32(logits), 1, cols, 0, rules) for ops in both)
    assert got == want
    assert got[0][0] == cols - 1


def test_schedules_do_not_matter(device: EmulatedDevice, both) -> None:
    """Blocks and threads in any order choose the same, from run to run."""
    cpu, cuda = both
    rng = np.random.default_rng(5)
    cols, rows = 3000, 6
    logits = f32(rng.standard_normal((rows, cols)))
    rules = [some_rule(rng, cols) for _ in range(rows - 2)]
    rules += [([(0, cols)], 1.0, 0, 1.0, 0.4), ([(0, cols)], 1.0, 70, 0.9, 0.4)]
    want = cpu.sample(logits, rows, cols, 0, rules)
    for seed in range(12):
        device.seed(seed)
        assert cuda.sample(logits, rows, cols, 0, rules) == want


SMALL = TinyConfig(
    layers=2, width=256, ff_width=512, heads=4, latents=8, vision_layers=1, vision_width=256, vision_ff_width=512,
    image_size=28, context=192,
)  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model."""
    path = tmp_path_factory.mktemp("choice") / "tiny.gguf"
    write_tiny(path, "Q4_K", seed=6, config=SMALL)
    return path


WAYS = {
    "greedy": {},
    "n-gram block": {"no_repeat_ngram_size": 2},
    "every token once": {"no_repeat_ngram_size": 1},
    "grammar": {"grammar": True},
    "grammar without drafts": {"grammar": True, "draft": False},
    "log-probabilities": {"logprobs": True, "no_repeat_ngram_size": 3},
    "temperature": {"temperature": 0.8, "seed": 5, "logprobs": True},
    "top-k": {"temperature": 1.0, "seed": 6, "top_k": 12, "no_repeat_ngram_size": 3},
    "top-p, grammar": {"temperature": 1.5, "seed": 7, "top_p": 0.7, "grammar": True},
    "both": {"temperature": 0.6, "seed": 8, "top_p": 0.9, "top_k": 40, "logprobs": True},
    "choices": {"choices": ["a b c", "a b", "d"]},
    "sampled choices": {"choices": ["a b c", "a b", "d"], "temperature": 3.0, "seed": 9, "logprobs": True},
    "hashed": {"hash_logits": True},
    "beams": {"num_beams": 2},
}


def parameters(way: dict[str, object], tokens: int):
    """GenerateParams."""
    params = _core.GenerateParams()
    params.max_tokens = tokens
    for name, value in way.items():
        setattr(params, name, value)
    return params


def outcome(made) -> tuple:
    """What must agree: ids, and log-probabilities to the bit, NaN where there is none."""
    logprobs = np.array(made.logprobs, np.float32)
    return made.token_ids, logprobs.tobytes() if EXACT else None, made.finish_reason, made.logits_hash if EXACT else 0


@pytest.mark.parametrize("name", WAYS)
def test_the_tiny_model_chooses_as_on_the_processor(cuda: Path, tiny: Path, name: str) -> None:
    """Ids, log-probabilities and the reason of the end."""
    made = []
    for where in ("cpu", "cuda"):
        engine = _core.Engine(str(tiny), device=where)
        made.append(outcome(engine.generate([("ids", [5, 6, 300, 5])], parameters(WAYS[name], 6))))
    assert made[0] == made[1]


NANO = Path(_core.__file__).parent / "data" / "nano-q4_k_m.gguf"


def red_square() -> bytes:
    """The vectors of a picture as the processor computes them: the device's tower may take another form."""
    rgb = np.full((96, 96, 3), 230, np.uint8)
    rgb[20:60, 30:70] = (200, 20, 20)
    return _core.Engine(str(NANO), device="cpu").encode_image(rgb.tobytes(), 96, 96).tobytes()


@pytest.mark.parametrize("name", ["grammar", "log-probabilities", "top-p, grammar"])
def test_the_nano_model_chooses_as_on_the_processor(device: EmulatedDevice, name: str) -> None:
    """A trained model names and places what it sees; of a row, drafts' rows too, no more than a choice is read."""
    vectors, made, read = red_square(), [], 0
    for where in ("cpu", "cuda"):
        engine = _core.Engine(str(NANO), device=where)
        segments = [("image", engine.restore_image(vectors)), ("tags", "<grounding> An image of")]
        read = device.bytes_read()
        made.append(engine.generate(segments, parameters({"grammar": True, **WAYS[name]}, 14)))
        read = device.bytes_read() - read
    assert outcome(made[0]) == outcome(made[1])
    if name == "grammar":
        assert engine.tokenizer.decode(made[1].token_ids).startswith("<phrase> a red square</phrase><object><patch_ind")
        assert made[1].passes < len(made[1].token_ids)
    assert 0 < read <= CHOSEN * 2 * made[1].passes


def test_only_ids_are_read_back(device: EmulatedDevice, tiny: Path) -> None:
    """A decoded token is one graph, and one choice is what the host reads: not the logits."""
    for way, graphs in [
        ({}, 1),
        ({"no_repeat_ngram_size": 3, "logprobs": True}, 1),
        ({"temperature": 1.0, "top_k": 9}, 1),
        ({"hash_logits": True}, 1),
    ]:
        engine, ends = _core.Engine(str(tiny), device="cuda"), []
        engine.generate(
            [("ids", [5, 6, 300])],
            parameters(way, 8),
            lambda *_: ends.append((device.graphs(), device.bytes_read())),  # noqa: B023
        )
        steps = [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(ends)]
        each = 4 * len(make_vocabulary().pieces) if "hash_logits" in way else CHOSEN
        assert steps[0] == (0, each)  # the first pass of one row; it is a graph when it comes again
        assert steps[1:] == [(graphs, each)] * 6


@pytest.mark.parametrize("last", ["choices", "hashed"])
def test_a_batch_chooses_as_on_the_processor(device: EmulatedDevice, tiny: Path, last: str) -> None:
    """Several answers of different rules in one pass, which reads a choice of each; logits where one needs them."""
    ways = [WAYS[w] for w in ("greedy", "grammar", "temperature", "top-k", "n-gram block", last)]
    answers = []
    for where in ("cpu", "cuda"):
        engine = _core.Engine(str(tiny), device=where)
        batch, done = _core.Batch(engine, len(ways)), {}
        for i, way in enumerate(ways):
            batch.add([("ids", [5, 6, 300 + i])], parameters(way, 6))
        before = device.bytes_read()
        while batch.open:
            for finished in batch.step():
                done[finished.key] = outcome(finished.result())
        read = device.bytes_read() - before
        answers.append([done[k] for k in sorted(done)])
    assert answers[0] == answers[1]
    assert read > 0
    assert (read > 4 * len(make_vocabulary().pieces)) == (last == "hashed")


def test_weights_that_give_no_number(cuda: Path, tmp_path: Path, tiny: Path) -> None:
    """NaN in the last norm: the processor's error, in the processor's words."""
    data = bytearray(tiny.read_bytes())
    file = _core.GgufFile(str(tiny))
    name, _, _, offset, size = next(t for t in file.tensors() if t[0] == "output_norm.bias")
    del file
    assert name == "output_norm.bias"
    data[offset : offset + size] = np.full(size // 4, np.nan, np.float32).tobytes()
    poisoned = tmp_path / "poisoned.gguf"
    poisoned.write_bytes(data)
    for where in ("cpu", "cuda"):
        engine = _core.Engine(str(poisoned), device=where)
        for way in ({}, {"temperature": 1.0, "top_p": 0.5}):
            with pytest.raises(ModelCorrupt, match="a logit that is not a finite number"):
                engine.generate([("ids", [5, 6])], parameters(way, 4))
