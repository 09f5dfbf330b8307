"""Sheets for people and their grades: blinded, in one file, read with and without scripts; figures by hand."""

import json
import os
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from helpers.eval_scripted import draw_picture, write_json, write_lines

from kosmos_edge import cli
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.evaluation.answers import find_picture, join, read_answers
from kosmos_edge.evaluation.grades import agreement, cohen, figures, fleiss, markdown, read_grades, read_key
from kosmos_edge.evaluation.sheet import make_key, make_page

QUESTIONS = [("1.jpg", 7, "What <is> it?"), ("2.jpg", 8, "Who?"), ("2.jpg", 9, "Why?")]


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("KOSMOS_EDGE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name, size in (("1.png", (1600, 800)), ("2.jpg", (64, 48))):
        draw_picture(tmp_path / "cases" / name, size=size)
    kinds = ["a,b", "a, e", "f"]
    lines = [{"question_id": q, "ability": kind} for (_, q, _), kind in zip(QUESTIONS, kinds, strict=True)]
    write_lines(tmp_path / "questions.jsonl", lines)
    return tmp_path


def answers(folder: Path, name: str, **more: Any) -> Path:
    records = [
        {
            "image": image,
            "question_id": id,
            "question": text,
            "answer": f"it is \N{LEFT DOUBLE QUOTATION MARK}{name} {id}&",
            **more,
        }
        for image, id, text in QUESTIONS
    ]
    return write_lines(folder / f"{name}.jsonl", records)


def sheet(data: Path, names: tuple[str, ...] = ("ours", "theirs"), seed: int = 0) -> tuple[dict[str, Any], str]:
    questions, found = join([answers(data, name) for name in names], data)
    key = make_key(questions, found, seed)
    return key, make_page(questions, found, key, data, "Title & more")


class Form(HTMLParser):
    """The fields of a page, and what it would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.scripts += tag == "script"
        if tag == "input":
            self.fields.append(found)
        self.links += [str(found[name]) for name in ("src", "href", "action") if name in found]


def test_the_page_is_whole_and_does_not_tell_whose_answers_they_are(data: Path) -> None:
    key, page = sheet(data)
    form = Form()
    form.feed(page)
    assert len(form.links) == 2 and all(link.startswith("data:image/jpeg;base64,") for link in form.links)
    assert "default-src 'none'" in page and form.scripts == 1
    radios = [field for field in form.fields if field.get("type") == "radio"]
    assert len(radios) == 3 * 2 * 4 and {field["name"] for field in radios} == {
        f"{q}.{a}" for q in (1, 2, 3) for a in (1, 2)
    }
    assert "What &lt;is&gt; it?" in page and "Title &amp; more" in page
    for place, row in enumerate(key["questions"], 1):
        shown = re.findall(r'class="answer">it is \u201c(\w+) (\d+)&amp;<', page.partition(f"<h2>{place}. ")[2])[:2]
        assert shown == [(model, row["id"]) for model in row["order"]]
    hidden, _ = sheet(data, ("secret-one", "secret-two"))
    without_answers = re.sub(r'class="answer">.*?</p>', "", sheet(data, ("secret-one", "secret-two"))[1])
    assert hidden["models"] == ["secret-one", "secret-two"] and "secret" not in without_answers


def test_the_order_is_drawn_for_each_question(data: Path) -> None:
    many = [(f"{n}.jpg", n, "?") for n in range(40)]
    from kosmos_edge.evaluation.answers import Answers, Question

    questions = [Question(str(id), image, text) for image, id, text in many]
    found = [Answers(name, tuple(questions), {q.id: name for q in questions}) for name in ("a", "b")]
    key = make_key(questions, found, 0)
    first = [row["order"][0] for row in key["questions"]]
    assert 10 < first.count("a") < 30 and make_key(questions, found, 0) == key
    other = make_key(questions, found, 1)
    assert other["sheet"] != key["sheet"] and [row["order"][0] for row in other["questions"]] != first
    expected = ["a", "b"]
    random.Random("0:5").shuffle(expected)
    assert key["questions"][5]["order"] == expected


def grade(key: dict[str, Any], marks: dict[tuple[str, str], str], grader: str, **more: Any) -> dict[str, Any]:
    """What the page saves: marks by (question, model) at the places of the page."""
    places = {
        (row["id"], model): f"{q}.{a}"
        for q, row in enumerate(key["questions"], 1)
        for a, model in enumerate(row["order"], 1)
    }
    given = {places[pair]: letter for pair, letter in marks.items()}
    return {"sheet": key["sheet"], "grader": grader, "grades": given, **more}


MARKS = {
    ("7", "ours"): "A", ("8", "ours"): "B", ("9", "ours"): "B",
    ("7", "theirs"): "B", ("8", "theirs"): "D", ("9", "theirs"): "B",
}  # fmt: skip


def test_grades_are_counted(data: Path, tmp_path: Path) -> None:
    key, _ = sheet(data)
    key = read_key(write_json(tmp_path / "key.json", key))
    one = read_grades(write_json(tmp_path / "g.json", grade(key, MARKS, "Ann", comments={"1.2": "no"})), key)
    made = figures(key, [one], 0)
    ours, theirs = made["models"]["ours"], made["models"]["theirs"]
    assert ours["shares"] == {"A": 1 / 3, "B": 2 / 3, "C": 0, "D": 0} and ours["n"] == 3
    assert ours["mean"]["value"] == pytest.approx(10 / 3) and theirs["mean"]["value"] == pytest.approx(7 / 3)
    assert ours["mean"]["ci95"] == [3, 4]
    assert ours["abilities"]["a"]["mean"]["value"] == 3.5 and ours["abilities"]["f"]["n"] == 1
    (difference,) = made["differences"]
    assert (difference["model"], difference["against"]) == ("theirs", "ours")
    assert difference["value"] == pytest.approx(-1) and difference["ci95"] == [-2, 0] and difference["p"] > 0.05
    assert made["agreement"] is None and made["missing"] == {"Ann": 0}
    text = markdown(made)
    assert "| ours | 3 | 33.3 % | 66.7 % | 0.0 % | 0.0 % | 3.33 [3.00, 4.00] |" in text
    assert "- theirs - ours: -1.00 [-2.00, +0.00]" in text and "- e: reasoning" in text
    # planted: the page's order taken for the files' order
    wrong = {**key, "questions": [{**row, "order": sorted(row["order"])} for row in key["questions"]]}
    assert wrong["questions"] != key["questions"]
    assert figures(wrong, [one], 0)["models"]["ours"]["mean"]["value"] != ours["mean"]["value"]


def test_grades_without_scripts_are_the_pages_address(data: Path, tmp_path: Path) -> None:
    key, _ = sheet(data)
    saved = grade(key, MARKS, "Ann B", comments={"2.1": "good & short"})
    query = {
        "grader": "Ann B",
        "sheet": key["sheet"],
        **saved["grades"],
        "1.1.comment": " ",
        "2.1.comment": "good & short",
    }
    path = tmp_path / "address.txt"
    path.write_text(f"file:///tmp/sheet.html?{urlencode(query)}\n")
    assert read_grades(path, key) == read_grades(write_json(tmp_path / "g.json", saved), key)


def test_several_graders(data: Path) -> None:
    key, _ = sheet(data)
    ann = grade(key, MARKS, "Ann")
    bob = grade(key, {**MARKS, ("8", "theirs"): "C"}, "Bob")
    made = figures(key, [ann, bob], 0)
    assert made["models"]["theirs"]["mean"]["value"] == pytest.approx((3 + 1.5 + 3) / 3)
    assert made["agreement"]["n"] == 6 and made["agreement"]["same"] == pytest.approx(5 / 6)
    del bob["grades"]["1.1"]
    partial = figures(key, [ann, bob], 0)
    assert partial["missing"] == {"Ann": 0, "Bob": 1} and partial["agreement"]["n"] == 5
    assert "- Bob has not graded 1 answers" in markdown(partial)
    with pytest.raises(InvalidRequest, match="two files are of the grader Ann"):
        figures(key, [ann, ann], 0)


def test_agreement_is_that_of_the_textbooks() -> None:
    """Cohen: 20, 5, 10, 15 of 50 (his kappa 0.4). Fleiss: the table of his paper as Wikipedia prints it, 4 of its 5
    columns cannot stand for it, so his formula is worked by hand for three graders."""
    pairs = ["AA"] * 20 + ["AB"] * 5 + ["BA"] * 10 + ["BB"] * 15
    assert cohen(pairs) == pytest.approx(0.4)
    assert cohen(["AA", "AA"]) is None and cohen([]) is None and cohen(["AB", "BA"]) == -1
    # three graders: AAA, AAB, BBB, BCC. P_i = 1, 1/3, 1, 1/3: 2/3. p = 5/12, 5/12, 2/12: 54/144 by chance
    assert fleiss(["AAA", "AAB", "BBB", "BCC"]) == pytest.approx((2 / 3 - 54 / 144) / (1 - 54 / 144))
    found = agreement([{1: "A", 2: "B"}, {1: "A", 2: "B"}, {1: "A", 2: "B", 3: "C"}])
    assert found is not None and found["kappa"] == 1 and found["n"] == 2 and found["statistic"] == "Fleiss' kappa"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sheet": "0"}, "grades of the sheet 0, expected of"),
        ({"grader": " "}, "expected the name of the grader"),
        ({"grades": {"4.1": "A"}}, "expected a grade of A, B, C, D of an answer, got 4.1: 'A'"),
        ({"grades": {"1.1": "E"}}, "got 1.1: 'E'"),
        ({"comments": {"x": "y"}}, "a comment on x"),
        ({"grades": 3}, "a record is not as expected"),
    ],
)
def test_wrong_grades_are_refused(data: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    key, _ = sheet(data)
    path = write_json(tmp_path / "g.json", grade(key, MARKS, "Ann") | change)
    with pytest.raises(InvalidRequest, match=re.escape(message)):
        read_grades(path, key)


def test_wrong_answers_are_refused(data: Path) -> None:
    one, other = answers(data, "one"), answers(data, "other")
    with pytest.raises(InvalidRequest, match="two files are of the model same"):
        join([answers(data, "one", model_id="same"), answers(data, "other", model_id="same")], data)
    answers(data, "one")
    lines = other.read_text().splitlines()
    other.write_text("\n".join(lines[:2]))
    for paths in ([one, other], [other, one]):
        with pytest.raises(InvalidRequest, match=r"other\.jsonl: no answer to question 9, which another file has"):
            join(paths, data)
    other.write_text("\n".join([*lines, lines[0]]))
    with pytest.raises(InvalidRequest, match="question 7 is there twice"):
        read_answers(other)
    other.write_text("\n".join(line.replace("}", f', "model_id": "m{n}"}}') for n, line in enumerate(lines)))
    with pytest.raises(InvalidRequest, match="expected the answers of one model, got m0, m1, m2"):
        read_answers(other)
    with pytest.raises(InvalidRequest, match=r"has no picture 3\.jpg"):
        find_picture(data, "3.jpg")


def test_the_commands(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An authors' file (JSONL with model_id) beside a list; page and key; grades; grades to go on with."""
    listed = write_json(
        data / "list.json", [json.loads(line) for line in answers(data, "ours").read_text().splitlines()]
    )
    theirs = answers(data, "theirs", model_id="owl")
    page = data / "sheet.html"
    words = ["eval", "sheet", str(listed), str(theirs), "--data", str(data), "-o", str(page)]
    assert cli.run([*words, "--title", "T"]) == 0
    assert "3 questions, 2 models" in capsys.readouterr().err
    key = json.loads((data / "sheet.html.key.json").read_text())
    assert key["models"] == ["list", "owl"] and "<title>T</title>" in page.read_text()
    marks = {(id, {"ours": "list", "theirs": "owl"}[model]): letter for (id, model), letter in MARKS.items()}
    saved = write_json(data / "ann.json", grade(key, marks, "Ann", comments={"3.2": "so so"}))
    assert cli.run(["eval", "grades", f"{page}.key.json", str(saved), "-f", "json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["models"]["owl"]["mean"]["value"] == pytest.approx(7 / 3)
    assert cli.run(["eval", "grades", f"{page}.key.json", str(saved)]) == 0
    assert capsys.readouterr().out.startswith("# Grades of the sheet ")
    assert cli.run(words) == 2 and "exists" in capsys.readouterr().err
    assert cli.run([*words, "--overwrite", "--grades", str(saved)]) == 0
    form = Form()
    form.feed(page.read_text())
    checked = {str(f["name"]): f["value"] for f in form.fields if "checked" in f}
    assert checked == json.loads(saved.read_text())["grades"]
    assert any(field.get("value") == "so so" for field in form.fields)
