"""A converted OpenFlamingo with MPT gives the ids, image rows and logits of its parts in float32: MPT is transformers',
with the norms of queries and keys of MPT's own code in the smallest; the rest is as with GPT-NeoX."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import TOLERANCE, far, pictures, presets, reference, write

from kosmos_edge import _core, load
from kosmos_edge.convert import convert

LENGTH = 32
END = "<|endofchunk|>"
PROMPTS: dict[str, list[Any]] = {  # numbers are pictures
    "an image alone": [0],
    "a caption after an example": [0, f"Output:An image of a cat.{END}", 1, "Output:"],
    "text before, and neighbours": ["Some text that sees nothing.", 1, 0, "Question:what is it? Short answer:"],
    "no image": ["Question:what is it? Short answer:"],
}


class Pair:
    """A random checkpoint in torch and converted: that of GPT-NeoX with an MPT as its language model."""

    def __init__(self, folder: Path, name: str) -> None:
        import torch
        import transformers

        torch.manual_seed(len(name) + int(name[-1]))
        self.folder = write("openflamingo", name, folder / "parts")
        inner = self.folder / "lang_encoder"
        neox = json.loads((inner / "config.json").read_text())
        width, self.qk_norm = neox["hidden_size"], name.startswith("tiny")
        config = transformers.MptConfig(
            d_model=width, n_heads=neox["num_attention_heads"], n_layers=4, max_seq_len=2304,
            vocab_size=neox["vocab_size"], attn_config={"alibi": True, "qk_ln": self.qk_norm},
        )  # fmt: skip
        self.model = transformers.MptForCausalLM(config).eval()
        with torch.no_grad():
            for p in self.model.parameters():
                p.normal_(*((0, p.shape[1] ** -0.5) if p.ndim > 1 else (1, 0.2)))
        state = {key: p.clone() for key, p in self.model.state_dict().items() if key != "lm_head.weight"}
        self.gains = [[torch.rand(width) + 0.5 for _ in "qk"] for _ in range(4)]
        for i, block in enumerate(self.model.transformer.blocks):
            if self.qk_norm:
                state |= {
                    f"transformer.blocks.{i}.attn.{n}_ln.weight": g for n, g in zip("qk", self.gains[i], strict=True)
                }
                block.attn.Wqkv.register_forward_hook(self.norms(self.gains[i]))
        for path in inner.glob("*.safetensors"):
            path.unlink()
        (inner / "config.json").write_text(json.dumps(config.to_dict()))
        torch.save(state, inner / "pytorch_model.bin")
        self.state = {
            key.replace("gpt_neox.layers", "transformer.blocks").replace("gpt_neox.embed_in", "transformer.wte"): p
            for key, p in torch.load(self.folder / "checkpoint.pt", weights_only=True).items()
            if "embed_out" not in key
        }
        torch.save(self.state, self.folder / "checkpoint.pt")
        with torch.no_grad():
            self.model.transformer.wte.weight.copy_(self.state["lang_encoder.transformer.wte.weight"])
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(inner)
        self.images = transformers.AutoImageProcessor.from_pretrained(self.folder / "vision")
        self.clip = transformers.CLIPVisionModel.from_pretrained(self.folder / "vision").eval()
        self.path = convert(self.folder, folder / "f32.gguf", type="f32").output
        self.engine = _core.Engine(str(self.path), threads=1)
        self.metadata = _core.GgufFile(str(self.path)).metadata()
        self.image = self.tokenizer.convert_tokens_to_ids("<image>")

    @staticmethod
    def norms(gains: list[Any]) -> Any:
        import torch

        def norm(module: object, given: object, out: Any) -> Any:
            q, k, v = out.chunk(3, -1)
            q, k = (torch.nn.functional.layer_norm(x, g.shape, g) for x, g in zip((q, k), gains, strict=True))
            return torch.cat([q, k, v], -1)

        return norm

    def pixels(self, prompt: list[Any]) -> Any:
        from PIL import Image

        shown = [Image.fromarray(pictures()[p]) for p in prompt if isinstance(p, int)] or [Image.new("RGB", (9, 9))]
        return self.images(shown, return_tensors="pt").pixel_values

    def ids(self, prompt: list[Any]) -> list[int]:
        whole = "".join("<image>" if isinstance(p, int) else p for p in prompt)
        return self.tokenizer(whole, add_special_tokens=False).input_ids

    def segments(self, prompt: list[Any]) -> list[tuple[str, Any]]:
        found: list[tuple[str, Any]] = []
        for part in prompt:
            if isinstance(part, int):
                picture = pictures()[part]
                found.append(("image", self.engine.encode_image(picture.tobytes(), *picture.shape[1::-1])))
            else:
                found.append(("tags", part))
        return found

    def expected(self, ids: list[int], prompt: list[Any]) -> np.ndarray:
        """Gated blocks in front of every second one: a row looks at the last image in front of it."""
        import torch

        r, s = reference(), self.state
        with torch.inference_mode():
            media = r.perceiver(s, self.clip(self.pixels(prompt)).last_hidden_state[:, 1:])
            time = (torch.tensor(ids) == self.image).cumsum(0)
            owner = torch.arange(1, len(media) + 1).repeat_interleave(media.shape[1])
            rows, seen = media.flatten(0, 1)[None], (time > 0)[None, :, None]

            def gated(i: int) -> Any:
                p = f"lang_encoder.transformer.blocks.{i}.gated_cross_attn_layer."

                def hook(module: object, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
                    x = args[0]
                    k, v = r.lin(s, p + "attn.to_kv", rows).chunk(2, -1)
                    q = r.lin(s, p + "attn.to_q", r.ln(s, p + "attn.norm", x))
                    o = r.attend(q, k, v, 8, time[:, None] == owner[None]) * seen
                    x = x + s[p + "attn_gate"].tanh() * r.lin(s, p + "attn.to_out", o)
                    return (x + s[p + "ff_gate"].tanh() * r.flamingo_ff(s, p + "ff", x), *args[1:]), kwargs

                return hook

            blocks = self.model.transformer.blocks
            held = [blocks[i].register_forward_pre_hook(gated(i), with_kwargs=True) for i in (1, 3)]
            try:
                return self.model(torch.tensor([ids]), use_cache=False).logits[0].numpy()
            finally:
                for handle in held:
                    handle.remove()

    def logits(self, segments: list[tuple[str, Any]]) -> np.ndarray:
        raw, rows, cols = self.engine.logits(segments)
        return np.frombuffer(raw, np.float32).reshape(rows, cols)


@pytest.fixture(scope="module", params=presets())
def pair(request: pytest.FixtureRequest, transformers_here: None, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("openflamingo_mpt"), request.param)


@pytest.mark.parametrize("name", PROMPTS)
def test_logits(pair: Pair, name: str) -> None:
    ids, segments = pair.ids(PROMPTS[name]), pair.segments(PROMPTS[name])
    assert pair.engine.prompt_ids(segments) == ids
    assert far(pair.logits(segments), pair.expected(ids, PROMPTS[name])) <= TOLERANCE


@pytest.mark.parametrize("name", ["a caption after an example", "no image"])
def test_answers(pair: Pair, name: str) -> None:
    """Every token that the engine chooses is the likeliest of the reference's row, which its own row equals."""
    prompt = PROMPTS[name]
    segments, ids = pair.segments(prompt), pair.ids(prompt)
    params = _core.GenerateParams()
    params.max_tokens = LENGTH
    found = pair.engine.generate(segments, params).token_ids
    assert len(found) == LENGTH or found[-1] == pair.metadata["openflamingo_mpt.generation.end_token_id"]
    rows = pair.expected([*ids, *found], prompt)[len(ids) - 1 : -1].copy()
    assert far(pair.logits([*segments, ("ids", found)])[len(ids) - 1 : -1], rows) <= TOLERANCE
    rows[:, pair.image] = -np.inf
    assert rows.argmax(-1).tolist() == found


def test_positions_beyond_2000(pair: Pair) -> None:
    """Of one checkpoint with norms of queries and keys: a picture, 2,100 tokens, another picture."""
    if not pair.qk_norm:
        pytest.skip("one size is enough")
    many = [int(i) for i in np.random.default_rng(3).integers(100, 300, 2100)]
    (first, second), last = pair.segments([0, 1]), pair.ids(["Output:"])
    ids = [pair.image, *many, pair.image, *last]
    assert ids.count(pair.image) == 2
    found = pair.logits([first, ("ids", many), second, ("ids", last)])
    assert far(found, pair.expected(ids, [0, 1])) <= TOLERANCE


def test_the_verbs_prompts(pair: Pair) -> None:
    images = pictures()
    with load(pair.path, threads=1) as model:
        captioned = model.caption(images[1], examples=[(images[0], "a cat")], max_tokens=3)
        assert captioned.timings.prompt_tokens == len(pair.ids([0, f"Output:a cat{END}", 1, "Output:"]))
