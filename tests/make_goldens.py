"""Make the recorded goldens in tests/goldens/ from transformers: python tests/make_goldens.py (reference extra).

The model is the tiny one of tiny.py, which any machine can make again without torch. For every case of golden_cases.py
pictures are tried until no decision of the search was close (`MARGIN`, in log-probability, a hundred times the
rounding noise), so that no order of float operations can change the ids.
"""

import itertools
import json
import random
import tempfile
from dataclasses import asdict

import numpy as np
from helpers.golden_cases import CASES, GOLDENS, SIZES, WORD_LIST, Case, weights_digest
from helpers.hf_model import HfModel, boxes_text
from helpers.reference import Reference
from helpers.tiny import Tiny, make_picture, make_tiny
from helpers.tiny_hf import write_hf_folder
from PIL import Image
from transformers.models.kosmos2.processing_kosmos2 import (
    clean_text_and_extract_entities_with_bboxes,
    coordinate_to_patch_index,
    patch_index_to_coordinate,
)

MARGIN, BEAM_MARGIN = 2e-3, 5e-4


def record_case(case: Case, number: int, hf: HfModel, ref: Reference) -> tuple[dict, dict[str, np.ndarray]]:
    """Find pictures that give a clear answer; its record and the logits of some positions, from transformers."""
    words = WORD_LIST.split()
    for attempt in range(400):
        pictures = [[1000 * number + 10 * attempt + n, *SIZES[(number + n) % len(SIZES)]] for n in range(case.pictures)]
        word = words[attempt % len(words)] if case.pictures == 0 else "{word}"
        segments = [(k, v.replace("{word}", word) if k == "tags" else v) for k, v in case.segments]
        images = [hf.encode_image(make_picture(*p)) for p in pictures]
        ids, mask, vectors = hf.prompt(segments, images)
        slots = [i for i, m in enumerate(mask) if m]
        prompt = ref.prompt([])
        prompt.ids[:] = ids
        prompt.vectors.update(zip(slots, np.concatenate(vectors) if vectors else [], strict=True))
        if case.beams == 1:
            answer = ref.generate(prompt, case.max_tokens, case.ngram)
        else:
            answer = ref.beam_search(prompt, case.beams, case.max_tokens, case.length_penalty, case.ngram)
        ended = len(answer.ids) < case.max_tokens
        full = ended if case.ends else not ended or case.beams > 1
        telling = len(answer.ids) >= min(5, case.max_tokens)
        if full and telling and answer.margin > (MARGIN if case.beams == 1 else BEAM_MARGIN):
            break
    else:
        raise RuntimeError(f"no clear answer for {case.name!r}")
    how = {"max_new_tokens": case.max_tokens, "no_repeat_ngram_size": case.ngram}
    if case.beams > 1:
        how |= {"num_beams": case.beams, "length_penalty": case.length_penalty}
    got = hf.generate(ids, mask, vectors, **how)
    assert got["ids"] == answer.ids, f"{case.name}: the numpy reference differs from transformers"
    check_processor(case, segments, ids, hf, pictures)
    sequence = ids + got["ids"][:-1]
    rows = sorted({1, len(ids) // 2, len(ids) - 1, (len(ids) + len(sequence)) // 2 - 1, len(sequence) - 1})
    logits = hf.logits(sequence, mask, vectors)
    table = logits[len(ids) - 1 :].astype(np.float64)
    table -= table.max(-1, keepdims=True)
    table -= np.log(np.exp(table).sum(-1, keepdims=True))
    record = {
        **{k: v for k, v in asdict(case).items() if k != "ends"},
        "segments": segments,
        "pictures": pictures,
        "prompt_ids": ids,
        "ids": got["ids"],
        "logprobs": [round(float(table[i, t]), 4) for i, t in enumerate(got["ids"])],
        "score": got["score"] and float(f"{got['score']:.5g}"),
        "margin": float(f"{answer.margin:.1g}"),
        "logit_rows": rows,
        "text": hf.tokenizer.decode(got["ids"], skip_special_tokens=True),
    }
    print(f"{case.name}: attempt {attempt}, margin {answer.margin:.2g}, {len(set(got['ids']))} different tokens")
    return record, {f"logits/{case.name}": logits[rows]}


def check_processor(case: Case, segments: list, ids: list[int], hf: HfModel, pictures: list) -> None:
    """Where the processor can make the prompt (one picture, at the front), it must make the same ids."""
    if case.pictures != 1 or segments[0][0] != "image":
        return
    text = "".join(boxes_text(v) if kind == "boxes" else v for kind, v in segments[1:])
    made = hf.processor(images=Image.fromarray(make_picture(*pictures[0])), text=text, return_tensors="pt")
    assert made["input_ids"][0].tolist() == ids, case.name
    if any(kind == "boxes" for kind, _ in segments):
        text = "".join("" if kind == "boxes" else v for kind, v in segments[1:])
        boxes = [[tuple(c) for c in v] for kind, v in segments if kind == "boxes"]
        made = hf.processor(images=Image.fromarray(make_picture(*pictures[0])), text=text, bboxes=boxes)
        assert made["input_ids"] == ids, case.name


def record_soups(hf: HfModel, tiny: Tiny) -> list[dict]:
    """Answers with well-formed and ill-formed boxes: decoded text and what post-processing makes of it."""
    rng = random.Random(3)
    find = tiny.vocabulary.id
    words = [find(p) for p in ("▁a", "▁dog", "s", ".", "▁", ",", "▁snow", "man", "<", ">", "é", "▁the", "<unk>", "'")]
    tags = [find(t) for t in ("<phrase>", "</phrase>", "<object>", "</object>", "</delimiter_of_multi_objects/>")]
    others = [find(t) for t in ("<grounding>", "</line>", "</doc>", "</chunk>", "<mask>", "</s>", "<pad>")]

    def cell() -> int:
        return find("<patch_index_0000>") + rng.randrange(1024)

    def good() -> list[int]:
        pairs = [[cell(), cell()] for _ in range(rng.choice([1, 1, 2, 3]))]
        joined = list(itertools.chain(*([*p, tags[4]] for p in pairs)))[:-1]
        phrase = [tags[0], *rng.choices(words, k=rng.randint(1, 3)), tags[1]] if rng.random() < 0.8 else []
        return [*phrase, tags[2], *joined, tags[3]]

    def junk() -> list[int]:
        pick = rng.random()
        if pick < 0.4:
            return rng.choices(words, k=rng.randint(1, 4))
        return [cell()] if pick < 0.5 else [rng.choice(tags if pick < 0.9 else others)]

    soups = []
    for i in range(400):
        parts = [good() if rng.random() < 0.35 else junk() for _ in range(rng.randint(1, 9))]
        ids = list(itertools.chain(*parts))
        if i % 3 == 0 and len(ids) > 2:  # break something
            del ids[rng.randrange(len(ids))]
        record = {"ids": ids}
        for key, clean in (("plain", False), ("cleaned", True)):
            text = hf.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=clean)
            caption, entities = clean_text_and_extract_entities_with_bboxes(text)
            record[key] = {"decoded": text, "text": caption, "entities": entities}
        if record["cleaned"] == record["plain"]:
            record["cleaned"] = None  # the same
        soups.append(record)
    return soups


def record_texts(hf: HfModel) -> list[dict]:
    """Ids of texts with tags, and of what decoding them gives."""
    texts = [v for case in CASES for kind, v in case.segments if kind == "tags"]
    # Not here, because sentencepiece and transformers differ by design: special tokens spelt out, tabs and other
    # blanks without a normaliser, a literal U+2581.
    texts += ["", " ", "a", "  a  b ", "<grounding>", " <grounding> ", "<grounding>a", "</phrase>.", "<phrase>"]
    texts += ["<patch_index_0001><patch_index_1023>", "<patch_index_1>", "<patch_index_10240>", "<Phrase>"]
    texts += ["<phrase> <phrase>", "the dogs, the snowman; re-reading", "日本語", "👍👍 ok", "Question:Answer:", "é"]
    texts += ["an imageofthe", "<object><patch_index_0044><patch_index_0863></object>. It", "x < y > z"]
    return [{"text": t, "ids": hf.text_ids(t)} for t in dict.fromkeys(texts)]


def record_boxes() -> dict:
    """Boxes -> cells and cells -> boxes."""
    rng = random.Random(5)
    boxes = [[0.0, 0.0, 1.0, 1.0], [0.25, 0.25, 0.5, 0.5], [0.39, 0.046, 0.984, 0.828], [0.0, 0.0, 1e-6, 1e-6]]
    while len(boxes) < 200:
        x1, x2 = sorted((rng.random(), rng.random()))
        y1, y2 = sorted((rng.random(), rng.random()))
        if len(boxes) % 4 == 0:  # on the borders of cells
            x1, x2, y1, y2 = (round(v * 32) / 32 for v in (x1, x2, y1, y2))
        if x1 < x2 and y1 < y2:
            boxes.append([x1, y1, x2, y2])
    cells = [[44, 863], [33, 33], [0, 1023], [1023, 0], [5, 37], [5, 9]]
    cells += [[rng.randrange(1024), rng.randrange(1024)] for _ in range(200)]
    return {
        "to_cells": [[b, coordinate_to_patch_index(tuple(b), 32)] for b in boxes],
        "to_box": [[c, patch_index_to_coordinate(*c, 32)] for c in cells],
    }


def record_resizes() -> dict[str, np.ndarray]:
    """PIL's bicubic resize of pictures of awkward sizes."""
    sizes = [(1, 1), (1, 9), (7, 3), (56, 56), (57, 55), (112, 28), (97, 61), (300, 20), (20, 300), (500, 333)]
    out = {}
    for n, (width, height) in enumerate(sizes):
        picture = Image.fromarray(make_picture(50 + n, width, height))
        out[f"resize/{50 + n}/{width}x{height}/56"] = np.asarray(picture.resize((56, 56), Image.Resampling.BICUBIC))
    picture = Image.fromarray(make_picture(60, 640, 427))
    out["resize/60/640x427/224"] = np.asarray(picture.resize((224, 224), Image.Resampling.BICUBIC))
    return out


def main() -> None:
    """Write goldens/answers.json, goldens/processor.json and goldens/arrays.npz."""
    tiny = make_tiny(seed=0)
    with tempfile.TemporaryDirectory() as folder:
        hf = HfModel(write_hf_folder(folder, tiny))
    ref = Reference(tiny.metadata, tiny.weights)
    digest = weights_digest(tiny)
    arrays, records = record_resizes(), []
    for number, case in enumerate(CASES):
        record, logits = record_case(case, number, hf, ref)
        records.append(record)
        arrays |= logits
    for seed, width, height in [p for r in records for p in r["pictures"]][:5]:
        arrays[f"embedding/{seed}/{width}x{height}"] = hf.encode_image(make_picture(seed, width, height))
    GOLDENS.mkdir(exist_ok=True)
    np.savez_compressed(GOLDENS / "arrays.npz", **arrays)
    processor = {"texts": record_texts(hf), "soups": record_soups(hf, tiny), "boxes": record_boxes()}
    for name, content in (("answers", {"weights_sha256": digest, "cases": records}), ("processor", processor)):
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        (GOLDENS / f"{name}.json").write_text(text.replace("},{", "},\n{") + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
