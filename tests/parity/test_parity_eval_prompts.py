"""The prompts of `kosmos-edge eval` as token ids: what the engine gets for an item is what the tokenizer makes
of the papers' words, and texts that are ranked have the ids that they have behind those words."""

from pathlib import Path
from typing import Any

import pytest
from checkpoints import Checkpoint
from PIL import Image

import kosmos_edge
from kosmos_edge import _core
from kosmos_edge.evaluation.registry import find_task
from kosmos_edge.evaluation.task import Generate, Item, Rank
from kosmos_edge.evaluation.tasks import captions, language, refs, vqa
from kosmos_edge.inference.tasks import PLANS, plan_generate
from kosmos_edge.results import Result

A, B, C = (Path(f"{name}.png") for name in "abc")
WEB = (
    "Given the context below from web page, extract the answer from the given text like this: Qusestion: Who is the "
    "publisher of this book? Answer: Penguin Books Ltd."
)
WHOLE = "<object><patch_index_0000><patch_index_1023></object>"
REFERENCE = refs.Reference("1", A, (0.0, 0.0, 1e5, 1e5), ("a red hat",), (1e5, 1e5))


def item(asked: Any, image: Path = A) -> Item:
    return Item("1", str(image), None, asked=asked)


# task -> the item's question, and each prompt in the paper's words: <image> stands for an image
PROMPTS: dict[str, tuple[Any, list[str]]] = {
    "coco-caption": ([(B, captions.example_text("A dog runs."))], ["<image>An image of a dog runs.<image>An image of"]),
    "vqav2": (
        ("What is it?", [vqa.Question("2", B, "Who?", None, "a man")]),
        ["<image>Question: Who? Answer: a man<image>Question: What is it? Answer:"],
    ),
    "iq50": (
        ([A, B, C], [A]),
        ["Here are three images:<image><image><image> The following image is:<image> Is it correct?"],
    ),
    "rendered-sst2": (None, ["<image>Question: what is the sentiment of the opinion? Answer:"]),
    "rendered-sst2-cot": (
        None,
        [
            "<image>Introduce this picture in detail:",
            "<image>It says good. Question: what is the sentiment of the opinion? Answer:",
        ],
    ),
    "hatefulmemes": (None, ["<image>Question: does this picture contain real hate speech? Answer:"]),
    "imagenet": ((["tench"], False), ["<image>The photo of the"]),
    "bird-descriptions": (
        ("woodpecker", ["A a", "B b"], ["it is red.", "it is blue."]),
        [
            "Description of A a: it is red. Description of B b: it is blue.<image>Question: what is the name of the "
            "woodpecker in the picture? Answer:",
        ]
        * 2,
    ),
    "bird-names": (
        ("woodpecker", ["A a", "B b"], ["", ""]),
        [
            "The woodpecker is either A a or B b.<image>Question: what is the name of the woodpecker in the picture? "
            "Answer:"
        ]
        * 2,
    ),
    "relative-size": ("Is a whale larger than an ant?", ["Is a whale larger than an ant?"]),
    "memory-color": ("The color of the sky is?", ["The color of the sky is?"]),
    "boolq": (
        ("", language.Question(("P.\nQuestion: is it?\nAnswer:",), ("no", "yes"), 1)),
        ["P.\nQuestion: is it?\nAnswer:"],
    ),
    "winogrande": (
        ("", language.Question(("The cup and Ann", "The cup and Bob"), ("fell.",), 1)),
        ["The cup and Ann", "The cup and Bob"],
    ),
    "flickr30k-entities": (
        ("red hats", "Two men in", False),
        ["<image><grounding>Two men in<phrase> red hats</phrase>"],
    ),
    "refcoco": (("the ball on the left", False), ["<image><grounding><phrase> the ball on the left</phrase>"]),
    "refcocog-reg": (
        (list(REFERENCE.box), [REFERENCE]),
        [f"<image><phrase> It</phrase>{WHOLE} is a red hat.<image><phrase> It</phrase>{WHOLE} is"],
    ),
    "seed-bench": (("Which one?", ["a", "b c"]), ["<image>Question: Which one? Answer:"]),
    "pope": ("Is there a dog in the image?", ["<image>Question: Is there a dog in the image? Answer:"]),
    "chair": (None, ["<image>Describe this image in detail:"]),
}


@pytest.fixture(scope="session")
def model(checkpoint: Checkpoint) -> kosmos_edge.Model:
    """The public API on the float32 file."""
    return kosmos_edge.Model(checkpoint.engine, checkpoint.file("f32"))


def shown(value: Any, pictures: list[Any]) -> Any:
    """The images in the place of paths; boxes in pixels of the whole image."""
    if isinstance(value, Path):
        return Image.fromarray(pictures["abc".index(value.stem)])
    if isinstance(value, list) and value and isinstance(value[0], float):
        return [0, 0, pictures[0].shape[1], pictures[0].shape[0]]
    return [shown(one, pictures) for one in value] if isinstance(value, list) else value


def engine_ids(model: kosmos_edge.Model, step: Generate | Rank, pictures: list[Any]) -> list[int]:
    """What the engine computes before it answers; a blank at the end belongs to the text that is ranked."""
    if isinstance(step, Rank):
        given = [*step.segments[:-1], step.segments[-1].removesuffix(" ")]
        plan = plan_generate(model._info, shown(given, pictures), False, False, False)
    else:
        wanted = ("segments", "raw", "image", "phrase", "template")
        arguments = {name: shown(step.arguments[name], pictures) for name in wanted if name in step.arguments}
        if step.verb == "generate":
            plan = plan_generate(model._info, arguments["segments"], arguments.get("raw", False), False, False)
        else:
            plan = PLANS[step.verb](model._info, **arguments)
    session: Any = model._open
    return list(session.engine.prompt_ids(session._prompt(plan.segments, _core.CancelToken()).segments))


def paper_ids(checkpoint: Checkpoint, text: str) -> list[int]:
    """Of the paper's words."""
    hf = checkpoint.hf
    ids = [hf.tokenizer.bos_token_id]
    for number, part in enumerate(text.split("<image>")):
        if number:
            ids += [hf.image_begin, *range(4, 4 + hf.latents), hf.image_end]
        ids += hf.text_ids(part) if part else []
    return ids


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_are_the_papers_token_for_token(name: str, checkpoint: Checkpoint, model: kosmos_edge.Model) -> None:
    asked, expected = PROMPTS[name]
    if "\n" in "".join(expected) and checkpoint.hf.text_ids("\n") != checkpoint.engine.tokenizer.encode("\n"):
        pytest.skip("the vocabulary has no rule that makes a blank of a line break; the published one has")
    steps: Any = find_task(name).steps(item(asked))  # type: ignore[union-attr]
    step = next(steps)
    for number, text in enumerate(expected):
        assert engine_ids(model, step, checkpoint.pictures) == paper_ids(checkpoint, text), text
        answer: Any = Result(" It says good. ")
        if isinstance(step, Rank):
            segments = shown(list(step.segments), checkpoint.pictures)
            answer = model.score_segments(segments, step.texts)
            behind = text.rpartition("<image>")[2]
            for row in answer.ranking:
                whole, before = (checkpoint.hf.text_ids(words) for words in (f"{behind} {row.text}", behind))
                assert list(row.token_ids) == whole[len(before) :] and whole[: len(before)] == before, row.text
        if number + 1 < len(expected):
            step = steps.send(answer)
