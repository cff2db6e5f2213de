"""KISS-ICP in a process of its own: the same poses, and whatever becomes of that process, nobody waits in vain."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from process_cases import runs

pytest.importorskip("kiss_icp", reason="kiss-icp is not installed")

from zeroflow_core.ego_motion import KissOdometry, OdometryApart, OdometryFailed, apart
from zeroflow_core.pairs import Sweep

STEP = 100_000_000
PATIENCE = 60.0  # seconds; reached only by tests that fail


@pytest.fixture
def odometry():
    odometry = OdometryApart()
    yield odometry
    with suppress(ProcessLookupError):
        _tell_child(odometry, signal.SIGCONT)
    odometry.close()


def _sweep(k: int, times: bool = False, count: int = 3000) -> Sweep:
    """The k-th one of a vehicle on its way through a square."""
    rng = np.random.default_rng(5)
    points = rng.uniform([-30, -30, 0], [30, 30, 4], (count, 3))
    points[: count // 2, 0] = np.where(points[: count // 2, 1] > 3, -25, 22)
    points[count // 2 : -count // 5, 1] = np.where(points[count // 2 : -count // 5, 0] > 5, 19, -22)
    points[-count // 5 :, 2] = 0
    seen = (points - [0.6 * k, 0.05 * k, 0]).astype(np.float32)
    offsets = rng.integers(0, STEP, count).astype(np.int32) if times else None
    return Sweep(seen, k * STEP, time_offset_ns=offsets)


def _tell_child(odometry: OdometryApart, number: signal.Signals) -> None:
    if odometry.pid is not None:
        os.kill(odometry.pid, number)


def _wait(done: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)


# --- the same as in this process ---------------------------------------------------------------------------


@pytest.mark.parametrize("deskew", [True, False])
def test_poses_are_the_same_bit_for_bit(deskew: bool):
    holes = _sweep(3).points.copy()
    holes[::7], holes[1::7] = np.nan, np.inf
    drive = [
        *(_sweep(k, times=True) for k in range(3)),
        Sweep(holes, 3 * STEP),
        Sweep(_sweep(4).points[::2], 4 * STEP),  # no contiguous memory
        Sweep(np.empty((0, 3), np.float32), 5 * STEP, time_offset_ns=np.empty(0, np.int32)),
        _sweep(6),
        Sweep(_sweep(7).points, 7 * STEP, time_offset_ns=np.zeros(3000, np.int64)),
        _sweep(30),  # after a gap, anew
        _sweep(31),
    ]
    here, there = KissOdometry(max_range=28.0, deskew=deskew), OdometryApart(max_range=28.0, deskew=deskew)
    try:
        for k, sweep in enumerate(drive):
            if k == 7:
                here.reset()
                there.reset()
                assert there.num_sweeps == 0
            expected, pose = here.register(sweep), there.register(sweep)
            np.testing.assert_array_equal(pose.matrix, expected.matrix)
            assert there.num_sweeps == here.num_sweeps
        assert not np.array_equal(pose.matrix, np.eye(4))
    finally:
        there.close()


def test_other_threads_go_on_while_it_works(odometry):
    odometry.register(_sweep(0))
    _tell_child(odometry, signal.SIGSTOP)
    poses = []
    waiting = threading.Thread(target=lambda: poses.append(odometry.register(_sweep(1))))
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive() and poses == []
    _tell_child(odometry, signal.SIGCONT)
    waiting.join(PATIENCE)
    assert len(poses) == 1 and odometry.num_sweeps == 2


# --- a child that fails ------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """On a busy machine one that was killed takes a while to be gone."""
    monkeypatch.setattr(apart, "_END_S", 10.0)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_one_that_was_killed_is_replaced_and_begins_anew(odometry, number: signal.Signals):
    for k in range(3):
        odometry.register(_sweep(k))
    victim = odometry.pid
    os.kill(victim, number)
    with pytest.raises(OdometryFailed, match=rf"ended by signal {number.value} \(.+\) and is replaced"):
        odometry.register(_sweep(3))
    assert odometry.num_sweeps == 0
    fresh = KissOdometry()
    for k in (4, 5):
        np.testing.assert_array_equal(odometry.register(_sweep(k)).matrix, fresh.register(_sweep(k)).matrix)
    assert odometry.num_sweeps == 2
    assert odometry.pid != victim and not Path(f"/proc/{victim}").exists()


@pytest.mark.parametrize("count", [500, 200_000], ids=["taken", "more than the channel holds"])
def test_one_that_hangs_is_replaced(odometry, monkeypatch, count: int):
    monkeypatch.setattr(apart, "_ANSWER_S", 1.0)
    odometry.register(_sweep(0))
    victim = odometry.pid
    os.kill(victim, signal.SIGSTOP)
    with pytest.raises(OdometryFailed, match="did not answer for 1 s and is replaced"):
        odometry.register(_sweep(1, count=count))
    assert not Path(f"/proc/{victim}").exists()
    monkeypatch.undo()
    odometry.register(_sweep(2))
    assert odometry.num_sweeps == 1


def test_one_that_never_gets_ready_is_given_up(monkeypatch):
    monkeypatch.setattr(apart, "_START_S", 1.0)
    odometry = OdometryApart()
    os.kill(odometry.pid, signal.SIGSTOP)
    try:
        with pytest.raises(OdometryFailed, match="did not answer for 1 s"):
            odometry.register(_sweep(0))
    finally:
        odometry.close()


def test_one_that_fails_by_itself_says_how(capfd):
    odometry = OdometryApart(max_range="far")
    try:
        for _ in range(2):
            with pytest.raises(OdometryFailed, match="ended with exit code 1 and is replaced"):
                odometry.register(_sweep(0))
    finally:
        odometry.close()
    assert "Traceback" in capfd.readouterr().err


def test_without_processes_there_is_an_error_and_no_leak(monkeypatch):
    before = _open_files()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(OdometryFailed, match="no process can be started for KISS-ICP: .*nowhere"):
        OdometryApart()
    assert _open_files() == before


# --- the end -----------------------------------------------------------------------------------------------


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_closing_leaves_nothing():
    before = _open_files()
    odometry = OdometryApart()
    odometry.register(_sweep(0))
    child = odometry.pid
    odometry.close()
    odometry.close()
    assert odometry.pid is None and not Path(f"/proc/{child}").exists()
    assert _open_files() == before
    with pytest.raises(OdometryFailed, match="was ended"):
        odometry.register(_sweep(1))


@pytest.mark.parametrize("warm", [True, False])
def test_closing_ends_a_wait_in_another_thread(odometry, warm: bool):
    if warm:
        odometry.register(_sweep(0))
    before, told = _open_files(), []
    _tell_child(odometry, signal.SIGSTOP)

    def wait() -> None:
        try:
            odometry.register(_sweep(1))
        except OdometryFailed as error:
            told.append(str(error))

    waiting = threading.Thread(target=wait)
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    start = time.monotonic()
    odometry.close()
    waiting.join(apart._ANSWER_S)
    assert told == ["KISS-ICP was ended"] and time.monotonic() - start < apart._ANSWER_S / 2
    assert odometry.pid is None and _open_files() == before - 1


def test_closing_at_any_moment_is_safe():
    for k in range(8):
        odometry = OdometryApart()

        def register(odometry=odometry) -> None:
            with suppress(OdometryFailed):
                for number in range(100):
                    odometry.register(_sweep(number))

        registering = threading.Thread(target=register)
        registering.start()
        time.sleep(0.07 * k)
        odometry.close()
        registering.join(PATIENCE)
        assert not registering.is_alive() and odometry.pid is None


def test_signals_that_mean_the_parent_do_not_end_it(odometry):
    odometry.register(_sweep(0))
    assert os.getsid(odometry.pid) == odometry.pid
    for number in (signal.SIGINT, signal.SIGTERM):
        _tell_child(odometry, number)
    odometry.register(_sweep(1))
    assert odometry.num_sweeps == 2


def test_it_has_no_files_of_the_parent(odometry):
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    other = OdometryApart()
    try:
        other.register(_sweep(0))
        files = {name: os.readlink(f"/proc/{other.pid}/fd/{name}") for name in os.listdir(f"/proc/{other.pid}/fd")}
        assert files["1"] == "/dev/null" and files["0"].startswith("socket:")
        assert set(files) == {"0", "1", "2", "3"} and files["3"] == files["0"], files
    finally:
        other.close()
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_the_parent_does(number: signal.Signals):
    program = """if True:
        import time
        import numpy as np
        from zeroflow_core.ego_motion import OdometryApart
        from zeroflow_core.pairs import Sweep
        odometry = OdometryApart()
        odometry.register(Sweep(np.ones((100, 3), np.float32), 0))
        print(odometry.pid, flush=True)
        time.sleep(600)
    """
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with parent:
        child = int(parent.stdout.readline())
        assert runs(child)
        parent.send_signal(number)
        parent.wait(PATIENCE)
        _wait(lambda: not runs(child), "the child to end")


def test_one_that_hangs_without_parent_ends_itself():
    program = """if True:
        import time
        from zeroflow_core.ego_motion import apart
        class Stuck:
            def register(self, sweep):
                time.sleep(600)
        apart._ALARM_S, apart.KissOdometry = 1, Stuck
        apart.work()
    """
    ours, theirs = socket.socketpair()
    with theirs:
        child = subprocess.Popen([sys.executable, "-c", program], stdin=theirs)
    with ours:
        ours.settimeout(PATIENCE)
        assert ours.recv(1) == apart._READY
        ours.sendall(apart._REQUEST.pack(0, 0, False, False))
    assert child.wait(PATIENCE) == -signal.SIGALRM
