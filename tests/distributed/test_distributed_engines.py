"""The engines themselves, on this machine: Ray and Spark give the answers of one process, whatever dies."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.api_model import grounded_file, png

import kosmos_edge
from kosmos_edge.distributed import Captioner, daft_captioner
from kosmos_edge.distributed.dispatch import Run
from kosmos_edge.distributed.items import Columns, items_of
from kosmos_edge.distributed.parts import Parts
from kosmos_edge.distributed.ray_workers import RayWorkers, connected
from kosmos_edge.distributed.rows import RowMaker
from kosmos_edge.folders import Wording

pytestmark = pytest.mark.filterwarnings("ignore")  # the engines' own
MODEL = grounded_file()
COUNT, BROKEN = 40, 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of which one is broken."""
    found = tmp_path_factory.mktemp("pictures")
    for number in range(COUNT):
        data = b"broken" if number == BROKEN else png(number, 30 + number % 7, 40)
        (found / f"{number:03}.png").write_bytes(data)
    return found


@pytest.fixture(scope="module")
def pictures(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.iterdir())]


@pytest.fixture(scope="module")
def expected(pictures: list[bytes]) -> list[str]:
    """The texts of one process; empty for the broken picture."""
    with kosmos_edge.load(MODEL, threads=1) as model:
        return [r.text if r.error is None else "" for r in model.batch(pictures, max_tokens=6, on_error="yield")]


def captioner() -> Captioner:
    return Captioner(MODEL, threads=1, max_tokens=6, batch_size=4)


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    found = pytest.importorskip("ray", reason="Ray is not installed")
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    found.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield found
    found.shutdown()


def test_ray_data(ray: Any, pictures: list[bytes], expected: list[str]) -> None:
    """Ray's own way of handing a class over: two actors, rows with their numbers."""
    from ray.data import ActorPoolStrategy

    rows = [{"number": number, "bytes": data} for number, data in enumerate(pictures)]
    dataset = ray.data.from_items(rows, override_num_blocks=8)
    given = {"model": str(MODEL), "threads": 1, "max_tokens": 6, "drop": ["bytes"]}
    done = dataset.map_batches(
        Captioner, fn_constructor_kwargs=given, batch_size=5, compute=ActorPoolStrategy(size=2), num_cpus=1
    )
    answers = sorted(done.take_all(), key=lambda row: row["number"])
    assert [row["number"] for row in answers] == list(range(COUNT))
    assert [row["text"] for row in answers] == expected
    assert "not an image" in answers[BROKEN]["error"] and not any(r["error"] for r in answers if r["text"])


def run_on_ray(ray: Any, folder: Path, out: Path, kill_after: int, *, resume: bool = False) -> Any:
    """The counts of a run; one worker is killed after so many rows."""
    maker, settled, killed = RowMaker(captioner(), Columns(), Wording()), [], []
    names = [(path.name, str(path), "") for path in sorted(folder.iterdir())]

    with (
        Parts(str(out), "caption", {}, resume=resume) as parts,
        connected(None) as there,
        RayWorkers(there, maker, count=2, threads=1) as workers,
    ):

        def took(row: dict[str, Any]) -> None:
            settled.append(row["path"])
            if len(settled) == kill_after:
                killed.append(workers.pids()[0])
                os.kill(killed[0], signal.SIGKILL)

        counts = Run(workers, parts, took, task_rows=3, part_rows=15).run(items_of(names, Columns()))
    assert bool(killed) == (0 < kill_after <= len(settled))
    return counts


def rows_of(out: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet

    return [row for part in sorted(out.glob("*.parquet")) for row in pyarrow.parquet.read_table(part).to_pylist()]


@pytest.mark.parametrize("kill_after", [0, 1, 20])
def test_ray_workers_and_one_that_is_killed(
    ray: Any, folder: Path, expected: list[str], tmp_path: Path, kill_after: int
) -> None:
    counts = run_on_ray(ray, folder, tmp_path / "out", kill_after)
    rows = rows_of(tmp_path / "out")
    assert [row["path"] for row in rows] == [f"{number:03}.png" for number in range(COUNT)]
    assert [row["text"] for row in rows] == expected
    assert (counts.done, counts.failed, counts.deaths > 0) == (COUNT, 1, kill_after > 0)
    again = run_on_ray(ray, folder, tmp_path / "out", 0, resume=True)
    assert (again.known, again.failed) == (COUNT - 1, 1)  # the broken picture is tried again
    assert rows_of(tmp_path / "out") == rows


def test_workers_map_the_file(ray: Any) -> None:
    """Read only. What a worker holds besides is not tested here: bench/distributed.py measures it."""
    maker = RowMaker(captioner(), Columns(), Wording())
    with RayWorkers(ray, maker, count=2, threads=1) as workers:
        while workers.count < 2:
            workers.receive()
        for pid in workers.pids():
            maps = Path(f"/proc/{pid}/maps").read_text()
            mapped = [line.split() for line in maps.splitlines() if str(MODEL) in line]
            assert mapped and all(line[1].startswith("r--") for line in mapped)


def test_the_command(ray: Any, folder: Path, tmp_path: Path) -> None:
    ray.shutdown()  # the command starts its own
    command = [sys.executable, "-P", "-m", "kosmos_edge", "batch", str(folder), "--max-tokens", "6"]
    command += ["--model", str(MODEL), "--threads", "1"]
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}

    def go(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *more], capture_output=True, text=True, timeout=120, env=env)

    here = [json.loads(line) for line in go("--format", "jsonl").stdout.splitlines()]
    spread = ("--engine", "ray", "-o", str(tmp_path), "--workers", "2")
    first = go(*spread)
    assert first.returncode == 1 and f"of {COUNT} images 1 failed" in first.stderr, first.stderr
    assert [row["text"] for row in rows_of(tmp_path)] == [answer["text"] for answer in here]
    again = go(*spread, "--resume")
    assert f"1 failed, {COUNT - 1} answered before" in again.stderr, again.stderr


def test_spark(pictures: list[bytes], expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyspark", reason="pyspark is not installed")
    pytest.importorskip("pandas", reason="pandas is not installed")
    if not shutil.which("java"):
        pytest.skip("no Java runtime")
    from pyspark.sql import SparkSession

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        rows = [(number, bytearray(data)) for number, data in enumerate(pictures)]
        frame = spark.createDataFrame(rows, "number int, bytes binary").repartition(4)
        one = Captioner(MODEL, threads=1, max_tokens=6, drop=["bytes"])
        done = frame.mapInPandas(one.partitions, one.spark_schema(frame.schema)).orderBy("number").collect()
    finally:
        spark.stop()
    assert [row["text"] for row in done] == expected
    assert json.loads(done[0]["entities"]) == []


def test_without_the_engine_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, call in (("ray", lambda: connected(None).__enter__()), ("daft", lambda: daft_captioner(captioner()))):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(kosmos_edge.InvalidRequest, match=rf"pip install 'kosmos-edge\[{name}\]'"):
            call()
