"""The worker process of isolation="process": a model, and a socket for calls and answers.

isolation/process.py starts it. Every call has its own thread here, so that one model serves all threads of
the host. When the socket closes, because the host closed the model or ended, the process exits at once.
"""

from __future__ import annotations

import contextlib
import io
import os
import queue
import signal
import socket
import threading
from dataclasses import replace
from functools import partial
from typing import Any

from kosmos_edge._native import _core
from kosmos_edge.errors import InvalidRequest
from kosmos_edge.images import Opening
from kosmos_edge.inference.batch_worker import BatchWorker, Job
from kosmos_edge.inference.encoded import EncodedImage
from kosmos_edge.inference.prompts import PictureSegment
from kosmos_edge.inference.requests import GenerateRequest, Request, ScoreRequest, about
from kosmos_edge.inference.session import EngineSession
from kosmos_edge.inference.tasks import Plan, ScorePlan
from kosmos_edge.isolation import wire
from kosmos_edge.options import Options

OOM_SCORE = 300  # more than the host's: when memory runs out, the system should kill the worker


def main(descriptor: int) -> None:
    """Serves until the socket closes; never returns."""
    _settle()
    server = Server(socket.socket(fileno=descriptor))
    try:
        server.serve()
    finally:
        os._exit(0)  # without waiting for threads that still compute


def _settle() -> None:
    """Makes this process end with its host, ignore Ctrl-C, write no core file, and be killed first without memory."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the host, which cancels
    with contextlib.suppress(Exception):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for name, value in (("oom_score_adj", OOM_SCORE), ("coredump_filter", 0)):
        with contextlib.suppress(OSError, ValueError), open(f"/proc/self/{name}", "r+", encoding="ascii") as file:
            before = int(file.read(), 16 if name == "coredump_filter" else 10)
            file.seek(0)
            file.write(str(min(1000, before + value) if value else 0))
    with contextlib.suppress(Exception):
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG; elsewhere the closed socket must suffice


class Server:
    """Reads calls, runs them, writes answers."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._sending = threading.Lock()
        self._tokens: dict[int, _core.CancelToken] = {}
        self._images: dict[int, EncodedImage] = {}  # by the host's number
        self._batches: dict[int, _RemoteBatch] = {}
        self._session: EngineSession | None = None

    def serve(self) -> None:
        """Reads messages until the socket closes."""
        while (message := wire.read(self._socket)) is not None:
            if "cancel" in message:
                if token := self._tokens.get(message["cancel"]):
                    token.cancel()
            elif "drop" in message:
                self._images.pop(message["drop"], None)
            else:
                self._begin(message["call"], message["do"], message["arguments"], message["images"])

    def _begin(self, number: int, name: str, arguments: list[Any], images: list[Any]) -> None:
        token = self._tokens[number] = _core.CancelToken()
        try:
            for image in images:  # here and not in a thread, so that later calls find them
                self._restore(*image)
        except BaseException as error:
            self.reply(number, error=error)
            return
        if name in ("submit", "open_batch"):  # fast, and their order matters
            self._run(number, name, arguments, token)
            return
        work = partial(self._run, number, name, arguments, token)
        try:
            threading.Thread(target=work, name=f"kosmos-edge {name}", daemon=True).start()
        except RuntimeError as error:
            self.reply(number, error=MemoryError(f"no thread could be started: {error}"))

    def _run(self, number: int, name: str, arguments: list[Any], token: _core.CancelToken) -> None:
        try:
            result = getattr(self, f"_do_{name}")(number, token, *arguments)
        except BaseException as error:  # passed to the host
            self.reply(number, error=error)
        else:
            if name != "submit":  # whose answer is sent when it is ready
                self.reply(number, result=result)

    def reply(self, number: int, **answer: Any) -> None:
        """Sends {"call": number, "event" | "result" | "error": ...}."""
        if "event" not in answer:
            self._tokens.pop(number, None)
        parts = wire.encode({"call": number, **answer})
        with self._sending, contextlib.suppress(OSError):  # the host has ended, and this process will exit
            for part in parts:
                self._socket.sendall(part)

    @property
    def _model(self) -> EngineSession:
        if self._session is None:
            raise InvalidRequest("no model is loaded")
        return self._session

    # ---- calls: number, token, then what the host sent

    def _do_load(
        self,
        number: int,
        token: _core.CancelToken,
        path: str,
        device: str,
        threads: int,
        mode: str,
        kept: int,
        mmproj: str,
        kv_type: str,
        shared_weights: str,
    ) -> dict[str, Any]:
        steps = -1

        def progress(done: int, total: int) -> None:
            nonlocal steps
            if done * 100 // max(1, total) != steps:  # at most a hundred messages
                steps = done * 100 // max(1, total)
                self.reply(number, event=[done, total])

        engine = _core.Engine(
            path,
            device=device,
            threads=threads,
            mode=mode,
            prefix_bytes=kept,
            cancel=token,
            mmproj=mmproj,
            progress=progress,
            kv_type=kv_type,
            shared_weights=shared_weights,
        )
        self._session = EngineSession(engine)
        names = (
            "device",
            "description",
            "fallback",
            "isa",
            "threads",
            "kv_type",
            "sharing",
            "kv_position_bytes",
            "context_length",
            "image_tokens",
            "location_bins",
        )
        return {name: getattr(engine, name) for name in names} | {
            "metadata": dict(engine.metadata),
            "info": engine.info,
            "vocabulary": engine.tokenizer.size,
            "library": _library(),
        }

    def _do_fit(self, number: int, token: _core.CancelToken, options: Options) -> Options:
        return self._model.fit(options)

    def _do_encode(self, number: int, token: _core.CancelToken, key: int, picture: list[Any]) -> list[Any]:
        image = self._images[key] = self._model.encode(self._picture(picture), token)
        return [
            image.width,
            image.height,
            image.source,
            image.notes,
            image.encode_ms,
            image.shape,
            image.tobytes(),
        ]

    def _do_embed_texts(self, number: int, token: _core.CancelToken, texts: list[str], truncate: bool) -> list[Any]:
        return list(self._model.embed_texts(tuple(texts), truncate, token))

    def _do_kept(self, number: int, token: _core.CancelToken, key: int) -> tuple[int, int]:
        image = self._images.get(key)
        return (0, 0) if image is None else (image.kept_positions, image.kept_bytes)

    def _do_forget(self, number: int, token: _core.CancelToken, key: int) -> None:
        if image := self._images.get(key):
            image.forget()

    def _do_run(
        self, number: int, token: _core.CancelToken, name: str, plan: Plan, pictures: list[Any], options: Options
    ) -> Any:
        return self._model.run(name, self._plan(plan, pictures), options, token)

    def _do_stream(
        self, number: int, token: _core.CancelToken, name: str, plan: Plan, pictures: list[Any], options: Options
    ) -> None:
        ready = self._plan(plan, pictures)
        self._model.stream(name, ready, options, token, lambda event: self.reply(number, event=event))

    def _do_score(
        self,
        number: int,
        token: _core.CancelToken,
        name: str,
        picture: list[Any] | None,
        plan: ScorePlan,
        pictures: list[Any],
    ) -> Any:
        image = None if picture is None else self._picture(picture)
        if plan.behind:
            self._plan(plan.behind, pictures)
        return self._model.score(name, image, plan, token)

    def _do_open_batch(
        self, number: int, token: _core.CancelToken, key: int, request: list[Any], size: int, opening: dict[str, Any]
    ) -> None:
        self._batches[key] = _RemoteBatch(self, self._request(*request), size, Opening(**opening))

    def _do_submit(self, number: int, token: _core.CancelToken, key: int, picture: list[Any]) -> None:
        self._batches[key].submit(number, self._picture(picture))

    def _do_close_batch(self, number: int, token: _core.CancelToken, key: int) -> None:
        if batch := self._batches.pop(key, None):
            batch.close()

    # ---- what calls are about

    def _picture(self, sent: list[Any]) -> Any:
        """Unpacks an image that Pictures.pack of isolation/session.py has packed."""
        kind, *rest = sent
        if kind == "path":
            name, folder = rest
            return name if folder is None or folder == os.getcwd() else os.path.join(folder, name)
        if kind == "stream":
            return io.BytesIO(rest[0])
        if kind == "encoded":
            return self._images[rest[0]]
        return rest[0]  # a Picture, or a file's bytes

    def _restore(
        self,
        key: int,
        width: int,
        height: int,
        source: str | None,
        notes: tuple[str, ...],
        encode_ms: float,
        vectors: bytes,
    ) -> None:
        """Restores an encoded image from its vectors: another worker had encoded it."""
        engine = self._model.engine
        embedding = engine.restore_image(vectors, width, height, keep=True)
        made = EncodedImage(width, height, source, notes, encode_ms, embedding, engine)
        self._images.setdefault(key, made)

    def _plan(self, plan: Plan, pictures: list[Any]) -> Plan:
        """The plan with its images at their places; None is unchanged."""
        ready = [self._picture(sent) for sent in pictures]
        plan.segments = [
            PictureSegment(ready[s.source]) if isinstance(s, PictureSegment) and s.source is not None else s
            for s in plan.segments
        ]
        return plan

    def _request(self, kind: str, *rest: Any) -> Request:
        if kind == "score":
            name, scored, pictures = rest
            if scored.behind is not None:
                scored = replace(scored, behind=self._plan(scored.behind, pictures))
            return ScoreRequest(name, scored, None)
        name, plan, pictures, options = rest
        template = self._plan(plan, pictures)
        return GenerateRequest(name, partial(about, template), options)


def _library() -> tuple[int, int]:
    """Identifies the build of the native module: its size and its date."""
    status = os.stat(str(_core.__file__))
    return status.st_size, status.st_mtime_ns


class _RemoteBatch:
    """A batch of the host: passes its images to a BatchWorker and sends answers as they are ready."""

    def __init__(self, server: Server, request: Request, size: int, opening: Opening) -> None:
        self._server = server
        self._worker = BatchWorker(server._model, request, size, opening)
        self._jobs: queue.SimpleQueue[tuple[int, Job] | None] = queue.SimpleQueue()
        threading.Thread(target=self._answer, name="kosmos-edge batch answers", daemon=True).start()

    def submit(self, number: int, picture: Any) -> None:
        """Adds an image; the call of that number gets its answer."""
        self._jobs.put((number, self._worker.submit(picture)))

    def close(self) -> None:
        """Cancels unfinished answers."""
        self._worker.__exit__(None, None, None)
        self._jobs.put(None)

    def _answer(self) -> None:
        while (item := self._jobs.get()) is not None:
            number, job = item
            job.done.wait()
            if job.error is not None:
                self._server.reply(number, error=job.error)
            else:
                self._server.reply(number, result=job.result)
