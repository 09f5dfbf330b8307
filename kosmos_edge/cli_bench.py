"""kosmos-edge bench: measuring commands. Without a command of its own it is the benchmark of speed."""

from __future__ import annotations

import click

from kosmos_edge.cli_quality import quality


@click.group(invoke_without_command=True)
@click.pass_context
def bench(ctx: click.Context) -> None:
    """Measure speed; `bench quality` measures what a storage type costs."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


bench.add_command(quality)
