"""A transcript as one HTML page: no other file, no script, no address that a browser could open.

Every text is escaped, whoever wrote it, and the page's policy forbids scripts and connections besides. The functions
take a transcript.Transcript, whose module is above this one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from kosmos_edge.apps.agent.gallery import Shown
from kosmos_edge.json_text import to_json
from kosmos_edge.overlay import PreviewSize, html_text, overlay_html, preview

_SIZE = PreviewSize(640, 200_000)
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_RULES = """\
.N{max-width:52rem;font:15px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
.N figure{display:inline-block;margin:0 1rem 1rem 0;vertical-align:top;max-width:100%}
.N img{max-width:100%;height:auto;max-height:24rem}
.N figcaption,.N small{opacity:.75}
.N section{border-left:3px solid #8886;padding-left:1rem;margin:1rem 0}
.N pre{white-space:pre-wrap;background:#8882;padding:.5rem;margin:.3rem 0;font-size:13px}
.N .answer{border-color:#2a7;font-size:17px}
.N .bad{border-color:#c33}"""


def page(transcript: Any) -> str:
    """The whole page."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{html_text(transcript.question)}</title>\n</head>\n<body>\n{body(transcript)}\n</body>\n</html>\n"
    )


def body(transcript: Any) -> str:
    """A <div> with all of it."""
    inside = "\n".join(_parts(transcript))
    name = "ka-" + hashlib.sha256(inside.encode()).hexdigest()[:12]  # several may stand in one notebook
    return f'<div class="{name}">\n<style>{_RULES.replace(".N", "." + name)}</style>\n{inside}\n</div>'


def _parts(log: Any) -> Iterator[str]:
    yield f"<h2>{_lines(log.question)}</h2>"
    shown = list(log.gallery)
    yield "<div>" + "".join(_figure(item) for item in shown if item.parent is None) + "</div>"
    by_handle = {item.handle: item for item in shown}
    yield from (_call(call, by_handle) for call in log.captions)
    for number, step in enumerate(log.steps, 1):
        is_answer = not step.calls and step.text.strip() == log.answer
        said = f"<p>{_lines(step.text)}</p>" if step.text.strip() and not is_answer else ""
        if step.calls or said:
            facts = f"step {number}: {step.tokens[0]} + {step.tokens[1]} tokens, {step.ms / 1000:.1f} s"
            calls = "\n".join(_call(call, by_handle) for call in step.calls)
            yield f"<section><small>{facts}</small>{said}\n{calls}</section>"
    if log.answer:
        yield f'<section class="answer"><p>{_lines(log.answer)}</p></section>'
    for line in [*([f"The run ended early: {log.why}"] if log.why else []), *log.notes]:
        yield f'<section class="bad"><p>{_lines(line)}</p></section>'
    yield f"<p><small>{_lines(_facts(log))}</small></p>"


def _facts(log: Any) -> str:
    spent, about = log.spent, "about " if log.spent.estimated else ""
    cost = "" if spent.cost is None else f", cost {spent.cost:.4f}"
    count = len(log.steps)
    return (
        f"{log.llm} at {log.url}; looked with {', '.join(log.models)}; {count} step{'' if count == 1 else 's'}, "
        f"{about}{spent.tokens} tokens{cost}, {log.seconds:.1f} s"
    )


def _call(call: Any, shown: dict[str, Shown]) -> str:
    written = call.arguments if isinstance(call.arguments, str) else to_json(call.arguments)
    head = f"<p><b>{html_text(call.tool or '(no name)')}</b> {html_text(written)}</p>"
    if call.error is not None:
        return f'<section class="bad">{head}<p>{_lines(call.error)}</p></section>'
    made = "" if call.made is None else _figure(shown[call.made])
    seen = "" if made else f"<pre>{html_text(to_json(call.payload, 2))}</pre>"
    if call.result is not None and call.image is not None and call.result.boxes:
        drawn = overlay_html(call.result, shown[call.image].picture, size=_SIZE)
        seen = f"{drawn}<details><summary>the result</summary>{seen}</details>"
    return f"<section>{head}{seen}{made}</section>"


def _figure(shown: Shown) -> str:
    uri, _ = preview(shown.picture, _SIZE)
    size = f"{shown.picture.width} x {shown.picture.height}"
    of = "" if shown.parent is None else f" of {shown.parent}"
    box = "" if shown.box is None else f" [{', '.join(map(str, shown.box))}]"
    return (
        f'<figure><img alt="{html_text(shown.handle)}" src="{uri}">'
        f"<figcaption>{html_text(shown.handle)}{html_text(of)}{box}, {size}</figcaption></figure>"
    )


def _lines(text: Any) -> str:
    return html_text(str(text)).replace("\n", "<br>\n")


__all__ = ["body", "page"]
