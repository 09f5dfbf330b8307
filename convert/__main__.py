"""`python -m kosmos_edge.convert SOURCE -o OUT --type T`: the converter without the command line's other commands."""

import argparse
import sys

from kosmos_edge.errors import KosmosError

from . import DEFAULT, RECIPES, convert, describe


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; -> exit status: 0 done, 1 failed, 130 interrupted (argparse exits with 2 on wrong usage)."""
    parser = argparse.ArgumentParser(prog="python -m kosmos_edge.convert", description=__doc__)
    parser.add_argument("source", help="folder or file of the checkpoint")
    parser.add_argument("-o", "--output", required=True, help="GGUF file to write, or a folder for it")
    parser.add_argument("--type", default=DEFAULT, help=f"one of {', '.join(RECIPES)} (default {DEFAULT})")
    parser.add_argument("--tokenizer", help="tokenizer.json or sentencepiece model that is not beside the weights")
    parser.add_argument("--overwrite", action="store_true", help="replace the output if it exists")
    options = parser.parse_args(arguments)
    shown = -1

    def progress(done: int, total: int, name: str) -> None:
        nonlocal shown
        percent = done * 100 // total
        if percent != shown and sys.stderr.isatty():
            shown = percent
            print(f"\r{percent:3d} % {name:40s}", end="\n" if done == total else "", file=sys.stderr, flush=True)

    try:
        report = convert(
            options.source,
            options.output,
            type=options.type,
            overwrite=options.overwrite,
            tokenizer=options.tokenizer,
            progress=progress,
        )
    except KosmosError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    for line in describe(report):
        print(line, file=sys.stderr)
    print(report.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
