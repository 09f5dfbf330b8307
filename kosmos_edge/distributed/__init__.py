"""Past one machine: Captioner for Ray Data, Daft and Spark; batch --engine ray; see docs/distributed.md."""

from kosmos_edge.distributed.captioner import Captioner
from kosmos_edge.distributed.daft_class import daft_captioner

__all__ = ["Captioner", "daft_captioner"]
