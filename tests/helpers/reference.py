"""The model in plain numpy: the readable specification that the engine is held to.

One function per step, in the order in which a request runs through them: picture -> patches -> ViT -> resampler ->
decoder -> logits -> greedy or beam search. "HF" in the comments is transformers 5.23, models/kosmos2/
modeling_kosmos2.py unless another file is named. Weights carry their GGUF names. Nothing here is written for speed.

    ref = Reference.from_gguf("model.gguf")            # or Reference(tiny.metadata, tiny.weights)
    image = ref.encode_image(rgb)                      # (latents, width)
    prompt = ref.prompt([image, [id, id, ...]])        # <s> <image> slots </image> id id ...
    ref.generate(prompt, max_tokens=64).ids
"""

import math
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Prompt:
    """Token ids, and a vector (width,) for every position that holds a slot of a picture."""

    ids: list[int]
    vectors: dict[int, np.ndarray]


@dataclass(frozen=True)
class State:
    """The keys and values of all positions so far, per layer (positions, width). Never changed, only extended."""

    keys: list[np.ndarray]
    values: list[np.ndarray]
    length: int = 0


@dataclass
class Answer:
    """What generation gives: ids (with </s> where it came), log-probabilities, and how close the decisions were."""

    ids: list[int]
    logprobs: list[float] = field(default_factory=list)  # of each id, before any ban
    logits: list[np.ndarray] = field(default_factory=list)  # per step, greedy only
    score: float = 0.0  # beam search: log-probability / length ** length_penalty
    margin: float = math.inf  # smallest gap between what was chosen and what was not, in log-probability


# ------------------------------------------------------------------------------------------------- elementary steps


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    """torch.nn.LayerNorm over the last axis, with the population variance."""
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + x.dtype.type(eps)) * weight + bias


def quick_gelu(x: np.ndarray) -> np.ndarray:
    """The ViT's activation (HF configuration_kosmos2.py: hidden_act "quick_gelu")."""
    return x / (1 + np.exp(-x.dtype.type(1.702) * x))


def gelu(x: np.ndarray) -> np.ndarray:
    """The decoder's activation, with the error function (HF: activation_function "gelu")."""
    erf = np.array([math.erf(v) for v in (x.ravel() / math.sqrt(2)).tolist()]).reshape(x.shape)
    return (x * (0.5 * (1 + erf))).astype(x.dtype)


def softmax(x: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def log_softmax(x: np.ndarray) -> np.ndarray:
    """Natural log of softmax over the last axis, in float64."""
    x = x.astype(np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int, first: int | None = None) -> np.ndarray:
    """Multi-head attention, scale head_width ** -0.5 (HF eager_attention_forward).

    q (rows, width), k and v (positions, width). `first`: position of row 0 when attention is causal: row r then sees
    positions 0..first+r. Returns (rows, width), heads side by side.
    """
    rows, width = q.shape
    head = width // heads
    out = np.empty_like(q)
    for h in range(heads):
        at = slice(h * head, (h + 1) * head)
        scores = q[:, at] @ k[:, at].T * q.dtype.type(head**-0.5)
        if first is not None:
            seen = np.arange(k.shape[0])[None, :] <= first + np.arange(rows)[:, None]
            scores = np.where(seen, scores, q.dtype.type(-np.inf))
        out[:, at] = softmax(scores) @ v[:, at]
    return out


def sinusoid(position: int, width: int) -> np.ndarray:
    """Row `position` of the table of HF Kosmos2TextSinusoidalPositionalEmbedding.get_embedding, in float32.

    Frequencies exp(-i ln(10000) / (width/2 - 1)); sines, then cosines. HF computes in float32, and rounding of the
    frequencies matters: at position 2000 their last bit moves an angle by 1e-4. So: the exponent in float32, its
    exponential rightly rounded to float32 (torch's differs in 7 of 1024), the angle in float32.
    """
    half = width // 2
    exponent = np.arange(half, dtype=np.float32) * -np.float32(math.log(10000) / (half - 1))
    angle = np.float32(position) * np.exp(exponent.astype(np.float64)).astype(np.float32)
    return np.concatenate([np.sin(angle), np.cos(angle)])


def banned_tokens(ids: list[int], size: int) -> set[int]:
    """Tokens that would complete an n-gram of `size` that `ids` holds already (HF NoRepeatNGramLogitsProcessor).

    The whole sequence counts: prompt, the placeholder ids of picture slots, and location tokens (kosmos.md 1.5).
    """
    if size <= 0 or len(ids) + 1 < size:
        return set()
    tail = ids[len(ids) - size + 1 :]
    return {ids[i + size - 1] for i in range(len(ids) - size + 1) if ids[i : i + size - 1] == tail}


def preprocess(rgb: np.ndarray, size: int, mean: list[float], std: list[float]) -> np.ndarray:
    """(height, width, 3) uint8 -> (3, size, size) float32: PIL bicubic squash to a square, / 255, normalise.

    kosmos.md 1.1: the picture is not cropped and its aspect is not kept.
    """
    square = Image.fromarray(rgb, "RGB").resize((size, size), Image.Resampling.BICUBIC)
    pixels = np.asarray(square, dtype=np.float32) * np.float32(1 / 255)
    return ((pixels - np.float32(mean)) / np.float32(std)).transpose(2, 0, 1)


# -------------------------------------------------------------------------------------------------------- the model


class Reference:
    """KOSMOS-1 or KOSMOS-2 over a dict of weights by GGUF name; `dtype`: the type that everything is computed in."""

    def __init__(self, metadata: dict, weights: dict[str, np.ndarray], dtype: type = np.float32) -> None:
        value = {k: v[1] if isinstance(v, tuple) else v for k, v in metadata.items()}
        self.metadata = value
        self.dtype = dtype
        self.weights = {name: w.astype(dtype) for name, w in weights.items()}
        own = value["general.architecture"] + "."
        self.width: int = value[own + "embedding_length"]
        self.layers: int = value[own + "block_count"]
        self.heads: int = value[own + "attention.head_count"]
        self.eps: float = value[own + "attention.layer_norm_epsilon"]
        self.latents: int = value[own + "image_token_count"]
        self.first_slot: int = value[own + "first_slot_token_id"]
        self.bos: int = value["tokenizer.ggml.bos_token_id"]
        self.eos: int = value["tokenizer.ggml.eos_token_id"]
        pieces = value["tokenizer.ggml.tokens"]
        self.image_begin, self.image_end = pieces.index("<image>"), pieces.index("</image>")

    @classmethod
    def from_gguf(cls, path: str, dtype: type = np.float32) -> "Reference":
        """Read a GGUF file with the `gguf` package; quantized tensors are decoded to float32."""
        from gguf import GGUFReader
        from gguf.quants import dequantize

        reader = GGUFReader(path)
        weights = {
            t.name: dequantize(t.data, t.tensor_type).reshape([int(d) for d in reversed(t.shape)])
            for t in reader.tensors
        }
        metadata = {name: f.contents() for name, f in reader.fields.items() if not name.startswith("GGUF.")}
        return cls(metadata, weights, dtype)

    def linear(self, x: np.ndarray, name: str) -> np.ndarray:
        """x (rows, in) -> (rows, out): every linear layer of the model has a bias."""
        return x @ self.weights[name + ".weight"].T + self.weights[name + ".bias"]

    def norm(self, x: np.ndarray, name: str, eps: float | None = None) -> np.ndarray:
        """Layer norm with the parameters of that name."""
        return layer_norm(x, self.weights[name + ".weight"], self.weights[name + ".bias"], eps or self.eps)

    def attend(self, q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int) -> np.ndarray:
        """The tower's attention: every token sees every token."""
        return attention(q, k, v, heads)

    def vision(self, pixels: np.ndarray) -> np.ndarray:
        """(3, size, size) -> (patches + 1, vision width), each row of length 1.

        HF Kosmos2VisionTransformer, and in Kosmos2ForConditionalGeneration.generate the post_layernorm over *all*
        tokens and the L2 normalisation (kosmos.md 1.2).
        """
        w, value = self.weights, self.metadata
        eps, heads = value["clip.vision.attention.layer_norm_epsilon"], value["clip.vision.attention.head_count"]
        patch, side = value["clip.vision.patch_size"], pixels.shape[-1] // value["clip.vision.patch_size"]
        # The convolution has stride = kernel: cut the picture into patches, row by row, and multiply.
        patches = pixels.reshape(3, side, patch, side, patch).transpose(1, 3, 0, 2, 4).reshape(side * side, -1)
        kernel = w["v.patch_embd.weight"].reshape(-1, 3 * patch * patch)
        x = np.concatenate([w["v.class_embd"][None], patches.astype(self.dtype) @ kernel.T])
        x = self.norm(x + w["v.position_embd.weight"], "v.pre_ln", eps)
        for i in range(value["clip.vision.block_count"]):
            b = f"v.blk.{i}."
            h = self.norm(x, b + "ln1", eps)
            q, k, v = (self.linear(h, b + "attn_" + n) for n in "qkv")
            x = x + self.linear(self.attend(q, k, v, heads), b + "attn_out")
            x = x + self.linear(quick_gelu(self.linear(self.norm(x, b + "ln2", eps), b + "ffn_up")), b + "ffn_down")
        x = self.norm(x, "v.post_ln", eps)
        return x / np.maximum(np.sqrt((x * x).sum(-1, keepdims=True)), self.dtype(1e-12))

    def resample(self, features: np.ndarray) -> np.ndarray:
        """(patches + 1, vision width) -> (latents, width). HF Kosmos2ImageToTextProjection (kosmos.md 1.3).

        The latent queries look at the projected picture *and*, after it, at themselves.
        """
        query = self.weights["mm.latent_query"]
        both = np.concatenate([self.linear(features, "mm.dense"), query])
        q = self.linear(query, "mm.attn_q")
        k, v = self.linear(both, "mm.attn_k"), self.linear(both, "mm.attn_v")
        return self.linear(attention(q, k, v, self.heads), "mm.attn_out")

    def encode_image(self, rgb: np.ndarray) -> np.ndarray:
        """(height, width, 3) uint8 -> image embedding (latents, width)."""
        value = self.metadata
        mean, std = value["clip.vision.image_mean"], value["clip.vision.image_std"]
        return self.resample(self.vision(preprocess(rgb, value["clip.vision.image_size"], mean, std)))

    def prompt(self, segments: list[list[int] | np.ndarray]) -> Prompt:
        """<s>, then each segment: a list of ids as it is, an image embedding as <image> slots </image>.

        The slots' ids are first_slot, first_slot + 1, ... for every picture (HF processing_kosmos2.py __call__).
        """
        ids, vectors = [self.bos], {}
        for segment in segments:
            if isinstance(segment, np.ndarray):
                vectors.update({len(ids) + 1 + j: segment[j] for j in range(self.latents)})
                slots = range(self.first_slot, self.first_slot + self.latents)
                ids += [self.image_begin, *slots, self.image_end]
            else:
                ids += segment
        return Prompt(ids, vectors)

    def start(self) -> State:
        """The state before any position."""
        empty = np.zeros((0, self.width), self.dtype)
        return State([empty] * self.layers, [empty] * self.layers)

    def forward(self, state: State, ids: list[int], vectors: dict[int, np.ndarray]) -> tuple[np.ndarray, State]:
        """Feed tokens after `state`: logits (len(ids), vocab) and the state after them.

        HF Kosmos2TextTransformer (kosmos.md 1.4). `vectors` replaces the embedding at absolute positions.
        """
        w, first = self.weights, state.length
        embedding = w["token_embd.weight"]
        x = np.stack([vectors.get(first + i, embedding[token]) for i, token in enumerate(ids)]).astype(self.dtype)
        # Pictures are scaled like tokens; the first token of a sequence has position 2 (padding index 1, plus 1).
        places = np.stack([sinusoid(first + i + 2, self.width) for i in range(len(ids))])
        x = x * self.dtype(math.sqrt(self.width)) + places.astype(self.dtype)
        keys, values = [], []
        for i in range(self.layers):
            b = f"blk.{i}."
            h = self.norm(x, b + "attn_norm")
            keys.append(np.concatenate([state.keys[i], self.linear(h, b + "attn_k")]))
            values.append(np.concatenate([state.values[i], self.linear(h, b + "attn_v")]))
            o = attention(self.linear(h, b + "attn_q"), keys[i], values[i], self.heads, first)
            x = x + self.linear(self.norm(o, b + "attn_sub_norm"), b + "attn_output")
            h = gelu(self.linear(self.norm(x, b + "ffn_norm"), b + "ffn_up"))
            x = x + self.linear(self.norm(h, b + "ffn_sub_norm"), b + "ffn_down")
        return self.norm(x, "output_norm") @ embedding.T, State(keys, values, first + len(ids))

    def logits(self, prompt: Prompt) -> np.ndarray:
        """Logits of every position of a prompt, (positions, vocab)."""
        return self.forward(self.start(), prompt.ids, prompt.vectors)[0]

    def generate(self, prompt: Prompt, max_tokens: int, no_repeat_ngram_size: int = 0) -> Answer:
        """Greedy search (HF generation/utils.py _sample with do_sample=False); stops after </s> or `max_tokens`."""
        answer = Answer([])
        rows, state = self.forward(self.start(), prompt.ids, prompt.vectors)
        while True:
            logits = rows[-1]
            allowed = logits.astype(np.float64)
            allowed[list(banned_tokens(prompt.ids + answer.ids, no_repeat_ngram_size))] = -np.inf
            token, second = (int(i) for i in np.argsort(-allowed, kind="stable")[:2])
            answer.ids.append(token)
            answer.logits.append(logits)
            answer.logprobs.append(float(log_softmax(logits)[token]))
            answer.margin = min(answer.margin, float(allowed[token] - allowed[second]))
            if token == self.eos or len(answer.ids) == max_tokens:
                return answer
            rows, state = self.forward(state, [token], {})

    def score(self, prompt: Prompt, continuation: list[int]) -> list[float]:
        """Log-probability of each token of a given continuation (teacher forcing)."""
        rows = self.forward(self.start(), prompt.ids + continuation, prompt.vectors)[0]
        table = log_softmax(rows[len(prompt.ids) - 1 : -1])
        return [float(table[i, token]) for i, token in enumerate(continuation)]

    def beam_search(
        self,
        prompt: Prompt,
        num_beams: int,
        max_tokens: int,
        length_penalty: float = 1.0,
        no_repeat_ngram_size: int = 0,
    ) -> Answer:
        """HF generation/utils.py _beam_search with early_stopping=False; scores count generated tokens only.

        Each step takes the 2 * num_beams best continuations. Those among the first num_beams that end become finished
        with score = log-probability / generated length ** length_penalty; the best num_beams that do not end go on.
        It stops when num_beams are finished and the best running one, at its present length, is no better than the
        worst of them. At `max_tokens` every continuation counts as ended.
        """
        answer = Answer([])
        rows, state = self.forward(self.start(), prompt.ids, prompt.vectors)
        running = [([], 0.0, log_softmax(rows[-1]), state)]  # (ids, log-probability, next log-probabilities, state)
        finished: list[tuple[float, list[int]]] = []
        for length in range(1, max_tokens + 1):
            candidates = []
            for beam, (ids, total, table, _) in enumerate(running):
                scores = table + total
                scores[list(banned_tokens(prompt.ids + ids, no_repeat_ngram_size))] = -np.inf
                best = np.argsort(-scores, kind="stable")[: 2 * num_beams]
                candidates += [(float(scores[t]), beam, [*ids, int(t)]) for t in best]
            candidates.sort(key=lambda c: -c[0])
            ended = [c[2][-1] == self.eos or length == max_tokens for c in candidates]
            going = [c for c, end in zip(candidates[: 2 * num_beams], ended, strict=False) if not end]
            arrived = [c for c, end in zip(candidates[:num_beams], ended, strict=False) if end]
            penalty = length**length_penalty
            finished += [(total / penalty, ids) for total, _, ids in arrived]
            finished.sort(key=lambda f: -f[0])
            # How near was another outcome: a beam kept or dropped, a place among the finished, an end that counts.
            gaps = [going[num_beams - 1][0] - going[num_beams][0]] if len(going) > num_beams else []
            gaps += [(a[0] - b[0]) * penalty for a, b in pairwise(finished[: num_beams + 1])]
            if ended[num_beams - 1] or ended[num_beams]:
                gaps.append(candidates[num_beams - 1][0] - candidates[num_beams][0])
            del finished[num_beams:]
            stop = length == max_tokens
            if not stop and len(finished) == num_beams:
                gap = going[0][0] / penalty - finished[-1][0]
                gaps.append(abs(gap) * penalty)
                stop = gap <= 0
            answer.margin = min([answer.margin, *gaps])
            if stop:
                break
            following = []
            for total, beam, ids in going[:num_beams]:
                rows, state = self.forward(running[beam][3], ids[-1:], {})
                following.append((ids, total, log_softmax(rows[-1]), state))
            running = following
        answer.score, answer.ids = finished[0]
        answer.logprobs = self.score(prompt, answer.ids)
        return answer
