"""Tasks spread over processes that end well however they end.

The processes are started as commands of their own, not by `multiprocessing`, which would run the caller's main
script again in each. They don't hear Ctrl-C; they end when this process tells them to, or when it is gone.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from zeroflow_core.errors import ZeroFlowError

_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # the others have the other cores
_FAREWELL_S = 15.0  # for a process to remove what it has half written


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_in_workers(
    function: Callable[..., None], tasks: Sequence[tuple], processes: int, on_progress: Callable[[Any], None]
) -> None:
    """Call ``function(*task, report)`` for every task; what is given to ``report`` comes out at `on_progress`.

    function: a function of a module, so that another process finds it

    Raises:
        ZeroFlowError: one of a task, or a process was killed. Then the others are stopped.
        RuntimeError: any other exception of a task, with its traceback.
    """
    waiting = list(reversed(tasks))
    workers: dict[Connection, subprocess.Popen] = {}
    try:
        for _ in range(processes):
            connection, process = _start()
            workers[connection] = process
            connection.send((function, waiting.pop()))
        busy = set(workers)
        while busy:
            for connection in wait(list(busy)):
                try:
                    kind, content = connection.recv()
                except (EOFError, OSError) as error:
                    raise ZeroFlowError(_cause_of_death(workers[connection], processes)) from error
                if kind == "progress":
                    on_progress(content)
                elif kind == "mistake":
                    raise ZeroFlowError(content)
                elif kind == "bug":
                    raise RuntimeError(f"in a worker process:\n{content}")
                elif waiting:
                    connection.send((function, waiting.pop()))
                else:
                    connection.close()  # which ends it
                    busy.remove(connection)
    except BaseException:
        for connection, process in workers.items():
            connection.close()
            process.terminate()
        raise
    finally:
        _wait_for(workers.values())


def _start() -> tuple[Connection, subprocess.Popen]:
    ours, theirs = socket.socketpair()
    with theirs:
        command = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import work; work({theirs.fileno()})"
        process = subprocess.Popen(
            [sys.executable, "-c", command],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env=os.environ | _ONE_THREAD,
        )
    return Connection(ours.detach()), process


def _wait_for(processes: Iterable[subprocess.Popen]) -> None:
    for process in processes:
        try:
            process.wait(_FAREWELL_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _cause_of_death(process: subprocess.Popen, processes: int) -> str:
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

    with suppress(EOFError, ConnectionError):  # the parent is gone
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
