"""A model class for lm-evaluation-harness, and the harness's command with it:

    python -m kosmos_edge.integrations.lm_eval run --model kosmos-edge --model_args pretrained=kosmos-2 --tasks piqa

Model arguments: pretrained (a tag or a file; default nano), threads, mmproj, kv_type (f16, q8_0),
no_repeat_ngram_size, num_beams.
Requests are computed one after another; batch_size is taken and has no effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from tqdm import tqdm

from kosmos_edge.integrations.harness import HarnessModel, own_options
from kosmos_edge.loading import KvType

T = TypeVar("T")


class KosmosEdge(LM):  # type: ignore[misc,unused-ignore]
    """Text alone: likelihoods and continuations."""

    def __init__(
        self,
        pretrained: str = "nano",
        *,
        threads: int | str | None = None,
        mmproj: str | None = None,
        kv_type: KvType = "f16",
        no_repeat_ngram_size: int | str | None = None,
        num_beams: int | str | None = None,
        device: str | None = None,
        batch_size: int | str | None = None,
        max_batch_size: int | str | None = None,
    ) -> None:
        super().__init__()
        self.harness = HarnessModel.load(pretrained, device=device, threads=threads, mmproj=mmproj, kv_type=kv_type)
        self._defaults = own_options(no_repeat_ngram_size, num_beams)

    @property
    def tokenizer_name(self) -> str:
        """What tells cached requests of different models apart."""
        model = self.harness.model
        return f"{model.path} q8_0" if model.kv_type == "q8_0" else str(model.path)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(ln p of the continuation, whether it is greedy) of (context, continuation)."""
        return [
            self._keep("loglikelihood", request, self.harness.loglikelihood(*request.args))
            for request in _progress(requests, disable_tqdm)
        ]

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """ln p of (text,)."""
        return [
            self._keep("loglikelihood_rolling", request, self.harness.loglikelihood_rolling(*request.args))
            for request in _progress(requests, disable_tqdm)
        ]

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """The continuation of (context, settings), without the stop text."""
        return [
            self._keep("generate_until", request, self._continue(*request.args))
            for request in _progress(requests, disable_tqdm)
        ]

    def _continue(self, context: str, settings: dict[str, Any]) -> str:
        return self.harness.generate(context, settings, self._defaults)

    def _keep(self, kind: str, request: Any, answer: T) -> T:
        """The answer, which the harness may cache."""
        self.cache_hook.add_partial(kind, request.args, answer)
        return answer


def _progress(requests: Iterable[Any], disabled: bool) -> Iterator[Any]:
    yield from tqdm(requests, disable=disabled)


register_model("kosmos-edge", "kosmos_edge")(KosmosEdge)

if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
