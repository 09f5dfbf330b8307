"""The list of planted defects fits the sources: tests/planted/run.py applies them and takes minutes."""

import importlib.util
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "planted"


def defects():
    spec = importlib.util.spec_from_file_location("planted_defects", FOLDER / "defects.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.DEFECTS


@pytest.mark.parametrize("defect", defects(), ids=lambda d: d.name)
def test_a_defect_can_still_be_planted(defect, repo_root):
    text = (repo_root / defect.file).read_text(encoding="utf-8")
    assert text.count(defect.old) == 1 and defect.old != defect.new, defect.file
    for name in defect.tests.split():
        assert (repo_root / "tests" / name).is_file(), name


def test_there_are_at_least_thirty():
    assert len({d.name for d in defects()}) == len(defects()) >= 30
