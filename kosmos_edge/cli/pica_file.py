"""kosmos-edge pica --questions: a file of questions, its options and what is printed at the end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from kosmos_edge.cli.common import Messages, option, options
from kosmos_edge.cli.progress import Progress
from kosmos_edge.cli.tasks import shows_progress
from kosmos_edge.cli.twins import from_environment, set_aside

if TYPE_CHECKING:
    from kosmos_edge.apps.endpoint import Endpoint
    from kosmos_edge.apps.pica import Asked, FileOfAnswers, Pica
    from kosmos_edge.targets import Target

file_options = options(
    option(
        "--questions",
        prefix="PICA_",
        metavar="FILE",
        help="Answer all questions of FILE: VQAv2's or OK-VQA's JSON, a list of records, .jsonl or .csv.",
    ),
    option("--annotations", prefix="PICA_", metavar="FILE", help="The answers to VQAv2's or OK-VQA's questions."),
    option("--images", prefix="PICA_", metavar="FOLDER", help="Folder of the questions' images. Default: the FILE's."),
    option("-o", "--output", prefix="PICA_", metavar="FILE", help="The answers, a JSON object per line."),
    option("--resume", is_flag=True, help="Go on with the FILE of -o: take the answers that are there."),
    option("--limit", prefix="PICA_", type=click.IntRange(1), metavar="N", help="Ask only the first N questions."),
    option(
        "--results",
        prefix="PICA_",
        metavar="FILE",
        help="Write question_id and answer as the server of VQAv2 takes them, too.",
    ),
    option(
        "--max-tokens-total",
        type=click.IntRange(1),
        metavar="N",
        help="Begin no further question when all requests and replies had N tokens.",
    ),
)
_NAMES = ("questions", "annotations", "images", "output", "resume", "limit", "results", "max_tokens_total")


def take_file(rest: dict[str, Any], *, alone: bool, shown: bool) -> dict[str, Any]:
    """Moves these options out of `rest`. UsageError for those that do not belong together; alone: a single question is
    asked, shown: prompts are only printed."""
    given = {name: rest.pop(name) for name in _NAMES}
    if alone and from_environment("questions"):
        set_aside("questions")
        given["questions"] = None
    if given["questions"] is None:
        for name, value in given.items():
            if value and from_environment(name):
                set_aside(name)
            elif value:
                raise click.UsageError(f"--{name.replace('_', '-')}: expected with --questions")
        if alone:
            return given
        raise click.UsageError("expected IMAGE and QUESTION, or --questions FILE -o ANSWERS")
    if alone:
        raise click.UsageError("--questions: expected without IMAGE and QUESTION")
    if shown:
        raise click.UsageError("--show-prompt: expected with IMAGE and QUESTION")
    if given["output"] is None:
        raise click.UsageError("--questions: expected -o FILE for the answers")
    return given


def run_file(
    pica: Pica, endpoint: Endpoint, questions: list[Asked], given: dict[str, Any], messages: Messages, **how: Any
) -> FileOfAnswers:
    """Answers the questions into the file of -o."""
    from kosmos_edge.apps.pica import answer_all
    from kosmos_edge.evaluation.log import Log

    progress = Progress(len(questions), shown=shows_progress(messages))

    def report(asked: Asked, error: str | None) -> None:
        if error is not None:
            progress.clear()
            messages.error(asked.id, error)
        progress.advance()

    output = given["output"]
    with Log(output, given["resume"]) as log:
        try:
            return answer_all(
                pica,
                endpoint,
                questions,
                log,
                max_tokens_total=given["max_tokens_total"],
                on_question=report,
                **how,
            )
        except BaseException as error:
            error.add_note(f"finished answers are in {output}; --resume goes on with them")
            raise
        finally:
            progress.clear()


def find_results(given: dict[str, Any]) -> Target | None:
    """The file of --results, which must not be there unless an earlier run is gone on with."""
    from kosmos_edge.targets import find_target

    return None if given["results"] is None else find_target(given["results"], overwrite=given["resume"])


def finish_file(
    done: FileOfAnswers, questions: list[Asked], target: Target | None, given: dict[str, Any], form: str, m: Messages
) -> int:
    """Prints what came out and writes --results; the exit status."""
    from kosmos_edge.json_text import to_json
    from kosmos_edge.targets import write_whole

    if target is not None and not done.left:
        ids = [(int(one.id) if one.id.isdecimal() else one.id, done.answers.get(one.id, "")) for one in questions]
        records = [{"question_id": id, "answer": answer} for id, answer in ids]
        write_whole(target, json.dumps(records, ensure_ascii=False).encode() + b"\n", overwrite=given["resume"])
    if form == "json":
        click.echo(to_json(done.to_dict(), 2))
    else:
        click.echo(_summary(done))
    if done.left:
        m.say(f"the limit of {given['max_tokens_total']} tokens is reached; --resume asks the {done.left} left")
    return 1 if done.failed or done.left else 0


def _summary(done: FileOfAnswers) -> str:
    answered = f"{done.known + done.answered} answered" + (f" ({done.known} before)" if done.known else "")
    parts = [f"{done.questions} questions: {answered}, {len(done.failed)} failed"]
    if done.left:
        parts.append(f"{done.left} not asked")
    if done.vqa_accuracy is not None:
        within = "" if done.ci95 is None else f" (95 %: {100 * done.ci95[0]:.2f} to {100 * done.ci95[1]:.2f})"
        failed = ", a failure counting as a wrong answer" if done.failed else ""
        parts.append(f"VQA accuracy {100 * done.vqa_accuracy:.2f}{within} of {done.scored} with answers{failed}")
    return "; ".join(parts)


__all__ = ["file_options", "find_results", "finish_file", "run_file", "take_file"]
