"""A tiny random KOSMOS-1 checkpoint in KOSMOS-2's layout: how it is recognised, what its file lacks, what is refused.

That the file holds the checkpoint's weights and runs: tests/models/.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.convert_checkpoint import PIECES, convert_state, convert_tokenizer_json, convert_write_hf

from kosmos_edge import _core
from kosmos_edge.convert import convert
from kosmos_edge.convert.models import MODELS, find_model
from kosmos_edge.convert.models.kosmos_layout import TEXT_TAGS, layout
from kosmos_edge.errors import ModelCorrupt

TOKENS = layout(PIECES, TEXT_TAGS, 0)


def tokenizer_json() -> dict[str, Any]:
    """KOSMOS-2's, cut before <phrase>."""
    whole = convert_tokenizer_json()
    return whole | {"added_tokens": [token for token in whole["added_tokens"] if token["id"] < len(TOKENS)]}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kosmos1")
    state = convert_state(seed=4, vocab=len(TOKENS))
    convert_write_hf(folder, state, model_type="kosmos-1", text_config__vocab_size=len(TOKENS))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json()), encoding="utf-8")
    return folder


def test_the_published_layout_is_recognised() -> None:
    assert find_model({"model_type": "kosmos-2", "text_config": {"vocab_size": 64007}}) is MODELS["kosmos-1"]
    assert find_model({"model_type": "kosmos-2", "text_config": {"vocab_size": 65037}}) is MODELS["kosmos-2"]
    assert find_model({"model_type": "kosmos-2"}) is MODELS["kosmos-2"]
    assert MODELS["kosmos-1"].read_config({"model_type": "kosmos-1"}).vocab == 64007


def test_it_becomes_a_file_without_location_tokens(checkpoint: Path, tmp_path: Path) -> None:
    path = convert(checkpoint, tmp_path / "a.gguf", type="f32").output
    metadata = _core.GgufFile(str(path)).metadata()
    assert metadata["general.architecture"] == metadata["clip.projector_type"] == "kosmos1"
    assert metadata["tokenizer.ggml.tokens"] == TOKENS
    assert metadata["tokenizer.ggml.token_type"] == [3, 3, 3, 2, *[1] * len(PIECES), 5, *[4] * len(TEXT_TAGS)]
    assert not [key for key in metadata if key.startswith("kosmos2.") or key.endswith("location_bins")]
    prompts = {key for key in metadata if ".prompt." in key}
    assert prompts == {f"kosmos1.prompt.{task}" for task in ("caption", "caption_detailed", "question")}


def test_a_vocabulary_with_boxes_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "tokenizer.json"
    other.write_text(json.dumps(convert_tokenizer_json()), encoding="utf-8")
    with pytest.raises(ModelCorrupt, match="1024 location tokens in the vocabulary of a model without boxes"):
        convert(checkpoint, tmp_path / "a.gguf", tokenizer=other)


def test_a_vocabulary_without_its_tags_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "tokenizer.json"
    short = tokenizer_json()
    other.write_text(json.dumps(short | {"added_tokens": short["added_tokens"][:-1]}), encoding="utf-8")
    with pytest.raises(ModelCorrupt, match=r"expected <mask> and the tags .* at the end"):
        convert(checkpoint, tmp_path / "a.gguf", tokenizer=other)
