"""Tasks spread over processes, in whatever order they get done."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.workers import process


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
        connection, started = process.start(environment)
        workers[connection] = _Worker(started, environment)
        give(connection)

    def give(connection: Connection) -> None:
        task = workers[connection].task = waiting.pop()
        with suppress(ConnectionError):  # it died; the next look at it tells
            connection.send((function, task))

    def replace(connection: Connection) -> None:
        dead = workers.pop(connection)
        connection.close()
        waiting.extend(reversed(list(on_death(dead.task, process.cause_of_death(dead.process, processes)))))
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
                        raise ZeroFlowError(process.cause_of_death(workers[connection].process, processes)) from error
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
        process.wait_for(worker.process for worker in [*ended, *workers.values()])
