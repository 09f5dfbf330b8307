"""`python -m kosmos_edge.convert SOURCE -o OUT --type T`: the converter without the command line's other commands."""

import argparse
import sys

from kosmos_edge.cli.streams import Ended, ended_by_signals, plain_error, standard_streams, stdout_is_closed
from kosmos_edge.errors import KosmosError

from . import DEFAULT, RECIPES, convert, describe


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; -> exit status: 0 done, 1 failed, 128 + n ended by signal n, 130 by Ctrl-C.

    argparse exits with 2 on wrong usage.
    """
    with standard_streams(), ended_by_signals():
        try:
            status = _run(arguments)
            sys.stdout.flush()
            return status
        except (KosmosError, OSError) as error:
            print(f"error: {plain_error(error)}", file=sys.stderr)
            return 1
        except Ended as error:
            print(f"ended by {error}", file=sys.stderr)
            return 128 + error.number
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130


def _run(arguments: list[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="python -m kosmos_edge.convert", description=__doc__)
    parser.add_argument("source", help="folder or file of the checkpoint")
    parser.add_argument("-o", "--output", required=True, help="GGUF file to write, or a folder for it")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--type", help=f"one of {', '.join(RECIPES)} (default {DEFAULT})")
    kind.add_argument("--size", help="instead: a type for each tensor, so that the file has at most 900MB, or 1.2GB")
    parser.add_argument("--tokenizer", help="tokenizer.json or sentencepiece model that is not beside the weights")
    parser.add_argument("--base", help="folder of LLaMA's checkpoint that SOURCE is the difference from")
    parser.add_argument("--overwrite", action="store_true", help="replace the output if it exists")
    options = parser.parse_args(arguments)
    shown = -1

    def progress(done: int, total: int, name: str) -> None:
        nonlocal shown
        percent = done * 100 // total
        if percent != shown and sys.stderr.isatty():
            shown = percent
            print(f"\r{percent:3d} % {name:40s}", end="\n" if done == total else "", file=sys.stderr, flush=True)

    report = convert(
        options.source,
        options.output,
        type=options.type,
        size=options.size,
        overwrite=options.overwrite,
        tokenizer=options.tokenizer,
        base=options.base,
        progress=progress,
    )
    for line in describe(report):
        print(line, file=sys.stderr)
    if not stdout_is_closed():  # the file is what was asked for
        print(report.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
