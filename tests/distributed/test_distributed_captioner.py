"""Captioner without any engine around it: pickling, opening at first use, forms of batches, broken images."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.api_model import grounded_file, png

import kosmos_edge
from kosmos_edge import InvalidRequest, ModelNotFound
from kosmos_edge.distributed import Captioner, opened
from kosmos_edge.distributed.frames import answer_columns

np = pytest.importorskip("numpy", reason="numpy is not installed")
MODEL = grounded_file()
PICTURES: list[Any] = [png(1, 40, 50), png(2, 50, 40), b"broken", None, png(3, 30, 30)]


def captioner(**more: Any) -> Captioner:
    return Captioner(MODEL, **{"threads": 1, "max_tokens": 6, **more})


def cells(values: list[Any]) -> Any:
    """A numpy array of objects, as Ray makes it of bytes."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The models that are loaded, in a process that has none yet."""
    calls: list[Any] = []

    def load(model: Any, **options: Any) -> Any:
        calls.append((model, options))
        return kosmos_edge.load(model, **options)

    monkeypatch.setattr(opened, "load", load)
    monkeypatch.setattr(opened, "_models", {})
    return calls


def test_it_is_small_opens_late_and_once_for_a_process(loads: list[Any]) -> None:
    first = captioner(ground=True)
    sent = pickle.dumps(first)
    assert len(sent) < 2000 and not loads
    one, two = pickle.loads(sent), pickle.loads(sent)
    assert one({"bytes": cells([])})["text"].shape == (0,) and not loads  # engines ask with no rows for the types
    texts = [list(each({"bytes": cells(PICTURES)})["text"]) for each in (one, two, one)]
    assert texts[0] == texts[1] == texts[2] and loads == [(str(MODEL), {"threads": 1, "shared_weights": True})]
    assert len(pickle.dumps(one)) < 2000  # also once it is open
    one.opened().close()
    assert list(two({"bytes": cells(PICTURES)})["text"]) == texts[0] and len(loads) == 2


def test_a_batch_keeps_rows_and_gets_the_answers_of_one_process() -> None:
    batch = {"id": np.arange(5), "bytes": cells(PICTURES), "url": cells(["a", "b", "c", None, "e"])}
    done = captioner(ground=True)(batch)
    assert list(done) == ["id", "bytes", "url", *answer_columns("caption")]
    assert done["id"] is batch["id"] and done["bytes"] is batch["bytes"] and done["url"] is batch["url"]
    model = kosmos_edge.load(MODEL, threads=1)
    good = [0, 1, 4]
    wanted = list(model.batch([PICTURES[i] for i in good], ground=True, max_tokens=6))
    assert [done["text"][i] for i in good] == [result.text for result in wanted]
    found = [json.loads(done["entities"][i]) for i in good]
    assert found == [json.loads(json.dumps([e.to_dict() for e in result.entities])) for result in wanted]
    assert [(done["width"][i], done["height"][i]) for i in range(5)] == [(40, 50), (50, 40), (0, 0), (0, 0), (30, 30)]
    assert done["width"].dtype == np.int32 and done["text"].dtype == object
    assert [bool(error) for error in done["error"]] == [False, False, True, True, False]
    assert "empty cell" in done["error"][3] and [done["text"][i] for i in (2, 3)] == ["", ""]
    assert [done["finish_reason"][i] for i in (2, 3)] == ["error", "error"]


def test_what_a_cell_may_hold(tmp_path: Path) -> None:
    from PIL import Image

    data, path = png(1, 40, 50), tmp_path / "a.png"
    path.write_bytes(data)
    array = np.asarray(Image.open(path).convert("RGB"))
    good = [data, bytearray(data), memoryview(data), str(path), {"bytes": data, "path": None}, array, Image.open(path)]
    good += [{"bytes": None, "path": str(path)}, np.str_(path), np.bytes_(data)]
    bad = [None, float("nan"), b"", "", 7, [1, 2], {"bytes": None}, "https://example.org/a.png", tmp_path / "none.png"]
    rows = captioner().rows(good + bad)
    assert {row["text"] for row in rows[: len(good)]} == {rows[0]["text"]} and not any(r["error"] for r in rows[:10])
    assert all(row["error"] and not row["text"] for row in rows[len(good) :])


def test_a_stack_of_arrays_is_a_column_of_images() -> None:
    stack = np.stack([np.full((30, 40, 3), value, np.uint8) for value in (0, 200)])
    done = captioner(column="image", drop=["image"])({"image": stack})
    assert list(done["width"]) == [40, 40] and not any(done["error"]) and "image" not in done


@pytest.mark.parametrize("kind", ["arrow", "records", "pandas"])
def test_other_kinds_of_batches(kind: str) -> None:
    package = "pandas" if kind == "pandas" else "pyarrow"
    made = pytest.importorskip(package, reason=f"{package} is not installed")
    table = {"id": [0, 1, 2, 3, 4], "bytes": PICTURES}
    wanted = captioner()({"id": np.arange(5), "bytes": cells(PICTURES)})
    if kind == "pandas":
        frame = made.DataFrame(table, index=[7, 3, 5, 1, 9])
        done = captioner()(frame)
        assert list(done.index) == [7, 3, 5, 1, 9] and list(frame.columns) == ["id", "bytes"]
        columns = {name: done[name].tolist() for name in wanted}
        assert str(done["width"].dtype) == "int32"
    else:
        given = made.table(table) if kind == "arrow" else made.RecordBatch.from_pydict(table)
        done = captioner()(given)
        columns = done.to_pydict()
        kinds = {"string": made.string(), "int32": made.int32()}
        for name, type_ in answer_columns("caption").items():
            assert done.schema.field(name).type == kinds[type_] and not done[name].null_count
        assert captioner()(given.slice(0, 0)).schema == done.schema
    for name in answer_columns("caption"):
        assert columns[name] == list(wanted[name]), name


def test_wrong_columns_are_said() -> None:
    with pytest.raises(InvalidRequest, match="the batch has no 'bytes'; it has 'image', 'n'"):
        captioner()({"image": cells(PICTURES), "n": np.arange(5)})
    with pytest.raises(InvalidRequest, match="a column 'text' already"):
        captioner()({"bytes": cells([]), "text": cells([])})
    assert "ke_text" in captioner(prefix="ke_")({"bytes": cells([]), "text": cells([])})
    with pytest.raises(InvalidRequest, match="drop: the batch has no 'picture'"):
        captioner(drop=["picture"])({"bytes": cells([])})
    with pytest.raises(InvalidRequest, match="drop zeros at the end"):
        captioner()({"bytes": np.array([b"a\0", b"b"])})
    with pytest.raises(InvalidRequest, match="got list"):
        captioner()([1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"task": "paint"}, "task: expected one of"),
        ({"batch_size": 0}, "batch_size"),
        ({"threads": 0}, "threads"),
        ({"column": ""}, "column"),
        ({"drop": "bytes"}, "a list of names"),
        ({"stream": True}, "stream"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_sent(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        Captioner(MODEL, **options)


def test_what_is_wrong_for_all_images_is_raised(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        Captioner(tmp_path / "none.gguf")({"bytes": cells(PICTURES)})
    with pytest.raises(InvalidRequest, match="lenght"):
        captioner(lenght="long")({"bytes": cells(PICTURES)})
    with pytest.raises(InvalidRequest, match="a loaded model is not sent"):
        Captioner(kosmos_edge.load(MODEL, threads=1))


def test_a_path_is_seen_from_the_root_and_a_tag_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Captioner("nano").model == "nano" and Captioner("kosmos-2:q8_0").model == "kosmos-2:q8_0"
    assert Captioner("a.gguf").model == str(tmp_path / "a.gguf") == Captioner(Path("a.gguf")).model
    assert Captioner("user/repo:TAG").model == "user/repo:TAG"


def test_tasks_have_their_own_json() -> None:
    ranked = captioner(task="score", texts=["a dog", "a cat"])
    del ranked.arguments["max_tokens"]
    row = ranked.rows([PICTURES[0]])[0]
    best = json.loads(row["ranking"])
    assert {one["text"] for one in best} == {"a dog", "a cat"} and row["text"] == best[0]["text"]
    failed = ranked.rows([b"broken"])[0]
    assert failed["ranking"] == "[]" and failed["error"] and failed["text"] == ""
    assert list(answer_columns("read"))[1] == "lines" and list(answer_columns("classify"))[1] == "ranking"


def test_boxes_by_default_of_the_model() -> None:
    assert json.loads(captioner(ground=None).rows(PICTURES[:1])[0]["entities"]) == json.loads(
        captioner(ground=True).rows(PICTURES[:1])[0]["entities"]
    )


def test_threads_are_those_of_the_worker(monkeypatch: pytest.MonkeyPatch, loads: list[Any]) -> None:
    for given, wanted in (("3", 3), ("2,4", 2), ("", 1), ("many", 1), ("0", 1)):
        monkeypatch.setenv("OMP_NUM_THREADS", given)
        assert opened.worker_threads() == wanted
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    Captioner(MODEL).opened()
    assert loads == [(str(MODEL), {"threads": 2, "shared_weights": True})]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_worker_opens_its_own() -> None:
    code = f"""
import os, sys
from kosmos_edge.distributed import Captioner
c = Captioner({str(MODEL)!r}, threads=1, max_tokens=3)
data = open(sys.argv[1], "rb").read()
before = c.rows([data])
child = os.fork()
if not child:
    os._exit(0 if c.rows([data]) == before else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    picture = Path(__file__).resolve().parents[2] / "examples" / "scene-00000.png"
    assert subprocess.run([sys.executable, "-c", code, picture], timeout=60, check=False).returncode == 0
