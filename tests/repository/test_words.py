"""One word for one thing: an image is called an image by the help of every command and by the documentation."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from kosmos_edge import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("docs/tasks/*.md")])
# Names of files, options and folders stay, and so do the words of published prompts.
ANOTHER_WORD = re.compile(r"(?<![-\w/#.~(])picture(?:s?)(?![-\w_/]|\.\w)", re.IGNORECASE)
PROMPTS = ("Introduce this picture in detail", "in the picture? Answer:")


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for one in command.list_commands(context):
            found = command.get_command(context, one)
            assert found is not None
            yield from commands(found, f"{name} {one}")


def prose(text: str) -> str:
    for prompt in PROMPTS:
        text = text.replace(prompt, "")
    return text


def test_help_speaks_of_images() -> None:
    said = {name: command.get_help(click.Context(command)) for name, command in commands(cli.cli, "kosmos-edge")}
    assert len(said) > 60
    flat = {name: prose(" ".join(text.split())) for name, text in said.items()}
    assert not {name: ANOTHER_WORD.findall(text) for name, text in flat.items() if ANOTHER_WORD.search(text)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_documentation_speaks_of_images(page: Path) -> None:
    text = re.sub(r"^```.*?^```|^    .*?$|`[^`]*`|\]\([^)]*\)", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert not [line for line in prose(text).splitlines() if ANOTHER_WORD.search(line)]
