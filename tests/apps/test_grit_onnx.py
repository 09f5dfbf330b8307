"""The ONNX detector beside graphs that give what no detector should. .ci/grit runs it."""

import json

import numpy as np
import pytest
from PIL import Image

from kosmos_edge import open_image
from kosmos_edge.apps.grit import Asked, Span
from kosmos_edge.apps.grit.onnx_detector import OnnxDetector
from kosmos_edge.errors import InvalidRequest

onnx, tokenizers, _ = (pytest.importorskip(name) for name in ("onnx", "tokenizers", "onnxruntime"))

BOX = [0.5, 0.5, 0.2, 0.2]


def folder(root, logits, boxes):
    """A detector that answers the same about every picture."""
    kind = onnx.TensorProto
    axes = {"input_ids": ["q", "t"], "attention_mask": ["q", "t"], "pixel_values": [1, 3, 8, 8]}
    inputs = [
        onnx.helper.make_tensor_value_info(name, kind.FLOAT if "pixel" in name else kind.INT64, axes[name])
        for name in axes
    ]
    given = {"logits": np.array(logits, np.float32), "pred_boxes": np.array(boxes, np.float32)}
    nodes = [
        onnx.helper.make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(value))
        for name, value in given.items()
    ]
    outputs = [onnx.helper.make_tensor_value_info(name, kind.FLOAT, value.shape) for name, value in given.items()]
    graph = onnx.helper.make_graph(nodes, "constant", inputs, outputs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(root / "model.onnx"))
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"?": 0, "a": 1, "dog": 2}, "?"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(root / "tokenizer.json"))
    settings = {"image_processor_type": "OwlViTImageProcessor", "size": {"height": 8, "width": 8}}
    settings |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (root / "preprocessor_config.json").write_text(json.dumps(settings))
    return root


@pytest.fixture
def asked():
    return Asked(open_image(Image.new("RGB", (9, 5))), b"", "a dog a dog", (Span(0, 5), Span(6, 11)))


def test_boxes_go_to_their_phrase(tmp_path, asked):
    (found,) = OnnxDetector(folder(tmp_path, [[[4.0, -9.0], [-9.0, 2.0]]], [[BOX, BOX]])).detect([asked])
    assert [len(some) for some in found.boxes] == [1, 1]
    assert found.boxes[1][0].score == pytest.approx(1 / (1 + np.exp(-2)), abs=1e-6)
    assert found.boxes[0][0].box == pytest.approx((0.4, 0.4, 0.6, 0.6), abs=1e-6)


@pytest.mark.parametrize(
    ("logits", "boxes"),
    [
        ([[[float("nan"), 1.0]]], [[BOX]]),
        ([[[1.0, 1.0]]], [[[0.5, float("nan"), 0.2, 0.2]]]),
        ([[[1.0, 1.0]]], [[[0.5, 0.5, float("inf"), 0.2]]]),
    ],
)
def test_what_is_not_finite_fails_its_picture(tmp_path, asked, logits, boxes):
    refused, again = OnnxDetector(folder(tmp_path, logits, boxes)).detect([asked, asked])
    assert isinstance(refused, InvalidRequest) and "no finite numbers" in str(refused) and type(again) is type(refused)


@pytest.mark.parametrize(
    ("logits", "boxes"),
    [
        ([[[1.0]]], [[BOX]]),  # one phrase of two
        ([[[1.0, 1.0]]], [[BOX, BOX]]),
        ([[[[1.0], [1.0]]]], [[BOX]]),
        ([[1.0, 1.0]], [[BOX]]),
        ([[[1.0, 1.0]]], [[BOX[:3]]]),
    ],
)
def test_other_shapes_end_the_run(tmp_path, asked, logits, boxes):
    with pytest.raises(InvalidRequest, match="outputs of"):
        OnnxDetector(folder(tmp_path, logits, boxes)).detect([asked])


def test_a_detector_without_boxes(tmp_path, asked):
    (found,) = OnnxDetector(folder(tmp_path, np.zeros((1, 0, 2)), np.zeros((1, 0, 4)))).detect([asked])
    assert found.boxes == [[], []]
