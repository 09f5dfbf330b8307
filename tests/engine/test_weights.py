"""The published checkpoint against its published answers: pytest tests/engine/test_weights.py --weights DIR_OR_GGUF

DIR is a download of microsoft/kosmos-2-patch14-224 (or unilm's kosmos-2.pt with its tokenizer files); it is converted
to float32 in a temporary folder (6.7 GB). A GGUF file is taken as it is: F32 is held to ids and logits, F16 to ids, a
quantized one to phrases and boxes. The picture is snowman.png of the model's card (--picture; default: ../shared).

The goldens are those of transformers' own integration test (tests/models/kosmos2/test_modeling_kosmos2.py), made from
the picture *re-saved as JPEG* with Pillow's default quality: that alone changes the caption.
"""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kosmos_edge
from kosmos_edge import _core

BRIEF, DETAILED = "<grounding>An image of", "<grounding>Describe this image in detail:"

PROMPTS = {  # text -> ids
    "<grounding>An image of": "64012 712 1648 9",
    "<grounding>Describe this image in detail:": "64012 34645 247 38 1648 12 3391 55",
    "<grounding><phrase> a snowman</phrase>": "64012 64007 10 43867 64008",
    "<grounding><phrase> a snowman next to a fire</phrase>": "64012 64007 10 43867 197 7 10 646 64008",
    "<grounding><phrase> It</phrase><object><patch_index_0044><patch_index_0863></object> is": (
        "64012 64007 67 64008 64009 64057 64876 64010 17"
    ),
    "<grounding> Question: What is special about this image? Answer:": (
        "64012 14895 55 352 17 667 57 38 1648 93 20032 55"
    ),
    "An image of": "712 1648 9",
    "Yes": "1544",
}
ANSWERS = {
    BRIEF: "64007 10 43867 64008 64009 64057 64876 64010 5950 597 32 64007 10 646 64008 64009 64018 64924 64010 4 2",
    DETAILED: (
        "24 1648 1338 10 43867 1280 32 64007 10 30879 64008 64009 64018 65020 64010 12 5 1842 4 71 17 1679 64007 10 "
        "3958 64008 64009 64061 64263 64010 6 64007 15719 64008 64009 64253 64617 64010 6 8 64007 9626 64008 64009 "
        "64413 64545 64010 6 23 64007 10 4363 64008 64009 64623 64885 64010 2255 8 64007 10 3486 64008 64009 64809 "
        "65036 64010 1560 2255 4 24 43867 1684 7 27 3774 5 10356 9 5 646 6 8 22 1684 7 30 10 2007 8 16239 4337 4 2"
    ),
}
# (prompt, answer step counted from 0 or from the end, first token id, logits)
LOGITS = [
    (BRIEF, 1, 0, (-1.567258, -5.007407, 4.364489)),
    (BRIEF, 2, 0, (-2.147017, -4.966303, 4.592559)),
    (BRIEF, 3, 0, (-0.935235, -4.688289, 6.240613)),
    (BRIEF, -3, 65034, (2.991621, 2.481820, 4.646595)),
    (BRIEF, -2, 65034, (-2.838108, -2.968719, -2.692678)),
    (BRIEF, -1, 65034, (-2.890917, -3.222859, -1.705682)),
    (DETAILED, 1, 0, (-0.909357, -4.578374, 5.963610)),
    (DETAILED, 2, 0, (2.452127, -4.090598, 8.738677)),
    (DETAILED, 3, 0, (-0.762460, -4.771659, 6.576296)),
]
CAPTION = "An image of a snowman warming himself by a fire."
ENTITIES = [
    ("a snowman", (12, 21), [(0.390625, 0.046875, 0.984375, 0.828125)]),
    ("a fire", (41, 47), [(0.171875, 0.015625, 0.484375, 0.890625)]),
]
F32, F16 = 0, 1  # general.file_type


def numbers(text: str) -> list[int]:
    """Ids written with blanks between them."""
    return [int(word) for word in text.split()]


@pytest.fixture(scope="module")
def model(request, tmp_path_factory) -> Iterator[kosmos_edge.Model]:
    """The published weights."""
    given = request.config.getoption("--weights")
    if given is None:
        pytest.skip("needs the published checkpoint: pytest --weights DIR_OR_GGUF")
    source, folder = Path(given), None
    if source.suffix != ".gguf":
        from kosmos_edge.convert import convert

        folder = tmp_path_factory.mktemp("weights")
        convert(source, folder / "f32.gguf", type="f32")
        source = folder / "f32.gguf"
    with kosmos_edge.load(source) as model:
        yield model
    if folder:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def engine(model: kosmos_edge.Model) -> _core.Engine:
    """The same, below the Python API."""
    return _core.Engine(str(model.path))


@pytest.fixture(scope="module")
def picture(request) -> Image.Image:
    """snowman.png, once through JPEG."""
    given = request.config.getoption("--picture")
    path = Path(given or Path(__file__).resolve().parents[3] / "shared/data/kosmos-2/images/snowman.png")
    if not path.exists():
        pytest.skip(f"needs the snowman picture of the model's card: --picture FILE (no {path})")
    buffer = io.BytesIO()
    Image.open(path).convert("RGB").save(buffer, "JPEG")
    return Image.open(buffer)


def file_type(model: kosmos_edge.Model) -> int:
    """general.file_type of the loaded file."""
    return model.metadata["general.file_type"]


def answer(engine: _core.Engine, picture: Image.Image, prompt: str, ngram: int) -> _core.Generation:
    """Greedy answer to a raw prompt."""
    rgb = picture.convert("RGB")
    params = _core.GenerateParams()
    params.max_tokens, params.no_repeat_ngram_size = 128, ngram
    image = engine.encode_image(rgb.tobytes(), *rgb.size)
    return engine.generate([("image", image), ("tags", prompt)], params)


@pytest.mark.parametrize("text", PROMPTS)
def test_prompt_ids(model: kosmos_edge.Model, engine: _core.Engine, text: str) -> None:
    """Ids of the model card's prompts."""
    assert engine.tokenizer.encode_with_tags(text) == numbers(PROMPTS[text])


@pytest.mark.parametrize("prompt", ANSWERS)
def test_ids(model: kosmos_edge.Model, engine: _core.Engine, picture: Image.Image, prompt: str) -> None:
    """Generated ids. It is not recorded whether the n-gram block was on; both give a golden that obeys it."""
    if file_type(model) not in (F32, F16):
        pytest.skip("a quantized file may word it differently; test_caption holds it to phrases and boxes")
    expected = numbers(ANSWERS[prompt])
    got = answer(engine, picture, prompt, ngram=3)
    assert got.prompt_ids == [0, 64003, *range(4, 68), 64004, *numbers(PROMPTS[prompt])]
    assert expected in (got.token_ids, answer(engine, picture, prompt, ngram=0).token_ids), got.token_ids


def test_logits(model: kosmos_edge.Model, engine: _core.Engine, picture: Image.Image) -> None:
    """Logits before each answer token, with the golden answer fed in: within 1e-4 of the largest of the row."""
    if file_type(model) != F32:
        pytest.skip("the recorded logits are float32; give the checkpoint's folder or an F32 file")
    rgb = picture.convert("RGB")
    image = engine.encode_image(rgb.tobytes(), *rgb.size)
    for prompt, ids in ANSWERS.items():
        segments = [("image", image), ("tags", prompt), ("ids", numbers(ids)[:-1])]
        data, count, vocab = engine.logits(segments)
        rows = np.frombuffer(data, np.float32).reshape(count, vocab)[-len(numbers(ids)) :]
        for _, step, first, expected in (golden for golden in LOGITS if golden[0] == prompt):
            error = np.abs(rows[step, first : first + 3] - expected).max()
            assert error < 1e-4 * np.abs(rows[step]).max(), (prompt, step, rows[step, first : first + 3], expected)


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Intersection over union of two boxes (x1, y1, x2, y2)."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    area = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(area) - width * height)


def test_caption(model: kosmos_edge.Model, picture: Image.Image) -> None:
    """The public API's grounded caption: text, phrases, spans and boxes; quantized: the boxes of the same things."""
    caption, entities = model.caption(picture, ground=True).to_hf()
    if file_type(model) in (F32, F16):
        assert (caption, entities) == (CAPTION, ENTITIES)
        return
    for phrase, _, boxes in ENTITIES:
        found = [e for e in entities if phrase.split()[-1] in e[0]]
        assert found, f"no {phrase!r} in {caption!r}"
        assert overlap(found[0][2][0], boxes[0]) >= 0.5, (found, boxes)
