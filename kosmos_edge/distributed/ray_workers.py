"""Workers of dispatch.py as actors of Ray: pip install 'kosmos-edge[ray]'.

An actor that dies is replaced by a new one, wherever Ray finds room: so a machine may go, too. Results come back to
this process, which alone writes.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from kosmos_edge._native import _core
from kosmos_edge.distributed.dispatch import Reply, Task
from kosmos_edge.distributed.items import Item
from kosmos_edge.distributed.rows import RowMaker
from kosmos_edge.errors import InvalidRequest, KosmosError, ModelCorrupt, WorkerDied

_WAIT_SECONDS = 5.0
_LONGEST_FOLDER = 30  # Ray's sockets lie about 70 characters below, and the system allows 107


def load_ray() -> Any:
    """The package; InvalidRequest if it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    try:
        import ray
    except ImportError:
        raise InvalidRequest("Ray is not installed: pip install 'kosmos-edge[ray]'") from None
    return ray


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Ray, connected to the cluster of this address or of RAY_ADDRESS; without one to a Ray of our own on this machine,
    which ends with the context, with its files. One that the caller has connected already stays. InvalidRequest if no
    cluster answers, WorkerDied if our own does not start.
    """
    ray = load_ray()
    if ray.is_initialized():
        yield ray
        return
    _check_address(address or os.environ.get("RAY_ADDRESS", ""))
    before = signal.getsignal(signal.SIGTERM)
    given = {"log_to_driver": False, "logging_level": "ERROR"}
    folder: str | None = None
    try:
        if address or os.environ.get("RAY_ADDRESS"):
            try:
                ray.init(address=address, **given)
            except (ConnectionError, RuntimeError, ValueError) as error:
                shown = address or os.environ["RAY_ADDRESS"]
                raise InvalidRequest(f"no Ray cluster answers at {shown}: {str(error).splitlines()[0]}") from error
        else:
            base = tempfile.gettempdir()
            folder = tempfile.mkdtemp(prefix="ray-", dir=base if len(base) <= _LONGEST_FOLDER else "/tmp")
            cpus = _core.default_threads()
            try:
                ray.init("local", num_cpus=cpus, include_dashboard=False, _temp_dir=folder, **given)
            except Exception as error:  # Ray raises plain ones
                raise WorkerDied(f"Ray did not start on this machine: {str(error).splitlines()[0]}") from error
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray's own ends the process before anything is written
        yield ray
    finally:
        ray.shutdown()
        if folder is not None:
            _remove(folder)


def _check_address(address: str) -> None:
    """InvalidRequest if nobody listens at HOST:PORT: Ray would try for minutes."""
    found = re.fullmatch(r"([^:/]+):(\d+)", address)
    if found is None:
        return
    try:
        socket.create_connection((found[1], int(found[2])), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise InvalidRequest(f"no Ray cluster answers at {address}: {error}") from error


def _remove(folder: str) -> None:
    """Removes what our Ray wrote; its processes may write for a moment after they were ended."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):
            return
        time.sleep(0.1)


def worker_count(nodes: list[dict[str, Any]], threads: int) -> int:
    """As many workers as the machines (ray.nodes()) have room for."""
    cpus = [node["Resources"].get("CPU", 0) for node in nodes if node.get("Alive", True)]
    return sum(int(cpu // threads) for cpu in cpus)


@dataclass(slots=True)
class _Actor:
    handle: Any
    about: Any  # the reference of its first call; None: it has answered
    tasks: deque[tuple[Any, Task]] = field(default_factory=deque)


class RayWorkers:
    """See dispatch.Workers. A context manager, which ends the actors."""

    def __init__(
        self,
        ray: Any,
        maker: RowMaker,
        *,
        count: int,
        threads: int,
        device: str = "auto",
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """count: of the workers; threads: the CPUs of each. say: takes what a user should know."""
        self._ray, self._maker, self._say = ray, maker, say
        gpus = 1 if device.startswith("cuda") else 0
        self._class = ray.remote(num_cpus=threads, num_gpus=gpus, scheduling_strategy="SPREAD")(RowMaker)
        self._first: dict[str, Any] | None = None  # what the first worker says about its model
        self._failed_starts = 0
        self._waited = 0.0
        self._actors = [self._start() for _ in range(count)]

    def __enter__(self) -> RayWorkers:
        return self

    def __exit__(self, *_: Any) -> None:
        for actor in self._actors:
            with contextlib.suppress(Exception):
                self._ray.kill(actor.handle)

    @property
    def count(self) -> int:
        """How many have opened the model."""
        return sum(actor.about is None for actor in self._actors)

    def send(self, task: Task) -> None:
        """Gives a task to the ready worker that has the fewest."""
        actor = min((actor for actor in self._actors if actor.about is None), key=lambda actor: len(actor.tasks))
        actor.tasks.append((actor.handle.answer.remote(task.items), task))

    def failed_row(self, item: Item, error: Exception) -> dict[str, Any]:
        """As RowMaker.failed_row."""
        return self._maker.failed_row(item, error)

    def receive(self) -> list[Reply]:
        """See Workers."""
        waiting = {}
        for actor in self._actors:
            waiting[actor.about if actor.about is not None else actor.tasks[0][0] if actor.tasks else None] = actor
        waiting.pop(None, None)
        ready, _ = self._ray.wait(list(waiting), num_returns=1, timeout=_WAIT_SECONDS)
        self._report_waiting(bool(ready))
        replies: list[Reply] = []
        for reference in ready:
            replies += self._take(waiting[reference], reference)
        return replies

    def pids(self) -> list[int]:
        """Of the workers that are ready, for tests and measurements."""
        handles = [actor.handle for actor in self._actors if actor.about is None]
        return [about["pid"] for about in self._ray.get([handle.about.remote() for handle in handles])]

    # ---- inside

    def _start(self) -> _Actor:
        handle = self._class.remote(self._maker.captioner, self._maker.columns, self._maker.wording)
        return _Actor(handle, handle.about.remote())

    def _report_waiting(self, ready: bool) -> None:
        if self.count or ready:
            return
        before, self._waited = self._waited, self._waited + _WAIT_SECONDS
        if before < 60 <= self._waited:
            self._say("no worker has started for a minute: does the cluster have free CPUs for --threads of one?")

    def _take(self, actor: _Actor, reference: Any) -> list[Reply]:
        """What has come from an actor."""
        errors = self._ray.exceptions
        try:
            value = self._ray.get(reference)
        except errors.RayTaskError as error:  # it lives, and has raised
            if isinstance(error.cause, MemoryError) and not isinstance(error.cause, KosmosError):
                return self._replace(actor, error)
            cause = error.cause if isinstance(error.cause, KosmosError) else error
            found = re.search(r"\bip=([^,)]+)", str(error))  # Ray's class for such errors has no ip of its own
            cause.add_note(f"in a worker on the machine {found[1] if found else 'of an unknown address'}")
            raise cause from None
        except errors.RayError as error:  # it is dead, or its machine, or what it has given is lost
            return self._replace(actor, error)
        if actor.about is not None:
            self._compare(value)
            actor.about = None
            return []
        _, task = actor.tasks.popleft()
        return [Reply(task, value)]

    def _replace(self, actor: _Actor, error: Exception) -> list[Reply]:
        """A new actor in the place of a dead one; what it had comes back."""
        with contextlib.suppress(Exception):
            self._ray.kill(actor.handle)
        if actor.about is not None:
            self._failed_starts += 1
            if self._failed_starts > 2 + len(self._actors):
                last = [line for line in str(error).splitlines() if line.strip()][-1].strip()
                raise WorkerDied(f"{self._failed_starts} workers died before they had opened the model: {last}")
        self._say(f"a worker has died: its images are computed again ({str(error).splitlines()[0]})")
        self._actors[self._actors.index(actor)] = self._start()
        return [Reply(task, None, suspect=place == 0) for place, (_, task) in enumerate(actor.tasks)]

    def _compare(self, about: dict[str, Any]) -> None:
        """All workers must have the same model."""
        if self._first is None:
            self._first = about
            if about["notice"]:
                self._say(about["notice"])
            return
        for fact in ("name", "size"):
            if about[fact] != self._first[fact]:
                one, two = ({"machine": a["machine"], "path": a["path"], fact: a[fact]} for a in (self._first, about))
                raise ModelCorrupt(f"the workers have different models: {one} and {two}")
