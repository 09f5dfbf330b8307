"""The plugin for llm, driven by llm's own command line and Python interface."""

import asyncio
import json
import tomllib
from pathlib import Path

import pytest

llm = pytest.importorskip("llm", reason="llm is not installed")
from click.testing import CliRunner  # noqa: E402
from llm.cli import cli  # noqa: E402

import kosmos_edge  # noqa: E402
from kosmos_edge.integrations import llm as plugin  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
SCENES = [str(ROOT / "examples" / f"scene-0000{number}.png") for number in (0, 1)]


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    monkeypatch.setenv("LLM_RAISE_ERRORS", "1")
    if not any(found is plugin for found in llm.plugins.pm.get_plugins()):
        llm.plugins.pm.register(plugin)


@pytest.fixture(scope="module")
def model() -> kosmos_edge.Model:
    return kosmos_edge.load("nano", threads=1)


def command(*words: str) -> str:
    done = CliRunner().invoke(cli, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_llm_finds_it_by_its_entry_point() -> None:
    if not (ROOT / "pyproject.toml").exists():
        pytest.skip("the sources are not beside the tests")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["llm"] == {"kosmos_edge": plugin.__name__}


def test_the_command_line(model: kosmos_edge.Model) -> None:
    listed = command("models", "--options")
    assert "kosmos-edge/nano" in listed and "no_repeat_ngram_size" in listed and "image/png" in listed
    caption = command("-m", "kosmos-edge/nano", "-a", SCENES[0])
    assert caption == model.caption(SCENES[0]).text + "\n"
    words = ("-m", "kosmos-edge/nano", "-a", SCENES[1], "-o", "max_tokens", "3", "What is this?")
    assert command(*words) == model.ask(SCENES[1], "What is this?", max_tokens=3).text + "\n"
    (last,) = json.loads(command("logs", "--json", "-n", "1"))
    assert last["model"] == "kosmos-edge/nano" and last["output_tokens"] == 3 and last["input_tokens"] > 64


def test_a_conversation(model: kosmos_edge.Model) -> None:
    talk = llm.get_model("kosmos-edge/nano").conversation()
    chat = model.chat(SCENES[0])
    shown = [llm.Attachment(path=SCENES[0])]
    asked = talk.prompt("What is this?", attachments=shown, system="Be short.")
    assert asked.text() == chat.ask("Be short.\nWhat is this?").text
    assert talk.prompt("What colour is it?").text() == chat.ask("What colour is it?").text


def test_lines_of_boxes_are_no_part_of_the_conversation(model: kosmos_edge.Model) -> None:
    talk = llm.get_model("kosmos-edge/nano").conversation()
    said = talk.prompt("", attachments=[llm.Attachment(path=SCENES[1])], ground=True).text()
    own = model.caption(SCENES[1], ground=True)
    assert own.boxes and said.startswith(own.text + "\n") and said.count("\n") == len(own.boxes)
    following = talk.prompt("What colour is it?")
    turn = (model.encode(SCENES[1]), "An image of", own.text)
    direct = model.answer_turn([turn], None, "What colour is it?", False, None, False, {})
    assert following.text() == direct.text
    assert following.usage().input == direct.timings.prompt_tokens


def test_streams_boxes_and_the_whole_record(model: kosmos_edge.Model) -> None:
    own = model.caption(SCENES[1], "long", ground=True)
    attachment = llm.Attachment(content=Path(SCENES[1]).read_bytes())
    response = llm.get_model("kosmos-edge/nano").prompt("", attachments=[attachment], ground=True, length="long")
    parts = list(response)
    assert len(parts) > 5 and "".join(parts[: -len(own.boxes)]) == own.text
    entity, box = own.entities[0], own.boxes[0]
    corners = " ".join(str(round(value)) for value in box.pixels or ())
    assert parts[-len(own.boxes)] == f"\n{entity.phrase}\t{corners}\t{entity.sureness:.3f}"
    assert response.response_json["entities"] == [entity.to_dict() for entity in own.entities]
    assert response.usage().output == own.timings.tokens


def test_asyncio(model: kosmos_edge.Model) -> None:
    async def ask() -> str:
        response = llm.get_async_model("kosmos-edge/nano").prompt(
            "What is this?", attachments=[llm.Attachment(path=SCENES[0])], temperature=1.5, seed=3
        )
        return "".join([part async for part in response])

    assert asyncio.run(ask()) == model.ask(SCENES[0], "What is this?", temperature=1.5, seed=3).text


def test_models_that_read_get_pages() -> None:
    page = ROOT / "examples" / "pages" / "opening.png"
    reader = kosmos_edge.load("nano-read", threads=1)
    response = llm.get_model("kosmos-edge/nano-read").prompt("", attachments=[llm.Attachment(path=str(page))])
    assert response.text() == reader.read(page).text


def test_what_is_refused() -> None:
    model = llm.get_model("kosmos-edge/nano")
    shown = [llm.Attachment(path=SCENES[0])]
    with pytest.raises(kosmos_edge.InvalidRequest, match="expected a question, or an image"):
        model.prompt("").text()
    with pytest.raises(kosmos_edge.InvalidRequest, match="expected one image for each question"):
        model.prompt("What?", attachments=shown * 2).text()
    with pytest.raises(kosmos_edge.InvalidRequest, match="length: goes with a caption"):
        model.prompt("What?", attachments=shown, length="long").text()
    with pytest.raises(kosmos_edge.KosmosIOError, match="No such file"):
        model.prompt("What?", attachments=[llm.Attachment(type="image/png", path="/nowhere.png")]).text()
