"""XMP sidecars: what exiv2 and exiftool read in them, and that what others wrote stays."""

import json
import shutil
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kosmos_edge.folders.xmp import NotXmp, as_stored, merge_xmp
from kosmos_edge.images import _TURN
from kosmos_edge.results import Box, Entity, Result

DOG = Entity("a Dog", (0, 5), (Box((0.05, 0.2, 0.55, 0.7), (10, 20, 110, 70), None, 0.5),))
HAT = Entity("the hat", (9, 16), (Box((0.5, 0.5, 0.75, 1.0), (100, 50, 150, 100), None, 0.5),))
ANSWER = Result("a Dog & <the hat>", [DOG, HAT], width=200, height=100)
OTHERS = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Other 1.0">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <!-- by hand -->
  <rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:crs="http://x.test/crs/" xmp:Rating="4"
    crs:Exposure="+0.5"/>
  <rdf:Description rdf:about="" xmlns:d="http://purl.org/dc/elements/1.1/"
    xmlns:mwg-rs="http://www.metadataworkinggroup.com/schemas/regions/"
    xmlns:stArea="http://ns.adobe.com/xmp/sType/Area#" xmlns:dc="http://x.test/not-dublin-core/" dc:mine="1">
   <d:description><rdf:Alt><rdf:li xml:lang="de">Ein Hund</rdf:li></rdf:Alt></d:description>
   <d:subject><rdf:Bag><rdf:li>holiday</rdf:li><rdf:li>Dog</rdf:li></rdf:Bag></d:subject>
   <mwg-rs:Regions rdf:parseType="Resource">
    <mwg-rs:RegionList><rdf:Bag>
     <rdf:li><rdf:Description mwg-rs:Name="Ann" mwg-rs:Type="Face"><mwg-rs:Area stArea:x="0.5" stArea:y="0.5"
       stArea:w="0.1" stArea:h="0.2" stArea:unit="normalized"/></rdf:Description></rdf:li>
    </rdf:Bag></mwg-rs:RegionList>
   </mwg-rs:Regions>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
"""


def merged(before: str | None = None, answer: Result = ANSWER, caption: str = "A dog.", **more: Any) -> str:
    return merge_xmp(None if before is None else before.encode(), answer, caption, name="x.xmp", **more).decode()


def listed(text: str, prefix: str) -> list[str]:
    """Texts and attributes by full name, in order."""
    out = []
    for element in ET.fromstring(text.encode()).iter():
        out += [f"{name}={value}" for name, value in element.attrib.items()]
        out += [f"{element.tag}:{element.text.strip()}"] if element.text and element.text.strip() else []
    return [item for item in out if prefix in item]


def test_a_new_one_has_the_schema() -> None:
    text = merged(caption=ANSWER.text, keywords=True)
    root = ET.fromstring(text.encode())
    names = {"dc": "http://purl.org/dc/elements/1.1/", "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
             "i": "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/"}  # fmt: skip
    assert [e.text for e in root.findall(".//dc:description/rdf:Alt/rdf:li", names)] == [ANSWER.text]
    assert [e.text for e in root.findall(".//i:AltTextAccessibility/rdf:Alt/rdf:li", names)] == [ANSWER.text]
    assert [e.text for e in root.findall(".//dc:subject/rdf:Bag/rdf:li", names)] == ["dog", "hat"]
    areas = [item.split("=")[1] for item in listed(text, "Area#}")]
    assert areas == ["0.300000", "0.450000", "0.500000", "0.500000", "normalized",
                     "0.625000", "0.750000", "0.250000", "0.500000", "normalized"]  # fmt: skip
    assert listed(text, "regions/}Name") == [
        "{http://www.metadataworkinggroup.com/schemas/regions/}Name=a Dog",
        "{http://www.metadataworkinggroup.com/schemas/regions/}Name=the hat",
    ]
    assert [item.split("=")[1] for item in listed(text, "Dimensions#}")] == ["200", "100", "pixel"]
    assert "subject" not in merged()
    assert merged(answer=Result("no boxes", width=9, height=9), caption="") == merged(None, Result(""), "")


def test_what_is_there_stays_and_nothing_is_doubled() -> None:
    text = merged(OTHERS, keywords=True)
    for part in ("<!-- by hand -->", 'x:xmptk="Other 1.0"', 'xmp:Rating="4"', 'crs:Exposure="+0.5"', 'dc:mine="1"'):
        assert part in text
    assert "Ein Hund" in text and listed(text, "A dog.") == ["{http://www.w3.org/1999/02/22-rdf-syntax-ns#}li:A dog."]
    found = [item.split(":")[-1] for item in listed(text, "}li:")]
    assert found == ["A dog.", "Ein Hund", "holiday", "Dog", "hat"]  # the description is taken, the alt text was not
    assert [item.split("=")[1] for item in listed(text, "regions/}Name")] == ["Ann", "a Dog", "the hat"]
    assert merged(text, keywords=True) == text
    replaced = merged(text, caption="Another.", replace=True)
    assert "A dog." not in replaced and replaced.count("Another.") == 2 and "Ein Hund" in replaced


def test_other_spellings_are_merged_into() -> None:
    plain = OTHERS.replace("<d:subject><rdf:Bag><rdf:li>holiday</rdf:li><rdf:li>Dog</rdf:li></rdf:Bag></d:subject>",
                           "<d:subject>sun</d:subject>")  # fmt: skip
    assert [e.split(":")[-1] for e in listed(merged(plain, keywords=True), "}li:")][2:] == ["sun", "dog", "hat"]
    nested = (
        '<r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><r:Description r:about=""><m:Regions '
        'xmlns:m="http://www.metadataworkinggroup.com/schemas/regions/"><r:Description/></m:Regions></r:Description></r:RDF>'
    )
    text = merged(nested)
    assert "parseType" not in text and len(listed(text, "regions/}Name")) == 2 and merged(text) == text
    assert "about" in merged('<r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/>')


@pytest.mark.parametrize(
    ("before", "why"),
    [
        ("no xml", "damaged XML"),
        ("<a/>", "without rdf:RDF"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "DOCTYPE"),
        ("<a>\x01</a>", "damaged XML"),
    ],
)
def test_what_is_no_xmp_is_refused(before: str, why: str) -> None:
    with pytest.raises(NotXmp, match=f"x.xmp: expected XMP, .*{why}"):
        merged(before)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_regions_are_in_the_stored_orientation(orientation: int) -> None:
    """A marked picture is turned upright as ours are; its box, turned back, is where the mark is stored."""
    stored = Image.new("L", (40, 20))
    stored.paste(255, (5, 2, 15, 8))
    upright = stored.transpose(_TURN[orientation]) if orientation > 1 else stored
    x1, y1, x2, y2 = upright.getbbox() or (0, 0, 0, 0)
    width, height = upright.size
    box = Box((x1 / width, y1 / height, x2 / width, y2 / height), (x1, y1, x2, y2), None)
    assert as_stored(box.normalized, orientation) == pytest.approx((5 / 40, 2 / 20, 15 / 40, 8 / 20))
    note = [f"turned upright by EXIF orientation {orientation}"] if orientation > 1 else []
    answer = Result("a mark", [Entity("a mark", (0, 6), (box,))], width=width, height=height, notes=note)
    text = merged(answer=answer)
    assert [item.split("=")[1] for item in listed(text, "Dimensions#}")] == ["40", "20", "pixel"]
    assert [item.split("=")[1] for item in listed(text, "Area#}")][:4] == [
        "0.250000",
        "0.250000",
        "0.250000",
        "0.300000",
    ]


def test_text_that_xml_cannot_hold() -> None:
    odd = replace(DOG, phrase="a\x01<&>\ud800")
    text = merged(answer=Result("x", [odd], width=200, height=100), caption="a\x00 <b> & \x0b\ufffe", keywords=True)
    assert listed(text, "}li:")[0].split(":")[-1] == "a\ufffd <b> & \ufffd\ufffd"
    assert merged(text, Result("x", [odd], width=200, height=100), keywords=True) == text


@pytest.mark.skipif(shutil.which("exiv2") is None, reason="exiv2 is not installed")
@pytest.mark.parametrize("before", [None, OTHERS])
def test_exiv2_reads_it(tmp_path: Path, before: str | None) -> None:
    (tmp_path / "photo.jpg.xmp").write_text(merged(before, keywords=True))
    done = subprocess.run(["exiv2", "-PXkv", tmp_path / "photo.jpg.xmp"], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    found = dict(line.split(None, 1) for line in done.stdout.splitlines() if len(line.split(None, 1)) == 2)
    assert found["Xmp.iptc.AltTextAccessibility"] == 'lang="x-default" A dog.'
    first = 2 if before else 1
    region = f"Xmp.mwg-rs.Regions/mwg-rs:RegionList[{first}]/mwg-rs:"
    assert found[f"{region}Name"] == "a Dog" and found[f"{region}Area/stArea:x"] == "0.300000"
    assert found["Xmp.dc.subject"] == ("holiday, Dog, hat" if before else "dog, hat")


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
def test_exiftool_reads_it(tmp_path: Path) -> None:
    (tmp_path / "photo.xmp").write_text(merged(OTHERS, keywords=True))
    words = ["exiftool", "-json", "-struct", "-XMP:all", tmp_path / "photo.xmp"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    (found,) = json.loads(done.stdout)
    assert found["AltTextAccessibility"] == "A dog." and found["Subject"] == ["holiday", "Dog", "hat"]
    assert found["Rating"] == 4 and found["Description-de"] == "Ein Hund"
    regions = found["RegionInfo"]["RegionList"]
    assert [region["Name"] for region in regions] == ["Ann", "a Dog", "the hat"]
    assert regions[1]["Area"] == {"X": 0.3, "Y": 0.45, "W": 0.5, "H": 0.5, "Unit": "normalized"}
    assert found["RegionInfo"]["AppliedToDimensions"] == {"W": 200, "H": 100, "Unit": "pixel"}
