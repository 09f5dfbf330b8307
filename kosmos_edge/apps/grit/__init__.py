"""Grounded image-text pairs from captioned pictures, as KOSMOS-2's authors made GRIT: `kosmos-edge grit build`."""

from kosmos_edge.apps.grit.boxes import Kept, Rules, Scored, choose, iou
from kosmos_edge.apps.grit.build import Builder, Made
from kosmos_edge.apps.grit.detectors import Asked, Detector, EngineDetector, Found
from kosmos_edge.apps.grit.expressions import Noun, Nouns, Span, abstract_nouns, expand, find_nouns, outermost
from kosmos_edge.apps.grit.http_detector import HttpDetector
from kosmos_edge.apps.grit.parsers import GivenTrees, Parser, SpacyParser
from kosmos_edge.apps.grit.records import make_record, read_records
from kosmos_edge.apps.grit.sources import Pair, read_pairs
from kosmos_edge.apps.grit.statistics import Statistics
from kosmos_edge.apps.grit.trees import Chunk, Token, Tree, tree_from_dict

__all__ = [
    "Asked",
    "Builder",
    "Chunk",
    "Detector",
    "EngineDetector",
    "Found",
    "GivenTrees",
    "HttpDetector",
    "Kept",
    "Made",
    "Noun",
    "Nouns",
    "Pair",
    "Parser",
    "Rules",
    "Scored",
    "SpacyParser",
    "Span",
    "Statistics",
    "Token",
    "Tree",
    "abstract_nouns",
    "choose",
    "expand",
    "find_nouns",
    "iou",
    "make_record",
    "outermost",
    "read_pairs",
    "read_records",
    "tree_from_dict",
]
