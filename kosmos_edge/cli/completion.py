"""kosmos-edge completion: the script by which a shell completes commands and options. kosmos-edge man: the page."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

VARIABLE = "_KOSMOS_EDGE_COMPLETE"  # by which the script asks for completions


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print a script that makes SHELL complete commands, options and their values.

    \b
    bash: kosmos-edge completion bash > ~/.local/share/bash-completion/completions/kosmos-edge
    zsh:  kosmos-edge completion zsh > ~/.zfunc/_kosmos-edge     # with fpath+=~/.zfunc before compinit
    fish: kosmos-edge completion fish > ~/.config/fish/completions/kosmos-edge.fish
    """
    from kosmos_edge.cli import cli

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(cli, {}, "kosmos-edge", VARIABLE).source())
    return 0


@click.command()
def man() -> int:
    """Print the manual page, in the form that man reads.

    \b
    kosmos-edge man | man -l -
    kosmos-edge man > ~/.local/share/man/man1/kosmos-edge.1
    """
    from kosmos_edge.cli import cli
    from kosmos_edge.cli.manual import manual_page

    click.echo(manual_page(cli), nl=False)
    return 0
