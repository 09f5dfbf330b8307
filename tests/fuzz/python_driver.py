"""Runs cases of the Python targets: python_driver.py TARGET SEED FIRST COUNT

A case is (target, seed, number). One line of totals at the end. Anything but a typed error ends the program with the
line that replays the case: another exception, a crash, more than 20 s of processor time, more than 1 GiB of memory.
"""

import faulthandler
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

from mutation import Chance
from python_targets import TARGETS

CASE_SECONDS = 20  # of processor time
MEMORY_BYTES = 1 << 30  # beyond what the program has when it starts


def limit_memory() -> None:
    """Allocations beyond the cap fail, here and in the decoders. Not under AddressSanitizer, which maps terabytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    now = pages * resource.getpagesize()
    if now < 1 << 40:
        resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY_BYTES, resource.RLIM_INFINITY))


def main(name: str, seed: int, first: int, count: int) -> int:
    """The exit code."""
    target = TARGETS[name]
    accepted = captioned = 0
    warnings.simplefilter("ignore")
    limit_memory()
    faulthandler.enable()
    faulthandler.register(signal.SIGVTALRM, chain=True)  # a case that hangs: its stack, then the default, an end
    begin = time.process_time()
    with tempfile.TemporaryDirectory(prefix="kosmos-edge-fuzz-") as work:
        for number in range(first, first + count):
            signal.setitimer(signal.ITIMER_VIRTUAL, CASE_SECONDS)
            try:
                outcome = target.run(target.make(Chance(name, seed, number)), Path(work))
            except BaseException:
                traceback.print_exc()
                print(
                    f"replay: python tests/fuzz/python_driver.py {name} {seed} {number} 1",
                    file=sys.stderr,
                )
                return 1
            accepted += outcome.accepted
            captioned += outcome.captioned
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    rate = count / max(time.process_time() - begin, 1e-9)
    print(
        f"{name:14s} seed {seed} cases {first}..{first + count - 1}: {count} cases, {accepted} accepted, "
        f"{captioned} captioned, {rate:.0f} per second of processor time, 0 bad"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
