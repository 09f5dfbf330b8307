"""Holding everybody to AVX2, and how it is known of each program that it is held.

llama.cpp and ik_llama.cpp are compiled without anything beyond AVX2, FMA and F16C, and what was compiled is searched:
512-bit registers, the masks of AVX-512 or a `vpdpbusd` in it are an error. Ours and torch choose when they run, and are
asked what they chose. onnxruntime chooses by the processor's own word and has no switch, so it is left out.
"""

import re
import shutil
import subprocess
from pathlib import Path

from peers_get import Unavailable, clean_environment

ENVIRONMENT = {
    "KOSMOS_EDGE_ISA": "avx2",
    "ATEN_CPU_CAPABILITY": "avx2",  # torch's own loops
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # its oneDNN, of bfloat16 and float32
    "FBGEMM_ENABLE_INSTRUCTIONS": "AVX2",  # its FBGEMM, of dynamic int8
}
BEYOND = re.compile(r"%zmm\d|%k[0-7]\b|\bvpdpbusds?\b|\bvpdpwssds?\b|%tmm\d|%[xy]mm(1[6-9]|2\d|3[01])\b")


def check(tool: str, program: Path) -> str:
    """How a program is known to be held, in words for the page. Raises Unavailable if it is not."""
    if tool in ("llama.cpp", "ik_llama.cpp"):
        searched = search(sorted({program, *program.parent.glob("*.so")}))
        return f"compiled for AVX2; none of {searched} instructions of its program and libraries goes beyond it"
    if tool == "onnxruntime":
        raise Unavailable("it has no switch that holds it to AVX2, so it is left out")
    return torch_capability(program)


def search(files: list[Path]) -> int:
    """Disassembles them -> the number of instructions. Raises Unavailable at the first that AVX2 does not have."""
    objdump = shutil.which("objdump")
    if not objdump:
        raise Unavailable("objdump (binutils) is not installed, so nobody can say what was compiled")
    count = 0
    for file in files:
        command = [objdump, "-d", "--no-show-raw-insn", str(file)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as process:
            assert process.stdout is not None
            for line in process.stdout:
                count += ":\t" in line
                if BEYOND.search(line):
                    process.kill()
                    raise Unavailable(f"{file.name} is not held to AVX2: {' '.join(line.split())[:100]}")
        if process.returncode:
            raise Unavailable(f"objdump cannot read {file}: status {process.returncode}")
    return count


def torch_capability(python: Path) -> str:
    """What torch says that it uses in this environment."""
    code = "import torch; print(torch.backends.cpu.get_cpu_capability())"
    done = subprocess.run(
        [python, "-c", code], env=clean_environment(**ENVIRONMENT), capture_output=True, text=True, check=False
    )
    if done.returncode or done.stdout.strip() != "AVX2":
        said = done.stdout.strip() or done.stderr.strip()[-100:]
        raise Unavailable(f"torch is not held to AVX2: get_cpu_capability() is {said!r}")
    return "ATEN_CPU_CAPABILITY, ONEDNN_MAX_CPU_ISA and FBGEMM_ENABLE_INSTRUCTIONS; get_cpu_capability() is AVX2"
