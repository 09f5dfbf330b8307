"""The host's side of the worker process: starts it when a call needs it, watches it, ends it, reports its end.

A separate thread starts the process, reads its answers and reaps it. It must be the one that starts it and must live
as long: the system ends the worker when the thread that started it ends (PR_SET_PDEATHSIG), which is what makes it die
with the host.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing.spawn
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from kosmos_edge.errors import Cancelled, InvalidRequest, KosmosError, ModelCorrupt, OutOfMemory, WorkerDied
from kosmos_edge.inference.running import POLL_SECONDS, Flag, check_process
from kosmos_edge.isolation import wire

# The worker has the host's search path, but imports this very package, even if the path now holds another of its name.
START = """
import importlib.util, json, sys
sys.path[:] = json.loads(sys.argv[2])
spec = importlib.util.spec_from_file_location("kosmos_edge", sys.argv[3], submodule_search_locations=[sys.argv[4]])
sys.modules["kosmos_edge"] = package = importlib.util.module_from_spec(spec)
spec.loader.exec_module(package)
from kosmos_edge.isolation.worker import main
main(int(sys.argv[1]))
"""
MAX_ANSWER = 1 << 26  # bytes of an answer's byte string: the vectors of a picture
PATIENCE_SECONDS = 1.0  # a cancelled call whose request the worker does not take in ends the worker after that
REAP_SECONDS = 0.05  # from the end of its socket to the end of the process
_NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)

_workers: weakref.WeakSet[Worker] = weakref.WeakSet()


def _after_fork() -> None:
    """A child of the host has copies of the sockets; with these open, a worker would not see the host end."""
    for worker in list(_workers):
        worker.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the worker loads."""

    path: str
    device: str
    threads: int
    mode: str
    prefix_bytes: int
    mmproj: str  # a pair's second file; empty: there is none
    kv_type: str = "f16"
    shared_weights: str = ""  # the folder; empty: none


LoadProgress: TypeAlias = Callable[[int, int], None]
Encoded: TypeAlias = dict[int, list[Any]]  # number of an encoded picture -> what it is made of


class Inbox(Protocol):
    """Where the answers of a call go: ("event" | "result" | "error", value), the last two once."""

    def put(self, answer: tuple[str, Any]) -> None:
        """Called in the thread that watches the worker."""


class Worker:
    """One worker process. `facts` of its model are there once wait_ready has returned."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._socket, self._theirs = socket.socketpair()
        self._sending = threading.Lock()
        self._lock = threading.RLock()  # of the three below; kill may come in the middle, from a garbage collection
        self._calls: dict[int, Inbox] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._ended: KosmosError | None = None  # why it is of no more use
        self._numbers = itertools.count(1)
        self.known: set[int] = set()  # numbers of the encoded pictures that it has
        self.dropped: deque[int] = deque()  # those of them that the host has no more use for
        self.facts: dict[str, Any] = {}
        self._loaded: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._loading = self._register(self._loaded)
        _workers.add(self)
        self._thread = threading.Thread(target=self._watch, name="kosmos-edge worker", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._close_sockets()
            raise OutOfMemory(f"no thread could be started: {error}") from error

    # ---- its life, in the thread that watches it

    def _watch(self) -> None:
        try:
            self._start()
            while (message := wire.read(self._socket, MAX_ANSWER)) is not None:
                self._answer(message)
            reason = ""
        except OSError as error:
            reason = f"could not be started: {error}"
        except ValueError as error:
            reason = f"sent a malformed reply ({error})"
        except BaseException as error:
            reason = f"was given up: {error!r}"
        self._end(reason)

    def _start(self) -> None:
        package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        path = json.dumps([entry for entry in sys.path if entry])
        descriptor = self._theirs.fileno()
        python = multiprocessing.spawn.get_executable() or sys.executable
        with self._lock:
            if self._ended is not None:
                return
            self._process = subprocess.Popen(
                [os.fsdecode(python), "-I", "-c", START, str(descriptor), path, f"{package}/__init__.py", package],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(descriptor,),
                process_group=0,  # Ctrl-C in the terminal goes to the host alone
            )
        self._theirs.close()
        s = self._settings
        wanted = [s.path, s.device, s.threads, s.mode, s.prefix_bytes, s.mmproj, s.kv_type, s.shared_weights]
        self._send(self._loading, "load", wanted)

    def _answer(self, message: Any) -> None:
        kind = next(kind for kind in ("event", "result", "error") if kind in message)
        with self._lock:
            inbox = self._calls.get(message["call"]) if kind == "event" else self._calls.pop(message["call"], None)
        if inbox is not None:
            inbox.put((kind, message[kind]))

    def _end(self, reason: str) -> None:
        """Reaps the process and tells every waiting call."""
        process = self._process
        if process is not None:
            code = None
            if not reason:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = process.wait(REAP_SECONDS)
            process.kill()
            reason = reason or f"ended: {_why(code)}"
        error = WorkerDied(f"the worker process {reason}; what ran in it is lost, the next call starts another one")
        with self._lock:
            self._ended = self._ended or error
            calls = list(self._calls.values())
            self._calls.clear()
        for inbox in calls:
            inbox.put(("error", WorkerDied(*error.args)))
        self._close_sockets()
        if process is not None:
            process.wait()

    def _close_sockets(self) -> None:
        with self._sending:
            self._socket.close()
        self._theirs.close()

    # ---- from any thread

    @property
    def ended(self) -> bool:
        """Whether another one is needed."""
        return self._ended is not None

    @property
    def process_id(self) -> int | None:
        """Of the running process."""
        return None if self._process is None else self._process.pid

    def kill(self, error: KosmosError) -> None:
        """Ends the process; calls that still wait get WorkerDied."""
        with self._lock:
            self._ended = self._ended or error
            process = self._process
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if process is not None:
            process.kill()

    def join(self, seconds: float) -> None:
        """Waits for the end of a killed process."""
        if threading.current_thread() is not self._thread:
            self._thread.join(seconds)

    def abandon(self) -> None:
        """In a forked child: the process is the parent's."""
        for connection in (self._socket, self._theirs):
            with contextlib.suppress(OSError):
                os.close(connection.detach())
        if self._process is not None:
            self._process.returncode = 0  # or its destructor would look after a process that is not its child

    def wait_ready(self, token: Flag, progress: LoadProgress | None = None) -> None:
        """Returns when the model is loaded; raises what loading it raised, and Cancelled, which ends nothing.

        progress: called here with the bytes that are loaded and all of them.
        """
        while not self.facts:
            try:
                kind, value = self._loaded.get(timeout=POLL_SECONDS)
            except queue.Empty:
                if self._ended is not None:
                    raise type(self._ended)(*self._ended.args) from None
                if token.cancelled:
                    raise Cancelled("cancelled by the caller") from None
                continue
            if kind == "error":
                self.kill(value)
                raise value
            if kind == "result":
                self.facts = value
            elif progress is not None:
                progress(*value)

    def call(
        self,
        name: str,
        arguments: list[Any],
        inbox: Inbox,
        token: Flag | None = None,
        encoded: Encoded | None = None,
    ) -> int:
        """Sends a call, whose answers go to `inbox`; its number. WorkerDied if the process is found dead.

        encoded: the encoded pictures that the arguments name; those that the process does not have are sent along.
        """
        with contextlib.suppress(IndexError):  # of the empty one: other threads take from it too
            while True:
                self.tell({"drop": self.dropped.popleft()})
        images = [[key, *about] for key, about in (encoded or {}).items() if key not in self.known]
        number = self._register(inbox)
        try:
            self._send(number, name, arguments, token, images)
        except BaseException:
            self.forget(number)
            raise
        self.known.update(image[0] for image in images)
        return number

    def _register(self, inbox: Inbox) -> int:
        number = next(self._numbers)
        with self._lock:
            if self._ended is not None:
                raise WorkerDied(*self._ended.args)
            self._calls[number] = inbox
        return number

    def forget(self, number: int) -> None:
        """The call's answers are of no more interest."""
        with self._lock:
            self._calls.pop(number, None)

    def cancel(self, number: int) -> None:
        """Tells the process to end the call; nothing is waited for."""
        self.forget(number)
        self.tell({"cancel": number})

    def tell(self, message: dict[str, Any]) -> None:
        """Sends what has no answer."""
        with contextlib.suppress(KosmosError):
            self._write(wire.encode(message), None)

    def _send(
        self, number: int, name: str, arguments: list[Any], token: Flag | None = None, images: Sequence[Any] = ()
    ) -> None:
        message = {"call": number, "do": name, "arguments": arguments, "images": list(images)}
        self._write(wire.encode(message), token)

    def _write(self, parts: Iterable[bytes | memoryview], token: Flag | None) -> None:
        """Sends a whole message in any case: an incomplete one would make all later ones unreadable."""
        while not self._sending.acquire(timeout=POLL_SECONDS):
            if token is not None and token.cancelled:
                raise Cancelled("cancelled by the caller")
        try:
            patience = PATIENCE_SECONDS
            for part in parts:
                view = memoryview(part).cast("B")
                while view:
                    try:
                        view = view[self._socket.send(view, _NO_SIGNAL | socket.MSG_DONTWAIT) :]
                    except BlockingIOError:
                        patience = self._wait_writable(token, patience)
        except OSError as error:
            raise WorkerDied("the worker process ended before the call; the next call starts another one") from error
        finally:
            self._sending.release()

    def _wait_writable(self, token: Flag | None, patience: float) -> float:
        start = time.monotonic()
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLOUT)
        if not poll.poll(POLL_SECONDS * 1000) and token is not None and token.cancelled:
            patience -= time.monotonic() - start
            if patience < 0:
                self.kill(WorkerDied("the worker process took nothing in"))
        return patience


def _why(code: int | None) -> str:
    if code is None:
        return "its connection was cut"
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


class Workers:
    """The worker of a model: the running one, or a new one if it has ended."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process_id = os.getpid()
        self._lock = threading.Lock()
        self._worker: Worker | None = None
        self._facts: dict[str, Any] = {}
        self._closed = False

    def check_process(self) -> None:
        """Forked in a child of the process that loaded the model."""
        check_process(self._process_id)

    def running(self) -> Worker | None:
        """The worker, if there is one and it is ready."""
        worker = None if os.getpid() != self._process_id else self._worker
        return worker if worker is not None and worker.facts and not worker.ended else None

    def worker(self, token: Flag, progress: LoadProgress | None = None) -> Worker:
        """A worker with the model loaded, started if there is none. Raises what loading raises."""
        self.check_process()
        with self._lock:
            if self._closed:
                raise InvalidRequest("the model is closed")
            if self._worker is None or self._worker.ended:
                self._worker = Worker(self._settings)
            worker = self._worker
        worker.wait_ready(token, progress)
        with self._lock:
            self._facts = self._facts or worker.facts
        if worker.facts | {"sharing": None} != self._facts | {"sharing": None}:
            path, before = self._settings.path, self._facts
            error: KosmosError = ModelCorrupt(f"{path}: another model than before is in this file: load it again")
            if worker.facts["library"] != before["library"]:
                error = KosmosError("another build of kosmos-edge was installed meanwhile: load the model again")
            worker.kill(error)
            raise error
        return worker

    def begin(
        self, name: str, arguments: list[Any], inbox: Inbox, token: Flag, encoded: Encoded | None = None
    ) -> tuple[Worker, int]:
        """Sends a call to a worker; -> the worker, the call's number.

        A worker that is found dead before it can have begun with the call is replaced once.
        """
        worker = self.worker(token)
        try:
            return worker, worker.call(name, arguments, inbox, token, encoded)
        except WorkerDied as error:
            worker.kill(error)
        worker = self.worker(token)
        return worker, worker.call(name, arguments, inbox, token, encoded)

    def close(self) -> None:
        """Ends the worker. In a forked child nothing: it is the parent's."""
        if os.getpid() != self._process_id:
            return
        with self._lock:
            self._closed = True
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill(WorkerDied("the model was closed"))
            worker.join(REAP_SECONDS * 20)
