"""Other programs' forms of a Result: overlays with its picture, and the records of annotation tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kosmos_edge.errors import InvalidRequest, KosmosError

if TYPE_CHECKING:
    from kosmos_edge.annotations import Labels, Picture
    from kosmos_edge.images import ImageInput
    from kosmos_edge.images import Picture as OpenedImage


class ResultForms:
    """Methods of Result.

    The forms for annotation tools take `labels`, which numbers the labels of many pictures: an annotations.Labels, with
    names of the caller's or growing by the phrases. None: the phrases of this result, in their order. `name` is the
    picture's file name instead of Result.source. Inverted boxes cannot be expressed and are left out. They raise
    InvalidRequest for a result without an image or with an error.
    """

    __slots__ = ()

    # ---- overlays

    def to_html(self, image: ImageInput | None = None, *, scores: bool = True) -> str:
        """A <div> with the picture, at most 768 pixels wide, and the text: boxes and phrases light up each other.

        image: what the result is about; None: Result.image or the file Result.source, opened again. It stands in the
        HTML, which needs no other file and no script. Without an image the request had none: only the text.
        Raises InvalidRequest (there is no image any more, or it has another size), ImageDecodeError, KosmosIOError.
        """
        from kosmos_edge.overlay import overlay_html

        needed = image is not None or (_of(self).width is not None and _of(self).error is None)
        return overlay_html(self, self._opened(image) if needed else None, scores=scores)

    def to_svg(self, image: ImageInput | None = None, *, scores: bool = True) -> str:
        """An SVG file with the picture, at most 1600 pixels wide, its boxes and their labels. image: as of to_html."""
        from kosmos_edge.overlay import overlay_svg

        return overlay_svg(self, self._opened(image), scores=scores)

    def _repr_html_(self) -> str:
        """For notebooks: to_html(), or the boxes without the picture and why."""
        from kosmos_edge.overlay import overlay_html

        try:
            return self.to_html()
        except KosmosError as error:
            return overlay_html(self, missing=f"The picture is not shown: {error}")

    def _opened(self, image: ImageInput | None) -> OpenedImage:
        from kosmos_edge.images import open_image
        from kosmos_edge.overlay import check_picture

        source = image if image is not None else _of(self).image
        if source is None:
            source = _of(self).source
        if source is None:
            raise InvalidRequest("the result has no image any more: pass it")
        opened = open_image(source)
        check_picture(self, opened)
        return opened

    # ---- annotation tools

    def to_yolo(self, labels: Labels | None = None) -> str:
        """A line "class cx cy width height" for each box, in fractions; classes are 0-based (annotations.yolo)."""
        from kosmos_edge.annotations import yolo

        return yolo(self._picture(), _labels(labels))

    def to_voc(self, labels: Labels | None = None, *, name: str | None = None) -> str:
        """Pascal VOC's XML file (annotations.voc)."""
        from kosmos_edge.annotations import voc

        return voc(self._picture(name), _labels(labels))

    def to_label_studio(
        self, labels: Labels | None = None, *, name: str | None = None, prefix: str = ""
    ) -> dict[str, Any]:
        """A task of Label Studio with the boxes and the text as a prediction (annotations.label_studio).

        prefix: before the name, for the picture's address, such as "/data/local-files/?d=photos/".
        """
        from kosmos_edge.annotations import label_studio

        return label_studio(self._picture(name), _labels(labels), prefix=prefix)

    def to_fiftyone(self, labels: Labels | None = None) -> Any:
        """fiftyone.Detections, for a field of a sample. InvalidRequest without the package fiftyone."""
        from kosmos_edge.annotations import fiftyone as rows

        found = rows(self._picture(), _labels(labels))
        try:
            import fiftyone
        except ImportError as error:
            raise InvalidRequest("to_fiftyone: needs the package fiftyone (pip install fiftyone)") from error
        return fiftyone.Detections(detections=[fiftyone.Detection(**row) for row in found])

    def to_supervision(self, labels: Labels | None = None) -> Any:
        """supervision.Detections: xyxy in pixels, confidence if it is known, class_id, data["class_name"].

        InvalidRequest without the package supervision.
        """
        from kosmos_edge.annotations import supervision as columns

        found = columns(self._picture(), _labels(labels))
        try:
            import numpy as np
            import supervision
        except ImportError as error:
            raise InvalidRequest("to_supervision: needs the package supervision (pip install supervision)") from error
        scores = found["confidence"]
        return supervision.Detections(
            xyxy=np.array(found["xyxy"], np.float32).reshape(-1, 4),
            confidence=None if scores is None else np.array(scores, np.float32),
            class_id=np.array(found["class_id"], int),
            data={"class_name": np.array(found["class_name"], str)},
        )

    def _picture(self, name: str | None = None) -> Picture:
        from kosmos_edge.annotations import picture_of

        return picture_of(self, name=name)


def _labels(labels: Labels | None) -> Labels:
    from kosmos_edge.annotations import Labels

    return Labels() if labels is None else labels


def _of(result: ResultForms) -> Any:
    """The Result, whose class is above this module."""
    return result
