"""Results of worker processes one by one, in order, while the caller goes on making tasks."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.workers import process

_AHEAD = 2  # results for each process that may wait for an earlier one


def map_in_workers(function: Callable[..., None], tasks: Iterable[tuple], processes: int) -> Iterator[Any]:
    """What ``function(*task, report)`` gives to ``report``, once for each task, in the order of the tasks.

    Tasks are taken from `tasks` one by one, as processes become free: whatever makes them goes on meanwhile, and
    neither tasks nor results pile up. Closing the iterator stops the processes.

    function: a function of a module, so that another process finds it

    Raises:
        ZeroFlowError: one of a task, or a process was killed. Then the others are stopped.
        RuntimeError: any other exception of a task, with its traceback.
    """
    pool = _Pool(function, processes)
    try:
        taken = given = 0
        for task in tasks:
            while not pool.has_room or given - taken > processes * _AHEAD:
                if taken not in pool.results:
                    pool.collect()
                    continue
                yield pool.results.pop(taken)
                taken += 1
            pool.give(given, task)
            given += 1
        while taken < given:
            if taken not in pool.results:
                pool.collect()
                continue
            yield pool.results.pop(taken)
            taken += 1
    except BaseException:
        pool.close(at_once=True)
        raise
    pool.close(at_once=False)


class _Pool:
    """Processes with at most one task each.

    results: those that have come, by the number of their task
    """

    def __init__(self, function: Callable[..., None], processes: int) -> None:
        self._function, self._processes = function, processes
        self._workers: dict[Connection, subprocess.Popen] = {}
        self._at_work: dict[Connection, int] = {}
        self.results: dict[int, Any] = {}

    @property
    def has_room(self) -> bool:
        return len(self._at_work) < self._processes

    def give(self, number: int, task: tuple) -> None:
        connection = next((one for one in self._workers if one not in self._at_work), None)
        if connection is None:
            connection, self._workers[connection] = process.start({})
        try:
            connection.send((self._function, task))
        except ConnectionError as error:
            raise self._death_of(connection) from error
        self._at_work[connection] = number

    def collect(self) -> None:
        """Wait for word of those at work."""
        for connection in wait(list(self._at_work)):
            try:
                kind, content = connection.recv()
            except (EOFError, OSError) as error:
                raise self._death_of(connection) from error
            if kind == "progress":
                self.results[self._at_work[connection]] = content
            elif kind == "done":
                del self._at_work[connection]
            elif kind == "mistake":
                raise ZeroFlowError(content)
            else:
                raise RuntimeError(f"in a worker process:\n{content}")

    def close(self, *, at_once: bool) -> None:
        for connection, worker in self._workers.items():
            connection.close()  # which ends it when it is idle
            if at_once:
                worker.kill()  # it has nothing to clear away
        process.wait_for(self._workers.values())

    def _death_of(self, connection: Connection) -> ZeroFlowError:
        return ZeroFlowError(process.cause_of_death(self._workers[connection], self._processes))
