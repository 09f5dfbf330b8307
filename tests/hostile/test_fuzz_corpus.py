"""Every known root cause, of this project and of others, replayed: refused with the expected error, or safe to use."""

import json
import os
import sys
from pathlib import Path

import corpus_files
import pytest
from corpus import CASES, SAFE, builder
from helpers.convert_checkpoint import convert_safetensors_bytes
from helpers.small_model import small_model
from helpers.tiny import write_gguf

from kosmos_edge import Model, _core, errors, open_image
from kosmos_edge.convert import requantize
from kosmos_edge.convert.models.kosmos_vocabulary import read_sentencepiece, read_tokenizer_json
from kosmos_edge.convert.sources.files import Folder, SourceFile
from kosmos_edge.convert.sources.weights import read_sharded, read_state

PIXELS = bytes(range(192))
OPENED: list[str] | None = None


def _hook(event: str, arguments: tuple) -> None:
    if OPENED is not None and event == "open" and isinstance(arguments[0], str | bytes):
        OPENED.append(os.fsdecode(arguments[0]))


sys.addaudithook(_hook)  # cannot be removed again: silent unless OPENED is a list


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Model:
    path = tmp_path_factory.mktemp("small") / "small.gguf"
    write_gguf(path, small_model())
    with Model(_core.Engine(str(path), threads=1), path) as model:
        yield model


def caption(engine: _core.Engine, prompt=("text", "An image of"), **params) -> None:
    values = _core.GenerateParams()
    values.max_tokens = 2
    for name, value in params.items():
        setattr(values, name, value)
    picture = engine.encode_image(PIXELS, 8, 8)
    answer = engine.generate([("image", picture), prompt], values)
    assert all(0 <= i < engine.tokenizer.size for i in answer.token_ids)


def run_gguf(data: bytes, work: Path, model: Model, error: str) -> None:
    """Refused alike in both modes of loading, or captioned; "caption": loaded, and the caption is the typed error."""
    path = work / "model.gguf"
    path.write_bytes(data)
    told = []
    for mode in ("mmap", "copy"):
        try:
            engine = _core.Engine(str(path), threads=1, mode=mode)
            caption(engine)
        except errors.ModelCorrupt as e:
            told.append(str(e))
            if error == "caption":
                continue
    assert len(told) in (0, 2) and len(set(told)) <= 1, told
    caption(model._open.engine)  # a good model is as it was
    if told:
        raise errors.ModelCorrupt(told[0])


def run_weights(data: bytes, work: Path, model: Model, error: str) -> None:
    path = work / "weights.Safetensors"  # the name says nothing
    path.write_bytes(data)
    with SourceFile(path) as file:
        for tensor in read_state(file).values():
            tensor.read(0, tensor.nbytes)


def run_index(name: str, work: Path, model: Model, error: str) -> None:
    """A shard of that name beside and outside of the folder; nothing outside may be opened."""
    global OPENED
    folder = work / "model"
    folder.mkdir()
    shard = convert_safetensors_bytes({"a": ((2,), bytes(8))})
    (work / "outside.safetensors").write_bytes(shard)
    (folder / "a.safetensors").write_bytes(shard)
    (folder / "i.json").write_text(json.dumps({"weight_map": {"a": name}}))
    files: list[SourceFile] = []
    OPENED = []
    try:
        opened = Folder(folder)
        files.append(opened.open("i.json"))
        read_sharded(opened, files[0], files)
    finally:
        seen, OPENED = OPENED, None
        for file in files:
            file.close()
        assert all(Path(path).resolve().parent == folder.resolve() for path in seen), seen


def run_tokenizer_json(data: dict, work: Path, model: Model, error: str) -> None:
    read_tokenizer_json(json.dumps(data).encode("utf-8", "surrogatepass"), Path("tokenizer.json"))


def run_sentencepiece(data: bytes, work: Path, model: Model, error: str) -> None:
    read_sentencepiece(data, Path("sentencepiece.bpe.model"), None)


def run_picture(data: bytes | str, work: Path, model: Model, error: str) -> None:
    picture = open_image(data)
    model._open.engine.encode_image(picture.rgb, picture.width, picture.height)


def run_request(params: dict, work: Path, model: Model, error: str) -> None:
    caption(model._open.engine, **params)


def run_text(text: str | bytes, work: Path, model: Model, error: str) -> None:
    """The text as a user's question; what it spells stays data."""
    engine = model._open.engine
    special = {
        i for i in range(engine.tokenizer.size) if engine.tokenizer.text(i) == "" or "<" in engine.tokenizer.piece(i)
    }
    unknown = {engine.tokenizer.find("<unk>")}
    assert not (set(engine.tokenizer.encode(text)) - unknown) & special
    caption(engine, ("text", text))


def run_requantize(data: bytes, work: Path, model: Model, error: str) -> None:
    path = work / "model.gguf"
    path.write_bytes(data)
    requantize(path, work / "stored.gguf", type="q8_0")
    caption(_core.Engine(str(work / "stored.gguf"), threads=1))


RUN = {
    "gguf": run_gguf,
    "requantize": run_requantize,
    "weights": run_weights,
    "index": run_index,
    "tokenizer_json": run_tokenizer_json,
    "sentencepiece": run_sentencepiece,
    "picture": run_picture,
    "path": run_picture,
    "request": run_request,
    "text": run_text,
}


def test_the_corpus_is_whole():
    assert corpus_files.CASES is CASES
    assert len({case.name for case in CASES}) == len(CASES) >= 150
    assert {case.kind for case in CASES} == set(RUN)


def test_the_model_that_cases_are_made_from_is_good(tmp_path, model):
    run_gguf(builder().build(), tmp_path, model, SAFE)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}: {case.name}"[:90])
def test_replay(case, tmp_path, model):
    run = RUN[case.kind]
    if case.error == SAFE:
        run(case.make(), tmp_path, model, case.error)
        return
    expected = errors.ModelCorrupt if case.error == "caption" else getattr(errors, case.error)
    with pytest.raises(errors.KosmosError) as caught:
        run(case.make(), tmp_path, model, case.error)
    assert type(caught.value) is expected, repr(caught.value)
    assert case.text in str(caught.value), str(caught.value)
