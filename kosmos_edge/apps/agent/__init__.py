"""A language model that answers questions about pictures and has our verbs as its tools (docs/agent.md)."""

from kosmos_edge.apps.agent.agent import Agent
from kosmos_edge.apps.agent.conversation import Run
from kosmos_edge.apps.agent.limits import Limits
from kosmos_edge.apps.agent.transcript import Call, Step, Transcript
from kosmos_edge.apps.errors import EndpointError

__all__ = ["Agent", "Call", "EndpointError", "Limits", "Run", "Step", "Transcript"]
