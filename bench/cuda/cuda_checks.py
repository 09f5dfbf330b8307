"""Whether a CUDA device answers as the processor does: lines of JSON {"check", "value", "wanted", "holds", "said"}.

    python bench/cuda/cuda_checks.py [--device cuda] [--scenes 200] [--pictures 20]

On nano, its held-out scenes (docs/nano.md): logits against the processor's float path (the same rounded weights as
float32), answers against the processor's, and everything twice. tests/bench/test_bench_cuda.py runs it on the emulated
device with a scene or two.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kosmos_edge import Model, load
from kosmos_edge.inference import tasks
from kosmos_edge.quality.cases import Case, world_cases
from kosmos_edge.quality.models import Source

NANO = Path(__file__).resolve().parents[2] / "kosmos_edge" / "data" / "nano-q4_k_m.gguf"
MOST_ERROR, LEAST_SHARE, LONG = 1e-2, 0.99, 64


def check(name: str, value: float | bool, wanted: str, holds: bool, said: str) -> dict[str, Any]:
    """A line of the result."""
    return {"check": name, "value": value, "wanted": wanted, "holds": bool(holds), "said": said}


def forced_logits(model: Model, case: Case, ids: list[int]) -> np.ndarray:
    """(tokens, vocabulary) of the answer `ids` to a picture: every token is given, so that two models see the same."""
    plan = tasks.plan_caption(model.model_info, model.encode(case.picture()), "long", True, False, ())
    values, vocabulary = model._open.forced_logits(plan, ids)
    return np.frombuffer(values, np.float32).reshape(-1, vocabulary)


def squares(got: np.ndarray, want: np.ndarray) -> tuple[float, float]:
    """Of the difference, and of what is wanted."""
    return float(np.sum((got - want).astype(np.float64) ** 2)), float(np.sum(want.astype(np.float64) ** 2))


def relative(parts: list[tuple[float, float]]) -> float:
    """The length of the differences over the length of what is wanted."""
    return (sum(d for d, _ in parts) / sum(w for _, w in parts)) ** 0.5


def said_to(model: Model, case: Case, tokens: int) -> list[int]:
    """Ids of everything that is asked about a scene: captions of both lengths with boxes, and its questions."""
    image = model.encode(case.picture())
    answers = [model.caption(image, length, ground=True, max_tokens=tokens) for length in ("short", "long")]
    answers += [model.ask(image, q.text, max_tokens=tokens) for q in case.questions]
    return [i for answer in answers for i in answer.token_ids]


def caption(model: Model, case: Case, tokens: int) -> tuple[list[int], list[float]]:
    """Ids and log-probabilities of a long caption with boxes."""
    result = model.caption(case.picture(), "long", ground=True, max_tokens=tokens, logprobs=True)
    return result.token_ids, list(result.logprobs or ())


def against_floats(device: Model, processor: Model, floats: Model, cases: list[Case], tokens: int) -> Iterator[dict]:
    """Logits of the device and of the processor against the float path's, on the float path's answers."""
    errors: dict[str, list[tuple[float, float]]] = {"device": [], "processor": []}
    for case in cases:
        ids = caption(floats, case, tokens)[0]
        want = forced_logits(floats, case, ids)
        for name, model in (("device", device), ("processor", processor)):
            errors[name].append(squares(forced_logits(model, case, ids), want))
    value, worst = relative(errors["device"]), max(relative([e]) for e in errors["device"])
    said = f"{value:.4f} over {len(cases)} pictures, the worst {worst:.4f}; the processor's own "
    said += f"{relative(errors['processor']):.4f}"
    yield check("logits against the float path", value, f"<= {MOST_ERROR}", value <= MOST_ERROR, said)


def same_answers(device: Model, processor: Model, cases: list[Case], tokens: int) -> Iterator[dict]:
    """Ids of the answers about a scene, and how many scenes have many."""
    pairs = [(said_to(device, c, tokens), said_to(processor, c, tokens)) for c in cases]
    same = [a == b for a, b in pairs]
    long = [a == b for a, b in pairs if min(len(a), len(b)) >= LONG]
    share = sum(same) / len(same)
    said = f"{sum(same)} of {len(same)} scenes, of those with {LONG} tokens or more {sum(long)} of {len(long)}"
    yield check("same ids as the processor", share, f">= {LEAST_SHARE}", share >= LEAST_SHARE, said)


def same_again(path: Path, name: str, cases: list[Case], tokens: int) -> Iterator[dict]:
    """Ids, log-probabilities and logits of two models loaded one after the other, and of answers side by side."""
    runs = []
    for _ in range(2):
        with load(path, device=name) as model:
            answers = [caption(model, c, tokens) for c in cases]
            logits = [forced_logits(model, c, a[0]).tobytes() for c, a in zip(cases, answers, strict=True)]
            options = {"max_tokens": tokens, "logprobs": True, "batch_size": len(cases), "on_error": "raise"}
            beside = list(model.batch([c.picture() for c in cases], length="long", ground=True, **options))
            runs.append((answers, logits, [(r.token_ids, list(r.logprobs or ())) for r in beside]))
    yield check("bit-identical run to run", runs[0] == runs[1], "yes", runs[0] == runs[1], f"{len(cases)} pictures")
    alone = runs[0][0] == runs[0][2]
    yield check("bit-identical alone and in a batch", alone, "yes", alone, f"{len(cases)} pictures")


def run(device: str, scenes: int, pictures: int, tokens: int = 96, path: Path = NANO) -> Iterator[dict]:
    """All checks."""
    cases = world_cases(0, max(scenes, pictures))
    some = cases[:pictures]
    source = Source(str(path), offline=True)
    with load(path, device=device) as on_device, load(path, device="cpu") as processor:
        with source.file("q4_k_m:float", None) as floats_path, load(floats_path, device="cpu") as floats:
            yield from against_floats(on_device, processor, floats, some, tokens)
        yield from same_answers(on_device, processor, cases[:scenes], tokens)
    yield from same_again(path, device, some[:4], tokens)


def main() -> int:
    """Command line; status 1 if something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--scenes", type=int, default=200, help="whose ids are compared")
    parser.add_argument("--pictures", type=int, default=20, help="whose logits are")
    parser.add_argument("--tokens", type=int, default=96)
    options = parser.parse_args()
    held = True
    for line in run(options.device, options.scenes, options.pictures, options.tokens):
        print(json.dumps(line), flush=True)
        held = held and line["holds"]
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
