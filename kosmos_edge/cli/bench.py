"""kosmos-edge bench: measures speed; `bench quality` measures accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from kosmos_edge._native import _core
from kosmos_edge.cli.common import kv_type_option, message_options, option, report_format_option, take_messages
from kosmos_edge.cli.quality import quality
from kosmos_edge.cli.streams import check_stdout
from kosmos_edge.errors import InvalidRequest

limits = _core.limits
RATE = click.FloatRange(min=0, min_open=True)
PREDICT_ONLY = ("bandwidth", "int8", "float32", "for_isa", "prompt_tokens")


@click.group(invoke_without_command=True)
@option("-m", "--model", metavar="TAG|FILE", help="Model: a tag, a GGUF file, or user/repo:TAG.")
@option("--device", default="auto", show_default=True, help="Device: auto, cpu, cuda, cuda:1, ...")
@option(
    "-t",
    "--threads",
    type=click.IntRange(1, limits.MAX_THREADS),
    metavar="N",
    help="Threads. Default: all that this process may use.",
)
@kv_type_option
@option("--rounds", type=click.IntRange(1, 1000), default=5, show_default=True, help="Measurements of each phase.")
@option("--tokens", type=click.IntRange(2, 1024), default=32, show_default=True, help="Length of an answer.")
@option(
    "--phases",
    metavar="P,P,...",
    help="Phases: encode, prefill, decode, caption, folder, drafts, load, roof, hash. Default: all.",
)
@option("--batches", default="1,4,8,16", show_default=True, metavar="B,B,...", help="Batch sizes of the folder phase.")
@option("--image", metavar="FILE", help="Use this image instead of synthetic ones.")
@option("--predict", is_flag=True, help="Measure no phase: print what the cost model expects of the rates below.")
@option("--bandwidth", type=RATE, metavar="GB/S", help="With --predict: what a machine reads. Default: measured here.")
@option("--int8", type=RATE, metavar="GMAC/S", help="With --predict: its int8 peak. Default: measured here.")
@option("--float32", type=RATE, metavar="GMAC/S", help="With --predict: its float32 peak. Default: measured here.")
@option("--for-isa", metavar="NAME", help="With --predict: its instruction set. Default: the one of this machine.")
@option("--prompt-tokens", type=click.IntRange(2), metavar="N", help="With --predict: of the prompt, image included.")
@option("--offline", is_flag=True, help="Do not use the network.")
@report_format_option
@message_options
@click.pass_context
def bench(ctx: click.Context, /, **values: Any) -> int:
    """Measure speed; `bench quality` measures what a storage type costs in accuracy.

    Runs each phase in rounds, with a new image each time: encode, prefill, decode, a photo's caption, folders of photos
    in batches, loading. Counts the passes of a folder with drafts. Also measures memory, and the roof: the most that
    this machine can read and multiply with the same threads and instruction set. A cost model's expectation of that
    roof stands beside what was measured; with --predict it stands alone, for this or another machine's rates. If two
    builds or machines with the same instruction set print the same hash of the logits, they compute the same.
    """
    if ctx.invoked_subcommand is not None:
        return 0
    from kosmos_edge import hub
    from kosmos_edge.bench import speed
    from kosmos_edge.cli.output import to_json
    from kosmos_edge.loading import find_model

    messages = take_messages(values)
    check_stdout()
    spec = values["model"]
    if spec is None:
        spec, why = hub.default_model()
        messages.detail(f"model {spec}: {why}")
    path = find_model(str(spec), offline=values["offline"])
    threads = values["threads"] or _core.default_threads()
    if values["predict"]:
        click.echo(_predict(str(path), threads, values))
        return 0
    given = [name for name in PREDICT_ONLY if values[name] is not None]
    if given:
        raise InvalidRequest(f"--{given[0].replace('_', '-')} goes with --predict")
    phases = values["phases"].split(",") if values["phases"] else speed.PHASES
    report = speed.run(
        str(path),
        threads,
        device=values["device"],
        kv_type=values["kv_type"],
        rounds=values["rounds"],
        tokens=values["tokens"],
        image=values["image"],
        phases=phases,
        batches=parse_batches(values["batches"]),
        log=messages.detail,
    )
    click.echo(to_json(report, 2) if values["form"] == "json" else speed.table(report))
    return 0


def _predict(path: str, threads: int, values: Mapping[str, Any]) -> str:
    """What the cost model expects; rates that are not given are measured."""
    from kosmos_edge.bench import predict, speed
    from kosmos_edge.cli.output import to_json

    isa = values["for_isa"] or _core.isa()
    predict.kernels_of(isa)  # before anything is measured
    names = {"bandwidth": "read_bytes_per_s", "int8": "int8_macs_per_s", "float32": "float32_macs_per_s"}
    roof = {name: 1e9 * values[key] for key, name in names.items() if values[key] is not None}
    if len(roof) < len(names):
        roof = speed.measure_roof(isa, threads, values["rounds"]) | roof
    work = predict.Work.of(path, values["prompt_tokens"], values["tokens"], values["kv_type"])
    found = predict.predict(work, predict.Machine.of(roof, isa))
    if values["form"] == "json":
        return to_json({"isa": isa, "roof": roof, "prompt": work.prompt, "tokens": work.tokens, "predicted": found}, 2)
    rates = ", ".join(f"{roof[name] / 1e9:.1f}" for name in names.values())
    head = f"{isa}: reads GB/s, int8 and float32 GMAC/s: {rates}; a prompt of {work.prompt}, {work.tokens} tokens"
    return f"{head}\n{predict.table(found)}"


def parse_batches(text: str) -> list[int]:
    """Sizes from "1,4,8". Raises InvalidRequest."""
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or not all(1 <= size <= limits.MAX_BATCH for size in sizes):
        raise InvalidRequest(f"batches: expected sizes from 1 to {limits.MAX_BATCH}, separated by commas, got {text!r}")
    return sizes


bench.add_command(quality)
