"""Programs that stay loaded between their turns, so that a turn is short.

A turn is one phase: A B C, each measured once or twice, and soon again A B C (or B C A). A program that is talked to
over pipes (peers_workers.py, mtmd_encode) is started once and stopped (SIGSTOP) while others are measured, so nothing
it does in the background disturbs them. llama-bench is started for each turn; it loads and warms up by itself.
"""

import contextlib
import ctypes
import json
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import IO

import peers_run
from peers_get import Unavailable
from peers_run import Peer

TURN_REPEATS = {"encode": 2, "prefill": 2}  # in a row within a turn; everything else once
PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """In a new process (Linux): the kernel kills it, even while it is stopped, when the one that started it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Program:
    """A peer's process, asleep unless it is asked."""

    def __init__(self, peer: Peer, threads: int) -> None:
        self.peer, self.warm = peer, set[str]()
        command = [part.replace("{threads}", str(threads)) for part in peer.command]
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by end)
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True,
                env=peers_run.environment(peer, threads), preexec_fn=die_with_parent,
            )  # fmt: skip
        except OSError as error:
            self.errors.close()
            raise Unavailable(f"{peer.name}: {error}") from None
        try:
            self.facts = self._line()
        except Unavailable:
            self.end()
            raise

    def ask(self, phase: str, repeats: int) -> list[float]:
        """Values of a phase. The first time it is done once before, which does not count."""
        self.process.send_signal(signal.SIGCONT)
        if phase not in self.warm and ":" not in phase:
            self._values(phase, 1)
        values = self._values(phase, repeats)
        self.warm.add(phase)
        self.process.send_signal(signal.SIGSTOP)
        return values

    def _values(self, phase: str, repeats: int) -> list[float]:
        mtmd = self.peer.style == "mtmd"
        try:
            self._pipe().write(f"{repeats}\n" if mtmd else f"{phase} {repeats}\n")
            self._pipe().flush()
        except OSError:
            pass  # it has died: its output says why
        answer = self._line()
        self.facts |= {k: answer[k] for k in ("peak_rss",) if k in answer} | answer.get("about", {})
        return list(answer["ms" if mtmd else "values"])

    def _pipe(self) -> IO[str]:
        assert self.process.stdin is not None
        return self.process.stdin

    def _line(self) -> dict:
        """Its next line of JSON. Raises Unavailable if it ends before."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                found = json.loads(line)
                return found | found.pop("about", {}) if "load_s" in found else found
        self.process.wait()
        self.errors.seek(0)
        said = " ".join(self.errors.read().strip().splitlines()[-2:])[:300]
        raise Unavailable(f"{self.peer.name} ended with status {self.process.returncode}: {said}")

    def end(self) -> None:
        """Ends the process."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.errors):
            with contextlib.suppress(OSError):
                pipe.close()


@dataclass
class Live:
    """The programs that are loaded. Those that are slow, and so large, are loaded for their turn only."""

    threads: int

    def __post_init__(self) -> None:
        self.programs: dict[str, Program] = {}

    def measure(self, peer: Peer, phase: str) -> tuple[list[float], dict]:
        """One turn's values of a phase, and facts about the program. Raises Unavailable if it does not run."""
        if peer.style not in ("worker", "mtmd"):
            values, facts = peers_run.measure(narrowed(peer, phase), self.threads, (phase,))
            return values[phase], facts
        try:
            if peer.name not in self.programs:
                self.programs[peer.name] = Program(peer, self.threads)
            program = self.programs[peer.name]
            values = program.ask(phase, 1 if peer.slow else TURN_REPEATS.get(phase, 1))
        except Unavailable:
            self.end(peer.name)
            raise
        if peer.slow:
            self.end(peer.name)
        return values, dict(program.facts)

    def end(self, *names: str) -> None:
        """Ends these programs, or all."""
        for name in names or tuple(self.programs):
            if program := self.programs.pop(name, None):
                program.end()


def order(peers: Sequence[Peer], number: int) -> list[Peer]:
    """Whose turn it is when in a round: A B C, then B C A, so that nobody is always measured behind the same one."""
    first = number % len(peers)
    return [*peers[first:], *peers[:first]]


def narrowed(peer: Peer, phase: str) -> Peer:
    """A llama-bench that measures one phase alone: no answer, or no prompt."""
    if peer.style != "llama-bench":
        return peer
    command = list(peer.command)
    command[command.index({"prefill": "-n", "decode": "-p"}[phase]) + 1] = "0"
    return replace(peer, command=command)
