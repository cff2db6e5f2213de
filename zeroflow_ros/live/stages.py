"""Threads that hand work on to one another and never let it pile up: of what waits, only the newest stays."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """A queue of one between two threads."""

    def __init__(self) -> None:
        self._waiting: list[T] = []
        self._closed = False
        self._news = threading.Condition()

    def put(self, item: T) -> T | None:
        """Returns what had to go for it: the item that waited, or this one itself when the queue is closed."""
        with self._news:
            if self._closed:
                return item
            pushed_out = self._waiting.pop() if self._waiting else None
            self._waiting.append(item)
            self._news.notify()
        return pushed_out

    def take(self) -> T | None:
        """The item, as soon as there is one; None once the queue is closed."""
        with self._news:
            self._news.wait_for(lambda: self._waiting or self._closed)
            return None if self._closed else self._waiting.pop()

    def close(self) -> T | None:
        """Returns what still waited."""
        with self._news:
            self._closed = True
            self._news.notify_all()
            return self._waiting.pop() if self._waiting else None


class Stage(Generic[T]):
    """A thread that handles one item after another.

    handle:  called in the thread; must not raise
    dropped: called with each item that gave way to a newer one, or came too late to be handled; in the thread of
             whoever put the newer one, or stopped the stage
    """

    def __init__(self, name: str, handle: Callable[[T], None], dropped: Callable[[T], None]) -> None:
        self._queue: Latest[T] = Latest()
        self._handle, self._dropped = handle, dropped
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        pushed_out = self._queue.put(item)
        if pushed_out is not None:
            self._dropped(pushed_out)

    def stop(self) -> None:
        """Take nothing more; what is being handled goes on."""
        left = self._queue.close()
        if left is not None:
            self._dropped(left)

    def join(self, patience: float) -> bool:
        """Whether what was being handled has ended, within `patience` seconds."""
        self._thread.join(patience)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (item := self._queue.take()) is not None:
            self._handle(item)
