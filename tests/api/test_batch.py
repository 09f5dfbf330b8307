"""Model.batch: the answers of one at a time, bit for bit, for every task; order, errors, ends, bounds."""

import gc
import os
import signal
import struct
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from helpers.api_model import long_file, long_model, picture, png
from PIL import Image

from kosmos_edge import Cancelled, ImageDecodeError, InvalidRequest, Model, Ranking, Result, load
from kosmos_edge.images import open_image

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.png"))
SIZES = [1, 2, 3, 8, 16]
# Answers that take many seconds, of long_file().
LONG: dict[str, Any] = {
    "task": "ask",
    "question": "which?",
    "choices": [("a dog " * 7000).strip()],
    "max_tokens": 15000,
}
LONG["logprobs"] = True
TASKS = {
    "caption": {"ground": True, "logprobs": True},
    "caption in detail": {"length": "long", "max_tokens": 25, "logprobs": True},
    "ground": {"prompt": "There is", "logprobs": True},
    "locate": {"phrase": "a red circle", "logprobs": True},
    "describe": {"box": (5, 5, 25, 55), "logprobs": True},
    "ask": {"question": "how many shapes are there?", "logprobs": True},
    "ask with choices": {"question": "which?", "choices": ["a red circle", "a red cross", "blue"], "logprobs": True},
    "score": {"texts": ["a red circle", "a dog", "two"]},
    "caption sampled": {"temperature": 1.2, "seed": 5, "top_k": 50, "ground": True, "max_tokens": 20, "logprobs": True},
    "caption stopped": {"stop": [" and", "left"], "logprobs": True},
    "caption by beams": {"num_beams": 2, "max_tokens": 10, "logprobs": True},
    "caption after examples": {"examples": [(png(9), "a red circle.")], "max_tokens": 12, "logprobs": True},
}


@pytest.fixture(scope="module")
def nano() -> Model:
    return load("nano", threads=2)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> list[Path]:
    """Examples in many sizes, with answers that end at different times."""
    folder = tmp_path_factory.mktemp("scenes")
    paths = []
    for number, size in enumerate([(100, 80), (224, 224), (30, 200), (64, 64), (300, 90), (90, 91)]):
        paths.append(folder / f"{number}.png")
        with Image.open(EXAMPLES[number]) as opened:
            opened.resize(size).save(paths[-1])
    return paths


def essence(result: Result | Ranking):
    """All of a result but its timings, floats by their bits."""
    if isinstance(result, Ranking):
        return [(row.text, struct.pack(f"{len(row.logprobs)}f", *row.logprobs), row.score) for row in result.ranking]
    logprobs = struct.pack(f"{len(result.logprobs or [])}f", *(result.logprobs or []))
    out = result.to_dict()
    del out["timings"], out["logprobs"]
    return out, logprobs


@pytest.mark.parametrize("name", TASKS)
def test_every_task_gives_the_answers_of_one_at_a_time(nano: Model, scenes: list[Path], name: str) -> None:
    task, arguments = name.split()[0], TASKS[name]
    alone = [essence(getattr(nano, task)(path, **arguments)) for path in scenes]
    for size in SIZES:
        assert [essence(r) for r in nano.batch(scenes, task, batch_size=size, **arguments)] == alone, size


def test_mixed_lengths_end_out_of_order_and_come_in_order(nano: Model, scenes: list[Path]) -> None:
    arguments = {"temperature": 1.5, "seed": 1, "max_tokens": 60, "ground": True, "logprobs": True}
    many = [image for number, path in enumerate(EXAMPLES) for image in (png(number), path)] + scenes
    alone = [essence(nano.caption(data, **arguments)) for data in many]
    lengths = [len(a[0]["token_ids"]) for a in alone]
    assert len(set(lengths)) > 5 and max(lengths) > min(lengths) + 10, lengths
    for size in (2, 5):
        assert [essence(r) for r in nano.batch(many, batch_size=size, **arguments)] == alone


def test_pictures_of_every_kind(nano: Model, scenes: list[Path]) -> None:
    images = [scenes[0], png(1), picture(2), open_image(scenes[2]), nano.encode(scenes[3]), picture(2)]
    alone = [essence(nano.caption(image)) for image in images]
    assert [essence(r) for r in nano.batch(images, batch_size=3)] == alone


@pytest.mark.parametrize("size", SIZES)
def test_errors_in_the_middle_leave_the_others(nano: Model, scenes: list[Path], tmp_path: Path, size: int) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(png()[:200])
    images = [scenes[0], bad, scenes[1], tmp_path / "missing.png", scenes[2], scenes[3]]
    results = list(nano.batch(images, "describe", batch_size=size, box=(0, 0, 50, 85)))  # outside of scenes 0 and 2
    assert [r.ok for r in results] == [False, False, True, False, False, False]
    assert isinstance(results[0].error, InvalidRequest) and isinstance(results[1].error, ImageDecodeError)
    assert results[1].source == str(bad)
    assert essence(results[2]) == essence(nano.describe(scenes[1], (0, 0, 50, 85)))
    taken = []
    with pytest.raises(ImageDecodeError):
        for result in nano.batch(images, batch_size=size, on_error="raise"):
            taken.append(essence(result))
    assert taken == [essence(nano.caption(scenes[0]))]


def test_an_example_that_fails_fails_every_picture(nano: Model, scenes: list[Path]) -> None:
    results = list(nano.batch(scenes[:3], examples=[(b"nothing", "a dog")]))
    assert [type(r.error) for r in results] == [ImageDecodeError] * 3


def test_an_error_of_the_iterable_comes_behind_the_results_before_it(nano: Model, scenes: list[Path]) -> None:
    def images():
        yield scenes[0]
        yield scenes[1]
        raise ZeroDivisionError

    taken = []
    with pytest.raises(ZeroDivisionError):
        for result in nano.batch(images(), batch_size=8):
            taken.append(essence(result))
    assert taken == [essence(nano.caption(path)) for path in scenes[:2]]


def test_pictures_are_taken_in_the_callers_thread_and_not_far_ahead(nano: Model) -> None:
    threads, taken = set(), 0

    def images():
        nonlocal taken
        for seed in range(40):
            threads.add(threading.get_ident())
            taken += 1
            yield png(seed, 40, 40)

    most = 0
    for number, _ in enumerate(nano.batch(images(), batch_size=3, max_tokens=4)):
        most = max(most, taken - number)
    assert threads == {threading.get_ident()}
    assert taken == 40 and most <= 2 * 3 + 1 + 1


def batch_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("kosmos-edge")]


@pytest.mark.parametrize("size", [1, 4])
def test_closing_ends_the_computation_and_leaves_no_thread(scenes: list[Path], size: int) -> None:
    model = long_model()
    unused = model.batch(scenes, batch_size=size, **LONG)
    del unused  # never begun
    answers = model.batch([b"no picture", *scenes], batch_size=size, **LONG)
    assert not next(answers).ok
    assert "kosmos-edge batch" in batch_threads()  # the others go on
    answers.close()
    assert batch_threads() == []
    for result in model.batch([b"no picture", *scenes], batch_size=size, **LONG):
        assert not result.ok
        break
    gc.collect()
    assert batch_threads() == []


def test_a_finished_batch_leaves_no_thread(nano: Model, scenes: list[Path]) -> None:
    assert len(list(nano.batch(scenes, batch_size=2, max_tokens=2))) == len(scenes)
    assert batch_threads() == []


def test_cancel_ends_a_batch(scenes: list[Path]) -> None:
    model = long_model()
    cancel = threading.Event()
    answers = model.batch(scenes, batch_size=2, cancel=cancel, **LONG)
    threading.Timer(0.3, cancel.set).start()
    with pytest.raises(Cancelled):
        list(answers)
    while batch_threads():  # not waited for by the cancelled caller
        threading.Event().wait(0.01)
    assert next(model.batch(scenes, max_tokens=1)).ok


FORGOTTEN = """
import sys
sys.path.insert(0, {tests!r})
from helpers.api_model import picture
from kosmos_edge import load
model = load({model!r}, threads=1)
answers = model.batch([b"no picture", *(picture(i) for i in range(50))], batch_size=4, **{long!r})
next(answers)
print("ready", flush=True)
try:
    {end}
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def program(end: str) -> list[str]:
    text = FORGOTTEN.format(tests=str(Path(__file__).parents[1]), model=str(long_file()), long=LONG, end=end)
    return [sys.executable, "-P", "-c", text]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise there")
def test_ctrl_c_ends_a_batch() -> None:
    with subprocess.Popen(program("next(answers)"), stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        threading.Event().wait(0.3)
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "interrupted\n"
    assert process.returncode == 0


def test_an_iterator_that_is_left_open_does_not_hold_the_interpreter() -> None:
    done = subprocess.run(program("pass"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
    assert done.stdout == "ready\n" and done.returncode == 0


@pytest.mark.parametrize("finished", [True, False], ids=["at its end", "closed early"])
def test_ctrl_c_while_a_batch_is_left_is_heard(monkeypatch: pytest.MonkeyPatch, finished: bool) -> None:
    """It may come while the batch waits for its threads: then it is raised, not swallowed."""
    answers = load(long_file(), threads=1).batch([picture()], max_tokens=2)
    next(answers)
    shutdown = ThreadPoolExecutor.shutdown

    def interrupted(self: ThreadPoolExecutor, *args: Any, **options: Any) -> None:
        shutdown(self, *args, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(answers) if finished else answers.close()
