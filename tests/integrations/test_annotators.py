"""autodistill, CVAT, FiftyOne and Label Studio: each driven by its own package, where that is installed."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kosmos_edge import InvalidRequest, Model, load
from kosmos_edge.integrations.finding import Finder

SCENE = Path(__file__).resolve().parents[2] / "examples" / "scene-00001.png"
PROMPTS = {"a shopping cart": "cart", "a light bulb": "bulb"}


@pytest.fixture(scope="module")
def model() -> Model:
    return load("nano", threads=1)


@pytest.fixture(scope="module")
def found(model: Model) -> list[Any]:
    return Finder(PROMPTS, model, min_score=0.0).find(SCENE)


def test_autodistill_labels_a_folder(model: Model, found: list[Any], tmp_path: Path) -> None:
    pytest.importorskip("autodistill.detection", reason="autodistill or its scikit-learn is not installed")
    import cv2
    from autodistill.detection import CaptionOntology
    from PIL import Image

    from kosmos_edge.integrations.autodistill import KosmosEdge

    base = KosmosEdge(CaptionOntology(PROMPTS), model, min_score=0.0)
    detections = base.predict(str(SCENE))
    assert detections.xyxy.tolist() == [pytest.approx(one.pixels) for one in found]
    assert detections.confidence.tolist() == pytest.approx([one.score for one in found])
    assert detections.class_id.tolist() == [0, 1] and list(detections["class_name"]) == ["cart", "bulb"]
    assert base.predict(cv2.imread(str(SCENE))).xyxy.tolist() == detections.xyxy.tolist()  # blue, green, red
    assert len(base.predict(str(SCENE), confidence=1.0)) == 0
    (tmp_path / "in").mkdir()
    for number in range(2):  # autodistill needs one for training and one for validation
        Image.open(SCENE).convert("RGB").save(tmp_path / "in" / f"{number}.jpg", quality=95)
    base.label(str(tmp_path / "in"), extension=".jpg", output_folder=str(tmp_path / "out"))
    lines = sorted((tmp_path / "out").rglob("labels/*.txt"))
    assert len(lines) == 2 and all(len(path.read_text().splitlines()) >= 1 for path in lines)


def test_cvat_takes_its_rectangles(model: Model, found: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cvat_sdk.auto_annotation", reason="cvat-sdk is not installed")
    import logging

    import cvat_sdk.models as models
    from cvat_sdk.auto_annotation import annotate_task, driver
    from PIL import Image

    from kosmos_edge.integrations.cvat import create

    labels = [SimpleNamespace(name=name, id=number, type="any", sublabels=[], attributes=[])
              for number, name in ((7, "a light bulb"), (9, "a shopping cart"))]  # fmt: skip
    media = SimpleNamespace(load_image=lambda: Image.open(SCENE))
    sample = SimpleNamespace(frame_name=SCENE.name, frame_index=4, media=media)
    monkeypatch.setattr(driver, "TaskDataset", lambda *_, **__: SimpleNamespace(labels=labels, samples=[sample]))
    sent: dict[str, Any] = {}
    api = SimpleNamespace(partial_update_annotations=lambda action, task, **given: sent.update(given, task=task))
    client: Any = SimpleNamespace(logger=logging.getLogger("cvat"), tasks=SimpleNamespace(api=api))
    function = create("a shopping cart, a light bulb", model=str(model.path), min_score=0.0, threads=1)
    annotate_task(client, 137, function)
    request = sent["patched_labeled_data_request"]
    assert isinstance(request, models.PatchedLabeledDataRequest) and sent["task"] == 137
    assert [(shape.label_id, shape.frame, shape.type.value) for shape in request.shapes] == [
        (9, 4, "rectangle"),
        (7, 4, "rectangle"),
    ]
    assert [shape.points for shape in request.shapes] == [list(one.pixels) for one in found]
    annotate_task(client, 137, function, conf_threshold=1.0)
    assert not sent["patched_labeled_data_request"].shapes
    with pytest.raises(InvalidRequest, match="labels: expected some"):
        create("")


def test_fiftyone_applies_it(model: Model, found: list[Any]) -> None:
    pytest.importorskip("fiftyone", reason="FiftyOne is not installed")
    import numpy as np
    from fiftyone.core.models import Model as FiftyOneModel
    from PIL import Image

    from kosmos_edge.integrations.fiftyone import KosmosEdge

    applied = KosmosEdge(PROMPTS, model, min_score=0.0)
    assert isinstance(applied, FiftyOneModel) and applied.media_type == "image"
    image = np.array(Image.open(SCENE).convert("RGB"))
    with applied:
        (detections,) = applied.predict_all([image])
    assert [one.label for one in detections.detections] == ["cart", "bulb"]
    height, width = image.shape[:2]
    x, y, w, h = detections.detections[0].bounding_box
    assert (x * width, y * height, (x + w) * width, (y + h) * height) == pytest.approx(found[0].pixels)
    assert detections.detections[0].confidence == found[0].score
    phrases = KosmosEdge(None, model, min_score=0.0).predict(image).detections
    own = model.caption(SCENE, ground=True)
    assert len(phrases) == len(own.boxes) and phrases[0].label in own.entities[0].phrase


def test_label_studio_gets_predictions(
    model: Model, found: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MODEL_DIR", str(tmp_path))  # where label-studio-ml keeps its cache
    pytest.importorskip("label_studio_ml.response", reason="the current label-studio-ml is not installed")
    from label_studio_ml.api import init_app
    from label_studio_sdk.label_interface import LabelInterface

    from kosmos_edge.integrations import label_studio

    monkeypatch.setattr(label_studio, "_loaded", [model])
    config = """<View><Image name="photo" value="$url"/>
    <RectangleLabels name="box" toName="photo" model_score_threshold="0.0">
      <Label value="cart" predicted_values="a shopping cart"/><Label value="a light bulb"/>
    </RectangleLabels>
    <TextArea name="caption" toName="photo"/>
    <Choices name="kind" toName="photo"><Choice value="a shopping cart"/><Choice value="an elephant"/></Choices>
    </View>"""
    client = init_app(label_studio.KosmosEdge).test_client()
    monkeypatch.setattr(label_studio.KosmosEdge, "get_local_path", lambda self, url, task_id=None: url)
    task = {"id": 3, "data": {"url": str(SCENE)}}
    body = {"tasks": [task], "project": "5.1700000000", "label_config": config, "params": {}}
    answer = client.post("/predict", json=body)
    assert answer.status_code == 200, answer.data
    (prediction,) = answer.get_json()["results"]
    assert LabelInterface(config).validate_prediction(prediction)
    boxes = [row for row in prediction["result"] if row["type"] == "rectanglelabels"]
    assert [row["value"]["rectanglelabels"] for row in boxes] == [["cart"], ["a light bulb"]]
    x1, y1, x2, y2 = found[0].pixels
    width, height = boxes[0]["original_width"], boxes[0]["original_height"]
    place = [boxes[0]["value"][name] for name in ("x", "y", "width", "height")]
    wanted = [100 * x1 / width, 100 * y1 / height, 100 * (x2 - x1) / width, 100 * (y2 - y1) / height]
    assert place == pytest.approx(wanted)
    rest = {row["from_name"]: row["value"] for row in prediction["result"][len(boxes) :]}
    assert rest == {"caption": {"text": [model.caption(SCENE).text]}, "kind": {"choices": ["a shopping cart"]}}
    assert (
        json.loads(client.post("/setup", json={"project": "5.1", "schema": config}).data)["model_version"] == model.name
    )
