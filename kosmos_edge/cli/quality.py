"""kosmos-edge bench quality: what a storage type costs in accuracy, overlap of boxes and KL divergence."""

from __future__ import annotations

from typing import Any, Literal

import click

from kosmos_edge.cli.common import message_options, option, report_format_option, take_messages
from kosmos_edge.cli.streams import check_stdout

DEFAULT_TYPES = "f32,f16,q8_0,q6_k,q5_k,q4_k_m,q4_0,iq4_xs,q3_k_m,q2_k"
DEFAULT_COUNT = 200  # scenes
MAX_COUNT = 1_000_000
COLUMNS = (  # heading, key, digits
    ("type", "type", None),
    ("MB", "file_bytes", None),
    ("named", "name_accuracy", 4),
    ("box IoU", "box_iou", 4),
    ("IoU>=.5", "box_hit_50", 4),
    ("located", "locate_hit_50", 4),
    ("described", "describe_accuracy", 4),
    ("answers", "vqa_accuracy", 4),
    ("yes/no", "yes_no_balanced_accuracy", 4),
    ("KL", "kl", 6),
    ("top-1", "top1_agreement", 4),
    ("loc top-1", "location_top1_agreement", 4),
    ("same caption", "caption_agreement", 4),
)


@click.command("quality")
@option(
    "-m", "--model", metavar="TAG|FILE|FOLDER", help="Model: a tag, a GGUF file, user/repo:TAG, or a checkpoint folder."
)
@option(
    "--types",
    default=DEFAULT_TYPES,
    show_default=True,
    metavar="T,T,...",
    help="Storage types to compare; the first one is the reference.",
)
@option(
    "--n",
    "-n",
    "count",
    type=click.IntRange(1, MAX_COUNT),
    metavar="N",
    help="Number of images. Default: 200 scenes, or the whole folder.",
)
@option(
    "--seed",
    type=click.IntRange(0, 1_000_000),
    elsewhere=click.IntRange(0, 2**64 - 1),
    default=0,
    show_default=True,
    help="Random seed of the scenes.",
)
@option("--pictures", metavar="FOLDER", help="Use these images instead of scenes of nano's shapes.")
@option("--labels", metavar="FILE", help="Labels of the images (JSON, in COCO's or our own form).")
@option("--work", metavar="FOLDER", help="Folder for temporary files. Default: the system's.")
@option("--device", default="auto", show_default=True, help="Device: auto, cpu, cuda, cuda:1, ...")
@option("-t", "--threads", type=int, metavar="N", help="Threads. Default: all that this process may use.")
@option(
    "--kv-type",
    type=click.Choice(["f16", "q8_0"]),
    default="f16",
    show_default=True,
    help="q8_0: measure every type with keys and values of 8 bits, too.",
)
@option("--offline", is_flag=True, help="Do not use the network.")
@report_format_option
@message_options
def quality(
    model: str | None,
    types: str,
    count: int | None,
    seed: int,
    pictures: str | None,
    labels: str | None,
    work: str | None,
    device: str,
    threads: int | None,
    kv_type: Literal["f16", "q8_0"],
    offline: bool,
    form: str,
    **rest: Any,
) -> int:
    """Measure what storage types cost in accuracy.

    Makes every type from the model and gives each the same requests, about held-out scenes of nano's shapes, whose
    labels are known, or about your images. Without --labels your images are only compared with the first type's answers
    (KL divergence, top-1 tokens, captions or lines, boxes). TYPE:float computes a quantized type's weights with float
    activations.
    """
    from kosmos_edge.cli.output import to_json
    from kosmos_edge.quality import cases as quality_cases
    from kosmos_edge.quality.measure import baselines, measure
    from kosmos_edge.quality.models import Source, parse_types

    messages = take_messages(rest)
    check_stdout()
    wanted = parse_types(types)
    if labels is not None:
        cases = quality_cases.labelled_cases(labels, pictures, count)
    elif pictures is not None:
        cases = quality_cases.folder_cases(pictures, count)
    else:
        cases = quality_cases.world_cases(seed, count or DEFAULT_COUNT)
    source = Source(model, offline)
    if source.is_quantized:
        messages.say(
            f"{source.path} is stored as {source.label}: float types are made from its rounded weights, so every "
            "figure compares with those, not with the trained model"
        )
    rows = measure(
        source, wanted, cases, folder=work, device=device, threads=threads, kv_type=kv_type, say=messages.detail
    )
    report = {
        "model": str(source.path),
        "source_type": source.label,
        "reference": wanted[0],
        "pictures": labels or pictures or f"scenes of nano's shapes, seed {seed}",
        "baselines": baselines(cases),
        "types": rows,
    }
    click.echo(to_json(_rounded(report), 2) if form == "json" else text(report))
    return 0


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 8)
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list) else value


def text(report: dict[str, Any]) -> str:
    """The report as a table, without columns for which nothing was measured."""
    rows = [*report["types"], {"type": "(not looking)", **report["baselines"]}]
    shown = [c for c in COLUMNS if c[0] == "type" or any(row.get(c[1]) is not None for row in report["types"])]
    cells = [[heading for heading, _, _ in shown]]
    cells += [[_cell(row, key, digits) for _, key, digits in shown] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(shown))]
    first = report["types"][0]
    lines = [
        f"{first['n']} images ({report['pictures']}), {first['objects']} objects, {first['questions']} questions, "
        f"{first['tokens']} tokens; made from {report['source_type']}, compared with {report['reference']}"
    ]
    for row in cells:
        lines.append(
            "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        )
    if not report["baselines"]["vqa_by_kind"]:
        return "\n".join(lines)
    lines += ["", "answers by kind of question:"]
    for kind, guess in report["baselines"]["vqa_by_kind"].items():
        given = "  ".join(f"{row['type']} {row['vqa_by_kind'][kind]:.3f}" for row in report["types"])
        lines.append(f"  {kind}: {given}  (most common answer {guess:.3f})")
    return "\n".join(lines)


def _cell(row: dict[str, Any], key: str, digits: int | None) -> str:
    value = row.get(key)
    if value is None:
        return ""
    if key == "file_bytes":
        return f"{value / 1e6:.1f}"
    return str(value) if digits is None else f"{value:.{digits}f}"
