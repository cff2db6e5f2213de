"""Threads that share out the pieces of one step after another, each with a core to itself."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress

import torch


class Threads:
    """`count` threads. torch computes with one thread inside each of them, whatever its setting elsewhere: pieces are
    small, and two pools of threads on the same cores would wait for each other."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._shared = _Shared(count)
        before = torch.get_num_threads()
        threads = [
            threading.Thread(target=_work, args=(self._shared, k), daemon=True, name=f"flow-{k}") for k in range(count)
        ]
        for thread in threads:
            thread.start()
        self._shared.wait()
        torch.set_num_threads(before)  # the threads changed what threads born later begin with
        self._finalizer = weakref.finalize(self, self._shared.stop)

    def run(self, piece: Callable[[int, int], None], pieces: int) -> None:
        """Call piece(i, worker) for i = 0 … pieces − 1, each once, in any order; return when all are done.

        Raises whatever a piece raised first.
        """
        if pieces:
            self._shared.run(piece, pieces)


class _Shared:
    """What the threads know of; not Threads, which would then live for ever."""

    def __init__(self, count: int) -> None:
        # Locks as signals: Python's semaphores take ten times as long, some fifty times for each pair.
        self.starts = [_closed() for _ in range(count)]
        self.dones = [_closed() for _ in range(count)]
        self.piece: Callable[[int, int], None] | None = None
        self.numbers = itertools.count()
        self.pieces = 0
        self.error: BaseException | None = None

    def run(self, piece: Callable[[int, int], None], pieces: int) -> None:
        self.piece, self.pieces, self.error, self.numbers = piece, pieces, None, itertools.count()
        for start in self.starts:
            start.release()
        self.wait()
        self.piece, error, self.error = None, self.error, None
        if error is not None:
            raise error

    def wait(self) -> None:
        interrupted: BaseException | None = None
        for done in self.dones:
            while True:
                try:
                    done.acquire()
                    break
                except BaseException as error:  # Ctrl-C: the threads still have to come to an end
                    self.error = interrupted = error
        if interrupted is not None:
            raise interrupted

    def stop(self) -> None:
        self.piece = None
        for start in self.starts:
            with suppress(RuntimeError):  # released already
                start.release()


def _closed() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


def _work(shared: _Shared, worker: int) -> None:
    torch.set_num_threads(1)
    with torch.inference_mode():
        while True:
            shared.dones[worker].release()
            shared.starts[worker].acquire()
            piece = shared.piece
            if piece is None:
                return
            try:
                for i in shared.numbers:
                    if i >= shared.pieces or shared.error is not None:
                        break
                    piece(i, worker)
            except BaseException as error:  # told to whoever asked for the work
                shared.error = error
            piece = None
