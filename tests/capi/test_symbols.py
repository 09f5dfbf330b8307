"""What the native libraries could do to a host, by what they import, and what a run does to its process."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from helpers import capi
from helpers.api_model import png, tiny_file

from kosmos_edge import _core

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads ELF files and /proc")
nm = pytest.mark.skipif(shutil.which("nm") is None, reason="not here: nm")

# Ends the process, handles signals, prints, changes what belongs to the process, opens connections or other programs.
# Not dlopen: csrc/backend/cuda_library.cpp opens the CUDA backend by it when somebody asks for devices.
UNWANTED = re.compile(
    r"_?_?(abort|_?exit|_Exit|quick_exit|atexit|at_quick_exit|raise|kill|tgkill|pthread_kill|signal|sigaction|bsd_signal"
    r"|sigprocmask|pthread_sigmask|sigaltstack|setitimer|alarm|longjmp|siglongjmp|setlocale|uselocale|chdir|fchdir|umask"
    r"|setenv|putenv|unsetenv|setrlimit|prctl|fesetround|fesetenv|feenableexcept|system|popen|execv\w*|posix_spawn\w*|fork"
    r"|v?f?w?printf|v?dprintf|f?puts|f?putc|putchar|perror|psignal|syslog|write|pwrite\w*|writev|fwrite|stdout|stderr"
    r"|assert_fail|assert_perror_fail|v?f?w?d?printf_chk|fortify_fail|chk_fail"
    r"|socket|connect|bind|listen|accept|getaddrinfo)"
)
STREAMS = re.compile(r"_ZSt4(cout|cerr|clog)|_ZSt5w(cout|cerr|clog)|_ZNSt8ios_base4Init")
ENDING = re.compile(r"\w*(terminate|unexpected)\w*|_ZSt\d+(abort|exit)\w*")
ALLOWED = {
    "pwrite": "csrc/base/file_write.cpp writes the file of shared weights, if the caller asks for one",
    "pthread_sigmask": "the same, in its own thread and while it writes: a limit on file sizes is an error, no signal",
    "_ZSt9terminatev": "std::terminate, called where an exception meets a noexcept function; none of ours lets one",
}


def libraries() -> dict[str, Path]:
    return {"_core": Path(_core.__file__), "libkosmos_edge": capi.library_path()}


@linux
@nm
@pytest.mark.parametrize("name", ["_core", "libkosmos_edge"])
def test_nothing_that_ends_the_process_or_prints_is_imported(name):
    if os.environ.get("KOSMOS_EDGE_SANITIZE"):
        pytest.skip("sanitizers end the process where they find something")
    lines = subprocess.run(
        ["nm", "-D", "--undefined-only", libraries()[name]], capture_output=True, text=True, check=True
    )
    imported = [line.split()[-1].split("@")[0] for line in lines.stdout.splitlines()]
    assert len(imported) > 50 and "mmap" in imported
    assert {symbol for symbol in imported if UNWANTED.fullmatch(symbol)} <= set(ALLOWED)
    assert [symbol for symbol in imported if STREAMS.match(symbol)] == []
    assert {symbol for symbol in imported if ENDING.fullmatch(symbol)} <= set(ALLOWED)


def test_the_scan_knows_what_it_looks_for():
    bad = "abort exit _exit printf vfprintf __printf_chk __fprintf_chk __vfprintf_chk dprintf __assert_fail sigaction"
    for name in [*bad.split(), "connect", "fork", "puts"]:
        assert UNWANTED.fullmatch(name), name
    for name in ("snprintf", "__snprintf_chk", "memcpy", "pthread_create", "__cxa_throw", "_ZSt9terminatev", "getenv"):
        assert not UNWANTED.fullmatch(name), name
    assert STREAMS.match("_ZSt4cerr") and ENDING.fullmatch("_ZSt9terminatev") and ENDING.fullmatch("_ZSt10unexpectedv")


RUN = """
import ctypes, json, locale, os, sys
model, picture, checkpoint, output = sys.argv[1:]
libm = ctypes.CDLL("libm.so.6")

def state():
    with open("/proc/self/status") as lines:
        status = dict(line.split(":", 1) for line in lines)
    mask = os.umask(0)
    os.umask(mask)
    own = 3 << 31  # signals 32 and 33 belong to the C library's threads
    return {name: int(status[name], 16) & ~own for name in ("SigCgt", "SigIgn", "SigBlk")} | {
        "cwd": os.getcwd(), "umask": mask, "locale": locale.setlocale(locale.LC_ALL), "rounding": libm.fegetround(),
        "environment": dict(os.environ)}

import PIL.Image, PIL.PngImagePlugin, asyncio  # noqa: what they import is not ours
seen = []
sys.addaudithook(lambda event, _: seen.append(event) if event.split(".")[0] in (
    "socket", "subprocess", "urllib", "ftplib", "http", "webbrowser", "signal") or event in (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.putenv", "os.chdir") else None)
import kosmos_edge
from kosmos_edge.convert import convert
before = state()
m = kosmos_edge.load(model, threads=2)
r = m.caption(picture, ground=True, max_tokens=8)
assert [x.text for x in m.batch([picture, picture], max_tokens=8, ground=True)] == [r.text] * 2
list(m.ask(picture, "What?", stream=True, max_tokens=4))
m.score(picture, ["a", "b"])
for wrong in (lambda: kosmos_edge.load("/nowhere.gguf"), lambda: kosmos_edge.load(picture), lambda: m.caption(model),
              lambda: m.caption(picture, max_tokens=-1)):
    try:
        wrong()
    except kosmos_edge.KosmosError:
        pass
    else:
        raise SystemError("no error")
convert(checkpoint, output)
m.close()
after = state()
with open(output + ".json", "w") as out:
    json.dump([before, after, seen], out)
"""


@linux
def test_a_run_leaves_the_process_as_it_was_and_prints_nothing(tmp_path):
    from helpers.convert_checkpoint import convert_state, convert_write_hf

    one_layer = {"text_config__layers": 1, "vision_config__num_hidden_layers": 1}
    checkpoint = convert_write_hf(tmp_path / "hf", convert_state(layers=1, vision_layers=1), **one_layer)
    picture, output = tmp_path / "a.png", tmp_path / "out.gguf"
    picture.write_bytes(png())
    arguments = [str(path) for path in (tiny_file(), picture, checkpoint, output)]
    environment = os.environ | {"PYTHONWARNINGS": "error"}
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(RUN), *arguments], capture_output=True, env=environment, timeout=300
    )
    assert (out.returncode, out.stdout, out.stderr) == (0, b"", b"")
    before, after, seen = json.loads((tmp_path / "out.gguf.json").read_text())
    assert before == after
    assert seen == []
