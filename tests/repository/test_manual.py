"""docs/kosmos-edge.1, which a wheel installs, is what kosmos-edge man prints."""

from pathlib import Path

import pytest

from kosmos_edge.cli import cli
from kosmos_edge.cli.manual import manual_page

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "kosmos-edge.1"
if not PAGE.exists():
    pytest.skip("the documentation is not beside the tests", allow_module_level=True)


def test_the_page_is_of_this_program() -> None:
    text = manual_page(cli).split("\n", 1)
    found = PAGE.read_text(encoding="utf-8").split("\n", 1)
    assert found[0].startswith('.TH "KOSMOS') and found[1] == text[1], "run ./dev stubs (python tools/manual.py)"


def test_a_wheel_installs_it() -> None:
    assert 'install(FILES docs/kosmos-edge.1 DESTINATION "${SKBUILD_DATA_DIR}/share/man/man1")' in (
        ROOT / "CMakeLists.txt"
    ).read_text(encoding="utf-8")
