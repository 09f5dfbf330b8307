"""The job files and the sizing of docs/distributed.md: what they run works here, and the table is the arithmetic."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from helpers.api_model import grounded_file, png

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "examples" / "cluster"
sys.path.insert(0, str(CLUSTER))
import sizing  # noqa: E402


def program(folder: Path) -> dict[str, str]:
    """An environment in which kosmos-edge is this package, whatever is installed."""
    script = folder / "kosmos-edge"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m kosmos_edge "$@"\n')
    script.chmod(0o755)
    return os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_the_slurm_script_captions_its_share_and_goes_on(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for number in range(8):
        (photos / f"{number}.png").write_bytes(png(number, 30, 30))
    env = program(tmp_path) | {"SLURM_CPUS_PER_TASK": "1", "SLURM_ARRAY_TASK_COUNT": "2"}
    for _ in range(2):  # the second time there is nothing left to do
        lines = []
        for task in ("1", "2"):
            command = ["bash", str(CLUSTER / "captions.sbatch"), str(photos), str(out), str(grounded_file())]
            done = subprocess.run(
                command, env=env | {"SLURM_ARRAY_TASK_ID": task}, capture_output=True, text=True, timeout=120
            )
            assert done.returncode == 0, done.stderr
            lines += (out / f"part-{task}.jsonl").read_text().splitlines()
        assert len(lines) == 8 and len(list(photos.glob("*.txt"))) == 8


def test_the_kubernetes_shards_and_their_exit_status(tmp_path: Path) -> None:
    """A broken picture does not make a shard fail again and again; a model that is missing does."""
    text = (CLUSTER / "captions.yaml").read_text()
    completions = int(re.search(r"completions: (\d+)", text)[1])
    assert f"$((JOB_COMPLETION_INDEX + 1))/{completions}" in text and "completionMode: Indexed" in text
    script = textwrap.dedent(re.search(r"- \|\n(.*?)\n {10}resources", text, re.S)[1])
    (tmp_path / "photos").mkdir()
    (tmp_path / "captions").mkdir()
    for number in range(4):
        (tmp_path / "photos" / f"{number}.png").write_bytes(png(number, 30, 30) if number else b"broken")
    script = script.replace("/data/kosmos-2-q4_k_m.gguf", "$MODEL").replace("/data/", f"{tmp_path}/")
    script = script.replace(f"/{completions}", "/2").replace("--threads 16", "--threads 1")
    codes, lines = [], []
    for model in (tmp_path / "none.gguf", grounded_file()):
        for index in ("0", "1"):
            env = program(tmp_path) | {"JOB_COMPLETION_INDEX": index, "MODEL": str(model)}
            codes.append(subprocess.run(["sh", "-c", script], env=env, capture_output=True, timeout=120).returncode)
            part = tmp_path / "captions" / f"part-{index}.jsonl"
            lines += part.read_text().splitlines() if part.exists() else []
    assert codes == [1, 1, 0, 0] and len(lines) == 4
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    job = yaml.safe_load(text)
    assert job["kind"] == "Job" and job["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_the_table_is_the_arithmetic() -> None:
    rows = re.findall(
        r"^\| (100 M|5 B) \| ([\d,]+) \| ([\d.,]+) h \| ([\d.,]+) h \|",
        (ROOT / "docs/distributed.md").read_text(),
        re.M,
    )
    assert [row[0] for row in rows] == ["100 M", "5 B"]
    for name, *shown in rows:
        images = {"100 M": 1e8, "5 B": 5e9}[name]
        hundred, thousand = (sizing.size(images, 1.58, machines) for machines in (100, 1000))
        found = [hundred["machine_hours"], hundred["hours_with_ray"], thousand["hours_with_ray"]]
        for text, value in zip(shown, found, strict=True):
            assert float(text.replace(",", "")) == pytest.approx(value, rel=5e-3)
    assert (
        f"so {sizing.size(1e8, 1.58, 100)['hours_with_shards']:.0f} h instead"
        in (ROOT / "docs/distributed.md").read_text()
    )


@pytest.mark.parametrize(("name", "value"), [("images", 0), ("rate", -1), ("machines", 0), ("rate", float("nan"))])
def test_sizes_that_mean_nothing(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected a number above 0"):
        sizing.size(**{"images": 1e6, "rate": 1.0, "machines": 1, name: value})
