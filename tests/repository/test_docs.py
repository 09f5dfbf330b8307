"""The documentation names files that exist, its links lead somewhere, and its index is complete."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
if not (ROOT / "docs").is_dir():
    pytest.skip("the documentation is not beside the tests", allow_module_level=True)

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")] + sorted(
    (ROOT / "docs").rglob("*.md")
)
FOLDERS = (".ci", ".devcontainer", ".github", "bench", "cmake", "convert", "csrc", "docs", "examples", "include",
           "kosmos_edge", "tests", "tools")  # fmt: skip
SOURCES = (".h", ".cpp", ".inl", ".cu", ".cuh", ".cmake", ".py")
BUILT = ("kosmos_edge/lib", "kosmos_edge/include")  # not in the repository


def code_of(text: str) -> list[str]:
    """The words of a page's code spans."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    return [word for span in re.findall(r"`([^`\n]+(?:\n[^`\n]+)*)`", text) for word in span.split()]


def paths_in(text: str) -> set[str]:
    """The paths of the repository in code spans, and the bare names of source files. X, <> and * stand for any name."""
    found = set()
    for word in code_of(text):
        path = re.sub(r"::.*|[:;,]$", "", word).rstrip("/")
        path = re.sub(r"<[^>]*>|(?<![A-Za-z0-9])X(?![A-Za-z0-9])", "*", path)
        inside = path.split("/")[0] in FOLDERS and "/" in path and not path.startswith(BUILT)
        bare = path.endswith(SOURCES) and path not in SOURCES and not path.startswith(("/", "-"))
        if re.fullmatch(r"[\w./*-]+", path) and (inside or bare):
            found.add(path)
    return found


def exists(path: str) -> bool:
    """A whole path, or the end of one."""
    if path.split("/")[0] in FOLDERS:
        return any(ROOT.glob(path))
    return any(next((ROOT / folder).rglob(path), None) for folder in FOLDERS)


def anchors_in(text: str) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ +(.+?) *$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def missing_links(page: Path, text: str) -> set[str]:
    """Relative links to a file or a heading that is not there."""
    missing = set()
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if re.match(r"https?:|mailto:", link):
            continue
        if not target.exists() or (anchor and anchor not in anchors_in(target.read_text(encoding="utf-8"))):
            missing.add(link)
    return missing


def test_paths_are_found_and_missed():
    text = "`csrc/base/error.h`, `csrc/base/errors.h`, `csrc/cpu/isa_X.h`, `csrc/cpu/isb_X.h`, `pytest tests/no.py::a`"
    paths = paths_in(
        text + ", `cpu/kernels.h`, `vec_*.h`, `sampled.cpp`, `photo.jpg`, `a/b`\n```\n`csrc/fenced.h`\n```\n"
    )
    assert {path for path in paths if exists(path)} == {
        "csrc/base/error.h", "csrc/cpu/isa_*.h", "cpu/kernels.h", "vec_*.h",
    }  # fmt: skip
    assert {path for path in paths if not exists(path)} == {
        "csrc/base/errors.h", "csrc/cpu/isb_*.h", "tests/no.py", "sampled.cpp",
    }  # fmt: skip
    assert missing_links(ROOT / "docs" / "README.md", "[a](nano.md#figures) [c](no.md) [d](https://e.f)") == {"no.md"}
    assert missing_links(ROOT / "docs" / "README.md", "[a](nano.md#no-such-heading)") == {"nano.md#no-such-heading"}
    assert len(set().union(*(paths_in(page.read_text(encoding="utf-8")) for page in PAGES))) > 150


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_paths_exist(page):
    missing = sorted(path for path in paths_in(page.read_text(encoding="utf-8")) if not exists(path))
    assert not missing, f"{page.relative_to(ROOT)} names files that are not there"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    assert not missing_links(page, page.read_text(encoding="utf-8"))


def test_the_readme_is_a_front_page():
    """What does not fit belongs into docs/."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_the_index_has_every_page():
    docs = ROOT / "docs"
    linked = set(re.findall(r"\]\(((?:tasks/)?[a-z-]+\.md)\)", (docs / "README.md").read_text(encoding="utf-8")))
    assert linked == {page.relative_to(docs).as_posix() for page in docs.rglob("*.md")} - {"README.md"}


def test_tests_that_the_documentation_names_are_there() -> None:
    """As PATH::NAME."""
    named = {w.rstrip(",.;") for page in PAGES for w in code_of(page.read_text(encoding="utf-8")) if "::test_" in w}
    assert len(named) > 20
    gone = []
    for word in sorted(named):
        path, name = word.split("::")
        file = ROOT / path
        if not file.exists() or f"def {name}(" not in file.read_text(encoding="utf-8"):
            gone.append(word)
    assert not gone
