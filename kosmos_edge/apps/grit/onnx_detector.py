"""An open-vocabulary detector in ONNX, run by onnxruntime: OWL-ViT and what has its inputs and outputs.

A folder in the layout of Hugging Face, as transformers.js uses it (`onnx/model.onnx` or `model.onnx`,
`preprocessor_config.json`, `tokenizer.json`):

    inputs   input_ids, attention_mask  int64 (phrases, tokens)   padded with 0 to the longest
             pixel_values               float32 (1, 3, height, width)
    outputs  logits                     float32 (1, boxes, phrases)
             pred_boxes                 float32 (1, boxes, 4)     centre x, centre y, width, height, fractions

The picture is resized to `size` of preprocessor_config.json without keeping its shape, and normalized with image_mean
and image_std. A box belongs to the phrase with its largest logit; its score is the logit's sigmoid. OWLv2 pads pictures
to squares instead, and is refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from kosmos_edge.apps.grit.boxes import Scored
from kosmos_edge.apps.grit.detectors import Asked, Found
from kosmos_edge.errors import InvalidRequest, KosmosError, KosmosIOError
from kosmos_edge.folders.journal import Journal
from kosmos_edge.images import Picture
from kosmos_edge.results import Corners

_INPUTS, _OUTPUTS = ("input_ids", "attention_mask", "pixel_values"), ("logits", "pred_boxes")
_CLASSES = ("OwlViTImageProcessor", "OwlViTFeatureExtractor", "OwlViTProcessor")
_TOKENS = 16  # OWL-ViT's text encoder has no more places
LEAST = 0.01  # boxes with a lower score are not even kept: the detector gives hundreds for every phrase


class OnnxDetector:
    """The detector in a folder; needs onnxruntime, numpy and tokenizers. threads: None: as many as there are cores.

    A phrase of more than 16 tokens does not fit; pictures with one fail. InvalidRequest, KosmosIOError for a folder
    that is not of this layout.
    """

    def __init__(self, folder: str | os.PathLike[str], threads: int | None = None) -> None:
        try:
            import numpy
            import onnxruntime
            import tokenizers
        except ImportError as error:
            raise InvalidRequest(
                f"an ONNX detector needs {error.name}: pip install onnxruntime numpy tokenizers"
            ) from None
        self._numpy: Any = numpy
        root = Path(folder)
        if not root.is_dir():
            raise InvalidRequest(f"--detector: expected an http address or a folder, got {os.fspath(folder)!r}")
        self._model = next((path for path in (root / "onnx/model.onnx", root / "model.onnx") if path.is_file()), None)
        if self._model is None:
            raise InvalidRequest(f"--detector: {root} has no model.onnx and no onnx/model.onnx")
        self._files = [self._model, root / "preprocessor_config.json", root / "tokenizer.json"]
        self._size, self._mean, self._std, self._resample = _settings(self._files[1])
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads or 0
        try:
            self._tokenizer: Any = tokenizers.Tokenizer.from_file(str(self._files[2]))
            self._session: Any = onnxruntime.InferenceSession(
                str(self._model), settings, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # both libraries raise classes of their own
            raise InvalidRequest(f"--detector: {root}: {error}") from None
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        inputs = {one.name for one in self._session.get_inputs()}
        outputs = {one.name for one in self._session.get_outputs()}
        if inputs != set(_INPUTS) or not outputs >= set(_OUTPUTS):
            raise InvalidRequest(
                f"--detector: {self._model}: expected inputs {', '.join(_INPUTS)} and outputs {', '.join(_OUTPUTS)}, "
                f"got {', '.join(sorted(inputs))} and {', '.join(sorted(outputs))}"
            )
        self.facts: Mapping[str, Any] = {"kind": "onnx", "name": root.name, "onnxruntime": onnxruntime.__version__}

    def identity(self, journal: Journal) -> Mapping[str, Any]:
        """The content of the files."""
        return {**self.facts, "files": [journal.file_digest(path).hex() for path in self._files]}

    def detect(self, asked: Sequence[Asked]) -> list[Found | KosmosError]:
        """One run for each picture."""
        return [self._one(one) for one in asked]

    def _one(self, asked: Asked) -> Found | KosmosError:
        np = self._numpy
        rows = [self._tokenizer.encode(text).ids for text in asked.texts]
        longest = max(map(len, rows))
        if longest > _TOKENS:
            text = asked.texts[[len(row) for row in rows].index(longest)]
            return InvalidRequest(f"the phrase {text!r} has {longest} tokens, expected at most {_TOKENS}")
        ids = np.zeros((len(rows), longest), np.int64)
        mask = np.zeros_like(ids)
        for number, row in enumerate(rows):
            ids[number, : len(row)], mask[number, : len(row)] = row, 1
        given = {"input_ids": ids, "attention_mask": mask, "pixel_values": self._pixels(asked.picture)}
        try:
            logits, places = self._session.run(list(_OUTPUTS), given)
        except Exception as error:
            raise InvalidRequest(f"{self._model}: {error}") from error
        if logits.ndim != 3 or logits.shape[::2] != (1, len(rows)) or places.shape != (1, logits.shape[1], 4):
            raise InvalidRequest(f"{self._model}: outputs of {logits.shape} and {places.shape} for {len(rows)} phrases")
        if np.isnan(logits).any() or not np.isfinite(places).all():
            return InvalidRequest(f"{self._model}: its outputs for this picture are no finite numbers")
        return Found(_boxes(np, logits[0], places[0]))

    def _pixels(self, picture: Picture) -> Any:
        np = self._numpy
        image = Image.frombytes("RGB", (picture.width, picture.height), picture.rgb)
        values = np.asarray(image.resize(self._size, self._resample), np.float32) / np.float32(255)
        values = (values - np.asarray(self._mean, np.float32)) / np.asarray(self._std, np.float32)
        return np.ascontiguousarray(values.transpose(2, 0, 1)[None])


def _boxes(np: Any, logits: Any, places: Any) -> list[list[Scored]]:
    """Of each phrase the boxes whose largest logit is its own, the best first."""
    scores = 1 / (1 + np.exp(-np.clip(logits.max(1).astype(np.float64), -500, 500)))  # clipped: no overflow
    owners = logits.argmax(1)
    found: list[list[Scored]] = [[] for _ in range(logits.shape[1])]
    for box in np.argsort(-scores, kind="stable"):
        if scores[box] >= LEAST:
            x, y, width, height = (float(value) for value in places[box])
            corners: Corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            found[owners[box]].append(Scored(corners, float(scores[box])))
    return found


def _settings(path: Path) -> tuple[tuple[int, int], list[float], list[float], Image.Resampling]:
    """((width, height), mean, standard deviation, filter) of preprocessor_config.json."""
    try:
        record = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise KosmosIOError(error.errno or 5, error.strerror or str(error), str(path)) from error
    except ValueError as error:
        raise InvalidRequest(f"{path}: no JSON: {error}") from None
    if not isinstance(record, dict):
        raise InvalidRequest(f"{path}: expected an object")
    names = ("image_processor_type", "feature_extractor_type", "processor_class")
    kinds = {str(record.get(name)) for name in names} - {"None"}
    if not kinds & set(_CLASSES) or record.get("do_center_crop"):
        shown = ", ".join(sorted(kinds)) or "none of them"
        raise InvalidRequest(f"{path}: expected one of {', '.join(_CLASSES)} without do_center_crop, got {shown}")
    try:
        size = record["size"]
        if not isinstance(size, dict):  # older files: a number, or (height, width)
            size = dict(zip(("height", "width"), size if isinstance(size, list) else (size, size), strict=True))
        sides = int(size["width"]), int(size["height"])
        mean, std = ([float(value) for value in record[name]] for name in ("image_mean", "image_std"))
        resample = Image.Resampling(record.get("resample", Image.Resampling.BICUBIC))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InvalidRequest(f"{path}: expected size, image_mean, image_std, resample ({error})") from None
    if len(mean) != 3 or len(std) != 3 or min(*sides, *std) <= 0:
        raise InvalidRequest(f"{path}: expected a size, three means and three deviations above 0")
    return sides, mean, std, resample
