"""Metrics against fixed figures of the reference programs, against those programs where they are installed, and against
their definitions."""

import random
from pathlib import Path

import pytest

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.evaluation.metrics import answers, auc, bleu, boxes, chair, cider_d, pope, ptb, rouge_l, vqa

# (references, caption): figures of pycocoevalcap 1.2 with Stanford's tokenizer
CAPTIONS = [
    (["A man riding a wave on top of a surfboard.", "A surfer rides a large wave."], "a man surfing on a large wave"),
    (
        ["Two dogs are playing in the grass.", "A couple of dogs run on a lawn!", "Two brown dogs, running."],
        "two dogs running in the grass",
    ),
    (
        ["The woman's red hat isn't on the table; it's on a chair.", "A red hat (old) lies on a chair."],
        "A red hat on a chair.",
    ),
    (
        ["a plate of food with 3.5 oz. of meat - and rice", "food on a white plate"],
        "a plate of food with meat & rice",
    ),
]
CIDER = [2.0379862725636952, 2.1343686086594427, 1.9086617007021616, 2.6431200439867695]
BLEU = [0.8922596705832458, 0.748832789713604, 0.5839061569948893, 0.3999177956864991]
ROUGE = [0.62404092, 0.78205128, 0.71764706, 0.71644295]


def cut(pairs: list[tuple[list[str], str]]) -> tuple[list[list[str]], list[list[list[str]]]]:
    return [ptb.words(said) for _, said in pairs], [[ptb.words(text) for text in true] for true, _ in pairs]


# ---- captions


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CAPTIONS[2][0][0], "the woman 's red hat is n't on the table it 's on a chair"),
        (CAPTIONS[2][0][1], "a red hat -lrb- old -rrb- lies on a chair"),
        (CAPTIONS[3][0][0], "a plate of food with 3.5 oz of meat and rice"),
        ("I cannot; gonna go", "i can not gon na go"),
        ("the dogs' bowl, the U.S. flag, e.g. mr. X", "the dogs bowl the u.s. flag e.g. mr. x"),
        ("3,000 at 10:30, 1/2 of a/b, A&B", "3,000 at 10:30 1/2 of a/b a&b"),
        ("$5, 50% and ½", "$ 5 50 % and 1/2"),
        ("a well-known site http://foo.com/bar?x=1 #tag", "a well-known site http://foo.com/bar?x=1 #tag"),
        ("& _ * # @", "& _ * # @"),
        ("“Quoted” ‘text’ — café, o'clock", "quoted text café o'clock"),
        ('STOP!! "no. 5"... at 10:30am', "stop !! no. 5 at 10:30 am"),
        ("", ""),
    ],
)
def test_words_are_those_of_the_treebank(text: str, expected: str) -> None:
    assert ptb.words(text) == expected.split()


def test_captions_have_the_figures_of_the_reference() -> None:
    said, true = cut(CAPTIONS)
    assert cider_d.scores(said, true) == pytest.approx(CIDER, abs=1e-9)
    parts = [bleu.part(s, t) for s, t in zip(said, true, strict=True)]
    assert [bleu.score(parts, n) for n in (1, 2, 3, 4)] == pytest.approx(BLEU, abs=1e-9)
    assert [rouge_l.score(s, t) for s, t in zip(said, true, strict=True)] == pytest.approx(ROUGE, abs=1e-8)


def test_captions_at_the_edges() -> None:
    one = cider_d.scores([["a", "dog"]], [[["a", "dog"]]])
    assert one == [0]  # of one picture, no word is rare
    said, true = [[], ["dog"]], [[["a", "dog"]], [["a", "cat"], []]]
    assert cider_d.scores(said, true) == [0, 0]
    assert rouge_l.score([], [["a"]]) == 0 and rouge_l.score(["a"], [[]]) == 0
    assert bleu.score([bleu.part([], [["a"]])], 1) == 0
    assert bleu.part(["x", "y", "z"], [["x", "y"], ["x"] * 4])[-1] == 2  # the shorter of two as near
    with pytest.raises(ValueError, match="one caption for each picture"):
        cider_d.scores([["a"]], [])


def test_captions_agree_with_the_reference_program() -> None:
    pytest.importorskip("pycocoevalcap", reason="pycocoevalcap is not installed")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    source = random.Random(5)

    vocabulary = "a the dog cat red on of mat big , two hats 's runs"

    def text() -> list[str]:
        return source.choices(vocabulary.split(), k=source.randint(1, 12))

    for size in (2, 7, 40):
        said = [text() for _ in range(size)]
        true = [[text() for _ in range(source.randint(1, 5))] for _ in range(size)]
        gts = {i: [" ".join(words) for words in group] for i, group in enumerate(true)}
        res = {i: [" ".join(words)] for i, words in enumerate(said)}
        assert cider_d.scores(said, true) == pytest.approx(list(Cider().compute_score(gts, res)[1]), abs=1e-6)
        parts = [bleu.part(s, t) for s, t in zip(said, true, strict=True)]
        theirs = Bleu(4).compute_score(gts, res, verbose=0)[0]
        assert [bleu.score(parts, n) for n in (1, 2, 3, 4)] == pytest.approx(theirs, abs=1e-6)
        ours = [rouge_l.score(s, t) for s, t in zip(said, true, strict=True)]
        assert ours == pytest.approx(list(Rouge().compute_score(gts, res)[1]), abs=1e-6)


# ---- short answers


def test_vqa_accuracy_counts_the_others() -> None:
    for same, expected in ((0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)):
        people = ["red"] * same + [f"other{i}" for i in range(10 - same)]
        assert vqa.accuracy("red", people) == pytest.approx(expected)
    assert vqa.accuracy("The Red.", ["red"] * 10) == 0  # all agree: compared as they are
    assert vqa.accuracy("The Red.", ["red"] * 9 + ["blue"]) == 1
    assert vqa.accuracy(" red\n", ["red"] * 10) == 1
    with pytest.raises(ValueError, match="got none"):
        vqa.accuracy("red", [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Dog's bowl", "dog's bowl"),
        ("dont", "don't"),
        ("couldntve", "couldntve"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("somebody'dve", "somebody'd've"),
        ("id ill were", "id ill were"),
        ("Ive", "ive"),
        ("two red, hats", "2 red hats"),
        ("red/blue", "red blue"),
        ("red/ blue", "red blue"),
        ("1,000", "1000"),
        ("none", "0"),
        ("3. and .5", "3 and .5"),
        ("u.s.a.", "usa"),
        ("a-b, 1,2-3", "ab 123"),
        ("oclock twas yall", "o'clock 'twas y'all"),
        ("y'allll", "y'all'll"),
        ("." * 40, "." * 8),
    ],
)
def test_vqa_normalisation(text: str, expected: str) -> None:
    assert vqa.normalize(text) == expected


def test_exact_match_and_f1() -> None:
    assert answers.exact_match("The  Penguin, Books!", ["a dog", "penguin books"]) == 1
    assert answers.exact_match("penguin", ["penguin books"]) == 0
    assert answers.f1("penguin", ["penguin books", "dog"]) == pytest.approx(2 / 3)
    assert answers.f1("a x", ["the x"]) == 1  # articles go
    assert answers.f1("x x b", ["x b b"]) == pytest.approx(2 / 3)
    assert (answers.f1("the", [""]), answers.f1("x", [""]), answers.f1("", ["x"])) == (1, 0, 0)


def test_anls() -> None:
    pytest.importorskip("rapidfuzz", reason="rapidfuzz is not installed")
    assert answers.anls("Hello  World", ["hello world"]) == 1
    assert answers.anls("hallo", ["hello", "x"]) == pytest.approx(0.8)
    assert answers.anls("abcd", ["abxy"]) == 0  # half of it is wrong
    assert answers.anls("abcde", ["abcxy"]) == pytest.approx(0.6)
    assert answers.anls("", [""]) == 1 and answers.anls("", ["x"]) == 0


# ---- boxes


def test_boxes_hit_from_a_half_on() -> None:
    true = (0.0, 0.0, 10.0, 10.0)
    half, less = (0.0, 0.0, 10.0, 5.0), (0.0, 0.0, 10.0, 4.99)
    assert boxes.hit([half], [true]) and not boxes.hit([less], [true])
    assert boxes.hit([less, half], [true], 5) and not boxes.hit([less, half], [true], 1)
    assert not boxes.hit([], [true]) and not boxes.hit([(0.0, 0.0, 0.0, 0.0)], [true])
    left, right = (0.0, 0.0, 10.0, 10.0), (90.0, 0.0, 100.0, 10.0)
    around = boxes.merged([left, right])
    assert around == (0, 0, 100, 10)
    assert boxes.hit([left], [left, right]) and not boxes.hit([left], [around])
    assert boxes.mean([left, right]) == (45, 0, 55, 10)


# ---- rankings and counts


def test_auc_is_the_share_of_ordered_pairs() -> None:
    source = random.Random(3)
    for _ in range(30):
        scores = [source.randint(0, 6) / 2 for _ in range(20)]
        labels = [True, False] + [source.random() < 0.4 for _ in range(18)]
        pairs = [
            1.0 if p > n else 0.5 if p == n else 0.0
            for p, a in zip(scores, labels, strict=True)
            for n, b in zip(scores, labels, strict=True)
            if a and not b
        ]
        assert auc.roc_auc(scores, labels) == pytest.approx(sum(pairs) / len(pairs))
    for labels in ([True, True], [False], []):
        with pytest.raises(InvalidRequest, match="expected both classes"):
            auc.roc_auc([0.5] * len(labels), labels)
    assert auc.of_parts([(0.3, 1.0)]) is None and auc.of_parts([(0.3, 1.0), (0.1, 0.0)]) == 1


def test_pope_counts() -> None:
    assert pope.says_yes("Yes, there is.") and not pope.says_yes("No.") and not pope.says_yes("There is not a dog")
    assert pope.says_yes("A dog. No cat") and pope.says_yes("nothing")
    parts = [pope.part(True, True)] * 3 + [pope.part(True, False)] + [pope.part(False, True)] * 2
    parts += [pope.part(False, False)] * 4
    assert pope.accuracy(parts) == 0.7 and pope.precision(parts) == 0.75 and pope.recall(parts) == 0.6
    assert pope.f1(parts) == pytest.approx(2 * 0.75 * 0.6 / 1.35) and pope.yes_share(parts) == 0.4
    assert pope.precision([pope.part(False, True)]) is None


def test_chair_counts_names_of_absent_objects() -> None:
    names = chair.read_names("person, man, woman\nhot dog\ndog, puppy\nbus\ndining table, table\n")
    said = "Two men eat hot dogs beside a puppy and buses on a table."
    assert chair.mentions(said, names) == ["person", "hot dog", "dog", "bus", "dining table"]
    assert chair.parts(chair.mentions(said, names), ["person", "hot dog", "bus"]) == ((2, 5), (1, 1))
    assert chair.parts([], ["dog"]) == ((0, 0), (0, 1))
    with pytest.raises(InvalidRequest, match="'man' stands for 'person' and 'bear'"):
        chair.read_names("person, man\nbear, man")
    with pytest.raises(InvalidRequest, match="expected lines of names"):
        chair.read_names(" \n")


def test_the_table_of_contractions_is_whole() -> None:
    """Every key of the published table that is lower-case, and no other."""
    table = """
        aint arent cant couldve couldnt couldn'tve couldnt've didnt doesnt dont hadnt hadnt've hadn'tve hasnt
        havent hed hed've he'dve hes howd howll hows isnt itd itd've it'dve itll maam mightnt mightnt've
        mightn'tve mightve mustnt mustve neednt notve oclock oughtnt shant shed've she'dve shouldve shouldnt
        shouldnt've shouldn'tve somebodyd've somebody'dve somebodyll somebodys someoned someoned've someone'dve
        someonell someones somethingd somethingd've something'dve somethingll thats thered thered've there'dve
        therere theres theyd theyd've they'dve theyll theyre theyve twas wasnt wed've we'dve weve werent whatll
        whatre whats whatve whens whered wheres whereve whod whod've who'dve wholl whos whove whyll whyre whys
        wont wouldve wouldnt wouldnt've wouldn'tve yall yall'll y'allll yall'd've y'alld've y'all'dve youd
        youd've you'dve youll youre youve let's she's somebody'd ow's'at 'ows'at 'ow'sat
    """
    keys = table.split()
    known = {key for key in vqa._CONTRACTIONS if not key.startswith("I")}
    assert known == set(keys)
    for key in keys:
        assert vqa._CONTRACTIONS[key].replace("'", "") == key.replace("'", "")


def test_every_metric_names_its_source() -> None:
    folder = Path(ptb.__file__).parent
    for module in folder.glob("*.py"):
        assert module.read_text(encoding="utf-8").startswith('"""'), module.name
