"""InstructBLIP: what the suite over all models does not ask. An image's rows are made with the words of the prompt, and
those of another question are never used; where the image stands; what begins a prompt; a CUDA device."""

import dataclasses
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers import capi, sweep
from helpers.cuda_emulated import use_cuda
from helpers.golden_cases import relative_error
from helpers.tiny import make_picture, write_tiny

import kosmos_edge
from kosmos_edge import _core
from kosmos_edge.bench.cost import Cost
from kosmos_edge.convert import requantize
from kosmos_edge.errors import ContextTooLong, InvalidRequest, ModelCorrupt
from models.description import described
from models.instructblip import EOS, POSITIONS

OF = described()["instructblip"]
IMAGE = OF.tiny.vocabulary.id("<image>")
ROWS = 8
QUESTIONS = ["what is this?", "which color is it", "is it red or blue?"]


def write(path: Path, dtype: str = "F32", **changes: tuple) -> Path:
    """The tiny model with other metadata: keys behind "instructblip.", dots as __."""
    metadata = dict(OF.tiny.metadata)
    for key, entry in changes.items():
        metadata["instructblip." + key.replace("__", ".")] = entry
    write_tiny(path, dtype, tiny=dataclasses.replace(OF.tiny, metadata=metadata))
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("instructblip") / "tiny.gguf")


@pytest.fixture(scope="module")
def model(path: Path) -> kosmos_edge.Model:
    return kosmos_edge.load(path, threads=1)


def encode(engine: _core.Engine, picture: np.ndarray, keep: bool = False) -> _core.ImageEmbedding:
    height, width, _ = picture.shape
    return engine.encode_image(picture.tobytes(), width, height, None, keep)


def rows_of(embedding: _core.ImageEmbedding) -> np.ndarray:
    return np.frombuffer(embedding.tobytes(), np.float32).reshape(embedding.shape)


def logits_of(engine: _core.Engine, segments: list) -> np.ndarray:
    data, rows, vocab = engine.logits(segments)
    return np.frombuffer(data, np.float32).reshape(rows, vocab)


def essence(result: kosmos_edge.Result) -> tuple:
    return result.token_ids, result.logprobs, result.text


# ---- rows of an image, and the question


def test_rows_are_those_of_the_definition_for_every_question(model: kosmos_edge.Model) -> None:
    """One after the other, of one encoded image; the first again, and without words."""
    engine, picture = model._open.engine, make_picture(1, 90, 70)
    image, features = encode(engine, picture), OF.definition.features(picture)
    found = [rows_of(engine.read_image(image, words)) for words in [*QUESTIONS, "", QUESTIONS[0]]]
    for rows, words in zip(found, [*QUESTIONS, "", QUESTIONS[0]], strict=True):
        assert relative_error(rows, OF.definition.rows_of(features, words)) < 1e-4
    assert np.array_equal(found[0], found[4]) and len({rows.tobytes() for rows in found}) == 4
    assert relative_error(found[0], found[1]) > 0.01  # the question matters


def test_words_are_read_without_case_and_accents(model: kosmos_edge.Model) -> None:
    engine = model._open.engine
    image = encode(engine, make_picture(1, 90, 70))
    same = [rows_of(engine.read_image(image, words)) for words in ("what is it", " WHAT\n is\tît ")]
    assert np.array_equal(*same)


@pytest.mark.parametrize("keep", [False, True])
def test_an_encoded_picture_answers_every_question_as_a_new_one(path: Path, keep: bool) -> None:
    """In any order; only the same question again computes less."""
    with kosmos_edge.load(path, threads=1, prefix_cache_mb=16 if keep else 0) as model:
        picture = make_picture(2, 80, 60)
        kept = model.encode(picture)
        fresh = {q: essence(model.ask(picture, q, max_tokens=8, logprobs=True)) for q in QUESTIONS}
        assert len({answer[1][0] for answer in fresh.values()}) == len(QUESTIONS)
        last = None
        for asked in [0, 1, 1, 0, 2, 2, 1]:
            result = model.ask(kept, QUESTIONS[asked], max_tokens=8, logprobs=True)
            assert essence(result) == fresh[QUESTIONS[asked]], asked
            assert (result.timings.reused_tokens > ROWS) == (keep and asked == last)
            last = asked
        assert (kept.kept_positions > ROWS) == keep
        kept.forget()
        assert kept.kept_positions == 0
        again = model.ask(kept, QUESTIONS[last], max_tokens=8, logprobs=True)
        assert essence(again) == fresh[QUESTIONS[last]] and again.timings.reused_tokens == 0


def test_threads_with_questions_of_their_own(model: kosmos_edge.Model) -> None:
    picture = make_picture(3, 80, 60)
    kept, found = model.encode(picture), {}
    expected = {q: essence(model.ask(picture, q, max_tokens=6)) for q in QUESTIONS}

    def ask(number: int) -> None:
        question = QUESTIONS[number % len(QUESTIONS)]
        found[number] = question, [essence(model.ask(kept, question, max_tokens=6)) for _ in range(4)]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert all(answer == expected[question] for question, answers in found.values() for answer in answers)


def test_questions_side_by_side_in_a_batch(model: kosmos_edge.Model) -> None:
    engine = model._open.engine
    image = encode(engine, make_picture(4, 80, 60), keep=True)
    params = _core.GenerateParams()
    params.max_tokens, params.logprobs = 6, True
    prompts = [[("image", image), ("text", text)] for text in QUESTIONS]
    alone = [engine.generate([("image", encode(engine, make_picture(4, 80, 60))), p[1]], params) for p in prompts]
    batch, found = _core.Batch(engine, 3), {}
    for prompt in prompts:
        batch.add(prompt, params)
    while batch.open:
        found |= {f.key: f.result() for f in batch.step(None)}
    assert [found[key].token_ids for key in sorted(found)] == [g.token_ids for g in alone]
    assert [found[key].logprobs for key in sorted(found)] == [g.logprobs for g in alone]


def test_a_batch_of_pictures_and_one_question(model: kosmos_edge.Model) -> None:
    pictures = [make_picture(seed, 80, 60) for seed in range(3)]
    for question in QUESTIONS[:2]:
        expected = [essence(model.ask(picture, question, max_tokens=6)) for picture in pictures]
        encoded = [model.encode(picture) for picture in pictures]
        for given in (pictures, encoded):
            found = model.batch(given, "ask", question=question, batch_size=2, max_tokens=6)
            assert [essence(result) for result in found] == expected


def test_a_conversation_is_looked_at_anew_with_every_turn(model: kosmos_edge.Model) -> None:
    """The image's words are the whole transcript, so every turn is what a single call with it gives."""
    engine, picture = model._open.engine, make_picture(5, 80, 60)
    chat = model.chat(picture)
    first = chat.ask(QUESTIONS[0], max_tokens=6)
    second = chat.ask(QUESTIONS[1], max_tokens=6, logprobs=True)
    assert first.token_ids == model.ask(picture, QUESTIONS[0], max_tokens=6).token_ids
    words = [f"Question: {QUESTIONS[0]} Short answer: {first.text}", f"Question: {QUESTIONS[1]} Short answer:"]
    segments = [("image", encode(engine, picture)), ("text", words[0]), ("ids", [EOS]), ("text", words[1])]
    params = _core.GenerateParams()
    params.max_tokens = 6
    assert second.token_ids == engine.generate(segments, params).token_ids
    assert second.timings.prompt_tokens == len(engine.prompt_ids(segments)) and second.timings.reused_tokens == 0
    read = rows_of(engine.read_image(encode(engine, picture), " ".join(words)))
    expected = OF.definition.prompt([
        read, engine.tokenizer.encode(words[0]), [EOS], engine.tokenizer.encode(words[1], at_start=False)
    ])  # fmt: skip
    assert engine.prompt_ids(segments) == expected.ids
    assert relative_error(logits_of(engine, segments), OF.definition.logits(expected)) < 1e-4
    chat.undo()
    assert chat.ask(QUESTIONS[1], max_tokens=6, logprobs=True).logprobs == second.logprobs


def test_texts_are_ranked_behind_the_words_in_front_of_them(model: kosmos_edge.Model) -> None:
    """The texts themselves are none of the image's words."""
    picture = make_picture(6, 80, 60)
    kept = model.encode(picture)
    for template in ("It is {text}", "The color is {text}", "It is {text}"):
        ranking = model.score(kept, ["red", "blue"], template=template)
        words = template.removesuffix(" {text}")
        rows = OF.definition.rows_of(OF.definition.features(picture), words)
        encode_text = model._open.engine.tokenizer.encode
        prompt = OF.definition.prompt([rows, encode_text(words)])
        for row in ranking.ranking:
            continuation = encode_text(" " + row.text, at_start=False)
            assert row.token_ids == continuation
            assert row.logprobs == pytest.approx(OF.definition.score(prompt, continuation), abs=5e-3)


def rows_in(prompt_ids: list[int]) -> list[int]:
    return [i for i, token in enumerate(prompt_ids) if token == IMAGE]


SPREAD = {
    "words in front": ([0], ["Look.", None, "is it red"], ["Look. is it red"]),
    "words behind two pictures": ([0, 1], [None, None, "is it red"], ["is it red"] * 2),
    "a picture each": ([0, 1], [None, "what is", None, "it"], ["what is", "it"]),
    "a blank is no word": ([0, 1], [None, " \n", None, "it"], ["it", "it"]),
    "no word behind the last": ([0, 1], [None, "what is it", None], ["what is it", ""]),
    "texts that touch are one": ([0], [None, "what", "ever is it"], ["whatever is it"]),
}


@pytest.mark.parametrize("spread", SPREAD)
def test_which_words_are_a_pictures(model: kosmos_edge.Model, spread: str) -> None:
    """Those up to the next picture, for the first one also those in front; pictures side by side share theirs."""
    engine = model._open.engine
    numbers, given, words = SPREAD[spread]
    pictures = [make_picture(10 + number, 80, 60) for number in numbers]
    left = list(pictures)
    segments = [("image", encode(engine, left.pop(0))) if part is None else ("text", part) for part in given]
    got = logits_of(engine, segments)
    read = [OF.definition.rows_of(OF.definition.features(p), w) for p, w in zip(pictures, words, strict=True)]
    ids = engine.prompt_ids(segments)
    vectors = dict(zip(rows_in(ids), np.concatenate(read), strict=True))
    prompt = dataclasses.replace(OF.definition.prompt([[0]]), ids=ids, vectors=vectors)
    assert relative_error(got, OF.definition.logits(prompt)) < 1e-4


def test_rows_of_the_callers_own_read_nothing(model: kosmos_edge.Model) -> None:
    engine, width = model._open.engine, OF.definition.width
    own = np.random.default_rng(1).normal(size=(3, width)).astype(np.float32)
    rows = ("rows", engine.given_rows(own.tobytes(), 3))
    picture = make_picture(7, 60, 60)
    segments = [rows, ("image", encode(engine, picture)), ("text", "it is")]
    got, ids = logits_of(engine, segments), engine.prompt_ids(segments)
    read = OF.definition.rows_of(OF.definition.features(picture), "it is")
    prompt = OF.definition.prompt([own, read, ids[3 + ROWS + 1 :]])
    assert relative_error(got, OF.definition.logits(prompt)) < 1e-4
    with pytest.raises(InvalidRequest, match="these rows depend on no words"):
        engine.read_image(rows[1], "it is")


def test_the_worker_process_reads_every_question(path: Path, model: kosmos_edge.Model) -> None:
    with kosmos_edge.load(path, threads=1, isolation="process") as worker:
        kept = worker.encode(make_picture(8, 80, 60))
        for question in [*QUESTIONS, QUESTIONS[0]]:
            expected = model.ask(make_picture(8, 80, 60), question, max_tokens=6)
            assert worker.ask(kept, question, max_tokens=6).token_ids == expected.token_ids


def test_the_c_library_reads_every_question(path: Path, model: kosmos_edge.Model) -> None:
    """With one encoded image."""
    handle = capi.load(path, threads=1)
    image = capi.encode(handle, make_picture(8, 80, 60))
    for question in [*QUESTIONS, QUESTIONS[0]]:
        said = capi.read(capi.make("ask", handle, image, question.encode(), capi.byref(capi.Options(max_tokens=6))))
        assert said["ids"] == model.ask(make_picture(8, 80, 60), question, max_tokens=6).token_ids
    capi.lib().kosmos_image_free(image)
    capi.lib().kosmos_model_free(handle)


def test_saved_features_answer_every_question(model: kosmos_edge.Model) -> None:
    engine = model._open.engine
    image = encode(engine, make_picture(9, 80, 60))
    assert image.shape == (17, 352)
    again = engine.restore_image(image.tobytes())
    for words in QUESTIONS:
        assert engine.read_image(again, words).tobytes() == engine.read_image(image, words).tobytes()


# ---- what is refused


def test_more_words_than_the_qformer_has_positions_for(model: kosmos_edge.Model) -> None:
    """Nothing is cut off."""
    picture, most = make_picture(1, 60, 60), POSITIONS - 2
    model.generate([picture, "a " * most], max_tokens=1)
    message = rf"the words beside a picture are {most + 1} tokens .*; expected at most {most}"
    with pytest.raises(ContextTooLong, match=message):
        model.generate([picture, "a " * (most + 1)], max_tokens=1)
    model.generate(["a " * (most + 1)], max_tokens=1)  # without a picture only the decoder reads them


def test_an_image_of_another_model(model: kosmos_edge.Model, path: Path) -> None:
    other = _core.Engine(str(path), threads=1)
    with pytest.raises(InvalidRequest, match="another model"):
        model._open.engine.read_image(encode(other, make_picture(1, 60, 60)), "it")


def test_the_end_and_the_placeholder_are_two_tokens(tmp_path: Path) -> None:
    path = write(tmp_path / "x.gguf", image__token_id=("u32", EOS))
    with pytest.raises(ModelCorrupt, match=rf"image.token_id is {EOS}, the end of an answer"):
        kosmos_edge.load(path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "qformer__begin_token_id",
            3,
            "qformer.begin_token_id is 3, end_token_id 3, unknown_token_id 1; expected three",
        ),
        ("qformer__unknown_token_id", 2, "expected three"),
        ("qformer__end_token_id", 5000, "end_token_id is 5000; expected less than instructblip.qformer.vocab_size"),
    ],
)
def test_tokens_of_the_question(key: str, value: int, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.gguf", **{key: ("u32", value)})
    with pytest.raises(ModelCorrupt) as error:
        kosmos_edge.load(path)
    assert message in str(error.value)


def test_a_piece_twice_names_the_key(tmp_path: Path) -> None:
    pieces = list(OF.tiny.metadata["instructblip.qformer.tokens"][1])
    path = write(tmp_path / "x.gguf", qformer__tokens=("[str]", [*pieces[:-1], pieces[9]]))
    with pytest.raises(ModelCorrupt, match=r"instructblip\.qformer\.tokens: .* are the same piece"):
        kosmos_edge.load(path)


# ---- prompts


def test_the_image_stands_before_what_begins_the_text(model: kosmos_edge.Model) -> None:
    """InstructBlipProcessor puts its ids in front of the tokenizer's, the first of which is the beginning: </s>."""
    engine = model._open.engine
    image, rows, text = ("image", encode(engine, make_picture(1, 60, 60))), [IMAGE] * ROWS, ("text", "It is")
    words = engine.tokenizer.encode("It is")
    assert engine.prompt_ids([image]) == [*rows, EOS]
    assert engine.prompt_ids([image, text]) == [*rows, EOS, *words]
    assert engine.prompt_ids([text]) == [EOS, *words]
    assert engine.prompt_ids([text, image]) == [EOS, *words, *rows]


def test_another_token_may_begin_prompts(tmp_path: Path) -> None:
    path = write(tmp_path / "x.gguf", begin_token_id=("u32", 1))
    engine = _core.Engine(str(path), threads=1)
    assert engine.prompt_ids([("text", "a")])[0] == 1


def test_the_placeholder_is_never_generated(tmp_path: Path) -> None:
    """However likely it is: the next best token comes."""
    picture = make_picture(1, 60, 60)
    best = kosmos_edge.load(write(tmp_path / "a.gguf"), threads=1).caption(picture, max_tokens=1).token_ids[0]
    rows = OF.tiny.weights["output.weight"].copy()
    rows[IMAGE] = 2 * rows[best]
    write_tiny(
        tmp_path / "b.gguf", tiny=dataclasses.replace(OF.tiny, weights={**OF.tiny.weights, "output.weight": rows})
    )
    result = kosmos_edge.load(tmp_path / "b.gguf", threads=1).caption(picture, max_tokens=1, logprobs=True)
    assert result.token_ids == [best] and result.logprobs[0] < np.log(0.5)  # another was likelier


# ---- files and devices


def test_the_encoder_alone_is_counted_as_encoding(path: Path) -> None:
    """The Q-Former runs with each prompt."""
    width, ff, rows, patch = 352, 512, 17, 14
    block = rows * (4 * width * width + 2 * width * ff) + 2 * rows * rows * width
    assert Cost.of(str(path)).encode_macs() == 16 * 3 * patch * patch * width + 2 * block


def test_small_types_where_rows_allow_them(path: Path, tmp_path: Path) -> None:
    made = requantize(path, tmp_path / "b.gguf", type="q4_k_m").output
    stored = {name: dtype for name, dtype, *_ in _core.GgufFile(str(made)).tensors()}
    assert stored["v.blk.0.attn_q.weight"] == "Q8_0" and stored["blk.0.attn_q.weight"] == "Q4_K"
    assert stored["mm.blk.0.text.ffn_up.weight"] == stored["mm.token_embd.weight"] == "Q8_0"
    assert stored["mm.query"] == stored["mm.position_embd.weight"] == "F32"


@pytest.mark.parametrize("dtype", sweep.some(["F32", "Q8_0"], 2, 1))
def test_on_a_cuda_device(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_cuda(monkeypatch)
    path = write(tmp_path / "x.gguf", dtype)
    picture, logits = make_picture(4, 90, 60), []
    for device in ("cpu", "cuda"):
        engine = _core.Engine(str(path), device=device)
        logits.append(logits_of(engine, [("image", encode(engine, picture)), ("text", "It is a cat")]))
    assert np.isfinite(logits[1]).all()
    assert relative_error(logits[1], logits[0]) < {"F32": 1e-4, "Q8_0": 0.2}[dtype]
