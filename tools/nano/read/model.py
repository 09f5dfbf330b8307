"""KOSMOS-2.5 in plain torch, small, with the parameter names of the published Hugging Face checkpoint.

Three things are added for training only, and are left behind by the export:
- `PatchHeads` reads characters, order and boxes off each patch, which gives the encoder a direct signal;
- `CellHeads` reads the characters of a cell's patches off its latent;
- embeddings of <x_i> and <y_i> are one linear map of waves of i, so that near places start near each other and every
  box teaches all of them. `embedding_table` writes them out.

Latent queries stand for cells of 2 x 2 patches, at every place where a grid of MAX_PATCHES can have one (`cells`):
head h of the resampler starts with, and is for a while held to, patch h % 4 of the cell.

Shapes: B pictures, P patches with padding, L latents, D widths, T tokens of text.
"""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F

from .cells import cells
from .labels import PLACES, RANKS
from .paint import MAX_PATCHES, PATCH
from .texts import CHARS

PRESETS = {
    "narrow": {"vision_dim": 192, "vision_heads": 6, "vision_ffn": 512, "dim": 192, "heads": 4, "ffn": 512},
    "wide": {"vision_dim": 256, "vision_heads": 8, "vision_ffn": 512, "dim": 256, "heads": 4, "ffn": 768},
}
CONFIG = {**PRESETS["narrow"], "vision_layers": 5, "layers": 3, "max_patches": MAX_PATCHES}
WATCHED = 2  # heads of the decoder's later layers that learn where to look
CODE = 32  # widths at the start of a row that hold the place: 8 waves for rows, 8 for columns, as cosine and sine
# Sizes of code and content at the start: a norm divides both by their sum, so where content differs much from patch to
# patch, codes must be the larger part, or the sharpest code is that of the emptiest patch.
CODE_SIZE, CONTENT_SIZE = 3.0, 0.5


# ------------------------------------------------------------------------------------------ places
def _waves():
    return 2 * math.pi / 3.0 * (3.0 / 100.0) ** (torch.arange(8) / 7)


def code(row, column):
    """(..., 32): waves of 1-based patch rows and columns; code(a) . code(b) is largest where a = b"""
    parts = []
    for x in (row, column):
        angle = x.float()[..., None] * _waves()
        parts += [angle.cos(), angle.sin()]
    return torch.cat(parts, -1)


def shift(dy, dx):
    """(32, 32) with shift @ code(r, c) = code(r + dy, c + dx)"""
    m = torch.zeros(CODE, CODE)
    for at, d in ((0, dy), (16, dx)):
        for i, w in enumerate(_waves()):
            c, s = math.cos(w * d), math.sin(w * d)
            m[at + i, at + i], m[at + i, at + 8 + i] = c, -s
            m[at + 8 + i, at + i], m[at + 8 + i, at + 8 + i] = s, c
    return m


def look_at(layer_q, layer_k, heads, offsets, strength):
    """Start an attention so that head h looks at the patch `offsets[h]` away"""
    dim = layer_q.weight.shape[0]
    n = dim // heads
    with torch.no_grad():
        for h in range(heads):
            rows = slice(h * n, h * n + CODE)
            layer_q.weight[rows, :CODE] = strength * shift(*offsets[h % len(offsets)])
            layer_k.weight[rows, :CODE] = strength * torch.eye(CODE)


NEAR = [(-1, 0), (0, -1), (0, 1), (1, 0), (0, -2), (0, 2)]
SIDES = [(-1, 0), (0, -2), (0, 2), (1, 0), (0, -4), (0, 4)]


# ------------------------------------------------------------------------------------------ encoder
class RmsNorm(nn.Module):
    def __init__(self, dim, eps=1e-6):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps))


def heads_of(x, heads):
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class PatchAttention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.value, self.output = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)

    def forward(self, x, mask):
        q, k, v = (heads_of(p(x), self.heads) for p in (self.query, self.key, self.value))
        # written out: the gradient of torch's fused attention takes twice as long on a CPU for so few patches
        weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + mask).softmax(-1)
        return self.output((weights @ v).transpose(1, 2).flatten(2))


class GatedMlp(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.wi_0, self.wi_1 = nn.Linear(dim, hidden, bias=False), nn.Linear(dim, hidden, bias=False)
        self.wo = nn.Linear(hidden, dim, bias=False)

    def forward(self, x):
        return self.wo(F.gelu(self.wi_0(x), approximate="tanh") * self.wi_1(x))


class PatchLayer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.pre_attention_layer_norm, self.pre_mlp_layer_norm = RmsNorm(c["vision_dim"]), RmsNorm(c["vision_dim"])
        self.attention = PatchAttention(c["vision_dim"], c["vision_heads"])
        self.mlp = GatedMlp(c["vision_dim"], c["vision_ffn"])

    def forward(self, x, mask):
        x = x + self.attention(self.pre_attention_layer_norm(x), mask)
        return x + self.mlp(self.pre_mlp_layer_norm(x))


class Stack(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.layer = nn.ModuleList(layers)


class PatchEmbeddings(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.patch_projection = nn.Linear(3 * PATCH * PATCH, c["vision_dim"])
        self.row_embedder = nn.Embedding(c["max_patches"], c["vision_dim"])
        self.column_embedder = nn.Embedding(c["max_patches"], c["vision_dim"])

    def forward(self, patches, rows, columns):
        return self.patch_projection(patches) + self.row_embedder(rows) + self.column_embedder(columns)


class Encoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embeddings = PatchEmbeddings(c)
        self.encoder = Stack(PatchLayer(c) for _ in range(c["vision_layers"]))
        self.layernorm = RmsNorm(c["vision_dim"])

    def forward(self, patches, rows, columns):
        """patches (B, P, 768) whitened, rows and columns (B, P) from 1, 0 for padding -> (B, P, D) of unit length"""
        mask = torch.zeros(rows.shape).masked_fill(rows == 0, -1e9)[:, None, None, :]
        x = self.embeddings(patches, rows, columns)
        for layer in self.encoder.layer:
            x = layer(x, mask)
        return F.normalize(self.layernorm(x), dim=-1)


# ------------------------------------------------------------------------------------------ connector
class CrossAttention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.v_proj, self.out_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, query, memory):
        """(the answer, log of the weights (B, heads, queries, memory))"""
        q, k, v = (heads_of(x, self.heads) for x in (self.q_proj(query), self.k_proj(memory), self.v_proj(memory)))
        weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).log_softmax(-1)
        return self.out_proj((weights.exp() @ v).transpose(1, 2).flatten(2)), weights


class Resampler(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.dense = nn.Linear(c["vision_dim"], c["dim"])
        self.latent_query = nn.Parameter(torch.zeros(len(cells(c["max_patches"])), c["dim"]))
        self.x_attn = CrossAttention(c["dim"], c["heads"])

    def forward(self, features):
        features = self.dense(features)
        latents = self.latent_query.expand(len(features), -1, -1)
        return self.x_attn(latents, torch.cat([features, latents], 1))


# ------------------------------------------------------------------------------------------ decoder
class SelfAttention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.v_proj, self.out_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x, tail, past=None, watch=None):
        """Rows of x from `tail` on, which see everything up to themselves; past: keys and values before x.

        watch: also the log weights of the first WATCHED heads, of rows of x from there on"""
        q, k, v = heads_of(self.q_proj(x[:, tail:]), self.heads), self.k_proj(x), self.v_proj(x)
        k, v = heads_of(k, self.heads), heads_of(v, self.heads)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        n, m = q.shape[2], k.shape[2]
        seen = torch.ones(n, m, dtype=torch.bool).tril(m - n)
        o = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        weights = None
        if watch is not None:
            few = q[:, :WATCHED, watch - tail :] * q.shape[-1] ** -0.5
            score = few @ k[:, :WATCHED].transpose(-1, -2)
            weights = score.masked_fill(~seen[watch - tail :], -1e9).log_softmax(-1)
        return self.out_proj(o.transpose(1, 2).flatten(2)), (k, v), weights


class Ffn(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.ffn_layernorm = nn.LayerNorm(hidden)

    def forward(self, x):
        return self.fc2(self.ffn_layernorm(F.gelu(self.fc1(x))))


class TextLayer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.self_attn = SelfAttention(c["dim"], c["heads"])
        self.self_attn_layer_norm, self.final_layer_norm = nn.LayerNorm(c["dim"]), nn.LayerNorm(c["dim"])
        self.ffn = Ffn(c["dim"], c["ffn"])

    def forward(self, x, tail=0, past=None, watch=None):
        h, kept, weights = self.self_attn(self.self_attn_layer_norm(x), tail, past, watch)
        x = x[:, tail:] + h
        return x + self.ffn(self.final_layer_norm(x)), kept, weights


class Decoder(nn.Module):
    def __init__(self, c, vocabulary):
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, c["dim"], padding_idx=1)
        self.segment_emb = nn.Embedding(2, c["dim"])
        self.layers = nn.ModuleList(TextLayer(c) for _ in range(c["layers"]))
        self.layer_norm = nn.LayerNorm(c["dim"])


def positions(count, dim, start=0):
    """(count, dim) sinusoids of positions 2, 3, ... (`start` further on), sines first"""
    half = dim // 2
    rate = torch.exp(torch.arange(half).float() * (-math.log(10000) / (half - 1)))
    angle = (torch.arange(count).float() + 2 + start)[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], 1)


def place_waves(count):
    """(count, 64): waves of 6 to 4096 pixels, unit length: near places have near rows"""
    rate = 2 * math.pi / 6 * (6 / 4096) ** (torch.arange(32) / 31)
    angle = torch.arange(count).float()[:, None] * rate
    return torch.cat([angle.cos(), angle.sin()], 1) / 32**0.5


class TextModel(nn.Module):
    def __init__(self, c, vocabulary):
        super().__init__()
        self.model = Decoder(c, vocabulary)


class Read(nn.Module):
    """tokens: vocabulary without places; places: how many <x_i>, and as many <y_i>, stand behind them"""

    def __init__(self, c, tokens, places):
        super().__init__()
        self.config, self.tokens, self.places = c, tokens, places
        self.vision_model = Encoder(c)
        self.image_to_text_projection = Resampler(c)
        self.text_model = TextModel(c, tokens)
        self.place_map = nn.Parameter(torch.randn(2, 64, c["dim"]) * c["dim"] ** -0.5)
        self.register_buffer("waves", place_waves(places), persistent=False)
        self.start()

    def start(self):
        c = self.config
        for name, p in self.named_parameters():
            if p.ndim == 2 and "embed" not in name and "place" not in name and "latent" not in name:
                nn.init.normal_(
                    p, std=p.shape[1] ** -0.5 * (0.5 if "out" in name or "wo" in name or "fc2" in name else 1)
                )
            elif name.endswith(".bias"):
                nn.init.zeros_(p)
        nn.init.normal_(self.text_model.model.embed_tokens.weight, std=c["dim"] ** -0.5)
        nn.init.zeros_(self.text_model.model.segment_emb.weight)
        e = self.vision_model.embeddings
        numbers, zero = torch.arange(c["max_patches"]), torch.zeros(c["max_patches"])
        with torch.no_grad():
            self.text_model.model.embed_tokens.weight[1] = 0
            nn.init.normal_(e.patch_projection.weight, std=CONTENT_SIZE * (3 * PATCH * PATCH) ** -0.5)
            e.patch_projection.weight[:CODE] *= 0.1
            nn.init.normal_(e.row_embedder.weight, std=0.02)
            nn.init.normal_(e.column_embedder.weight, std=0.02)
            e.row_embedder.weight[:, :16] = CODE_SIZE * code(numbers, zero)[:, :16]
            e.column_embedder.weight[:, 16:CODE] = CODE_SIZE * code(zero, numbers)[:, 16:]
            e.row_embedder.weight[0] = 0  # of the padding
            e.column_embedder.weight[0] = 0
            for n, layer in enumerate(self.vision_model.encoder.layer):
                offsets = NEAR if n < 2 else SIDES if n < c["vision_layers"] - 1 else None
                if offsets:
                    strength = (2.6 + 0.3 * n) / CODE_SIZE
                    look_at(layer.attention.query, layer.attention.key, c["vision_heads"], offsets, strength)
            r = self.image_to_text_projection
            r.dense.weight[:CODE, :] = 0
            r.dense.weight[:CODE, :CODE] = torch.eye(CODE)
            r.dense.weight *= 16
            place = torch.tensor(cells(c["max_patches"]))
            r.latent_query.normal_(std=0.1)
            r.latent_query[:, :CODE] = code(2 * place[:, 0] + 1, 2 * place[:, 1] + 1)
            look_at(r.x_attn.q_proj, r.x_attn.k_proj, c["heads"], [(0, 0), (0, 1), (1, 0), (1, 1)], 2.0)
            r.x_attn.out_proj.weight *= 0.1

    def embedding_table(self):
        """(vocabulary, D) with the places written out: <x_0> <y_0> <x_1> ..."""
        places = torch.einsum("ik,akd->iad", self.waves, self.place_map).flatten(0, 1)
        return torch.cat([self.text_model.model.embed_tokens.weight, places])

    def image(self, patches, rows, columns):
        """(features (B, P, D), latents (B, L, D), log weights of the resampler)"""
        features = self.vision_model(patches, rows, columns)
        return features, *self.image_to_text_projection(features)

    def text(self, latents, table, before, ids):
        """(hidden rows (B, T + 1, D) from the last of `before` on, log weights of watched heads for the same rows).

        The sequence is <s> <image> L slots </image> task, then ids (B, T). before: the ids of the four. Watched are
        heads of all layers but the first."""
        m, dim = self.text_model.model, self.config["dim"]
        b, slots = len(ids), latents.shape[1]
        head = table[torch.tensor(before)].expand(b, -1, -1)
        x = torch.cat([head[:, :2], latents, head[:, 2:], table[ids]], 1) * dim**0.5
        x = x + positions(x.shape[1], dim)
        segment = torch.zeros(x.shape[1], dtype=torch.long)
        segment[1 : slots + 3] = 1
        x = x + m.segment_emb(segment)
        watched, first = [], slots + 3
        for n, layer in enumerate(m.layers):
            x, _, weights = layer(x, tail=first if n == len(m.layers) - 1 else 0, watch=first if n else None)
            watched += [weights] if n else []
        return m.layer_norm(x), watched


# ------------------------------------------------------------------------------------------ heads of training
class PatchHeads(nn.Module):
    """Of a patch's unit vector: characters at 6 points; order, characters before and box at 2"""

    SIZES = (6 * (len(CHARS) + 1), 2 * RANKS, 2 * PLACES, 2 * 4)

    def __init__(self, dim):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(16.0))
        self.out = nn.Linear(dim, sum(self.SIZES))
        nn.init.normal_(self.out.weight, std=dim**-0.5)

    def forward(self, features):
        parts = self.out(features * self.scale).split(self.SIZES, -1)
        return [p.unflatten(-1, shape) for p, shape in zip(parts, ((6, -1), (2, -1), (2, -1), (2, 4)), strict=True)]


class CellHeads(nn.Module):
    """Of a latent (scaled as the decoder has it): the characters at the 6 points of each of its 4 patches"""

    def __init__(self, dim):
        super().__init__()
        self.out = nn.ModuleList(nn.Linear(dim, 6 * (len(CHARS) + 1)) for _ in range(4))
        self.norm = nn.LayerNorm(dim)

    def forward(self, latents, which):
        return self.out[which](self.norm(latents)).unflatten(-1, (6, -1))
