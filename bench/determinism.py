"""Do equal requests give equal bits? Captions of many pictures in every way in which they can be computed.

    python bench/determinism.py [--model FILE] [--threads N] [--pictures 1000] [--format json]

Every picture is another one (and of another size); for each, all logits that decided a token are hashed by their bits,
with the tokens. The ways: one after the other; again, with the model loaded anew; in batches of 8; from 8 threads; by
two engines in two threads; with other numbers of threads per engine. Exit status 1 unless all hashes are equal.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from kosmos_edge import _core
from kosmos_edge.bench.workload import synthetic_photo
from kosmos_edge.inference import tasks
from kosmos_edge.loading import find_model

MAX_TOKENS = 24
Answer = tuple[tuple[int, ...], int]  # token ids, hash of the logits


class Pictures:
    """Pictures by number, with sizes from 40 to 400."""

    def rgb(self, number: int) -> tuple[bytes, int, int]:
        """Its bytes, width, height."""
        size = (40 + number * 37 % 361, 40 + number * 53 % 359)
        return synthetic_photo(number, size).tobytes(), *size


def grounds(engine: _core.Engine) -> bool:
    """Whether the model can write boxes."""
    return engine.info["grounding"] is not None


def params(grammar: bool = True) -> _core.GenerateParams:
    """Of a caption, grounded where the model can, with the hash."""
    out = _core.GenerateParams()
    out.max_tokens, out.grammar, out.hash_logits, out.no_repeat_ngram_size = MAX_TOKENS, grammar, True, 3
    return out


def prompt(engine: _core.Engine, number: int) -> list[Any]:
    """The picture, encoded, and the caption's words."""
    words: list[Any] = []  # none: the model goes on from the picture
    if "caption" in engine.info["tasks"]:
        plan = tasks.plan_caption(engine.info, None, "short", grounds(engine), False, ())
        words = [segment for segment in plan.segments if isinstance(segment, tuple)]
    return [("image", engine.encode_image(*Pictures().rgb(number))), *words]


def answer(engine: _core.Engine, number: int) -> Answer:
    """Computed alone."""
    found = engine.generate(prompt(engine, number), params(grounds(engine)))
    return tuple(found.token_ids), found.logits_hash


def alone(engine: _core.Engine, numbers: Sequence[int]) -> dict[int, Answer]:
    """One after the other."""
    return {number: answer(engine, number) for number in numbers}


def batched(engine: _core.Engine, numbers: Sequence[int], size: int) -> dict[int, Answer]:
    """`size` side by side."""
    batch, waiting = _core.Batch(engine, size), list(reversed(numbers))
    open_: dict[int, int] = {}
    found: dict[int, Answer] = {}
    while waiting or batch.open:
        while waiting and batch.open < size:
            number = waiting.pop()
            open_[batch.add(prompt(engine, number), params(grounds(engine)))] = number
        for done in batch.step():
            result = done.result()
            found[open_.pop(done.key)] = tuple(result.token_ids), result.logits_hash
    return found


def shared(engines: Sequence[_core.Engine], numbers: Sequence[int]) -> dict[int, Answer]:
    """A thread for each entry of `engines`, which may name one engine several times."""
    found: dict[int, Answer] = {}
    errors: list[BaseException] = []

    def work(which: int) -> None:
        try:
            found.update(alone(engines[which], numbers[which :: len(engines)]))
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work, args=(which,)) for which in range(len(engines))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]
    return found


def ways(path: str, threads: int) -> dict[str, Callable[[Sequence[int]], dict[int, Answer]]]:
    """Name -> how the answers are computed."""
    engine = _core.Engine(path, threads=threads)
    out: dict[str, Callable[[Sequence[int]], dict[int, Answer]]] = {
        f"one by one, {threads} thread(s)": lambda n: alone(engine, n),
        "again, loaded anew": lambda n: alone(_core.Engine(path, threads=threads), n),
        "batches of 8": lambda n: batched(engine, n, 8),
        "8 callers of one engine": lambda n: shared([engine] * 8, n),
        "two engines in two threads": lambda n: shared([_core.Engine(path, threads=threads) for _ in range(2)], n),
    }
    for other in (1, 2, 4):
        if other != threads:
            out[f"one by one, {other} thread(s)"] = lambda n, o=other: alone(_core.Engine(path, threads=o), n)  # type: ignore[misc]
    return out


def digest(answers: dict[int, Answer]) -> str:
    """SHA-256 over all of them in order."""
    return hashlib.sha256(repr(sorted(answers.items())).encode()).hexdigest()


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--format", choices=["text", "json"], default="text")
    given = parser.parse_args()
    numbers = range(given.pictures)
    first: dict[int, Answer] = {}
    rows = []
    for name, way in ways(str(find_model(given.model)), given.threads).items():
        start = time.perf_counter()
        found = way(numbers)
        first = first or found
        same = sum(found[number] == first[number] for number in numbers)
        rows.append({"way": name, "pictures": len(found), "same": same, "sha256": digest(found)})
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        if given.format == "text":
            print(f"{name:32} {same}/{len(found)} as the first way, sha256 {rows[-1]['sha256'][:16]}", flush=True)
    distinct = len({hash_ for _, hash_ in first.values()})
    if given.format == "json":
        print(json.dumps({"rows": rows, "distinct": distinct}, indent=2))
    else:
        print(f"{distinct} of {len(first)} pictures have logits of their own")
    return 0 if len({row["sha256"] for row in rows}) == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
