"""The parts of `eval` that work on files and need no model: sheets for people and their grades, references, tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from kosmos_edge.cli.common import message_options, option, take_messages
from kosmos_edge.cli.eval_outputs import table_format_option


@click.command()
@click.argument("answers", nargs=-1, required=True, metavar="ANSWERS...")
@option("--data", required=True, metavar="DIR", help="Folder with the images (of OwlEval: cases/, questions.jsonl).")
@option("-o", "--output", required=True, metavar="FILE", help="The page; its key goes to FILE.key.json.")
@option(
    "--seed",
    type=click.IntRange(0, 2**64 - 1),
    default=0,
    show_default=True,
    help="Random seed of the order of the answers.",
)
@option("--title", default="Answers to grade", show_default=True, metavar="TEXT", help="Heading of the page.")
@option("--grades", metavar="FILE", help="Go on with the grades of FILE, of the same answers and seed.")
@option("--overwrite", is_flag=True, help="Replace existing files.")
@message_options
def sheet(answers: tuple[str, ...], data: str, output: str, **rest: Any) -> int:
    """Make an HTML page on which people grade models' answers A to D, side by side and blinded.

    ANSWERS are files of `eval owleval --out`, one of each model. Keep the key away from the graders.

    \b
    kosmos-edge eval sheet q4.jsonl q8.jsonl --data OwlEval -o sheet.html
    """
    from kosmos_edge.evaluation.answers import join
    from kosmos_edge.evaluation.grades import read_grades
    from kosmos_edge.evaluation.sheet import make_key, make_page
    from kosmos_edge.targets import find_target, refuse_inputs, write_whole

    messages = take_messages(rest)
    targets = [find_target(name, overwrite=rest["overwrite"]) for name in (output, f"{output}.key.json")]
    refuse_inputs("--output", targets, [*answers, *([rest["grades"]] if rest["grades"] else [])])
    questions, found = join([Path(name) for name in answers], Path(data))
    key = make_key(questions, found, rest["seed"])
    done = None if rest["grades"] is None else read_grades(Path(rest["grades"]), key)
    page = make_page(questions, found, key, Path(data), rest["title"], done)
    written = page.encode(), json.dumps(key, ensure_ascii=False, indent=1).encode() + b"\n"
    for target, content in zip(targets, written, strict=True):
        write_whole(target, content, overwrite=rest["overwrite"])
    messages.say(f"{output}: {len(questions)} questions, {len(found)} models; the key is {output}.key.json")
    return 0


@click.command()
@click.argument("key", metavar="KEY")
@click.argument("files", nargs=-1, required=True, metavar="GRADES...")
@option("--seed", type=click.IntRange(0, 2**64 - 1), default=0, show_default=True, help="Random seed of the intervals.")
@table_format_option
@message_options
def grades(key: str, files: tuple[str, ...], seed: int, form: str, **rest: Any) -> int:
    """Count the grades of a sheet: shares, means, abilities, models compared, agreement of the graders.

    KEY is what `eval sheet` wrote beside the page, GRADES are the files of the graders.

    \b
    kosmos-edge eval grades sheet.html.key.json grades-*.json
    """
    from kosmos_edge.cli.output import to_json
    from kosmos_edge.evaluation.grades import figures, markdown, read_grades, read_key

    take_messages(rest)
    known = read_key(Path(key))
    made = figures(known, [read_grades(Path(name), known) for name in files], seed)
    click.echo(to_json(made, 2) if form == "json" else markdown(made))
    return 0


@click.command("convert-refs")
@click.argument("source", metavar="REFS.p")
@click.argument("output", metavar="OUT.json")
@option("--instances", metavar="FILE", help="The boxes. Default: instances.json beside REFS.p.")
@option("--overwrite", is_flag=True, help="Replace an existing file.")
@message_options
def convert_refs(source: str, output: str, instances: str | None, overwrite: bool, **rest: Any) -> int:
    """Convert refs(...).p of RefCOCO, RefCOCO+ or RefCOCOg and its instances.json to one small JSON file.

    `eval refcoco` reads it as refcoco.json in the folder of --data, `eval refcoco+` as refcoco+.json, and so on.
    Nothing in the pickle is run.
    """
    from kosmos_edge.evaluation.tasks.refs import convert
    from kosmos_edge.targets import find_target, refuse_inputs, write_whole

    messages = take_messages(rest)
    boxes = str(Path(source).with_name("instances.json")) if instances is None else instances
    target = find_target(output, overwrite=overwrite)
    refuse_inputs("OUT.json", [target], [source, boxes])
    records = convert(Path(source), Path(boxes))
    write_whole(target, json.dumps(records, ensure_ascii=False).encode() + b"\n", overwrite=overwrite)
    messages.say(f"{output}: {len(records)} objects, {sum(len(one['expressions']) for one in records)} expressions")
    return 0


def print_tables(results: tuple[str, ...], into: str | None) -> int:
    """The papers' tables with the results, on stdout or between a file's marks."""
    from kosmos_edge.evaluation.paper_tables import fill, make_tables, read_results
    from kosmos_edge.targets import find_target, write_whole

    found = read_results([Path(name) for name in results])
    tables = make_tables(found)
    if into is None:
        click.echo(tables)
        return 0
    filled = fill(Path(into), tables)
    write_whole(find_target(into, overwrite=True), filled.encode(), overwrite=True)
    return 0
