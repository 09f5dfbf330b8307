"""InstructBLIP for the suite: BLIP-2's tiny tower and Q-Former, which reads the question here, and a LLaMA."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from helpers.convert_checkpoint import convert_safetensors_bytes
from helpers.llava_checkpoint import write_json
from helpers.reference import Prompt, gelu
from helpers.tiny import GgufContent, StoredTensor, Tiny, TinyConfig, TinyVocabulary, make_weight

from kosmos_edge import _core
from models import blip2, llava
from models.description import Described, Segments, accepted_decoder, accepted_general, accepted_prompts

A = "instructblip"
PROMPTS = {
    "caption": "{image}A short image description.",
    "caption_detailed": "{image}Describe this image in detail.",
    "question": "{image}Question: {question} Short answer:",
}
EOS = 2  # begins prompts, too, as in the published model
ADDED = ("<pad>", "<image>")
POSITIONS = 64  # of the Q-Former's text
NUMBERS = {key: value for key, value in llava.NUMBERS.items() if key != "attention.key_length"}
NUMBERS["context_length"] = 512
SMALL = llava.SMALL


def word_pieces(words: str, characters: str) -> list[str]:
    """BERT's order: specials, characters alone and in words, words, what was added."""
    letters = [*characters, *("##" + c for c in characters if c.isalnum())]
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *letters,
        "##ing",
        "##tion",
        *words.lower().split(),
        "[DEC]",
    ]
    return list(dict.fromkeys(pieces))


WORDS = "a an the of in on is it and what color this image picture red blue question answer short describe description"
QUESTION_PIECES = word_pieces(WORDS, "abcdefghijklmnopqrstuvwxyz0123456789.,:;?!'\"-")
SMALL_QUESTION_PIECES = word_pieces("an image of", "ab:?")
BEGIN, END, UNKNOWN = 2, 3, 1  # [CLS], [SEP], [UNK]


def tensor_shapes(
    numbers: dict[str, int], qformer: dict[str, int], vision: dict[str, int], vocab: int, pieces: int
) -> dict[str, tuple[int, ...]]:
    """Every tensor of a file, in file order."""
    d, ff = qformer["embedding_length"], qformer["feed_forward_length"]
    llama = llava.tensor_shapes(numbers, vision, vocab)
    shapes = {name: shape for name, shape in llama.items() if not name.startswith(("v.", "mm."))}
    parts = blip2.tensor_shapes(numbers, qformer, vision, vocab)
    shapes |= {name: shape for name, shape in parts.items() if name.startswith(("v.", "mm."))}
    shapes |= {"mm.token_embd.weight": (pieces, d), "mm.position_embd.weight": (POSITIONS, d)}
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
    text = llava.metadata_of(numbers, vision, v, max_new)
    begin = "llava."
    own = ("llava.vision", "llava.image", "llava.projector", "llava.prompt", "general.architecture")
    kept = {key: value for key, value in text.items() if not key.startswith((*own, "clip.", "tokenizer.ggml.padding"))}
    return {
        "general.architecture": ("str", A),
        **{f"{A}.{key.removeprefix(begin)}" if key.startswith(begin) else key: value for key, value in kept.items()},
        **blip2.bridge_metadata(A, qformer, vision, numbers["embedding_length"]),
        f"{A}.attention.key_length": ("u32", numbers["embedding_length"] // numbers["attention.head_count"]),
        f"{A}.qformer.vocab_size": ("u32", len(pieces)),
        f"{A}.qformer.context_length": ("u32", POSITIONS),
        f"{A}.qformer.tokenizer": ("str", "bert-uncased"),
        f"{A}.qformer.tokens": ("[str]", pieces),
        f"{A}.qformer.begin_token_id": ("u32", BEGIN),
        f"{A}.qformer.end_token_id": ("u32", END),
        f"{A}.qformer.unknown_token_id": ("u32", UNKNOWN),
        f"{A}.image.token_id": ("u32", v.id("<image>")),
        f"{A}.begin_token_id": ("u32", EOS),
        **{f"{A}.prompt.{key}": ("str", text) for key, text in PROMPTS.items()},
        "tokenizer.ggml.padding_token_id": ("u32", v.id("<pad>")),
    }


def weights_of(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Drawn as LLaVA's and BLIP-2's, with gains that let the question matter."""
    language = {name: shape for name, shape in shapes.items() if not name.startswith(("v.", "mm."))}
    weights = llava.weights_of(language, seed)
    for name, shape in shapes.items():
        if name not in weights:
            weights[name] = make_weight({"mm.query": "mm.latent_query"}.get(name, name), shape, seed)
    for name in ("mm.token_embd.weight", "mm.position_embd.weight"):
        weights[name] = make_weight("mm.latent_query", shapes[name], seed + len(name))
    weights["mm.0.weight"] *= np.float32(2)
    return {name: weights[name] for name in shapes}


def word_tokenizer(pieces: list[str]) -> _core.Tokenizer:
    """The engine's, which has tests of its own."""
    types = [{BEGIN: 3, END: 3, UNKNOWN: 2}.get(i, 1) for i in range(len(pieces))]
    return _core.Tokenizer.word_piece(pieces, types, UNKNOWN)


def words_beside(segments: Segments) -> list[str]:
    """What each picture's words are: those up to the next picture, for the first one also those in front of it."""
    found: list[list[str]] = []
    front: list[str] = []
    for kind, value in segments:
        if kind == "image":
            found.append(front if not found else [])
        elif kind in ("text", "tags"):
            (found[-1] if found else front).append(value)
    return [" ".join(words) for words in found]


class InstructBlipReference(blip2.Bridge, llava.LlavaReference):
    """InstructBLIP (transformers InstructBlipForConditionalGeneration); LLaMA and the searches are inherited."""

    def __init__(self, metadata: dict[str, Any], weights: dict[str, np.ndarray]) -> None:
        value = {key: entry[1] for key, entry in metadata.items()}
        self.metadata, self.weights, self.dtype = value, weights, np.float32
        self.width, self.layers = value[f"{A}.embedding_length"], value[f"{A}.block_count"]
        self.heads, self.kv_heads = value[f"{A}.attention.head_count"], value[f"{A}.attention.head_count_kv"]
        self.eps, self.base = value[f"{A}.attention.layer_norm_rms_epsilon"], value[f"{A}.rope.freq_base"]
        self.bos, self.eos = value[f"{A}.begin_token_id"], value["tokenizer.ggml.eos_token_id"]
        self.image_id = value[f"{A}.image.token_id"]
        self.words = word_tokenizer(value[f"{A}.qformer.tokens"])

    def encode_image(self, rgb: np.ndarray) -> np.ndarray:
        """What is kept of an image: the tower's features. Its rows depend on the words, `rows_of`."""
        return self.features(rgb)

    def rows_of(self, features: np.ndarray, words: str) -> np.ndarray:
        """InstructBlipQFormerModel and language_projection: queries and text see each other, queries see the image."""
        value, w = self.metadata, self.weights
        own = value["general.architecture"] + ".qformer."
        heads, every = value[own + "attention.head_count"], value[own + "cross_attention_every"]
        eps, queries = value[own + "attention.layer_norm_epsilon"], value[own + "query_count"]
        ids = [value[own + "begin_token_id"], *self.words.encode(words), value[own + "end_token_id"]]
        text = w["mm.token_embd.weight"][ids] + w["mm.position_embd.weight"][: len(ids)]
        x = self.norm(np.concatenate([w["mm.query"], text]), "mm.query_norm", eps)

        def feed_forward(x: np.ndarray, b: str) -> np.ndarray:
            return self.norm(self.linear(gelu(self.linear(x, b + "ffn_up")), b + "ffn_down") + x, b + "ffn_norm", eps)

        last = value[own + "block_count"] - 1
        for i in range(last + 1):
            b = f"mm.blk.{i}."
            x = self.norm(self.attend(x, x, b, heads) + x, b + "attn_norm", eps)
            seeing, text = x[:queries], x[queries:]
            if i % every == 0:
                looked = self.attend(seeing, features, b + "cross.", heads)
                seeing = self.norm(looked + seeing, b + "cross.attn_norm", eps)
            seeing = feed_forward(seeing, b)
            x = seeing if i == last else np.concatenate([seeing, feed_forward(text, b + "text.")])
        return self.linear(x, "mm.0")

    def prompt(self, segments: list[list[int] | np.ndarray]) -> Prompt:
        return blip2.Blip2Reference.prompt(self, segments)  # type: ignore[arg-type]


class InstructBlip(Described):
    """Captions and answers, whose images are looked at with the question in mind; without location tokens."""

    architecture = A
    tasks: ClassVar = ["caption", "ask", "generate", "score"]
    prompts: ClassVar[dict[str, Segments]] = {
        "caption": [("image", 0), ("text", "A short image description.")],
        "long caption": [("image", 0), ("text", "Describe this image in detail.")],
        "caption by beams": [("image", 0), ("text", "A short image description.")],
        "ask": [("image", 0), ("text", "Question: what is this? Short answer:")],
        "ask after an example": [
            ("image", 0),
            ("text", "Question: what color is it? Short answer: red"),
            ("ids", [EOS]),
            ("image", 1),
            ("text", "Question: what is this? Short answer:"),
        ],
        "generate": [("image", 0), ("text", "It is")],
        "generate from two pictures": [("image", 0), ("text", "a cat."), ("image", 1), ("text", "It is")],
        "score": [("image", 0), ("text", "A short image description.")],
    }
    accepted: ClassVar = {
        **accepted_general(A),
        **{key: v for key, v in accepted_decoder(A).items() if not key.endswith("layer_norm_epsilon")},
        **{
            key.replace("llava.", f"{A}."): value
            for key, value in llava.Llava.accepted.items()
            if key.startswith(("llava.attention.", "llava.rope.", "tokenizer."))
        },
        **blip2.accepted_bridge(A),
        f"{A}.qformer.vocab_size": set(),
        f"{A}.qformer.context_length": set(),  # the rows of the table of positions
        f"{A}.qformer.tokenizer": set(),
        f"{A}.qformer.tokens": set(),
        f"{A}.qformer.begin_token_id": {0},
        f"{A}.qformer.end_token_id": {0},
        f"{A}.qformer.unknown_token_id": {0, 1},
        f"{A}.image.token_id": {0, 1},
        f"{A}.begin_token_id": {0, 1},
        **accepted_prompts(A, grounding=False),
    }

    def kept_shape(self, image_tokens: int) -> tuple[int, int]:
        """Of the tower's features."""
        vision = blip2.VISION
        return (vision["image_size"] // vision["patch_size"]) ** 2 + 1, vision["embedding_length"]

    def make(self, seed: int) -> Tiny:
        """Sizes that every stored type fits, but the tower's rows, which k-quants do not fit."""
        pieces = llava.PIECES
        v = TinyVocabulary([*pieces.pieces, *ADDED], [*pieces.scores, 0.0, 0.0], [*pieces.types, 3, 3])
        shapes = tensor_shapes(NUMBERS, blip2.QFORMER, blip2.VISION, len(v.pieces), len(QUESTION_PIECES))
        weights = weights_of(shapes, seed)
        weights["output.weight"][v.id("<image>")] = 0  # the definition's searches do not know that it never comes
        return Tiny(
            TinyConfig(), v, weights, metadata_of(NUMBERS, blip2.QFORMER, blip2.VISION, v, QUESTION_PIECES, 256)
        )

    def define(self, metadata: dict[str, Any], weights: dict[str, np.ndarray]) -> InstructBlipReference:
        """Above."""
        return InstructBlipReference(metadata, weights)

    def prompt(self, name: str, tokenizer: _core.Tokenizer, pictures: list[np.ndarray]) -> Any:
        """Each picture's rows are made with its words; the first text begins the prompt behind the pictures."""
        words, segments = words_beside(self.prompts[name]), []
        for kind, value in self.prompts[name]:
            if kind == "image":
                features = self.definition.encode_image(pictures[value])
                segments.append(self.definition.rows_of(features, words.pop(0)))
            else:
                begins = all(isinstance(segment, np.ndarray) for segment in segments)
                segments.append(value if kind == "ids" else tokenizer.encode(value, at_start=begins))
        return self.definition.prompt(segments)

    def small(self) -> GgufContent:
        """Without bytes: what is no piece is unknown."""
        pieces = ["<unk>", "<s>", "</s>", *"▁animge.", "▁a", "▁An", "▁i", "▁im", "▁o", "▁of", *ADDED]
        count = len(pieces)
        v = TinyVocabulary(pieces, [-0.5 * i for i in range(count)], [2, 3, 3, *[1] * (count - 5), 3, 4])
        question = SMALL_QUESTION_PIECES
        metadata = metadata_of(SMALL, blip2.SMALL_QFORMER, blip2.SMALL_VISION, v, question, 8)
        metadata["tokenizer.ggml.precompiled_charsmap"] = ("[u8]", [])
        shapes = tensor_shapes(SMALL, blip2.SMALL_QFORMER, blip2.SMALL_VISION, count, len(question))
        tensors = {
            name: StoredTensor("F32", array.shape, array.astype("<f4").tobytes())
            for name, array in weights_of(shapes, 0).items()
        }
        return GgufContent(metadata, tensors)

    def write_checkpoint(self, folder: Path) -> Path:
        """transformers' layout; what the Q-Former's last block makes of the text is looked at by nobody."""
        folder.mkdir(parents=True)
        n, q, v = NUMBERS, blip2.QFORMER, blip2.VISION
        write_json(
            folder,
            config={
                "model_type": A, "num_query_tokens": q["query_count"],
                "image_token_index": self.tiny.vocabulary.id("<image>"),
                "text_config": {
                    "model_type": "llama", "vocab_size": len(self.tiny.vocabulary.pieces), "rms_norm_eps": 1e-5,
                    "hidden_size": n["embedding_length"], "intermediate_size": n["feed_forward_length"],
                    "num_hidden_layers": n["block_count"], "num_attention_heads": n["attention.head_count"],
                    "num_key_value_heads": n["attention.head_count_kv"], "max_position_embeddings": n["context_length"],
                },
                "qformer_config": {
                    "hidden_size": q["embedding_length"], "intermediate_size": q["feed_forward_length"],
                    "num_hidden_layers": q["block_count"], "num_attention_heads": q["attention.head_count"],
                    "encoder_hidden_size": v["embedding_length"], "vocab_size": len(QUESTION_PIECES),
                    "max_position_embeddings": POSITIONS,
                },
                "vision_config": blip2.vision_config(v),
            },
            preprocessor_config=blip2.preprocessor_config(v["image_size"]),
            tokenizer={
                **llava.PIECES.tokenizer_json(ADDED), "normalizer": None, "pre_tokenizer": llava.FIRST_ALONE,
                "post_processor": BEGINNING
            },
            tokenizer_config=TOKENIZER_CONFIG,
        )  # fmt: skip
        write_question(folder / "qformer_tokenizer")
        state = {}
        for name, array in published(self.tiny.weights).items():
            state[name] = (array.shape, np.ascontiguousarray(array).tobytes())
        (folder / "model.safetensors").write_bytes(convert_safetensors_bytes(state, "F32"))
        return folder


# As published: what begins a prompt and what is unknown are </s>, too.
TOKENIZER_CONFIG = {
    "tokenizer_class": "LlamaTokenizer", "bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>",
    "pad_token": "<pad>", "add_bos_token": True, "legacy": False,
}  # fmt: skip


BEGINNING = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "</s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"</s>": {"id": "</s>", "ids": [EOS], "tokens": ["</s>"]}},
}  # fmt: skip


def write_question(folder: Path) -> None:
    """The folder of the Q-Former's vocabulary, without tokenizer.json."""
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(QUESTION_PIECES[:-1]) + "\n", encoding="utf-8")
    write_json(
        folder,
        tokenizer_config={
            "tokenizer_class": "BertTokenizer", "do_lower_case": True, "strip_accents": None, "bos_token": "[DEC]",
            "tokenize_chinese_chars": True, "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]",
        },
        added_tokens={"[DEC]": len(QUESTION_PIECES) - 1},
    )  # fmt: skip


TEXT = {"ffn_up": "intermediate.dense", "ffn_down": "output.dense", "ffn_norm": "output.LayerNorm"}
OTHER = {
    "mm.query_norm": "qformer.embeddings.layernorm", "mm.token_embd": "qformer.embeddings.word_embeddings",
    "mm.position_embd": "qformer.embeddings.position_embeddings",
}  # fmt: skip


def published(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same weights under transformers' names."""
    bridge = {name: array for name, array in weights.items() if name.startswith(("v.", "mm."))}
    state = {llava.published(name): array for name, array in weights.items() if name not in bridge}
    for name in list(bridge):
        base, _, kind = name.rpartition(".")
        parts = base.split(".")
        known = OTHER.get(base)
        if parts[:2] == ["mm", "blk"] and parts[3] == "text":
            known = f"qformer.encoder.layer.{parts[2]}.{TEXT[parts[4]]}"
        if known is not None:
            state[f"{known}.{kind}"] = bridge.pop(name)
    state |= blip2.published(bridge)
    last, q = blip2.QFORMER["block_count"] - 1, blip2.QFORMER
    d, ff = q["embedding_length"], q["feed_forward_length"]
    for name, shape in (("intermediate.dense", (ff, d)), ("output.dense", (d, ff)), ("output.LayerNorm", (d,))):
        at = f"qformer.encoder.layer.{last}.{name}"
        state |= {f"{at}.weight": np.ones(shape, np.float32), f"{at}.bias": np.ones(shape[:1], np.float32)}
    return state
