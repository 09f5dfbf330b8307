"""The published checkpoints that `models pull` knows: a row each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Beside the weights: the first of each group that is there.
_COMMON = (
    ("config.json",),
    ("generation_config.json",),
    ("preprocessor_config.json", "processor_config.json"),
)


@dataclass(frozen=True)
class Published:
    """A checkpoint on the hub, which is converted after the download."""

    name: str  # the tag
    repo: str
    model_type: str  # of its config.json
    basename: str  # converted files are BASENAME-1.6B-v1.0-Q4_K_M.gguf
    license: str  # SPDX, as the repository says
    source_bytes: int  # of its weights
    about: str
    tokenizer: tuple[tuple[str, ...], ...]  # as _COMMON; one of the first group must be there
    sizes: Mapping[str, Any] = field(default_factory=dict)  # of its config.json, where they are not its model's own
    card: Mapping[str, Any] = field(default_factory=dict)  # what the conversion is to call it, as in kosmos_edge.json

    @property
    def settings(self) -> tuple[tuple[str, ...], ...]:
        """Groups of small files; the first that is there of each is fetched."""
        return _COMMON + self.tokenizer


_BPE = (("tokenizer.json",), ("tokenizer_config.json",), ("special_tokens_map.json",))
_SPM = (
    ("tokenizer.json", "tokenizer.model"),
    ("tokenizer_config.json",),
    ("special_tokens_map.json",),
    ("added_tokens.json",),
)
_CHAT = (
    "<md>A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the user's questions. USER: {question} ASSISTANT:"
)


_QUESTION = (  # what a Q-Former reads with
    ("qformer_tokenizer/tokenizer.json", "qformer_tokenizer/vocab.txt"),
    ("qformer_tokenizer/tokenizer_config.json",),
    ("qformer_tokenizer/special_tokens_map.json",),
    ("qformer_tokenizer/added_tokens.json",),
)


def _instructblip_vicuna(size: str, source_bytes: int, **sizes: int) -> Published:
    """InstructBLIP with a Vicuna of these sizes."""
    repo, basename = f"Salesforce/instructblip-vicuna-{size}", f"InstructBLIP-Vicuna-{size.upper()}"
    return Published(
        f"instructblip-vicuna-{size}",
        repo,
        "instructblip",
        basename,
        "other",
        source_bytes,
        "captions and answers; LLaMA's licence forbids commercial use",
        (*_BPE, *_QUESTION),
        {"text_config": {"model_type": "llama", "vocab_size": 32001, **sizes}, "qformer_config": {"vocab_size": 30523}},
        {
            "name": f"InstructBLIP Vicuna {size.upper()}",
            "basename": basename,
            "source_url": f"https://huggingface.co/{repo}",
        },
    )


def _blip2_opt(size: str, source_bytes: int, width: int) -> Published:
    """BLIP-2 with an OPT of 32 layers, 32 heads and that width."""
    repo = f"Salesforce/blip2-opt-{size}"
    text = {
        "model_type": "opt",
        "vocab_size": 50304,
        "hidden_size": width,
        "word_embed_proj_dim": width,
        "ffn_dim": 4 * width,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    }
    basename = f"BLIP-2-OPT-{size.upper()}"
    return Published(
        f"blip2-opt-{size}",
        repo,
        "blip-2",
        basename,
        "mit",
        source_bytes,
        "captions and short answers; OPT's own licence forbids commercial use",
        _BPE,
        {"text_config": text},
        {"name": f"BLIP-2 OPT {size.upper()}", "basename": basename, "source_url": f"https://huggingface.co/{repo}"},
    )


_UNIGRAM = (
    ("tokenizer.json", "spiece.model"),
    ("tokenizer_config.json",),
    ("special_tokens_map.json",),
    ("added_tokens.json",),
)
_FLAN_T5 = {
    "xl": {"d_model": 2048, "d_ff": 5120, "num_heads": 32},
    "xxl": {"d_model": 4096, "d_ff": 10240, "num_heads": 64},
}
_FLAN_T5_SHARED = {
    "model_type": "t5",
    "vocab_size": 32128,
    "num_layers": 24,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}


def _flan_t5(family: str, size: str, name: str, source_bytes: int, about: str, **sizes: Any) -> Published:
    """A model of that family (its model_type) with the Flan-T5 of that size."""
    tag = f"{family.replace('-', '')}-flan-t5-{size}"
    repo, basename = f"Salesforce/{tag}", f"{name.replace(' ', '-')}-{size.upper()}"
    return Published(
        tag,
        repo,
        family,
        basename,
        "mit",
        source_bytes,
        about,
        (*_UNIGRAM, *(_QUESTION if sizes else ())),
        {"text_config": _FLAN_T5_SHARED | _FLAN_T5[size], **sizes},
        {"name": f"{name} {size.upper()}", "basename": basename, "source_url": f"https://huggingface.co/{repo}"},
    )


def _llava_15(size: str, source_bytes: int, **text: int) -> Published:
    """LLaVA 1.5 with a Vicuna of that size. text: its sizes, where they are not the 7 B's."""
    repo, basename = f"llava-hf/llava-1.5-{size}-hf", f"LLaVA-Vicuna-{size.upper()}"
    return Published(
        f"llava-1.5-{size}",
        repo,
        "llava",
        basename,
        "llama2",
        source_bytes,  # in 16 bits
        "captions and answers in long or short form; its licence is LLaMA 2's",
        _SPM,
        {"text_config": {"model_type": "llama", "vocab_size": 32064, **text}},
        {
            "name": f"LLaVA 1.5 {size.upper()}",
            "basename": basename,
            "license": "llama2",
            "source_url": f"https://huggingface.co/{repo}",
        },
    )


_TINY_LLAMA = {  # of 1.1 B
    "model_type": "llama",
    "vocab_size": 32064,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
}
_INTERLEAVE_QWEN = {  # Qwen1.5's 0.5 B behind SigLIP's tower for 384 pixels
    "tie_word_embeddings": True,
    "vision_feature_layer": -1,
    "vision_feature_select_strategy": "full",
    "text_config": {
        "model_type": "qwen2",
        "vocab_size": 152_000,
        "hidden_size": 1024,
        "intermediate_size": 2816,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
    },
    "vision_config": {
        "model_type": "siglip_vision_model",
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 26,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
    },
}


def _idefics(kind: str, added: int, source_bytes: int, about: str) -> Published:
    """IDEFICS with 9 B parameters; kind: what stands behind its size; added: tokens beside LLaMA's."""
    repo, basename = f"HuggingFaceM4/idefics-9b{kind}", f"IDEFICS{kind.title()}"
    return Published(
        f"idefics-9b{kind}",
        repo,
        "idefics",
        basename,
        "other",
        source_bytes,  # in 16 bits
        f"{about}; its licence is LLaMA's, for research",
        _SPM,
        {
            "additional_vocab_size": added,
            "cross_layer_interval": 4,
            "qk_layer_norms": True,
            "use_resampler": True,
            "vision_config": {"embed_dim": 1280},
            "perceiver_config": {"qk_layer_norms_perceiver": True},
        },
        {"name": f"IDEFICS 9B{kind.title()}", "basename": basename, "source_url": f"https://huggingface.co/{repo}"},
    )


def _clip(
    kind: str, name: str, source_bytes: int, text: tuple[int, int], vision: tuple[int, int, int, int]
) -> Published:
    """OpenAI's CLIP with that tower. text: width and heads; vision: width, layers, heads and patch_size."""
    repo = f"openai/clip-vit-{kind}"
    return Published(
        f"clip-vit-{kind}",
        repo,
        "clip",
        name.replace(" ", "-").replace("/", "-"),
        "mit",
        source_bytes,
        "compares images with texts; writes nothing",
        _BPE,
        {
            "projection_dim": text[0],
            "text_config": {"hidden_size": text[0], "intermediate_size": 4 * text[0], "num_attention_heads": text[1]},
            "vision_config": {
                "hidden_size": vision[0],
                "intermediate_size": 4 * vision[0],
                "num_hidden_layers": vision[1],
                "num_attention_heads": vision[2],
                "patch_size": vision[3],
            },
        },
        {
            "name": name,
            "basename": name.replace(" ", "-").replace("/", "-"),
            "source_url": f"https://huggingface.co/{repo}",
        },
    )


# What the converter reads and no repository holds whole.
IN_PARTS = "LLaVA v0 and v1, MiniGPT-4, MiniGPT-v2 and OpenFlamingo"

PUBLISHED = {
    row.name: row
    for row in (
        Published(
            "kosmos-2",
            "microsoft/kosmos-2-patch14-224",
            "kosmos-2",
            "Kosmos-2",
            "mit",
            6_657_941_504,
            "captions, answers and boxes from images",
            (("tokenizer.json", "sentencepiece.bpe.model"),),
        ),
        Published(
            "kosmos-2.5",
            "microsoft/kosmos-2.5",
            "kosmos-2.5",
            "Kosmos-2.5",
            "mit",
            5_498_585_088,
            "text lines with boxes, or Markdown, from images of pages",
            _BPE,
        ),
        Published(
            "kosmos-2.5-chat",
            "microsoft/kosmos-2.5-chat",
            "kosmos-2.5",
            "Kosmos-2.5-Chat",
            "mit",
            5_498_585_088,
            "answers about images of pages",
            _BPE,
            card={
                "name": "Kosmos-2.5-Chat",
                "basename": "Kosmos-2.5-Chat",
                "description": "KOSMOS-2.5-chat: answers about pictures of pages",
                "source_url": "https://huggingface.co/microsoft/kosmos-2.5-chat",
                "prompt": {"question": _CHAT},
            },
        ),
        _llava_15("7b", 14_126_854_144),
        _llava_15(
            "13b",
            26_702_989_312,
            hidden_size=5120,
            intermediate_size=13824,
            num_hidden_layers=40,
            num_attention_heads=40,
        ),
        Published(
            "tinyllava",
            "bczhou/tiny-llava-v1-hf",
            "llava",
            "TinyLLaVA",
            "apache-2.0",
            2_820_227_072,  # in 16 bits
            "captions and short answers, of a small language model",
            _SPM,
            {"text_config": _TINY_LLAMA},
            {
                "name": "TinyLLaVA",
                "basename": "TinyLLaVA",
                "version": "v1.0",
                "license": "apache-2.0",
                "source_url": "https://huggingface.co/bczhou/tiny-llava-v1-hf",
            },
        ),
        _blip2_opt("2.7b", 14_979_047_424, 2560),
        _blip2_opt("6.7b", 31_011_477_504, 4096),
        Published(
            "mplug-owl-llama-7b",
            "MAGAer13/mplug-owl-llama-7b",
            "mplug-owl",
            "mPLUG-Owl-LLaMA-7B",
            "apache-2.0",
            14_293_385_216,  # in 16 bits
            "answers about one or several images; the first LLaMA's licence forbids commercial use",
            (("tokenizer.json", "tokenizer.model"), ("tokenizer_config.json",), ("special_tokens_map.json",)),
            card={
                "name": "mPLUG-Owl LLaMA 7B",
                "basename": "mPLUG-Owl-LLaMA-7B",
                "source_url": "https://huggingface.co/MAGAer13/mplug-owl-llama-7b",
            },
        ),
        Published(
            "llava-interleave-qwen-0.5b",
            "llava-hf/llava-interleave-qwen-0.5b-hf",
            "llava",
            "LLaVA-Interleave-Qwen",
            "other",  # Tongyi Qianwen's, for research
            1_728_057_920,  # in 16 bits
            "answers about one or several images; its licence is for research",
            _BPE,
            _INTERLEAVE_QWEN,
            {"version": "v1.0", "source_url": "https://huggingface.co/llava-hf/llava-interleave-qwen-0.5b-hf"},
        ),
        _instructblip_vicuna("7b", 31_652_842_496),
        _instructblip_vicuna(
            "13b",
            56_765_795_328,
            hidden_size=5120,
            intermediate_size=13824,
            num_hidden_layers=40,
            num_attention_heads=40,
        ),
        *(
            _flan_t5("blip-2", size, "BLIP-2 Flan-T5", source_bytes, "captions and short answers")
            for size, source_bytes in (("xl", 15_769_786_368), ("xxl", 48_918_386_688))
        ),
        *(
            _flan_t5(
                "instructblip",
                size,
                "InstructBLIP Flan-T5",
                source_bytes,
                "captions and answers",
                qformer_config={"vocab_size": 30523},
            )
            for size, source_bytes in (("xl", 16_091_876_352), ("xxl", 49_240_476_672))
        ),
        _clip("large-patch14", "CLIP ViT-L/14", 1_710_466_052, (768, 12), (1024, 24, 16, 14)),
        _clip("base-patch16", "CLIP ViT-B/16", 598_482_948, (512, 8), (768, 12, 12, 16)),
        _clip("base-patch32", "CLIP ViT-B/32", 605_109_252, (512, 8), (768, 12, 12, 32)),
        _idefics("", 2, 17_859_359_264, "texts about several images, after examples"),
        _idefics("-instruct", 3, 17_859_375_648, "answers about several images, turn after turn"),
    )
}
