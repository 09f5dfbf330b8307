"""Files written by torch itself, where torch is installed: every container and pickle protocol of torch.save."""

import argparse
import collections
import json
import struct

import pytest
from helpers.convert_checkpoint import (
    PIECES,
    convert_sentencepiece_bytes,
    convert_state,
    convert_unilm_name,
    convert_write_hf,
    convert_write_settings,
)

from kosmos_edge.convert import convert
from kosmos_edge.convert.sources.files import SourceFile
from kosmos_edge.convert.sources.weights import read_state
from kosmos_edge.errors import ModelCorrupt

torch = pytest.importorskip("torch", reason="torch is not installed")
ONE_LAYER = {"text_config__layers": 1, "vision_config__num_hidden_layers": 1}


@pytest.fixture(scope="module")
def state():
    return convert_state(seed=11, layers=1, vision_layers=1)


@pytest.fixture(scope="module")
def tensors(state):
    return {
        name: torch.frombuffer(bytearray(data), dtype=torch.float32).reshape(shape)
        for name, (shape, data) in state.items()
    }


def converted(folder, output):
    from kosmos_edge import _core

    file = _core.GgufFile(str(convert(folder, output).output))
    metadata = file.metadata()
    metadata.pop("kosmos2.source.sha256")
    return metadata, {name: file.tensor_data(name) for name, *_ in file.tensors()}


SAVED = {
    "zip": {},
    "zip, protocol 4": {"pickle_protocol": 4},
    "zip, protocol 5": {"pickle_protocol": 5},
    "stream": {"_use_new_zipfile_serialization": False},
    "stream, protocol 4": {"_use_new_zipfile_serialization": False, "pickle_protocol": 4},
}


@pytest.mark.parametrize("how", SAVED)
def test_state_dict_of_parameters(tmp_path, state, tensors, how):
    expected = converted(convert_write_hf(tmp_path / "hf", state, **ONE_LAYER), tmp_path / "a.gguf")
    folder = convert_write_settings(tmp_path / "bin", **ONE_LAYER)
    saved = collections.OrderedDict((name, torch.nn.Parameter(tensor)) for name, tensor in tensors.items())
    saved._metadata = {"": {"version": 1}}
    saved["text_model.lm_head.weight"] = saved["text_model.model.embed_tokens.weight"]
    torch.save(saved, folder / "pytorch_model.bin", **SAVED[how])
    assert converted(folder, tmp_path / "b.gguf") == expected


@pytest.mark.parametrize("how", SAVED)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_fairseq_checkpoint(tmp_path, tensors, how, dtype):
    def exact(name: str) -> bytes:
        values = tensors[name].to(getattr(torch, dtype)).float().flatten().tolist()
        return struct.pack(f"<{len(values)}f", *values)

    folder = tmp_path / "pt"
    folder.mkdir()
    model = {convert_unilm_name(name): tensor.to(getattr(torch, dtype)) for name, tensor in tensors.items()}
    model["gpt_model.decoder.output_projection.weight"] = model["gpt_model.decoder.embed_tokens.weight"]
    model["gpt_model.decoder.embed_positions._float_tensor"] = torch.zeros(1)
    args = argparse.Namespace(decoder_attention_heads=4, lr=[1e-4], path=None, seed=1)
    torch.save({"args": args, "model": model, "extra_state": {"epoch": 3}}, folder / "kosmos-2.pt", **SAVED[how])
    (folder / "sentencepiece.bpe.model").write_bytes(convert_sentencepiece_bytes())
    (folder / "dict.txt").write_text("".join(f"{piece} 1\n" for piece in PIECES), encoding="utf-8")
    metadata, stored = converted(folder, tmp_path / "a.gguf")
    assert metadata["kosmos2.attention.head_count"] == 4
    assert stored["mm.latent_query"] == exact("image_to_text_projection.latent_query")
    assert stored["blk.0.ffn_up.bias"] == exact("text_model.model.layers.0.ffn.fc1.bias")


@pytest.mark.parametrize("how", SAVED)
def test_views_of_one_storage(tmp_path, how):
    base = torch.arange(24, dtype=torch.float32)
    saved = {"a": base[4:10].view(2, 3), "b": base.view(4, 6), "c": base[23], "d": base.view(4, 6)[1:3]}
    torch.save(saved, tmp_path / "x", **SAVED[how])
    with SourceFile(tmp_path / "x") as file:
        for name, tensor in read_state(file).items():
            assert tensor.shape == tuple(saved[name].shape)
            assert bytes(tensor.read(0, tensor.nbytes)) == saved[name].numpy().tobytes()


@pytest.mark.parametrize("how", SAVED)
def test_what_is_not_a_plain_tensor_is_refused(tmp_path, how):
    for value in (
        torch.arange(6.0).view(2, 3).t(),
        torch.zeros(1).expand(5),
        torch.eye(3).to_sparse(),
        torch.nn.Linear(2, 2),
        torch.zeros(2, dtype=torch.complex64),
        torch.device("cpu"),
        [torch.zeros(2)],
    ):
        torch.save({"x": value}, tmp_path / "x", **SAVED[how])
        with SourceFile(tmp_path / "x") as file, pytest.raises(ModelCorrupt):
            read_state(file)


def test_torchscript_is_refused(tmp_path):
    class Double(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + x

    with pytest.warns(DeprecationWarning):
        torch.jit.save(torch.jit.script(Double()), tmp_path / "x")
    with SourceFile(tmp_path / "x") as file, pytest.raises(ModelCorrupt, match=r"TorchScript|compressed"):
        read_state(file)


def test_safetensors_of_the_library(tmp_path, state, tensors):
    torch_safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    expected = converted(convert_write_hf(tmp_path / "hf", state, **ONE_LAYER), tmp_path / "a.gguf")
    folder = convert_write_settings(tmp_path / "st", **ONE_LAYER)
    torch_safetensors.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    assert converted(folder, tmp_path / "b.gguf") == expected
    assert json.loads((folder / "config.json").read_text())["model_type"] == "kosmos-2"
