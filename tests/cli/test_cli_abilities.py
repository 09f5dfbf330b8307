"""kosmos-edge classify, reason, iq and webqa, and few-shot examples from a file: as the verbs of the package."""

import json
from pathlib import Path

import pytest
from helpers.api_model import png, tiny_model
from test_cli import Runner, album, photo, run

__all__ = ["album", "photo", "run"]  # fixtures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six pictures 0.png .. 5.png in a folder."""
    root = tmp_path / "pool"
    root.mkdir()
    for number in range(6):
        (root / f"{number}.png").write_bytes(png(number))
    return root


def lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_classify_ranks_the_labels(run: Runner, photo: Path, album: Path, tmp_path: Path) -> None:
    done = run("classify", photo, "--label", "yes", "--label", "blue")
    expected = tiny_model().classify(photo, ["yes", "blue"])
    assert done.out == "".join(f"{r.score:.4f}\t{r.share:.3f}\t{r.text}\n" for r in expected.ranking)
    listed = tmp_path / "labels.tsv"
    listed.write_text("yes\tmostly yellow.\n\nblue\tlike the sky.\n", encoding="utf-8")
    done = run(
        "classify", album / "a.png", photo, album / "b.jpg", "--labels", listed, "--category", "mark", "-f", "json"
    )
    first, second, third = json.loads(done.out)
    asked = {"category": "mark", "descriptions": {"yes": "mostly yellow.", "blue": "like the sky."}}
    expected = tiny_model().classify(photo, ["yes", "blue"], **asked)  # type: ignore[call-overload]
    assert second["ranking"] == expected.to_dict()["ranking"] != first["ranking"]
    assert done.code == 1 and third["ranking"] == [] and third["error_type"] == "ImageDecodeError"
    free = run("classify", photo, "--label", "yes", "--by", "free", "-n", 30)
    assert free.out == tiny_model().classify(photo, ["yes"], by="free", max_tokens=30).text + "\n"


def test_options_of_answers_from_the_environment_do_not_break_classify(
    run: Runner, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = run("classify", photo, "--label", "yes", "--label", "blue").out
    for name, value in {"MAX_TOKENS": "3", "STOP": "x", "PROMPT": "It", "QUESTION": "Who?", "SHOT": "a::b"}.items():
        monkeypatch.setenv(f"KOSMOS_EDGE_{name}", value)
    assert run("classify", photo, "--label", "yes", "--label", "blue").out == plain
    done = run("classify", photo, "--label", "yes", "-n", 3)
    assert done.code == 2 and "max_tokens: expected with by='choices' or 'free'" in done.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            b"yes\tfirst\nblue\n",
            "labels.tsv:2: expected a description behind a tab, as in the lines before, got 'blue'",
        ),
        (b"yes\nblue\tsky\n", "labels.tsv:2: expected no description"),
        (b"yes\n\xff\n", "labels.tsv: expected UTF-8, got byte 0xff at 4"),
        (b"\n", "no labels: give --label or --labels"),
        (b"yes\nyes\n", "labels: expected different ones, got 'yes' twice"),
    ],
)
def test_files_of_labels_that_are_wrong(run: Runner, photo: Path, tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "labels.tsv"
    path.write_bytes(text)
    done = run("classify", photo, "--labels", path)
    assert done.code == 2 and message in done.err and done.out == ""


def test_reason_prints_both_stages(run: Runner, photo: Path, tmp_path: Path) -> None:
    shot = tmp_path / "shot.png"
    shot.write_bytes(png(5))
    done = run("reason", photo, "Who?", "--rationale-tokens", 30, "-n", 30, "--shot", f"{shot}::Why?::a b.::it")
    expected = tiny_model().reason(
        photo, "Who?", rationale_tokens=30, max_tokens=30, examples=[(shot, "Why?", "a b.", "it")]
    )
    assert done.out == f"{expected.rationale}\n{expected.text}\n"
    chosen = run("reason", photo, "Who?", "--rationale-tokens", 30, "--choice", "yes", "--choice", "blue", "-f", "json")
    record, best = (
        json.loads(chosen.out),
        tiny_model().reason(photo, "Who?", rationale_tokens=30, choices=["yes", "blue"]),
    )
    assert (record["text"], record["rationale"]) == (best.text, best.rationale)
    assert [score["text"] for score in record["scores"]] == [score.text for score in best.scores or ()]


def test_iq_prints_the_best_candidate_first(run: Runner, folder: Path) -> None:
    paths = [folder / f"{n}.png" for n in range(6)]
    done = run("iq", *paths[:3], *(word for path in paths[3:] for word in ("-c", path)))
    expected = tiny_model().iq(paths[:3], paths[3:])
    order = sorted(range(3), key=lambda n: -expected.candidates[n].yes)
    assert [line.split("\t")[2] for line in done.out.splitlines()] == [str(paths[3 + n]) for n in order]
    record = json.loads(run("iq", *paths[:3], "-c", paths[3], "-c", paths[4], "-f", "json").out)
    assert [c["yes"] for c in record["candidates"]] == [c.yes for c in expected.candidates[:2]]
    assert [c["name"] for c in record["candidates"]] == [str(path) for path in paths[3:5]]


def test_webqa_reads_a_page(run: Runner, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<title>no</title><p>blue <i>sky</i></p>", encoding="utf-8")
    (tmp_path / "page.txt").write_text("blue\nsky", encoding="utf-8")
    expected = tiny_model().webqa(photo, "Who?", text="blue sky", max_tokens=9)
    for option in (("--html", tmp_path / "page.html"), ("--page-text", tmp_path / "page.txt")):
        found = json.loads(run("webqa", photo, "Who?", *option, "-n", 9, "-f", "json").out)
        assert found["token_ids"] == expected.token_ids
    assert json.loads(run("webqa", photo, "Who?", "-n", 9, "-f", "json").out)["token_ids"] != expected.token_ids


# ---- few-shot


def test_shots_of_describe(run: Runner, photo: Path, folder: Path) -> None:
    shot = folder / "5.png"
    given = ("--box", "10,10,60,60", "--no-boxes", "-n", 9, "-f", "json")
    done = json.loads(run("describe", photo, *given, "--shot", f"{shot}::5,5,70,70::a house.").out)
    expected = tiny_model().describe(
        photo, (10, 10, 60, 60), ground=False, examples=[(shot, (5, 5, 70, 70), "a house.")], max_tokens=9
    )
    assert done["token_ids"] == expected.token_ids
    wrong = run("describe", photo, *given, "--shot", f"{shot}::5,5,70::a house.")
    assert wrong.code == 2 and "expected four numbers" in wrong.err


def test_examples_are_drawn_for_each_image(run: Runner, folder: Path) -> None:
    shots = lines(folder / "shots.jsonl", [{"image": f"{n}.png", "text": f"picture {n}."} for n in range(6)])
    paths = [folder / "0.png", folder / "1.png"]
    command = ("caption", *paths, "--no-boxes", "-n", 5, "-f", "json", "--shots", shots)
    model = tiny_model()
    pool = model.example_pool([(folder / f"{n}.png", f"picture {n}.") for n in range(6)])
    for words, pick in (
        ((), lambda path: pool.draw(4, item=str(path), without=path)),
        (("--shot-count", 2, "--shot-seed", 7), lambda path: pool.draw(2, seed=7, item=str(path), without=path)),
        (("--shot-count", 3, "--pick", "nearest"), lambda path: pool.nearest(path, 3)),
    ):
        found = json.loads(run(*command, *words).out)
        expected = [model.caption(path, examples=pick(path), max_tokens=5) for path in paths]
        assert [f["token_ids"] for f in found] == [e.token_ids for e in expected]
        assert [f["timings"]["prompt_tokens"] for f in found] == [e.timings.prompt_tokens for e in expected]


def test_examples_of_other_commands(run: Runner, folder: Path, photo: Path) -> None:
    whole = {
        "label": "blue",
        "question": "Who?",
        "answer": "it",
        "rationale": "a b.",
        "box": [5, 5, 70, 70],
        "text": "a",
    }
    shots = lines(folder / "shots.jsonl", [{"image": f"{n}.png", **whole} for n in range(2)])
    model = tiny_model()
    pool = model.example_pool([(folder / f"{n}.png", "blue") for n in range(2)])
    few = ("--shots", shots, "--shot-count", 2, "-f", "json")
    order = pool.draw(2, item=str(photo))
    labelled = json.loads(run("classify", photo, "--label", "yes", "--label", "blue", *few).out)
    assert labelled["ranking"] == model.classify(photo, ["yes", "blue"], examples=order).to_dict()["ranking"]
    few = (*few, "-n", 5)
    asked = json.loads(run("ask", photo, "Why?", *few).out)
    expected = model.ask(photo, "Why?", examples=[(image, "Who?", "it") for image, _ in order], max_tokens=5)
    assert asked["token_ids"] == expected.token_ids
    described = json.loads(run("describe", photo, "--box", "10,10,60,60", "--no-boxes", *few).out)
    boxed = [(image, (5, 5, 70, 70), "a") for image, _ in order]
    assert (
        described["token_ids"]
        == model.describe(photo, (10, 10, 60, 60), ground=False, examples=boxed, max_tokens=5).token_ids
    )
    reasoned = json.loads(run("reason", photo, "Why?", "--rationale-tokens", 5, *few).out)
    long = [(image, "Who?", "a b.", "it") for image, _ in order]
    assert (
        reasoned["token_ids"] == model.reason(photo, "Why?", rationale_tokens=5, examples=long, max_tokens=5).token_ids
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"image": "0.png"}', "shots.jsonl:1: expected an object with image, text"),
        ('{"image": "0.png", "text": "a"}\n[1]', "shots.jsonl:2: expected an object"),
        ("\n{", "shots.jsonl:2: expected a line of JSON"),
        ('{"image": 3, "text": "a"}', "shots.jsonl:1: image: expected a path, got 3"),
        ('{"image": "0.png", "text": "a"}', "k: expected at most 1, the examples other than the image itself, got 4"),
    ],
)
def test_files_of_examples_that_are_wrong(run: Runner, folder: Path, photo: Path, text: str, message: str) -> None:
    (folder / "shots.jsonl").write_text(text, encoding="utf-8")
    done = run("caption", photo, "--no-boxes", "--shots", folder / "shots.jsonl")
    assert done.code == 2 and message in done.err and done.out == ""


def test_what_is_about_shots_needs_them(run: Runner, photo: Path) -> None:
    done = run("caption", photo, "--shot-count", 2)
    assert done.code == 2 and "--shot-count is about the examples of --shots" in done.err


def test_examples_are_no_place_for_results(run: Runner, folder: Path, photo: Path) -> None:
    shots = lines(folder / "shots.jsonl", [{"image": f"{n}.png", "text": "a"} for n in range(6)])
    for target in (shots, folder / "3.png"):
        done = run("caption", photo, "--no-boxes", "--shots", shots, "-o", target, "--overwrite")
        assert done.code == 2 and "-o" in done.err
