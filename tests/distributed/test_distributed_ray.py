"""batch --engine ray and Ray Data on a real Ray of this machine."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.api_model import grounded_file, png
from helpers.tar_files import make_tar

ray = pytest.importorskip("ray", reason="ray is not installed (see .ci/distributed)")
arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
import pyarrow.parquet as parquet  # noqa: E402

from kosmos_edge import ModelNotFound, load  # noqa: E402
from kosmos_edge.distributed import Captioner  # noqa: E402
from kosmos_edge.distributed.items import Columns  # noqa: E402
from kosmos_edge.distributed.ray_workers import RayWorkers, connected, worker_count  # noqa: E402
from kosmos_edge.distributed.rows import RowMaker  # noqa: E402
from kosmos_edge.folders import Wording  # noqa: E402

MODEL = grounded_file()
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with connected(None) as connection:
        yield connection


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("photos")
    paths = [folder / f"{i:02d}.png" for i in range(40)]
    for i, path in enumerate(paths):
        path.write_bytes(b"broken" if i == 7 else png(i, 40 + i, 50))
    return [str(path) for path in paths]


def maker(model: Any = MODEL, **more: Any) -> RowMaker:
    return RowMaker(Captioner(model, threads=1, max_tokens=6, ground=True, **more), Columns(), Wording())


def read(folder: Path) -> list[dict[str, Any]]:
    return parquet.read_table(folder).to_pylist()  # type: ignore[no-any-return]


def cli(*words: Any, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kosmos_edge", "batch", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def test_ray_data_in_all_forms_of_batches(cluster: Any, photos: list[str]) -> None:
    captioner = Captioner(MODEL, threads=1, max_tokens=6, ground=True, drop=["bytes"])
    data = [{"id": i, "bytes": Path(path).read_bytes()} for i, path in enumerate(photos[:12])]
    model = load(MODEL, threads=1)
    wanted = [answer.text for answer in model.batch([row["bytes"] for row in data], max_tokens=6, ground=True)]
    for form in ("numpy", "pyarrow", "pandas"):
        given = {"model": MODEL, "threads": 1, "max_tokens": 6, "ground": True, "drop": ["bytes"]}
        dataset = ray.data.from_items(data).map_batches(
            Captioner,
            fn_constructor_kwargs=given,
            batch_size=5,
            batch_format=form,
            num_cpus=1,
            compute=ray.data.ActorPoolStrategy(size=2),
        )
        rows = sorted(dataset.take_all(), key=lambda row: row["id"])
        assert [row["id"] for row in rows] == list(range(12)), form
        assert [row["text"] for row in rows] == wanted and list(rows[0]) == ["id", *captioner.columns]
        assert [bool(row["error"]) for row in rows] == [i == 7 for i in range(12)]


def test_a_missing_model_ends_the_run_and_names_the_machine(cluster: Any, tmp_path: Path) -> None:
    with (
        RayWorkers(cluster, maker(tmp_path / "none.gguf"), count=1, threads=1) as workers,
        pytest.raises(ModelNotFound) as found,
    ):
        for _ in range(20):
            workers.receive()
    assert "on the machine" in found.value.__notes__[0]


def test_nobody_at_the_address() -> None:
    code = "from kosmos_edge.distributed.ray_workers import connected; connected('127.0.0.1:1').__enter__()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "no Ray cluster answers at 127.0.0.1:1" in done.stderr


def test_room_for_workers() -> None:
    nodes = [{"Resources": {"CPU": 7.0}, "Alive": True}, {"Resources": {}}, {"Resources": {"CPU": 4.0}, "Alive": False}]
    assert worker_count(nodes, 2) == 3 and worker_count(nodes, 8) == 0


def test_the_command_with_ctrl_c_and_resume(photos: list[str], tmp_path: Path) -> None:
    tar = make_tar(tmp_path / "in.tar", {f"{i}.png": png(i, 30, 40) for i in range(6)})
    table = tmp_path / "in.parquet"
    cells = [Path(path).read_bytes() for path in photos[:5]]
    parquet.write_table(arrow.table({"image": cells, "id": list("abcde")}), table)
    out = tmp_path / "out"
    words = [*photos, photos[0], tar, table, "-m", MODEL, "-n", 6, "-t", 1]
    ray_words = ["--engine", "ray", "-o", out, "--part-rows", 20, "--key-column", "id"]
    command = [sys.executable, "-m", "kosmos_edge", "batch", *map(str, [*words, *ray_words, "--batch-size", 1])]
    begun = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    limit = threading.Timer(120, begun.kill)
    limit.start()
    while begun.poll() is None and not list(out.glob("part-*.parquet")):
        time.sleep(0.01)
    begun.send_signal(signal.SIGINT)
    printed = begun.communicate(timeout=60)
    limit.cancel()
    assert begun.returncode in (0, 1, 130) and not printed[0], printed
    again = cli(*words, *ray_words, "--resume")
    assert again.returncode == 1 and not again.stdout, again.stderr
    assert "1 failed" in again.stderr and "answered before" in again.stderr
    one = tmp_path / "one.parquet"
    assert cli(*words, "-o", one).returncode == 1
    wanted, found = parquet.read_table(one).to_pylist(), read(out)
    for row in wanted + found:
        row["error"] = bool(row["error"])
    key = lambda row: (row["path"], json.dumps(row, default=str))  # noqa: E731
    stripped = [{name: row[name] for name in wanted[0]} for row in found]
    assert sorted(stripped, key=key) == sorted(wanted, key=key)
    assert {row["key"] for row in found if ".parquet#" in row["path"]} == set("abcde")
    assert cli(*words, *ray_words, "--resume", "-n", 7).returncode == 2
