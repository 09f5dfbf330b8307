"""MiniGPT-v2: what the suite over all models does not ask. Boxes as text, task tags, rows made of four features, the
turns of a chat, a penalty for repeats that the file sets, a CUDA device."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from helpers import capi, sweep
from helpers.cuda_emulated import use_cuda
from helpers.golden_cases import relative_error
from helpers.tiny import make_picture, write_tiny

import kosmos_edge
from kosmos_edge import _core
from kosmos_edge.errors import InvalidRequest, ModelCorrupt
from models.description import described
from models.minigpt_v2 import PROMPTS, PROMPTS_V2, SYSTEM

OF = described()["minigpt_v2"]
OPEN = [("tags", "<s>"), ("text", "[INST] <Img>")]


def write(path: Path, dtype: str = "F32", boxes: bool = True, **changes: tuple) -> Path:
    """The tiny model, with MiniGPT-v2's prompts, and other metadata: keys behind "minigpt_v2.", dots as __."""
    metadata = dict(OF.tiny.metadata)
    if boxes:
        metadata = {key: entry for key, entry in metadata.items() if ".prompt." not in key}
        metadata |= {f"minigpt_v2.prompt.{key}": ("str", text) for key, text in PROMPTS_V2.items()}
        metadata["minigpt_v2.text_boxes"] = ("bool", True)
    for key, entry in changes.items():
        metadata["minigpt_v2." + key.replace("__", ".")] = entry
    write_tiny(path, dtype, tiny=dataclasses.replace(OF.tiny, metadata=metadata))
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("minigpt_v2") / "tiny.gguf")


@pytest.fixture(scope="module")
def model(path: Path) -> kosmos_edge.Model:
    return kosmos_edge.load(path, threads=1)


def encode(engine: _core.Engine, picture: np.ndarray) -> _core.ImageEmbedding:
    height, width, _ = picture.shape
    return engine.encode_image(picture.tobytes(), width, height)


def asked(model: kosmos_edge.Model, prompt: list, max_tokens: int) -> tuple[list[int], int]:
    """The answer to a prompt, with the model's own penalty, and the prompt's tokens."""
    params = _core.GenerateParams()
    params.max_tokens, params.repetition_penalty = max_tokens, model.model_info["repetition_penalty"]
    engine = model._open.engine
    return engine.generate(prompt, params).token_ids, len(engine.prompt_ids(prompt))


def given(result: kosmos_edge.Result) -> tuple[list[int], int]:
    return result.token_ids, result.timings.prompt_tokens


def test_what_it_says_of_itself(model: kosmos_edge.Model) -> None:
    info = model.model_info
    assert info["tasks"] == ["caption", "ask", "generate", "score", "ground", "locate"]
    assert info["text_boxes"] is True and info["grounding"] is None and info["merged_features"] == 4
    assert info["repetition_penalty"] == pytest.approx(1.05)


def test_each_task_has_its_tag(model: kosmos_edge.Model) -> None:
    picture = make_picture(1, 80, 60)
    image = ("image", encode(model._open.engine, picture))
    wanted = {
        "[caption] Briefly describe this image.": lambda **o: model.caption(picture, **o),
        "[vqa] what is this?": lambda **o: model.ask(picture, "what is this?", **o),
        "[refer] give me the location of a cat": lambda **o: model.locate(picture, "a cat", **o),
        "[grounding] please describe this image in details": lambda **o: model.ground(picture, **o),
        "[grounding] the house": lambda **o: model.ground(picture, "the house", **o),
        "[grounding] what is red?": lambda **o: model.ask(picture, "what is red?", ground=True, **o),
        "[identify] what is it?": lambda **o: model.ask(
            picture, "it", template="<s>[INST] <Img>{image}</Img> [identify] what is {question}? [/INST]", **o
        ),
    }
    for words, ask in wanted.items():
        prompt = [*OPEN, image, ("text", f"</Img> {words} [/INST]")]
        assert given(ask(max_tokens=5)) == asked(model, prompt, 5), words
    assert given(model.caption(picture, ground=True, max_tokens=5)) == given(model.ground(picture, max_tokens=5))


WORDS = "<p>a cat</p> {<1><20><93><100>}<delim>{<0><0><5><5>} is at {<7><8><9><10>}"


def test_boxes_in_an_answer_are_entities(model: kosmos_edge.Model, path: Path) -> None:
    """The words of the prompt are read as an answer's are, through every interface."""
    picture = make_picture(2, 80, 60)
    result = model.generate([picture, WORDS], lead_in=True, max_tokens=1)
    assert result.text.startswith("a cat is at")
    cat, place = result.entities
    assert (cat.phrase, cat.span) == ("a cat", (0, 5)) and place.phrase == ""
    assert [box.normalized for box in cat.boxes] == [(0.01, 0.2, 0.93, 1.0), (0.0, 0.0, 0.05, 0.05)]
    assert cat.boxes[0].pixels == pytest.approx((0.8, 12, 74.4, 60)) and cat.boxes[0].cells is None
    *events, done = model.generate([picture, WORDS], lead_in=True, max_tokens=1, stream=True)
    assert [e.entity for e in events if isinstance(e, kosmos_edge.EntityEvent)] == result.entities
    assert done.result.text == "".join(e.text for e in events if isinstance(e, kosmos_edge.TextDelta))
    with kosmos_edge.load(path, threads=1, isolation="process") as worker:
        assert worker.generate([picture, WORDS], lead_in=True, max_tokens=1).entities == result.entities
        assert given(worker.locate(picture, "a cat", max_tokens=4)) == given(
            model.locate(picture, "a cat", max_tokens=4)
        )
    handle = capi.load(path, threads=1)
    image = capi.encode(handle, picture)
    segments = (capi.Segment * 2)(capi.Segment(kind=3, image=image), capi.Segment(kind=1, text=WORDS.encode()))
    options = capi.Options(max_tokens=1, lead_in=1)
    said = capi.read(capi.make("generate", handle, segments, capi.c_size_t(2), capi.byref(options)))
    assert [entity[0] for entity in said["entities"]] == ["a cat", ""] and said["text"] == result.text
    located = capi.read(capi.make("locate", handle, image, b"a cat", capi.byref(capi.Options(max_tokens=4))))
    assert located["ids"] == model.locate(picture, "a cat", max_tokens=4).token_ids
    capi.lib().kosmos_image_free(image)
    capi.lib().kosmos_model_free(handle)


def test_what_it_cannot_do_is_refused(model: kosmos_edge.Model) -> None:
    picture = make_picture(1, 80, 60)
    with pytest.raises(InvalidRequest, match="this model has no location tokens"):
        model.describe(picture, (1, 1, 40, 40))  # the box would have to be written into the prompt
    with pytest.raises(InvalidRequest, match="one prompt for boxes"):
        model.ask(picture, "a", ground=True, template="{question}")
    with pytest.raises(InvalidRequest, match="one prompt for boxes"):
        model.caption(picture, length="long", ground=True)
    with pytest.raises(InvalidRequest, match="grammar: this model has no location tokens"):
        model.ground(picture, grammar=True)


def test_boxes_stay_text_where_the_model_writes_none(tmp_path: Path) -> None:
    plain = kosmos_edge.load(write(tmp_path / "x.gguf", boxes=False), threads=1)
    result = plain.generate([make_picture(2, 80, 60), WORDS], lead_in=True, max_tokens=1)
    assert result.text.startswith(WORDS) and result.entities == []
    assert plain.model_info["tasks"] == ["caption", "ask", "generate", "score"]
    with pytest.raises(InvalidRequest, match="this model has no location tokens"):
        plain.locate(make_picture(1, 80, 60), "a cat")


def test_no_words_of_its_own_for_boxes(tmp_path: Path) -> None:
    model = kosmos_edge.load(write(tmp_path / "x.gguf", prompt__grounding_words=("str", "")), threads=1)
    with pytest.raises(InvalidRequest, match="ground: this model has no prompt for it"):
        model.ground(make_picture(1, 80, 60))
    assert model.ground(make_picture(1, 80, 60), "a", max_tokens=1).token_ids


def test_turns_of_a_chat(model: kosmos_edge.Model) -> None:
    """Each has a beginning and an end; one without an image has no marks of one."""
    picture = make_picture(3, 80, 60)
    chat = model.chat(picture)
    first = chat.ask("what is this?", max_tokens=4)
    second = chat.ask("is it red?", max_tokens=4)
    prompt = [
        *OPEN,
        ("image", encode(model._open.engine, picture)),
        ("text", f"</Img> [vqa] what is this? [/INST] {first.text}"),
        ("ids", [2]),
        ("tags", "<s>"),
        ("text", "[INST] [vqa] is it red? [/INST]"),
    ]
    assert given(second) == asked(model, prompt, 4)
    assert second.timings.reused_tokens > 4


def test_rows_of_four_features(path: Path) -> None:
    engine, picture = _core.Engine(str(path), threads=1), make_picture(4, 80, 60)
    embedding = encode(engine, picture)
    assert embedding.shape == (4, OF.tiny.metadata["minigpt_v2.embedding_length"][1])
    found = np.frombuffer(embedding.tobytes(), np.float32).reshape(embedding.shape)
    assert relative_error(found, OF.definition.encode_image(picture)) < 1e-4


def test_the_files_own_penalty_is_the_default(tmp_path: Path) -> None:
    """Of every interface; 1 turns it off."""
    file = write(tmp_path / "x.gguf", generation__repetition_penalty=("f32", 0.125))
    picture = make_picture(5, 80, 60)
    with kosmos_edge.load(file, threads=1) as model:
        prompt = [*OPEN, ("image", encode(model._open.engine, picture)), ("text", "</Img> [vqa] a [/INST]")]
        penalised = model.ask(picture, "a", max_tokens=12)
        assert given(penalised) == asked(model, prompt, 12)
        plain = model.ask(picture, "a", max_tokens=12, repetition_penalty=1.0)
        assert plain.token_ids != penalised.token_ids
        assert [r.token_ids for r in model.batch([picture] * 3, "ask", question="a", max_tokens=12)] == [
            penalised.token_ids
        ] * 3
    handle = capi.load(file, threads=1)
    image = capi.encode(handle, picture)
    info = capi.ModelInfo()
    capi.call("model_get", handle, capi.byref(info))
    assert info.repetition_penalty == 0.125
    for penalty, expected in ((0, penalised), (1, plain)):
        options = capi.Options(max_tokens=12, repetition_penalty=penalty)
        assert capi.read(capi.make("ask", handle, image, b"a", capi.byref(options)))["ids"] == expected.token_ids
    capi.lib().kosmos_image_free(image)
    capi.lib().kosmos_model_free(handle)


@pytest.mark.parametrize(
    ("key", "entry", "message"),
    [
        ("image__token_id", ("u32", 2), "image.token_id is 2, the end of an answer"),
        ("projector__merged_features", ("u32", 3), "merged_features is 3; expected a divisor of 16"),
        ("projector__merged_features", ("u32", 2), r"mm\.0\.weight"),
        ("prompt__locate", ("str", "where?"), r"prompt\.locate is .where\?.; expected \{phrase\} in it"),
        ("prompt__grounding", ("str", "{image}{image}{question}"), r"at most one \{image\}"),
    ],
)
def test_what_contradicts_itself_is_refused(key: str, entry: tuple, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelCorrupt, match=message):
        kosmos_edge.load(write(tmp_path / "x.gguf", **{key: entry}))


def test_without_boxes_the_system_text_comes_first(tmp_path: Path) -> None:
    """MiniGPT-4 with LLaMA-2."""
    plain = kosmos_edge.load(write(tmp_path / "x.gguf", boxes=False), threads=1)
    assert plain.model_info["prompts"]["system"] == SYSTEM == PROMPTS["system"]
    result = plain.chat().ask("a", max_tokens=3)
    assert given(result) == asked(plain, [("text", SYSTEM), ("tags", "<s>"), ("text", "[INST] a [/INST] ")], 3)


@pytest.mark.parametrize("dtype", sweep.some(["F32", "Q8_0"], 2, 1))
def test_on_a_cuda_device(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_cuda(monkeypatch)
    file = write(tmp_path / "x.gguf", dtype)
    picture, logits, ids = make_picture(4, 90, 60), [], []
    for device in ("cpu", "cuda"):
        engine = _core.Engine(str(file), device=device)
        image = ("image", encode(engine, picture))
        data, rows, vocab = engine.logits([image, ("text", "It is a cat")])
        logits.append(np.frombuffer(data, np.float32).reshape(rows, vocab))
        params = _core.GenerateParams()
        params.max_tokens, params.repetition_penalty = 6, 2.0  # the host samples then
        ids.append(engine.generate([image, ("text", "It")], params).token_ids)
    assert np.isfinite(logits[1]).all()
    assert relative_error(logits[1], logits[0]) < {"F32": 1e-4, "Q8_0": 0.2}[dtype]
    assert dtype != "F32" or ids[0] == ids[1]
