"""Figures for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120)


class Metrics:
    """The counters of one server, in a registry of their own."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counter(
            "kosmos_edge_requests", "Requests by route and HTTP status", ["route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "kosmos_edge_request_seconds", "Seconds per request", ["route"], buckets=SECONDS, registry=registry
        )
        self.tokens = Counter("kosmos_edge_tokens", "Tokens of answers", registry=registry)
        self.prompt_tokens = Counter("kosmos_edge_prompt_tokens", "Tokens of prompts", registry=registry)
        self.reused_tokens = Counter(
            "kosmos_edge_reused_tokens", "Tokens of prompts that were not computed again", registry=registry
        )
        self.passes = Counter(
            "kosmos_edge_passes", "Passes of the decoder that gave tokens of answers", registry=registry
        )
        self.drafted_tokens = Counter(
            "kosmos_edge_drafted_tokens", "Tokens that were tried ahead of their turn", registry=registry
        )
        self.accepted_tokens = Counter("kosmos_edge_accepted_tokens", "Those of them that came", registry=registry)
        self.images = Counter("kosmos_edge_images", "Images of requests", registry=registry)
        self.waiting = Gauge("kosmos_edge_waiting", "Requests in the queue", registry=registry)
        self.running = Gauge("kosmos_edge_running", "Answers that are being computed", registry=registry)
        self.loaded = Gauge("kosmos_edge_model_loaded", "1: the model is in memory", registry=registry)
        self.loads = Gauge("kosmos_edge_model_loads", "How often the model was loaded", registry=registry)

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return bytes(generate_latest(self.registry))
