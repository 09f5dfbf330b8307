"""Every model through every interface: batches, streams, the C library, the worker process, the command line; what it
has no task for is refused alike everywhere; calls can be cancelled at every poll and equal ones give equal bits."""

import functools
import json
from collections.abc import Callable, Iterator
from ctypes import byref, c_size_t
from pathlib import Path
from typing import Any

import determinism
import numpy as np
import pytest
from helpers import capi, sweep
from helpers.capi import CError, call, lib, make
from helpers.tiny import make_picture
from PIL import Image

import kosmos_edge
from kosmos_edge import Cancelled, _core, cli
from kosmos_edge.bench.workload import Work
from kosmos_edge.errors import InvalidRequest
from models.description import BOX, CASES, PHRASE, QUESTION, TEXTS, Case, Described, arguments_of, options_of

VERBS = sorted({case.task for case in CASES.values()} - {"generate"})  # of one picture
REFUSED = dict.fromkeys(("caption", "ask", "read"), "this model has no prompt for it")
NO_BOXES = "this model has no location tokens"


def picture(seed: int) -> np.ndarray:
    return make_picture(seed, 100, 80)


def ask(model: kosmos_edge.Model, case: Case, seed: int = 0, **options: Any) -> Any:
    """The case's verb about pictures of that seed."""
    positional, named = arguments_of(case, [picture(seed + n) for n in range(case.pictures)])
    return getattr(model, case.task)(*positional, **named, **(options_of(case) | options))


def verb_of(case: Case, model: kosmos_edge.Model) -> Callable[..., Any]:
    """The case's verb with its arguments, but for the picture and options of decoding."""
    return functools.partial(getattr(model, case.task), **arguments_of(case, [None])[1])


def essence(result: kosmos_edge.Result) -> dict[str, Any]:
    """All of a result but its timings."""
    out = result.to_dict()
    del out["timings"]
    return out


def ranked(ranking: kosmos_edge.Ranking) -> list[tuple[str, list[float]]]:
    return [(row.text, row.logprobs) for row in ranking.ranking]


@pytest.fixture(scope="module")
def worker(of: Described, files: dict[str, Path]) -> Iterator[kosmos_edge.Model]:
    with kosmos_edge.load(files[of.architecture], threads=1, isolation="process") as model:
        yield model


@pytest.fixture(scope="module")
def handle(of: Described, files: dict[str, Path]) -> Iterator[capi.c_void_p]:
    model = capi.load(files[of.architecture], threads=1)
    yield model
    lib().kosmos_model_free(model)


# ---- Python


def test_a_stream_adds_up_to_the_result(of: Described, case: Case, model: kosmos_edge.Model) -> None:
    expected = ask(model, case, logprobs=True)
    *events, done = ask(model, case, logprobs=True, stream=True)
    assert essence(done.result) == essence(expected) and expected.token_ids
    text = "".join(event.text for event in events if isinstance(event, kosmos_edge.TextDelta))
    assert text == expected.text
    found = [event.entity for event in events if isinstance(event, kosmos_edge.EntityEvent)]
    assert found == expected.entities


def test_a_batch_gives_the_answers_of_one_at_a_time(of: Described, model: kosmos_edge.Model) -> None:
    check_batches(of, model, 3)
    if sweep.WHOLE or of.architecture in ("kosmos2", "blip2_t5"):
        check_batches(of, model, 1)


def check_batches(of: Described, model: kosmos_edge.Model, size: int) -> None:
    pictures = [picture(seed) for seed in range(4)]
    for case in of.cases:
        if case.task == "generate":
            continue  # it has no batch
        named = {**arguments_of(case, [pictures[0]] * case.pictures)[1], **options_of(case), "logprobs": True}
        alone = [essence(getattr(model, case.task)(image, **named)) for image in pictures]
        assert [essence(r) for r in model.batch(pictures, case.task, batch_size=size, **named)] == alone, case.name
        assert len({str(answer) for answer in alone}) > 1 or case.task == "locate"
    alone = [ranked(model.score(image, TEXTS)) for image in pictures]
    assert [ranked(r) for r in model.batch(pictures, "score", batch_size=size, texts=TEXTS)] == alone


def test_an_encoded_picture_is_not_computed_again(of: Described, model: kosmos_edge.Model) -> None:
    kept = model.encode(picture(1))
    assert kept.shape == of.kept_shape(model.image_tokens) and (model.image_tokens == 0) == (of.looked_at is not None)
    for _ in range(2):
        again = model.ask(kept, QUESTION, max_tokens=6)
        assert again.token_ids == model.ask(picture(1), QUESTION, max_tokens=6).token_ids
    assert again.timings.reused_tokens > model.image_tokens


def test_choices(of: Described, model: kosmos_edge.Model) -> None:
    result = model.ask(picture(1), QUESTION, choices=TEXTS)
    assert result.text in TEXTS and result.finish_reason == "choice"


def test_equal_requests_give_equal_bits(of: Described, path: Path) -> None:
    """One by one, side by side, in threads, with other numbers of threads: bench/determinism.py."""
    numbers = range(4)
    found = {name: way(numbers) for name, way in determinism.ways(str(path), 2).items()}
    first = next(iter(found.values()))
    assert len({answer for answer in first.values()}) == len(numbers)
    for name, answers in found.items():
        assert answers == first, name


# ---- cancelling, without a clock: a token that cancels at its n-th poll, for every n

ENDLESS = 1 << 60


def phases(of: Described, path: Path, engine: _core.Engine) -> dict[str, Callable[[Any], object]]:
    """Name -> a call that can be cancelled; what it gives can be compared."""
    pixels = picture(1).tobytes()
    image = ("image", engine.encode_image(pixels, 100, 80))
    prompt = [image, ("text", "An image of")]

    def params(**fields: Any) -> _core.GenerateParams:
        out = _core.GenerateParams()
        for name, value in ({"max_tokens": 4} | fields).items():
            setattr(out, name, value)
        return out

    def batch(cancel: Any) -> list[list[int]]:
        members, found = _core.Batch(engine, 3), {}
        for number in range(3):
            members.add([image, ("text", "a dog " * number + "An image of")], params())
        while members.open:
            found |= {f.key: f.result().token_ids for f in members.step(cancel)}
        return [found[key] for key in sorted(found)]

    def score(cancel: Any) -> object:
        rows = engine.score(prompt, [[("text", text)] for text in TEXTS], cancel).continuations
        return [(row.token_ids, np.array(row.logprobs).tobytes()) for row in rows]

    return {
        "load": lambda cancel: _core.Engine(str(path), threads=1, cancel=cancel).info,
        "encode": lambda cancel: engine.encode_image(pixels, 100, 80, cancel).tobytes(),
        "generate": lambda cancel: engine.generate(prompt, params(), None, cancel).token_ids,
        "beams": lambda cancel: engine.generate(prompt, params(num_beams=2), None, cancel).token_ids,
        "batch": batch,
        "score": score,
    }


@pytest.mark.parametrize("name", ["load", "encode", "generate", "beams", "batch", "score"])
def test_every_poll_can_be_the_last(
    of: Described, path: Path, model: kosmos_edge.Model, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model._open.engine, "drafts", "off")  # or an answer needs fewer passes when it comes again
    calls = phases(of, path, model._open.engine)
    count = _core.testing.CountedCancel(ENDLESS)
    want = calls[name](count)
    layers = len({n.split(".")[1] for n in of.tiny.weights if n.startswith("blk.")})
    assert count.polls >= {"load": len(of.tiny.weights) // 2, "encode": 4}.get(name, 2 * layers * 2 - 1)
    for allowed in range(0, count.polls, 11 if name == "load" else 3):
        cancel = _core.testing.CountedCancel(allowed)
        with pytest.raises(Cancelled):
            calls[name](cancel)
        assert cancel.polls == allowed + 1  # not one step more
    assert calls[name](None) == want  # nothing is left behind


# ---- the worker process


def test_the_worker_process_answers_alike(of: Described, model: kosmos_edge.Model, worker: kosmos_edge.Model) -> None:
    assert worker.model_info == model.model_info
    for case in of.cases:
        assert essence(ask(worker, case, logprobs=True)) == essence(ask(model, case, logprobs=True)), case.name
    assert ranked(worker.score(picture(1), TEXTS)) == ranked(model.score(picture(1), TEXTS))
    encoded = worker.encode(picture(2))
    assert encoded.tobytes() == model.encode(picture(2)).tobytes()
    *_, done = verb_of(of.plain, worker)(encoded, max_tokens=6, stream=True)
    assert done.result.token_ids == verb_of(of.plain, model)(picture(2), max_tokens=6).token_ids


# ---- the C library


def c_arguments(verb: str) -> list[Any]:
    """What stands between the image and the options."""
    if verb == "describe":
        return [byref(capi.Region(**dict(zip(("x1", "y1", "x2", "y2"), BOX, strict=True)), unit=1))]
    words = {"ask": QUESTION, "locate": PHRASE}.get(verb)
    return [] if verb in ("caption", "read") else [words and words.encode()]


def test_the_c_library_says_what_the_model_is(of: Described, model: kosmos_edge.Model, handle: capi.c_void_p) -> None:
    info = capi.ModelInfo()
    call("model_get", handle, byref(info))
    assert info.architecture.decode() == of.architecture
    assert [info.tasks[i].decode() for i in range(info.task_count)] == of.tasks
    assert info.vocabulary == len(of.tiny.vocabulary.pieces) and info.image_tokens == model.image_tokens
    assert (info.location_bins > 0) == ("locate" in of.tasks)


def test_the_c_library_answers_alike(of: Described, model: kosmos_edge.Model, handle: capi.c_void_p) -> None:
    image = capi.encode(handle, picture(0))
    for case in of.cases:
        if case.pictures > 1:
            continue
        options = byref(
            capi.Options(max_tokens=case.max_tokens, num_beams=case.beams, detailed=int("length" in case.arguments),
                         markdown=int("markdown" in case.arguments), grammar=-1, logprobs=1, repetition_penalty=1)
        )  # fmt: skip
        if case.task == "generate":
            segments = (capi.Segment * 2)(capi.Segment(kind=3, image=image), capi.Segment(kind=1, text=b"It is"))
            said = capi.read(make("generate", handle, segments, c_size_t(2), options))
        else:
            said = capi.read(make(case.task, handle, image, *c_arguments(case.task), options))
        expected = ask(model, case, logprobs=True)
        assert (said["ids"], said["logprobs"]) == (expected.token_ids, expected.logprobs), case.name
        assert (said["text"], said["notes"], said["finish"]) == (expected.text, expected.notes, expected.finish_reason)
        assert len(said["entities"]) == len(expected.entities)
    ranking = make("score", handle, image, capi.texts(*TEXTS), c_size_t(len(TEXTS)), None)
    for rank, row in enumerate(model.score(picture(0), TEXTS).ranking):
        info = capi.ScoreInfo()
        call("ranking_get", ranking, c_size_t(rank), byref(info))
        assert (TEXTS[info.index], info.logprobs[: info.token_count]) == (row.text, row.logprobs)
    lib().kosmos_ranking_free(ranking)
    lib().kosmos_image_free(image)


# ---- the command line


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(picture(0)).save(path)
    return path


def words_of(verb: str, photo: Path) -> list[str]:
    box = ["--box", ",".join(map(str, BOX)), "--normalized"] if verb == "describe" else []
    return [verb, str(photo), *{"ask": [QUESTION], "locate": [PHRASE]}.get(verb, box)]


def test_the_command_line_answers_alike(
    of: Described, path: Path, model: kosmos_edge.Model, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["-m", str(path), "-t", "1", "-f", "json"]
    for verb in (verb for verb in VERBS if verb in of.tasks):
        assert cli.run([*words_of(verb, photo), *common, "--max-tokens", "6"]) == 0
        said = json.loads(capsys.readouterr().out)
        ground = {"ground": True} if verb == "caption" and "ground" in of.tasks else {}  # boxes where it can
        positional, named = arguments_of(CASES[verb], [photo])
        expected = getattr(model, verb)(*positional, **named, **ground, max_tokens=6)
        assert (said["text"], said["token_ids"]) == (expected.text, expected.token_ids), verb
        assert len(said["lines" if verb == "read" else "entities"]) == len(expected.entities)
    assert cli.run(["generate", "--image", str(photo), "--text", "It is", *common, "--max-tokens", "6"]) == 0
    expected = model.generate([photo, "It is"], max_tokens=6)
    assert json.loads(capsys.readouterr().out)["token_ids"] == expected.token_ids
    assert cli.run(["score", str(photo), *TEXTS, *common]) == 0
    said = [row["text"] for row in json.loads(capsys.readouterr().out)["ranking"]]
    assert said == [row.text for row in model.score(photo, TEXTS).ranking]


def test_bench_measures_it(
    of: Described, path: Path, model: kosmos_edge.Model, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every phase; a prompt with the picture at its place; products and bytes as counted from the tensors."""
    words = ["bench", "-m", str(path), "-t", "1", "--rounds", "1", "--tokens", "2", "--batches", "2", "-f", "json"]
    assert cli.run([*words, "--phases", "encode,prefill,decode,caption,folder,hash"]) == 0
    report = json.loads(capsys.readouterr().out)
    phases, weights = report["phases"], of.tiny.weights
    assert phases["folder"]["2"]["images_per_s"]["median"] > 0
    tokens, boxes = int(phases["prefill"]["tokens"]), "ground" in of.tasks
    asked_for = next(c for task in ("caption", "read", "ask") for c in of.cases if c.task == task)
    ground = {"ground": True} if boxes else {}
    assert tokens == verb_of(asked_for, model)(picture(0), **ground, max_tokens=1).timings.prompt_tokens
    if not boxes:
        engine = model._open.engine
        rgb = picture(0)
        asked = Work(engine)._prompt(engine.encode_image(rgb.tobytes(), rgb.shape[1], rgb.shape[0]))
        assert engine.prompt_ids(asked) == of.prompt(asked_for.name, engine.tokenizer, [rgb]).ids
    of_image = {
        n: w for n, w in weights.items() if n.startswith("blk.") and (".cross.attn_k." in n or ".cross.attn_v." in n)
    }
    layers = sum(w.size for n, w in weights.items() if n.startswith("blk.") and w.ndim == 2 and n not in of_image)
    query, key = (len(weights[f"blk.0.attn_{x}.weight"]) for x in "qk")
    decoder, output = model.model_info["decoder"], weights.get("output.weight", weights["token_embd.weight"])
    attention = decoder["layers"] * tokens * (tokens + 1) * query
    seen = of.looked_at[0] if of.looked_at else 0  # rows of the image, by every position
    looks = sum(len(w) for n, w in weights.items() if n.endswith(".cross.attn_q.weight") and n.startswith("blk."))
    work, cached = tokens * layers + attention + 2 * tokens * seen * looks, tokens + 1
    encoder = [w for n, w in weights.items() if n.startswith("enc.blk.") and w.ndim == 2]
    if encoder:  # reads the prompt; the decoder begins with one position, which looks at all that was read
        seen, cached = tokens, 1
        work = tokens * sum(w.size for w in [*encoder, *of_image.values()]) + layers + 2 * decoder["layers"] * query
        work += 2 * tokens * tokens * query * model.model_info["encoder"]["layers"] + 2 * seen * looks
    assert phases["prefill"]["macs"] == work + output.size
    read = sum(w.nbytes for n, w in weights.items() if n.startswith(("blk.", "output_norm")) and n not in of_image)
    read += output.nbytes + 4 * seen * sum(len(w) for w in of_image.values())
    cache = 2 * decoder["layers"] * key * 4 * cached
    assert phases["decode"]["bytes_per_token"] == read + cache


# ---- what a model has no task for


def test_what_it_has_no_task_for_is_refused_by_every_interface(
    of: Described,
    lacking: str,
    model: kosmos_edge.Model,
    worker: kosmos_edge.Model,
    handle: capi.c_void_p,
    path: Path,
    photo: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    verb, named, why = lacking, CASES[lacking].arguments, REFUSED.get(lacking, NO_BOXES)
    for asked in (model, worker):
        with pytest.raises(InvalidRequest, match=why):
            getattr(asked, verb)(picture(1), **named)
        with pytest.raises(InvalidRequest, match=why):
            list(asked.batch([picture(1)], verb, **named))
    image = capi.encode(handle, picture(1))
    with pytest.raises(CError, match=why):
        make(verb, handle, image, *c_arguments(verb), None)
    lib().kosmos_image_free(image)
    assert cli.run([*words_of(verb, photo), "-m", str(path), "-t", "1"]) == 2
    assert why in capsys.readouterr().err
