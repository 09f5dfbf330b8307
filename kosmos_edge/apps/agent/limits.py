"""What a run may spend: requests, tokens, money, time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from kosmos_edge.errors import InvalidRequest

BYTES_PER_TOKEN = 3  # an estimate on the safe side, for endpoints that report no usage


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one run. None: no limit.

    max_steps: requests to the language model, the answer's included. max_tokens_total: tokens of all requests, prompts
    and replies. max_cost and price: money in any currency, and its price (of a million prompt tokens, of a million
    reply tokens). seconds: of the whole run; request_seconds: of one request. Before a limit is passed the language
    model is asked for its answer without tools; a reply may go over the limit by its own length.
    """

    max_steps: int = 12
    max_tokens_total: int | None = None
    max_cost: float | None = None
    price: tuple[float, float] | None = None
    seconds: float = 300.0
    request_seconds: float = 120.0
    max_calls: int = 16  # tool calls in one reply
    max_pictures: int = 64  # crops and drawings included

    def __post_init__(self) -> None:
        for name in ("max_steps", "max_calls", "max_pictures", "max_tokens_total"):
            value = getattr(self, name)
            if value is None and name == "max_tokens_total":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InvalidRequest(f"{name}: expected an integer of at least 1, got {value!r}")
        for name in ("seconds", "request_seconds", "max_cost"):
            value = getattr(self, name)
            if (value is not None or name != "max_cost") and not (_is_number(value) and value > 0):
                raise InvalidRequest(f"{name}: expected a positive number, got {value!r}")
        if self.price is not None:
            pair = isinstance(self.price, tuple | list) and len(self.price) == 2
            if not pair or not all(_is_number(value) and value >= 0 for value in self.price):
                raise InvalidRequest(
                    f"price: expected two numbers, of a million prompt tokens and of a million reply tokens, "
                    f"got {self.price!r}"
                )
        if self.max_cost is not None and self.price is None:
            raise InvalidRequest("max_cost: needs the price of the tokens (price)")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(slots=True)
class Spent:
    """What a run has spent so far."""

    limits: Limits
    prompt_tokens: int = 0
    reply_tokens: int = 0
    estimated: bool = False  # the endpoint reported no usage for at least one request
    _last: tuple[int, int] = field(default=(0, 0))  # tokens of the last request

    @property
    def tokens(self) -> int:
        """Of prompts and replies."""
        return self.prompt_tokens + self.reply_tokens

    @property
    def cost(self) -> float | None:
        """None without a price."""
        return self._cost(self.prompt_tokens, self.reply_tokens)

    def add(self, usage: Mapping[str, int] | None, sent: int, received: int) -> None:
        """Counts a request. usage: as the endpoint reports it; sent, received: bytes of the request and the reply."""
        self.estimated = self.estimated or usage is None
        found = usage or {
            "prompt_tokens": math.ceil(sent / BYTES_PER_TOKEN),
            "completion_tokens": math.ceil(received / BYTES_PER_TOKEN),
        }
        self._last = (found["prompt_tokens"], found["completion_tokens"])
        self.prompt_tokens += self._last[0]
        self.reply_tokens += self._last[1]

    def reached(self, requests: int) -> str | None:
        """ "tokens" or "cost" if so many further requests, each as large as the last one, could pass that limit."""
        prompt = self._last[0] + self._last[1]  # the next prompt has the last reply, too
        tokens = self.tokens + requests * (prompt + self._last[1])
        if self.limits.max_tokens_total is not None and tokens > self.limits.max_tokens_total:
            return "tokens"
        cost = self._cost(self.prompt_tokens + requests * prompt, self.reply_tokens + requests * self._last[1])
        if self.limits.max_cost is not None and cost is not None and cost > self.limits.max_cost:
            return "cost"
        return None

    def _cost(self, prompt_tokens: int, reply_tokens: int) -> float | None:
        if self.limits.price is None:
            return None
        of_prompt, of_reply = self.limits.price
        return (prompt_tokens * of_prompt + reply_tokens * of_reply) / 1_000_000

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "reply_tokens": self.reply_tokens,
            "tokens": self.tokens,
            "estimated": self.estimated,
            "cost": self.cost,
        }


__all__ = ["Limits", "Spent"]
