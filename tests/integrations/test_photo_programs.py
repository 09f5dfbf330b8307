"""Photo programs: XMP sidecars as exiv2 (digiKam, darktable) and ExifTool (Immich) read them, PhotoPrism's requests."""

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kosmos_edge import Model, cli, load

SCENE = Path(__file__).resolve().parents[2] / "examples" / "scene-00001.png"
CAPTION = ("Xmp.dc.description", "Xmp.iptc.AltTextAccessibility")


@pytest.fixture(scope="module")
def model() -> Model:
    return load("nano", threads=1)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scene as a phone stores it, lying on its side, and the sidecar that batch writes."""
    path = tmp_path_factory.mktemp("photos") / "IMG_1.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees to the right, it is upright
    upright = Image.open(SCENE).convert("RGB").crop((0, 0, 320, 280))
    upright.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=95)
    words = ("batch", path.parent, "-m", "nano", "-t", 1, "--sidecar", "xmp", "--keywords", "--capital", "-q")
    assert cli.run([*map(str, words), "--journal", str(path.parent / "journal.sqlite3")]) == 0
    assert sorted(found.name for found in path.parent.glob("IMG*")) == ["IMG_1.jpg", "IMG_1.jpg.xmp"]
    return path


def expected(photo: Path, model: Model) -> tuple[str, list[str], list[tuple[str, list[float]]]]:
    """Caption, keywords, and regions: name, centre and size in fractions of the picture as it is stored."""
    own = model.caption(photo, ground=True)
    text = own.text[0].upper() + own.text[1:]
    regions = []
    for entity in own.entities:
        for box in entity.boxes:
            x1, y1, x2, y2 = box.normalized  # of the upright picture; stored: x is y, y is 1 - x
            regions.append((entity.phrase, [(y1 + y2) / 2, 1 - (x1 + x2) / 2, y2 - y1, x2 - x1]))
    keywords = list(dict.fromkeys(entity.phrase.split(" ", 1)[1] for entity in own.entities))
    assert len(regions) >= 2 and len(keywords) >= 2
    return text, keywords, regions


@pytest.mark.skipif(shutil.which("exiv2") is None, reason="exiv2 is not installed")
def test_exiv2_reads_what_batch_writes(photo: Path, model: Model) -> None:
    text, keywords, regions = expected(photo, model)
    done = subprocess.run(["exiv2", "-PXkv", f"{photo}.xmp"], capture_output=True, text=True, check=True)
    assert not done.stderr
    found = dict(line.split(None, 1) for line in done.stdout.splitlines() if len(line.split(None, 1)) == 2)
    assert [found[name] for name in CAPTION] == [f'lang="x-default" {text}'] * 2
    assert found["Xmp.dc.subject"] == ", ".join(keywords)
    for number, (phrase, place) in enumerate(regions, 1):
        inside = f"Xmp.mwg-rs.Regions/mwg-rs:RegionList[{number}]/mwg-rs:"
        assert found[f"{inside}Name"] == phrase and found[f"{inside}Area/stArea:unit"] == "normalized"
        assert [float(found[f"{inside}Area/stArea:{side}"]) for side in "xywh"] == pytest.approx(place, abs=1e-6)


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
def test_exiftool_reads_what_batch_writes(photo: Path, model: Model) -> None:
    text, keywords, regions = expected(photo, model)
    words = ["exiftool", "-json", "-struct", f"{photo}.xmp"]
    (found,) = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    assert found["Description"] == found["AltTextAccessibility"] == text and found["Subject"] == keywords
    with Image.open(photo) as stored:
        size = {"W": stored.width, "H": stored.height, "Unit": "pixel"}
    assert found["RegionInfo"]["AppliedToDimensions"] == size
    areas = [region["Area"] for region in found["RegionInfo"]["RegionList"]]
    assert [region["Name"] for region in found["RegionInfo"]["RegionList"]] == [phrase for phrase, _ in regions]
    for area, (_, place) in zip(areas, regions, strict=True):
        assert [area[side] for side in "XYWH"] == pytest.approx(place, abs=1e-6) and area["Unit"] == "normalized"


def photoprism_request(prompt: str) -> dict[str, Any]:
    """What PhotoPrism sends to an Ollama service: with a number of its own, an empty suffix, and no stream."""
    return {
        "id": "8b6c9f7e-2f0e-4a3b-9a0f-2d1c5b7e8f90",
        "model": "nano",
        "prompt": prompt,
        "suffix": "",
        "options": {"temperature": 0.1},
        "stream": False,
        "images": [base64.b64encode(SCENE.read_bytes()).decode()],
    }


def test_photoprism_gets_captions(model: Model) -> None:
    pytest.importorskip("uvicorn", reason="the extra `server` is not installed")
    pytest.importorskip("prometheus_client", reason="the extra `server` is not installed")
    from helpers.http_server import serving

    with serving() as server:
        for prompt, own in (
            ("Describe this image in detail:", model.caption(SCENE, "long", temperature=0.1)),
            ("An image of", model.caption(SCENE, temperature=0.1)),
            ("What is this?", model.ask(SCENE, "What is this?", temperature=0.1)),
        ):
            answer = server.post("/api/generate", photoprism_request(prompt))
            assert answer.status == 200, answer.body
            assert answer.json()["response"] == own.text and answer.json()["done"] is True
