"""Damaged PDFs give a page, or an error of this package: nothing else is raised, and the process survives."""

import random
from collections import Counter

import pytest
from helpers.documents import make_pdf, make_result

from kosmos_edge.documents import ReadPage, open_document
from kosmos_edge.documents.pdf import PdfPages
from kosmos_edge.documents.searchable import SearchablePdf
from kosmos_edge.errors import KosmosError
from kosmos_edge.images import Opening

ORIGINALS = [make_pdf(["one", "", "three"]), make_pdf(["x"], rotate=90, box=(10, 20, 154, 92))]
WORDS = [b"<<", b">>", b"[", b"]", b"obj", b"9999999999", b"-1", b"null", b"/Kids", b"(", b"q q"]


def damaged(seed: int) -> bytes:
    """A PDF with up to 40 bytes changed, removed or added, or cut off."""
    choose = random.Random(seed)
    data = bytearray(choose.choice(ORIGINALS))
    for _ in range(choose.choice([1, 3, 10, 40])):
        kind, place = choose.random(), choose.randrange(5, len(data))
        if kind < 0.5:
            data[place] = choose.randrange(256)
        elif kind < 0.7:
            del data[place : place + choose.randrange(1, 30)]
        elif kind < 0.9:
            data[place:place] = choose.choice(WORDS)
        else:
            del data[place + 1 :]
        data += b"\n" * max(0, 20 - len(data))
    return bytes(data)


@pytest.mark.parametrize("start", range(0, 400, 100))
def test_damaged_pdfs(start: int) -> None:
    met: Counter[str] = Counter()
    for seed in range(start, start + 100):
        try:
            with open_document(damaged(seed), dpi=72, opening=Opening(max_pixels=4_000_000)) as document:
                assert isinstance(document, PdfPages)
                pdf = SearchablePdf(document)
                for number in range(1, min(document.count, 4) + 1):
                    met[f"text {document.has_text(number)}"] += 1
                    try:
                        image = document.page(number)
                        result = make_result(image.picture.width, image.picture.height, [("t", (1, 1, 9, 9), 0.5)])
                        pdf.add(ReadPage(number, result, image.dpi), image)
                        met["page"] += 1
                    except KosmosError:
                        met["page refused"] += 1
                pdf.save()
        except KosmosError:
            met["file refused"] += 1
    assert all(met[what] > 0 for what in ("page", "file refused", "text True", "text False")), met
