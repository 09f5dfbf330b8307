"""The ONNX detector: a small OWL-ViT of random weights, exported to ONNX, beside transformers. .ci/grit runs it."""

import json
import warnings

import numpy as np
import pytest
from PIL import Image

from kosmos_edge import open_image
from kosmos_edge.apps.grit import Asked, Span
from kosmos_edge.apps.grit.onnx_detector import LEAST, OnnxDetector
from kosmos_edge.errors import InvalidRequest

torch, transformers, tokenizers = (pytest.importorskip(name) for name in ("torch", "transformers", "tokenizers"))
for name in ("onnx", "onnxruntime"):
    pytest.importorskip(name)

SIDE = 64
WORDS = ["!", "<s>", "</s>", "a", "dog", "in", "field", "of", "flowers", "red", "hat"]


def make_model():
    torch.manual_seed(3)
    text = {"vocab_size": 32, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "image_size": SIDE, "patch_size": 16}
    places = {"max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": 31, "pad_token_id": 0}
    heads = {"num_attention_heads": 4}
    parts = {"text_config": {**text, **places, **heads}, "vision_config": {**vision, **heads}}
    model = transformers.OwlViTForObjectDetection(transformers.OwlViTConfig(**parts, projection_dim=32)).eval()
    with torch.no_grad():  # scores that differ
        for part, scale in ((model.class_head, 6), (model.box_head, 3)):
            for parameter in part.parameters():
                parameter.copy_(torch.randn_like(parameter) * scale / parameter.shape[-1])
    return model


def processor():
    """The one that computes with Pillow, as ours does."""
    from transformers.models.owlvit import image_processing_pil_owlvit as module

    return module.OwlViTImageProcessorPil(size={"height": SIDE, "width": SIDE})


class Exported(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, pixel_values):
        out = self.model(input_ids=input_ids, attention_mask=attention_mask, pixel_values=pixel_values)
        return out.logits, out.pred_boxes


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """(the folder, the model)"""
    root, model = tmp_path_factory.mktemp("owl"), make_model()
    (root / "onnx").mkdir()
    ids = torch.tensor([[1, 3, 4, 31], [1, 8, 31, 0]])
    names = {"input_names": ["input_ids", "attention_mask", "pixel_values"], "output_names": ["logits", "pred_boxes"]}
    axes = {"input_ids": {0: "q", 1: "t"}, "attention_mask": {0: "q", 1: "t"}, "logits": {2: "q"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = (ids, (ids > 0).long(), torch.zeros(1, 3, SIDE, SIDE))
        path = str(root / "onnx" / "model.onnx")
        torch.onnx.export(Exported(model), given, path, **names, dynamic_axes=axes, dynamo=False, opset_version=17)
    words = {word: number for number, word in enumerate(WORDS)} | {"</s>": 31, "?": 30}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "?"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    ends = [("<s>", 1), ("</s>", 31)]
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing("<s> $A </s>", None, ends)
    tokenizer.save(str(root / "tokenizer.json"))
    processor().save_pretrained(root)
    return root, model


def asked():
    noise = np.random.default_rng(5).integers(0, 255, (48, 80, 3), np.uint8)
    caption = "a dog in a field of flowers"
    picture = open_image(Image.fromarray(noise).resize((200, 120), Image.Resampling.BICUBIC))
    return Asked(picture, b"", caption, (Span(0, 5), Span(9, 16), Span(20, 27)))


def test_boxes_and_scores_are_those_of_transformers(detector):
    root, model = detector
    one = asked()
    (found,) = OnnxDetector(root).detect([one])
    image = Image.frombytes("RGB", (one.picture.width, one.picture.height), one.picture.rgb)
    pixels = processor()(image, return_tensors="pt")["pixel_values"]
    ids = torch.tensor([[1, 3, 4, 31], [1, 3, 6, 31], [1, 8, 31, 0]])
    with torch.no_grad():
        out = model(input_ids=ids, attention_mask=(ids > 0).long(), pixel_values=pixels)
    (expected,) = processor().post_process_object_detection(out, threshold=LEAST)
    true = [[] for _ in one.phrases]
    for score, label, box in zip(*(expected[name].tolist() for name in ("scores", "labels", "boxes")), strict=True):
        true[label].append([*box, score])
    assert sum(map(len, true)) >= 8 and len({round(row[4], 2) for rows in true for row in rows}) > 2
    for ours, theirs in zip(found.boxes, true, strict=True):
        theirs.sort(key=lambda row: -row[4])
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert [*a.box, a.score] == pytest.approx(b, abs=1e-4)


def test_too_many_words_concern_one_picture(detector):
    one = asked()
    long = Asked(one.picture, b"", "dog " * 40, (Span(0, 159),))
    refused, found = OnnxDetector(detector[0]).detect([long, one])
    assert isinstance(refused, InvalidRequest) and "42 tokens" in str(refused) and found.boxes


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("preprocessor_config.json", '{"image_processor_type": "Owlv2ImageProcessor"}', "Owlv2ImageProcessor"),
        ("preprocessor_config.json", '{"image_processor_type": "OwlViTImageProcessor"}', "expected size"),
        ("preprocessor_config.json", "{", "no JSON"),
        ("tokenizer.json", "{}", "--detector"),
        ("onnx/model.onnx", "no model", "--detector"),
    ],
)
def test_folders_of_another_form(detector, tmp_path, file, content, says):
    import shutil

    root = tmp_path / "copy"
    shutil.copytree(detector[0], root)
    (root / file).write_text(content)
    with pytest.raises(InvalidRequest, match=says):
        OnnxDetector(root)


def test_the_model_is_part_of_the_identity(detector, tmp_path):
    import shutil

    from kosmos_edge.folders import Journal

    root = tmp_path / detector[0].name
    shutil.copytree(detector[0], root)
    with Journal(None) as journal:
        one, two = OnnxDetector(detector[0]), OnnxDetector(root)
        assert one.identity(journal) == two.identity(journal)
        config = json.loads((root / "preprocessor_config.json").read_text())
        (root / "preprocessor_config.json").write_text(json.dumps(config | {"image_mean": [0.5, 0.5, 0.5]}))
        assert OnnxDetector(root).identity(journal) != one.identity(journal)
