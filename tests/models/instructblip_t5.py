"""InstructBLIP with Flan-T5 for the suite: InstructBLIP's tiny tower and Q-Former, which reads the question, and the T5
of BLIP-2."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from helpers.llava_checkpoint import write_json
from helpers.tiny import GgufContent, StoredTensor, Tiny, TinyConfig, TinyVocabulary

from kosmos_edge import _core
from models import blip2, blip2_t5, instructblip
from models.blip2_t5 import NUMBERS, SMALL, WORDS, vocabulary_of
from models.description import Described, Segments, accepted_prompts

A = "instructblip_t5"
READER = ("qformer.vocab_size", "qformer.context_length", "qformer.tokenizer", "qformer.tokens")
READER_IDS = ("qformer.begin_token_id", "qformer.end_token_id", "qformer.unknown_token_id")


def tensor_shapes(
    numbers: dict[str, int], qformer: dict[str, int], vision: dict[str, int], vocab: int, pieces: int
) -> dict[str, tuple[int, ...]]:
    """Every tensor of a file, in file order."""
    shapes = blip2_t5.tensor_shapes(numbers, qformer, vision, vocab)
    d, ff = qformer["embedding_length"], qformer["feed_forward_length"]
    shapes |= {"mm.token_embd.weight": (pieces, d), "mm.position_embd.weight": (instructblip.POSITIONS, d)}
    for i in range(qformer["block_count"] - 1):
        for name, shape in (("ffn_up", (ff, d)), ("ffn_down", (d, ff)), ("ffn_norm", (d,))):
            shapes[f"mm.blk.{i}.text.{name}.weight"], shapes[f"mm.blk.{i}.text.{name}.bias"] = shape, shape[:1]
    return shapes


def metadata_of(
    numbers: dict[str, int],
    qformer: dict[str, int],
    vision: dict[str, int],
    v: TinyVocabulary,
    pieces: list[str],
    max_new: int,
) -> dict[str, Any]:
    """Every key of a complete file; the checksums are added by `write_tiny`."""
    return {
        **blip2_t5.t5_metadata(A, numbers, v, max_new),
        **blip2.bridge_metadata(A, qformer, vision, numbers["embedding_length"]),
        f"{A}.qformer.vocab_size": ("u32", len(pieces)),
        f"{A}.qformer.context_length": ("u32", instructblip.POSITIONS),
        f"{A}.qformer.tokenizer": ("str", "bert-uncased"),
        f"{A}.qformer.tokens": ("[str]", pieces),
        f"{A}.qformer.begin_token_id": ("u32", instructblip.BEGIN),
        f"{A}.qformer.end_token_id": ("u32", instructblip.END),
        f"{A}.qformer.unknown_token_id": ("u32", instructblip.UNKNOWN),
        **{f"{A}.prompt.{key}": ("str", text) for key, text in instructblip.PROMPTS.items()},
    }


def weights_of(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Drawn as BLIP-2's, with gains that let the question matter."""
    weights = blip2_t5.weights_of(shapes, seed)
    for name in ("mm.token_embd.weight", "mm.position_embd.weight"):
        weights[name] = blip2_t5.make_weight("mm.latent_query", shapes[name], seed + len(name))
    weights["mm.0.weight"] *= np.float32(4)
    return weights


class InstructBlipT5Reference(blip2_t5.Blip2T5Reference):
    """InstructBLIP with Flan-T5 (transformers InstructBlipForConditionalGeneration)."""

    def __init__(self, metadata: dict[str, Any], weights: dict[str, np.ndarray]) -> None:
        super().__init__(metadata, weights)
        self.words = instructblip.word_tokenizer(self.metadata[f"{A}.qformer.tokens"])

    def encode_image(self, rgb: np.ndarray) -> np.ndarray:
        """What is kept of an image: the tower's features. Its rows depend on the words, `rows_of`."""
        return self.features(rgb)

    rows_of = instructblip.InstructBlipReference.rows_of


class InstructBlipT5(Described):
    """Captions and answers, whose images are looked at with the question in mind; without location tokens."""

    architecture = A
    tasks: ClassVar = ["caption", "ask", "generate", "score"]
    prompts: ClassVar[dict[str, Segments]] = {
        name: [part for part in segments if part[0] != "ids"]
        for name, segments in instructblip.InstructBlip.prompts.items()
    }
    accepted: ClassVar = {
        **blip2_t5.accepted_t5(A),
        **blip2.accepted_bridge(A),
        **{f"{A}.{key}": set() for key in READER},
        **{f"{A}.{key}": instructblip.InstructBlip.accepted[f"instructblip.{key}"] for key in READER_IDS},
        **accepted_prompts(A, grounding=False),
    }

    def kept_shape(self, image_tokens: int) -> tuple[int, int]:
        """Of the tower's features."""
        vision = blip2.VISION
        return (vision["image_size"] // vision["patch_size"]) ** 2 + 1, vision["embedding_length"]

    def make(self, seed: int) -> Tiny:
        """Sizes that every stored type fits, but the tower's rows, which k-quants do not fit."""
        v = vocabulary_of(WORDS.split(), "abcdefghijklmnopqrstuvwxyz0123456789.,:;?!'-", 4)
        question = instructblip.QUESTION_PIECES
        shapes = tensor_shapes(NUMBERS, blip2.QFORMER, blip2.VISION, len(v.pieces), len(question))
        weights = weights_of(shapes, seed)
        weights["output.weight"][v.id("<image>")] = 0  # the definition's searches do not know that it never comes
        return Tiny(TinyConfig(), v, weights, metadata_of(NUMBERS, blip2.QFORMER, blip2.VISION, v, question, 256))

    def define(self, metadata: dict[str, Any], weights: dict[str, np.ndarray]) -> InstructBlipT5Reference:
        """Above."""
        return InstructBlipT5Reference(metadata, weights)

    def prompt(self, name: str, tokenizer: _core.Tokenizer, pictures: list[np.ndarray]) -> Any:
        """Each picture's rows are made with its words."""
        words, segments = instructblip.words_beside(self.prompts[name]), []
        for kind, value in self.prompts[name]:
            if kind == "image":
                features = self.definition.encode_image(pictures[value])
                segments.append(self.definition.rows_of(features, words.pop(0)))
            else:
                segments.append(tokenizer.encode(value))
        return self.definition.prompt(segments)

    def small(self) -> GgufContent:
        """Few words."""
        v = vocabulary_of(["a", "An", "image", "of"], "animge.of", 1)
        question = instructblip.SMALL_QUESTION_PIECES
        metadata = metadata_of(SMALL, blip2.SMALL_QFORMER, blip2.SMALL_VISION, v, question, 8)
        metadata["tokenizer.ggml.precompiled_charsmap"] = ("[u8]", [])
        shapes = tensor_shapes(SMALL, blip2.SMALL_QFORMER, blip2.SMALL_VISION, len(v.pieces), len(question))
        tensors = {
            name: StoredTensor("F32", array.shape, array.astype("<f4").tobytes())
            for name, array in weights_of(shapes, 0).items()
        }
        return GgufContent(metadata, tensors)

    def write_checkpoint(self, folder: Path) -> Path:
        """transformers' layout; what the Q-Former's last block makes of the text is looked at by nobody."""
        folder.mkdir(parents=True)
        q, v = blip2.QFORMER, blip2.VISION
        write_json(
            folder,
            config={
                "model_type": "instructblip", "num_query_tokens": q["query_count"],
                "image_token_index": self.tiny.vocabulary.id("<image>"),
                "text_config": blip2_t5.text_config(NUMBERS, len(self.tiny.vocabulary.pieces)),
                "qformer_config": {
                    "hidden_size": q["embedding_length"], "intermediate_size": q["feed_forward_length"],
                    "num_hidden_layers": q["block_count"], "num_attention_heads": q["attention.head_count"],
                    "encoder_hidden_size": v["embedding_length"], "vocab_size": len(instructblip.QUESTION_PIECES),
                    "max_position_embeddings": instructblip.POSITIONS,
                },
                "vision_config": blip2.vision_config(v),
            },
            preprocessor_config=blip2.preprocessor_config(v["image_size"]),
            tokenizer=blip2_t5.tokenizer_json(self.tiny.vocabulary),
            tokenizer_config=blip2_t5.TOKENIZER_CONFIG,
        )  # fmt: skip
        instructblip.write_question(folder / "qformer_tokenizer")
        blip2_t5.write_weights(folder, published(self.tiny.weights))
        return folder


def published(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same weights under transformers' names."""
    bridge = {name: array for name, array in weights.items() if name.startswith(("v.", "mm."))}
    own = {blip2_t5.published_t5(name): array for name, array in weights.items() if name not in bridge}
    return own | instructblip.published(bridge)
