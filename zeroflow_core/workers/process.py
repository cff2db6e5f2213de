"""Processes that do tasks, and end well however they end.

They are started as commands of their own, not by `multiprocessing`, which would run the caller's main
script again in each. They don't hear Ctrl-C; they end when this process tells them to, or when it is gone.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from zeroflow_core.errors import ZeroFlowError

_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # the others have the other cores
_FAREWELL_S = 15.0  # for a process to remove what it has half written


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start(environment: Mapping[str, str]) -> tuple[Connection, subprocess.Popen]:
    """A process with these variables, and the connection through which it takes tasks, ``(function, arguments)``.

    It answers with ``(kind, content)``: "progress" and what was given to ``report``; then "done", "mistake" and a
    sentence, or "bug" and a traceback. Closing the connection ends it.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        command = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import work; work({theirs.fileno()})"
        process = subprocess.Popen(
            [sys.executable, "-c", command],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env=os.environ | _ONE_THREAD | dict(environment),
        )
    return Connection(ours.detach()), process


def wait_for(processes: Iterable[subprocess.Popen]) -> None:
    """Until they have ended; those that take too long are killed."""
    for process in processes:
        try:
            process.wait(_FAREWELL_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def cause_of_death(process: subprocess.Popen, processes: int) -> str:
    """What happened to a process that has ended by itself, one of so many, and what to do."""
    code = process.wait()
    if code == -signal.SIGKILL:
        relief = "with fewer --jobs" if processes > 1 else "when more of it is free"
        return f"a worker process was killed, perhaps because memory ran out; run the same again {relief}"
    if code < 0:
        return f"a worker process ended by {signal.Signals(-code).name}; run the same again to go on"
    return f"a worker process ended with exit code {code}; what it said is above"


def work(descriptor: int) -> None:
    """Run in a worker: do the tasks that come through the socket `descriptor` until it closes."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an exception, so that half-written folders vanish
    connection = Connection(descriptor)

    def report(content: Any) -> None:
        connection.send(("progress", content))

    with suppress(EOFError, OSError):  # the parent is gone
        while True:
            function, task = connection.recv()
            try:
                function(*task, report)
                connection.send(("done", None))
            except ZeroFlowError as error:
                connection.send(("mistake", str(error)))
            except ConnectionError:
                raise
            except Exception:
                connection.send(("bug", traceback.format_exc()))
