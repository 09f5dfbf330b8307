"""A conversion and the disk: full, failing, killed at any instant; existing files, links, two conversions at once.

200 kills at random instants, of a conversion to a file that exists and to one that does not, instead of 20 (a minute):
KOSMOS_EDGE_KILLS=200 pytest -s tests/convert/test_convert_crash.py -k random
"""

import errno
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from helpers.convert_checkpoint import (
    convert_state,
    convert_write_bin,
    convert_write_fairseq,
    convert_write_hf,
)

from kosmos_edge.convert import convert, verify, writer
from kosmos_edge.convert.atomic import AtomicFile, remove_leftovers
from kosmos_edge.convert.sources import files
from kosmos_edge.errors import InvalidRequest, KosmosError, KosmosIOError, ModelCorrupt, ModelNotFound

ONE_LAYER = {"text_config__layers": 1, "vision_config__num_hidden_layers": 1}


@pytest.fixture(scope="module")
def state():
    return convert_state(seed=4, layers=1, vision_layers=1)


@pytest.fixture(scope="module")
def hf(state, tmp_path_factory):
    return convert_write_hf(tmp_path_factory.mktemp("hf"), state, **ONE_LAYER)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_existing_output_is_kept_unless_told(tmp_path, hf):
    output = tmp_path / "a.gguf"
    output.write_bytes(b"precious")
    with pytest.raises(InvalidRequest, match="exists"):
        convert(hf, output)
    assert output.read_bytes() == b"precious"
    output.unlink()
    output.symlink_to(tmp_path / "nowhere")
    with pytest.raises(InvalidRequest, match="exists"):
        convert(hf, output)
    assert convert(hf, output, overwrite=True).output_bytes == output.stat().st_size
    assert output.is_symlink() and names(tmp_path) == ["a.gguf", "nowhere"]  # a link is followed, and stays


def test_output_that_appears_meanwhile_is_kept(tmp_path, hf):
    output = tmp_path / "a.gguf"
    with pytest.raises(InvalidRequest, match="exists"):
        convert(hf, output, progress=lambda *_: output.write_bytes(b"precious"))
    assert output.read_bytes() == b"precious" and names(tmp_path) == ["a.gguf"]


@pytest.mark.parametrize("write", [convert_write_hf, convert_write_bin, convert_write_fairseq])
def test_inputs_are_never_overwritten(tmp_path, state, write):
    folder = write(tmp_path / "in", state)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (tmp_path / "alias").symlink_to("in")
    for name in before:
        hard, soft = tmp_path / f"hard {name}", tmp_path / f"soft {name}"
        os.link(folder / name, hard)
        soft.symlink_to(folder / name)
        for output in (folder / name, tmp_path / "alias" / name, folder / ".." / "in" / name, hard, soft):
            with pytest.raises((InvalidRequest, ModelCorrupt)) as caught:
                convert(folder, output, overwrite=True)
            if write is convert_write_hf:
                assert "one of the files to convert" in str(caught.value) or "do not fit" in str(caught.value)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_folder_that_is_missing_or_unwritable(tmp_path, hf):
    with pytest.raises(KosmosIOError, match="cannot write"):
        convert(hf, tmp_path / "no" / "a.gguf")
    with pytest.raises(KosmosIOError):
        convert(hf, tmp_path / ("x" * 300))
    with pytest.raises(KosmosIOError, match="no folder"):
        convert(hf, f"{tmp_path}/new/")
    if os.geteuid() != 0:
        tmp_path.chmod(0o500)
        with pytest.raises(KosmosIOError):
            convert(hf, tmp_path / "a.gguf")


def test_too_little_space_is_said_before_work(tmp_path, hf, monkeypatch):
    seen = []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6 - 1000, 1000))
    with pytest.raises(KosmosIOError, match=r"1000 bytes free.*needs \d{7}"):
        convert(hf, tmp_path / "a.gguf", progress=lambda *step: seen.append(step))
    assert seen == [] and names(tmp_path) == []


def test_full_disk_at_any_write(tmp_path, hf, monkeypatch):
    monkeypatch.setattr(writer, "CHUNK_BYTES", 1 << 15)
    real = os.write
    calls = 0

    def count(fd, data):
        nonlocal calls
        calls += 1
        return real(fd, data)

    monkeypatch.setattr(os, "write", count)
    convert(hf, tmp_path / "a.gguf", overwrite=True)
    good = (tmp_path / "a.gguf").read_bytes()
    total, points = calls, sorted({*range(0, calls, max(1, calls // 60)), calls - 1})
    for limit in points:
        calls = 0

        def full(fd, data, limit=limit):
            nonlocal calls
            calls += 1
            if calls > limit:
                if calls == limit + 1 and len(data) > 1:
                    return real(fd, data[: len(data) // 2])  # what still fits
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(fd, data)

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(KosmosIOError, match=r"No space left.*needs \d+ bytes, \d+ bytes are free"):
            convert(hf, tmp_path / "a.gguf", overwrite=True)
        assert names(tmp_path) == ["a.gguf"]
    assert total > 60
    assert (tmp_path / "a.gguf").read_bytes() == good


def test_an_input_output_error_at_any_call(tmp_path, hf, monkeypatch):
    """Reads of the source, everything that touches the target: the old file or the new one, nothing else."""
    monkeypatch.setattr(writer, "CHUNK_BYTES", 1 << 16)
    output = tmp_path / "a.gguf"
    new = convert(hf, tmp_path / "new.gguf", type="q8_0").output.read_bytes()
    left = -1

    def faulty(real):
        def call(*arguments, **named):
            nonlocal left
            left -= 1
            if left == 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(*arguments, **named)

        return call

    class Source(io.FileIO):
        readinto = faulty(io.FileIO.readinto)
        seek = faulty(io.FileIO.seek)

    monkeypatch.setattr(os, "fsync", lambda fd: None)  # what is real about it takes its time on a busy disk
    for name in ("open", "write", "lseek", "fsync", "replace"):
        monkeypatch.setattr(os, name, faulty(getattr(os, name)))
    monkeypatch.setattr(shutil, "disk_usage", faulty(shutil.disk_usage))
    monkeypatch.setattr(files, "open", lambda fd, mode, buffering: Source(fd, mode), raising=False)
    output.write_bytes(b"the file before")
    left = many = 1 << 30
    convert(hf, output, type="q8_0", overwrite=True)
    total = many - left
    assert total > 100 and output.read_bytes() == new
    named = 0
    for n in {*range(1, total, max(1, total // 100)), *range(total - 6, total + 1)}:
        output.write_bytes(b"the file before")
        left = n
        with pytest.raises(KosmosError) as caught:
            convert(hf, output, type="q8_0", overwrite=True)
        assert isinstance(caught.value, KosmosIOError | ModelCorrupt | ModelNotFound), caught.value
        assert names(tmp_path) == ["a.gguf", "new.gguf"]
        named += output.read_bytes() == new
        assert output.read_bytes() in (b"the file before", new)
    assert named <= 2  # the folder's open and fsync come after the rename


def test_short_writes_are_gone_on_with(tmp_path, hf, monkeypatch):
    good = convert(hf, tmp_path / "good.gguf").output.read_bytes()
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[: max(1, len(data) * 2 // 3)]))
    assert convert(hf, tmp_path / "a.gguf").output.read_bytes() == good


def test_failing_fsync_leaves_nothing(tmp_path, hf, monkeypatch):
    def fail(fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(KosmosIOError, match="Input/output error"):
        convert(hf, tmp_path / "a.gguf")
    assert names(tmp_path) == []


def test_data_reaches_the_disk_before_the_name(tmp_path, hf, monkeypatch):
    """fsync of the file, rename, fsync of the folder; nothing is written after the first of them."""
    calls = []
    for name in ("write", "fsync", "replace"):
        real = getattr(os, name)

        def spy(*arguments, name=name, real=real):
            what = arguments[0]
            folder = isinstance(what, int) and os.path.isdir(f"/proc/self/fd/{what}")
            calls.append("fsync folder" if name == "fsync" and folder else name)
            return real(*arguments)

        monkeypatch.setattr(os, name, spy)
    convert(hf, tmp_path / "a.gguf")
    assert calls[-3:] == ["fsync", "replace", "fsync folder"]
    assert set(calls[:-3]) == {"write"}


def test_interrupt_leaves_nothing(tmp_path, hf):
    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(hf, tmp_path / "a.gguf", progress=interrupt)
    assert names(tmp_path) == []


def test_a_source_that_changes_meanwhile(tmp_path, state):
    folder = convert_write_hf(tmp_path / "hf", state, **ONE_LAYER)
    weights = folder / "model.safetensors"
    data = weights.read_bytes()

    def shrink(*_):
        weights.write_bytes(data[: len(data) // 2])

    def touch(*_):
        os.utime(weights, ns=(1, 1))

    for change in (shrink, touch):
        weights.write_bytes(data)
        with pytest.raises(ModelCorrupt, match=r"became shorter|was changed"):
            convert(folder, tmp_path / "a.gguf", progress=change)
        assert names(tmp_path) == ["hf"]


def test_leftovers_of_dead_runs_are_removed_and_live_ones_kept(tmp_path, hf):
    dead = tmp_path / ".a.gguf.part-0123456789abcdef"
    dead.write_bytes(b"half")
    others = [
        ".a.gguf.part-0123456789abcde", ".a.gguf.part-0123456789abcdeg", ".b.gguf.part-0123456789abcdef",
        "a.gguf.part-0123456789abcdef", ".axgguf.part-0123456789abcdef", ".a.gguf.part-link",
    ]  # fmt: skip
    for name in others:
        (tmp_path / name).write_bytes(b"not ours")
    link = tmp_path / ".a.gguf.part-00000000000000aa"
    link.symlink_to(tmp_path / others[0])
    with AtomicFile(tmp_path / "a.gguf", 10, False) as live:
        live.write(0, b"in use")
        assert len(names(tmp_path)) == len(others) + 2
        assert remove_leftovers(tmp_path / "a.gguf") == []
    convert(hf, tmp_path / "a.gguf")
    assert names(tmp_path) == sorted([*others, link.name, "a.gguf"])


def test_two_conversions_to_one_name(tmp_path, hf):
    """The inner one finishes first; the outer one then finds the name taken, and neither removes the other's file."""
    inner = []

    def nested(*_):
        if not inner:
            inner.append(None)
            inner[0] = convert(hf, tmp_path / "a.gguf")

    with pytest.raises(InvalidRequest, match="exists"):
        convert(hf, tmp_path / "a.gguf", progress=nested)
    assert names(tmp_path) == ["a.gguf"] and verify(tmp_path / "a.gguf") == []


RUNNER = textwrap.dedent(
    """
    # Converts in forked children, kills each at its instant, and reports what the folder holds after every kill.
    import hashlib, json, os, signal, sys, time
    from pathlib import Path
    from kosmos_edge.convert import convert, writer

    source, folder, (plan, reset) = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    output = folder / "a.gguf"
    writer.CHUNK_BYTES = 1 << 15

    def child(call):
        if call is not None:  # die in the middle of the call-th system call that changes the disk
            left = [call]
            for name in ("write", "fsync", "replace"):
                def spy(*arguments, name=name, real=getattr(os, name)):
                    if left[0] == 0:
                        if name == "write":
                            real(arguments[0], arguments[1][: len(arguments[1]) // 2])
                        os.kill(os.getpid(), signal.SIGKILL)
                    left[0] -= 1
                    return real(*arguments)
                setattr(os, name, spy)
        convert(source, output, overwrite=True)
        os._exit(0)

    length = 0.0  # of the last run that came to its end, seconds
    for moment, call in plan:
        if reset is not None:
            output.unlink(missing_ok=True)
            if reset:
                output.write_text(reset)
        began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            try:
                child(call)
            finally:
                os._exit(1)
        if moment is not None:
            time.sleep(moment * length)
            os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        if moment is None:
            length = time.monotonic() - began
        names = sorted(path.name for path in folder.iterdir())
        digest = hashlib.sha256(output.read_bytes()).hexdigest() if output.exists() else None
        print(json.dumps([status, names, digest]), flush=True)
    """
)


def run_killed(hf: Path, folder: Path, plan, before: str | None = None) -> list:
    """Converts once per (moment to kill at, as a part of a whole run, or None; last system call, or None).

    before: what the output holds before each; "": there is none; None: what the run before left.
    -> [(exit status, names in the folder, SHA-256 of the output or None)]
    """
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", RUNNER, str(hf), str(folder), json.dumps([plan, before])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def check_killed(results, *allowed: bytes | None) -> None:
    """The output is one of those allowed after every run, and nothing lies beside it but the last run's leftover."""
    digests = {None if data is None else hashlib.sha256(data).hexdigest() for data in allowed}
    for _, found, digest in results:
        leftovers = [name for name in found if name != "a.gguf"]
        assert len(leftovers) <= 1  # the next run removed the one before
        assert all(name.startswith(".a.gguf.part-") for name in leftovers)
        assert digest in digests


KILLS = int(os.environ.get("KOSMOS_EDGE_KILLS", "20"))


@pytest.mark.parametrize("before", ["", "the file before"])
def test_kill_at_random_instants(tmp_path, hf, before):
    good = convert(hf, tmp_path / "good.gguf").output.read_bytes()
    source = random.Random(before)
    folder = tmp_path / "out"
    plan = [(None, None), *((source.random(), None) for _ in range(KILLS // 2))]
    whole, *results = run_killed(hf, folder, plan, before)
    assert whole[:2] == [0, ["a.gguf"]]
    check_killed([whole], good)
    check_killed(results, good, before.encode() or None)
    killed = [found for status, found, _ in results if status == 9]
    halfway = sum(any(name != "a.gguf" for name in found) for found in killed)
    print(f"{len(results)} runs, {len(killed)} killed, {halfway} of them while they wrote, 0 partial files")
    assert len(killed) > len(results) / 4 and halfway > 0
    (last,) = run_killed(hf, folder, [(None, None)])
    assert last[:2] == [0, ["a.gguf"]]  # the leftovers are gone
    check_killed([last], good)


def test_kill_at_every_kind_of_write(tmp_path, hf, monkeypatch):
    total = 0
    with monkeypatch.context() as patch:  # how many system calls there are to die in
        patch.setattr(writer, "CHUNK_BYTES", 1 << 15)
        for name in ("write", "fsync", "replace"):
            real = getattr(os, name)

            def count(*arguments, real=real):
                nonlocal total
                total += 1
                return real(*arguments)

            patch.setattr(os, name, count)
        good = convert(hf, tmp_path / "good.gguf").output.read_bytes()
    assert total > 100
    folder = tmp_path / "out"
    plan = [*range(0, total - 8, total // 30), *range(total - 8, total + 1)]
    results = run_killed(hf, folder, [(None, call) for call in plan])
    assert [status for status, _, _ in results] == [9] * (len(plan) - 1) + [0]
    appeared = ["a.gguf" in found for _, found, _ in results]
    assert appeared == [False] * (len(plan) - 2) + [True, True]  # only the folder's fsync follows the rename
    check_killed(results, good, None)


def test_file_size_limit(tmp_path, hf):
    """The operating system's own refusal, as with a quota: a typed error, no output."""
    code = (
        "import resource, sys\nresource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "from kosmos_edge.convert.__main__ import main\nsys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(hf), "-o", str(tmp_path / "a.gguf")], capture_output=True, text=True
    )
    assert done.returncode == 1 and "File too large" in done.stderr, done.stderr
    assert names(tmp_path) == []
