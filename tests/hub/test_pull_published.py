"""Pulls of KOSMOS-2.5 and its chat model from a hub on the loopback interface; what is known of published models."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.convert_hub import COMMIT, Repo, Serving
from helpers.kosmos2_5_checkpoint import PageVocabulary, random_state, write_hf

from kosmos_edge import _core, cli, hub
from kosmos_edge.convert import convert
from kosmos_edge.errors import InvalidRequest, ModelNotFound
from kosmos_edge.hub import transfer

VOCABULARY = PageVocabulary()
# Of LLaVA's downloads: a block of CLIP's tower and the norm behind it, of width 1024, which no converted file has.
UNUSED = 4 * (1024 * 1024 + 1024) + 2 * 1024 * 4096 + 4096 + 1024 + 3 * 2 * 1024
IDEFICS = {"idefics-9b", "idefics-9b-instruct"}
UNUSED_OF_IDEFICS = 2 * 1280  # the norm behind its tower
# Of InstructBLIP's Q-Former: what its last block would make of the question.
UNREAD = 2 * 3072 * 768 + 3072 + 3 * 768
# The others are stored in float32.
IN_16_BITS = IDEFICS | {
    "llava-1.5-7b", "llava-1.5-13b", "tinyllava", "llava-interleave-qwen-0.5b", "mplug-owl-llama-7b",
}  # fmt: skip
LICENSES = {
    "llama2": {"llava-1.5-7b", "llava-1.5-13b"},
    "apache-2.0": {"tinyllava", "mplug-owl-llama-7b"},
    "other": {"llava-interleave-qwen-0.5b", "instructblip-vicuna-7b", "instructblip-vicuna-13b"} | IDEFICS,
}
NEEDED = [
    "model.safetensors",
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
]


def repo_of(folder: Path) -> Repo:
    """The folder as a repository, with the files of the published one that a pull must leave alone."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    files |= {"README.md": b"# a model card", "ckpt.pt": bytes(7000), "receipt_00008.png": bytes(500)}
    return Repo(files, {name for name in files if name.endswith((".safetensors", ".pt", ".png"))})


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By tag: folders in the published layout, of other weights each."""
    rows = len(VOCABULARY.pieces)
    return {
        tag: write_hf(tmp_path_factory.mktemp(tag), VOCABULARY, random_state(rows, seed))
        for seed, tag in enumerate(("kosmos-2.5", "kosmos-2.5-chat"))
    }


@pytest.fixture
def place(checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("KOSMOS_EDGE_MODEL", "KOSMOS_EDGE_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KOSMOS_EDGE_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(transfer.time, "sleep", lambda seconds: None)
    with Serving({f"microsoft/{tag}": repo_of(folder) for tag, folder in checkpoints.items()}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield SimpleNamespace(server=server, models=tmp_path / "own" / "models", hf=tmp_path / "hf" / "hub")


def tensors(path: Path) -> dict[str, bytes]:
    file = _core.GgufFile(str(path))
    return {name: bytes(file.tensor_data(name)) for name, *_ in file.tensors()}


def test_pull_of_the_reader(place, checkpoints, tmp_path):
    plan = hub.plan("kosmos-2.5")
    assert [file.name for file in plan.files] == NEEDED and plan.commit == COMMIT
    assert plan.output_bytes == hub.converted_bytes(hub.PUBLISHED["kosmos-2.5"], "q4_k_m") > 10**9  # not of this one's
    path = hub.pull("kosmos-2.5")
    assert sorted(place.server.fetched()) == sorted(NEEDED)  # neither ckpt.pt nor pictures
    assert path.parent == place.models and path.name.startswith("Kosmos-2.5-") and path.name.endswith("-Q4_K_M.gguf")
    folder = convert(checkpoints["kosmos-2.5"], tmp_path / "a.gguf").output
    assert path.read_bytes() == folder.read_bytes()
    snapshot = place.hf / "models--microsoft--kosmos-2.5" / "snapshots" / COMMIT
    assert not (snapshot / "model.safetensors").exists() and (snapshot / "config.json").exists()
    assert hub.resolve("kosmos-2.5") == hub.resolve("KOSMOS-2.5:q4_k_m") == hub.path("kosmos-2.5") == path
    assert hub.pull("kosmos-2.5") == path and len(place.server.fetched()) == len(NEEDED)
    with pytest.raises(ModelNotFound, match=r"kosmos-2\.5:q8_0 is not in .*\(here is kosmos-2\.5:q4_k_m\)"):
        hub.resolve("kosmos-2.5:q8_0")


def test_pull_of_the_chat_model_knows_how_it_is_asked(place, checkpoints, tmp_path):
    reader, chat = hub.pull("kosmos-2.5:f32"), hub.pull("kosmos-2.5-chat", type="f32")
    assert chat.name.startswith("Kosmos-2.5-Chat-") and chat != reader
    metadata = _core.GgufFile(str(chat)).metadata()
    prompt = metadata["kosmos2_5.prompt.question"]
    assert prompt.startswith("<md>A chat between a curious user") and prompt.endswith("USER: {question} ASSISTANT:")
    assert metadata["general.name"] == "Kosmos-2.5-Chat" and metadata["general.license"] == "mit"
    assert metadata["general.source.url"] == "https://huggingface.co/microsoft/kosmos-2.5-chat"
    assert "kosmos2_5.prompt.question" not in _core.GgufFile(str(reader)).metadata()
    assert tensors(chat) == tensors(convert(checkpoints["kosmos-2.5-chat"], tmp_path / "a.gguf", type="f32").output)
    assert tensors(chat) != tensors(reader)
    assert [m.tag for m in hub.list_models() if m.tag not in hub.PACKAGED] == ["kosmos-2.5:f32", "kosmos-2.5-chat:f32"]
    assert hub.resolve("kosmos-2.5") == reader and hub.resolve("kosmos-2.5-chat") == chat
    assert hub.default_model()[0] == "nano"  # it answers every task; a reader of pages does not
    assert hub.default_reader() == ("kosmos-2.5:f32", "a converted kosmos-2.5 is in the cache")
    assert hub.remove("kosmos-2.5") == reader
    assert [m.tag for m in hub.list_models() if m.tag not in hub.PACKAGED] == ["kosmos-2.5-chat:f32"]


def test_offline_from_what_was_kept(place, checkpoints):
    hub.pull("kosmos-2.5-chat:q8_0", keep_source=True)
    fetched = len(place.server.requests)
    made = hub.pull("kosmos-2.5-chat:f16", offline=True)
    assert made.name.endswith("-F16.gguf") and len(place.server.requests) == fetched
    with pytest.raises(ModelNotFound, match=r"microsoft/kosmos-2\.5 is not in"):
        hub.pull("kosmos-2.5", offline=True)


def test_a_repository_without_its_tokenizer(place):
    del place.server.repos["microsoft/kosmos-2.5"].files["tokenizer.json"]
    with pytest.raises(ModelNotFound, match=r"microsoft/kosmos-2\.5 has no tokenizer"):
        hub.plan("kosmos-2.5")


def test_tags_and_errors():
    assert hub.split_tag("kosmos-2.5-chat:Q8_0") == ("kosmos-2.5-chat", "q8_0")
    assert hub.split_tag("kosmos-2.5") == ("kosmos-2.5", None) and hub.split_tag("kosmos-2.6") is None
    with pytest.raises(InvalidRequest, match="unknown type 'q3'"):
        hub.split_tag("kosmos-2.5:q3")
    names = r"expected nano, nano-read, kosmos-2, kosmos-2\.5, kosmos-2\.5-chat, llava-1\.5-7b"
    with pytest.raises(ModelNotFound, match=names):
        hub.resolve("kosmos-2.6")


def test_a_name_in_the_cache_is_one_models(place):
    """Basenames begin alike: what follows them must be a size."""
    place.models.mkdir(parents=True)
    for name in ("Kosmos-2-1.6B-v1.0-F16", "Kosmos-2.5-1.3B-v1.0-F16", "Kosmos-2.5-Chat-1.3B-v1.0-F16"):
        (place.models / f"{name}.gguf").write_bytes(b"GGUF")
    found = {model.tag: model.path.stem for model in hub.list_models() if model.tag not in hub.PACKAGED}
    assert found == {
        "kosmos-2:f16": "Kosmos-2-1.6B-v1.0-F16",
        "kosmos-2.5:f16": "Kosmos-2.5-1.3B-v1.0-F16",
        "kosmos-2.5-chat:f16": "Kosmos-2.5-Chat-1.3B-v1.0-F16",
    }


def test_list_known(capsys, monkeypatch):
    monkeypatch.delenv("KOSMOS_EDGE_FORMAT", raising=False)
    assert cli.run(["models", "list", "--known", "-f", "json"]) == 0
    rows = {row["tag"]: row for row in json.loads(capsys.readouterr().out)}
    kosmos = {"kosmos-2", "kosmos-2.5", "kosmos-2.5-chat"}
    others = {"blip2-opt-2.7b", "blip2-opt-6.7b", "instructblip-vicuna-7b"}
    others |= {"instructblip-vicuna-13b"} | {
        f"{model}-flan-t5-{size}" for model in ("blip2", "instructblip") for size in ("xl", "xxl")
    }
    others |= {"clip-vit-large-patch14", "clip-vit-base-patch16", "clip-vit-base-patch32"}
    assert set(rows) == set(hub.PUBLISHED) == kosmos | others | IN_16_BITS
    for tag, row in rows.items():
        assert row["license"] == next((name for name, tags in LICENSES.items() if tag in tags), "mit")
    assert rows["kosmos-2.5"]["download_bytes"] == 4 * 1_374_646_272  # float32
    assert rows["kosmos-2"]["download_bytes"] == 4 * 1_664_485_376
    for tag, row in rows.items():
        share = row["bytes"] / row["download_bytes"]
        assert 0.25 < share < 0.5 if tag in IN_16_BITS else 0.15 < share < 0.2
    assert rows["kosmos-2.5-chat"]["repo"] == "microsoft/kosmos-2.5-chat"
    assert cli.run(["models", "list", "--known"]) == 0
    captured = capsys.readouterr()
    assert "MiniGPT-v2 and OpenFlamingo are published in parts" in captured.err
    lines = captured.out.splitlines()
    size = rows["kosmos-2.5"]["bytes"]
    assert lines[1].startswith(f"kosmos-2.5\tmit\t5498585088\t{size}\tmicrosoft/kosmos-2.5\t")


def test_the_published_sizes_are_those_of_the_tables():
    """Weights of the download, counted from the converter's table: every tensor once, in float32 or 16 bits."""
    for row in hub.PUBLISHED.values():
        whole = row.source_bytes * (2 if row.name in IN_16_BITS else 1)
        unused = 4 * UNUSED if row.model_type == "llava" and row.sizes.get("vision_feature_layer", -2) == -2 else 0
        unused += 4 * UNUSED_OF_IDEFICS if row.name in IDEFICS else 0
        unused += 4 * UNREAD if row.model_type == "instructblip" else 0
        unused += 4 if row.model_type == "clip" else 0  # the scale of cosines is no tensor of a converted file
        assert whole % 4 == 0 and hub.converted_bytes(row, "f32") == whole - unused
        assert hub.converted_bytes(row, "q4_k_m") < 0.25 * whole  # of a SigLIP's, some rows do not fit 4 bits


def test_what_reads_pages_by_default(place, tmp_path, monkeypatch, capsys):
    """The environment's model, a converted KOSMOS-2.5, or the small one of the package."""
    from PIL import Image

    photo = tmp_path / "page.png"
    Image.new("RGB", (40, 30), "white").save(photo)
    for words in (["read", photo], ["batch", photo, "--task", "read"]):
        assert cli.run([*map(str, words), "-v", "--max-tokens", "5"]) == 0
        err = capsys.readouterr().err
        assert "model nano-read: no kosmos-2.5 is here (`kosmos-edge models pull kosmos-2.5` gets it)" in err
    monkeypatch.setenv("KOSMOS_EDGE_MODEL", "/some/file.gguf")
    assert hub.default_reader() == ("/some/file.gguf", "KOSMOS_EDGE_MODEL says so")
