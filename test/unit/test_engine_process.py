"""Threads of the fast engine end with it, with the program, and not with a call that is broken off."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest
from engine_cases import SMALL, random_network, scene, student, torch_threads


def test_no_thread_outlives_its_engine():
    model, pair = random_network(SMALL, 51), scene(SMALL, 52)

    def use() -> weakref.ref:
        with torch_threads(2):
            fast = student(model)
        fast.flow(*pair)
        return weakref.ref(fast)

    use()  # torch's own threads come with the first call and stay
    gc.collect()
    time.sleep(0.2)
    before = _number_of_threads()
    left = [use() for _ in range(3)]
    gc.collect()
    until = time.monotonic() + 5
    while _number_of_threads() > before and time.monotonic() < until:
        time.sleep(0.02)
    assert [reference() for reference in left] == [None] * 3
    assert _number_of_threads() <= before


def _number_of_threads() -> int:
    folder = "/proc/self/task"
    return len(os.listdir(folder)) if os.path.isdir(folder) else threading.active_count()


def test_a_program_with_an_engine_ends():
    """By an error, say: no thread of the engine holds it back, nor has a word to say."""
    program = (
        "import numpy as np\nfrom zeroflow_core.fastflow3d.student import load_student\n"
        "student = load_student('default', device='cpu', engine='fast')\n"
        "cloud = np.random.default_rng(0).uniform(-20, 20, (2000, 3)).astype(np.float32)\n"
        "print(np.isfinite(student.flow(cloud, cloud)).any(), flush=True)\n"
        "raise RuntimeError('enough')\n"
    )
    done = _run(program, timeout=60)
    assert done.stdout.strip() == "True"
    assert done.returncode == 1 and done.stderr.strip().endswith("RuntimeError: enough"), done.stderr


_ENDED_BY_CTRL_C = """
import os, signal, sys
import numpy as np
from engine_cases import full, grid, random_network, student, torch_threads

config = grid(48, 32, (2, 2), 0.5)
with torch_threads(2):
    fast = student(random_network(config, 1), precision="bf16")
cloud = full(config, np.random.default_rng(0))
fast.flow(cloud, cloud)
ends = []
for k in range(12):
    child = os.fork()
    if not child:
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.03 + 0.007 * k)
        try:
            while True:
                fast.flow(cloud, cloud[::-1]), fast.flow(cloud[::-1], cloud)
        except KeyboardInterrupt:
            sys.exit(7)
    ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(*sorted(set(ends)))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_ctrl_c_in_a_call_ends_a_program_as_it_should():
    """Python ends while the engine still computes: it must not be in anything that can't be broken off."""
    done = _run(_ENDED_BY_CTRL_C, timeout=90)
    assert done.stdout.strip() == "7", done.stderr
    assert done.stderr == ""


_STOPPED_CALLS = """
import signal, sys, time
import numpy as np, torch
from engine_cases import grid, random_network, scene, student

class Stop(Exception):
    pass

def stop(*_):
    raise Stop

torch.set_num_threads(2)
config = grid(48, 8, (1, 2, 2), 0.5)
network = random_network(config, 33)
pairs = [scene(config, seed, 4000) for seed in (34, 35, 36)]
expected = [student(network).flow(*pair) for pair in pairs]
fast, rng, stopped = student(network), np.random.default_rng(37), 0
fast.flow(*pairs[1])
start = time.perf_counter()
fast.flow(*pairs[0])
usual = time.perf_counter() - start
signal.signal(signal.SIGALRM, stop)
for _ in range(60):
    try:
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.02, 1) * usual)
        fast.flow(*pairs[rng.integers(3)])
        signal.setitimer(signal.ITIMER_REAL, 0)
    except Stop:
        stopped += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    which = rng.integers(3)
    np.testing.assert_allclose(fast.flow(*pairs[which]), expected[which], atol=1e-6, rtol=0, equal_nan=True)
print("stopped" if stopped > 10 else "never stopped")
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no such timers")
def test_a_call_that_was_stopped_half_way_shows_in_no_other():
    """As by Ctrl-C in a notebook: the next call neither hangs nor finds what the stopped one left."""
    try:
        done = _run(_STOPPED_CALLS, timeout=120)  # the first run on a machine compiles for some 20 s
    except subprocess.TimeoutExpired:
        pytest.fail("a call does not come back")
    assert done.returncode == 0 and done.stdout.strip() == "stopped", done.stderr


def _run(program: str, timeout: float) -> subprocess.CompletedProcess:
    folders = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, folders))}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)
