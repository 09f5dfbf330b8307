"""Activation outliers like those of trained CLIP towers, planted into a random model, and what int8 makes of them.

What is planted, by weights alone, so that it appears in any computation of the model:
* a few channels of the residual stream are 50 to 200 times larger than the rest, at every token, from the first layer
  on (bias of ffn_down), while the layer norms in front of the matrices keep, shrink or raise them (their gammas);
* at single tokens (the class token and one patch; the first token of a text) a unit fires that makes one channel
  about a thousand times larger than the rest: a massive activation;
* if asked for, in every layer one unit of the feed-forward network is 30 at every token, hundreds of times the others.

`EngineArithmetic` computes the reference model with the engine's own quantized matrix products, `Recorder` with float32
ones on the same decoded weights; `streams` and `matrices` compare what both saw, layer by layer.
"""

from dataclasses import dataclass

import numpy as np

from helpers.reference import Reference, preprocess
from kosmos_edge import _core


class Recorder(Reference):
    """The reference, remembering what went into and came out of every norm and matrix."""

    def __init__(self, metadata: dict, weights: dict[str, np.ndarray], dtype: type = np.float32) -> None:
        super().__init__(metadata, weights, dtype)
        self.inputs: dict[str, np.ndarray] = {}
        self.outputs: dict[str, np.ndarray] = {}

    def vision(self, pixels: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):  # exp(-x) of a unit that is far from firing: 1 / (1 + inf) is right
            return super().vision(pixels)

    def multiply(self, x: np.ndarray, name: str) -> np.ndarray:
        return super().linear(x, name)

    def linear(self, x: np.ndarray, name: str) -> np.ndarray:
        self.inputs[name], self.outputs[name] = x, self.multiply(x, name)
        return self.outputs[name]

    def norm(self, x: np.ndarray, name: str, eps: float | None = None) -> np.ndarray:
        self.inputs[name], self.outputs[name] = x, super().norm(x, name, eps)
        return self.outputs[name]


class EngineArithmetic(Recorder):
    """The same with the engine's kernels for every matrix that it computes with 8-bit activations, and the tower's
    attention with its rounded scores."""

    def __init__(self, path: str, isa: str = "") -> None:
        plain = Recorder.from_gguf(path)
        super().__init__(plain.metadata, plain.weights)
        file = _core.GgufFile(path)
        self.stored = {name: (dtype, file.tensor_data(name)) for name, dtype, *_ in file.tensors()}
        self.ops = _core.testing.Ops(isa, 1)

    def multiply(self, x: np.ndarray, name: str) -> np.ndarray:
        dtype, data = self.stored[name + ".weight"]
        # The resampler's projections of the picture are folded into float32 matrices when a model is loaded.
        if not dtype.startswith("Q") or name in ("mm.dense", "mm.attn_q", "mm.attn_k", "mm.attn_v"):
            return super().multiply(x, name)
        bias = self.weights[name + ".bias"]
        rows, cols = x.shape
        out = self.ops.linear(
            [(dtype, data, bias.size)],
            cols,
            np.ascontiguousarray(x),
            rows,
            bias,
            "none",
            None,
            None,
            0,
            name[:2] == "v.",
        )
        return np.frombuffer(out, np.float32).reshape(rows, bias.size)

    def attend(self, q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int) -> np.ndarray:
        rows, width = q.shape
        both = np.concatenate([k, v], axis=1).astype(np.float32)
        each = width // heads
        out = self.ops.attention(np.ascontiguousarray(q), both, rows, len(k), heads, each, each**-0.5, int8_scores=True)
        return np.frombuffer(out, np.float32).reshape(rows, width)


# ---------------------------------------------------------------------------------------------------------- planting


@dataclass(frozen=True)
class Planted:
    """Weights with outliers, and the channels of the residual streams that have them."""

    weights: dict[str, np.ndarray]
    vision: np.ndarray
    text: np.ndarray


def plant(
    metadata: dict,
    weights: dict[str, np.ndarray],
    rgb: np.ndarray,
    ids: list[int],
    ratio: float = 100.0,
    units: bool = False,
) -> Planted:
    """rgb and ids: picture and tokens by which the massive activations are recognised. units: of the third kind too."""
    rng = np.random.default_rng(0)
    w = {name: value.copy() for name, value in weights.items()}
    value = {k: v[1] if isinstance(v, tuple) else v for k, v in metadata.items()}
    pixels = preprocess(
        rgb, value["clip.vision.image_size"], value["clip.vision.image_mean"], value["clip.vision.image_std"]
    )

    def look() -> Recorder:
        model = Recorder(metadata, w)
        model.vision(pixels)
        return model

    def read() -> Recorder:
        model = Recorder(metadata, w)
        model.logits(model.prompt([ids]))
        return model

    layers = value["clip.vision.block_count"]
    stream = look().inputs["v.blk.1.ln1"]
    vision = _raise_channels(w, "v.blk.", ("ln1", "ln2"), layers, ratio, stream, rng)
    if units:
        _raise_units(w, "v.blk.", layers, vision, None, rng)
    patches = look().outputs["v.blk.1.ln2"]
    lonely = min(range(1, len(patches)), key=lambda token: _towards(patches, token)[1])
    for token in (0, lonely):
        _fire_at(w, "v.blk.1.", patches, token, vision[0], 10 * ratio * stream.std(), rng)

    layers = value["kosmos2.block_count"]
    stream = read().inputs["blk.1.attn_norm"]
    text = _raise_channels(w, "blk.", ("attn_norm", "ffn_norm"), layers, ratio, stream, rng)
    if units:
        _raise_units(w, "blk.", layers, text, "ffn_sub_norm", rng)
    _fire_at(w, "blk.1.", read().outputs["blk.1.ffn_norm"], 0, text[0], 10 * ratio * stream.std(), rng)
    return Planted(w, vision, text)


def _raise_channels(
    w: dict[str, np.ndarray],
    stack: str,
    norms: tuple[str, ...],
    layers: int,
    ratio: float,
    stream: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Three channels of the residual stream, from layer 1 on."""
    channels = rng.choice(stream.shape[1], 3, replace=False)
    w[f"{stack}0.ffn_down.bias"][channels] += np.float32(ratio * stream.std()) * np.float32([0.5, -1.0, 2.0])
    for i in range(1, layers):
        for n, norm in enumerate(norms):
            w[f"{stack}{i}.{norm}.weight"][channels] *= np.float32([0.1, 0.5, 1.5][(i + n) % 3])
    return channels


def _raise_units(
    w: dict[str, np.ndarray],
    stack: str,
    layers: int,
    channels: np.ndarray,
    sub_norm: str | None,
    rng: np.random.Generator,
) -> None:
    """In every layer a unit of the feed-forward network that is large at every token."""
    for i in range(layers):
        unit = int(rng.integers(w[f"{stack}{i}.ffn_up.bias"].size))
        w[f"{stack}{i}.ffn_up.weight"][unit] *= np.float32(0.1)
        w[f"{stack}{i}.ffn_up.bias"][unit] += np.float32(30)
        if sub_norm:
            w[f"{stack}{i}.{sub_norm}.weight"][unit] *= np.float32(2)
        down = w[f"{stack}{i}.ffn_down.weight"]
        down[:, unit] *= np.float32(0.05)
        down[channels[1], unit] = np.float32(-0.1)


def _towards(seen: np.ndarray, token: int) -> tuple[np.ndarray, float]:
    """A direction along which the row of `token` lies at 1 and the mean of the others at 0, and where the next lies."""
    others = np.delete(seen, token, 0)
    away = seen[token] - others.mean(0)
    direction = away / np.square(away).sum()
    return direction, float(((others - others.mean(0)) @ direction).max())


def _fire_at(
    w: dict[str, np.ndarray],
    block: str,
    seen: np.ndarray,
    token: int,
    channel: int,
    size: float,
    rng: np.random.Generator,
) -> None:
    """A unit that is 20 where the layer sees what it sees at `token`, and below -20 elsewhere; it writes `size` into a
    channel."""
    direction, following = _towards(seen, token)
    threshold = (1 + following) / 2
    steep = 20 / (1 - threshold)
    middle = np.delete(seen, token, 0).mean(0) @ direction
    unit = int(rng.integers(w[block + "ffn_up.bias"].size))
    w[block + "ffn_up.weight"][unit] = np.float32(steep) * direction
    w[block + "ffn_up.bias"][unit] = -steep * (middle + threshold)
    down = w[block + "ffn_down.weight"]
    down[:, unit] *= np.float32(0.05)
    down[channel, unit] = np.float32(size / 20)


# --------------------------------------------------------------------------------------------------------- comparing


@dataclass(frozen=True)
class Difference:
    """How one place of the float computation and of the engine's arithmetic agree: cosines, over tokens (rows)."""

    place: str
    whole: float  # of all rows together
    least: float  # of the worst row
    bulk: float  # of all rows together, without the planted channels: these alone would make any cosine 1
    outlier: float  # the largest magnitude over the median one


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def _difference(place: str, a: np.ndarray, b: np.ndarray, without: np.ndarray, size_of: np.ndarray) -> Difference:
    rows = [cosine(x, y) for x, y in zip(a, b, strict=True)]
    bulk = cosine(np.delete(a, without, 1), np.delete(b, without, 1))
    magnitude = np.abs(size_of)
    return Difference(place, cosine(a, b), min(rows), bulk, float(magnitude.max() / np.median(magnitude)))


def _stack(exact: Recorder, vision: bool) -> tuple[str, int, str, str, str]:
    """Prefix, layers, name of the first norm, of the norm behind all layers, of attention's last matrix."""
    if vision:
        return "v.blk.", exact.metadata["clip.vision.block_count"], "ln1", "v.post_ln", "attn_out"
    return "blk.", exact.metadata["kosmos2.block_count"], "attn_norm", "output_norm", "attn_output"


def streams(exact: Recorder, other: Recorder, vision: bool, channels: np.ndarray) -> list[Difference]:
    """The residual stream behind each layer, with all errors before it; last, what the end norm makes of it."""
    prefix, layers, first, last, _ = _stack(exact, vision)
    behind = [f"{prefix}{i}.{first}" for i in range(1, layers)] + [last]
    out = []
    for i, name in enumerate(behind):
        a, b = exact.inputs[name], other.inputs[name]
        out.append(_difference(f"{prefix}{i}", a, b, channels, a))
    return [*out, _difference(last, exact.outputs[last], other.outputs[last], channels, exact.outputs[last])]


def matrices(exact: Recorder, other: EngineArithmetic, vision: bool, channels: np.ndarray) -> list[Difference]:
    """Every matrix of every layer alone: both computations get the float computation's input. outlier: of the input."""
    prefix, layers, _, _, attention = _stack(exact, vision)
    out = []
    for i in range(layers):
        for part in ("attn_q", "attn_k", "attn_v", attention, "ffn_up", "ffn_down"):
            name = f"{prefix}{i}.{part}"
            x = exact.inputs[name]
            none = channels if part in (attention, "ffn_down") else np.array([], int)
            out.append(_difference(name, exact.outputs[name], other.multiply(x, name), none, x))
    return out


def run_both(path: str, rgb: np.ndarray, ids: list[int], isa: str = "") -> tuple[Recorder, EngineArithmetic]:
    """Picture and text through both computations of a quantized file; both decoders see the exact picture."""
    other = EngineArithmetic(path, isa)
    exact = Recorder(other.metadata, other.weights)
    image = exact.encode_image(rgb)
    other.encode_image(rgb)
    prompt = exact.prompt([image, ids])
    exact.logits(prompt)
    other.logits(prompt)
    return exact, other
