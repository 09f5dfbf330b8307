"""What people's grades of a sheet say: shares of each grade, the mean, abilities, models compared, agreement."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.evaluation.pages import read_text
from kosmos_edge.evaluation.sheet import GRADES
from kosmos_edge.evaluation.statistics import Part, bootstrap, paired_difference, ratio
from kosmos_edge.evaluation.tasks.records import read_json, reading

MARKS = {letter: float(4 - place) for place, letter in enumerate(GRADES)}  # A 4 ... D 1
ABILITIES = {
    "a": "instruction understanding",
    "b": "visual understanding",
    "c": "text in the picture",
    "d": "knowledge transfer",
    "e": "reasoning",
    "f": "dialogue of several turns",
}  # of OwlEval


def read_key(path: Path) -> dict[str, Any]:
    """The key that `eval sheet` wrote."""
    record = read_json(path)
    with reading(path):
        rows = [
            {"id": str(row["id"]), "order": [str(name) for name in row["order"]], "abilities": list(row["abilities"])}
            for row in record["questions"]
        ]
        models = [str(name) for name in record["models"]]
        if any(sorted(row["order"]) != sorted(models) for row in rows):
            raise ValueError("the order of a question has not each model once")
        return {"sheet": str(record["sheet"]), "models": models, "questions": rows}


def read_grades(path: Path, key: Mapping[str, Any]) -> dict[str, Any]:
    """{"grader", "grades": {"12.1": "A"}, "comments"}: answer 1 to question 12 of the page.

    The file is what the page saved, or a text file with the page's address. InvalidRequest if it is of another sheet,
    or has something that is no grade of it.
    """
    text = read_text(path).strip()
    record = read_json(path) if text.startswith("{") else _of_address(path, text)
    with reading(path):
        sheet, grader = str(record["sheet"]), str(record["grader"]).strip()
        grades, comments = dict(record["grades"]), dict(record.get("comments", {}))
    if sheet != key["sheet"]:
        raise InvalidRequest(f"{path}: grades of the sheet {sheet}, expected of {key['sheet']}, the key's")
    if not grader:
        raise InvalidRequest(f"{path}: expected the name of the grader")
    known = {f"{q}.{a}" for q, row in enumerate(key["questions"], 1) for a in range(1, len(row["order"]) + 1)}
    for name, grade in grades.items():
        if name not in known or grade not in GRADES:
            raise InvalidRequest(f"{path}: expected a grade of {', '.join(GRADES)} of an answer, got {name}: {grade!r}")
    if odd := next((name for name in comments if name not in known), None):
        raise InvalidRequest(f"{path}: a comment on {odd}, which is no answer of the sheet")
    return {"grader": grader, "grades": grades, "comments": comments}


def _of_address(path: Path, text: str) -> dict[str, Any]:
    """What the form puts into the address: ?grader=...&sheet=...&1.1=A&1.1.comment=..."""
    query = text.partition("?")[2].partition("#")[0]
    pairs = dict(parse_qsl("".join(query.split()), keep_blank_values=True))
    if "sheet" not in pairs or "grader" not in pairs:
        raise InvalidRequest(f"{path}: neither grades as the sheet saves them nor the sheet's address")
    out: dict[str, Any] = {"sheet": pairs.pop("sheet"), "grader": pairs.pop("grader"), "grades": {}, "comments": {}}
    for name, value in pairs.items():
        if not name.endswith(".comment"):
            out["grades"][name] = value
        elif value.strip():
            out["comments"][name.removesuffix(".comment")] = value.strip()
    return out


def figures(key: Mapping[str, Any], graders: Sequence[Mapping[str, Any]], seed: int) -> dict[str, Any]:
    """JSON-ready: {"models": {name: {"n", "shares", "mean", "abilities"}}, "differences", "agreement", "missing"}.

    Means count A as 4 and D as 1; intervals are bootstraps over questions, differences are to the key's first model.
    """
    names = [one["grader"] for one in graders]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InvalidRequest(f"two files are of the grader {twice}")
    given = [_by_model(key, one["grades"]) for one in graders]  # of each grader: (question, model) -> letter
    first, *others = key["models"]
    return {
        "sheet": key["sheet"],
        "graders": names,
        "models": {model: _of_model(key, given, model, seed) for model in key["models"]},
        "differences": [_difference(key, given, first, other, seed) for other in others],
        "agreement": agreement(given),
        "missing": {
            name: sum(len(row["order"]) for row in key["questions"]) - len(one)
            for name, one in zip(names, given, strict=True)
        },
    }


def _by_model(key: Mapping[str, Any], grades: Mapping[str, str]) -> dict[tuple[str, str], str]:
    out = {}
    for number, row in enumerate(key["questions"], 1):
        for place, model in enumerate(row["order"], 1):
            if f"{number}.{place}" in grades:
                out[row["id"], model] = grades[f"{number}.{place}"]
    return out


def _part(given: Sequence[Mapping[tuple[str, str], str]], question: str, model: str) -> Part | None:
    """(sum of marks, number of graders) of an answer."""
    letters = [one[question, model] for one in given if (question, model) in one]
    return (sum(MARKS[letter] for letter in letters), float(len(letters))) if letters else None


def _of_model(
    key: Mapping[str, Any], given: Sequence[Mapping[tuple[str, str], str]], model: str, seed: int
) -> dict[str, Any]:
    def of(questions: Sequence[str]) -> dict[str, Any]:
        letters = Counter(one[id, model] for one in given for id in questions if (id, model) in one)
        parts = [part for id in questions if (part := _part(given, id, model)) is not None]
        count = letters.total()
        interval = bootstrap(ratio, parts, seed)
        return {
            "n": count,
            "shares": {letter: letters[letter] / count if count else None for letter in GRADES},
            "mean": {"value": ratio(parts), "ci95": None if interval is None else list(interval)},
        }

    rows = key["questions"]
    kinds = sorted({ability for row in rows for ability in row["abilities"]})
    return of([row["id"] for row in rows]) | {
        "abilities": {kind: of([row["id"] for row in rows if kind in row["abilities"]]) for kind in kinds}
    }


def _difference(
    key: Mapping[str, Any], given: Sequence[Mapping[tuple[str, str], str]], first: str, other: str, seed: int
) -> dict[str, Any]:
    """Of the means, on the questions where both have a grade."""
    pairs = [(_part(given, row["id"], first), _part(given, row["id"], other)) for row in key["questions"]]
    both = [(a, b) for a, b in pairs if a is not None and b is not None]
    made = paired_difference(ratio, [a for a, _ in both], [b for _, b in both], seed)
    out: dict[str, Any] = {"model": other, "against": first, "n": len(both), "value": None, "ci95": None, "p": None}
    if made is not None:
        out |= {"value": made.value, "ci95": None if made.ci95 is None else list(made.ci95), "p": made.p}
    return out


def agreement(given: Sequence[Mapping[Any, str]]) -> dict[str, Any] | None:
    """Of the answers that all graders graded: Cohen's kappa of two, Fleiss' of more. None for one grader.

    kappa is None where all grades are the same letter, or there are none: chance would agree, too.
    """
    if len(given) < 2:
        return None
    shared = [item for item in given[0] if all(item in one for one in given[1:])]
    letters = [[one[item] for one in given] for item in shared]
    kappa = (cohen if len(given) == 2 else fleiss)(letters)
    same = [a == b for row in letters for a, b in itertools.combinations(row, 2)]
    return {
        "statistic": "Cohen's kappa" if len(given) == 2 else "Fleiss' kappa",
        "kappa": kappa,
        "same": sum(same) / len(same) if same else None,
        "n": len(shared),
    }


def cohen(letters: Sequence[Sequence[str]]) -> float | None:
    """Cohen's kappa (1960) of two graders' letters by answer."""
    n = len(letters)
    if not n:
        return None
    one, other = (Counter(row[place] for row in letters) for place in (0, 1))
    chance = sum(one[letter] * other[letter] for letter in GRADES) / n**2
    seen = sum(a == b for a, b in letters) / n
    return (seen - chance) / (1 - chance) if chance < 1 else None


def fleiss(letters: Sequence[Sequence[str]]) -> float | None:
    """Fleiss' kappa (1971) of several graders' letters by answer."""
    n = len(letters)
    if not n:
        return None
    graders = len(letters[0])
    counts = [Counter(row) for row in letters]
    seen = sum(sum(c * (c - 1) for c in row.values()) for row in counts) / (n * graders * (graders - 1))
    chance = sum((sum(row[letter] for row in counts) / (n * graders)) ** 2 for letter in GRADES)
    return (seen - chance) / (1 - chance) if chance < 1 else None


def markdown(made: Mapping[str, Any]) -> str:
    """The figures as tables."""
    lines = [f"# Grades of the sheet {made['sheet']}, by {', '.join(made['graders'])}", ""]
    kinds = sorted({kind for one in made["models"].values() for kind in one["abilities"]})
    heads = ["model", "n", *GRADES, "mean", *(f"mean {kind}" for kind in kinds)]
    lines += ["| " + " | ".join(heads) + " |", "|" + "|".join(["---"] + ["---:"] * (len(heads) - 1)) + "|"]
    for model, one in made["models"].items():
        row = [model.replace("|", "\\|"), str(one["n"])]
        row += ["-" if share is None else f"{100 * share:.1f} %" for share in one["shares"].values()]
        row += [_mean(one["mean"]), *(_mean(one["abilities"][kind]["mean"]) for kind in kinds)]
        lines.append("| " + " | ".join(row) + " |")
    lines.append("")
    for one in made["differences"]:
        if one["value"] is not None:
            sure = "" if one["p"] is None else f", p = {one['p']:.3g}"
            lines.append(f"- {one['model']} - {one['against']}: {_signed(one)}{sure}, {one['n']} questions")
    lines += [f"- {kind}: {ABILITIES[kind]}" for kind in kinds if kind in ABILITIES]
    if made["agreement"] is not None:
        one = made["agreement"]
        kappa, same = (f"{one[name]:.3f}" if one[name] is not None else "undefined" for name in ("kappa", "same"))
        lines.append(f"- {one['statistic']} {kappa}, the same grade {same}; {one['n']} answers that all graded")
    lines += [f"- {name} has not graded {count} answers" for name, count in made["missing"].items() if count]
    lines.append("- means: A 4, B 3, C 2, D 1; in brackets: 95 % interval, bootstrap over questions")
    return "\n".join(lines)


def _mean(one: Mapping[str, Any]) -> str:
    if one["value"] is None:
        return "-"
    return f"{one['value']:.2f}" + ("" if one["ci95"] is None else f" [{one['ci95'][0]:.2f}, {one['ci95'][1]:.2f}]")


def _signed(one: Mapping[str, Any]) -> str:
    interval = "" if one["ci95"] is None else f" [{one['ci95'][0]:+.2f}, {one['ci95'][1]:+.2f}]"
    return f"{one['value']:+.2f}" + interval
