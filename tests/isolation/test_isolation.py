"""isolation="process": the same API with the same answers and errors, from a worker process that may come and go."""

import gc
import inspect
import io
import os
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.api_model import long_file, picture, png, tiny_file
from PIL import Image

from kosmos_edge import Cancelled, CancelToken, Done, InvalidRequest, KosmosError, Model, Ranking, Result, load
from kosmos_edge.images import open_image
from kosmos_edge.inference.local import LocalSession
from kosmos_edge.inference.protocol import Session
from kosmos_edge.isolation.session import RemoteEmbedding, RemoteSession, remote_call

LONG = {
    "max_tokens": 15000,
    "choices": [("a dog " * 7000).strip()],
    "logprobs": True,
}  # takes many seconds; never run to its end


@pytest.fixture(scope="module")
def here() -> Model:
    return load("nano", threads=2)


@pytest.fixture(scope="module")
def there() -> Iterator[Model]:
    with load("nano", threads=2, isolation="process") as model:
        yield model


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scenes") / "Ж scene.png"
    path.write_bytes(png(3, 120, 90))
    return path


def essence(result: Result | Ranking | None) -> Any:
    assert result is not None
    return {**result.to_dict(), "timings": None}, getattr(result, "hf", None), getattr(result, "box", None)


def session(model: Model) -> RemoteSession:
    assert isinstance(model._open, RemoteSession)
    return model._open


def test_the_facts_are_the_same(here: Model, there: Model) -> None:
    for name in (
        "name",
        "metadata",
        "model_info",
        "notice",
        "device",
        "description",
        "isa",
        "threads",
        "kv_type",
        "kv_bytes_per_token",
        "context_length",
        "path",
    ):
        assert getattr(there, name) == getattr(here, name), name
    assert there.image_tokens == here.image_tokens and repr(there) == repr(here) and not there.closed


VERBS: dict[str, tuple[str, dict[str, Any]]] = {
    "caption": ("caption", {"ground": True, "logprobs": True}),
    "long caption": ("caption", {"length": "long", "lead_in": True, "max_tokens": 30}),
    "sampled": ("caption", {"temperature": 1.2, "seed": 2**64 - 1, "top_k": 50, "logprobs": True}),
    "beams": ("caption", {"num_beams": 2, "max_tokens": 10}),
    "examples": ("caption", {"examples": [(png(9), "a red circle."), (png(8), "two.")], "max_tokens": 12}),
    "ground": ("ground", {"prompt": "There is", "stop": ["and", "zz"]}),
    "locate": ("locate", {"phrase": "a red circle"}),
    "describe": ("describe", {"box": (5, 5, 60, 55)}),
    "ask": ("ask", {"question": "how many shapes are there?"}),
    "choices": ("ask", {"question": "which?", "choices": ["a red circle", "blue"], "logprobs": True}),
    "score": ("score", {"texts": ["a red circle", "a dog", "two"], "normalize": "mean"}),
}


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_gives_the_same_answer(here: Model, there: Model, scene: Path, name: str) -> None:
    verb, arguments = VERBS[name]
    assert essence(getattr(there, verb)(scene, **arguments)) == essence(getattr(here, verb)(scene, **arguments))
    if verb != "score":
        events = list(getattr(there, verb)(scene, stream=True, **arguments))
        same = list(getattr(here, verb)(scene, stream=True, **arguments))
        assert events[:-1] == same[:-1]
        assert isinstance(events[-1], Done) and essence(events[-1].result) == essence(same[-1].result)
    many = [scene, png(1), scene]
    batch = [essence(r) for r in there.batch(many, verb, batch_size=2, **arguments)]  # type: ignore[arg-type]
    assert batch == [essence(r) for r in here.batch(many, verb, batch_size=2, **arguments)]  # type: ignore[arg-type]


def test_generate_from_pictures_texts_and_boxes(here: Model, there: Model, scene: Path) -> None:
    box = here.caption(scene, ground=True).entities[0].boxes[0]
    for segments in ([scene, "An image of"], [png(1), "one.", scene, "<grounding> It", box], ["no picture at all"]):
        same = here.generate(segments, max_tokens=12, raw=True)
        assert essence(there.generate(segments, max_tokens=12, raw=True)) == essence(same)


def test_pictures_of_every_kind(here: Model, there: Model, scene: Path) -> None:
    pixels = picture(2)
    many = {
        "path": scene,
        "text": str(scene),
        "bytes": png(1),
        "bytearray": bytearray(png(1)),
        "memoryview": memoryview(png(1)),
        "PIL": Image.open(io.BytesIO(png(1))),
        "array": pixels,
        "slice of an array": pixels[::2, ::-1],
        "Picture": open_image(scene),
    }
    for kind, image in many.items():
        assert essence(there.caption(image)) == essence(here.caption(image)), kind
    assert essence(there.caption(io.BytesIO(png(1)))) == essence(here.caption(io.BytesIO(png(1))))
    assert [essence(r) for r in there.batch(many.values())] == [essence(r) for r in here.batch(many.values())]
    stream = io.BytesIO(png(4))  # can be read only once: the same object twice is one picture
    assert there.generate([stream, "a dog.", stream, "An image of"], max_tokens=4).ok


def test_the_worker_has_this_package_whatever_the_path_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "kosmos_edge").mkdir()
    (tmp_path / "kosmos_edge" / "__init__.py").write_text("raise ImportError('not this one')")
    monkeypatch.syspath_prepend(tmp_path)
    with load(isolation="process") as model:
        assert model.caption(png(3), max_tokens=3).text


def test_a_relative_path_after_a_change_of_folder(
    here: Model, there: Model, scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(scene.parent)
    assert there.caption(scene.name).token_ids == here.caption(scene.name).token_ids


def test_errors_are_the_same(here: Model, there: Model, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(png()[:200])
    (tmp_path / "folder").mkdir()
    calls: list[Any] = [
        lambda m: m.caption(tmp_path / "bad.png"),
        lambda m: m.caption(tmp_path / "missing.png"),
        lambda m: m.caption(tmp_path / "folder"),
        lambda m: m.caption(b"no picture"),
        lambda m: m.caption(io.BytesIO(b"")),
        lambda m: m.caption(io.StringIO("text")),
        lambda m: m.caption(7),
        lambda m: m.caption(picture().astype("float32")),
        lambda m: m.caption(png(), max_tokens=0),
        lambda m: m.caption(png(), max_tokens=10**6),
        lambda m: m.caption(png(), nonsense=1),
        lambda m: m.caption(png(), max_tokens=m.context_length),
        lambda m: m.describe(png(), (0, 0, 1000, 1000)),
        lambda m: m.describe(png(), (5, 5, 2, 2), normalized=True),
        lambda m: m.ask(png(), ""),
        lambda m: m.score(png(), []),
        lambda m: m.generate([]),
        lambda m: m.caption(m.encode(b"")),
        lambda m: next(m.batch([b""], on_error="raise")),
        lambda m: m.batch([b""], "nonsense"),
        lambda m: list(m.caption(b"", stream=True)),
        lambda m: m.caption(here.encode(png()) if m is there else there.encode(png())),
    ]
    for number, call in enumerate(calls):
        found = []
        for model in (here, there):
            with pytest.raises(KosmosError) as caught:
                call(model)
            error = caught.value
            found.append((type(error), str(error), getattr(error, "errno", None), getattr(error, "filename", None)))
        assert found[0] == found[1], number
    assert [type(r.error) for r in there.batch([b"", tmp_path / "missing.png"])] == [
        type(r.error) for r in here.batch([b"", tmp_path / "missing.png"])
    ]
    for path in (tmp_path / "bad.png", tmp_path / "missing.gguf", tmp_path / "folder"):
        with pytest.raises(KosmosError) as same:
            load(path, threads=1)
        with pytest.raises(type(same.value)) as caught:
            load(path, threads=1, isolation="process")
        assert str(caught.value) == str(same.value)
    with pytest.raises(InvalidRequest, match="isolation"):
        load("nano", isolation="thread")  # type: ignore[arg-type]


def test_an_encoded_image_is_kept_on_both_sides(here: Model, there: Model, scene: Path) -> None:
    image, same = there.encode(scene), here.encode(scene)
    assert image.tobytes() == same.tobytes() and image.shape == same.shape and image.notes == same.notes
    for question in ("what is there?", "how many?"):
        asked, answer = there.ask(image, question), here.ask(same, question)
        assert essence(asked) == essence(answer)
        assert asked.timings.reused_tokens == answer.timings.reused_tokens
        assert image.kept_positions == same.kept_positions > 0 and image.kept_bytes == same.kept_bytes
    image.forget()
    assert image.kept_positions == 0
    assert essence(next(there.batch([image]))) == essence(next(here.batch([same])))
    assert there.encode(image) is image  # type: ignore[arg-type]


def test_the_worker_forgets_what_the_host_dropped(there: Model) -> None:
    image = there.encode(png(1))
    there.ask(image, "what is there?")
    embedding: Any = image.embedding
    assert isinstance(embedding, RemoteEmbedding)
    key, workers = embedding.key, session(there)._workers
    assert remote_call(workers, "kept", [key], CancelToken())[0][0] > 0
    del image, embedding
    gc.collect()
    assert remote_call(workers, "kept", [key], CancelToken())[0] == (0, 0)


def test_threads_take_the_dropped_pictures_from_each_other(there: Model) -> None:
    class Emptied(deque[int]):
        """Looks full and is empty: another thread has taken the last one in between."""

        def __bool__(self) -> bool:
            return True

    worker = there._open._workers.running()  # type: ignore[attr-defined]
    before, worker.dropped = worker.dropped, Emptied()
    try:
        assert there.caption(png(1), max_tokens=1).ok
    finally:
        worker.dropped = before


def test_many_threads_share_a_worker(here: Model, there: Model) -> None:
    pictures = [png(seed, 40 + seed, 60) for seed in range(24)]
    want = [here.caption(image, ground=True).token_ids for image in pictures]
    got: list[Any] = [None] * len(pictures)

    def work(first: int) -> None:
        for number in range(first, len(pictures), 8):
            got[number] = there.caption(pictures[number], ground=True).token_ids

    threads = [threading.Thread(target=work, args=(first,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == want


@pytest.mark.parametrize("kind", [threading.Event, CancelToken])
def test_a_call_can_be_cancelled_and_the_worker_goes_on(kind: type) -> None:
    with load(long_file(), threads=1, isolation="process") as model:
        worker = session(model).process_id
        for how in ("generate", "stream", "batch", "score"):
            cancel = kind()
            end = cancel.set if kind is threading.Event else cancel.cancel
            threading.Timer(0.1, end).start()
            with pytest.raises(Cancelled):
                if how == "batch":
                    arguments = {"question": "which?", **LONG, "cancel": cancel}
                    list(model.batch([png(), png(1)], "ask", batch_size=2, **arguments))
                elif how == "score":
                    model.score(png(), ["a dog " * 2000] * 50, cancel=cancel)
                else:
                    answer = model.generate([picture(), "An image of"], cancel=cancel, stream=how == "stream", **LONG)
                    list(answer)  # type: ignore[arg-type]
            assert model.caption(picture(), max_tokens=4).ok
        events = model.generate([picture(), "An image of"], stream=True, **LONG)
        next(events)
        events.close()  # ends the computation: the next answer does not wait for it
        assert model.caption(picture(), max_tokens=4).ok
        assert session(model).process_id == worker


def test_the_end_of_a_model_is_the_end_of_its_worker() -> None:
    before = os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd") else []
    names = [thread.name for thread in threading.enumerate()]
    model = load(tiny_file(), threads=1, isolation="process")
    process = session(model).process_id
    assert process is not None
    os.kill(process, 0)
    model.close()
    assert model.closed
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)  # ended, and no zombie
    with pytest.raises(InvalidRequest, match="closed"):
        model.caption(png())
    assert [thread.name for thread in threading.enumerate()] == names
    assert not before or len(os.listdir("/proc/self/fd")) == len(before)


def test_the_command_line_has_it(scene: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    from kosmos_edge import cli

    monkeypatch.delenv("KOSMOS_EDGE_ISOLATION", raising=False)
    texts = []
    for isolation in ("none", "process"):
        assert (
            cli.run(["caption", str(scene), str(scene), "-m", "nano", "-t", "1", "--isolation", isolation, "-q"]) == 0
        )
        texts.append(capfd.readouterr().out)
    assert texts[0] == texts[1] and "scene.png" in texts[0]
    assert cli.run(["caption", str(scene), "--isolation", "maybe"]) == 2


def test_both_kinds_of_sessions_have_the_same_form() -> None:
    """No more is inherited than works: a remote session has the protocol's calls and none of an engine's."""
    calls = [name for name, value in vars(Session).items() if callable(value) and not name.startswith("_")]
    assert set(calls) == {"encode", "embed_texts", "run", "stream", "score", "fit", "batch_worker"}
    for name in calls:
        expected = list(inspect.signature(getattr(Session, name)).parameters)
        for kind in (LocalSession, RemoteSession):
            assert list(inspect.signature(getattr(kind, name)).parameters) == expected, (kind, name)
    assert not issubclass(RemoteSession, LocalSession) and not hasattr(RemoteSession, "begin")
