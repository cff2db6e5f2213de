"""Threads that share out the pieces of one step after another, each with a core to itself."""

from __future__ import annotations

import itertools
import os
import queue
import threading
import weakref
from collections.abc import Callable
from typing import Any

import torch


class Threads:
    """`count` threads. torch computes with one thread inside each of them, whatever its setting elsewhere: pieces are
    small, and two pools of threads on the same cores would wait for each other.

    The first of them conducts: what `call` gives it may `run` pieces, on all of them. So Ctrl-C, which only the main
    thread hears, ends a wait and never a piece.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._shared = _Shared(self.count - 1)
        before = torch.get_num_threads()
        works = [(_conduct, (self._shared,))] + [(_help, (self._shared, k)) for k in range(self.count - 1)]
        threads = [
            threading.Thread(target=work, args=arguments, daemon=True, name=f"flow-{k}")
            for k, (work, arguments) in enumerate(works)
        ]
        for thread in threads:
            thread.start()
        for _ in works:
            self._shared.ready.acquire()
        torch.set_num_threads(before)  # the threads changed what threads born later begin with
        weakref.finalize(self, _stop, self._shared, threads)

    def call(self, function: Callable[[], Any]) -> Any:
        """What the function returns or raises; it is called by the conductor, after those given before it."""
        if os.getpid() != self._process:  # a fork takes no threads along
            self._start()
        call = _Call(function)
        self._shared.calls.put(call)
        call.finished.acquire()
        if call.error is not None:
            raise call.error
        return call.result

    def run(self, piece: Callable[[int, int], None], pieces: int) -> None:
        """Inside a call: piece(i, thread) for i = 0 … pieces − 1, each once, in any order; returns when all are done.

        Raises what a piece raised first. The others' are lost, and pieces not yet begun are left out.
        """
        self._shared.run(piece, pieces)


class _Call:
    """A function on its way to the conductor and back."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.finished = _closed()
        self.result: Any = None
        self.error: BaseException | None = None


class _Shared:
    """What the threads know of; not Threads, which would then live for ever."""

    def __init__(self, helpers: int) -> None:
        self.calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self.ready = threading.Semaphore(0)
        # Locks as signals: Python's semaphores take ten times as long, some fifty times for each pair.
        self.starts = [_closed() for _ in range(helpers)]
        self.dones = [_closed() for _ in range(helpers)]
        self.piece: Callable[[int, int], None] | None = None
        self.numbers = itertools.count()
        self.pieces = 0
        self.error: BaseException | None = None
        self.stopped = False

    def run(self, piece: Callable[[int, int], None], pieces: int) -> None:
        self.piece, self.pieces, self.error, self.numbers = piece, pieces, None, itertools.count()
        needed = max(0, pieces - 1)
        for start in self.starts[:needed]:
            start.release()
        self.take_part(0)
        for done in self.dones[:needed]:
            done.acquire()
        self.piece, error, self.error = None, self.error, None
        if error is not None:
            raise error
        if self.stopped:
            raise RuntimeError("the program ends while flow is computed")

    def take_part(self, thread: int) -> None:
        try:
            for i in self.numbers:
                if i >= self.pieces or self.error is not None or self.stopped:
                    break
                self.piece(i, thread)
        except BaseException as error:  # told to whoever asked for the work
            if self.error is None:
                self.error = error


def _conduct(shared: _Shared) -> None:
    torch.set_num_threads(1)
    shared.ready.release()
    with torch.inference_mode():
        while (call := shared.calls.get()) is not None:
            try:
                call.result = call.function()
            except BaseException as error:  # told to whoever called
                call.error = error
            finished = call.finished
            call = None  # else what it knows of lives until the next one
            finished.release()
    shared.piece = None
    for start in shared.starts:
        start.release()


def _help(shared: _Shared, k: int) -> None:
    torch.set_num_threads(1)
    shared.ready.release()
    with torch.inference_mode():
        while True:
            shared.starts[k].acquire()
            if shared.piece is None:
                return
            shared.take_part(k + 1)
            shared.dones[k].release()


def _stop(shared: _Shared, threads: list[threading.Thread]) -> None:
    """At the latest when the program ends: a thread that is still inside torch then would abort it."""
    shared.stopped = True
    shared.calls.put(None)
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join(timeout=5)  # seconds; a piece takes milliseconds


def _closed() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock
