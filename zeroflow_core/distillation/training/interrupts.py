"""Ctrl-C, where it would come between changes that belong together."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupted_later() -> Iterator[None]:
    """Ctrl-C inside the block interrupts when the block is over; a second one interrupts at once.

    In another thread than the main one, which is never interrupted, it does nothing.

    Raises:
        KeyboardInterrupt: at the end, or what else the program has Ctrl-C do.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def ask(*_: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if asked:
            signal.raise_signal(signal.SIGINT)
