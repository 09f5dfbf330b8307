"""kosmos-edge agent: the answer, transcripts as HTML and JSON, interruption, and what is refused before any work."""

import base64
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai", reason="the extra `agent` is not installed")

from helpers.agent_endpoint import EXAMPLES, Scripted, say, scripted
from PIL import Image

from kosmos_edge import cli

PHOTO = str(EXAMPLES[0])
QUESTION = "What is left of <b>the truck</b>?"
LOOK = ("ground", {"image": "image_1"})
KEY = "sk-a-very-secret-key"


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def agent(url: str, *more: str) -> int:
    """The command in this process."""
    return cli.run(["agent", QUESTION, PHOTO, "--llm", url, "--llm-model", "m", "-m", "nano", "-t", "1", *more])


class Page(HTMLParser):
    """The elements of a page; a strict reader of what the browser would do."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted([say(None, LOOK), say("A \x1b]0;tree\x07.\nYes.")]) as endpoint:
        assert agent(endpoint.url) == 0
    out, err = capsys.readouterr()
    assert out == "A \ufffd]0;tree\ufffd.\nYes.\n"  # no escape sequence reaches the terminal
    assert all(line.startswith("kosmos-edge: ") for line in err.splitlines())
    with scripted([say(None, LOOK, ("ask", {"image": "image_1", "\x1b]0;x": 1})), say("A tree.")]) as endpoint:
        assert agent(endpoint.url, "-v") == 0
    err = capsys.readouterr().err
    assert "ground" in err and "unknown argument of ask" in err and "\x1b" not in err


def test_the_transcript_as_html(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    evil = '</p><script>alert("1")</script><img src=http://a.example/?q onerror=alert(1)>![a](http://a.example)'
    dialogue = [
        say(evil, LOOK, ("locate", {"image": "image_1", "phrase": evil}), ("draw_boxes", {"image": evil, "boxes": []})),
        say(None, ("crop", {"image": "image_1", "box": [0, 0, 99, 99]}), (evil, evil)),
        say(evil + f" {KEY}"),
    ]
    target = tmp_path / "a.html"
    with scripted(dialogue) as endpoint:
        assert agent(endpoint.url, "--html", str(target), "-q") == 0
        assert agent(endpoint.url, "--html", str(target), "-q") == 2  # it exists
        assert len(endpoint.got) == 3
    text = target.read_text()
    page = Page(text)
    names = {tag for tag, _ in page.tags}
    assert names <= {
        *("html", "head", "meta", "title", "style", "body", "div", "h2", "figure", "img", "figcaption", "section"),
        *("small", "p", "b", "pre", "details", "summary", "span", "br", "svg", "image", "g", "rect", "text", "title"),
    }
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:image/jpeg;base64,").startswith("data:image/jpeg;base64,")
    assert "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\"" in text
    assert evil in page.text and QUESTION in page.text and KEY not in text and "[key]" in page.text
    images = [a["src"] for tag, a in page.tags if tag == "img"]
    sizes = [Image.open(io.BytesIO(base64.b64decode(str(src).partition(",")[2]))).size for src in images]
    assert sizes == [(320, 320), (99, 99)]
    assert not re.search(r"url\(|@import|expression", text)


def test_the_transcript_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    for more in ([], ["--json-pictures"]):
        with scripted([say(None, LOOK), say("A tree.")]) as endpoint:
            assert agent(endpoint.url, "--json", "--price", "2,8", *more) == 0
        log = json.loads(capsys.readouterr().out)
        assert (log["question"], log["answer"], log["finish_reason"]) == (QUESTION, "A tree.", "stop")
        assert log["llm"] == {"url": endpoint.url, "model": "m"} and log["models"] == ["nano", "nano-read"]
        [call] = log["steps"][0]["calls"]
        assert call["tool"] == "ground" and call["result"]["untrusted"]["boxes"]
        assert log["pictures"][0]["path"] == PHOTO and ("data" in log["pictures"][0]) == bool(more)
        assert log["spent"]["tokens"] == 220 and log["spent"]["cost"] == pytest.approx(200 * 2e-6 + 20 * 8e-6)


@pytest.mark.parametrize("name", ["INT", "TERM"])
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_an_interrupted_run_leaves_its_transcript(tmp_path: Path, name: str) -> None:
    target = tmp_path / "a.html"
    with scripted([say(None, LOOK), say("late", delay=60)]) as endpoint:
        words = ["agent", QUESTION, PHOTO, "--llm", endpoint.url, "--llm-model", "m", "-m", "nano", "-t", "1"]
        command = [sys.executable, "-P", "-m", "kosmos_edge", *words, "--json", "--html", str(target)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            end = time.monotonic() + 60
            while len(endpoint.got) < 2 and process.poll() is None and time.monotonic() < end:
                time.sleep(0.02)
            process.send_signal(getattr(signal, f"SIG{name}"))
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 128 + getattr(signal, f"SIG{name}"), err
    log = json.loads(out)
    assert log["finish_reason"] == "cancelled" and log["steps"][0]["calls"][0]["tool"] == "ground"
    assert "a Christmas tree" in Page(target.read_text()).text
    assert err.splitlines()[-1].endswith(f"the transcript is in {target}") and "Traceback" not in err


def test_a_failed_run_leaves_its_transcript(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "a.html"
    with scripted([say(None, LOOK), Scripted({"error": {"message": "no such model"}}, 404)]) as endpoint:
        assert agent(endpoint.url, "--html", str(target)) == 1
    out, err = capsys.readouterr()
    assert out == "" and "404: no such model" in err and f"the transcript is in {target}" in err
    assert "no such model" in Page(target.read_text()).text


def test_limits_and_text_protocol(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted([say(None, LOOK), say("A tree.")]) as endpoint:
        assert agent(endpoint.url, "--max-steps", "2") == 0
    out, err = capsys.readouterr()
    assert out == "A tree.\n" and "the limit of steps was reached" in err
    with scripted([say(None, LOOK), say(None, ("caption", {"image": "image_1"}))]) as endpoint:
        assert agent(endpoint.url, "--max-steps", "2", "-q") == 1
    assert capsys.readouterr().err == "kosmos-edge: error: no answer: the limit of steps was reached\n"
    call = '```json\n{"tool": "caption", "arguments": {"image": "image_1"}}\n```'
    options = ["--react", "--llm-temperature", "none", "--llm-max-tokens", "50"]
    with scripted([say(call), say("A tree.")]) as endpoint:
        assert agent(endpoint.url, *options) == 0
    body = endpoint.got[0].body
    assert "tools" not in body and "temperature" not in body and body["max_tokens"] == 50


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["a?", PHOTO], "--llm"),
        (["a?", PHOTO, "--llm", "http://127.0.0.1:9/v1"], "--llm-model"),
        ([PHOTO, PHOTO], "the question comes first"),
        (["a?"], "IMAGE"),
        (["a?", PHOTO, "--json-pictures"], "needs --json"),
        (["a?", PHOTO, "--price", "1"], "two numbers"),
        (["a?", PHOTO, "--price", "a,b"], "two numbers"),
        (["a?", PHOTO, "--max-cost", "1"], "price"),
        (["a?", PHOTO, "--timeout", "0"], "timeout"),
        (["a?", PHOTO, "--llm-temperature", "hot"], "a number or none"),
        (["a?", PHOTO, "--llm-temperature", "-1"], "temperature"),
        (["a?", PHOTO, "--llm", "127.0.0.1"], "expected http://HOST"),
        (["a?", PHOTO, "--html", PHOTO, "--overwrite"], "same file as the input"),
        (["a?", PHOTO, "--html", "/no/such/folder/a.html"], "no folder"),
        (["a?", "/no/such/photo.jpg"], "photo.jpg"),
        ([" ", PHOTO], "question"),
        (["a?", PHOTO, "--reader", "nano"], "nano does not read"),
    ],
)
def test_what_is_refused(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with scripted([]) as endpoint:
        given = ["--llm", endpoint.url] if "--llm" not in words and says != "--llm" else []
        given += ["--llm-model", "m"] if says != "--llm-model" else []
        assert cli.run(["agent", *words, *given, "-m", "nano", "-t", "1"]) in (1, 2)
    out, err = capsys.readouterr()
    assert out == "" and says in err and not endpoint.got, err


def test_several_pictures_and_no_package(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOSMOS_EDGE_MODEL", "nano")  # says nothing about the reader
    second: tuple[str, Any] = ("caption", {"image": "image_2"})
    with scripted([say(None, second), say("Done.")]) as endpoint:
        words = ["agent", QUESTION, PHOTO, str(EXAMPLES[1]), "--llm", endpoint.url, "--llm-model", "m", "-t", "1"]
        assert cli.run([*words, "-q"]) == 0
    assert capsys.readouterr().out == "Done.\n" and "untrusted" in endpoint.results()[0]
    assert "read" in [tool["function"]["name"] for tool in endpoint.got[0].body["tools"]]
    monkeypatch.setitem(sys.modules, "openai", None)
    assert cli.run(words) == 2
    assert "pip install 'kosmos-edge[agent]'" in capsys.readouterr().err
