"""Overlays: the picture with its boxes as HTML and SVG, in notebooks and files; results as other programs take them."""

import base64
import io
import json
import os
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from helpers.api_model import grounded_file, grounded_model, picture, png
from PIL import Image

from kosmos_edge import Box, Done, Entity, InvalidRequest, Result, draw, load, open_image
from kosmos_edge.annotations import Labels
from kosmos_edge.errors import ImageDecodeError, KosmosIOError
from kosmos_edge.overlay import IN_NOTEBOOKS, overlay_page, overlay_svg

SVG = "{http://www.w3.org/2000/svg}"
VOID = {"meta", "br", "image", "rect"}


def box(x1: float, y1: float, x2: float, y2: float, score: float | None = 0.5) -> Box:
    return Box((x1, y1, x2, y2), (x1 * 100, y1 * 80, x2 * 100, y2 * 80), (1, 2), score)


def answer(text: str = "a dog & <a cat> sit.") -> Result:
    entities = [
        Entity("a dog", (0, 5), (box(0.1, 0.1, 0.9, 0.9),), 0.5),
        Entity("<a cat>", (8, 15), (box(0.2, 0.2, 0.4, 0.4), box(0.5, 0.5, 0.25, 0.75)), 0.4),
    ]
    result = Result(text, entities, model="tiny", width=100, height=80)
    result.image = png()
    return result


class Page(HTMLParser):
    """Elements, text, and that every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "title", "text", "small"} & set(self.open):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def embedded(uri: str | None) -> Image.Image:
    assert uri is not None and uri.startswith("data:image/jpeg;base64,")
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_html_has_the_picture_its_boxes_and_the_text() -> None:
    html = answer().to_html()
    page = Page(html)
    assert page.text.strip() == "a dog & <a cat> sit."
    (image,) = page.all("image")
    shown = embedded(image["href"])
    want = Image.open(io.BytesIO(png())).convert("RGB")
    assert shown.size == want.size
    assert np.abs(np.asarray(shown, int) - np.asarray(want, int)).mean() < 12
    (svg,) = page.all("svg")
    assert svg["viewbox"] == "0 0 100 80" and svg["aria-label"] == "a dog & <a cat> sit."
    rectangles = [tuple(float(r[k] or "") for k in ("x", "y", "width", "height")) for r in page.all("rect")]
    assert rectangles == [(10, 8, 80, 64), (20, 16, 20, 16)]  # the inverted one is not drawn; the small one is on top
    assert [g["class"] for g in page.all("g")] == ["e0", "e1"]
    assert [s["class"] for s in page.all("span")] == ["e0", "e1"]
    assert "<title>a dog 0.50</title>" in html and "<title>&lt;a cat&gt; 0.50</title>" in html
    assert "0.50" not in answer().to_html(scores=False)


def test_box_and_phrase_light_up_each_other_without_a_script() -> None:
    html = answer().to_html()
    name = re.search(r'<div class="(ke-[0-9a-f]{12})">', html)
    assert name is not None
    for number in (0, 1):
        on = f".{name[1]}:has(.e{number}:hover,.e{number}:focus)"
        assert f"{on} g.e{number} rect{{" in html and f"{on} span.e{number}{{" in html
    assert "<script" not in html and "http" not in html.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"\son[a-z]+=", html)
    other = answer("a dog & <a cat> stand.").to_html()
    assert name[1] not in other and name[1] in answer().to_html()  # two results of one page do not mix


@pytest.mark.parametrize(
    "text", ["</p><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a\0b\x1b[0m\ud800\uffff", "x\ny"]
)
def test_texts_are_escaped(text: str) -> None:
    result = Result(text, [Entity(text, (0, len(text)), (box(0, 0, 1, 1),), 0.5)], width=100, height=80)
    result.image = png()
    for html in (result.to_html(), overlay_page(result, open_image(png()), title=text)):
        page = Page(html)
        assert not page.all("script") and not page.all("img")
        assert re.sub(r"\s+", " ", page.text).strip() == re.sub("[\0\x1b\ud800\uffff]", "\ufffd", text).replace(
            "\n", " "
        )
        html.encode()
    ET.fromstring(result.to_svg().encode())
    error = Result("", error=ImageDecodeError(text))
    assert not Page(error.to_html()).all("script")


def test_svg_is_a_whole_file() -> None:
    root = ET.fromstring(answer().to_svg().encode())
    assert root.tag == f"{SVG}svg" and root.get("viewBox") == "0 0 100 80"
    labels = [element.text for element in root.iter(f"{SVG}text")]
    assert labels == ["a dog 0.50", "<a cat> 0.50"]
    image = root.find(f"{SVG}image")
    assert image is not None and embedded(image.get("href")).size == (100, 80)
    assert "visibility:hidden" not in answer().to_svg()  # without a pointer the labels must show


def test_the_picture_is_scaled_down() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), np.uint8)
    result = Result("noise", [], width=2000, height=1500)
    html = result.to_html(noise)
    shown = embedded(Page(html).all("image")[0]["href"])
    assert len(html) < IN_NOTEBOOKS.bytes * 4 / 3 + 2000 and max(shown.size) <= IN_NOTEBOOKS.side
    assert abs(shown.width / shown.height - 4 / 3) < 0.01
    assert len(result.to_svg(noise)) > len(html)  # files may have more
    line = Result("", [], width=3000, height=1).to_html(np.zeros((1, 3000, 3), np.uint8))
    assert embedded(Page(line).all("image")[0]["href"]).height == 1


def test_where_the_picture_comes_from(tmp_path: Path) -> None:
    path = tmp_path / "a photo.png"
    path.write_bytes(png())
    result = answer()
    result.image, result.source = None, str(path)
    assert Page(result.to_html()).all("image")
    with pytest.raises(InvalidRequest, match="100 x 80, this one is 50 x 40"):
        result.to_html(picture(0, 50, 40))
    path.unlink()
    with pytest.raises(KosmosIOError):
        result.to_html()
    page = Page(result._repr_html_())
    assert not page.all("image") and len(page.all("g")) == 2
    assert "The picture is not shown" in result._repr_html_() and str(path) in result._repr_html_()
    result.source = None
    with pytest.raises(InvalidRequest, match="no image any more"):
        result.to_svg()
    Image.new("RGB", (7, 7)).save(path)  # another picture of this name
    result.source = str(path)
    assert not Page(result._repr_html_()).all("image")
    alone = Result("only <text>")
    assert Page(alone._repr_html_()).text.strip() == "only <text>" and not Page(alone.to_html()).all("svg")
    failed = Result("", width=100, height=80, error=ImageDecodeError("it is damaged"))
    assert Page(failed._repr_html_()).text == "it is damaged"


ISOLATIONS = ["none"] + (["process"] if os.name == "posix" else [])


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_a_result_has_the_image_that_the_call_got(isolation: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(png())
    with load(grounded_file(), threads=1, isolation=isolation) as model:  # type: ignore[arg-type]
        for image in (png(), picture(), Image.fromarray(picture()), open_image(png())):
            result = model.ground(image, max_tokens=8)
            assert result.image is image and Page(result._repr_html_()).all("image")
            *_, done = model.ground(image, max_tokens=8, stream=True)
            assert isinstance(done, Done) and done.result.image is image and done.result.text == result.text
        for image in (path, str(path), model.encode(path), io.BytesIO(png())):
            result = model.ground(image, max_tokens=8)
            assert result.image is None
        assert Page(model.ground(path, max_tokens=8)._repr_html_()).all("image")
        (result,) = model.batch([png()], "ground", max_tokens=8)
        assert isinstance(result, Result) and result.image is None
        assert model.generate(["a dog"], max_tokens=2).image is None
        assert model.chat(png()).ask("Who?", max_tokens=2).image is None  # an EncodedImage by then
    assert "image" not in result.to_dict() and "image=" not in repr(result)


def test_saved_by_suffix(tmp_path: Path) -> None:
    result, opened = answer(), open_image(png())
    for name in ("a.svg", "a.SVG", "a.html", "a.htm", "a.png"):
        path = tmp_path / name
        draw.save_drawing(draw.drawing(opened, result, path, title="<t>"), path)
        data = path.read_bytes()
        if name.endswith("png"):
            assert Image.open(io.BytesIO(data)).size == (100, 80)
        elif name.lower().endswith("svg"):
            assert data.decode() == overlay_svg(result, opened)
        else:
            assert data.decode() == overlay_page(result, opened, title="<t>")
            assert data.startswith(b"<!doctype html>") and b"<title>&lt;t&gt;</title>" in data
    with pytest.raises(InvalidRequest, match="100 x 80"):
        draw.drawing(picture(0, 10, 10), result, tmp_path / "b.svg")


def test_in_a_notebook(tmp_path: Path) -> None:
    """Jupyter shows a result by its HTML: a real kernel, through nbclient."""
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    (tmp_path / "photo.png").write_bytes(png())
    code = f"import kosmos_edge\nmodel = kosmos_edge.load({str(grounded_file())!r}, threads=1)\n"
    cells = [code + "model.ground('photo.png', max_tokens=8)", "await model.aground('photo.png', max_tokens=8)"]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(book, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    want = grounded_model().ground(tmp_path / "photo.png", max_tokens=8).to_html()
    for cell in book.cells:
        (output,) = cell.outputs
        assert output["output_type"] == "execute_result" and output["data"]["text/html"] == want
        assert Page(want).all("image")


# ---- annotation tools


def test_forms_of_annotation_tools() -> None:
    result = answer()
    assert result.to_yolo() == "0 0.500000 0.500000 0.800000 0.800000\n1 0.300000 0.300000 0.200000 0.200000\n"
    names = Labels(["cat", "dog"])
    assert [line.split()[0] for line in result.to_yolo(names).splitlines()] == ["1"]  # "<a cat>" is none of the names
    root = ET.fromstring(result.to_voc(name="photos/a.png"))
    assert root.findtext("filename") == "a.png" and root.findtext("object/bndbox/xmax") == "90"
    task = result.to_label_studio(name="a.png", prefix="/data/local-files/?d=")
    assert task["data"] == {"image": "/data/local-files/?d=a.png"}
    values = [row["value"] for row in task["predictions"][0]["result"]]
    assert values[0]["rectanglelabels"] == ["a dog"] and values[0]["width"] == pytest.approx(80)
    json.dumps(task)
    for call in ("to_yolo", "to_voc", "to_label_studio", "to_fiftyone", "to_supervision"):
        with pytest.raises(InvalidRequest, match="with an image"):
            getattr(Result("no image"), call)()
        with pytest.raises(InvalidRequest, match="damaged"):
            getattr(Result("", error=ImageDecodeError("damaged")), call)()


def test_labels_serve_many_results() -> None:
    labels = Labels(plain=True)
    first, second = answer(), answer()
    second.entities = [Entity("The  dog", (0, 5), (box(0, 0, 1, 1),)), Entity("a tree", (0, 5), (box(0, 0, 1, 1),))]
    numbers = [line.split()[0] for result in (first, second) for line in result.to_yolo(labels).splitlines()]
    assert numbers == ["0", "1", "0", "2"] and labels.names == ["dog", "<a cat>", "tree"]


def test_supervision() -> None:
    pytest.importorskip("supervision", reason="supervision is not installed")
    found = answer().to_supervision()
    assert found.xyxy.tolist() == [[10, 8, 90, 72], [20, 16, 40, 32]] and found.class_id.tolist() == [0, 1]
    assert found.confidence.tolist() == [0.5, 0.5] and found["class_name"].tolist() == ["a dog", "<a cat>"]
    assert len(Result("nothing", width=100, height=80).to_supervision()) == 0
    unsure = answer()
    unsure.entities = [Entity("x", (0, 1), (box(0, 0, 1, 1, None),))]
    assert unsure.to_supervision().confidence is None


def test_fiftyone() -> None:
    pytest.importorskip("fiftyone", reason="fiftyone is not installed")
    found = answer().to_fiftyone().detections
    assert [d.label for d in found] == ["a dog", "<a cat>"] and found[0].confidence == 0.5
    assert found[0].bounding_box == pytest.approx([0.1, 0.1, 0.8, 0.8])


@pytest.mark.parametrize("name", ["fiftyone", "supervision"])
def test_a_package_that_is_missing_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(InvalidRequest, match=rf"pip install {name}"):
        getattr(answer(), f"to_{name}")()
