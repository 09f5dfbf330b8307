"""The verbs that are made of other requests, for asyncio: aclassify, areason, aiq, awebqa."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from kosmos_edge.images import ImageInput
from kosmos_edge.inference.ability_plans import INTRODUCE
from kosmos_edge.inference.ability_results import IqAnswer, Reasoned
from kosmos_edge.inference.async_calls import Lane, call
from kosmos_edge.inference.encoded import EncodedImage
from kosmos_edge.options import GenerationOptions, Normalize
from kosmos_edge.results import Ranking, Result

if TYPE_CHECKING:
    from kosmos_edge.inference.abilities import By


class AsyncAbilities:
    """These verbs. `await` gives what the verb returns; cancelling the task ends its computation."""

    @property
    @abstractmethod
    def awaiting(self) -> Lane:
        """Where awaited calls run. Raises what a call of a closed model raises."""

    def _verb(self, name: str) -> Callable[..., Any]:
        verb: Callable[..., Any] = getattr(self, name)
        return verb

    async def _awaited(self, name: str, options: Mapping[str, Any], **arguments: Any) -> Any:
        given: dict[str, Any] = {**arguments, **options}
        cancel = given.pop("cancel", None)
        verb = self._verb(name)
        return await call(self, lambda flag: verb(**given, cancel=flag), cancel)

    async def aclassify(
        self,
        image: ImageInput | EncodedImage,
        labels: Sequence[str],
        *,
        question: str | None = None,
        prompt: str | None = None,
        category: str | None = None,
        descriptions: Mapping[str, str] | None = None,
        by: By = "likelihood",
        normalize: Normalize = "sum",
        examples: Sequence[tuple[ImageInput | EncodedImage, str]] = (),
        **options: Unpack[GenerationOptions],
    ) -> Ranking | Result:
        """Model.classify for asyncio: a Ranking, or with by "choices" and "free" a Result."""
        words = {"question": question, "prompt": prompt, "category": category, "descriptions": descriptions}
        found = await self._awaited(
            "classify", options, image=image, labels=labels, by=by, normalize=normalize, examples=examples, **words
        )
        assert isinstance(found, Ranking | Result)
        return found

    async def areason(
        self,
        image: ImageInput | EncodedImage,
        question: str,
        *,
        rationale_prompt: str = INTRODUCE,
        rationale_tokens: int = 128,
        choices: Sequence[str] | None = None,
        normalize: Normalize = "sum",
        examples: Sequence[tuple[ImageInput | EncodedImage, str, str, str]] = (),
        **options: Unpack[GenerationOptions],
    ) -> Reasoned:
        """Model.reason for asyncio."""
        stages = {"rationale_prompt": rationale_prompt, "rationale_tokens": rationale_tokens, "choices": choices}
        found = await self._awaited(
            "reason", options, image=image, question=question, normalize=normalize, examples=examples, **stages
        )
        assert isinstance(found, Reasoned)
        return found

    async def aiq(
        self,
        pictures: Sequence[ImageInput | EncodedImage],
        candidates: Sequence[ImageInput | EncodedImage],
        *,
        cancel: Any = None,
    ) -> IqAnswer:
        """Model.iq for asyncio."""
        found = await self._awaited("iq", {"cancel": cancel}, pictures=pictures, candidates=candidates)
        assert isinstance(found, IqAnswer)
        return found

    async def awebqa(
        self,
        image: ImageInput | EncodedImage | None,
        question: str,
        *,
        html: str | None = None,
        text: str | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Result:
        """Model.webqa for asyncio."""
        found = await self._awaited("webqa", options, image=image, question=question, html=html, text=text)
        assert isinstance(found, Result)
        return found


__all__ = ["AsyncAbilities"]
