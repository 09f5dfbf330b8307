"""A model class for lmms-eval, which finds it by the entry point group lmms_eval.models:

    python -m lmms_eval --model kosmos_edge --model_args pretrained=kosmos-2 --tasks seedbench_ppl

Model arguments: pretrained (a tag or a file; default nano), threads, mmproj, kv_type (f16, q8_0),
no_repeat_ngram_size, num_beams.
The images of a question stand before its text. Requests are computed one after another; batch_size is taken and has no
effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from lmms_eval.api.model import lmms
from tqdm import tqdm

from kosmos_edge.errors import InvalidRequest
from kosmos_edge.inference.encoded import EncodedImage
from kosmos_edge.integrations.harness import HarnessModel, own_options
from kosmos_edge.loading import KvType

T = TypeVar("T")


class KosmosEdge(lmms):  # type: ignore[misc,unused-ignore]
    """Images and text: likelihoods and continuations."""

    is_simple = True

    def __init__(
        self,
        pretrained: str = "nano",
        threads: int | str | None = None,
        mmproj: str | None = None,
        kv_type: KvType = "f16",
        no_repeat_ngram_size: int | str | None = None,
        num_beams: int | str | None = None,
        device: str | None = None,
        batch_size: int | str | None = None,
        max_batch_size: int | str | None = None,
        **unknown: Any,
    ) -> None:
        super().__init__()
        if unknown:
            raise InvalidRequest(f"{next(iter(unknown))}: not a model argument of kosmos_edge")
        self.harness = HarnessModel.load(pretrained, device=device, threads=threads, mmproj=mmproj, kv_type=kv_type)
        self._defaults = own_options(no_repeat_ngram_size, num_beams)

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """(ln p, whether it is greedy) of the target behind the images and the context."""
        out = []
        for request in _progress(requests):
            context, target, images, number, task, split = request.args
            doc = self.task_dict[task][split][number]
            text = target if isinstance(target, str) else target(doc)
            found = self.harness.loglikelihood_behind(self._images(images, doc), context, text)
            out.append(self._keep("loglikelihood", request, found))
        return out

    def generate_until(self, requests: list[Any]) -> list[str]:
        """The answer to the images and the context, without the stop text."""
        out = []
        for request in _progress(requests):
            context, settings, images, number, task, split = request.args
            shown = self._images(images, self.task_dict[task][split][number])
            answer = self.harness.generate_behind(shown, context, settings, self._defaults)
            out.append(self._keep("generate_until", request, answer))
        return out

    def generate_until_multi_round(self, requests: list[Any]) -> list[str]:
        """Not offered: NotImplementedError."""
        raise NotImplementedError("kosmos_edge answers one round")

    def _images(self, images: Any, doc: Any) -> list[EncodedImage]:
        return [self.harness.model.encode(image) for image in images(doc) or ()]

    def _keep(self, kind: str, request: Any, answer: T) -> T:
        """The answer, which the harness may cache."""
        self.cache_hook.add_partial(kind, request.args, answer)
        return answer


def _progress(requests: Iterable[Any]) -> Iterator[Any]:
    yield from tqdm(requests)
