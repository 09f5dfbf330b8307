"""Noun chunks, referring expressions, choice of boxes and records, on trees that were written by hand."""

import dataclasses

import pytest
from helpers.grit_trees import CATS, FIELD, tree

from kosmos_edge.apps.grit import (
    Chunk,
    Rules,
    Scored,
    Span,
    abstract_nouns,
    choose,
    expand,
    find_nouns,
    iou,
    make_record,
    outermost,
    tree_from_dict,
)
from kosmos_edge.apps.grit.boxes import check_scored
from kosmos_edge.apps.grit.expressions import read_nouns
from kosmos_edge.errors import InvalidRequest


def expressions(parsed):
    nouns = find_nouns(parsed, abstract_nouns())
    return [parsed.text[n.expression.start : n.expression.end] for n in nouns.kept]


def chunks(parsed):
    nouns = find_nouns(parsed, abstract_nouns())
    return [parsed.text[n.chunk.start : n.chunk.end] for n in nouns.kept]


def test_the_papers_example():
    """Section 2 of KOSMOS-2: the chunks, what they grow to, and the one expression that stays."""
    assert chunks(FIELD) == ["a dog", "a field", "flowers"]
    assert expressions(FIELD) == ["a dog in a field of flowers", "a field of flowers", "flowers"]
    nouns = find_nouns(FIELD, abstract_nouns()).kept
    assert outermost([noun.expression for noun in nouns]) == [True, False, False]
    dog, field = Scored((0.1, 0.2, 0.5, 0.9), 0.9), Scored((0.0, 0.4, 1.0, 1.0), 0.7)
    record = make_record({"key": "1", "caption": FIELD.text}, nouns, [[dog], [field], []], contained=False)
    assert record["noun_chunks"] == [[0, 5, 0.1, 0.2, 0.5, 0.9, 0.9], [9, 16, 0.0, 0.4, 1.0, 1.0, 0.7]]
    assert record["ref_exps"] == [[0, 27, 0.1, 0.2, 0.5, 0.9, 0.9]]  # with the box of "a dog"


def test_published_files_keep_what_is_contained():
    """GRIT's README shows [19, 66] beside [0, 66]."""
    hanger = tree(
        "a>2:det wire>2:compound hanger>2:ROOT with>2:prep:ADP a>6:det paper>6:compound cover>3:pobj "
        "that>8:nsubj:PRON reads>6:relcl:VERB we>10:nsubj:PRON heart>8:ccomp:VERB our>12:poss:PRON "
        "customers>10:dobj::customer",
        "0-3 4-7 7-8 9-10 11-13",
    )
    found = find_nouns(hanger, abstract_nouns())
    assert found.pronouns == 2 and [dataclasses.astuple(n.chunk) for n in found.kept] == [(0, 13), (19, 32), (53, 66)]
    assert [dataclasses.astuple(n.expression) for n in found.kept] == [(0, 66), (19, 66), (53, 66)]
    one, two = Scored((0.0, 0.0, 1.0, 1.0), 0.7), Scored((0.0, 0.3, 1.0, 1.0), 0.8)
    for contained, spans in ((True, [(0, 66), (19, 66)]), (False, [(0, 66)])):
        record = make_record({}, found.kept, [[one], [two], []], contained=contained)
        assert [tuple(row[:2]) for row in record["ref_exps"]] == spans


def test_a_chunk_whose_words_have_no_box_hides_no_other():
    """ "a dog" was not found: "a field of flowers" lies in no expression that is kept."""
    nouns = find_nouns(FIELD, abstract_nouns()).kept
    field = Scored((0.0, 0.4, 1.0, 1.0), 0.7)
    record = make_record({}, nouns, [[], [field], []], contained=False)
    assert [row[:2] for row in record["ref_exps"]] == [[9, 27]]
    assert make_record({}, nouns, [[], [], []], contained=False) is None


def test_coordinated_chunks_stay():
    assert expressions(CATS) == ["two cats", "a dog"]
    tail = tree(  # the second conjunct has words of its own behind it
        "cats>0:ROOT::cat and>0:cc:CCONJ dogs>0:conj::dog on>2:prep:ADP a>5:det sofa>3:pobj", "0-1 2-3 4-6"
    )
    assert expressions(tail) == ["cats", "dogs", "a sofa"]


def test_a_conjunct_inside_ends_the_expression():
    inner = tree(
        "a>1:det dog>1:ROOT in>1:prep:ADP flowers>2:pobj::flower and>3:cc:CCONJ trees>3:conj::tree", "0-2 3-4 5-6"
    )
    assert expressions(inner) == ["a dog in flowers", "flowers", "trees"]


def test_relative_clauses_belong_to_it_and_appositions_do_not():
    clause = tree("the>1:det man>1:ROOT who>3:nsubj:PRON runs>1:relcl:VERB", "0-2 2-3")
    assert expressions(clause) == ["the man who runs"]
    named = tree("Rex>0:ROOT:PROPN ,>0:punct:PUNCT a>3:det dog>0:appos", "0-1 2-4", "Rex, a dog")
    assert expressions(named) == ["Rex", "a dog"]


def test_punctuation_inside_does_not_break_an_expression():
    shirt = tree(
        "a>1:det man>1:ROOT with>1:prep:ADP a>6:det t>6:compound ->6:punct:PUNCT shirt>2:pobj .>1:punct:PUNCT",
        "0-2 3-7",
        "a man with a t-shirt.",
    )
    assert expressions(shirt) == ["a man with a t-shirt", "a t-shirt"]


def test_only_the_run_around_the_chunk_counts():
    """The relative clause stands behind the verb: "the man left who was tired"."""
    apart = tree(
        "the>1:det man>2:nsubj left>2:ROOT:VERB who>4:nsubj:PRON tired>1:relcl:ADJ", "0-2"
    )  # "left" is not below "man"
    assert expressions(apart) == ["the man"]


def test_a_preposition_that_ends_a_clause_stays():
    box = tree("the>1:det box>1:ROOT he>3:nsubj:PRON stands>1:relcl:VERB on>3:prep:ADP", "0-2 2-3")
    assert expressions(box) == ["the box he stands on"]


def test_words_before_a_chunk_belong_to_it_too():
    before = tree("only>2:advmod:ADV a>2:det dog>2:ROOT", "1-3")
    assert expand(before, Chunk(1, 3)) == Span(0, 10)


def test_what_is_no_thing_is_left_out():
    parsed = tree(
        "I>1:nsubj:PRON love>1:ROOT:VERB freedom>1:dobj at>1:prep:ADP the>5:det Times>3:pobj:NOUN:time "
        "with>1:prep:ADP 42>6:pobj:NUM and>7:cc:CCONJ dogs>7:conj::dog",
        "0-1 2-3 4-6 7-8 9-10",
    )
    found = find_nouns(parsed, abstract_nouns())
    assert (found.pronouns, found.abstract) == (2, 2)
    assert chunks(parsed) == ["dogs"]
    assert find_nouns(parsed, {"dog"}).abstract == 1


def test_markup_is_in_no_expression():
    """Tags in a caption: a trainer's tokenizer would take them for the tags of a grounded text."""
    tagged = tree(
        "a>1:det dog</phrase><object>>1:ROOT and>1:cc:CCONJ a>4:det cat>1:conj of>4:prep:ADP Rex>5:pobj:PROPN",
        "0-2 3-5 6-7",
    )
    found = find_nouns(tagged, abstract_nouns())
    assert found.markup == 1 and chunks(tagged) == ["a cat", "Rex"]
    behind = tree("a>1:det dog>1:ROOT with>1:prep:ADP <b>>4:punct:PUNCT spots>2:pobj::spot", "0-2 4-5")
    assert expressions(behind) == ["a dog", "spots"]


def test_the_list_of_abstract_nouns():
    assert {"time", "love", "freedom"} <= abstract_nouns()  # the paper's examples
    assert not abstract_nouns() & {"dog", "group", "man", "light", "shape", "background scene"}
    assert 150 <= len(abstract_nouns()) <= 300
    assert read_nouns("# x\nTime # the paper's\n\n") == {"time"}


def test_expand_is_bounded_by_any_tree():
    """A deep chain, and a caption of one word."""
    deep = tree(" ".join(["x>0:ROOT", *(f"w{i}>{i - 1}:dep" for i in range(1, 400))]), "0-1")
    assert expand(deep, Chunk(0, 1)) == Span(0, len(deep.text))
    assert expand(tree("dog>0:ROOT", "0-1"), Chunk(0, 1)) == Span(0, 3)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"head": 9}, "head"),
        ({"start": 2}, "is not at"),
        ({"lemma": 3}, "expected texts"),
        ({"head": True}, "integers"),
        ({"head": 1}, "circle"),
    ],
)
def test_trees_are_checked(change, says):
    record = tree("a>1:det dog>1:ROOT", "0-2").to_dict()
    record["tokens"][0] |= change
    record["tokens"][1]["head"] = 0 if says == "circle" else 1
    with pytest.raises(InvalidRequest, match=says):
        tree_from_dict(record)


@pytest.mark.parametrize("chunks", [[[0, 0]], [[1, 2], [0, 1]], [[0, 3]], [0], [["0", "1"]], "0-1"])
def test_chunks_are_checked(chunks):
    record = tree("a>1:det dog>1:ROOT", "0-2").to_dict() | {"chunks": chunks}
    with pytest.raises(InvalidRequest, match=r"chunk|expected"):
        tree_from_dict(record)


def test_trees_as_data_come_back():
    assert tree_from_dict(FIELD.to_dict()) == FIELD


# ---- boxes


def test_iou():
    assert iou((0, 0, 1, 1), (0, 0, 1, 1)) == 1
    assert iou((0, 0, 0.5, 1), (0.5, 0, 1, 1)) == 0
    assert iou((0, 0, 0.5, 1), (0.25, 0, 0.75, 1)) == pytest.approx(1 / 3)
    assert iou((0.2, 0.2, 0.2, 0.2), (0.2, 0.2, 0.2, 0.2)) == 0


def test_suppression_is_across_phrases_and_keeps_the_best():
    man, shirt, far = (0.0, 0.0, 0.5, 1.0), (0.0, 0.05, 0.5, 1.0), (0.6, 0.0, 1.0, 1.0)
    kept = choose([[Scored(man, 0.8)], [Scored(shirt, 0.9), Scored(far, 0.6)]], Rules())
    assert kept.boxes == [[], [Scored(shirt, 0.9), Scored(far, 0.6)]]
    assert kept.lost == {"degenerate": 0, "uncertain": 0, "suppressed": 1}
    assert choose([[Scored(man, 0.8)], [Scored(shirt, 0.9)]], Rules(overlap=0.96)).lost["suppressed"] == 0


def test_equal_scores_go_by_place_then_by_order():
    a, b = (0.0, 0.0, 0.5, 1.0), (0.0, 0.0, 0.52, 1.0)
    assert choose([[Scored(a, 0.9, 0.1)], [Scored(b, 0.9, 0.2)]], Rules()).boxes[0] == []
    assert choose([[Scored(a, 0.9, 0.2)], [Scored(b, 0.9, 0.2)]], Rules()).boxes[1] == []


def test_thresholds_are_kept_at():
    box = (0.0, 0.0, 0.5, 1.0)
    assert choose([[Scored(box, 0.5)]], Rules()).boxes == [[Scored(box, 0.5)]]
    assert choose([[Scored(box, 0.4999)]], Rules()).lost["uncertain"] == 1
    assert choose([[Scored(box, 0.9, 0.2)]], Rules(place=0.3)).lost["uncertain"] == 1


def test_boxes_without_an_area_and_beyond_the_border():
    found = [Scored((0.5, 0.1, 0.5, 0.9), 1.0), Scored((0.6, 0.1, 0.5, 0.9), 1.0), Scored((1.2, 0.0, 1.4, 1.0), 1.0)]
    kept = choose([[*found, Scored((-0.1, 0.0, 0.5, 1.2), 1.0)]], Rules())
    assert kept.lost["degenerate"] == 3 and kept.clipped == 1
    assert kept.boxes == [[Scored((0.0, 0.0, 0.5, 1.0), 1.0)]]


@pytest.mark.parametrize("name", ["threshold", "place", "overlap"])
@pytest.mark.parametrize("value", [-0.1, 1.1, True, "1", float("nan")])
def test_rules_are_checked(name, value):
    with pytest.raises(InvalidRequest, match=name):
        Rules(**{name: value})


@pytest.mark.parametrize(
    ("box", "score"),
    [
        ([0, 0, 1], 0.5),
        ([0, 0, 1, float("nan")], 0.5),
        ([0, 0, 1, "1"], 0.5),
        ([0, 0, 1, 1], 1.5),
        ([0, 0, 1, 1], None),
    ],
)
def test_boxes_of_others_are_checked(box, score):
    with pytest.raises(InvalidRequest, match="expected"):
        check_scored("here", box, score)
