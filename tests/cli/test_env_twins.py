"""Every option's twin in the environment means what the option means; a default for one task does not break another."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.core import ParameterSource
from helpers.api_model import grounded_file, png, tiny_file
from test_cli import Runner

from kosmos_edge import cli
from kosmos_edge.cli.common import Corners, Parts
from kosmos_edge.cli.shots import BoxShot
from kosmos_edge.cli.twins import TwinOption
from kosmos_edge.evaluation.registry import TASKS

WITHOUT = {"--version", "--list-devices"}  # actions, no settings
ORDERED = {"--image", "--text", "--box"}  # of generate: their order is the prompt


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("KOSMOS_EDGE_")]:
        monkeypatch.delenv(name)


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command with the words that call it."""
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        yield f"{path} {name}".strip(), command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}".strip())


COMMANDS = dict(commands(cli.cli))
TWINS = {name: [o for o in command.params if isinstance(o, TwinOption)] for name, command in COMMANDS.items()}
of_each_command = pytest.mark.parametrize("name", [name for name, options in TWINS.items() if options])


def seen_first(command: str, option: TwinOption) -> bool:
    """Whether no command before has an option of that type and those names: one is tried with all values, others with
    the first and the last of them."""
    for name, options in TWINS.items():
        for other in options:
            if (other.opts, other.secondary_opts, other.multiple, other.envvar) == (
                option.opts, option.secondary_opts, option.multiple, option.envvar,
            ) and repr(other.type) == repr(option.type):  # fmt: skip
                return name == command
    raise AssertionError(f"{command} has no {option.opts}")


def long_names(option: click.Option) -> list[str]:
    return [name for name in option.opts if name.startswith("--")]


def variable_of(name: str, prefix: str = "KOSMOS_EDGE_") -> str:
    return prefix + name[2:].replace("-", "_").upper()


def parse(
    command: click.Command, option: click.Option | None, words: list[str]
) -> tuple[object, ParameterSource | None]:
    """The value and its source; what else the command must have is made up."""
    words = list(words)  # click takes it apart
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            words = [*words, "something"]
        elif parameter.required and parameter is not option:
            words = [*words, long_names(parameter)[0], {"box": "1,2,3,4"}.get(str(parameter.name), "something")]
    with command.make_context("x", words, resilient_parsing=False) as context:
        if option is None:
            return None, None
        return context.params[str(option.name)], context.get_parameter_source(str(option.name))


def values(option: click.Option) -> list[str]:
    """Some that the option takes, as they are typed."""
    kind = option.type
    if option.count:
        return ["1", "2", "yes", "false"]
    if isinstance(kind, click.Choice):
        return list(kind.choices)
    if isinstance(kind, Corners):
        return ["1,2,30,40", "0.1, 0.2,0.5,0.6"]
    if isinstance(kind, BoxShot):
        return ["a b.png::1,2,30,40::two words: yes"]
    if isinstance(kind, Parts):
        parts = ["a b.png", "Who is it?", "a red circle"][: kind.count - 1]
        return ["::".join([*parts, "two words: yes"])]
    if isinstance(kind, click.types.IntParamType):
        return ["7", " 3 "]
    if isinstance(kind, click.types.FloatParamType):
        return ["0.5", "1e-3"]
    texts = ["plain", "two words", " blanks around ", "/a/b:/c/d", "C:\\a;b", "Ж 日本", "a,b", "0", "'q'", "--x"]
    return texts if option.multiple else [*texts, "two\nlines"]


@of_each_command
def test_a_twin_gives_the_same_value(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for option in TWINS[name]:
        check_the_same_value(COMMANDS[name], option, seen_first(name, option), monkeypatch)


def check_the_same_value(
    command: click.Command, option: TwinOption, everything: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {("convert", "output"): "CONVERT_", **{(task, name): "EVAL_" for task in TASKS for name in ("form", "shots")}}
    own[("grades", "form")] = "EVAL_"
    own |= {(name, "output"): "GRIT_" for name in ("build", "parse")}
    own |= {(task, "shot"): f"{task.upper()}_" for task in ("describe", "classify", "reason")}
    own[("agent", "html")] = "AGENT_"
    own |= {("pica", name): "PICA_" for name in ("questions", "annotations", "images", "output", "limit", "results")}
    if command.callback.__module__ == "kosmos_edge.cli.index":
        own[("build", "output")] = "INDEX_"
    own |= {("classify", name): "CLASSIFY_" for name in ("prompt", "question")}
    prefix = "KOSMOS_EDGE_" + own.get((str(command.name), str(option.name)), "")
    assert option.envvar == variable_of(long_names(option)[0], prefix), option.opts
    tried: list[tuple[list[str], dict[str, str]]] = []  # words of the command line, variables
    if option.is_flag:
        for name, word, opposite in [(n, n, "0") for n in long_names(option)] + [
            (n, n, "0") for n in option.secondary_opts
        ]:
            tried += [([word], {variable_of(name): yes}) for yes in ("1", "true", "YES", "on", "t", "y")]
            other = option.secondary_opts if name in option.opts else long_names(option)
            for no in (opposite, "false", "No", "off", "f", "n"):
                if option.secondary_opts:
                    tried.append(([other[0]], {variable_of(name): no}))
    elif option.count:
        for name in long_names(option):
            tried += [([name], {variable_of(name): yes}) for yes in ("1", "true", "YES", "on")]
            tried.append(([name, name], {variable_of(name): "2"}))
    else:
        for name in long_names(option):
            tried += [([f"{name}={value}"], {variable_of(name, prefix): value}) for value in values(option)]
        if option.multiple:
            some = values(option)
            words = [f"{long_names(option)[0]}={value}" for value in some]
            for joined in ("\n".join(some), "\n".join(some) + "\n", "\n\n".join(some)):
                tried.append((words, {str(option.envvar): joined}))
    assert tried, option.opts
    for words, variables in tried if everything else (tried[0], tried[-1]):
        typed, source = parse(command, option, words)
        assert source is ParameterSource.COMMANDLINE, words
        with monkeypatch.context() as patch:
            for variable, value in variables.items():
                patch.setenv(variable, value)
            assert parse(command, option, []) == (typed, ParameterSource.ENVIRONMENT), (words, variables)
            again, source = parse(command, option, words)  # the command line goes before
            assert (again, source) == (typed, ParameterSource.COMMANDLINE), words


@of_each_command
def test_an_empty_twin_is_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for option in TWINS[name]:
        with monkeypatch.context() as patch:
            check_empty_is_none(COMMANDS[name], option, patch)


def check_empty_is_none(command: click.Command, option: TwinOption, patch: pytest.MonkeyPatch) -> None:
    for variable, _ in option.twins():
        patch.setenv(variable, "")
    if option.required:
        with pytest.raises(click.MissingParameter):
            parse(command, option, [])
        return
    empty = parse(command, option, [])
    for variable, _ in option.twins():
        patch.delenv(variable)
    assert parse(command, option, []) == empty and empty[1] is ParameterSource.DEFAULT, option.opts
    if option.multiple:
        patch.setenv(str(option.envvar), "\n\n")
        assert parse(command, option, []) == empty, option.opts


@of_each_command
def test_what_is_wrong_is_named_by_its_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for option in TWINS[name]:
        check_wrong_is_named(COMMANDS[name], option, monkeypatch)


def check_wrong_is_named(command: click.Command, option: TwinOption, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, _ in option.twins():
        if variable != option.envvar and not option.is_flag:
            continue
        with monkeypatch.context() as patch:
            patch.setenv(variable if option.name != "output" else str(option.envvar), "%wrong%")
            if isinstance(option.type, click.types.StringParamType):
                parse(command, option, [])
                return
            with pytest.raises(click.BadParameter) as error:
                parse(command, option, [])
            assert variable in error.value.format_message() and "%wrong%" in error.value.format_message()


def test_every_option_has_a_twin() -> None:
    without = {
        (name, long_names(option)[0])
        for name, command in COMMANDS.items()
        for option in command.params
        if isinstance(option, click.Option) and not isinstance(option, TwinOption)
    }
    assert without == {("generate", name) for name in ORDERED}
    assert {long_names(o)[0] for o in cli.cli.params if isinstance(o, click.Option)} == WITHOUT


def test_a_name_means_one_kind_of_thing() -> None:
    """Options that share a twin take the same values, or know of the others'."""
    by_variable: dict[str, list[TwinOption]] = {}
    for command in COMMANDS.values():
        for option in command.params:
            if isinstance(option, TwinOption):
                by_variable.setdefault(str(option.envvar), []).append(option)
    for variable, options in by_variable.items():
        assert len({(o.multiple, o.is_flag, o.nargs) for o in options}) == 1, variable
        for option in options:
            for other in options:
                for value in [] if option.is_flag else values(other):
                    takes = [
                        option._takes(click.Context(click.Command("x")), t, value)
                        for t in (option.type, option.elsewhere)
                        if t
                    ]
                    assert any(takes), (variable, value)


def test_twins_that_contradict_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOSMOS_EDGE_BOXES", "1")
    monkeypatch.setenv("KOSMOS_EDGE_NO_BOXES", "0")
    command = COMMANDS["caption"]
    boxes = next(p for p in command.params if p.name == "boxes")
    assert isinstance(boxes, TwinOption) and parse(command, boxes, [])[0] is True
    monkeypatch.setenv("KOSMOS_EDGE_NO_BOXES", "1")
    with pytest.raises(click.UsageError, match="KOSMOS_EDGE_BOXES and KOSMOS_EDGE_NO_BOXES in the environment"):
        parse(command, boxes, [])
    assert parse(command, boxes, ["--no-boxes"])[0] is False


# ---- defaults of other tasks


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Runner:
    return Runner(capsys)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "a photo.png"
    path.write_bytes(png())
    return path


NEEDED = {
    "caption": [],
    "ground": [],
    "locate": ["--phrase", "a dog"],
    "describe": ["--box", "1,1,40,40"],
    "ask": ["--question", "Who is it?"],
    "score": ["--text", "a dog"],
}
DEFAULTS = {
    "MAX_TOKENS": "9", "TEMPERATURE": "0.5", "TOP_K": "5", "TOP_P": "0.9", "SEED": "12345678901", "LENGTH_PENALTY": "2",
    "NO_REPEAT_NGRAM_SIZE": "2", "STOP": "a stop\nanother", "LOGPROBS": "1", "GRAMMAR": "1", "LENGTH": "short",
    "BOXES": "1", "PROMPT": "There is", "PHRASE": "a cat", "BOX": "1,1,9,9", "NORMALIZED": "0", "QUESTION": "What?",
    "CHOICE": "a red circle\nno", "TEXT": "a red circle", "TEMPLATE": "It is {text}", "NORMALIZE": "mean",
    "LEAD_IN": "0", "SHOT": "a.png::Who?::a dog", "FORMAT": "jsonl", "TOKENS": "5", "TYPE": "q8_0", "RAW": "1",
}  # fmt: skip


@pytest.mark.parametrize("task", NEEDED)
def test_defaults_for_other_tasks_are_set_aside(
    run: Runner, photo: Path, task: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One by one and all at once; those that the task uses count, the others change nothing."""
    plain = run("batch", photo, "--task", task, *NEEDED[task])
    assert plain.code == 0, plain.err
    for name, value in [*DEFAULTS.items(), ("DRAW", str(tmp_path / "x.png"))]:
        with monkeypatch.context() as patch:
            patch.setenv(f"KOSMOS_EDGE_{name}", value)
            done = run("batch", photo, "--task", task, *NEEDED[task], "-v")
            assert done.code == 0, (name, done.err)
            aside = f"ignored KOSMOS_EDGE_{name} from the environment" in done.err
            records = [json.loads(text) for text in (plain.out, done.out)]
            for record in records:
                del record["timings"]
            assert records[0] == records[1] or not aside, name
        (tmp_path / "x.png").unlink(missing_ok=True)
    for name, value in DEFAULTS.items():
        monkeypatch.setenv(f"KOSMOS_EDGE_{name}", value)
    done = run("batch", photo, "--task", task, *NEEDED[task])
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    "name", ["MAX_TOKENS", "TEMPERATURE", "SEED", "LOGPROBS", "PHRASE", "PROMPT", "LENGTH", "DRAW"]
)
def test_on_the_command_line_they_stay_errors(run: Runner, photo: Path, name: str) -> None:
    option = "--" + name.lower().replace("_", "-")
    words = [option] if name == "LOGPROBS" else [option, DEFAULTS.get(name, "x.png")]
    done = run("batch", photo, "--task", "score", "--text", "a dog", *words)
    assert done.code == 2 and f"{option}: not an option of the task score" in done.err


COMMAND_WORDS = {
    "caption": ["{}"],
    "ground": ["{}"],
    "locate": ["{}", "a dog"],
    "describe": ["{}", "--box", "1,1,40,40"],
    "ask": ["{}", "Who is it?"],
    "score": ["{}", "a dog", "a cat"],
    "generate": ["--image", "{}", "--text", "It is"],
}


@pytest.mark.parametrize("name", COMMAND_WORDS)
def test_all_defaults_at_once_stop_no_command(
    run: Runner, photo: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in DEFAULTS.items():
        monkeypatch.setenv(f"KOSMOS_EDGE_{variable}", value.replace("a.png", str(photo)))
    done = run(name, *(word.format(photo) for word in COMMAND_WORDS[name]))
    assert done.code == 0, done.err
    record = json.loads(done.out)
    if name in ("ask", "generate"):
        assert record["text"] in ("a red circle", "no")
    elif name == "score":
        assert [row["text"] for row in record["ranking"]].count("a dog") == 1
    else:
        assert len(record["token_ids"]) <= 9 and record["logprobs"]


def test_formats_and_seeds_of_batches_do_not_stop_reports(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOSMOS_EDGE_FORMAT", "csv")
    monkeypatch.setenv("KOSMOS_EDGE_SEED", str(2**63))
    assert run("models", "list", model=False).out.startswith("nano\t")
    assert run("doctor", model=False).out.startswith("software:")
    for command in ("bench", "bench quality"):
        for option in COMMANDS[command].params:
            if option.name in ("form", "seed"):
                assert parse(COMMANDS[command], option, [])[0] in ("text", 0)  # type: ignore[arg-type]
    monkeypatch.setenv("KOSMOS_EDGE_FORMAT", "json")
    assert json.loads(run("models", "list", model=False).out)[0]["tag"] == "nano"
    monkeypatch.setenv("KOSMOS_EDGE_FORMAT", "xml")
    done = run("models", "list", model=False)
    assert done.code == 2 and "KOSMOS_EDGE_FORMAT" in done.err


def test_the_results_file_is_no_place_for_a_model(run: Runner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KOSMOS_EDGE_OUTPUT", str(tmp_path / "results.jsonl"))
    done = run("convert", tmp_path / "none", model=False)
    assert done.code == 2 and "--output" in done.err and not list(tmp_path.iterdir())
    monkeypatch.setenv("KOSMOS_EDGE_CONVERT_OUTPUT", str(tmp_path / "x.gguf"))
    assert run("convert", tmp_path / "none", model=False).code == 1


def test_a_type_for_conversions_does_not_contradict_a_tag(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOSMOS_EDGE_TYPE", "f16")
    monkeypatch.setenv("KOSMOS_EDGE_OFFLINE", "1")
    assert "names the type" not in run("models", "pull", "kosmos-2:q8_0", model=False).err
    done = run("models", "pull", "kosmos-2:q8_0", "--type", "f16", model=False)
    assert done.code == 2 and "names the type" in done.err


def test_shots_of_both_commands_stand_side_by_side(run: Runner, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOSMOS_EDGE_SHOT", f"{photo}::a cat on a mat\n{photo}::Who?::a dog")
    words = ["-n", 3, "-f", "json", "--no-boxes"]
    for command, shot in ((["caption", photo], "a cat on a mat"), (["ask", photo, "Who?"], "Who?::a dog")):
        found = json.loads(run(*command, *words).out)
        monkeypatch.delenv("KOSMOS_EDGE_SHOT")
        typed = json.loads(run(*command, "--shot", f"{photo}::{shot}", *words).out)
        assert found["timings"]["prompt_tokens"] == typed["timings"]["prompt_tokens"]
        monkeypatch.setenv("KOSMOS_EDGE_SHOT", f"{photo}::a cat on a mat\n{photo}::Who?::a dog")
    monkeypatch.setenv("KOSMOS_EDGE_SHOT", "only one part")
    done = run("caption", photo)
    assert done.code == 2 and "KOSMOS_EDGE_SHOT" in done.err


@pytest.mark.parametrize(
    ("variables", "words", "same"),
    [
        ({"NUM_BEAMS": "2"}, ["--temperature", "0.7"], ["--temperature", "0.7"]),
        ({"TEMPERATURE": "0.7"}, ["--num-beams", "2"], ["--num-beams", "2"]),
        ({"STOP": "a b"}, ["--num-beams", "2"], ["--num-beams", "2"]),
        ({"NUM_BEAMS": "2"}, ["--stop", "a b"], ["--stop", "a b"]),
        ({"TOP_K": "3", "TOP_P": "0.5"}, [], []),
        ({"TOP_K": "3"}, ["--temperature", "2"], ["--temperature", "2", "--top-k", "3"]),
        ({"LENGTH_PENALTY": "2"}, [], []),
        ({"LENGTH_PENALTY": "2"}, ["--num-beams", "2"], ["--num-beams", "2", "--length-penalty", "2"]),
        ({"TEMPERATURE": "0.7", "TOP_K": "3"}, ["--temperature", "0"], []),
    ],
)
def test_the_command_line_goes_before_what_contradicts_it(
    run: Runner,
    photo: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    words: list[str],
    same: list[str],
) -> None:
    expected = json.loads(run("caption", photo, "-n", 5, "-f", "json", *same).out)["token_ids"]
    for name, value in variables.items():
        monkeypatch.setenv(f"KOSMOS_EDGE_{name}", value)
    done = run("caption", photo, "-n", 5, "-f", "json", *words)
    assert done.code == 0, done.err
    assert json.loads(done.out)["token_ids"] == expected


def test_what_the_environment_says_twice_is_an_error(run: Runner, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOSMOS_EDGE_NUM_BEAMS", "2")
    monkeypatch.setenv("KOSMOS_EDGE_TEMPERATURE", "0.7")
    done = run("caption", photo)
    assert done.code == 2 and "num_beams" in done.err


def test_boxes_and_choices(run: Runner, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They contradict each other; a default of one gives way to the other."""
    ask = ["ask", photo, "Who?"]
    batch = ["batch", photo, "--task", "ask", "--question", "Who?"]
    for command in (ask, batch):
        assert run(*command, "--boxes", "--choice", "a dog").code == 2
        with monkeypatch.context() as patch:
            patch.setenv("KOSMOS_EDGE_BOXES", "1")
            assert "a dog" in run(*command, "--choice", "a dog").out
            patch.setenv("KOSMOS_EDGE_CHOICE", "a dog")
            assert "a dog" in run(*command).out
            patch.delenv("KOSMOS_EDGE_BOXES")
            done = run(*command, "--boxes", "-n", 3, "-f", "json", "-v")
            assert done.code == 0 and "ignored KOSMOS_EDGE_CHOICE from the environment" in done.err
            patch.setenv("KOSMOS_EDGE_MAX_TOKENS", "1")  # too few for a choice, which is its own end
            assert "a dog" in run(*command).out
            done = run(*command, "--boxes", "-f", "jsonl")  # where the choice has no use, this one has
            assert done.code == 0 and len(json.loads(done.out)["token_ids"]) == 1


def test_grammar_and_choices(run: Runner, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They contradict each other, too."""
    ask = ["ask", photo, "Who?"]
    batch = ["batch", photo, "--task", "ask", "--question", "Who?"]
    generate = ["generate", "--image", photo, "--text", "Who?"]
    for command in (ask, batch, generate):
        assert run(*command, "--grammar", "--choice", "a dog").code != 0
        with monkeypatch.context() as patch:
            patch.setenv("KOSMOS_EDGE_CHOICE", "a dog")
            done = run(*command, "--grammar", "-n", 3, "-v")
            assert done.code == 0 and "ignored KOSMOS_EDGE_CHOICE from the environment" in done.err
            patch.setenv("KOSMOS_EDGE_GRAMMAR", "1")
            assert "a dog" in run(*command).out


# ---- boxes, units and tags on the command line


def test_generate_takes_boxes_as_describe_does(run: Runner, photo: Path) -> None:
    """The picture is 100 x 80."""
    words = ["generate", "--image", photo, "--raw", "--text", "<grounding><phrase> It</phrase>", "--text", "is"]
    words = [*words[:-2], "--box", "10,10,50,60", *words[-2:], "-n", 6, "-f", "json"]
    fractions = ["0.1,0.125,0.5,0.75" if word == "10,10,50,60" else word for word in words]
    pixels, same = run(*words), run(*fractions, "--normalized")
    assert json.loads(pixels.out)["token_ids"] == json.loads(same.out)["token_ids"]
    described = run("describe", photo, "--box", "10,10,50,60", "-n", 6, "-f", "json", "--no-boxes")
    assert described.code == 0
    asked = run(*fractions)
    assert asked.code == 2 and "--normalized" in asked.err and "pixels" in asked.err and asked.out == ""
    first = run("generate", "--box", "10,10,50,60", "--image", photo)
    assert first.code == 2 and "no picture before" in first.err


def test_generate_reads_stdin_once(run: Runner) -> None:
    twice = run("generate", "--image", "-", "--image", "-", "--text", "An image of")
    assert twice.code == 2 and "only once" in twice.err


@pytest.mark.parametrize("words", [["describe", "{}"], ["batch", "{}", "--task", "describe"]])
def test_fractions_without_their_flag_are_asked_about(run: Runner, photo: Path, words: list[str]) -> None:
    for box in ("0.1,0.1,0.5,1", "0,0,1,1"):
        done = run(*(word.format(photo) for word in words), "--box", box)
        assert done.code == 2 and "--normalized" in done.err and "pixels" in done.err and done.out == ""
    assert run(*(word.format(photo) for word in words), "--box", "0.1,0.1,0.5,1", "--normalized", "-n", 2).code == 0


def test_a_tag_in_a_plain_text_is_told_once(run: Runner, photo: Path) -> None:
    model = ["-m", grounded_file(), "-n", 3]
    for words in (
        ["generate", "--image", photo, "--text", "<grounding>An image of"],
        ["ground", photo, photo, photo, "--prompt", "<grounding>An image of"],
        ["ask", photo, "Is <phrase> a tag?"],
        ["caption", photo, photo, "--stop", "</object>"],
        ["batch", photo, photo, "--task", "score", "--text", "a <phrase>", "-m", tiny_file()],
    ):
        done = run(*words, *(model if "score" not in words else []), model=False)
        assert done.code == 0 and done.err.count("'<") == 1, done.err
        told = "read as plain characters" in done.err or "never comes" in done.err
        assert told and len([line for line in done.err.splitlines() if "'<" in line]) == 1
        quiet = run(*words, *(model if "score" not in words else []), "-q", model=False)
        assert quiet.err == ""
    raw = run("generate", "--image", photo, "--text", "<grounding>An image of", "--raw", *model, model=False)
    assert raw.code == 0 and "'<" not in raw.err
