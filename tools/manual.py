"""Writes docs/kosmos-edge.1, the manual page that a wheel installs, from the help of all commands.

python tools/manual.py          # in an environment with kosmos-edge: ./dev stubs
"""

from pathlib import Path

from kosmos_edge.cli import cli
from kosmos_edge.cli.manual import manual_page

PAGE = Path(__file__).resolve().parent.parent / "docs" / "kosmos-edge.1"

if __name__ == "__main__":
    PAGE.write_text(manual_page(cli), encoding="utf-8")
