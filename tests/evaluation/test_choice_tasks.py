"""Tasks with answers to choose from, in their published files: prompts word for word, figures by hand."""

from pathlib import Path
from typing import Any

import pytest
from helpers.eval_scripted import Scripted, draw_picture, evaluate, values, write_json, write_lines

from kosmos_edge.errors import ContextTooLong, InvalidRequest
from kosmos_edge.evaluation.registry import find_task
from kosmos_edge.evaluation.tasks.reasoning import visible_text
from kosmos_edge.results import Result

# ---- two answers


def test_hateful_memes(tmp_path: Path) -> None:
    records = [{"id": i, "img": f"img/{i}.png", "label": i % 2, "text": "secret"} for i in range(4)]
    write_lines(tmp_path / "dev.jsonl", records)
    for i in range(3):
        draw_picture(tmp_path / "img" / f"{i}.png", i)  # the last is missing
    sure = {"0.png": -1.0, "1.png": 2.0, "2.png": 0.5}
    model = Scripted(rated=lambda prompt, text, images: sure[images[0]] if text == "yes" else 0.0)
    made, _, done = evaluate("hatefulmemes", tmp_path, model)
    assert model.prompts == ["<image>Question: does this picture contain real hate speech? Answer: "] * 3
    assert model.texts == [["yes", "no"]] * 3
    # ln p(yes) - ln p(no): -1, 2, 0.5, and 0 for the missing one, which is hateful: 3 of 4 pairs in order
    assert values(made)["auc"] == 0.75 and values(made)["accuracy"] == 0.5 and len(done.failed) == 1
    write_lines(tmp_path / "dev.jsonl", records[:1])
    alone, _, _ = evaluate("hatefulmemes", tmp_path, model)
    assert alone["metrics"]["auc"]["value"] is None and "one of the two classes is absent" in str(
        alone["metrics"]["auc"]
    )


def sentiments(folder: Path) -> Path:
    for i, truth in enumerate(("positive", "positive", "negative")):
        draw_picture(folder / "test" / truth / f"{i}.png", i)
    return folder


def test_rendered_sst2(tmp_path: Path) -> None:
    model = Scripted(rated=lambda prompt, text, images: float((text == "positive") == (images[0] != "1.png")))
    made, items, _ = evaluate("rendered-sst2", sentiments(tmp_path), model)
    assert [item.id for item in items] == ["positive/0.png", "positive/1.png", "negative/2.png"]
    assert model.prompts == ["<image>Question: what is the sentiment of the opinion? Answer: "] * 3
    assert model.texts == [["positive", "negative"]] * 3 and values(made)["accuracy"] == pytest.approx(1 / 3)


def test_rendered_sst2_with_chain_of_thought(tmp_path: Path) -> None:
    model = Scripted(
        lambda prompt, images: " It says good. " if images[0] == "0.png" else "",
        lambda prompt, text, images: float(text == "positive") if "good" in prompt else float(text == "negative"),
    )
    made, _, _ = evaluate("rendered-sst2-cot", sentiments(tmp_path), model)
    ask = "Question: what is the sentiment of the opinion? Answer: "
    assert model.prompts == ["<image>Introduce this picture in detail:"] * 3 + [
        f"<image>It says good. {ask}", f"<image>{ask}", f"<image>{ask}",
    ]  # fmt: skip
    assert model.options[0] == {"max_tokens": 128} and values(made)["accuracy"] == pytest.approx(2 / 3)


# ---- several answers


def test_seed_bench(tmp_path: Path) -> None:
    def question(number: int, answer: str, choices: list[str], kind: int = 1, data: str = "image") -> dict[str, Any]:
        letters = dict(zip(("choice_a", "choice_b", "choice_c", "choice_d"), choices, strict=True))
        return letters | {
            "question": "Which\none?", "answer": answer, "data_id": f"{number}.png", "data_type": data,
            "question_id": f"q{number}", "question_type_id": kind,
        }  # fmt: skip

    questions = [
        question(0, "B", [" one two three ", "four", "five", "six"]),
        question(1, "A", ["x", "x", "y", "z"], kind=2),
        question(2, "A", ["a", "b", "c", "d"], data="video"),
    ]
    write_json(tmp_path / "SEED-Bench.json", {"question_type": {"Scene": 1, "Text": 2}, "questions": questions})
    for number in range(2):
        draw_picture(tmp_path / "SEED-Bench-image" / f"{number}.png", number)
    rates = {"one two three": -4.5, "four": -1.6, "five": -9.0, "six": -9.0, "x": -1.0, "y": -1.0, "z": -2.0}
    model = Scripted(rated=lambda prompt, text, images: rates[text])
    made, _, _ = evaluate("seed-bench", tmp_path, model)
    assert model.prompts == ["<image>Question: Which one? Answer: "] * 2 and made["n"] == 2
    assert model.texts[0] == ["one two three", "four", "five", "six"] and model.options[0] == {"normalize": "mean"}
    # the mean of the three words is higher than that of the one: a sum would choose the other answer
    assert made["groups"]["Scene"]["metrics"]["accuracy"]["value"] == 0
    assert made["groups"]["Text"]["metrics"]["accuracy"]["value"] == 1


def photos(folder: Path) -> Path:
    for wnid in ("n02", "n01"):
        draw_picture(folder / "val" / wnid / f"{wnid}.png")
    return folder


@pytest.mark.parametrize("names", ["classnames.txt", "LOC_synset_mapping.txt"])
def test_imagenet(names: str, tmp_path: Path) -> None:
    text = "tench\nGreat dog\n" if names == "classnames.txt" else "n01 tench, Tinca tinca\nn02 Great dog, dog\n"
    (photos(tmp_path) / names).write_text(text)
    model = Scripted(lambda prompt, images: {"n01.png": " Tench.", "n02.png": "great dogs"}[images[0]])
    made, _, _ = evaluate("imagenet", tmp_path, model)
    assert model.prompts == ["<image>The photo of the"] * 2 and values(made)["accuracy"] == 0.5
    assert model.options == [{"num_beams": 2, "choices": ["tench", "Great dog"]}] * 2
    free = Scripted(lambda prompt, images: "great dog")
    made, _, _ = evaluate("imagenet-free", tmp_path, free)
    assert free.options == [{"num_beams": 2, "max_tokens": 32}] * 2 and values(made)["accuracy"] == 0.5
    (tmp_path / names).write_text("x\n" if names == "classnames.txt" else "n01 tench\n")
    with pytest.raises(InvalidRequest, match=r"expected 2 lines|no name for n02"):
        evaluate("imagenet", tmp_path, model)


def test_imagenet_by_likelihood(tmp_path: Path) -> None:
    (photos(tmp_path) / "classnames.txt").write_text("tench\nGreat dog\n")
    sure = {"n01.png": "tench", "n02.png": "tench"}
    model = Scripted(rated=lambda prompt, text, images: float(text == sure[images[0]]))
    made, _, _ = evaluate("imagenet", tmp_path, model, score=True)
    assert model.prompts == ["<image>The photo of the "] * 2 and model.texts == [["tench", "Great dog"]] * 2
    assert values(made)["accuracy"] == 0.5 and made["published"] == {} and made["settings"]["score"] is True


def raven(folder: Path) -> Path:
    items = []
    for number, count in enumerate((3, 4, 8)):
        names = [f"{number}-{i}.png" for i in range(count)]
        candidates = [f"{number}-c{i}.png" for i in range(6)]
        for name in names + candidates:
            draw_picture(folder / name)
        items.append({"id": number, "images": names, "candidates": candidates, "answer": 2})
    write_json(folder / "items.json", items)
    return folder


def test_iq50(tmp_path: Path) -> None:
    """A scorer that knows the rule has all; a constant one says the first candidate."""
    model = Scripted(rated=lambda prompt, text, images: float(text == "Yes" and "-c2" in images[-1]))
    made, _, done = evaluate("iq50", raven(tmp_path), model)
    assert values(made) == {"accuracy": 1, "margin": 1} and len(model.prompts) == 18
    end = " The following image is:<image> Is it correct? "
    assert {model.prompts[0], model.prompts[1]} == {f"Here are three images:{'<image>' * 3}{end}"}
    assert f"Here are four images:{'<image>' * 4}{end}" in model.prompts
    assert f"Here are eight images:{'<image>' * 8}{end}" in model.prompts
    constant, _, _ = evaluate("iq50", tmp_path, Scripted())
    assert values(constant)["accuracy"] == 0
    # "No" plays no part in the first figure
    other = Scripted(rated=lambda prompt, text, images: -5.0 * (text == "No") * ("-c1" in images[-1]) + (
        0.1 if text == "Yes" and "-c2" in images[-1] else 0.0))  # fmt: skip
    made, _, _ = evaluate("iq50", tmp_path, other)
    assert values(made) == {"accuracy": 1, "margin": 0} and done.prompt.startswith(
        "Here are {three|four|eight} images:"
    )


def birds(folder: Path) -> Path:
    names = ["three toed woodpecker", "downy woodpecker"]
    group = {
        "category": "woodpecker", "names": names, "descriptions": ["it has stripes.", "it has spots."],
        "images": {names[0]: ["a.png"], names[1]: ["b.png", "c.png"]},
    }  # fmt: skip
    write_json(folder / "groups.json", [group])
    for name in "abc":
        draw_picture(folder / f"{name}.png")
    return folder


def test_birds(tmp_path: Path) -> None:
    said = {"a.png": "a three toed woodpecker", "b.png": " Downy.", "c.png": "downy or three toed woodpecker"}
    model = Scripted(lambda prompt, images: said[images[0]], lambda prompt, text, images: float("three" in text))
    made, _, _ = evaluate("bird-descriptions", birds(tmp_path), model)
    ask = "<image>Question: what is the name of the woodpecker in the picture? Answer:"
    before = "Description of three toed woodpecker: it has stripes. Description of downy woodpecker: it has spots."
    assert model.prompts == [before + ask] * 3 + [f"{before}{ask} "] * 3
    assert values(made) == {"accuracy": pytest.approx(2 / 3), "likelihood": pytest.approx(1 / 3)}
    names = Scripted(lambda prompt, images: said[images[0]])
    evaluate("bird-names", tmp_path, names)
    assert names.prompts[0] == f"The woodpecker is either three toed woodpecker or downy woodpecker.{ask}"


# ---- web pages


def test_websrc(tmp_path: Path) -> None:
    for domain, number in (("book", "01"), ("book", "02")):
        place = tmp_path / domain / number
        draw_picture(place / "processed_data" / "0100001.png")
        page = "<html><head><title>t</title></head><body><script>x</script><p>By  {Penguin}</p>Ltd</body></html>"
        (place / "processed_data" / "0100001.html").write_text(page)
        rows = 'question,id,element_id,answer_start,answer\nWho?,bk010000100001,3,0,"Penguin, Ltd"\n'
        (place / "dataset.csv").write_text(rows)
    (tmp_path / "dataset_split.csv").write_text("domain,number,split\nbook,01,dev\nbook,02,train\n")
    model = Scripted(lambda prompt, images: " the penguin.\n")
    made, items, _ = evaluate("websrc", tmp_path, model)
    frame = (
        "<image>Given the context below from web page, extract the answer from the given text like this: Qusestion: "
        "Who is the publisher of this book? Answer: Penguin Books Ltd."
    )
    assert model.prompts == [f"{frame} Context: By {{Penguin}} Ltd Q: Who? A:"] and len(items) == 1
    assert values(made) == {"em": 0, "f1": pytest.approx(2 / 3)}
    picture = Scripted(lambda prompt, images: "Penguin Ltd")
    made, _, _ = evaluate("websrc-picture", tmp_path, picture)
    assert picture.prompts == [f"{frame} Q: Who? A:"] and values(made)["em"] == 1
    assert visible_text("a<style>b</style><br>c<p>d") == "a c d"


class Narrow(Scripted):
    """Takes prompts of at most 50 words."""

    def batch_calls(self, calls: Any, *, batch_size: int = 1) -> Any:
        for answer in super().batch_calls(calls, batch_size=batch_size):
            if len(self.prompts[-1].split()) > 50:
                answer = Result("", error=ContextTooLong("too many"), finish_reason="error")
            yield answer


def test_a_page_that_is_too_long_is_cut_at_its_end(tmp_path: Path) -> None:
    place = tmp_path / "book" / "01"
    draw_picture(place / "processed_data" / "0100001.png")
    words = [f"w{n}" for n in range(90)]
    (place / "processed_data" / "0100001.html").write_text(f"<body><p>{' '.join(words)}")
    (place / "dataset.csv").write_text("question,id,element_id,answer_start,answer\nWho?,bk010000100001,3,0,x\n")
    model = Narrow(lambda prompt, images: "x")
    made, _, done = evaluate("websrc", tmp_path, model)
    kept, whole = done.predictions[0]["words"]
    assert whole == 90 and 15 < kept < 50 and done.failed == [] and values(made)["em"] == 1
    assert f" Context: {' '.join(words[:kept])} Q: Who? A:" in model.prompts[-1]
    _, _, done = evaluate("websrc", tmp_path, Scripted(lambda prompt, images: "x"))
    assert "words" not in done.predictions[0]
    # a question that does not fit by itself is a failure, as elsewhere
    (place / "dataset.csv").write_text(
        f"question,id,element_id,answer_start,answer\n{'a ' * 60},bk010000100001,3,0,x\n"
    )
    _, _, done = evaluate("websrc", tmp_path, Narrow(lambda prompt, images: "x"))
    assert [why for _, why in done.failed] == ["too many"] and done.predictions == [{}]


# ---- words alone


def test_commonsense(tmp_path: Path) -> None:
    write_lines(tmp_path / "relative-size.jsonl", [{"a": "a whale", "b": "an ant", "answer": True}])
    model = Scripted(rated=lambda prompt, text, images: float(text == "Yes"))
    made, _, _ = evaluate("relative-size", tmp_path, model)
    assert model.prompts == ["Is a whale larger than an ant? "] and model.texts == [["Yes", "No"]]
    assert values(made)["accuracy"] == 1
    for task in ("memory-color", "color-terms"):
        write_lines(tmp_path / f"{task}.jsonl", [{"object": "the sky", "color": "blue"}] * 2)
        model = Scripted(rated=lambda prompt, text, images: float(text == "blue"))
        made, _, _ = evaluate(task, tmp_path, model)
        assert model.prompts[0] == "The color of the sky is? " and values(made)["accuracy"] == 1
        colours = "black white red green yellow blue brown orange pink purple grey"
        assert model.texts[0] == colours.split()
    write_lines(tmp_path / "color-terms.jsonl", [{"object": "the sky", "color": "azure"}])
    with pytest.raises(InvalidRequest, match=r"expected one of black, .*, got 'azure'"):
        evaluate("color-terms", tmp_path, model)


LANGUAGE = {
    "storycloze": ("storycloze_test.csv", "A. B. C. D. ", ["E one.", "E two."]),
    "hellaswag": ("hellaswag_val.jsonl", "Run: A man runs. He ", ["falls.", "jumps", "c", "d"]),
    "winogrande": ("dev.jsonl", "The cup and Ann ", ["fell."]),
    "winograd": ("wsc273.jsonl", "Ann saw the cup. Ann's ", ["eyes shone."]),
    "piqa": ("valid.jsonl", "Question: Open it\nAnswer: ", ["Push.", "Pull hard."]),
    "boolq": ("val.jsonl", "P.\nQuestion: is it so?\nAnswer: ", ["no", "yes"]),
    "cb": ("val.jsonl", "P.\nQuestion: H. True, False, or Neither?\nAnswer: ", ["True", "False", "Neither"]),
    "copa": ("val.jsonl", "It fell because ", ["it was old.", "they sang."]),
}
RECORDS: dict[str, dict[str, Any]] = {
    "hellaswag": {
        "activity_label": "Run", "ctx_a": "A man [x]runs.", "ctx_b": "he", "label": 1,
        "endings": ["falls.", "jumps", "c", "d"],
    },
    "winogrande": {"sentence": "The cup and _ fell.", "option1": "Ann", "option2": "Bob", "answer": "2"},
    "winograd": {
        "text": "Ann saw the cup. Her eyes shone.", "pronoun": "Her", "pronoun_loc": 17, "options": ["Ann", "The cup"],
        "label": 0,
    },
    "piqa": {"goal": "Open it", "sol1": "Push.", "sol2": "Pull hard."},
    "boolq": {"passage": "P.", "question": "is it so", "answer": True},
    "cb": {"premise": "P.", "hypothesis": "H", "label": "neutral"},
    "copa": {"premise": "It fell.", "question": "cause", "choice1": "It was old.", "choice2": "They sang.", "label": 0},
}  # fmt: skip


@pytest.mark.parametrize("name", LANGUAGE)
def test_language(name: str, tmp_path: Path) -> None:
    file, prompt, endings = LANGUAGE[name]
    if name == "storycloze":
        fields = [f"InputSentence{n}" for n in (1, 2, 3, 4)]
        fields += ["RandomFifthSentenceQuiz1", "RandomFifthSentenceQuiz2", "AnswerRightEnding"]
        (tmp_path / file).write_text(",".join(fields) + "\nA.,B.,C.,D.,E one.,E two.,1\n")
    else:
        write_lines(tmp_path / file, [RECORDS[name]])
    (tmp_path / "valid-labels.lst").write_text("1\n")
    model = Scripted(rated=lambda prompt, text, images: -1.0 - len(text))
    made, items, _ = evaluate(name, tmp_path, model)
    assert model.prompts[0] == prompt and model.texts[0] == endings
    if name.startswith("winogr"):
        second = {"winogrande": "The cup and Bob ", "winograd": "Ann saw the cup. The cup's "}[name]
        assert model.prompts[1:] == [second] and model.texts[1] == endings
    else:
        shortest = min(range(len(endings)), key=lambda i: len(endings[i]))
        assert values(made)["acc"] == float(items[0].truth == shortest)
    truth = {"hellaswag": 1, "winogrande": 1, "piqa": 1, "boolq": 1, "cb": 2}.get(name, 0)
    assert items[0].truth == truth and made["published"]["rows"]["KOSMOS-2"]["acc"] > 0


def test_language_behind_examples(tmp_path: Path) -> None:
    write_lines(tmp_path / "val.jsonl", [RECORDS["boolq"]])
    write_lines(tmp_path / "train.jsonl", [{"passage": "T.", "question": "was it", "label": 0}])
    model = Scripted()
    evaluate("boolq", tmp_path, model, shots=1)
    assert model.prompts == ["T.\nQuestion: was it?\nAnswer: no\n\nP.\nQuestion: is it so?\nAnswer: "]


def test_lengths_count_as_each_metric_says(tmp_path: Path) -> None:
    record = RECORDS["piqa"] | {"sol1": "a b c", "sol2": "dddd"}
    write_lines(tmp_path / "valid.jsonl", [record])
    (tmp_path / "valid-labels.lst").write_text("0\n")
    model = Scripted(rated=lambda prompt, text, images: -3.0 if text == "a b c" else -2.0)
    made, _, _ = evaluate("piqa", tmp_path, model)
    # sums -3 < -2; by characters -0.6 < -0.5; by tokens -1 > -2
    assert values(made) == {"acc": 0, "acc_norm": 0, "acc_token": 1}


# ---- hallucination, OwlEval


def test_pope(tmp_path: Path) -> None:
    for kind in ("random", "adversarial"):
        records = [
            {"question_id": i, "image": f"{i}.png", "text": "Is there a dog in the image?", "label": ("no", "yes")[i]}
            for i in range(2)
        ]
        write_lines(tmp_path / f"coco_pope_{kind}.json", records)
    for i in range(2):
        draw_picture(tmp_path / "val2014" / f"{i}.png")
    model = Scripted(lambda prompt, images: "Yes, there is." if images[0] == "1.png" else "There is a dog.")
    made, items, _ = evaluate("pope", tmp_path, model)
    assert model.prompts == ["<image>Question: Is there a dog in the image? Answer:"] * 4 and len(items) == 4
    assert values(made) == {
        "accuracy": 0.5, "precision": 0.5, "recall": 1, "f1": pytest.approx(2 / 3), "yes_share": 1,
    }  # fmt: skip
    assert set(made["groups"]) == {"random", "adversarial"} and made["published"] == {}


def test_chair(tmp_path: Path) -> None:
    record = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in (1, 2)],
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "hot dog"}],
        "annotations": [{"image_id": 1, "category_id": 1}, {"image_id": 2, "category_id": 2}],
    }
    write_json(tmp_path / "annotations" / "instances_val2014.json", record)
    (tmp_path / "synonyms.txt").write_text("person, man\nhot dog\ndog\n")
    for i in (1, 2):
        draw_picture(tmp_path / "val2014" / f"{i}.png")
    said = {"1.png": "Two men and a dog.", "2.png": "Hot dogs and a dog"}
    model = Scripted(lambda prompt, images: said[images[0]])
    made, _, _ = evaluate("chair", tmp_path, model)
    assert model.prompts == ["<image>Describe this image in detail:"] * 2
    assert values(made) == {"chair_i": 0.5, "chair_s": 1}
    captions = {"annotations": [{"image_id": 1, "caption": "a dog"}]}
    write_json(tmp_path / "captions_val2014.json", captions)
    made, _, _ = evaluate("chair", tmp_path, model)
    assert values(made) == {"chair_i": 0.25, "chair_s": 0.5}
    (tmp_path / "synonyms.txt").write_text("person, man\n")
    with pytest.raises(InvalidRequest, match="no line has COCO's 'hot dog'"):
        evaluate("chair", tmp_path, model)


def test_owleval(tmp_path: Path) -> None:
    records = [
        {"image": "1.jpg", "question_id": 1, "question": "What?", "ability": "a,b", "category": "single_turn"},
        {"image": "2.jpg", "question_id": 2, "question": "Who?", "ability": "f", "category": "multi_turn"},
        {"image": "2.jpg", "question_id": 3, "question": "Why?", "ability": "f", "category": "multi_turn"},
    ]
    write_lines(tmp_path / "questions.jsonl", records)
    for i in (1, 2):
        draw_picture(tmp_path / "cases" / f"{i}.png")
    model = Scripted(lambda prompt, images: f" answer {len(prompt)} ")
    made, items, done = evaluate("owleval", tmp_path, model)
    assert model.prompts == [
        "<image>Question: What? Answer:", "<image>Question: Who? Answer:",
        "<image>Question: Who? Answer: answer 29 Question: Why? Answer:",
    ]  # fmt: skip
    found = find_task("owleval").results(items, done.predictions)
    assert (
        found
        == [
            {"image": f"{record['image'][0]}.png", "question_id": i, "question": record["question"], "answer": answer}
            for i, (record, answer) in enumerate(zip(records, ["answer 30", "answer 29", "answer 62"], strict=True), 1)
        ]
        and made["metrics"] == {}
    )
