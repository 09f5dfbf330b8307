"""`models pull` against a hub on the loopback interface, and the names and places of models."""

import hashlib
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.convert_checkpoint import convert_safetensors_bytes, convert_state, convert_write_bin, convert_write_hf
from helpers.convert_hub import COMMIT, Repo, Serving

from kosmos_edge import _core, hub
from kosmos_edge.convert import convert, verify
from kosmos_edge.errors import Cancelled, InvalidRequest, KosmosError, KosmosIOError, ModelCorrupt, ModelNotFound
from kosmos_edge.hub import transfer as hub_transfer

ONE_LAYER = {"text_config__layers": 1, "vision_config__num_hidden_layers": 1}
REPO = hub.KOSMOS2_REPO
SNAPSHOT = f"models--{REPO.replace('/', '--')}/snapshots/{COMMIT}"
SOCKETS: dict[str, list[str] | None] = {"events": None}


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if SOCKETS["events"] is not None and event.startswith("socket."):
        SOCKETS["events"].append(event)


sys.addaudithook(_hook)  # cannot be removed again: silent unless a test listens


@pytest.fixture
def sockets():
    """The socket events of the test so far."""
    SOCKETS["events"] = events = []
    yield events
    SOCKETS["events"] = None


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A folder in the published layout, with the files that a pull must leave alone."""
    state = convert_state(seed=9, layers=1, vision_layers=1)
    folder = convert_write_hf(tmp_path_factory.mktemp("published"), state, **ONE_LAYER)
    (folder / "README.md").write_text("# a model card")
    (folder / "pytorch_model.bin").write_bytes(bytes(5000))
    (folder / "sentencepiece.bpe.model").write_bytes(bytes(300))
    return folder


@pytest.fixture(scope="module")
def gguf(checkpoint, tmp_path_factory):
    return convert(checkpoint, tmp_path_factory.mktemp("gguf") / "a.gguf").output.read_bytes()


def repo_of(folder: Path) -> Repo:
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return Repo(files, {name for name in files if name.endswith((".safetensors", ".bin", ".model"))})


@pytest.fixture
def server(checkpoint):
    with Serving({REPO: repo_of(checkpoint)}) as serving:
        yield serving


@pytest.fixture
def place(server, tmp_path, monkeypatch):
    """Caches in a temporary folder, the hub on the loopback interface, no waiting between attempts."""
    for name in ("KOSMOS_EDGE_MODEL", "KOSMOS_EDGE_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KOSMOS_EDGE_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setattr(hub_transfer.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(hub_transfer, "CHUNK_BYTES", 1 << 16)
    return SimpleNamespace(
        models=tmp_path / "own" / "models", snapshot=tmp_path / "hf" / "hub" / SNAPSHOT, hf=tmp_path / "hf" / "hub"
    )


def leftovers(place) -> list[str]:
    return [path.name for path in place.hf.rglob("*.part")] if place.hf.exists() else []


# ---- a whole pull


def test_pull_converts_and_keeps_one_file(server, place, gguf, checkpoint):
    plan = hub.plan("kosmos-2")
    needed = [
        "model.safetensors",
        "config.json",
        "generation_config.json",
        "preprocessor_config.json",
        "tokenizer.json",
    ]
    assert [file.name for file in plan.files] == needed
    assert plan.download_bytes == sum((checkpoint / name).stat().st_size for name in needed)
    assert plan.cached_bytes == 0 and plan.commit == COMMIT
    text = "\n".join(hub.describe_plan(plan))
    assert "to download" in text and "model.safetensors" in text and "q4_k_m" in text
    assert "licence: mit" in text
    assert server.fetched() == []  # sizes are said before anything is fetched

    seen = []
    path = hub.pull("kosmos-2", progress=lambda *step: seen.append(step))
    assert path == place.models / "Kosmos-2-1.8M-v1.0-Q4_K_M.gguf"
    assert path.read_bytes() == gguf  # as if the folder had been converted
    assert sorted(server.fetched()) == sorted(needed)  # each once; no .bin, no README
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert len({total for _, total, _ in seen}) == 1 and seen[-1][0] == seen[-1][1]
    assert not (place.snapshot / "model.safetensors").exists()  # the download is not kept
    assert list(place.hf.rglob("*")) and sum(p.stat().st_size for p in place.hf.rglob("*") if p.is_file()) < 10**6
    assert leftovers(place) == [] and verify(path) == []

    assert hub.resolve("kosmos-2") == hub.resolve("kosmos-2:Q4_K_M") == hub.path("kosmos-2") == path
    assert hub.default_model() == ("kosmos-2:q4_k_m", "a converted KOSMOS-2 is in the cache")
    assert [m.tag for m in hub.list_models() if m.tag not in hub.PACKAGED] == ["kosmos-2:q4_k_m"]


def test_second_pull_asks_nothing(server, place, sockets):
    path = hub.pull("kosmos-2:q8_0")
    assert sockets
    server.requests.clear()
    sockets.clear()
    assert hub.pull("kosmos-2:q8_0") == hub.pull("kosmos-2", type="q8_0") == path
    assert hub.plan("kosmos-2:q8_0").ready == path
    assert "is here" in hub.describe_plan(hub.plan("kosmos-2:q8_0"))[0]
    assert server.requests == [] and sockets == []


def test_kept_source_serves_other_types(server, place, checkpoint):
    hub.pull("kosmos-2:q8_0", keep_source=True)
    assert (place.snapshot / "model.safetensors").read_bytes() == (checkpoint / "model.safetensors").read_bytes()
    server.requests.clear()
    plan = hub.plan("kosmos-2:f16")
    assert plan.download_bytes == 0 and plan.cached_bytes > 10**6
    hub.pull("kosmos-2:f16")
    assert server.fetched() == []
    assert (place.snapshot / "model.safetensors").exists()  # it was there before this pull: not ours to remove
    assert sorted(m.tag for m in hub.list_models() if m.tag not in hub.PACKAGED) == ["kosmos-2:f16", "kosmos-2:q8_0"]
    assert hub.resolve("kosmos-2").name.endswith("Q8_0.gguf")


@pytest.mark.parametrize("options", [(), ("--keep-source",)])
def test_the_command_keeps_the_checkpoint_when_asked_to(server, place, checkpoint, capsys, options):
    from kosmos_edge.cli import run

    assert run(["models", "pull", "kosmos-2:q8_0", *options]) == 0
    assert Path(capsys.readouterr().out.strip()).name.endswith("Q8_0.gguf")
    assert (place.snapshot / "model.safetensors").exists() == bool(options)


def test_the_library_finds_what_was_pulled(server, place, checkpoint):
    """What lies in its cache is what it would have put there itself: it downloads nothing again."""
    import huggingface_hub

    hub.pull("kosmos-2", keep_source=True)
    server.requests.clear()
    for name in ("model.safetensors", "config.json"):
        found = huggingface_hub.hf_hub_download(REPO, name, cache_dir=place.hf, endpoint=server.url)
        assert Path(found).read_bytes() == (checkpoint / name).read_bytes()
    assert server.fetched() == []
    offline = huggingface_hub.hf_hub_download(REPO, "model.safetensors", cache_dir=place.hf, local_files_only=True)
    assert Path(offline) == place.snapshot / "model.safetensors"


def test_pull_to_a_folder(place, gguf, tmp_path):
    path = hub.pull("kosmos-2", to=tmp_path / "usb" / "stick")
    assert path.parent == tmp_path / "usb" / "stick" and path.read_bytes() == gguf
    assert not place.models.exists()
    assert hub.pull("kosmos-2", to=tmp_path / "usb" / "stick") == path


@pytest.mark.parametrize("shards", [False, True])
def test_weights_in_other_forms(place, server, tmp_path, gguf, shards):
    state = convert_state(seed=9, layers=1, vision_layers=1)
    folder = convert_write_bin(tmp_path / "bin", state) if not shards else convert_write_hf(tmp_path / "st", state)
    (folder / "config.json").write_bytes(server.repos[REPO].files["config.json"])
    if shards:
        (folder / "model.safetensors").unlink()
        names = list(state)
        for i, part in enumerate((names[:40], names[40:])):
            data = convert_safetensors_bytes({name: state[name] for name in part})
            (folder / f"model-0000{i + 1}-of-00002.safetensors").write_bytes(data)
        index = {name: f"model-0000{1 + (name not in names[:40])}-of-00002.safetensors" for name in names}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    server.repos[REPO] = repo_of(folder)
    path = hub.pull("kosmos-2")
    metadata = _core.GgufFile(str(path)).metadata()
    names = {entry.split(":")[0] for entry in metadata["kosmos2.source.sha256"]}
    assert ("pytorch_model.bin" in names) is not shards
    assert path.stat().st_size == pytest.approx(len(gguf), abs=1000)


def test_token_is_sent_to_the_hub(place, server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.pull("kosmos-2")
    assert ("api", "Bearer hf_secret") in server.tokens
    assert {token for place, token in server.tokens if place == "cdn"} == {""}  # not to the storage behind it


# ---- interruptions


def test_cut_connections_are_resumed(place, server, gguf):
    cuts = []

    def fault(handler, start, data):
        if len(cuts) < 4:
            cuts.append(start)
            return handler.cut(data, start, 200_000)
        return False

    server.faults["model.safetensors"] = fault
    assert hub.pull("kosmos-2").read_bytes() == gguf
    weights = f"/cdn/{REPO}/model.safetensors"
    ranges = [r for method, path, r in server.requests if (method, path) == ("GET", weights)]
    assert ranges[0] == "" and len(ranges) == 5
    starts = [int(r.removeprefix("bytes=").rstrip("-")) for r in ranges[1:]]
    assert starts == sorted(starts) and starts[0] > 0 and len(set(starts)) == 4  # every attempt brought more


def test_a_failed_pull_is_resumed_by_the_next(place, server, gguf):
    dead = []

    def fault(handler, start, data):
        dead.append(start)
        if len(dead) == 1:
            return handler.cut(data, start, 3_000_000)
        handler.answer(503)
        return True

    server.faults["model.safetensors"] = fault
    with pytest.raises(KosmosIOError, match="run again to continue"):
        hub.pull("kosmos-2")
    assert leftovers(place) and not place.models.exists()
    server.faults.clear()
    server.requests.clear()
    assert hub.pull("kosmos-2").read_bytes() == gguf
    ranges = [r for _, path, r in server.requests if "/cdn/" in path and path.endswith("model.safetensors")]
    assert len(ranges) == 1 and 2_000_000 < int(ranges[0].removeprefix("bytes=").rstrip("-")) <= 3_000_000
    assert leftovers(place) == []


def test_a_cancelled_pull_is_resumed_by_the_next(place, server, gguf):
    token = SimpleNamespace(cancelled=False)

    def progress(done, total, name):
        token.cancelled = name == "model.safetensors" and done > 1_000_000

    with pytest.raises(Cancelled):
        hub.pull("kosmos-2", progress=progress, cancel=token)
    assert leftovers(place)
    server.requests.clear()
    assert hub.pull("kosmos-2").read_bytes() == gguf
    assert any(r.startswith("bytes=") for _, _, r in server.requests)


def test_a_server_without_ranges(place, server, gguf):
    """200 for a request with a Range: the file starts over instead of being glued together."""
    calls = []

    def fault(handler, start, data):
        calls.append(start)
        if len(calls) == 1:
            return handler.cut(data, start, 500_000)
        handler.answer(200, data)
        return True

    server.faults["model.safetensors"] = fault
    assert hub.pull("kosmos-2").read_bytes() == gguf
    assert calls[0] is None and calls[1]


def test_a_server_that_sends_another_range(place, server, gguf):
    calls = []

    def fault(handler, start, data):
        calls.append(start)
        if len(calls) == 1:
            return handler.cut(data, start, 500_000)
        if len(calls) == 2:
            handler.answer(206, data[5:], Content_Range=f"bytes 5-{len(data) - 1}/{len(data)}")
            return True
        return False

    server.faults["model.safetensors"] = fault
    assert hub.pull("kosmos-2").read_bytes() == gguf


def test_a_partial_file_longer_than_the_file(place, server, gguf):
    digest = hashlib.sha256(server.repos[REPO].files["model.safetensors"]).hexdigest()
    part = place.snapshot.parent.parent / "blobs" / f"{digest}.kosmos-edge.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(len(server.repos[REPO].files["model.safetensors"]) + 10))
    assert hub.pull("kosmos-2").read_bytes() == gguf


def test_two_pulls_at_once(place, server):
    """The second one is told so instead of writing into the first one's file."""
    errors = []

    def progress(done, total, name):
        if name == "model.safetensors" and not errors:
            with pytest.raises(KosmosIOError, match="another process") as caught:
                hub.pull("kosmos-2")
            errors.append(caught.value)

    hub.pull("kosmos-2", progress=progress)
    assert len(errors) == 1


# ---- damage


def refused(place, match, error=ModelCorrupt):
    with pytest.raises(error, match=match):
        hub.pull("kosmos-2")
    assert not place.models.exists() or list(place.models.iterdir()) == []
    assert leftovers(place) == []
    for folder in (place.snapshot, place.snapshot.parent.parent / "blobs"):
        for path in folder.iterdir() if folder.is_dir() else []:
            assert len(path.resolve().name) in (40, 64)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_flipped_byte_is_refused(place, server, name):
    def fault(handler, start, data):
        bad = bytearray(data)
        bad[len(bad) // 2] ^= 1
        handler.answer(200, bytes(bad))
        return True

    server.faults[name] = fault
    refused(place, "of the download is .* it was removed")
    server.faults.clear()
    hub.pull("kosmos-2")


def test_a_flipped_byte_behind_a_resume_is_refused(place, server):
    calls = []

    def fault(handler, start, data):
        calls.append(start)
        bad = data[:300_000] + bytes([data[300_000] ^ 4]) + data[300_001:]
        if len(calls) == 1:
            return handler.cut(bad, start, 600_000)
        return False

    server.faults["model.safetensors"] = fault
    refused(place, "of the download is .* it was removed")


@pytest.mark.parametrize("count", [-1, 1, 1000])
def test_another_length_than_announced_is_refused(place, server, count):
    def fault(handler, start, data):
        handler.answer(200, data[:count] if count < 0 else data + bytes(count))
        return True

    server.faults["model.safetensors"] = fault
    if count < 0:  # the last byte never comes
        with pytest.raises(KosmosIOError, match="ended early"):
            hub.pull("kosmos-2")
        assert not place.models.exists()
    else:
        refused(place, "more than the")


def test_a_damaged_file_of_the_cache_is_noticed_and_removed(place, server, gguf):
    hub.pull("kosmos-2:q8_0", keep_source=True)
    weights = (place.snapshot / "model.safetensors").resolve()
    data = bytearray(weights.read_bytes())
    data[-5] ^= 64
    weights.write_bytes(data)
    with pytest.raises(ModelCorrupt, match="damaged in the cache and has been removed"):
        hub.pull("kosmos-2")
    assert not weights.exists()
    assert hub.pull("kosmos-2").read_bytes() == gguf


@pytest.mark.parametrize(
    "announced",
    [
        {"size": -1},
        {"size": "12"},
        {"size": None},
        {"lfs": None, "blobId": "../../x"},
        {"lfs": {"sha256": "../" * 21 + "x", "size": 1, "pointerSize": 1}},
        {"lfs": {"sha256": "A" * 64, "size": 1, "pointerSize": 1}},
        {"lfs": {"sha256": "", "size": 1, "pointerSize": 1}, "blobId": None},
    ],
)
def test_what_the_hub_announces_is_checked(place, server, announced):
    server.announced["model.safetensors"] = announced
    with pytest.raises((ModelCorrupt, KosmosIOError), match=r"model\.safetensors|cannot get"):
        hub.pull("kosmos-2")
    assert server.fetched() == []


def test_names_outside_of_the_repository_are_not_asked_for(place, server):
    repo = server.repos[REPO]
    for name in (
        "../evil.safetensors",
        "sub/model.safetensors",
        "model-00001-of-00002.safetensors/../../x",
        "/etc/x.bin",
    ):
        repo.files[name] = b"x"
    assert all("/" not in file.name for file in hub.plan("kosmos-2").files)
    hub.pull("kosmos-2")


# ---- not there


def test_repositories_and_files_that_are_not_there(place, server):
    with pytest.raises(ModelNotFound, match="nobody/nothing"):
        hub.pull("nobody/nothing:q4_k_m")
    del server.repos[REPO].files["tokenizer.json"]
    del server.repos[REPO].files["sentencepiece.bpe.model"]
    with pytest.raises(ModelNotFound, match="no tokenizer"):
        hub.pull("kosmos-2")
    server.repos.clear()
    with pytest.raises(ModelNotFound, match=r"kosmos-2-patch14-224 is not on http://127"):
        hub.pull("kosmos-2")


def test_a_hub_that_is_not_reachable(place, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(KosmosIOError, match=r"http://127\.0\.0\.1:9"):
        hub.pull("kosmos-2")


def test_too_little_space(place, server, monkeypatch):
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 5, 5))
    with pytest.raises(KosmosIOError, match=r"5 bytes free, but the download needs \d{7}"):
        hub.pull("kosmos-2")
    assert server.fetched() == []


@pytest.mark.parametrize("variable", [None, "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "KOSMOS_EDGE_OFFLINE"])
def test_offline_opens_no_socket(place, server, gguf, monkeypatch, sockets, variable):
    if variable is not None:
        monkeypatch.setenv(variable, "1")
    offline = {"offline": True} if variable is None else {}
    for attempt in (hub.plan, hub.pull):
        with pytest.raises(ModelNotFound, match="offline"):
            attempt("kosmos-2", **offline)
        with pytest.raises(ModelNotFound, match="offline"):
            attempt("user/repo:q4_k_m", **offline)
    with pytest.raises(ModelNotFound):
        hub.resolve("kosmos-2", offline=True)
    hub.list_models()
    hub.default_model()
    assert sockets == [] and server.requests == []

    if variable is not None:
        monkeypatch.delenv(variable)
    hub.pull("kosmos-2:q8_0", keep_source=True)
    assert sockets  # the hook works
    sockets.clear()
    server.requests.clear()
    if variable is not None:
        monkeypatch.setenv(variable, "1")
    assert hub.pull("kosmos-2", **offline).read_bytes() == gguf  # converted from what was downloaded before
    assert sockets == [] and server.requests == []


def test_errors_are_of_this_package(place, server):
    """Whatever a hub answers, the caller sees a KosmosError."""
    for status in (400, 401, 403, 404, 418, 429, 500, 503):

        def fault(handler, start, data, status=status):
            handler.answer(status, b"{}", Content_Type="application/json")
            return True

        server.faults["model.safetensors"] = fault
        with pytest.raises(KosmosError, match=str(status)):
            hub.pull("kosmos-2")


# ---- repositories of GGUF files


@pytest.fixture
def gguf_repo(server, gguf):
    names = {
        "Kosmos-2-1.6B-v1.0-Q4_K_M.gguf": gguf,
        "Kosmos-2-1.6B-v1.0-Q8_0.gguf": gguf[:-1] + b"x",
        "README.md": b"#",
    }
    server.repos["user/ggufs"] = Repo(names, {name for name in names if name.endswith(".gguf")})
    return server


def test_pull_of_a_gguf_file(gguf_repo, place, gguf):
    with pytest.raises(ModelNotFound, match=r"`kosmos-edge models pull user/ggufs:Q4_K_M`"):
        hub.resolve("user/ggufs:Q4_K_M")
    path = hub.pull("user/ggufs:Q4_K_M")
    assert path.read_bytes() == gguf and path.is_relative_to(place.hf)
    assert gguf_repo.fetched() == [path.name]
    assert hub.resolve("user/ggufs:q4_k_m") == hub.resolve("user/ggufs") == path
    assert "user/ggufs:Q4_K_M" in [m.tag for m in hub.list_models()]
    gguf_repo.requests.clear()
    assert hub.pull("user/ggufs:Q4_K_M") == path and gguf_repo.requests == []
    blob = path.resolve()
    assert hub.remove("user/ggufs:Q4_K_M") == path
    assert not path.exists() and not blob.exists()
    assert "user/ggufs:Q4_K_M" not in [m.tag for m in hub.list_models()]


def test_pull_of_a_gguf_file_to_a_folder(gguf_repo, place, gguf, tmp_path):
    path = hub.pull("user/ggufs:q4_k_m", to=tmp_path / "stick")
    assert path == tmp_path / "stick" / "Kosmos-2-1.6B-v1.0-Q4_K_M.gguf" and path.read_bytes() == gguf
    assert os.listdir(tmp_path / "stick") == [path.name] and not place.hf.exists()


def test_gguf_files_that_do_not_fit(gguf_repo, place):
    with pytest.raises(ModelNotFound, match=r"no GGUF file of type f16"):
        hub.pull("user/ggufs:f16")
    files = gguf_repo.repos["user/ggufs"].files
    files["other-Q8_0.gguf"] = b"GGUF"
    gguf_repo.repos["user/ggufs"].large.add("other-Q8_0.gguf")
    with pytest.raises(InvalidRequest, match="several files fit"):
        hub.pull("user/ggufs:q8_0")
    files["bad-F32.gguf"] = b"GGUF" + bytes(100)
    gguf_repo.repos["user/ggufs"].large.add("bad-F32.gguf")
    with pytest.raises(ModelCorrupt):
        hub.pull("user/ggufs:f32")
