"""LLaVA's first versions, published as differences from LLaMA: sums, added tokens, the first prompt form, refusals."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.bpe_vocabularies import SpmBpe
from helpers.convert_checkpoint import convert_safetensors_bytes
from helpers.llava_checkpoint import SIZES, State, config, own_name, random_state, write_json, write_own
from helpers.tiny import make_picture

import kosmos_edge
from kosmos_edge import _core, cli
from kosmos_edge.convert import __main__ as module
from kosmos_edge.convert import convert, verify
from kosmos_edge.errors import ModelCorrupt, ModelNotFound

MARKS = ("<im_patch>", "<im_start>", "<im_end>")  # LLaVA's added tokens
GROWN = ("model.embed_tokens.weight", "lm_head.weight")


@pytest.fixture(scope="module")
def vocabulary() -> SpmBpe:
    return SpmBpe()


@pytest.fixture(scope="module")
def difference(vocabulary: SpmBpe) -> State:
    """Of the rows of the base's vocabulary and of the added tokens."""
    return random_state(len(vocabulary.pieces) + len(MARKS), seed=4, linear=True)


def write_base(folder: Path, rows: int, dtype: str = "F32", **changes: int) -> State:
    """LLaMA as Hugging Face's layout has it; -> its tensors under LLaVA's names."""
    whole = random_state(rows, seed=5, linear=True, **changes)
    state = {own_name(name): value for name, value in whole.items() if name.startswith("language_model.")}
    folder.mkdir()
    write_json(folder, config=config(rows)["text_config"])
    state["model.layers.0.self_attn.rotary_emb.inv_freq"] = ((4,), bytes(16))
    (folder / "model.safetensors").write_bytes(convert_safetensors_bytes(state, dtype))
    return state


def write_difference(folder: Path, vocabulary: SpmBpe, state: State, dtype: str = "F32", **changes: object) -> Path:
    """In the authors' layout, with LLaVA's added tokens."""
    rows = len(vocabulary.pieces) + len(MARKS)
    write_own(folder, vocabulary, state, vocab_size=rows, **changes)
    (folder / "added_tokens.json").write_text(
        json.dumps({mark: len(vocabulary.pieces) + n for n, mark in enumerate(MARKS)})
    )
    own = {own_name(n): v for n, v in state.items() if not n.startswith("vision_")}
    own = {name.replace("mm_projector.0.", "mm_projector."): value for name, value in own.items()}
    (folder / "model.safetensors").write_bytes(convert_safetensors_bytes(own, dtype))
    return folder


def tensors_of(path: Path) -> dict[str, np.ndarray]:
    file = _core.GgufFile(str(path))
    return {name: np.frombuffer(file.tensor_data(name), "f").reshape(shape) for name, _, shape, *_ in file.tensors()}


def array(entry: tuple[tuple[int, ...], bytes]) -> np.ndarray:
    return np.frombuffer(entry[1], "f").reshape(entry[0])


@pytest.mark.parametrize("dtype", ["F32", "F16"])
def test_sums(vocabulary: SpmBpe, difference: State, tmp_path: Path, dtype: str) -> None:
    """As the authors add them: in the type of both, rows of added tokens as they are, the projector whole."""
    base = write_base(tmp_path / "llama", len(vocabulary.pieces), dtype)
    own = write_difference(tmp_path / "delta", vocabulary, difference, dtype)
    report = convert(own, tmp_path / "a.gguf", type="f32", base=tmp_path / "llama")
    found, kind = tensors_of(report.output), np.float16 if dtype == "F16" else np.float32
    assert verify(report.output) == []
    names = {
        "token_embd.weight": GROWN[0], "output.weight": GROWN[1], "output_norm.weight": "model.norm.weight",
        "blk.1.attn_q.weight": "model.layers.1.self_attn.q_proj.weight",
        "blk.0.attn_norm.weight": "model.layers.0.input_layernorm.weight",
        "blk.0.ffn_down.weight": "model.layers.0.mlp.down_proj.weight",
    }  # fmt: skip
    by_own = {own_name(name): array(value).astype(kind) for name, value in difference.items()}
    for ours, theirs in names.items():
        expected = by_own[theirs].copy()
        rows = len(array(base[theirs]))
        expected[:rows] += array(base[theirs]).astype(kind)
        assert np.array_equal(found[ours], expected.astype("f")), ours
    assert len(found["token_embd.weight"]) == len(vocabulary.pieces) + len(MARKS)
    whole = array(difference["multi_modal_projector.linear_1.weight"]).astype(kind).astype("f")
    assert np.array_equal(found["mm.0.weight"], whole)
    assert any(text.startswith("model.safetensors:") for text in report.sha256) and len(set(report.sha256)) >= 6


def test_differences_of_another_type_than_the_base(vocabulary: SpmBpe, difference: State, tmp_path: Path) -> None:
    base = write_base(tmp_path / "llama", len(vocabulary.pieces), "BF16")
    own = write_difference(tmp_path / "delta", vocabulary, difference)
    found = tensors_of(convert(own, tmp_path / "a.gguf", type="f32", base=tmp_path / "llama").output)
    short = (np.frombuffer(base["model.norm.weight"][1], "<u4") + 0x7FFF + 1 >> 16 << 16).astype("<u4").view("f")
    expected = array(difference["language_model.model.norm.weight"]) + short
    assert np.abs(found["output_norm.weight"] - expected).max() < 0.01


def test_the_first_prompt_form(vocabulary: SpmBpe, difference: State, tmp_path: Path) -> None:
    """No file but the card says that it is version v0, whose turns "###" ends; images stand between two tokens."""
    write_base(tmp_path / "llama", len(vocabulary.pieces))
    own = write_difference(tmp_path / "delta", vocabulary, difference, mm_use_im_start_end=True)
    (own / "kosmos_edge.json").write_text(json.dumps({"version": "v0"}))
    path = convert(own, tmp_path / "a.gguf", type="f32", base=tmp_path / "llama").output
    metadata = _core.GgufFile(str(path)).metadata()
    assert metadata["llava.generation.stop"] == "###" and metadata["general.version"] == "v0"
    system = metadata["llava.prompt.system"]
    assert system.endswith("polite answers to the human's questions.")
    question = "###Human: <im_start>{image}<im_end>\n{question}###Assistant:"
    assert metadata["llava.prompt.question"] == question
    assert metadata["llava.prompt.follow_up"] == "###Human: {question}###Assistant:"
    with kosmos_edge.load(path, threads=1) as model:
        engine, picture = model._open.engine, make_picture(1, 60, 40)
        chat = model.chat(picture)
        first = chat.ask("ba", max_tokens=3)
        begin, end = (len(vocabulary.pieces) + n for n in (1, 2))
        image = ("image", engine.encode_image(picture.tobytes(), 60, 40))
        prompt = [("text", f"{system}###Human: "), ("ids", [begin]), image, ("ids", [end]),
                  ("text", "\nba###Assistant:")]  # fmt: skip
        assert first.timings.prompt_tokens == len(engine.prompt_ids(prompt))
        params = _core.GenerateParams()
        params.max_tokens = 3
        assert engine.generate(prompt, params).token_ids == first.token_ids
        second = chat.ask("ke", max_tokens=3)
        prompt[-1] = ("text", f"\nba###Assistant: {first.text}###Human: ke###Assistant:")
        assert second.timings.prompt_tokens == len(engine.prompt_ids(prompt))
        assert engine.generate(prompt, params).token_ids == second.token_ids


def test_without_the_card_it_is_v1(vocabulary: SpmBpe, difference: State, tmp_path: Path) -> None:
    write_base(tmp_path / "llama", len(vocabulary.pieces))
    own = write_difference(tmp_path / "delta", vocabulary, difference)
    metadata = _core.GgufFile(str(convert(own, tmp_path / "a.gguf", base=tmp_path / "llama").output)).metadata()
    assert metadata["general.version"] == "v1" and "llava.generation.stop" not in metadata
    assert metadata["llava.prompt.question"] == "USER: {image}\n{question} ASSISTANT:"


def test_both_command_lines(
    vocabulary: SpmBpe, difference: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_base(tmp_path / "llama", len(vocabulary.pieces))
    own = write_difference(tmp_path / "delta", vocabulary, difference)
    made = convert(own, tmp_path / "a.gguf", base=tmp_path / "llama").output.read_bytes()
    options = ["--base", str(tmp_path / "llama"), str(own), "-o"]
    assert cli.run(["convert", *options, str(tmp_path / "b.gguf")]) == 0
    assert module.main([*options, str(tmp_path / "c.gguf")]) == 0
    assert (tmp_path / "b.gguf").read_bytes() == (tmp_path / "c.gguf").read_bytes() == made
    capsys.readouterr()


def base_without(name: str) -> Callable[[Path, int], object]:
    def change(folder: Path, rows: int) -> None:
        state = write_base(folder, rows)
        del state[name]
        (folder / "model.safetensors").write_bytes(convert_safetensors_bytes(state))

    return change


def base_of(kind: str) -> Callable[[Path, int], object]:
    def change(folder: Path, rows: int) -> None:
        write_base(folder, rows)
        write_json(folder, config={"model_type": kind})

    return change


BAD: dict[str, tuple[Callable[[Path, int], object], type[Exception], str]] = {
    "no base": (lambda folder, rows: None, ModelNotFound, "base: no folder"),
    "another model": (base_of("opt"), ModelCorrupt, "model_type is 'opt'; expected the 'llama'"),
    "another size": (
        lambda folder, rows: write_base(folder, rows, ff=128),
        ModelCorrupt,
        r"gate_proj\.weight has the shape \(128, 64\), expected \(96, 64\): the base has another size",
    ),
    "more tokens": (
        lambda folder, rows: write_base(folder, rows + 9),
        ModelCorrupt,
        r"embed_tokens\.weight has the shape .*or fewer rows: the base has another vocabulary",
    ),
    "more layers": (
        lambda folder, rows: write_base(folder, rows, layers=SIZES["layers"] + 1),
        ModelCorrupt,
        r"there is no model\.layers\.2\..*, which .*llama has",
    ),
    "fewer layers": (
        lambda folder, rows: write_base(folder, rows, layers=1),
        ModelCorrupt,
        r"there is no model\.layers\.1\..*, which .* differs from",
    ),
    "a tensor less": (base_without("model.norm.weight"), ModelCorrupt, r"there is no model\.norm\.weight, which"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_base_that_does_not_fit(vocabulary: SpmBpe, difference: State, tmp_path: Path, case: str) -> None:
    make, error, message = BAD[case]
    make(tmp_path / "llama", len(vocabulary.pieces))
    own = write_difference(tmp_path / "delta", vocabulary, difference)
    with pytest.raises(error, match=message):
        convert(own, tmp_path / "a.gguf", base=tmp_path / "llama")
    assert not (tmp_path / "a.gguf").exists()


def test_a_base_for_what_is_no_difference(vocabulary: SpmBpe, difference: State, tmp_path: Path) -> None:
    write_base(tmp_path / "llama", len(vocabulary.pieces))
    shutil.copytree(tmp_path / "llama", tmp_path / "other")
    with pytest.raises(ModelCorrupt, match="base is for differences of LLaVA"):
        convert(tmp_path / "other", tmp_path / "a.gguf", base=tmp_path / "llama")
