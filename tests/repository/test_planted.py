"""The list of planted defects (tests/planted) keeps up with the sources; running it is a matter of an hour."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "planted"))

from defects import DEFECTS, Defect  # noqa: E402

pytestmark = pytest.mark.skipif(not (ROOT / "csrc").is_dir(), reason="the sources are not here")


def test_there_are_enough() -> None:
    assert len(DEFECTS) >= 30 and len({d.name for d in DEFECTS}) == len(DEFECTS)


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda d: d.name)
def test_it_can_be_planted(defect: Defect) -> None:
    assert (ROOT / defect.file).read_text(encoding="utf-8").count(defect.old) == 1
    assert defect.new != defect.old
    for test in defect.tests.split():
        assert len(list((ROOT / "tests").glob(f"*/{test}"))) == 1, test
