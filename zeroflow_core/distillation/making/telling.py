"""How far the making is, for whoever watches; and its end when time is over."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from zeroflow_core.evaluation.wording import time_taken


@dataclass(frozen=True)
class Stage:
    """How far a stage is: done, of `total` (None: nobody knows); note: what else there is to say."""

    name: str
    done: int
    total: int | None
    note: str = ""


class OutOfTime(Exception):
    """The minutes that were given are over, and something is left to do."""


class Telling:
    """
    on_progress: called with how far a stage is
    on_line:     called with a line on what is complete
    minutes:     after which progress ends in OutOfTime; None for never

    stage: that is being done
    """

    def __init__(
        self, on_progress: Callable[[Stage], None], on_line: Callable[[str], None], minutes: float | None
    ) -> None:
        self._on_progress, self._on_line, self.stage = on_progress, on_line, ""
        self._end = float("inf") if minutes is None else time.monotonic() + 60 * minutes
        self._start = time.monotonic()

    def begin(self, stage: str) -> None:
        self.stage, self._start = stage, time.monotonic()

    def progress(self, done: int, total: int | None, note: str = "") -> None:
        """
        Raises:
            OutOfTime: time is over, and the stage is not.
        """
        self._on_progress(Stage(self.stage, done, total, note))
        if time.monotonic() > self._end and done != total:
            raise OutOfTime

    def line(self, text: str) -> None:
        self._on_line(text)

    @property
    def took(self) -> str:
        """By the stage, so far."""
        return time_taken(time.monotonic() - self._start)
