"""What the processes of one test run have in common: the first that asks makes it, the others wait for it."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path


def once(name: str, make: Callable[[Path], object]) -> Path:
    """The folder `name` of this run, filled by make(folder). If that fails, the next process tries again."""
    root = Path(os.environ["KOSMOS_EDGE_TEST_RUN"])  # from tests/conftest.py
    folder, done = root / name, root / f"{name}.done"
    with open(root / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            folder.mkdir(exist_ok=True)
            make(folder)
            done.touch()
    return folder
