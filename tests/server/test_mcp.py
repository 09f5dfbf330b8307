"""The Model Context Protocol's own client against `kosmos-edge mcp`: in process, over stdio, over HTTP."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import warnings

import pytest

mcp = pytest.importorskip("mcp", reason="the extra `mcp` is not installed")
pytest.importorskip("mcp.server.mcpserver", reason="an older `mcp` is installed")
pytest.importorskip("prometheus_client", reason="the extra `server` is not installed")

from helpers.http_server import EXAMPLES, data_uri  # noqa: E402
from helpers.reciting import write_reader  # noqa: E402

from kosmos_edge import Model, load  # noqa: E402
from kosmos_edge.server.agents import make_server  # noqa: E402

FOLDER = EXAMPLES[0].parent
TOOLS = {"caption", "ask", "ground", "locate", "describe_region"}


@pytest.fixture(scope="module")
def model() -> Model:
    return load("nano", threads=1)


def talk(server, work):
    """work(client), in a loop of its own."""

    async def run():
        async with mcp.Client(server) as client:
            return await work(client)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return asyncio.run(run())


def calls(server, *asked):
    """The results of some tools."""

    async def work(client):
        return [await client.call_tool(name, arguments) for name, arguments in asked]

    return talk(server, work)


def text(result):
    assert not result.is_error, result.content
    return result.content[0].text


def test_the_tools_and_their_forms(model):
    async def work(client):
        return (await client.list_tools()).tools

    tools = {tool.name: tool for tool in talk(make_server(model, []), work)}
    assert set(tools) == TOOLS  # nano does not read
    box = tools["describe_region"].input_schema["properties"]["box"]
    assert (box["minItems"], box["maxItems"]) == (4, 4)
    assert tools["ask"].input_schema["required"] == ["image", "question"]
    assert all(tool.description and tool.annotations.read_only_hint for tool in tools.values())


def test_every_tool_gives_the_verbs_answer(model):
    path = str(EXAMPLES[0])
    server = make_server(model, [str(FOLDER)])
    caption, detailed, asked, ground, found, described = calls(
        server,
        ("caption", {"image": path}),
        ("caption", {"image": path, "length": "long", "ground": True}),
        ("ask", {"image": EXAMPLES[0].name, "question": "What is this?"}),
        ("ground", {"image": data_uri(EXAMPLES[0])}),
        ("locate", {"image": path, "phrase": "a truck"}),
        ("describe_region", {"image": path, "box": [0.5, 0.5, 1, 1], "normalized": True}),
    )
    assert text(caption) == model.caption(path).text
    assert text(detailed).startswith(model.caption(path, "long", ground=True).text)
    assert text(asked) == model.ask(path, "What is this?").text
    own = model.ground(path)
    lines = text(ground).split("\n")
    assert lines[0] == own.text and len(lines) == 1 + len(own.boxes)
    assert ground.structured_content["entities"] == [entity.to_dict() for entity in own.entities]
    [box] = model.locate(path, "a truck").boxes
    x1, y1, x2, y2 = box.pixels
    assert f"a truck: [{x1:g}, {y1:g}, {x2:g}, {y2:g}] (score {box.score:.2f})" in text(found)
    assert text(described).startswith(model.describe(path, (0.5, 0.5, 1, 1), normalized=True).text)
    assert described.structured_content["box"]["normalized"] == pytest.approx([0.5, 0.5, 1, 1], abs=1 / 32)


def test_read(tmp_path):
    path = write_reader(tmp_path / "reader.gguf", [((1, 1, 9, 9), "a line")])
    reader = load(path, threads=1)
    [result] = calls(make_server(reader, [str(FOLDER)]), ("read", {"image": EXAMPLES[0].name}))
    own = reader.read(EXAMPLES[0])
    assert own.lines and text(result).split("\n")[0] == own.text
    assert result.structured_content["lines"] == [line.to_dict() for line in own.lines]


def test_only_images_under_the_roots(model, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    secret = tmp_path / "secret.png"
    secret.write_bytes(EXAMPLES[1].read_bytes())
    os.symlink(secret, folder / "link.png")
    os.symlink(EXAMPLES[0], folder / "other.png")
    (folder / "note.png").write_text("no image")
    wrong = [
        str(secret),
        "../secret.png",
        "link.png",
        "other.png",
        "/etc/hostname",
        "note.png",
        "none.png",
        "",
        "a\0b",
        "data:text/plain;base64,AAAA",
        "data:image/png;base64,@@",
        "http://127.0.0.1/a.png",
    ]
    results = calls(make_server(model, [str(folder)]), *(("caption", {"image": name}) for name in wrong))
    for name, result in zip(wrong, results, strict=True):
        assert result.is_error and "image" in result.content[0].text, (name, result.content)
    [none] = calls(make_server(model, []), ("caption", {"image": str(EXAMPLES[0])}))
    assert none.is_error and "--root" in none.content[0].text


def test_errors_are_for_the_model_to_read(model):
    asked = [
        ("ask", {"image": EXAMPLES[0].name, "question": " "}),
        ("describe_region", {"image": EXAMPLES[0].name, "box": [5, 5, 1, 1]}),
        ("describe_region", {"image": EXAMPLES[0].name, "box": [1, 2, 3]}),
        ("locate", {"image": EXAMPLES[0].name}),
    ]
    for (_, arguments), result in zip(asked, calls(make_server(model, [str(FOLDER)]), *asked), strict=True):
        assert result.is_error and re.search("question|box|phrase", result.content[0].text), arguments


COMMAND = ["-P", "-m", "kosmos_edge", "mcp", "-m", "nano", "-t", "1", "-q", "--root", str(FOLDER)]


def test_stdio(model):
    server = mcp.StdioServerParameters(command=sys.executable, args=COMMAND)
    [result] = calls(server, ("caption", {"image": str(EXAMPLES[0])}))
    assert text(result) == model.caption(EXAMPLES[0]).text


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_unknown_arguments_are_refused(model):
    [result] = calls(make_server(model, [FOLDER]), ("caption", {"image": EXAMPLES[0].name, "max_tokens": 3}))
    assert result.is_error and result.content[0].text == (
        "max_tokens: unknown argument of caption; known are image, length, ground"
    )


def test_unknown_tools_are_refused(model):
    [result] = calls(make_server(model, [FOLDER]), ("read", {"image": EXAMPLES[0].name}))
    assert result.is_error and result.content[0].text.startswith("Unknown tool: read; known are caption, ask, ground")


def test_http(model):
    words = [sys.executable, *COMMAND, "--http", "--port", "0"]
    words.remove("-q")
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        url = next(found.group(1) for line in process.stderr if (found := re.search(r"served at (http://\S+)", line)))
        [result] = calls(url, ("ask", {"image": EXAMPLES[2].name, "question": "What is this?"}))
        assert text(result) == model.ask(EXAMPLES[2], "What is this?").text
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=30)[0] == "" and process.returncode == 0
    finally:
        process.kill()
        process.communicate()


def test_a_start_that_is_refused():
    for options, says in ((["--root", "/no/such/folder"], "no folder"), (["--http", "--host", "0.0.0.0"], "API key")):
        words = [sys.executable, "-P", "-m", "kosmos_edge", "mcp", "-m", "nano", "-t", "1", *options]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        assert done.returncode == 2 and says in done.stderr and done.stdout == "", done.stderr
