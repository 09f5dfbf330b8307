"""One picture in the hands of many threads: whatever object it is, each gets what one alone gets."""

import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.api_model import grounded_file, tiny_file
from helpers.pictures import encode, noise
from PIL import Image, ImageSequence

from kosmos_edge import Box, Entity, ImageDecodeError, InvalidRequest, Model, draw_boxes, load, sharing
from kosmos_edge.images import open_image

THREADS = 8
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9)]


class Yielding(io.BytesIO):
    """A file that hands the processor to another thread in the middle of every read, as a slow disk does."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            size = len(self.getbuffer())
        data = super().read(size // 2)
        time.sleep(0.0005)
        return data + super().read(size - size // 2)

    def seek(self, offset: int, whence: int = 0) -> int:
        at = super().seek(offset, whence)
        time.sleep(0.0005)
        return at


class YieldingFile(io.FileIO):
    """The same of a file of the system."""

    def read(self, size: int | None = -1) -> bytes:  # type: ignore[override]
        time.sleep(0.0005)
        return super().read(size) or b""


class Frames(Image.Image):
    """An image whose frames are made when they are asked for; the other threads get their turn in between."""

    is_animated, n_frames = True, len(COLOURS)

    def __init__(self) -> None:
        super().__init__()
        made = Image.new("RGB", (8, 8))
        self._im, self._mode, self._size, self._at = made.im, "RGB", (8, 8), 0

    def tell(self) -> int:
        return self._at

    def seek(self, frame: int) -> None:
        self._at = frame
        time.sleep(0.001)

    def load(self) -> Any:
        if hasattr(self, "_at"):
            time.sleep(0.001)
            self._im = Image.new("RGB", (8, 8), COLOURS[self._at]).im
            time.sleep(0.001)
        return super().load()


def together(calls: list[Callable[[], Any]]) -> list[Any]:
    """What the calls give, each in a thread of its own, begun at the same moment; errors stand for themselves."""
    barrier = threading.Barrier(len(calls))
    out: list[Any] = [None] * len(calls)

    def work(number: int) -> None:
        barrier.wait()
        try:
            out[number] = calls[number]()
        except Exception as error:
            out[number] = error

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return out


@pytest.fixture(params=["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"])
def data(request: pytest.FixtureRequest) -> bytes:
    return encode(noise(61, 47), request.param)


@pytest.fixture(autouse=True)
def no_lock_is_left() -> Iterator[None]:
    yield
    assert sharing._locks == {}


# ---- open_image


def test_one_image_that_is_not_loaded(data: bytes) -> None:
    alone = open_image(data).rgb
    for _ in range(3):
        image = Image.open(Yielding(data))
        for picture in together([lambda image=image: open_image(image)] * THREADS):
            assert getattr(picture, "rgb", picture) == alone


def test_one_file_object(data: bytes, tmp_path: Path) -> None:
    alone = open_image(data).rgb
    path = tmp_path / "picture"
    path.write_bytes(data)
    with open(path, "rb") as file, open(path, "rb", buffering=0) as raw:
        for source in (Yielding(data), file, raw):
            source.seek(5)
            for picture in together([lambda source=source: open_image(source)] * THREADS):
                assert getattr(picture, "rgb", picture) == alone, type(source)
            assert source.tell() == 5


def test_two_images_of_one_file_and_the_file() -> None:
    for _ in range(3):
        file = Yielding(encode(noise(61, 47, 1), "PNG"))
        sources = [Image.open(file), Image.open(file), file] * 3
        alone = noise(61, 47, 1).tobytes()
        for picture in together([lambda source=source: open_image(source) for source in sources]):
            assert getattr(picture, "rgb", picture) == alone


def test_images_of_one_descriptor(tmp_path: Path) -> None:
    """File objects that differ share the position in the file of the system."""
    path = tmp_path / "a.bmp"
    path.write_bytes(encode(noise(400, 300), "BMP"))
    with YieldingFile(path) as file, YieldingFile(os.dup(file.fileno())) as other:
        sources = [Image.open(file), Image.open(other), file, other] * 2
        for picture in together([lambda source=source: open_image(source) for source in sources]):
            assert getattr(picture, "rgb", picture) == noise(400, 300).tobytes()


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "TIFF", "WEBP"])
def test_each_thread_asks_for_its_own_frame(file_format: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in COLOURS]
    options = {"lossless": True} if file_format == "WEBP" else {}
    image = Image.open(Yielding(encode(frames[0], file_format, save_all=True, append_images=frames[1:], **options)))
    image.seek(3)
    wanted = [0, 1, 2, None] * 3
    found = together([lambda frame=frame: open_image(image, frame=frame) for frame in wanted])
    for frame, picture in zip(wanted, found, strict=True):
        colour = COLOURS[3 if frame is None else frame]
        assert np.abs(np.frombuffer(picture.rgb, np.uint8).reshape(-1, 3).astype(int) - colour).max() <= 8, frame
    assert image.tell() == 3  # as its owner left it, with the pixels of that frame
    assert np.abs(np.asarray(image.convert("RGB")).astype(int) - COLOURS[3]).max() <= 8


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "TIFF", "WEBP"])
def test_large_frames_in_any_order(file_format: str) -> None:
    """Of several chunks each. Pillow cannot go back in such a PNG, so the image must not be taken forward."""
    frames = [noise(200, 200, seed) for seed in range(4)]
    data = encode(frames[0], file_format, save_all=True, append_images=frames[1:])
    wanted = [open_image(data, frame=frame).rgb for frame in range(4)]
    image = Image.open(io.BytesIO(data))
    image.seek(1)
    for frame in (3, 0, 2, None, 1, 0):
        assert open_image(image, frame=frame).rgb == wanted[1 if frame is None else frame], frame
        assert image.tell() == 1
    assert image.convert("RGB").tobytes() == wanted[1]
    image.seek(2)  # as far as Pillow can
    assert open_image(image).rgb == wanted[2]


def test_frames_of_a_class_of_the_callers() -> None:
    image = Frames()
    wanted = [0, 1, 2, 3, None] * 3
    found = together([lambda frame=frame: open_image(image, frame=frame) for frame in wanted])
    for frame, picture in zip(wanted, found, strict=True):
        assert picture.rgb == bytes(COLOURS[frame or 0]) * 64, frame
    assert image.tell() == 0


def test_the_rest_of_a_program_may_go_through_the_frames_afterwards() -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in COLOURS]
    image = Image.open(io.BytesIO(encode(frames[0], "GIF", save_all=True, append_images=frames[1:])))
    assert open_image(image, frame=2).rgb[:3] == bytes(COLOURS[2])
    assert [frame.convert("RGB").getpixel((0, 0)) for frame in ImageSequence.Iterator(image)] == COLOURS


# ---- file objects


def test_a_file_object_is_read_whole_every_time_and_stays_where_it_is() -> None:
    data = encode(noise(9, 8), "PNG")
    file = io.BytesIO()
    file.write(data)  # and now at its end
    for _ in range(2):
        assert open_image(file).rgb == noise(9, 8).tobytes()
        assert file.tell() == len(data)


def test_a_pipe_is_read_once_and_says_so() -> None:
    data = encode(noise(9, 8), "PNG")
    reading, writing = os.pipe()
    with open(reading, "rb") as file:
        with open(writing, "wb") as other:
            other.write(data)
        found = together([lambda: open_image(file)] * THREADS)
    whole = [picture for picture in found if not isinstance(picture, Exception)]
    assert [picture.rgb for picture in whole] == [noise(9, 8).tobytes()]
    errors = [error for error in found if isinstance(error, Exception)]
    assert all(isinstance(error, ImageDecodeError) and "only once" in str(error) for error in errors), errors


def test_an_object_with_read_alone() -> None:
    class Reader:
        def __init__(self) -> None:
            self.data = io.BytesIO(encode(noise(9, 8), "PNG"))

        def read(self, size: int) -> bytes:
            return self.data.read(size)

    assert open_image(Reader()).rgb == noise(9, 8).tobytes()  # type: ignore[arg-type]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode(noise(9, 8), "PNG"))
    with open(path, "rb") as closed, open(tmp_path / "b", "wb") as written, open(path, encoding="utf-8") as text:
        closed.close()
        for source in (closed, written, text):
            with pytest.raises(InvalidRequest, match="binary file object"):
                open_image(source)  # type: ignore[arg-type]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_wait_for_the_threads_of_its_parent() -> None:
    file = io.BytesIO(encode(noise(9, 8), "PNG"))
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with sharing.exclusive(sharing.file_keys([file])):
            held.set()
            go_on.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(10)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(0 if open_image(file).width == 9 else 1)
    assert os.waitpid(child, 0)[1] == 0
    go_on.set()
    holder.join()


# ---- the verbs


@pytest.fixture(scope="module")
def here() -> Iterator[Model]:
    with load(grounded_file(), threads=2) as model:
        yield model


@pytest.fixture(scope="module")
def there() -> Iterator[Model]:
    with load(grounded_file(), threads=2, isolation="process") as model:
        yield model


def essence(answer: Any) -> Any:
    if isinstance(answer, Exception):
        return repr(answer)
    out = answer.to_dict()
    del out["timings"]
    return out


def streamed(model: Model, source: Any) -> Any:
    return list(model.caption(source, max_tokens=4, stream=True))[-1].result


SHORT: dict[str, Any] = {"max_tokens": 4}
VERBS: dict[str, Callable[[Model, Any], Any]] = {
    "caption": lambda model, source: model.caption(source, **SHORT),
    "ground": lambda model, source: model.ground(source, **SHORT),
    "locate": lambda model, source: model.locate(source, "a dog", **SHORT),
    "describe": lambda model, source: model.describe(source, (1, 1, 40, 40), **SHORT),
    "ask": lambda model, source: model.ask(source, "what?", examples=[(source, "what?", "a dog")], **SHORT),
    "generate": lambda model, source: model.generate([source, "An image of"], **SHORT),
    "score": lambda model, source: model.score(source, ["a dog", "a cat"]),
    "encode": lambda model, source: model.caption(model.encode(source), **SHORT),
    "stream": streamed,
    "batch": lambda model, source: list(model.batch([source] * 3, batch_size=2, **SHORT))[2],
}


def shared(kind: str, model: Model) -> Any:
    data = encode(noise(61, 47), "PNG")
    if kind == "image":
        return Image.open(Yielding(data))
    if kind == "file":
        return Yielding(data)
    if kind == "encoded":
        return model.encode(data)
    return {"Picture": open_image(data), "bytearray": bytearray(data), "memoryview": memoryview(data)}[kind]


@pytest.mark.parametrize("kind", ["image", "file", "encoded", "Picture", "bytearray", "memoryview"])
@pytest.mark.parametrize("where", ["here", "there"])
def test_every_verb_at_once(request: pytest.FixtureRequest, where: str, kind: str) -> None:
    """All verbs of a model with the same object, beside each other, in this process and in a worker."""
    model: Model = request.getfixturevalue(where)
    names = [name for name in VERBS if kind != "encoded" or name != "encode"]
    alone = {name: essence(VERBS[name](model, shared(kind, model))) for name in names}
    source = shared(kind, model)
    found = together([lambda name=name: VERBS[name](model, source) for name in names])
    for name, answer in zip(names, found, strict=True):
        assert essence(answer) == alone[name], name


def test_models_and_drawings_share_too(here: Model) -> None:
    """The lock is the picture's, not the model's."""
    image = Image.open(Yielding(encode(noise(61, 47), "PNG")))
    entity = Entity("a dog", (0, 5), (Box.from_normalized(0.1, 0.1, 0.6, 0.6),), 1.0)
    drawn = draw_boxes(noise(61, 47), [entity]).tobytes()
    with load(tiny_file(), threads=1) as other:
        alone = [essence(model.caption(noise(61, 47), **SHORT)) for model in (here, other)]
        calls: list[Callable[[], Any]] = [
            lambda: essence(here.caption(image, **SHORT)),
            lambda: essence(other.caption(image, **SHORT)),
            lambda: draw_boxes(image, [entity]).tobytes(),
        ]
        assert together(calls * 3) == [*alone, drawn] * 3


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX pipe")
@pytest.mark.parametrize("where", ["here", "there"])
def test_a_file_object_that_blocks_holds_nobody_up(request: pytest.FixtureRequest, where: str) -> None:
    model: Model = request.getfixturevalue(where)
    reading, writing = os.pipe()
    with open(reading, "rb") as file, open(writing, "wb") as other:
        cancel = threading.Event()
        timer = threading.Timer(0.3, cancel.set)
        timer.start()
        found = together([lambda: model.caption(file, cancel=cancel)] * 3)
        assert [type(error).__name__ for error in found] == ["Cancelled"] * 3
        other.close()
        deadline = time.monotonic() + 20
        while sharing._locks and time.monotonic() < deadline:  # the threads that nobody waits for
            time.sleep(0.01)
