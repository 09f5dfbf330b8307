"""Conversations: the transcript in the model's own form, images per turn, reuse, and what a failed turn leaves."""

from pathlib import Path

import pytest
from helpers.api_model import grounded_model, picture
from helpers.tiny import write_tiny
from models.description import described
from models.llava import EOS

import kosmos_edge
from kosmos_edge import _core, cli
from kosmos_edge.errors import Cancelled, ContextTooLong, InvalidRequest
from kosmos_edge.results import Done, TextDelta

SHORT = {"max_tokens": 5}


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llava") / "tiny.gguf"
    write_tiny(path, tiny=described()["llava"].tiny)
    return path


@pytest.fixture(scope="module", params=["KOSMOS-2", "LLaVA"])
def model(request: pytest.FixtureRequest, llava: Path) -> kosmos_edge.Model:
    return grounded_model() if request.param == "KOSMOS-2" else kosmos_edge.load(llava, threads=1)


def transcript(model: kosmos_edge.Model, turns: list[tuple], question: str, image: object) -> list[tuple]:
    """The segments of the whole prompt, by the model's question format."""
    prompts = model.model_info["prompts"]
    is_chat = "system" in prompts
    out: list[tuple] = [("text", prompts["system"])] if prompts.get("system") else []
    for shown, asked, answer in [*turns, (image, question, None)]:
        form = prompts["question"]
        if shown is None:
            words = form.replace("{image}\n", "")
            words = words if is_chat else " " + words
        elif "{image}" in form:
            before, form = form.split("{image}")
            out += [("text", before), ("image", shown.embedding)]
            words = form
        else:
            out.append(("image", shown.embedding))
            words = form
        words = words.replace("{question}", asked)
        out.append(("text", words if answer is None else f"{words} {answer}"))
        if answer is not None and is_chat:
            out.append(("ids", [EOS]))
    return out


def test_the_prompt_is_the_transcript(model: kosmos_edge.Model) -> None:
    chat, engine = model.chat(picture()), model._open.engine
    params = _core.GenerateParams()
    params.max_tokens = 5
    params.no_repeat_ngram_size = model.model_info["no_repeat_ngram_size"]
    params.grammar = model.model_info["grounding"] is not None
    for number, question in enumerate(["Is it a dog?", "What colour?", "Why?"]):
        further = model.encode(picture(7, 60, 50)) if number == 2 else None
        turns = [(turn.image, turn.question, turn.answer) for turn in chat.turns]
        image = chat._next if further is None else further
        result = chat.ask(question, image=further, **SHORT)
        segments = transcript(model, turns, question, image)
        expected = engine.generate(segments, params)
        assert result.timings.prompt_tokens == len(engine.prompt_ids(segments))
        assert result.token_ids == expected.token_ids
        assert (result.width, result.height) == ((60, 50) if number == 2 else (100, 80))
    assert [turn.image is not None for turn in chat.turns] == [True, False, True]


def test_what_was_computed_is_reused(model: kosmos_edge.Model) -> None:
    chat = model.chat(picture())
    first = chat.ask("Is it a dog?", **SHORT)
    second = chat.ask("What colour?", **SHORT)
    assert second.timings.reused_tokens >= first.timings.prompt_tokens - 1
    turns = [(turn.image, turn.question, turn.answer) for turn in chat.turns[:1]]
    fresh = model.encode(picture())
    again = model.answer_turn([(fresh, *turns[0][1:])], None, "What colour?", False, None, False, dict(SHORT))
    assert again.token_ids == second.token_ids and again.timings.reused_tokens < second.timings.reused_tokens


def test_a_turn_is_kept_when_it_is_whole(model: kosmos_edge.Model) -> None:
    chat = model.chat(picture())
    stream = chat.ask("Is it?", stream=True, **SHORT)
    next(stream)
    stream.close()
    assert chat.turns == ()
    with pytest.raises(Cancelled):
        token = _core.CancelToken()
        token.cancel()
        chat.ask("Is it?", cancel=token, **SHORT)
    with pytest.raises(InvalidRequest, match="question"):
        chat.ask("  ")
    assert chat.turns == ()
    events = list(chat.ask("Is it?", stream=True, **SHORT))
    assert isinstance(events[-1], Done) and len(chat.turns) == 1
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == chat.turns[0].answer
    assert events[-1].result.width == 100  # the image waited for the first whole turn


def test_undo_gives_the_image_to_the_next_question(model: kosmos_edge.Model) -> None:
    chat = model.chat(picture())
    first = chat.ask("Is it?", **SHORT)
    assert chat.undo().question == "Is it?" and chat.turns == ()
    assert chat.ask("Is it?", **SHORT).token_ids == first.token_ids
    with pytest.raises(IndexError):
        model.chat().undo()


def test_a_conversation_may_have_no_image(model: kosmos_edge.Model) -> None:
    chat = model.chat()
    first = chat.ask("Is it a dog?", **SHORT)
    second = chat.ask("Why?", **SHORT)
    assert first.width is None and second.timings.reused_tokens >= first.timings.prompt_tokens - 1


def test_an_empty_answer_is_a_turn(model: kosmos_edge.Model) -> None:
    encoded = model.encode(picture())
    assert model.answer_turn([(encoded, "Is it?", "")], None, "Why?", False, None, False, dict(SHORT)).token_ids


def test_a_conversation_that_no_longer_fits_says_so(model: kosmos_edge.Model) -> None:
    encoded = model.encode(picture())
    turns = [(encoded, "Is it a dog?", "it is " * 200)]
    with pytest.raises(ContextTooLong):
        model.answer_turn(turns * 3, None, "Why?", False, None, False, {})


def test_only_ask_takes_turns(model: kosmos_edge.Model) -> None:
    turns = [("Is it?", "a dog", True)]
    with pytest.raises(InvalidRequest, match="caption takes no conversation"):
        _core.plan_verb(model.model_info, "caption", None, [], False, False, False, False, None, turns)
    limit = _core.limits.MAX_TURNS
    with pytest.raises(InvalidRequest, match=f"turns: expected at most {limit}"):
        _core.plan_verb(model.model_info, "ask", "q", [], False, False, False, False, None, turns * (limit + 1))


# ---- the command


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    from PIL import Image

    path = tmp_path / "photo.png"
    Image.fromarray(picture()).save(path)
    return path


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = cli.run(["chat", *map(str, words), "-t", "1", "--max-tokens", "4"])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_questions_as_options(llava: Path, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, photo, "-m", llava, "--ask", "Is it?", "--ask", "Why?")
    with kosmos_edge.load(llava, threads=1) as model:
        chat = model.chat(photo)
        expected = [chat.ask(question, max_tokens=4).text for question in ("Is it?", "Why?")]
    assert code == 0 and out == "".join(text + "\n" for text in expected)


def test_lines_and_commands(
    llava: Path, photo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    lines = ["Is it?", "", "/undo", "Is it?", "/image", f"/image {photo}", "Why?", "/nonsense", "/help", "/reset",
             "/undo", "Is it?", "/quit", "never"]  # fmt: skip
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))
    code, out, err = run(capsys, photo, "-m", llava)
    answers = out.splitlines()
    assert code == 0 and len(answers) == 4 and answers[0] == answers[1] == answers[3]
    for said in ("/image needs the path", "/nonsense is not a command", "/undo   ", "there is no question to forget"):
        assert said in err
    monkeypatch.setattr("sys.stdin", io.StringIO("Is it?\n/image nowhere.png\nWhy?\n"))
    code, out, err = run(capsys, photo, "-m", llava)
    assert code == 1 and len(out.splitlines()) == 2 and "nowhere.png" in err


def test_a_chat_that_cannot_be_is_refused_before_its_first_question(
    photo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    code, out, err = run(capsys, photo, "-m", "nano-read")
    assert (code, out) == (2, "") and "ask: this model has no prompt for it" in err
    code, out, err = run(capsys, "-")
    assert (code, out) == (2, "") and "an image from stdin needs --ask" in err


def test_a_question_that_fails_leaves_the_image_to_the_next(
    llava: Path, photo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    with kosmos_edge.load(llava, threads=1) as model:
        shown, blind = (model.chat(image).ask("Is it?", max_tokens=4).text for image in (photo, None))
    assert shown != blind
    lines = [f"/image {photo}", "Is it? " * 5000, "Is it?"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))
    code, out, err = run(capsys, "-m", llava)
    assert (code, out) == (1, shown + "\n") and "the model has 1024" in err
