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
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from zeroflow_core.errors import ZeroFlowError

_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # the others have the other cores
_FAREWELL_S = 15.0  # for a process to remove what it has half written


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class _Worker:
    """A process and the task it was given last."""

    process: subprocess.Popen
    environment: Mapping[str, str]
    task: tuple = ()


def run_in_workers(
    function: Callable[..., None],
    tasks: Sequence[tuple],
    processes: int,
    on_progress: Callable[[Any], None],
    *,
    on_death: Callable[[tuple, str], Iterable[tuple]] | None = None,
    environments: Sequence[Mapping[str, str]] = ({},),
) -> None:
    """Call ``function(*task, report)`` for every task; what is given to ``report`` comes out at `on_progress`.

    function:     a function of a module, so that another process finds it
    on_death:     given the task of a process that was killed, and why, returns the tasks to do in its stead, by a
                  process that takes its place. Without it that is an error.
    environments: variables to set in the processes; they take turns where there are fewer

    Raises:
        ZeroFlowError: one of a task, or a process was killed. Then the others are stopped.
        RuntimeError: any other exception of a task, with its traceback.
    """
    waiting = list(reversed(tasks))
    workers: dict[Connection, _Worker] = {}

    def start(environment: Mapping[str, str]) -> None:
        connection, process = _start(environment)
        workers[connection] = _Worker(process, environment)
        give(connection)

    def give(connection: Connection) -> None:
        task = workers[connection].task = waiting.pop()
        with suppress(ConnectionError):  # it died; the next look at it tells
            connection.send((function, task))

    def replace(connection: Connection) -> None:
        dead = workers.pop(connection)
        connection.close()
        waiting.extend(reversed(list(on_death(dead.task, _cause_of_death(dead.process, processes)))))
        if waiting:
            start(dead.environment)

    ended: list[_Worker] = []
    try:
        for k in range(min(processes, len(waiting))):
            start(environments[k % len(environments)])
        while workers:
            for connection in wait(list(workers)):
                try:
                    kind, content = connection.recv()
                except (EOFError, OSError) as error:
                    if on_death is None:
                        raise ZeroFlowError(_cause_of_death(workers[connection].process, processes)) from error
                    replace(connection)
                    continue
                if kind == "progress":
                    on_progress(content)
                elif kind == "mistake":
                    raise ZeroFlowError(content)
                elif kind == "bug":
                    raise RuntimeError(f"in a worker process:\n{content}")
                elif waiting:
                    give(connection)
                else:
                    connection.close()  # which ends it
                    ended.append(workers.pop(connection))
    except BaseException:
        for connection, worker in workers.items():
            connection.close()
            worker.process.terminate()
        raise
    finally:
        _wait_for(worker.process for worker in [*ended, *workers.values()])


def _start(environment: Mapping[str, str]) -> tuple[Connection, subprocess.Popen]:
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
