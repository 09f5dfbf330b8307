"""Every error class is provoked; afterwards the model answers as before."""

import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.api_model import folder, long_file, picture, png, tiny_file, tiny_model
from helpers.tiny import GgufContent, write_tiny
from PIL import Image

import kosmos_edge
from kosmos_edge import errors, load
from kosmos_edge.errors import (
    Cancelled,
    ContextTooLong,
    DeviceUnavailable,
    ImageDecodeError,
    InvalidRequest,
    KosmosError,
    KosmosIOError,
    ModelCorrupt,
    ModelNotFound,
    OutOfMemory,
)

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, KosmosError)]


def run_python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The program in a new interpreter, with the tests' helpers on its path."""
    start = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
    return subprocess.run(
        [sys.executable, "-P", "-c", start + program],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


def test_one_base_and_the_builtin_relatives() -> None:
    assert len(CLASSES) == 12
    assert issubclass(InvalidRequest, ValueError) and issubclass(OutOfMemory, MemoryError)
    assert issubclass(KosmosIOError, OSError)
    for cls in CLASSES:
        assert getattr(kosmos_edge, cls.__name__) is cls and cls.__doc__


# ---- ModelNotFound


@pytest.mark.parametrize("name", ["no-such-model", "nothing/here.gguf", "./Ж画像.gguf", "kosmos-2:q9_9"])
def test_model_not_found(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises((ModelNotFound, InvalidRequest)):
        load(name, offline=True)
    if name.endswith(".gguf"):
        with pytest.raises(ModelNotFound, match=r"\.gguf"):
            load(name, offline=True)


@pytest.mark.parametrize("model", [5, "", b"x", ["a"], "a\0b"])
def test_a_model_is_named_by_text(model: object) -> None:
    with pytest.raises((InvalidRequest, ModelNotFound)):
        load(model)  # type: ignore[arg-type]


@pytest.mark.skipif(sys.platform == "win32", reason="file names are Unicode there")
def test_a_model_path_that_is_not_unicode(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.gguf"
    os.symlink(tiny_file(), path)
    with pytest.raises(ModelNotFound, match="Unicode"):
        load(os.fsdecode(path))


def test_a_model_in_a_folder_with_any_letters(tmp_path: Path) -> None:
    path = tmp_path / "Жанна 写真 😀" / "model.gguf"
    path.parent.mkdir()
    os.link(tiny_file(), path)
    with load(path, threads=1) as model:
        assert model.caption(picture(), max_tokens=2).ok and model.path == path


# ---- ModelCorrupt


@pytest.mark.parametrize("size", [0, 1, 3, 4, 23, 24, 100, 5000, 10**6, -1])
@pytest.mark.parametrize("mode", ["mmap", "copy"])
def test_a_truncated_model(size: int, mode: str, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(tiny_file().read_bytes()[:size])
    with pytest.raises(ModelCorrupt, match=r"cut\.gguf"):
        load(path, mode=mode)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a model" * 100, b"GGUF" + bytes(100), png()])
def test_what_is_no_model(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "thing.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelCorrupt):
        load(path)


def _drop_tensor(content: GgufContent) -> None:
    del content.tensors["output_norm.weight"]


def _drop_key(content: GgufContent) -> None:
    del content.metadata["kosmos2.embedding_length"]


def _other_architecture(content: GgufContent) -> None:
    content.metadata["general.architecture"] = ("str", "llama")


@pytest.mark.parametrize("edit", [_drop_tensor, _drop_key, _other_architecture])
def test_an_inconsistent_model(edit: Callable[[GgufContent], None], tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    write_tiny(path, edit=edit)
    with pytest.raises(ModelCorrupt, match=r"odd\.gguf"):
        load(path)


# ---- ImageDecodeError (the many ways are in test_images.py)


@pytest.mark.parametrize("verb", ["caption", "ground", "locate", "describe", "ask", "score", "generate", "encode"])
def test_no_verb_answers_about_a_picture_that_was_not_decoded(verb: str) -> None:
    model = tiny_model()
    arguments = {"locate": ["a dog"], "describe": [(0, 0, 1, 1)], "ask": ["Who?"], "score": [["a dog"]]}.get(verb, [])
    for broken in (b"", b"nonsense", png()[:-200], png()[: len(png()) // 2]):
        image = [broken, "An image of"] if verb == "generate" else broken
        with pytest.raises(ImageDecodeError):
            getattr(model, verb)(image, *arguments)


def test_truncated_jpegs_at_every_length() -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture()).save(buffer, "JPEG")
    data, model = buffer.getvalue(), tiny_model()
    whole = model.encode(data).tobytes()
    for length in range(0, len(data), max(1, len(data) // 100)):
        with pytest.raises(ImageDecodeError):
            model.encode(data[:length])
    assert model.encode(data).tobytes() == whole


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 2), (2, 1), (16, 1), (1, 16), (13, 7), (1, 4000), (4000, 1), (223, 225), (56, 56), (400, 800)]
)
def test_any_geometry_is_answered_about(size: tuple[int, int]) -> None:
    width, height = size
    result = tiny_model().describe(picture(1, width, height), (0, 0, width, height), max_tokens=4)
    assert (result.width, result.height) == size and result.box is not None and result.box.cells == (0, 1023)


# ---- DeviceUnavailable


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "metal"])
def test_a_device_that_is_not_here(device: str) -> None:
    with pytest.raises(DeviceUnavailable, match="cpu"):
        load(tiny_file(), device=device)


def test_an_instruction_set_that_is_not_here() -> None:
    done = run_python(
        f"from kosmos_edge import load, DeviceUnavailable\n"
        f"try: load({str(tiny_file())!r})\n"
        f"except DeviceUnavailable as error: print(error)",
        KOSMOS_EDGE_ISA="frobnicate",
    )
    assert "frobnicate" in done.stdout and "KOSMOS_EDGE_ISA" in done.stdout, done.stderr


# ---- OutOfMemory


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS that is enforced")
def test_out_of_memory_is_an_error_and_the_model_stays_usable() -> None:
    done = run_python(f"""
import resource
from helpers.api_model import picture
from kosmos_edge import load, OutOfMemory
model = load({str(long_file())!r}, threads=1)
before = model.caption(picture(), max_tokens=8).token_ids
pages = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (pages + (16 << 20), resource.RLIM_INFINITY))
for _ in range(3):
    try:
        model.caption(picture(), max_tokens=16000)
        print("no error")
    except OutOfMemory as error:
        print("OutOfMemory", isinstance(error, MemoryError))
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(model.caption(picture(), max_tokens=8).token_ids == before)
""")
    assert done.stdout.splitlines() == ["OutOfMemory True"] * 3 + ["True"], done.stdout + done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS that is enforced")
def test_out_of_memory_while_loading() -> None:
    done = run_python(f"""
import resource
import kosmos_edge.loading
from kosmos_edge import load, OutOfMemory, _core
pages = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (pages + (12 << 20), resource.RLIM_INFINITY))
for mode in ("mmap", "copy"):
    try:
        load({str(long_file())!r}, threads=1, mode=mode)
        print("no error")
    except OutOfMemory:
        print("OutOfMemory")
""")
    assert done.stdout.split() == ["OutOfMemory"] * 2, done.stdout + done.stderr


# ---- ContextTooLong


def test_context_too_long_gives_both_counts_before_computing() -> None:
    model = tiny_model()
    prompt = model.caption(picture(), max_tokens=1).timings.prompt_tokens
    room = model.context_length - prompt
    with pytest.raises(ContextTooLong, match=f"{prompt} tokens.*{room + 1}.*512"):
        model.caption(picture(), max_tokens=room + 1)
    assert model.caption(picture(), max_tokens=room, stop="zzzz").ok
    with pytest.raises(ContextTooLong, match="512"):
        model.ask(picture(), "why " * 2000)
    with pytest.raises(ContextTooLong):
        model.generate([picture(), picture(1)] * 8)
    with pytest.raises(ContextTooLong):
        model.score(picture(), ["a dog " * 1000])
    assert model.caption(picture(), max_tokens=2).ok


# ---- Cancelled, InvalidRequest, KosmosIOError


def test_cancelled() -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        tiny_model().caption(picture(), cancel=cancel)


@pytest.mark.parametrize(
    "arguments", [{"threads": 0}, {"threads": 1025}, {"threads": 1.5}, {"threads": True}, {"device": ""}, {"device": 5},
                  {"device": "tpu"}, {"device": "cpu:0"}, {"mode": "magic"}, {"mode": None}, {"offline": 1}],
)  # fmt: skip
def test_load_arguments(arguments: dict) -> None:
    with pytest.raises(InvalidRequest):
        load(tiny_file(), **arguments)


def test_verbs_refuse_what_is_no_picture() -> None:
    for image in (None, 5, [], np.zeros((4, 4), np.uint8), object()):
        with pytest.raises(InvalidRequest, match="image"):
            tiny_model().caption(image)


def test_io_errors(tmp_path: Path) -> None:
    with pytest.raises(KosmosIOError, match=r"gone\.jpg") as caught:
        tiny_model().caption(tmp_path / "gone.jpg")
    assert isinstance(caught.value, OSError) and caught.value.errno is not None
    assert tiny_model().caption(picture(), max_tokens=2).ok


def test_errors_can_be_pickled_and_printed() -> None:
    import pickle

    for cls in CLASSES:
        error = pickle.loads(pickle.dumps(cls("what happened")))
        assert type(error) is cls and "what happened" in str(error)


def test_the_test_folder_is_outside_the_checkout() -> None:
    assert not folder().is_relative_to(Path(__file__).parents[1])
