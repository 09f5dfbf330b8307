"""The suite's recorded answers, tests/models/goldens/NAME.json:

    python -m models.recorded [NAME ...]      in tests/, records those of these models, or of all

For every case of a model pictures are tried until no decision of the search was close (`MARGIN`, in log-probability, a
hundred times the rounding noise), so that no order of float operations can change the ids. Answers are the
definition's; the engine has no part in them but its tokenizer.
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from helpers.tiny import Tiny, make_picture, write_tiny

from kosmos_edge import _core
from models.description import TEXTS, Case, Described, described

FOLDER = Path(__file__).resolve().parent / "goldens"
MARGIN = {1: 2e-3, 3: 5e-4}  # by the number of beams
SIZES = [(97, 61), (56, 56), (31, 140), (200, 150), (64, 48)]  # (width, height)


def digest(tiny: Tiny) -> str:
    """SHA-256 over names and bytes of all weights: recorded answers are worth nothing for other weights."""
    out = hashlib.sha256()
    for name, array in tiny.weights.items():
        out.update(name.encode() + array.astype("<f4").tobytes())
    return out.hexdigest()


def load(of: Described) -> dict[str, Any]:
    """What was recorded of a model: weights_sha256, answers by case, scores."""
    found = json.loads((FOLDER / f"{of.architecture}.json").read_text(encoding="utf-8"))
    assert found["weights_sha256"] == digest(of.tiny), "recorded for other weights: record again"
    return found


def pictures_of(record: dict[str, Any]) -> list[np.ndarray]:
    """The pictures of one recorded case."""
    return [make_picture(*picture) for picture in record["pictures"]]


def record_case(of: Described, case: Case, number: int, tokenizer: _core.Tokenizer) -> dict[str, Any]:
    """Pictures that give a clear answer, and the answer."""
    for attempt in range(200):
        record = {
            "pictures": [
                [1000 * number + 10 * attempt + n, *SIZES[(number + n) % len(SIZES)]] for n in range(case.pictures)
            ]
        }
        prompt = of.prompt(case.name, tokenizer, pictures_of(record))
        if case.beams > 1:
            answer = of.definition.beam_search(prompt, case.beams, case.max_tokens, no_repeat_ngram_size=of.ngram)
        else:
            answer = of.definition.generate(prompt, case.max_tokens, of.ngram)
        if answer.margin > MARGIN[case.beams] and len(answer.ids) >= min(5, case.max_tokens):
            break
    else:
        raise RuntimeError(f"no clear answer for {of.architecture}, {case.name}")
    print(f"{of.architecture}, {case.name}: attempt {attempt}, margin {answer.margin:.2g}")
    return record | {
        "prompt_ids": [int(i) for i in prompt.ids],
        "ids": [int(i) for i in answer.ids],
        "logprobs": [round(float(v), 4) for v in answer.logprobs],
        "margin": float(f"{answer.margin:.1g}"),
    }


def record(of: Described) -> None:
    """Write the file of one model."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        write_tiny(path, tiny=of.tiny)
        tokenizer = _core.Tokenizer.load(str(path))
    scored: dict[str, Any] = {"pictures": [[9000, 100, 80]]}
    prompt = of.prompt("score", tokenizer, pictures_of(scored))
    rows = [of.definition.score(prompt, tokenizer.encode(text)) for text in TEXTS]
    scored["logprobs"] = [[round(float(v), 4) for v in row] for row in rows]
    answers = {case.name: record_case(of, case, number, tokenizer) for number, case in enumerate(of.cases)}
    content = {"weights_sha256": digest(of.tiny), "answers": answers, "score": scored}
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps(content, separators=(",", ":")).replace('},"', '},\n"')
    (FOLDER / f"{of.architecture}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    for name in sys.argv[1:] or described():
        record(described()[name])
