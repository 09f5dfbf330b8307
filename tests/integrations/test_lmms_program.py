"""lmms-eval as a whole program on a local task: its accuracy is that of our own answers to the same items."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.api_model import picture, tiny_file, tiny_model
from PIL import Image

pytestmark = pytest.mark.filterwarnings("ignore")  # of the harness

TASK = """task: local
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
  cache_dir: {cache}
output_type: generate_until
test_split: test
doc_to_visual: !function functions.see
doc_to_text: question
doc_to_target: answer
generation_kwargs: {{max_new_tokens: 6, until: []}}
process_results: !function functions.judge
metric_list:
  - {{metric: same, aggregation: mean, higher_is_better: true}}
"""
FUNCTIONS = """from PIL import Image


def see(doc):
    return [Image.open(doc["image"]).convert("RGB")]


def judge(doc, results):
    return {"same": float(results[0] == doc["answer"])}
"""


def test_a_local_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = pytest.importorskip(
        "lmms_eval.evaluator", reason="lmms-eval is not installed, or not all that it needs"
    )
    pytest.importorskip("filelock._api", reason="lmms-eval 0.7.3 needs filelock 3")
    from lmms_eval.tasks import TaskManager

    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    rows = []
    for number in range(4):
        Image.fromarray(picture(number)).save(tmp_path / f"{number}.png")
        said = tiny_model().generate([tmp_path / f"{number}.png", "it is"], max_tokens=6).text
        answer = said if number != 2 else "something else"
        rows.append({"image": str(tmp_path / f"{number}.png"), "question": "it is", "answer": answer})
    data = tmp_path / "items.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    folder = tmp_path / "task"
    folder.mkdir()
    (folder / "local.yaml").write_text(TASK.format(data=data, cache=tmp_path / "cache"), encoding="utf-8")
    (folder / "functions.py").write_text(FUNCTIONS, encoding="utf-8")
    known = TaskManager(include_defaults=False, include_path=str(folder), model_name="kosmos_edge")
    found: Any = evaluator.simple_evaluate(
        model="kosmos_edge",
        model_args=f"pretrained={tiny_file()},threads=1",
        tasks=["local"],
        task_manager=known,
        batch_size=1,
        bootstrap_iters=0,
        force_simple=True,
    )
    assert found["results"]["local"]["same,none"] == 0.75
