"""python -m kosmos_edge: the command line."""

import sys

from kosmos_edge.cli import main


def start() -> None:
    """Runs the command line and exits; reports a missing or unfit native part in one line."""
    try:
        main()
    except ImportError as error:
        if error.name != "kosmos_edge._core":
            raise
        sys.exit(f"kosmos-edge: error: {error}")


if __name__ == "__main__":
    start()
