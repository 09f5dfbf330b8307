"""Q-Formers on random weights against transformers in float32: BLIP-2's, and InstructBLIP's, which reads text."""

from pathlib import Path

import numpy as np
import pytest
from families import TOLERANCE, far
from helpers.tiny import GgufContent, encode_tensor, write_gguf

from kosmos_edge import _core

pytestmark = pytest.mark.usefixtures("transformers_here")
FEATURES, OUT, VOCAB = 88, 64, 70
KINDS = {"blip2": (32, 128, 4, 6, 2), "instructblip": (32, 128, 2, 5, 2), "instructblip, every third": (7, 96, 3, 4, 3)}
SELF = {"q": "attention.query", "k": "attention.key", "v": "attention.value", "output": "output.dense"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [0, 1])
def test_rows(kind: str, seed: int, tmp_path: Path) -> None:
    import torch
    import transformers

    reads = kind.startswith("instructblip")
    queries, width, heads, layers, every = KINDS[kind]
    name = "InstructBlipQFormer" if reads else "Blip2QFormer"
    config = getattr(transformers, name + "Config")(
        hidden_size=width, intermediate_size=192, num_hidden_layers=layers, num_attention_heads=heads,
        encoder_hidden_size=FEATURES, cross_attention_frequency=every, vocab_size=VOCAB, max_position_embeddings=20,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = getattr(transformers, name + "Model")(config).eval()
    projection = torch.nn.Linear(width, OUT)
    with torch.no_grad():
        for key, p in [*model.named_parameters(), *projection.named_parameters()]:
            gain = p[0].numel() ** -0.5 if p.ndim > 1 and "embeddings" not in key else 0.3
            p.normal_(1 if p.ndim == 1 and "norm" in key.lower() and key.endswith("weight") else 0, gain)
    start = torch.randn(1, queries, width)
    state = {key: value.detach().numpy() for key, value in model.state_dict().items()}
    tensors = {"mm.query": start[0].numpy()}

    def take(theirs: str, ours: str) -> None:
        for end in ("weight", "bias"):
            tensors[f"{ours}.{end}"] = state[f"{theirs}.{end}"]

    state |= {f"projection.{key}": value.detach().numpy() for key, value in projection.state_dict().items()}
    take("projection", "mm.0")
    take("embeddings.layernorm" if reads else "layernorm", "mm.query_norm")
    if reads:
        tensors["mm.token_embd.weight"] = state["embeddings.word_embeddings.weight"]
        tensors["mm.position_embd.weight"] = state["embeddings.position_embeddings.weight"]
    for i in range(layers):
        a, b = f"encoder.layer.{i}.", f"mm.blk.{i}."
        for where, here in (("attention.", ""), ("crossattention.", "cross.")):
            if here and i % every:
                continue
            for ours, theirs in SELF.items():
                take(f"{a}{where}{theirs}", f"{b}{here}attn_{ours}")
            take(f"{a}{where}output.LayerNorm", f"{b}{here}attn_norm")
        for suffix, here in (("_query", ""), ("", "text.")):
            if here and (not reads or i + 1 == layers):
                continue
            take(f"{a}intermediate{suffix}.dense", f"{b}{here}ffn_up")
            take(f"{a}output{suffix}.dense", f"{b}{here}ffn_down")
            take(f"{a}output{suffix}.LayerNorm", f"{b}{here}ffn_norm")
    path = tmp_path / "a.gguf"
    write_gguf(path, GgufContent({}, {n: encode_tensor(n, np.ascontiguousarray(t), "F32") for n, t in tensors.items()}))
    shape = {
        "width": width, "ff_width": 192, "heads": heads, "layers": layers, "queries": queries, "cross_every": every,
        "eps": 1e-12, "post_norm": True, "feature_width": FEATURES, "project_width": OUT,
        **({"text_vocab": VOCAB, "text_positions": 20} if reads else {}),
    }  # fmt: skip
    qformer = _core.testing.Qformer(str(path), shape)
    rng = np.random.default_rng(seed)
    for rows, length in ((17, 0 if not reads else 1), (5, 0 if not reads else 20), (257, 0 if not reads else 9)):
        image = rng.normal(size=(rows, FEATURES)).astype(np.float32)
        text = rng.integers(0, VOCAB, length).tolist()
        with torch.inference_mode():
            seen = torch.tensor(image)[None]
            if reads:
                mask = torch.ones(1, queries + length, dtype=torch.long)
                found = model(torch.tensor([text]), attention_mask=mask, query_embeds=start, encoder_hidden_states=seen)
            else:
                found = model(query_embeds=start, encoder_hidden_states=seen)
            expected = projection(found.last_hidden_state[0, :queries]).numpy()
        got = np.frombuffer(qformer.forward(image.tobytes(), text), np.float32).reshape(queries, OUT)
        assert far(got, expected) <= TOLERANCE
