"""Boxes and captions in the formats of annotation tools and data sets.

Pure functions: pictures with their regions in, records and texts out. They read no picture and write no file.

    from kosmos_edge.annotations import Labels, coco, picture_of, yolo

    pictures = [picture_of(result) for result in model.batch(paths, "ground") if result.ok]
    labels = Labels()
    data = coco(pictures, labels)
    lines = yolo(pictures[0], labels)
"""

from kosmos_edge.annotations.coco import coco, coco_captions, coco_parts, coco_results
from kosmos_edge.annotations.fiftyone import fiftyone, fiftyone_labels
from kosmos_edge.annotations.imagefolder import imagefolder
from kosmos_edge.annotations.label_studio import label_studio, label_studio_config
from kosmos_edge.annotations.labels import Labels
from kosmos_edge.annotations.pictures import Picture, Region, picture_of
from kosmos_edge.annotations.supervision import supervision
from kosmos_edge.annotations.voc import voc
from kosmos_edge.annotations.yolo import yolo, yolo_data

__all__ = [
    "Labels",
    "Picture",
    "Region",
    "coco",
    "coco_captions",
    "coco_parts",
    "coco_results",
    "fiftyone",
    "fiftyone_labels",
    "imagefolder",
    "label_studio",
    "label_studio_config",
    "picture_of",
    "supervision",
    "voc",
    "yolo",
    "yolo_data",
]
