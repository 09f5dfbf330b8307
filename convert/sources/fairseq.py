"""unilm's kosmos-2.pt and KOSMOS-2.5's ckpt.pt: fairseq checkpoints {"model": state dict, "args"/"cfg": settings, ...}.

Renaming and dropped keys: spec of the published conversions (transformers'
convert_kosmos2_original_pytorch_checkpoint and convert_kosmos2_5). The file has no config in our sense: widths and
counts are read from the tensors' shapes, the rest are the published values.
"""

import math
import re
from pathlib import Path
from typing import Any

from kosmos_edge.errors import ModelCorrupt

from .checkpoint import Checkpoint
from .files import Folder, SourceFile, read_json
from .tensor import SourceTensor
from .tokenizer_files import TokenizerFiles
from .torch_file import TorchFile
from .unpickle import Record
from .weights import read_torch, sniff

# Substrings, replaced in this order.
RENAMES = (
    ("gpt_model.decoder.output_projection", "text_model.lm_head"),
    ("gpt_model.decoder", "text_model.model"),
    ("img_connector", "image_to_text_projection"),
    ("img_model.visual.class_embedding", "vision_model.model.embeddings.class_embedding"),
    ("img_model.visual.positional_embedding", "vision_model.model.embeddings.position_embedding.weight"),
    ("img_model.visual.conv1", "vision_model.model.embeddings.patch_embedding"),
    ("img_model.visual", "vision_model.model"),
    ("img_model", "vision_model"),  # KOSMOS-2.5, whose encoder has transformers' names
    ("ln_pre", "pre_layrnorm"),
    ("ln_post", "post_layernorm"),
    ("transformer.resblocks", "encoder.layers"),
    ("ts_attn", "self_attn"),
    ("ln_1", "layer_norm1"),
    ("ln_2", "layer_norm2"),
    ("c_fc", "fc1"),
    ("c_proj", "fc2"),
)
DROPPED = {"gpt_model.decoder.embed_positions._float_tensor", "gpt_model.decoder.self_attn_sope.scale"}
HEAD_WIDTH = 64  # of decoder and vision in KOSMOS-2, and of vision in KOSMOS-2.5
PAGE_HEAD_WIDTH = 96  # of KOSMOS-2.5's decoder
PATCHES = "vision_model.embeddings.patch_projection.weight"  # which only KOSMOS-2.5 has


def hf_name(name: str) -> str:
    """unilm's tensor name -> Hugging Face's."""
    for old, new in RENAMES:
        name = name.replace(old, new)
    return name


def open_fairseq(
    file: SourceFile, folder: Folder, tokenizer: Path | None, torch_file: TorchFile | None = None
) -> Checkpoint:
    """The checkpoint in `file`; its sentencepiece.bpe.model or cl100k_base.tiktoken, and dict.txt, lie in `folder`, or
    where `tokenizer` says."""
    files = [file]
    try:
        torch_file = torch_file or read_torch(file, sniff(file))
        root = torch_file.root
        state = root.get("model") if isinstance(root, dict) else None
        if not isinstance(state, dict):
            raise ModelCorrupt(f"{file.path}: expected fairseq's dict with a state dict under 'model'")
        tensors: dict[str, SourceTensor] = {}
        for name, tensor in torch_file.tensors({k: v for k, v in state.items() if k not in DROPPED}, "model").items():
            if tensors.setdefault(hf_name(name), tensor) is not tensor:
                raise ModelCorrupt(f"{file.path}: two tensors are called {hf_name(name)} after renaming")
        card: dict[str, Any] = {}
        if folder.has("kosmos_edge.json"):
            files.append(folder.open("kosmos_edge.json"))
            card = read_json(files[-1])
        return Checkpoint(
            format="fairseq",
            tensors=tensors,
            config=_config(tensors, _settings(root), file.path),
            generation={},
            preprocessor={},
            card=card,
            tokenizer=TokenizerFiles(folder, tokenizer, files),
            folder=folder,
            files=files,
        )
    except BaseException:
        for opened in files:
            opened.close()
        raise


def _settings(root: dict[Any, Any]) -> dict[str, Any]:
    """fairseq's flat "args" (an argparse.Namespace) or "cfg"."model" (one, or a dict); {} where there is none."""
    cfg = root.get("cfg")
    for value in (root.get("args"), cfg.get("model") if isinstance(cfg, dict) else None):
        if isinstance(value, Record):
            value = value.state
        if isinstance(value, dict):
            return value
    return {}


def _config(tensors: dict[str, SourceTensor], settings: dict[str, Any], path: Path) -> dict[str, Any]:
    """The settings in the form of Hugging Face's config.json."""
    shapes = _Shapes(tensors, path)
    return _page_config(shapes, settings) if PATCHES in tensors else _picture_config(shapes, settings)


class _Shapes:
    """Sizes that the tensors show."""

    def __init__(self, tensors: dict[str, SourceTensor], path: Path) -> None:
        self._tensors, self._path = tensors, path

    def of(self, name: str, dims: int) -> tuple[int, ...]:
        """The shape of a tensor that must be there."""
        found = self._tensors.get(name)
        if found is None or len(found.shape) != dims or 0 in found.shape:
            raise ModelCorrupt(
                f"{self._path}: tensor {name} of {dims} dimensions is missing: "
                "this is not a KOSMOS-2 or KOSMOS-2.5 checkpoint"
            )
        return found.shape

    def layers(self, prefix: str) -> int:
        """How many there are of the layers prefix0., prefix1., ..."""
        pattern = re.compile(re.escape(prefix) + r"(\d{1,4})\.")
        return 1 + max((int(m[1]) for name in self._tensors if (m := pattern.match(name))), default=-1)

    def decoder(self, settings: dict[str, Any], head_width: int) -> dict[str, Any]:
        """text_config without the number of positions."""
        vocab, width = self.of("text_model.model.embed_tokens.weight", 2)
        return {
            "vocab_size": vocab,
            "embed_dim": width,
            "layers": self.layers("text_model.model.layers."),
            "ffn_dim": self.of("text_model.model.layers.0.ffn.fc1.weight", 2)[0],
            "attention_heads": settings.get("decoder_attention_heads", max(1, width // head_width)),
        }


def _picture_config(shapes: _Shapes, settings: dict[str, Any]) -> dict[str, Any]:
    """KOSMOS-2."""
    decoder = shapes.decoder(settings, HEAD_WIDTH)
    width, channels, patch, _ = shapes.of("vision_model.model.embeddings.patch_embedding.weight", 4)
    positions, _ = shapes.of("vision_model.model.embeddings.position_embedding.weight", 2)
    return {
        "model_type": "kosmos-2",
        "latent_query_num": shapes.of("image_to_text_projection.latent_query", 2)[0],
        "text_config": decoder | {"max_position_embeddings": 2048},
        "vision_config": {
            "hidden_size": width,
            "intermediate_size": shapes.of("vision_model.model.encoder.layers.0.mlp.fc1.weight", 2)[0],
            "num_hidden_layers": shapes.layers("vision_model.model.encoder.layers."),
            "num_attention_heads": max(1, width // HEAD_WIDTH),
            "num_channels": channels,
            "image_size": math.isqrt(positions - 1) * patch,
            "patch_size": patch,
        },
    }


def _page_config(shapes: _Shapes, settings: dict[str, Any]) -> dict[str, Any]:
    """KOSMOS-2.5."""
    width, values = shapes.of(PATCHES, 2)
    return {
        "model_type": "kosmos-2.5",
        "latent_query_num": shapes.of("image_to_text_projection.latent_query", 2)[0],
        "text_config": shapes.decoder(settings, PAGE_HEAD_WIDTH) | {"max_position_embeddings": 4096},
        "vision_config": {
            "hidden_size": width,
            "patch_embed_hidden_size": values,
            "intermediate_size": shapes.of("vision_model.encoder.layer.0.mlp.wi_0.weight", 2)[0],
            "num_hidden_layers": shapes.layers("vision_model.encoder.layer."),
            "num_attention_heads": max(1, width // HEAD_WIDTH),
            "max_num_patches": shapes.of("vision_model.embeddings.row_embedder.weight", 2)[0],
        },
    }
