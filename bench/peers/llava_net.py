"""LLaVA's published sizes, and transformers' model of them with random weights. Needs no kosmos_edge."""

import time
from dataclasses import dataclass

VOCAB, CONTEXT, WORDS = 32064, 4096, 23
VISION = {"vision": 1024, "vision_ff": 4096, "vision_layers": 24, "vision_heads": 16, "image": 336, "patch": 14}
ROWS = (VISION["image"] // VISION["patch"]) ** 2  # of a picture
PROMPT = 1 + ROWS + WORDS  # with <s>


@dataclass(frozen=True)
class Sizes:
    """A LLaMA's sizes; of how many layers, where not all of them are measured."""

    name: str
    width: int
    ff: int
    layers: int
    heads: int
    kv: int
    published_layers: int

    @property
    def head(self) -> int:
        """Width of a head."""
        return self.width // self.heads

    @property
    def about(self) -> str:
        """In words, for a table's head."""
        part = "" if self.layers == self.published_layers else f", {self.layers} of its {self.published_layers} layers"
        return f"{self.name}{part}"


MODELS = {
    "tinyllava": Sizes("TinyLLaVA (LLaMA 1.1 B, CLIP ViT-L/14 at 336 pixels)", 2048, 5632, 22, 32, 4, 22),
    "llava-7b": Sizes("LLaVA-1.5 7B", 4096, 11008, 8, 32, 32, 32),
}


class Transformers:
    """transformers' LLaVA of these sizes with random weights, in float32 or bfloat16."""

    def __init__(self, model: str, threads: int, kind: str) -> None:
        import torch
        import transformers

        sizes = MODELS[model]
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        torch.manual_seed(0)
        dtype = torch.bfloat16 if kind == "llava-bf16" else torch.float32
        torch.set_default_dtype(dtype)
        text = transformers.LlamaConfig(
            vocab_size=VOCAB, hidden_size=sizes.width, intermediate_size=sizes.ff, num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads, num_key_value_heads=sizes.kv, max_position_embeddings=CONTEXT,
        )  # fmt: skip
        vision = transformers.CLIPVisionConfig(
            hidden_size=VISION["vision"], intermediate_size=VISION["vision_ff"], image_size=VISION["image"],
            num_hidden_layers=VISION["vision_layers"], num_attention_heads=VISION["vision_heads"],
            patch_size=VISION["patch"], projection_dim=768,
        )  # fmt: skip
        config = transformers.LlavaConfig(text_config=text, vision_config=vision, vision_feature_layer=-2)
        self.torch, self.dtype = torch, dtype
        self.model = transformers.LlavaForConditionalGeneration(config).eval()
        self.rows = torch.randn(1, PROMPT, sizes.width)
        self.about = {"version": f"transformers {transformers.__version__}, torch {torch.__version__}"}

    def encode(self) -> object:
        """Picture to rows."""
        pixels = self.torch.randn(1, 3, VISION["image"], VISION["image"])
        return self.model.get_image_features(pixel_values=pixels)

    def prefill(self) -> object:
        """The prompt; logits of its last position."""
        out = self.model.model.language_model(inputs_embeds=self.rows, use_cache=True)
        return out, self.model.lm_head(out.last_hidden_state[:, -1:])

    def decode(self, answer: int) -> float:
        """Tokens per second of the steps behind the prompt."""
        out, logits = self.prefill()
        start = time.perf_counter()
        for _ in range(answer - 1):
            out = self.model.model.language_model(
                input_ids=logits[:, -1:].argmax(-1), past_key_values=out.past_key_values, use_cache=True
            )
            logits = self.model.lm_head(out.last_hidden_state)
        return (answer - 1) / (time.perf_counter() - start)
