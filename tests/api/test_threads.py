"""The thread pool: every index once, several callers, fork; and how many threads are chosen."""

import os
import subprocess
import sys

import numpy as np
import pytest

from kosmos_edge import _core
from kosmos_edge.errors import InvalidRequest

T = _core.testing


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("n,grain", [(1, 1), (7, 3), (64, 1), (1000, 7), (5, 100)])
def test_every_index_is_visited_once(threads, n, grain):
    assert T.visits(threads, n, grain, 1, 20) == [20] * n


@pytest.mark.parametrize("callers", [2, 5])
def test_several_callers_share_one_pool(callers):
    assert T.visits(3, 100, 4, callers, 200) == [200 * callers] * 100


def test_an_empty_range_is_no_job():
    assert T.visits(2, 0, 1, 1, 3) == []


def test_many_short_jobs():
    assert T.visits(2, 16, 1, 1, 20000) == [20000] * 16


def test_jobs_after_a_pause_find_sleeping_workers():
    """Workers park after 40 us; a pool that waits for each of them would hang or lose indices here."""
    code = "import time; from kosmos_edge import _core; o = _core.testing.Ops('', 4); import struct\n"
    code += "for i in range(20):\n  time.sleep(.002); o.add(bytes(400000), bytes(400000), 100, 1000)\nprint('done')"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert out.stdout == "done\n", out.stderr


@pytest.mark.parametrize("threads", [0, -1, 5000])
def test_absurd_thread_counts_are_refused(threads):
    with pytest.raises(InvalidRequest, match=r"threads"):
        T.visits(threads, 1, 1, 1, 1)
    if threads != 0:  # 0 means: choose
        with pytest.raises(InvalidRequest, match=r"threads"):
            T.Ops("", threads)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_child_can_compute_and_exit():
    """The child has no workers; its results are the same and its pool's destructor does not wait for them."""
    ops, x = T.Ops("", 3), np.ones((100, 1000), np.float32)
    want = ops.add(x, x, 100, 1000)
    pid = os.fork()
    if pid == 0:
        same = ops.add(x, x, 100, 1000) == want
        del ops
        os._exit(7 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def default_threads(**environment) -> int:
    code = "from kosmos_edge import _core; print(_core.default_threads())"
    env = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"} | environment
    return int(subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout)


def test_omp_num_threads_decides_when_it_is_a_positive_integer():
    plain = default_threads()
    assert default_threads(OMP_NUM_THREADS="3") == 3
    for nonsense in ("0", "-2", "many", "2.5", "", " 4", "99999999999"):
        assert default_threads(OMP_NUM_THREADS=nonsense) == plain


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity masks on this system")
def test_affinity_limits_the_default():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from kosmos_edge import _core;"
    code += "print(_core.default_threads())"
    env = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    assert subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True).stdout == "1\n"


def quota(tmp_path, groups: str, files: dict[str, str]) -> float:
    (tmp_path / "cgroup").write_text(groups)
    for name, text in files.items():
        path = tmp_path / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return T.cgroup_cpu_quota(str(tmp_path / "cgroup"), str(tmp_path / "fs"))


def test_cgroup_v2_takes_the_tightest_quota_on_the_path(tmp_path):
    files = {"cpu.max": "max 100000", "a/cpu.max": "250000 100000", "a/b/cpu.max": "max 100000"}
    assert quota(tmp_path, "0::/a/b\n", files) == 2.5


def test_cgroup_v2_in_a_container_whose_root_is_the_group(tmp_path):
    assert quota(tmp_path, "0::/\n", {"cpu.max": "150000 100000\n"}) == 1.5
    assert quota(tmp_path, "0::/not/mounted/here\n", {}) == 1.5


def test_cgroup_v1(tmp_path):
    files = {"cpu,cpuacct/x/cpu.cfs_quota_us": "50000", "cpu,cpuacct/x/cpu.cfs_period_us": "100000"}
    assert quota(tmp_path, "5:memory:/y\n4:cpu,cpuacct:/x\n", files) == 0.5


@pytest.mark.parametrize("groups", ["", "0::\n", "nonsense", "0::/a\n4:cpu:/b\n"])
def test_no_quota(tmp_path, groups):
    files = {"cpu.max": "max 100000", "cpu/b/cpu.cfs_quota_us": "-1", "cpu/b/cpu.cfs_period_us": "100000"}
    assert quota(tmp_path, groups, files) == 0
