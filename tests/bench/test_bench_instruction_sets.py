"""The comparison of instruction sets: runs on nano, and says when the choice is not the fastest."""

import json
import os
import subprocess
import sys

import instruction_sets as sets

from kosmos_edge import _core


def test_it_runs_on_nano(repo_root):
    command = [sys.executable, "bench/instruction_sets.py", "--threads", "1", "--rounds", "1", "--format", "json"]
    isa = _core.available_isas()[0]
    done = subprocess.run(
        [*command, "--isas", isa], cwd=repo_root, env=os.environ.copy(), capture_output=True, text=True
    )
    assert done.returncode in (0, 1), done.stderr
    [result] = json.loads(done.stdout)["results"]
    assert set(result["phases"]) == {"encode", "prefill", "decode"}
    for phase in result["phases"].values():
        assert phase["chosen"] > 0 and phase["ratios"][isa]["median"] > 0


def result(ratios):
    phases = {"decode": {"chosen": 10.0, "ratios": {"avx2": sets.summary(ratios)}}}
    return {"threads": 2, "rounds": len(ratios), "phases": phases, "one_row": []}


def test_only_what_is_beyond_the_noise_counts_as_lost():
    assert sets.lost(result([1.2, 1.3, 1.4])) == ["2 threads, decode: avx2 is 1.30 x the choice"]
    assert sets.lost(result([0.9, 1.0, 1.4])) == []
    assert sets.lost(result([1.015, 1.015, 1.019])) == []
    assert "| 2 | decode | 10.0 tokens/s | 1.30 (1.25 to 1.35) |" in sets.table([result([1.2, 1.3, 1.4])], ["avx2"])
