"""The verbs of a Model for asyncio: the verb's name with an a before it, and its arguments."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from functools import partial
from typing import Any, Literal, Unpack

from kosmos_edge.images import ImageInput
from kosmos_edge.inference.async_abilities import AsyncAbilities
from kosmos_edge.inference.async_calls import AsyncAnswer, call, iterate
from kosmos_edge.inference.batching import DEFAULT_BATCH
from kosmos_edge.inference.encoded import EncodedImage
from kosmos_edge.options import GenerationOptions, Normalize
from kosmos_edge.results import Ranking, Result


class AsyncVerbs(AsyncAbilities):
    """acaption, aground, alocate, adescribe, aask, aread, agenerate; ascore, ascore_segments, aencode; abatch; and
    aclassify, areason, aiq, awebqa.

    The arguments are those of the verbs without a, except stream: `await` the answer for the Result, or iterate over it
    with `async for` for the events (see AsyncAnswer). One model answers one awaited call at a time, in their order.
    """

    def _answer(self, name: str, options: GenerationOptions, **arguments: Any) -> AsyncAnswer:
        return AsyncAnswer(self, self._verb(name), {**arguments, **options})

    def acaption(
        self,
        image: ImageInput | EncodedImage,
        length: Literal["short", "long"] = "short",
        *,
        ground: bool = False,
        lead_in: bool = False,
        examples: Sequence[tuple[Any, str]] = (),
        **options: Unpack[GenerationOptions],
    ) -> AsyncAnswer:
        """Model.caption for asyncio."""
        shown = {"ground": ground, "lead_in": lead_in, "examples": examples}
        return self._answer("caption", options, image=image, length=length, **shown)

    def aground(
        self,
        image: ImageInput | EncodedImage,
        prompt: str | None = None,
        *,
        lead_in: bool = False,
        **options: Unpack[GenerationOptions],
    ) -> AsyncAnswer:
        """Model.ground for asyncio."""
        return self._answer("ground", options, image=image, prompt=prompt, lead_in=lead_in)

    def alocate(
        self, image: ImageInput | EncodedImage, phrase: str, **options: Unpack[GenerationOptions]
    ) -> AsyncAnswer:
        """Model.locate for asyncio."""
        return self._answer("locate", options, image=image, phrase=phrase)

    def adescribe(
        self,
        image: ImageInput | EncodedImage,
        box: Any,
        *,
        normalized: bool = False,
        ground: bool = True,
        lead_in: bool = False,
        examples: Sequence[tuple[Any, Any, str]] = (),
        **options: Unpack[GenerationOptions],
    ) -> AsyncAnswer:
        """Model.describe for asyncio."""
        shown = {"ground": ground, "lead_in": lead_in, "examples": examples}
        return self._answer("describe", options, image=image, box=box, normalized=normalized, **shown)

    def aask(
        self,
        image: ImageInput | EncodedImage,
        question: str,
        *,
        ground: bool = False,
        choices: Sequence[str] | None = None,
        lead_in: bool = False,
        examples: Sequence[tuple[Any, str, str]] = (),
        **options: Unpack[GenerationOptions],
    ) -> AsyncAnswer:
        """Model.ask for asyncio."""
        shown = {"ground": ground, "choices": choices, "lead_in": lead_in, "examples": examples}
        return self._answer("ask", options, image=image, question=question, **shown)

    def aread(
        self, image: ImageInput | EncodedImage, *, markdown: bool = False, **options: Unpack[GenerationOptions]
    ) -> AsyncAnswer:
        """Model.read for asyncio."""
        return self._answer("read", options, image=image, markdown=markdown)

    def agenerate(
        self,
        segments: Sequence[Any],
        *,
        raw: bool = False,
        normalized: bool = False,
        lead_in: bool = False,
        choices: Sequence[str] | None = None,
        **options: Unpack[GenerationOptions],
    ) -> AsyncAnswer:
        """Model.generate for asyncio."""
        shown = {"raw": raw, "normalized": normalized, "lead_in": lead_in, "choices": choices}
        return self._answer("generate", options, segments=segments, **shown)

    async def ascore(
        self,
        image: ImageInput | EncodedImage | None,
        texts: Sequence[str],
        template: str | None = None,
        *,
        normalize: Normalize = "sum",
        cancel: Any = None,
    ) -> Ranking:
        """Model.score for asyncio."""
        verb = partial(self._verb("score"), image, texts, template, normalize=normalize)
        found = await call(self, lambda flag: verb(cancel=flag), cancel)
        assert isinstance(found, Ranking)
        return found

    async def ascore_segments(
        self,
        segments: Sequence[Any],
        texts: Sequence[str],
        *,
        raw: bool = False,
        normalized: bool = False,
        normalize: Normalize = "sum",
        cancel: Any = None,
    ) -> Ranking:
        """Model.score_segments for asyncio."""
        options = {"raw": raw, "normalized": normalized, "normalize": normalize}
        verb = partial(self._verb("score_segments"), segments, texts, **options)
        found = await call(self, lambda flag: verb(cancel=flag), cancel)
        assert isinstance(found, Ranking)
        return found

    async def aencode(self, image: ImageInput, *, cancel: Any = None) -> EncodedImage:
        """Model.encode for asyncio."""
        verb = partial(self._verb("encode"), image)
        found = await call(self, lambda flag: verb(cancel=flag), cancel)
        assert isinstance(found, EncodedImage)
        return found

    def abatch(
        self,
        images: Iterable[ImageInput | EncodedImage],
        task: Literal["caption", "ground", "locate", "describe", "ask", "read", "score", "classify"] = "caption",
        *,
        on_error: Literal["yield", "raise"] = "yield",
        batch_size: int = DEFAULT_BATCH,
        **arguments: Any,
    ) -> AsyncGenerator[Result | Ranking, None]:
        """Model.batch for asyncio: `async for result in model.abatch(paths)`.

        The images are taken on another thread. Runs beside awaited calls rather than in their order, so that the loop's
        body may await some. Wrong arguments are raised by the first step.
        """
        cancel = arguments.pop("cancel", None)
        settings: dict[str, Any] = {"on_error": on_error, "batch_size": batch_size, **arguments}
        verb = partial(self._verb("batch"), images, task, **settings)
        return iterate(lambda flag: verb(cancel=flag), cancel)


__all__ = ["AsyncVerbs"]
