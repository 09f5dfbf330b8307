"""Captions parsed by spaCy itself. Needs the extra grit and an English pipeline (.ci/grit installs both)."""

import json

import pytest

from kosmos_edge import cli
from kosmos_edge.apps.grit import GivenTrees, SpacyParser, abstract_nouns, find_nouns
from kosmos_edge.errors import InvalidRequest

pytest.importorskip("spacy", reason="spaCy is not installed")


@pytest.fixture(scope="module")
def parser():
    try:
        return SpacyParser()
    except InvalidRequest as error:
        pytest.skip(str(error))


def test_the_papers_example(parser):
    parsed = parser.parse("a dog in a field of flowers")
    nouns = find_nouns(parsed, abstract_nouns()).kept
    assert [parsed.text[n.chunk.start : n.chunk.end] for n in nouns] == ["a dog", "a field", "flowers"]
    assert [parsed.text[n.expression.start : n.expression.end] for n in nouns] == [
        "a dog in a field of flowers",
        "a field of flowers",
        "flowers",
    ]
    assert parser.facts["name"] == "spaCy" and parser.facts["pipeline"].startswith("en_core_web")


def test_coordination_and_abstract_nouns(parser):
    parsed = parser.parse("Two cats and a dog on the sofa enjoy their freedom")
    found = find_nouns(parsed, abstract_nouns())
    texts = [parsed.text[n.expression.start : n.expression.end] for n in found.kept]
    assert texts == ["Two cats", "a dog", "the sofa"] and found.abstract == 1


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "...",
        "<phrase> a dog</phrase><object><patch_index_0001>",
        "一只狗在花田里",
        "🐶🐕‍🦺 in a 🌸",
        "a" * 3000,
        "e\u0301 " * 50,
    ],
)
def test_odd_captions_give_trees(parser, caption):
    parsed = parser.parse(caption)
    for noun in find_nouns(parsed, abstract_nouns()).kept:
        assert 0 <= noun.expression.start <= noun.chunk.start < noun.chunk.end <= noun.expression.end <= len(caption)


def test_parse_writes_trees_that_build_reads(parser, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for number, caption in enumerate(["a dog in a field of flowers", "a dog in a field of flowers", ""]):
        (tmp_path / "in" / f"{number}.png").write_bytes(b"not read")
        (tmp_path / "in" / f"{number}.txt").write_text(caption)
    target = tmp_path / "trees.jsonl"
    assert cli.run(["grit", "parse", str(tmp_path / "in"), "-o", str(target)]) == 0
    assert "1 captions, 0 failed" in capsys.readouterr().err
    assert len(target.read_text().splitlines()) == 1 and json.loads(target.read_text())["chunks"]
    assert GivenTrees(target).parse("a dog in a field of flowers") == parser.parse("a dog in a field of flowers")
    assert cli.run(["grit", "parse", str(tmp_path / "in"), "-o", str(target)]) == 2  # it exists


def test_pipelines_that_are_none(parser, tmp_path):
    with pytest.raises(InvalidRequest, match="no pipeline of spaCy"):
        SpacyParser("no_such_pipeline")
    with pytest.raises(InvalidRequest, match="no pipeline of spaCy"):
        SpacyParser(str(tmp_path))
    import spacy

    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(InvalidRequest, match="has no lemmatizer and no parser"):
        SpacyParser(str(tmp_path / "blank"))
