"""The registry of models that can be converted."""

import json

import pytest
from helpers.convert_checkpoint import convert_write_hf

from kosmos_edge.convert import convert
from kosmos_edge.convert.models import MODELS, find_model, model_of
from kosmos_edge.errors import ModelCorrupt


def test_every_row_is_found_by_its_architecture():
    assert {model.ARCHITECTURE for model in MODELS.values()} >= {"kosmos2"}
    for model in MODELS.values():
        assert model_of(model.ARCHITECTURE) is model
    with pytest.raises(ModelCorrupt, match=r"general.architecture is 'llama'; expected one of .*kosmos2"):
        model_of("llama")


@pytest.mark.parametrize("name", MODELS)
def test_a_model_type_finds_its_row(name):
    assert find_model({"model_type": name}) is MODELS[name]


def test_the_model_is_chosen_before_its_vocabulary_is_read(tmp_path):
    """A tokenizer that KOSMOS-2 would refuse does not hide what the checkpoint is."""
    folder = convert_write_hf(tmp_path / "other", {"a.weight": ((2,), bytes(8))}, model_type="other")
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"type": "WordPiece"}}))
    with pytest.raises(ModelCorrupt, match=r"model_type is 'other'; expected one of .*kosmos-2"):
        convert(folder, tmp_path / "a.gguf")
