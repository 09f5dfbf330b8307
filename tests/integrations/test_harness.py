"""The model classes for lm-evaluation-harness and lmms-eval: with stand-ins of their base classes, and with the real
ones where they are installed. Their figures are those of the package's own scoring."""

import importlib
import json
import math
import sys
import types
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.api_model import picture, tiny_file, tiny_model
from PIL import Image

from kosmos_edge.errors import ContextTooLong, InvalidRequest
from kosmos_edge.integrations.harness import HarnessModel, own_options

pytestmark = pytest.mark.filterwarnings("ignore")  # of the harnesses
HARNESS = HarnessModel(tiny_model())
PAIRS = [("the sky is", " blue"), ("the sky is", " a red circle"), ("it is ", "yes"), ("", "two green squares")]


# ---- what both stand on


def test_likelihoods_are_those_of_score_segments() -> None:
    for context, continuation in PAIRS[:3]:
        total, greedy = HARNESS.loglikelihood(context, continuation)
        own = tiny_model().score_segments([context.rstrip() + " "], [continuation.strip()]).best
        assert total == pytest.approx(own.logprob_sum, abs=1e-5) and greedy == own.greedy
        behind, _ = HARNESS.loglikelihood_behind([tiny_model().encode(picture())], context, continuation)
        photo = tiny_model().score_segments([picture(), context.rstrip() + " "], [continuation.strip()]).best
        assert behind == photo.logprob_sum != total


def test_the_likeliest_token_is_greedy() -> None:
    engine = tiny_model()._open.engine
    ids = engine.tokenizer.encode("the sky is")
    ranked = [(HARNESS._score(ids, [token]), token) for token in range(4, 300)]
    best = max(ranked)
    values, rows, vocabulary = engine.logits([("ids", ids)])
    logits = memoryview(values).cast("f")[(rows - 1) * vocabulary :]
    likeliest = max(range(vocabulary), key=lambda token: logits[token])
    assert HARNESS._score(ids, [likeliest])[1]
    assert not any(greedy for (_, greedy), token in ranked if token != likeliest) and best[0][0] <= 0


def test_an_empty_context_is_the_begin_token() -> None:
    engine = tiny_model()._open.engine
    ids = engine.tokenizer.encode("two green squares")
    rolled = HARNESS.loglikelihood_rolling("two green squares")
    assert HARNESS.loglikelihood("", "two green squares")[0] == rolled
    first = HARNESS._score([], ids[:1])[0]
    assert rolled == pytest.approx(first + HARNESS._score(ids[:1], ids[1:])[0], abs=1e-4)
    with pytest.raises(InvalidRequest, match="continuation: expected some text"):
        HARNESS.loglikelihood("a", "")


def test_long_texts_are_scored_in_windows_and_long_contexts_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for 6 tokens: 6 behind the begin token, 5 behind one, the rest behind as many as fit."""
    ids = tiny_model()._open.engine.tokenizer.encode("blue yes a red circle two green squares it is " * 2)
    text = "blue yes a red circle two green squares it is " * 2
    monkeypatch.setattr(HARNESS, "_room", 6)
    seen: list[tuple[list[int], list[int]]] = []
    score = HARNESS._score
    monkeypatch.setattr(HARNESS, "_score", lambda before, after: seen.append((before, after)) or score(before, after))
    total = HARNESS.loglikelihood_rolling(text)
    assert [token for _, after in seen for token in after] == ids and seen[0][0] == [] and len(seen[0][1]) == 6
    assert all(len(before) + len(after) == 6 for before, after in seen[1:]) and len(seen[1][0]) == 1
    assert total == pytest.approx(math.fsum(score(before, after)[0] for before, after in seen))
    whole, tail = ids[:10], ids[10:12]
    assert score(whole, tail) == score(whole[-4:], tail)
    with pytest.raises(ContextTooLong, match="the continuation has 7 tokens, the model has 6 positions"):
        score([], ids[:7])


def test_answers_are_those_of_generate() -> None:
    for settings, ours in (
        ({"max_gen_toks": 9, "until": ["\n\n", ""], "do_sample": False, "temperature": 0.0}, {"stop": ["\n\n"]}),
        ({"max_new_tokens": 9, "until": None, "num_beams": 2}, {"num_beams": 2}),
        ({"max_gen_toks": 9, "do_sample": True, "temperature": 0.7, "top_p": 0.9}, {"temperature": 0.7, "top_p": 0.9}),
        ({"max_gen_toks": 9, "do_sample": True}, {"temperature": 1.0}),
        ({"max_gen_toks": 9, "do_sample": False, "temperature": 0.7, "top_p": 0.9}, {}),
    ):
        expected = tiny_model().generate(["the sky is"], max_tokens=9, **ours)  # type: ignore[arg-type]
        assert HARNESS.generate("the sky is", settings, {}) == expected.text
    free = tiny_model().generate(["the sky is"], max_tokens=30, no_repeat_ngram_size=0)
    assert HARNESS.generate("the sky is", {"max_gen_toks": 30}, own_options("0", None)) == free.text
    photo = tiny_model().encode(picture())
    expected = tiny_model().generate([photo, "it is"], max_tokens=9)
    assert HARNESS.generate_behind([photo], "it is", {"max_new_tokens": 9}, {}) == expected.text
    room = tiny_model().context_length - 1 - 9
    long, ids = "blue " * 2 * room, tiny_model()._open.engine.tokenizer.encode("blue " * 2 * room)
    assert len(ids) > room and HARNESS.generate(long, {"max_gen_toks": 9}, {}) is not None
    with pytest.raises(InvalidRequest, match="guidance: not an option of generation here"):
        HARNESS.generate("a", {"guidance": 3}, {})
    with pytest.raises(ContextTooLong, match="max_gen_toks"):
        HARNESS.generate("a", {"max_gen_toks": 100_000}, {})


# ---- the classes


class Hook:
    """Remembers what a harness would cache."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, Any, Any]] = []

    def add_partial(self, kind: str, arguments: Any, answer: Any) -> None:
        self.kept.append((kind, arguments, answer))


class Base:
    """What both base classes have in common."""

    def __init__(self) -> None:
        self.cache_hook = Hook()
        self.task_dict: dict[str, Any] = {}


def load_class(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """KosmosEdge of kosmos_edge.integrations.NAME, on the real package or on stand-ins of its modules."""
    module = f"kosmos_edge.integrations.{name}"
    if kind == "real":
        pytest.importorskip(f"{name}.api.model", reason=f"{name} is not installed: its stand-in is tested alone")
        return importlib.import_module(module).KosmosEdge
    parts = {
        name: {},
        f"{name}.api": {},
        f"{name}.api.model": {"LM": Base, "lmms": Base},
        f"{name}.api.registry": {"register_model": lambda *names: lambda made: made},
    }
    for path, values in parts.items():
        made = types.ModuleType(path)
        made.__path__ = []  # type: ignore[attr-defined]
        vars(made).update(values)
        monkeypatch.setitem(sys.modules, path, made)
    monkeypatch.delitem(sys.modules, module, raising=False)
    made = importlib.import_module(module).KosmosEdge
    del sys.modules[module]
    return made


def ask(*arguments: Any) -> Any:
    return SimpleNamespace(args=arguments)


@pytest.mark.parametrize("kind", ["stand-in", "real"])
def test_the_class_for_lm_eval(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = load_class("lm_eval", kind, monkeypatch)
    if kind == "real":
        lm = made.create_from_arg_string(f"pretrained={tiny_file()},threads=1", {"batch_size": 4, "device": None})
    else:
        lm = made(str(tiny_file()), threads="1", batch_size=4)
    lm.cache_hook = Hook()
    requests = [ask(*pair) for pair in PAIRS]
    expected = [HARNESS.loglikelihood(*pair) for pair in PAIRS]
    assert lm.loglikelihood(requests, disable_tqdm=True) == expected
    assert [(kind, given) for kind, given, _ in lm.cache_hook.kept] == [("loglikelihood", pair) for pair in PAIRS]
    assert lm.loglikelihood_rolling([ask("a red circle")]) == [HARNESS.loglikelihood_rolling("a red circle")]
    settings = {"until": ["\n"], "max_gen_toks": 9, "do_sample": False}
    assert lm.generate_until([ask("the sky is", settings)]) == [HARNESS.generate("the sky is", settings, {})]
    assert lm.tokenizer_name == str(tiny_file())
    half = made(str(tiny_file()), kv_type="q8_0")
    assert half.harness.model.kv_type == "q8_0" and half.tokenizer_name != lm.tokenizer_name


@pytest.mark.parametrize("kind", ["stand-in", "real"])
def test_the_class_for_lmms_eval(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = load_class("lmms_eval", kind, monkeypatch)
    lm = made(str(tiny_file()), threads="1")
    lm.cache_hook = Hook()
    docs = [{"image": Image.fromarray(picture(n)), "answer": word} for n, word in enumerate(("blue", "yes"))]
    lm.task_dict = {"local": {"test": docs}}
    photos = [tiny_model().encode(picture(n)) for n in range(2)]
    see: Callable[[dict], list] = lambda doc: [doc["image"]]  # noqa: E731
    requests = [ask("it is", lambda doc: doc["answer"], see, n, "local", "test") for n in range(2)]
    requests.append(ask("it is", "no", see, 1, "local", "test"))
    found = lm.loglikelihood(requests)
    for (total, greedy), photo, word in zip(
        found, [photos[0], photos[1], photos[1]], ("blue", "yes", "no"), strict=True
    ):
        own = tiny_model().score_segments([photo, "it is"], [word]).best
        assert (total, greedy) == (own.logprob_sum, own.greedy)
    settings = {"max_new_tokens": 9, "temperature": 0, "top_p": None, "num_beams": 1, "do_sample": False}
    answers = lm.generate_until([ask("it is", settings, see, n, "local", "test") for n in range(2)])
    assert answers == [tiny_model().generate([photo, "it is"], max_tokens=9).text for photo in photos]
    with pytest.raises(NotImplementedError):
        lm.generate_until_multi_round([])
    assert made(str(tiny_file()), kv_type="q8_0").harness.model.kv_type == "q8_0"
    with pytest.raises(InvalidRequest, match="attn: not a model argument"):
        made(str(tiny_file()), attn="x")


def test_lmms_eval_finds_the_class_by_its_entry_point() -> None:
    registry = pytest.importorskip("lmms_eval.models.registry_v2", reason="lmms-eval is not installed")
    import tomllib

    root = Path(__file__).resolve().parents[2]
    points = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    module, name = points["lmms_eval.models"]["kosmos_edge"].split(":")
    found = registry.ModelRegistryV2()
    for manifest in found._coerce_payload_to_manifests(getattr(importlib.import_module(module), name)):
        found.register_manifest(manifest)
    assert found.get_model_class("kosmos_edge").__module__ == "kosmos_edge.integrations.lmms_eval"


def test_lm_eval_runs_a_local_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real program on a file of questions: its accuracies are those of our own scores."""
    pytest.importorskip("lm_eval.api.model", reason="lm-eval is not installed")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    import lm_eval
    from lm_eval.tasks import TaskManager

    from kosmos_edge.integrations.lm_eval import KosmosEdge

    choices = ["blue", "a red circle", "yes", "two green squares"]
    contexts = ["the sky is", "it is", "a picture of", "no, it was", "the car is", "look: "]
    rows = [{"q": context, "choices": choices, "gold": n % 4} for n, context in enumerate(contexts)]
    data = tmp_path / "items.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    task = {
        "task": "local",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(tmp_path / "cache")},
        "output_type": "multiple_choice",
        "test_split": "test",
        "doc_to_text": "{{q}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{gold}}",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }
    model = KosmosEdge(str(tiny_file()), threads=1)
    known = TaskManager(include_defaults=False)  # reading those takes a minute
    found = lm_eval.simple_evaluate(model=model, tasks=[task], task_manager=known, bootstrap_iters=0)
    figures = found["results"]["local"]
    for metric, normalize in (("acc", "sum"), ("acc_norm", "characters")):
        right = 0
        for row in rows:
            ranking = tiny_model().score_segments([row["q"].rstrip() + " "], choices, normalize=normalize)
            right += ranking.best.text == choices[row["gold"]]
        assert figures[f"{metric},none"] == right / len(rows)
