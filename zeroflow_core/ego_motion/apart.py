"""KISS-ICP in a process of its own.

Its binding keeps Python's lock (the GIL) for as long as it works on a sweep, so that in the process of a node it would
stop everything else: receiving, the student's work on the sweep before, diagnostics.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress

import numpy as np

from zeroflow_core.ego_motion.odometry import KissOdometry
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.geometry import SE3
from zeroflow_core.pairs import Sweep

_START_S = 30.0  # for the child to be ready; a third of a second on a machine with nothing else to do
_ANSWER_S = 10.0  # for a sweep; a hundred times the usual, several times what the second one of a series may take
_END_S = 0.4  # for a child that was killed
_ALARM_S = 30  # for a sweep whose sender may be gone, so that nobody is left to end the child
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # the others have the other cores
_REQUEST = struct.Struct("=qq??")  # stamp, number of points, whether their times follow, whether to start anew
_ANSWER = struct.Struct("=q12d")  # number of sweeps, rotation row by row, translation
_READY = b"r"


class OdometryFailed(ZeroFlowError):
    """No pose for this sweep, nor any in the world of those before for the next ones."""


class OdometryApart:
    """What KissOdometry does, bit for bit, but in a child process, while other threads of this one go on.

    max_range, deskew: see KissOdometry
    num_sweeps:        how many have been registered since it last started anew

    The child starts when this is made, and ends when it is closed, or by itself when this process is gone, however that
    came. Instead of one that died, or hangs, the next sweep gets a new one. `register` and `reset` are for one thread;
    any may `close`.

    Raises:
        OdometryFailed: no process can be started.
    """

    def __init__(self, *, max_range: float = 100.0, deskew: bool = True) -> None:
        self._options = {"max_range": max_range, "deskew": deskew}
        self._anew = self._closed = False
        self._registering = threading.Lock()
        self._changing = threading.Lock()  # whether there is a child, and which
        self._child: _Child | None = None
        self.num_sweeps = 0
        self._present()

    @property
    def pid(self) -> int | None:
        """The child's, where there is one at the moment."""
        child = self._child
        return None if child is None else child.process.pid

    def reset(self) -> None:
        """Start anew with the next sweep."""
        self.num_sweeps, self._anew = 0, True

    def register(self, sweep: Sweep) -> SE3:
        """As KissOdometry.register.

        Raises:
            OdometryFailed: the child died or does not answer, or this is closed. The next sweep starts anew.
        """
        with self._registering:
            child = self._present()
            try:
                pose, self.num_sweeps = child.register(sweep, self._anew)
            except OSError as error:
                self.reset()
                text = "KISS-ICP was ended" if self._closed else child.what_happened(error)
                self._let_go(child)
                raise OdometryFailed(text) from error
            self._anew = False
            return pose

    def close(self) -> None:
        """End the child, at once; a `register` that waits for it in another thread fails."""
        with self._changing:
            self._closed = True
            child = self._child
            if child is not None:
                child.kill()
        if child is not None and self._registering.acquire(timeout=_END_S):
            self._let_go(child)
            self._registering.release()

    def _present(self) -> _Child:
        """The child there is, or else a new one."""
        with self._changing:
            if self._closed:
                raise OdometryFailed("KISS-ICP was ended")
            if self._child is None:
                try:
                    self._child = _Child(self._options)
                except OSError as error:
                    raise OdometryFailed(f"no process can be started for KISS-ICP: {error}") from error
            return self._child

    def _let_go(self, child: _Child) -> None:
        """To be called by whoever holds `registering`: nobody else may be reading from what is closed here."""
        with self._changing:
            child.kill()
            child.channel.close()
            self._child = None


class _Child:
    """A process with a KissOdometry in it, and this side's end of the channel to it."""

    def __init__(self, options: dict[str, object]) -> None:
        self.channel, theirs = socket.socketpair()
        # It finds the package where this process does.
        command = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import work; work(**{options!r})"
        try:
            with theirs:
                self.process = subprocess.Popen(
                    [sys.executable, "-c", command],
                    stdin=theirs,
                    stdout=subprocess.DEVNULL,
                    env=os.environ | _ONE_THREAD,
                    start_new_session=True,  # Ctrl-C in the terminal is for the parent
                )
        except OSError:
            self.channel.close()
            raise
        self._is_ready = False
        self._limit(_START_S)

    def register(self, sweep: Sweep, anew: bool) -> tuple[SE3, int]:
        """The pose, and how many sweeps have been registered.

        Raises:
            ConnectionError: the child is gone.
            OSError: it does not answer.
        """
        if not self._is_ready:
            _receive(self.channel, bytearray(len(_READY)))
            self._limit(_ANSWER_S)
            self._is_ready = True
        times = sweep.time_offset_ns
        self._send(_REQUEST.pack(sweep.stamp_ns, len(sweep), times is not None, anew))
        self._send(_bytes_of(np.ascontiguousarray(sweep.points)))
        if times is not None:
            self._send(_bytes_of(np.ascontiguousarray(times, dtype=np.int32)))
        answer = bytearray(_ANSWER.size)
        _receive(self.channel, answer)
        num_sweeps, *numbers = _ANSWER.unpack(answer)
        return SE3(np.reshape(numbers[:9], (3, 3)), np.array(numbers[9:])), num_sweeps

    def what_happened(self, error: OSError) -> str:
        """A sentence about why it failed."""
        if not isinstance(error, ConnectionError):
            return f"KISS-ICP's process did not answer for {self._patience:g} s and is replaced"
        with suppress(subprocess.TimeoutExpired):  # its end of the channel ends a little before itself
            self.process.wait(_END_S)
        code = self.process.poll()
        how = "" if code is None else f" with exit code {code}"  # None: it is about to end
        if code is not None and code < 0:
            how = f" by signal {-code} ({signal.strsignal(-code)})"
        return f"KISS-ICP's process was ended{how} and is replaced"

    def kill(self) -> None:
        """Whoever waits for it, in any thread, gets a ConnectionError."""
        with suppress(OSError):  # closed before
            self.channel.shutdown(socket.SHUT_RDWR)
        self.process.kill()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(_END_S)

    def _limit(self, seconds: float) -> None:
        """How long to wait for the child. The system looks at the clock: a timeout of Python's would cut a sweep into
        many pieces, and wait for the GIL before each."""
        self._patience = seconds
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self.channel.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", int(seconds), 0))

    def _send(self, data: bytes | np.ndarray) -> None:
        rest, deadline = memoryview(data), time.monotonic() + self._patience
        while rest:
            rest = rest[self.channel.send(rest) :]
            if rest and time.monotonic() > deadline:
                raise TimeoutError


def work(**options) -> None:
    """What the child does: it answers what comes at its standard input, a socket, until that ends.

    options: of KissOdometry
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # whoever stops all processes of a service means the parent
        signal.signal(number, signal.SIG_IGN)
    channel = socket.socket(fileno=os.dup(0))
    odometry = KissOdometry(**options)
    with suppress(ConnectionError):  # the parent is gone
        channel.sendall(_READY)
        while True:
            signal.alarm(0)
            sweep, anew = _received(channel)
            signal.alarm(_ALARM_S)
            if anew:
                odometry.reset()
            pose = odometry.register(sweep)
            channel.sendall(_ANSWER.pack(odometry.num_sweeps, *pose.rotation.flat, *pose.translation))


def _received(channel: socket.socket) -> tuple[Sweep, bool]:
    header = bytearray(_REQUEST.size)
    _receive(channel, header)
    stamp_ns, count, has_times, anew = _REQUEST.unpack(header)
    points = np.empty((count, 3), dtype=np.float32)
    _receive(channel, _bytes_of(points))
    times = np.empty(count, dtype=np.int32) if has_times else None
    if times is not None:
        _receive(channel, _bytes_of(times))
    return Sweep(points, stamp_ns, time_offset_ns=times), anew


def _receive(channel: socket.socket, into: bytearray | np.ndarray) -> None:
    """Fill it.

    Raises:
        ConnectionError: the other side is gone.
        OSError: nothing came for as long as the channel waits.
    """
    rest = memoryview(into)
    while rest:
        count = channel.recv_into(rest, 0, socket.MSG_WAITALL)
        if count == 0:
            raise ConnectionResetError
        rest = rest[count:]


def _bytes_of(array: np.ndarray) -> np.ndarray:
    """The array's memory, not a copy."""
    return array.reshape(-1).view(np.uint8)
