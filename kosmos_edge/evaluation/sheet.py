"""A page for people who grade answers: the models side by side, in an order that does not tell which is which.

One HTML file with its pictures inside. Grading needs no script and no network: the answers are a form. Its button saves
the grades as a file where scripts run, and puts them into the page's address where they do not; `grades.py` reads both.
The key, a file of its own, says which answer is whose.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from kosmos_edge.evaluation.answers import Answers, Question, find_picture
from kosmos_edge.images import open_image

GRADES = {
    "A": "correct and satisfying",
    "B": "acceptable, with minor flaws",
    "C": "about the question, with significant errors",
    "D": "irrelevant or wrong",
}
_SIDE = 640  # pixels of a picture's longer side
_STYLE = """
body { font: 16px/1.5 sans-serif; max-width: 60rem; margin: 1rem auto; padding: 0 1rem; color: #111; background: #fff }
section { border-top: 2px solid #888; margin-top: 2rem } img { max-width: 100%; height: auto }
.answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); gap: 1rem }
.answer { white-space: pre-wrap; overflow-wrap: anywhere } fieldset { border: 1px solid #888 }
label { margin-right: 1rem; white-space: nowrap } .comment { width: 95%; margin-top: .5rem }
"""
_SCRIPT = """
document.getElementById("sheet").addEventListener("submit", function (event) {
  event.preventDefault();
  var out = {sheet: "", grader: "", grades: {}, comments: {}};
  new FormData(this).forEach(function (value, name) {
    if (name === "sheet" || name === "grader") out[name] = value.trim();
    else if (!name.endsWith(".comment")) out.grades[name] = value;
    else if (value.trim()) out.comments[name.slice(0, -8)] = value.trim();
  });
  var link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(out, null, 1)], {type: "application/json"}));
  link.download = "grades-" + (out.grader.replace(/[^A-Za-z0-9]+/g, "-") || "nobody") + ".json";
  link.click();
});
"""


def make_key(questions: Sequence[Question], found: Sequence[Answers], seed: int) -> dict[str, Any]:
    """Which answer is whose: for each question the models in the order in which the page shows their answers."""
    rows = []
    for question in questions:
        order = list(found)
        random.Random(f"{seed}:{question.id}").shuffle(order)
        rows.append({"id": question.id, "order": [one.model for one in order], "abilities": list(question.abilities)})
    said = [[q.id, q.text, *(one.said[q.id] for one in found)] for q in questions]
    name = hashlib.sha256(json.dumps([said, rows]).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return {"sheet": name, "models": [one.model for one in found], "questions": rows}


def make_page(
    questions: Sequence[Question],
    found: Sequence[Answers],
    key: Mapping[str, Any],
    folder: Path,
    title: str,
    done: Mapping[str, Any] | None = None,
) -> str:
    """The page. done: grades to go on with, see grades.read_grades. InvalidRequest for a picture that is not there."""
    by_model = {one.model: one.said for one in found}
    grades = {} if done is None else done["grades"]
    comments = {} if done is None else done["comments"]
    sections, shown = [], ""
    for number, (question, row) in enumerate(zip(questions, key["questions"], strict=True), 1):
        picture = ""
        if question.image != shown:  # the questions of one conversation follow each other
            picture = f'<p><img alt="picture {number}" src="{_inlined(find_picture(folder, question.image))}"></p>\n'
            shown = question.image
        fields = [
            _field(f"{number}.{place}", place, by_model[model][question.id], grades, comments)
            for place, model in enumerate(row["order"], 1)
        ]
        sections.append(
            f'<section>\n{picture}<h2>{number}. {_escaped(question.text)}</h2>\n<div class="answers">\n'
            + "\n".join(fields)
            + "\n</div>\n</section>"
        )
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    marks = "".join(f"<li><b>{letter}</b>: {meaning}</li>" for letter, meaning in GRADES.items())
    grader = "" if done is None else _escaped(str(done["grader"]))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width">
<title>{_escaped(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<form id="sheet" method="get">
<h1>{_escaped(title)}</h1>
<p>Give every answer a grade. The order of the answers is another one for each question.</p>
<ul>{marks}</ul>
<p>The buttons at the end save a file. If your browser runs no scripts, they put the grades into the address of this
page instead: copy that address into a text file, and hand that in.</p>
<p><label>Your name: <input name="grader" value="{grader}" required></label></p>
<input type="hidden" name="sheet" value="{key["sheet"]}">
{chr(10).join(sections)}
<section>
<p><button>Save all grades</button> <button formnovalidate>Save what is done so far</button></p>
</section>
</form>
<script>{_SCRIPT}</script>
</body>
</html>
"""


def _field(name: str, place: int, answer: str, grades: Mapping[str, str], comments: Mapping[str, str]) -> str:
    chosen = grades.get(name)
    radios = " ".join(
        f'<label><input type="radio" name="{name}" value="{letter}" required{" checked" * (letter == chosen)}>'
        f" {letter}</label>"
        for letter in GRADES
    )
    comment = _escaped(comments.get(name, ""))
    return (
        f'<fieldset><legend>Answer {place}</legend>\n<p class="answer">{_escaped(answer)}</p>\n{radios}\n'
        f'<input class="comment" name="{name}.comment" value="{comment}" placeholder="Comment, if you like">\n'
        "</fieldset>"
    )


def _escaped(text: str) -> str:
    return html.escape(text.encode("utf-8", "replace").decode())


def _inlined(path: Path) -> str:
    """The upright picture as a JPEG of at most _SIDE pixels."""
    opened = open_image(path)
    picture = Image.frombytes("RGB", (opened.width, opened.height), opened.rgb)
    picture.thumbnail((_SIDE, _SIDE))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
