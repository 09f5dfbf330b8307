"""The verbs as tools of an agent: what a language model is told, and how wrong arguments are answered."""

import json
from typing import Any

import pytest
from helpers.api_model import png, tiny_model

from kosmos_edge import InvalidRequest
from kosmos_edge.tools import VERB_TOOLS, Tool, result_text, verb_tools

TOOLS = {tool.name: tool for tool in VERB_TOOLS}


def test_names_and_arguments_stay() -> None:
    """Programs and prompts out there name them."""
    assert {tool.name: (tool.verb, list(tool.properties), tool.required) for tool in VERB_TOOLS} == {
        "caption": ("caption", ["image", "length", "ground"], ("image",)),
        "ask": ("ask", ["image", "question"], ("image", "question")),
        "ground": ("ground", ["image", "prompt"], ("image",)),
        "locate": ("locate", ["image", "phrase"], ("image", "phrase")),
        "describe_region": ("describe", ["image", "box", "normalized"], ("image", "box")),
        "read": ("read", ["image", "markdown"], ("image",)),
    }
    schema = TOOLS["describe_region"].parameters(image="a handle")
    assert schema["properties"]["image"] == {"type": "string", "description": "a handle"}
    assert (schema["required"], schema["additionalProperties"]) == (["image", "box"], False)
    assert "description" not in TOOLS["caption"].properties["image"]  # the table itself is not written to
    json.dumps(schema)


def test_a_model_has_the_tools_of_its_tasks() -> None:
    assert [tool.name for tool in verb_tools(["describe", "read", "score"])] == ["describe_region", "read"]


@pytest.mark.parametrize(
    ("tool", "arguments", "says"),
    [
        ("caption", {}, "image: caption needs this argument; it needs image"),
        ("ask", {"image": "a"}, "question: ask needs this argument; it needs image, question"),
        ("caption", {"image": 3}, "image: expected a text, got 3"),
        ("caption", {"image": None}, "image: expected a text, got None"),
        ("caption", {"image": "a", "length": "huge"}, "length: expected one of short, long, got 'huge'"),
        ("caption", {"image": "a", "ground": "maybe"}, "ground: expected true or false, got 'maybe'"),
        ("caption", {"image": "a", "ground": 1}, "ground: expected true or false, got 1"),
        ("caption", {"image": "a", "x" * 500: 1}, "x" * 100 + ": unknown argument of caption; known are image, "),
        ("ground", {"image": "a", "prompt": 1}, "prompt: expected a text or null, got 1"),
        ("describe_region", {"image": "a", "box": [1, 2, 3]}, "box: expected a list of 4 numbers, got [1, 2, 3]"),
        ("describe_region", {"image": "a", "box": {"x1": 1}}, "box: expected a list of 4 numbers, got {'x1': 1}"),
        ("describe_region", {"image": "a", "box": [1, 2, 3, "4 px"]}, "box[3]: expected a finite number, got '4 px'"),
        (
            "describe_region",
            {"image": "a", "box": [1, 2, 3, float("nan")]},
            "box[3]: expected a finite number, got nan",
        ),
        ("describe_region", {"image": "a", "box": [1, 2, 3, 10**400]}, "box[3]: expected a finite number, got 1000"),
        ("describe_region", {"image": "a", "box": "[" * 99999}, "box: expected a list of 4 numbers, got '[[["),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(tool: str, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        TOOLS[tool].check(arguments)
    assert str(error.value).startswith(says) and len(str(error.value)) < 300


def test_json_text_is_taken_for_what_it_says() -> None:
    assert TOOLS["describe_region"].check({"image": "a", "box": "[1, 2.5, 3, 4]", "normalized": "false"}) == {
        "image": "a",
        "box": [1, 2.5, 3, 4],
        "normalized": False,
    }
    assert TOOLS["ask"].check({"image": "a", "question": "[1]"})["question"] == "[1]"  # a text stays one


def test_lists_of_objects() -> None:
    item = {"type": "object", "properties": {"box": TOOLS["describe_region"].properties["box"]}, "required": ["box"]}
    tool = Tool("t", "", {"boxes": {"type": "array", "items": item, "minItems": 1, "maxItems": 2}}, ("boxes",))
    assert tool.check({"boxes": [{"box": [1, 2, 3, 4]}]}) == {"boxes": [{"box": [1, 2, 3, 4]}]}
    for boxes, says in (
        ([], "boxes: expected a list of 1 to 2 items, got []"),
        ([1], "boxes[0]: expected an object with box, got 1"),
        ([{"label": "a"}], "label: unknown argument of boxes[0]; known are box"),
        ([{}], "box: boxes[0] needs this argument; it needs box"),
    ):
        with pytest.raises(InvalidRequest) as error:
            tool.check({"boxes": boxes})
        assert str(error.value) == says


def test_a_call_is_the_verb() -> None:
    model = tiny_model()
    given = TOOLS["describe_region"].check({"image": "x", "box": [1, 1, 70, 70]})
    del given["image"]
    found = TOOLS["describe_region"].call(model, png(), given)
    assert found.token_ids == model.describe(png(), (1, 1, 70, 70)).token_ids and found.token_ids
    assert result_text(found).split("\n")[0] in (found.text, "(no text)")
