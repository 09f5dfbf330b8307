"""llama.cpp's pairs: a language model and its vision encoder, in a GGUF file each, are the model of one file of the
same weights; each difference between the layouts is undone, and what is no such pair is named."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from ctypes import c_char_p
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import capi
from helpers.llama_cpp_pair import Edit, neighbours, write_pair
from helpers.tiny import GgufContent, StoredTensor, make_picture, write_gguf, write_tiny
from PIL import Image

import kosmos_edge
from kosmos_edge import _core, cli
from kosmos_edge.convert import requantize
from kosmos_edge.errors import InvalidRequest, KosmosError, ModelCorrupt, ModelNotFound
from models.description import QUESTION, described

OF = described()["llava"]
PICTURES = [make_picture(seed, 100, 60) for seed in (1, 2)]


def write_single(path: Path, projector: str = "mlp2x_gelu", dtype: str = "F32") -> Path:
    """Our file, as its converter would write it of the authors' checkpoint: padded pictures, blanks before texts."""
    metadata, weights = dict(OF.tiny.metadata), dict(OF.tiny.weights)
    for key in ("space_prefix_every_segment", "space_prefix_before_space"):
        del metadata[f"tokenizer.ggml.{key}"]
    metadata["llava.projector"] = ("str", projector)
    metadata["llava.image.aspect"] = ("str", "pad" if projector != "linear" else "crop")
    if projector == "linear":
        weights = {name: array for name, array in weights.items() if not name.startswith("mm.2.")}
        metadata["llava.prompt.system"] = ("str", metadata["llava.prompt.system"][1].replace("user", "human"))
    write_tiny(path, dtype, tiny=dataclasses.replace(OF.tiny, metadata=metadata, weights=weights))
    return path


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_single(tmp_path_factory.mktemp("single") / "model.gguf")


def computed(engine: _core.Engine) -> list[bytes]:
    """Rows of images and logits of a prompt with two of them, bit for bit."""
    images = [engine.encode_image(p.tobytes(), p.shape[1], p.shape[0]) for p in PICTURES]
    prompt = [
        ("text", "a cat"),
        ("image", images[0]),
        ("text", "\nthe dog and"),
        ("image", images[1]),
        ("text", "it is"),
    ]
    return [*(image.tobytes() for image in images), engine.logits(prompt)[0]]


def check_same(single: Path, pair: tuple[Path, Path], info: bool = True) -> None:
    ours = _core.Engine(str(single), threads=1)
    theirs = _core.Engine(str(pair[0]), threads=1, mmproj=str(pair[1]))
    assert computed(theirs) == computed(ours)
    if info:
        assert theirs.info == ours.info == _core.model_info(str(pair[0]), mmproj=str(pair[1]))


@pytest.mark.parametrize("dtype", ["F32", "F16", "Q8_0", "Q4_0"])
def test_equal_types_give_equal_bits(dtype: str, tmp_path: Path) -> None:
    single = write_single(tmp_path / "model.gguf", dtype=dtype)
    check_same(single, write_pair(single, tmp_path / "pair"))


@pytest.mark.parametrize("type", ["q4_k_m", "q6_k", "bf16"])
def test_quantized_pairs(single: Path, type: str, tmp_path: Path) -> None:
    """K-quants of whole rows: their order is undone without quantizing anew."""
    small = requantize(single, tmp_path / "small.gguf", type=type).output
    stored = {dtype for _, dtype, *_ in _core.GgufFile(str(small)).tensors()}
    assert stored & {"Q4_K", "Q6_K", "BF16"}
    check_same(small, write_pair(small, tmp_path / "pair"))


def test_a_single_matrix_is_a_linear_projector(tmp_path: Path) -> None:
    """No activation is behind it, the prompts are LLaVA-1's, and pictures are cut."""
    single = write_single(tmp_path / "model.gguf", projector="linear")
    check_same(single, write_pair(single, tmp_path / "pair"))


def drop(*keys: str) -> Edit:
    def edit(text: GgufContent, vision: GgufContent) -> None:
        for key in keys:
            (vision if key.startswith("clip.") else text).metadata.pop(key)

    return edit


def add(key: str, *entry: Any) -> Edit:
    def edit(text: GgufContent, vision: GgufContent) -> None:
        (vision if key.startswith("clip.") else text).metadata[key] = entry

    return edit


def new_names(_text: GgufContent, vision: GgufContent) -> None:
    swapped = {"ffn_up": "ffn_down", "ffn_down": "ffn_up"}
    vision.tensors = {
        ".".join(swapped.get(part, part) for part in name.split(".")): t for name, t in vision.tensors.items()
    }


def whole_tower(_text: GgufContent, vision: GgufContent) -> None:
    """A block more than is looked at, and the last norm; the file says which block."""
    more = {n.replace("v.blk.1.", "v.blk.2."): t for n, t in vision.tensors.items() if n.startswith("v.blk.1.")}
    vision.tensors |= more | {f"v.post_ln.{kind}": vision.tensors[f"v.pre_ln.{kind}"] for kind in ("weight", "bias")}
    vision.metadata |= {"clip.vision.block_count": ("u32", 3), "clip.vision.feature_layer": ("[u32]", [2])}


def padded_rows(text: GgufContent, _vision: GgufContent) -> None:
    for name in ("token_embd.weight", "output.weight"):
        t = text.tensors[name]
        data = t.data + bytes(len(t.data) // t.shape[0] * 30)
        text.tensors[name] = StoredTensor(t.dtype, (t.shape[0] + 30, *t.shape[1:]), data)


LAYOUTS: dict[str, Edit] = {
    "newer names of the tower's products": new_names,
    "a whole tower": whole_tower,
    "rows that pad the vocabulary": padded_rows,
    "no projector type": drop("clip.projector_type"),
    "no base of positions": drop("llama.rope.freq_base", "llama.rope.dimension_count", "llama.vocab_size"),
    "no special tokens": drop(*(f"tokenizer.ggml.{name}_token_id" for name in ("bos", "eos", "unknown"))),
    "flags of blanks": add("tokenizer.ggml.add_space_prefix", "bool", True),
    "unscaled positions": add("llama.rope.scaling.type", "str", "none"),
    "flat patches": add("clip.vision.mm_patch_merge_type", "str", "flat"),
    "an aspect": add("clip.vision.image_aspect_ratio", "str", "pad"),
    "a version 2 key": add("clip.vision.projection_dim", "u32", 256),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_one_model(single: Path, layout: str, tmp_path: Path) -> None:
    check_same(single, write_pair(single, tmp_path, LAYOUTS[layout]))


def test_a_padding_token_that_is_another_one_is_none(single: Path, tmp_path: Path) -> None:
    for pad in (0, 2):
        text, vision = write_pair(single, tmp_path / str(pad), add("tokenizer.ggml.padding_token_id", "u32", pad))
        check_same(single, (text, vision), info=False)
        assert "tokenizer.ggml.padding_token_id" not in _core.GgufFile.pair(str(text), str(vision)).metadata()


def test_a_tied_head(single: Path, tmp_path: Path) -> None:
    tiny = dataclasses.replace(OF.tiny, weights=dict(OF.tiny.weights))
    tiny.weights["output.weight"] = tiny.weights["token_embd.weight"]
    path = tmp_path / "model.gguf"
    metadata = dict(tiny.metadata)
    for key in ("space_prefix_every_segment", "space_prefix_before_space"):
        del metadata[f"tokenizer.ggml.{key}"]
    metadata["llava.image.aspect"] = ("str", "pad")
    write_tiny(path, tiny=dataclasses.replace(tiny, metadata=metadata))

    def edit(text: GgufContent, _vision: GgufContent) -> None:
        del text.tensors["output.weight"]

    check_same(path, write_pair(path, tmp_path / "pair", edit))


def test_heads_of_their_own_and_scaled_positions(single: Path, tmp_path: Path) -> None:
    """As many KV heads as heads where the file names none; linear scaling under its old key and its new ones."""
    metadata, weights = dict(OF.tiny.metadata), dict(OF.tiny.weights)
    for key in ("space_prefix_every_segment", "space_prefix_before_space"):
        del metadata[f"tokenizer.ggml.{key}"]
    metadata |= {
        "llava.attention.head_count_kv": ("u32", 4), "llava.image.aspect": ("str", "pad"),
        "llava.rope.scaling.type": ("str", "linear"), "llava.rope.scaling.factor": ("f32", 2.0),
    }  # fmt: skip
    for name, array in OF.tiny.weights.items():
        if ".attn_k." in name or (".attn_v." in name and name.startswith("blk.")):
            weights[name] = array if name.startswith("v.") else np.concatenate([array, array[::-1]])
    path = tmp_path / "model.gguf"
    write_tiny(path, tiny=dataclasses.replace(OF.tiny, metadata=metadata, weights=weights))
    old, new = add("llama.rope.scale_linear", "f32", 2.0), add("llama.rope.scaling.type", "str", "linear")

    def edit(text: GgufContent, vision: GgufContent) -> None:
        del text.metadata["llama.attention.head_count_kv"]
        old(text, vision)

    def typed(text: GgufContent, vision: GgufContent) -> None:
        new(text, vision)
        text.metadata["llama.rope.scaling.factor"] = ("f32", 2.0)

    check_same(path, write_pair(path, tmp_path / "old", edit))
    check_same(path, write_pair(path, tmp_path / "new", typed))


def test_no_token_for_an_image_is_the_unknown_one(single: Path, tmp_path: Path) -> None:
    def edit(text: GgufContent, _vision: GgufContent) -> None:
        tokens = text.metadata["tokenizer.ggml.tokens"][1]
        text.metadata["tokenizer.ggml.tokens"] = ("[str]", ["<other>" if t == "<image>" else t for t in tokens])

    text, vision = write_pair(single, tmp_path, edit)
    assert _core.model_info(str(text), mmproj=str(vision))["image"]["row"] == 0


def test_all_blocks_of_a_large_tower_but_the_last_run(single: Path, tmp_path: Path) -> None:
    """ViT-L/14 with its 24 blocks. The shapes of its tensors do not matter to the names."""
    tiny = StoredTensor("F32", (1,), bytes(4))

    def edit(_text: GgufContent, vision: GgufContent) -> None:
        vision.metadata |= {"clip.vision.block_count": ("u32", 24), "clip.vision.embedding_length": ("u32", 1024)}
        vision.tensors |= {f"v.blk.{i}.ln1.bias": tiny for i in range(24)}

    text, vision = write_pair(single, tmp_path, edit)
    file = _core.GgufFile.pair(str(text), str(vision))
    blocks = {int(name.split(".")[2]) for name, *_ in file.tensors() if name.startswith("v.blk.")}
    assert blocks == set(range(23))
    keys = file.metadata()
    assert (keys["clip.vision.block_count"], keys["llava.vision.feature_layer"]) == (24, -2)


# ---- the interfaces


def test_answers_of_all_interfaces(single: Path, tmp_path: Path) -> None:
    """A pair by its files or its folder, in this process, in a worker, through C and the command line."""
    text, vision = write_pair(single, tmp_path / "pair")
    Image.fromarray(PICTURES[0]).save(tmp_path / "a.png")
    with kosmos_edge.load(single, threads=1) as model:
        expected = model.ask(PICTURES[0], QUESTION, max_tokens=12).token_ids
        words = model.ask(PICTURES[0], QUESTION, max_tokens=12).text
    assert len(expected) == 12
    ways: list[dict[str, Any]] = [
        {"model": text, "mmproj": vision}, {"model": text.parent}, {"model": str(text.parent)},
        {"model": str(text), "mmproj": str(vision), "mode": "copy"},
        {"model": text, "mmproj": vision, "isolation": "process"},
    ]  # fmt: skip
    for way in ways:
        with kosmos_edge.load(**way, threads=1) as model:
            assert model.ask(PICTURES[0], QUESTION, max_tokens=12).token_ids == expected, way
            first, _ = model.batch(PICTURES, "ask", question=QUESTION, max_tokens=12)
            assert first.token_ids == expected, way
    handle = capi.load(text, threads=1, mmproj=c_char_p(str(vision).encode()))
    capi.lib().kosmos_model_free(handle)
    command = [sys.executable, "-m", "kosmos_edge", "ask", str(tmp_path / "a.png"), QUESTION, "-n", "12", "-q"]
    for options in (["-m", str(text), "--mmproj", str(vision)], ["-m", str(text.parent)]):
        done = subprocess.run([*command, *options], capture_output=True, text=True)
        assert (done.returncode, done.stdout.strip()) == (0, words.strip()), done.stderr


@pytest.mark.parametrize(
    "names, message",
    [
        (["a.gguf", "mmproj-a.gguf", "b.gguf"], "expected one language model and one vision encoder"),
        (["mmproj-a.gguf"], "expected one language model and one vision encoder"),
        (["a.gguf", "mmproj-a.gguf", "mmproj-b.gguf"], "expected one language model and one vision encoder"),
        (["a.gguf"], "is a folder"),
    ],
)
def test_a_folder_that_is_no_pair(names: list[str], message: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ModelNotFound, match=message):
        kosmos_edge.load(tmp_path)


def test_what_mmproj_must_be(single: Path) -> None:
    for bad in ("", 3, "a\0b"):
        with pytest.raises(InvalidRequest, match="mmproj: expected the path of a GGUF file"):
            kosmos_edge.load(single, mmproj=bad)
    with pytest.raises(InvalidRequest, match="mmproj: goes with a language model's file"):
        kosmos_edge.load(mmproj=single)
    with pytest.raises(ModelNotFound, match="no-such"):
        kosmos_edge.load(single.parent / "no-such.gguf", mmproj=single)


def test_files_that_are_no_pair(single: Path, tmp_path: Path) -> None:
    text, vision = write_pair(single, tmp_path)
    cases = [
        ((text, ""), 'is "llama"; .*; the language model of a pair needs its mmproj file, too'),
        ((vision, ""), 'is "clip"; .*the mmproj file of a pair goes with its language model'),
        ((text, text), 'is "llama"; expected "clip", the vision encoder of a pair'),
        ((vision, text), 'is "clip"; expected a language model that an mmproj file goes with: llama'),
        ((single, vision), 'is "llava"; expected a language model that an mmproj file goes with: llama'),
        ((text, single), 'is "llava"; expected "clip"'),
    ]
    for (first, second), message in cases:
        with pytest.raises(ModelCorrupt, match=message):
            _core.Engine(str(first), mmproj=str(second))
    with pytest.raises(ModelNotFound, match="gone"):
        _core.Engine(str(text), mmproj=str(tmp_path / "gone.gguf"))


# ---- what is refused


def tensor(name: str, change: Callable[[StoredTensor], StoredTensor] | None = None, like: str = "") -> Edit:
    """A tensor that is changed, added (like another), or with neither taken out."""

    def edit(text: GgufContent, vision: GgufContent) -> None:
        content = vision if name.startswith(("v.", "mm.", "model.")) else text
        if like:
            content.tensors[name] = content.tensors[like]
        elif change:
            content.tensors[name] = change(content.tensors[name])
        else:
            del content.tensors[name]

    return edit


def rows(count: int) -> Callable[[StoredTensor], StoredTensor]:
    return lambda t: StoredTensor(t.dtype, (count, *t.shape[1:]), t.data[: len(t.data) // t.shape[0] * count])


REFUSED: dict[str, tuple[Edit, str]] = {
    "LLaVA-1.6": (add("clip.vision.image_grid_pinpoints", "[i32]", [336, 672]), "image_grid_pinpoints: several tiles"),
    "a row behind lines": (tensor("model.image_newline", like="v.class_embd"), "model.image_newline: several tiles"),
    "unpadded tiles": (add("clip.vision.mm_patch_merge_type", "str", "spatial_unpad"), "merge_type is"),
    "tiles of any aspect": (add("clip.vision.image_aspect_ratio", "str", "anyres"), 'aspect_ratio is "anyres"'),
    "another projector": (add("clip.projector_type", "str", "ldpv2"), 'projector_type is "ldpv2"; expected "mlp"'),
    "another GELU": (add("clip.use_gelu", "bool", True), "clip.use_gelu is true; only false"),
    "SiLU": (add("clip.use_silu", "bool", True), "clip.use_silu is true; only false"),
    "a text encoder": (add("clip.has_text_encoder", "bool", True), "has_text_encoder is true; only false"),
    "no vision": (add("clip.has_vision_encoder", "bool", False), "has_vision_encoder is false; only true"),
    "patches with a bias": (tensor("v.patch_embd.bias", like="v.class_embd"), r"v.patch_embd.bias: .* \(SigLIP\)"),
    "several layers": (add("clip.vision.feature_layer", "[i32]", [1, 2]), "feature_layer names several layers"),
    "no layer": (add("clip.vision.feature_layer", "[i32]", []), "feature_layer names several layers, or none"),
    "a layer beyond": (add("clip.vision.feature_layer", "[i32]", [3]), "feature_layer is not a number in 1..2"),
    "a layer that is a text": (add("clip.vision.feature_layer", "[str]", ["2"]), "feature_layer is not a number"),
    "no blocks": (add("clip.vision.block_count", "u32", 0), "block_count is 0; expected 1..512"),
    "no mean": (drop("clip.vision.image_mean"), 'key "clip.vision.image_mean" is missing'),
    "a deviation of zero": (add("clip.vision.image_std", "[f32]", [1.0, 0.0, 1.0]), "image_std has 0; expected"),
    "no projector": (tensor("mm.0.weight"), "mm.0.weight is missing"),
    "rows of another width": (tensor("mm.2.weight", rows(128)), "makes rows of 128 values; expected .*, 256"),
    "a tensor too many": (tensor("mm.4.weight", like="mm.2.weight"), "no part of this model: mm.4.weight"),
    "no class token": (tensor("v.class_embd"), "v.class_embd is missing"),
    "a vocabulary of bytes": (add("tokenizer.ggml.model", "str", "gpt2"), 'tokenizer.ggml.model is "gpt2"; expected'),
    "positions of LLaMA 3": (tensor("rope_freqs.weight", like="output_norm.weight"), "rope_freqs.weight scales"),
    "scaled otherwise": (add("llama.rope.scaling.type", "str", "yarn"), 'scaling.factor" is missing|"yarn"'),
    "a part of the head": (add("llama.rope.dimension_count", "u32", 32), "dimension_count is 32; only that of whole"),
    "few rows": (tensor("token_embd.weight", rows(100)), "token_embd.weight has 100 rows; expected one for each"),
    "few queries": (tensor("blk.0.attn_q.weight", rows(128)), "attn_q.weight has 128 rows; expected 4 heads of 64"),
    "no scores": (drop("tokenizer.ggml.scores"), 'key "tokenizer.ggml.scores" is missing'),
    "heads that do not fit": (add("llama.attention.head_count", "u32", 3), "head_count is 3"),
    "heads without end": (add("llama.attention.key_length", "u32", 2**32 - 2), "heads have 4294967294 values"),
    "no heads": (add("llama.attention.head_count_kv", "u32", 0), "expected a number of heads"),
    "biases": (tensor("blk.0.attn_q.bias", like="output_norm.weight"), "no part of this model: blk.0.attn_q.bias"),
    "no bos": (add("tokenizer.ggml.add_bos_token", "bool", False), "add_bos_token is false; only true"),
}  # fmt: skip


@pytest.mark.parametrize("refused", REFUSED)
def test_what_cannot_be_run(single: Path, refused: str, tmp_path: Path) -> None:
    edit, message = REFUSED[refused]
    text, vision = write_pair(single, tmp_path, edit)
    with pytest.raises(ModelCorrupt, match=message) as error:
        _core.Engine(str(text), threads=1, mmproj=str(vision))
    assert str(text) in str(error.value) or str(vision) in str(error.value)


VALUES: list[tuple[str, Any]] = [
    ("u32", 0), ("u32", 1), ("u32", 7), ("u32", 2**31), ("u32", 2**32 - 1), ("i32", -1), ("f32", float("nan")),
    ("f32", 1e30), ("bool", False), ("bool", True), ("str", ""), ("str", "linear"), ("u64", 2**63), ("[f32]", []),
    ("[i32]", [2**31 - 1]), ("[str]", ["a"]), ("[u8]", [1] * 9),
]  # fmt: skip


def outcome(text: Path, vision: Path) -> str:
    """ "" where the pair loads and answers; else the error, which is ModelCorrupt and names a file."""
    try:
        engine = _core.Engine(str(text), threads=1, mmproj=str(vision))
    except ModelCorrupt as error:
        assert text.name in str(error) or vision.name in str(error), error
        return str(error)
    try:
        assert np.isfinite(np.frombuffer(computed(engine)[2], np.float32)).any()
    except KosmosError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("which", [0, 1], ids=["text", "mmproj"])
def test_every_key_of_both_files(which: int, tmp_path: Path) -> None:
    """Missing, of each type, and at extremes: the pair loads, or the error names the file."""
    small = OF.small()
    metadata = dict(small.metadata)
    metadata["llava.checksum.sha256"] = ("[str]", ["0" * 64] * len(small.tensors))
    write_gguf(tmp_path / "model.gguf", GgufContent(metadata, small.tensors))
    text, vision = write_pair(tmp_path / "model.gguf", tmp_path)
    assert outcome(text, vision) == ""
    keys = list(_core.GgufFile(str((text, vision)[which])).metadata())
    extra = ["llama.attention.key_length", "llama.rope.scaling.type", "llama.rope.scale_linear"]
    keys += extra if which == 0 else ["clip.vision.feature_layer", "clip.vision.image_aspect_ratio"]
    loaded = 0
    for key in keys:
        for entry in [None, *VALUES]:

            def edit(*contents: GgufContent, key: str = key, entry: tuple[str, Any] | None = entry) -> None:
                if entry is None:
                    contents[which].metadata.pop(key, None)
                else:
                    contents[which].metadata[key] = entry

            if key == "general.alignment":
                continue
            write_pair(tmp_path / "model.gguf", tmp_path, edit)
            loaded += outcome(text, vision) == ""
    assert 0 < loaded < len(keys) * len(VALUES)


@pytest.mark.parametrize("which", [0, 1], ids=["text", "mmproj"])
def test_every_tensor_of_both_files(which: int, tmp_path: Path) -> None:
    """Missing, or of another shape: the error names the file. Cut files are truncated."""
    small = OF.small()
    write_gguf(tmp_path / "model.gguf", small)
    text, vision = write_pair(tmp_path / "model.gguf", tmp_path)
    path = (text, vision)[which]
    whole = path.read_bytes()
    for at in (0, 3, 24, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:at])
        assert outcome(text, vision) != ""
    path.write_bytes(whole)
    for name in [name for name, *_ in _core.GgufFile(str(path)).tensors()]:
        for shape in (None, (1,), (3, 5), (2, 2, 2)):

            def edit(*contents: GgufContent, name: str = name, shape: tuple[int, ...] | None = shape) -> None:
                if shape is None:
                    del contents[which].tensors[name]
                else:
                    contents[which].tensors[name] = StoredTensor("F32", shape, bytes(4 * int(np.prod(shape))))

            write_pair(tmp_path / "model.gguf", tmp_path, edit)
            assert outcome(text, vision) != "" or (name, shape) == ("output.weight", None), (name, shape)


def test_rows_of_queries_are_those_of_the_checkpoint(single: Path, tmp_path: Path) -> None:
    """Looked up twice, the bytes are the same; in the file they are in the other order."""
    text, vision = write_pair(single, tmp_path)
    ours, theirs = _core.GgufFile(str(single)), _core.GgufFile.pair(str(text), str(vision))
    assert {name for name, *_ in ours.tensors()} == {name for name, *_ in theirs.tensors()}
    for name, dtype, shape, *_ in ours.tensors():
        assert theirs.tensor_data(name) == theirs.tensor_data(name) == ours.tensor_data(name), name
        assert (name, dtype, shape) in [entry[:3] for entry in theirs.tensors()]
    name = "blk.0.attn_q.weight"
    stored = _core.GgufFile(str(text)).tensor_data(name)
    assert stored == neighbours(ours.tensor_data(name), 256, 4) != ours.tensor_data(name)


def test_a_pair_is_evaluated_as_its_single_file(
    single: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a folder, and by two names; other types and a benchmark of one file are refused by what they expect."""
    text, vision = write_pair(single, tmp_path)
    data = tmp_path / "data"
    data.mkdir()
    things = [("a cat", "a house"), ("the moon", "a pea"), ("an ant", "a whale"), ("a bus", "a shoe")]
    records = [{"a": a, "b": b, "answer": place % 2 == 0} for place, (a, b) in enumerate(things)]
    (data / "relative-size.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))

    def evaluated(*words: object) -> tuple[int, list[Any], str]:
        items = tmp_path / "items.jsonl"
        items.unlink(missing_ok=True)
        code = cli.run(["eval", "relative-size", "--data", str(data), "--items", str(items), *map(str, words)])
        kept = [json.loads(line).get("prediction") for line in items.read_text().splitlines()] if items.exists() else []
        return code, kept, capsys.readouterr().err

    expected = evaluated("-m", single)
    assert expected[0] == 0 and any(expected[1])
    assert evaluated("-m", tmp_path)[:2] == expected[:2] == evaluated("-m", text, "--mmproj", vision)[:2]
    code, _, err = evaluated("-m", tmp_path, "--types", "q8_0")
    assert code == 2 and "a pair of files from llama.cpp" in err
    assert cli.run(["bench", "-m", str(tmp_path)]) != 0
    assert "holds a pair of files from llama.cpp; expected one GGUF file" in capsys.readouterr().err
