"""kosmos-edge pica --questions: all forms of files, a scripted endpoint over real HTTP, runs that resume."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from helpers.api_model import png, tiny_file, tiny_model

pytest.importorskip("openai", reason="the extra `agent` is not installed")
pytest.importorskip("numpy", reason="the extra `index` is not installed")

from helpers.agent_endpoint import Scripted, scripted

from kosmos_edge import cli
from kosmos_edge.apps.pica import question_prompt, read_questions
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.evaluation.metrics.vqa import accuracy

PEOPLE = ["red"] * 6 + ["dark red"] * 3 + ["blue"]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("KOSMOS_EDGE_")] + ["OPENAI_API_KEY"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("kosmos_edge.apps.endpoint.FIRST_PAUSE", 0.01)


def completion(text: str, tokens: int | None = 10, **more: Any) -> Scripted:
    body: dict[str, Any] = {"choices": [{"text": text, "logprobs": {"tokens": [text], "token_logprobs": [-1.0]}}]}
    if tokens is not None:
        body["usage"] = {"prompt_tokens": tokens - 1, "completion_tokens": 1}
    return Scripted(body, **more)


def vqa_files(folder: Path) -> list[str]:
    """Three questions about two images in VQAv2's form, and the options for them."""
    (folder / "val2014").mkdir()
    for number in (1, 42):
        (folder / "val2014" / f"COCO_val2014_{number:012d}.jpg").write_bytes(png(number))
    texts = ["What colour is it?", "Wie heißt das Tier? 🐕", "Who?"]
    questions = [
        {"image_id": n, "question": q, "question_id": 10 + i}
        for i, (n, q) in enumerate(zip((1, 1, 42), texts, strict=True))
    ]
    answers = [{"answer": text, "answer_confidence": "yes", "answer_id": i} for i, text in enumerate(PEOPLE)]
    notes = [
        {"question_id": one["question_id"], "image_id": one["image_id"], "answers": answers, "answer_type": "other",
         "question_type": "what", "multiple_choice_answer": "red"}
        for one in questions
    ]  # fmt: skip
    asked, annotated = folder / "v2_OpenEnded_mscoco_val2014_questions.json", folder / "a.json"
    asked.write_text(json.dumps({"data_subtype": "val2014", "questions": questions}))
    annotated.write_text(json.dumps({"annotations": notes}))
    return ["--questions", str(asked), "--annotations", str(annotated), "--images", str(folder)]


def run(words: list[str], replies: list[Scripted], *more: str) -> tuple[int, list[Any]]:
    base = ["pica", *words, "--no-tags", "-m", str(tiny_file()), "-t", "1", "--llm-model", "m", *more]
    with scripted(replies) as endpoint:
        status = cli.run([*base, "--llm", endpoint.url])
        assert not endpoint.errors
    return status, endpoint.got


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_vqa_files_are_answered_and_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, out, results = vqa_files(tmp_path), tmp_path / "answers.jsonl", tmp_path / "results.json"
    more = ["-o", str(out), "--results", str(results), "-f", "json"]
    status, got = run(words, [completion(" Red."), completion(" 犬🐕"), completion(" the dark red\nQ:")], *more)
    assert status == 0
    report = json.loads(capsys.readouterr().out)
    expected = [accuracy(said, PEOPLE) for said in ("Red", "犬🐕", "the dark red")]
    assert expected[0] == 1.0 and expected[1] == 0.0 and 0 < expected[2] < 1
    assert report["vqa_accuracy"] == pytest.approx(sum(expected) / 3) and report["scored"] == 3
    assert (report["answered"], report["failed"], report["tokens"]) == (3, [], 30)
    assert json.loads(results.read_text("utf-8")) == [
        {"question_id": 10, "answer": "Red."},
        {"question_id": 11, "answer": "犬🐕"},
        {"question_id": 12, "answer": "the dark red"},
    ]
    head, *items = lines(out)
    assert head["llm"] == "m" and head["shots"] == 0
    assert [one["scores"]["vqa_accuracy"] for one in items] == expected
    assert [one["prediction"]["answer"] for one in items] == ["Red.", "犬🐕", "the dark red"]
    pictures = [tmp_path / "val2014" / f"COCO_val2014_{n:012d}.jpg" for n in (1, 1, 42)]
    asked = [one["prediction"]["question"] for one in items]
    assert [request.body["prompt"] for request in got] == [
        question_prompt([], tiny_model().caption(path).text, question)
        for path, question in zip(pictures, asked, strict=True)
    ]


def test_a_run_goes_on_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, out = vqa_files(tmp_path), tmp_path / "answers.jsonl"
    (tmp_path / "val2014" / "COCO_val2014_000000000042.jpg").unlink()
    limit = Scripted({"error": {"message": "slow down"}}, 429, {"Retry-After": "0"})
    status, got = run(words, [limit, completion(" red"), *[limit] * 4], "-o", str(out))
    assert status == 1 and len(got) == 6  # the third question sends nothing: its image is missing
    said = capsys.readouterr()
    assert "3 questions: 1 answered, 2 failed; VQA accuracy 33.33" in said.out
    assert "a failure counting as a wrong answer" in said.out
    assert "429: slow down" in said.err and "000000000042.jpg" in said.err
    with out.open("ab") as file:
        file.write(b'{"type": "pica", "id"')  # a kill in the middle of a line
    assert run(words, [], "-o", str(out))[0] == 2  # exists
    (tmp_path / "val2014" / "COCO_val2014_000000000042.jpg").write_bytes(png(42))
    status, got = run(words, [completion("blue"), completion("red")], "-o", str(out), "--resume")
    assert status == 0 and len(got) == 2
    assert "3 answered (1 before), 0 failed; VQA accuracy" in capsys.readouterr().out
    before = out.read_bytes()
    assert run(words, [], "-o", str(out), "--resume")[0] == 0 and out.read_bytes() == before
    assert run(words, [], "-o", str(out), "--resume", "--style", "promptcap")[0] == 2
    assert "style is 'pica' there, 'promptcap' now" in capsys.readouterr().err
    file = Path(words[1])
    file.write_text(file.read_text().replace("Who?", "Whose?"))
    assert run(words, [], "-o", str(out), "--resume")[0] == 2
    assert "cannot be resumed: 12 asks" in capsys.readouterr().err


def test_limits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, out = vqa_files(tmp_path), tmp_path / "a.jsonl"
    more = ["-o", str(out), "--max-tokens-total", "15"]
    status, _ = run(words, [completion("red"), completion("red")], *more)
    assert status == 1
    said = capsys.readouterr()
    assert "2 answered, 0 failed; 1 not asked" in said.out and "accuracy" not in said.out
    assert "the limit of 15 tokens is reached" in said.err
    assert run(words, [completion("red")], *more, "--resume")[0] == 0
    assert run(words, [completion("red")], "-o", str(tmp_path / "b.jsonl"), "--limit", "1")[0] == 0
    assert "1 questions: 1 answered, 0 failed; VQA accuracy 100.00 of 1" in capsys.readouterr().out
    untold = [completion("red", None)]
    assert run(words, untold, "-o", str(tmp_path / "c.jsonl"), "--max-tokens-total", "9")[0] == 2
    assert "tells no usage" in capsys.readouterr().err


def test_an_endpoint_that_refuses_everything_ends_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "i.png").write_bytes(png(0))
    file = tmp_path / "q.jsonl"
    file.write_text("\n".join(json.dumps({"image": "i.png", "question": f"Q{n}?"}) for n in range(9)))
    no = Scripted({"error": {"message": "wrong key"}}, 401)
    status, got = run(["--questions", str(file)], [no] * 5, "-o", str(tmp_path / "a.jsonl"))
    assert status == 1 and len(got) == 5
    assert "5 questions in succession failed" in capsys.readouterr().err
    assert [one["id"] for one in lines(tmp_path / "a.jsonl")[1:]] == ["1", "2", "3", "4", "5"]


def test_forms_of_files(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    records = [
        {"image": "a.png", "question": "Q\u2028?", "answer": "x"},
        {"id": "z", "image": "b/c.png", "question": "R"},
    ]
    file.write_text("\n\n".join(json.dumps(one, ensure_ascii=False) for one in records))
    found = read_questions(file)
    assert [(one.id, one.image, one.answers) for one in found] == [
        ("1", str(tmp_path / "a.png"), ("x",) * 10),
        ("z", str(tmp_path / "b/c.png"), None),
    ]
    table = tmp_path / "q.csv"
    table.write_text(
        'image,question,id,answer,answers\na.png,"Q, ""q""?",7,ja,\nb.png,R,,,"[""1"",""1"",""1"",""2""]"\n'
    )
    assert [(one.id, one.question, one.answers) for one in read_questions(table, images=tmp_path)] == [
        ("7", 'Q, "q"?', ("ja",) * 10),
        ("2", "R", ("1", "1", "1", "2")),
    ]
    listed = tmp_path / "val.json"
    listed.write_text(json.dumps([{"image": "v.jpg", "question": "Q", "answers": [{"answer": "a"}] * 10}]))
    assert read_questions(listed)[0].answers == ("a",) * 10
    okvqa = tmp_path / "OpenEnded_mscoco_val2014_questions.json"  # says nothing of its images but by its name
    okvqa.write_text(json.dumps({"questions": [{"image_id": 5, "question": "Q", "question_id": 1}]}))
    assert read_questions(okvqa)[0].image == str(tmp_path / "COCO_val2014_000000000005.jpg")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("q.txt", "", "expected a file of questions"),
        ("q.jsonl", "", "no questions in it"),
        ("q.jsonl", '{"image": "a"}', "record 1 is not as expected: question: expected some text, got None"),
        ("q.jsonl", '{"image": "a", "question": "q"}\n{"image": 3, "question": "q"}', "record 2"),
        ("q.jsonl", '{"image": "a", "question": "q", "id": 1}\n{"image": "a", "question": "q", "id": "1"}', "twice"),
        ("q.jsonl", '{"image": "a", "question": "q", "answers": ["a", "b"]}', "one, or at least 4"),
        ("q.jsonl", "{", "line 1: not JSON"),
        ("q.json", '{"questions": 3}', "a list of questions"),
        ("q.json", '{"questions": [{"image_id": 1, "question_id": 2}]}', "record 1.*'question'"),
        ("q.json", '{"questions": [{"image_id": "../x", "question_id": 2, "question": "q"}]}', "image_id"),
        ("q.json", "3", "a list of records"),
        ("q.csv", "image,what\na,b\n", "no column question"),
        ("q.csv", "image,question,answers\na,b,[\n", "record 1"),
    ],
)
def test_files_that_are_wrong(name: str, text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidRequest, match=says):
        read_questions(tmp_path / name)


def test_options_that_do_not_belong_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "q.jsonl", str(tmp_path / "a.jsonl")
    file.write_text('{"image": "i.png", "question": "q"}')
    endpoint = ["--llm", "http://127.0.0.1:9/v1", "--llm-model", "m"]
    for words, says in (
        ([], "expected IMAGE and QUESTION, or --questions"),
        (["i.png"], "expected QUESTION behind IMAGE"),
        (["i.png", "q", "--questions", str(file)], "expected without IMAGE and QUESTION"),
        (["--questions", str(file)], "expected -o FILE"),
        (["i.png", "q", "-o", out], "--output: expected with --questions"),
        (["--questions", str(file), "-o", out, "--annotations", str(file)], "annotations belong to"),
        (["--questions", str(file), "-o", out, "--show-prompt"], "--show-prompt: expected with IMAGE"),
        (["--questions", str(file), "-o", out, "--images", str(file)], "expected the folder of the images"),
    ):
        assert cli.run(["pica", *words, *endpoint]) == 2, words
        assert says in capsys.readouterr().err


def test_defaults_from_the_environment_are_no_traps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "i.png").write_bytes(png(0))
    for name, value in {"QUESTIONS": "q.jsonl", "OUTPUT": "o", "LIMIT": "1", "RESULTS": "r"}.items():
        monkeypatch.setenv(f"KOSMOS_EDGE_PICA_{name}", value)
    for name, value in {"INDEX": "none.index", "IN_CONTEXT": "3", "ENSEMBLE": "2", "RESUME": "1"}.items():
        monkeypatch.setenv(f"KOSMOS_EDGE_{name}", value)
    words = [str(tmp_path / "i.png"), "Who?", "-v"]
    assert run(words, [completion("red")])[0] == 0
    said = capsys.readouterr()
    assert said.out == "red\n"
    for name in ("PICA_QUESTIONS", "INDEX", "IN_CONTEXT", "ENSEMBLE"):
        assert f"KOSMOS_EDGE_{name} from the environment" in said.err
