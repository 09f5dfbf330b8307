"""KOSMOS-2 in plain torch, small, with the parameter names of the published Hugging Face checkpoint.

The forward pass is the published one: a CLIP ViT whose tokens all pass the closing norm and are brought to unit
length, 64 latent queries that attend to [projected patches ; themselves], and a Magneto decoder (sub-layer norms,
sinusoidal positions from 2, embeddings times sqrt(d), tied output). Two things are added for training only:

- `decode` takes several texts *packed* behind one image prefix. Each text sees the prefix and itself, at the
  positions it would have alone, so one vision pass serves five texts and the numbers equal separate passes.
- `DenseHeads`, linear read-outs of each patch's unit-length feature, which give the ViT a direct signal.

Shapes: B pictures, P = 64 patches, L = 64 latents, D = 256, T text tokens, V vocabulary.
"""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from boxes import BINS
from world import BACKGROUNDS, COLORS, MAX_OBJECTS, SHAPES, TONES

CONFIG = {
    "image": 112,
    "patch": 14,
    "dim": 256,
    "heads": 4,
    "ffn": 1024,
    "latents": 64,
    "vision_layers": 4,
    "text_layers": 3,
}  # the ViT has the same widths unless vision_dim, vision_heads, vision_ffn say otherwise
POSITIONS = 2048


def vision_config(c):
    """The ViT's own configuration: dim, heads, ffn, layers, image, patch"""
    own = {k: c.get("vision_" + k, c[k]) for k in ("dim", "heads", "ffn")}
    return {**own, "layers": c["vision_layers"], "image": c["image"], "patch": c["patch"]}


def attention(q, k, v, heads, mask=None):
    """q (B, n, D), k and v (B, m, D) -> (B, n, D)"""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    if q.is_cuda:  # the fused one; None and a mask alike
        mask = None if mask is None else mask.to(q.dtype)
        o = F.scaled_dot_product_attention(q, k.to(q.dtype), v.to(q.dtype), mask)
        return o.transpose(1, 2).flatten(2)
    score = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5  # written out: its backward pass is the faster on a CPU
    if mask is not None:
        score = score + mask
    return (score.softmax(-1).to(v.dtype) @ v).transpose(1, 2).flatten(2)


class Attention(nn.Module):
    def __init__(self, dim, heads, inner_norm=False):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.v_proj, self.out_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.inner_attn_ln = nn.LayerNorm(dim) if inner_norm else nn.Identity()

    def forward(self, query, memory, mask=None):
        o = attention(self.q_proj(query), self.k_proj(memory), self.v_proj(memory), self.heads, mask)
        return self.out_proj(self.inner_attn_ln(o))


# ------------------------------------------------------------------------------------------ vision
class QuickGeluMlp(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x):
        h = self.fc1(x)
        return self.fc2(h * torch.sigmoid(1.702 * h))


class VisionLayer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.self_attn = Attention(c["dim"], c["heads"])
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(c["dim"]), nn.LayerNorm(c["dim"])
        self.mlp = QuickGeluMlp(c["dim"], c["ffn"])

    def forward(self, x):
        h = self.layer_norm1(x)
        x = x + self.self_attn(h, h)
        return x + self.mlp(self.layer_norm2(x))


class VisionEmbeddings(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.class_embedding = nn.Parameter(torch.empty(c["dim"]))
        self.patch_embedding = nn.Conv2d(3, c["dim"], c["patch"], c["patch"], bias=False)
        self.position_embedding = nn.Embedding((c["image"] // c["patch"]) ** 2 + 1, c["dim"])

    def forward(self, pixels):
        w = self.patch_embedding.weight
        n = w.shape[-1]
        b, _, h, _ = pixels.shape
        x = pixels.view(b, 3, h // n, n, h // n, n).permute(0, 2, 4, 1, 3, 5).reshape(b, -1, w[0].numel())
        x = x @ w.flatten(1).T  # a convolution of stride = width
        x = torch.cat([self.class_embedding.expand(b, 1, -1).to(x.dtype), x], 1)
        return x + self.position_embedding.weight


class Encoder(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)


class VisionTransformer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embeddings = VisionEmbeddings(c)
        self.pre_layrnorm = nn.LayerNorm(c["dim"])  # the published spelling
        self.encoder = Encoder(VisionLayer(c) for _ in range(c["layers"]))
        self.post_layernorm = nn.LayerNorm(c["dim"])

    def forward(self, pixels):
        """(B, 3, 112, 112) -> (B, 1 + P, D), unit length"""
        x = self.pre_layrnorm(self.embeddings(pixels))
        for layer in self.encoder.layers:
            x = layer(x)
        return F.normalize(self.post_layernorm(x).float(), dim=-1)


# ------------------------------------------------------------------------------------------ connector
class Resampler(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.latent_query = nn.Parameter(torch.randn(c["latents"], c["dim"]))
        self.dense = nn.Linear(vision_config(c)["dim"], c["dim"])
        self.x_attn = Attention(c["dim"], c["heads"])

    def memory(self, features):
        return torch.cat([self.dense(features), self.latent_query.expand(len(features), -1, -1).to(features.dtype)], 1)

    def forward(self, features):
        """(B, 1 + P, D) -> (B, L, D)"""
        return self.x_attn(self.latent_query.expand(len(features), -1, -1), self.memory(features))


# ------------------------------------------------------------------------------------------ decoder
class DecoderFfn(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.ffn_layernorm = nn.LayerNorm(hidden)

    def forward(self, x):
        return self.fc2(self.ffn_layernorm(F.gelu(self.fc1(x))))


class DecoderLayer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.self_attn = Attention(c["dim"], c["heads"], inner_norm=True)
        self.self_attn_layer_norm, self.final_layer_norm = nn.LayerNorm(c["dim"]), nn.LayerNorm(c["dim"])
        self.ffn = DecoderFfn(c["dim"], c["ffn"])

    def forward(self, x, mask, skip=0):
        """`skip`: rows that are only looked at, never read again (the image prefix in the last layer)"""
        h = self.self_attn_layer_norm(x)
        x = x[:, skip:] + self.self_attn(h[:, skip:], h, mask[skip:])
        return x + self.ffn(self.final_layer_norm(x))


def sinusoid(count, dim):
    """(count, dim): sines, then cosines; row p is position p"""
    half = dim // 2
    f = torch.exp(torch.arange(half, dtype=torch.float32) * -(math.log(10000) / (half - 1)))
    angle = torch.arange(count, dtype=torch.float32)[:, None] * f
    return torch.cat([angle.sin(), angle.cos()], 1)


class TextTransformer(nn.Module):
    def __init__(self, c, vocabulary):
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, c["dim"])
        self.layers = nn.ModuleList(DecoderLayer(c) for _ in range(c["text_layers"]))
        self.layer_norm = nn.LayerNorm(c["dim"])
        self.register_buffer("positions", sinusoid(POSITIONS + 2, c["dim"]), persistent=False)

    def forward(self, x, position, mask, skip=0):
        """x (B, n, D) embeddings, position (n,), mask (n, n) additive -> (B, n - skip, D) before the output matrix"""
        x = x * math.sqrt(x.shape[-1]) + self.positions[position]
        last = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            x = layer(x, mask, skip if i == last else 0)
        return self.layer_norm(x)


class Wrapped(nn.Module):
    """One level of naming: `vision_model.model.…`, `text_model.model.…`"""

    def __init__(self, model):
        super().__init__()
        self.model = model


class Nano(nn.Module):
    def __init__(self, vocabulary, image_open, image_close, config=CONFIG):
        super().__init__()
        self.config = dict(config)
        self.text_model = Wrapped(TextTransformer(config, vocabulary))
        self.vision_model = Wrapped(VisionTransformer(vision_config(config)))
        self.image_to_text_projection = Resampler(config)
        self.image_tags = (image_open, image_close)
        initialise(self)

    @property
    def prefix(self):
        """tokens before the text: <s> <image> 64 slots </image>"""
        return self.config["latents"] + 3

    def features(self, pixels):
        return self.vision_model.model(pixels)

    def image_tokens(self, features):
        return self.image_to_text_projection(features)

    def decode(self, image_tokens, ids, layout):
        """Packed texts (B, T) behind the image -> hidden states (B, T, D); `layout` from `packed_layout`"""
        t = self.text_model.model
        e = t.embed_tokens
        b = len(ids)
        opening, closing = self.image_tags
        before = e(torch.tensor([0, opening], device=ids.device)).expand(b, -1, -1)
        after = e(torch.tensor([closing], device=ids.device)).expand(b, -1, -1)
        x = torch.cat([before, image_tokens.float(), after, e(ids)], 1)
        mask, position = layout
        return t(x, position, mask, self.prefix)

    def read(self, parts, position, mask):
        """Any interleaving: a list of token ids (B, n) and image tokens (B, L, D) -> hidden states of all rows"""
        e = self.text_model.model.embed_tokens
        x = [p.float() if p.is_floating_point() else e(p) for p in parts]
        return self.text_model.model(torch.cat(x, 1), position, mask)

    def logits(self, hidden):
        return hidden @ self.text_model.model.embed_tokens.weight.T


def packed_layout(prefix, lengths):
    """Mask (n, n) and positions (n,) of `prefix` rows and then texts of these lengths, each blind to the others."""
    n = prefix + sum(lengths)
    allowed = torch.zeros(n, n, dtype=torch.bool)
    allowed[:, :prefix] = True
    position = list(range(2, 2 + prefix))
    i = prefix
    for k in lengths:
        allowed[i : i + k, i : i + k] = True
        position += range(2 + prefix, 2 + prefix + k)
        i += k
    allowed &= torch.ones(n, n, dtype=torch.bool).tril()
    return torch.zeros(n, n).masked_fill(~allowed, -1e9), torch.tensor(position)


# ------------------------------------------------------------------------------------------ starting values
@torch.no_grad()
def initialise(m):
    """Xavier everywhere, then two starts that know the plane: patch positions as smooth bumps over x and y, and
    early heads whose keys equal their queries, so that near patches attend to each other from the first step."""
    dim = m.config["dim"]
    v = vision_config(m.config)
    for module in m.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    m.text_model.model.embed_tokens.weight.normal_(0, dim**-0.5)[1].zero_()
    e = m.vision_model.model.embeddings
    e.patch_embedding.weight.normal_(0, e.patch_embedding.weight[0].numel() ** -0.5)
    e.class_embedding.normal_(0, 0.3)
    rows = m.config["image"] // m.config["patch"]
    plane = plane_code(rows, rows + 2, (-0.5, rows - 0.5), 1.1, v["dim"])
    e.position_embedding.weight.normal_(0, 0.3)[1:] = plane * (0.35 / plane.pow(2).mean().sqrt())
    for i, layer in enumerate(m.vision_model.model.encoder.layers):
        a = layer.self_attn
        a.k_proj.weight.mul_(0.7)
        shared = v["dim"] // a.heads * (a.heads - 1 if i < 2 else 1)
        a.k_proj.weight[:shared] = a.q_proj.weight[:shared]


def plane_code(cells, bumps, span, width, dim):
    """(cells * cells, dim): Gaussian bumps along x and along y, each in its own random orthogonal directions"""
    centre = torch.linspace(*span, bumps)
    code = torch.exp(-0.5 * ((torch.arange(cells).float()[:, None] - centre) / width) ** 2)
    code = code - code.mean(0)
    basis = torch.linalg.qr(torch.randn(dim, dim))[0]
    return ((code @ basis[:bumps])[:, None] + (code @ basis[bumps : 2 * bumps])[None]).reshape(cells * cells, dim)


@torch.no_grad()
def initialise_locations(m, first_location):
    """Location tokens start as smooth codes of their cell's x and y, of the words' length, plus a little noise."""
    e = m.text_model.model.embed_tokens.weight
    dim = e.shape[1]
    code = plane_code(BINS, 16, (0, BINS - 1), 2.2, dim)
    e[first_location:] = code / code.norm(dim=-1).mean() + 0.1 * dim**-0.5 * torch.randn(BINS * BINS, dim)


# ------------------------------------------------------------------------------------------ dense heads
def soft_bins(target, width=1.0):
    """(...,) bins -> (..., 32) Gaussian of `width` bins around each"""
    p = torch.exp(-0.5 * ((torch.arange(BINS) - target[..., None].float()) / width) ** 2)
    return p / p.sum(-1, keepdim=True)


PATCH_HEADS = {
    "object": 2,
    "shape": len(SHAPES),
    "color": len(COLORS),
    "rank": MAX_OBJECTS,
    "box": 4 * BINS,
    "index": (CONFIG["image"] // CONFIG["patch"]) ** 2,
}
PICTURE_HEADS = {"count": MAX_OBJECTS, "kind": len(BACKGROUNDS), "tone": len(TONES)}
HEAD_WEIGHTS = {
    "object": 1.0,
    "shape": 1.5,
    "color": 1.0,
    "rank": 0.5,
    "box": 1.0,
    "index": 0.2,
    "count": 0.5,
    "kind": 0.2,
    "tone": 0.1,
}


class DenseHeads(nn.Module):
    """Per patch: is there an object, its shape, colour, rank from the left, box; the patch's own index.
    Per picture, from the class token: count, background kind and tone. Thrown away after training."""

    def __init__(self, dim):
        super().__init__()
        self.patch = nn.Linear(dim, sum(PATCH_HEADS.values()))
        self.picture = nn.Linear(dim, sum(PICTURE_HEADS.values()))

    def forward(self, features):
        x = features * features.shape[-1] ** 0.5
        patch = self.patch(x[:, 1:]).split(list(PATCH_HEADS.values()), -1)
        picture = self.picture(x[:, 0]).split(list(PICTURE_HEADS.values()), -1)
        return dict(zip(PATCH_HEADS, patch, strict=True)), dict(zip(PICTURE_HEADS, picture, strict=True))

    def loss(self, features, labels):
        """-> weighted sum, and each part as a number"""
        patch, picture = self(features)
        inside = labels["inside"].flatten()
        part = {"object": F.cross_entropy(patch["object"].flatten(0, 1), labels["object"].flatten())}
        for k in ("shape", "color", "rank"):
            part[k] = F.cross_entropy(patch[k].flatten(0, 1)[inside], labels[k].flatten()[inside])
        log_box = patch["box"].flatten(0, 1)[inside].view(-1, 4, BINS).log_softmax(-1)
        part["box"] = -(soft_bins(labels["box"].flatten(0, 1)[inside]) * log_box).sum(-1).mean()
        index = torch.arange(patch["index"].shape[1]).repeat(len(features))
        part["index"] = F.cross_entropy(patch["index"].flatten(0, 1), index)
        for k in picture:
            part[k] = F.cross_entropy(picture[k], labels[k])
        return sum(HEAD_WEIGHTS[k] * v for k, v in part.items()), {k: v.item() for k, v in part.items()}
