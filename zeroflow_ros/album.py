"""Moments kept on disk while something runs, to be drawn when it no longer needs the processors."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

from zeroflow_core.moments import Moment

MOST = 300  # moments, some 2.5 MB each: half a minute at 10 Hz


class Album:
    """The first moments, up to MOST of them. Not for two threads at once.

    folder: exists, and is somebody else's to remove
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, moment: Moment) -> None:
        """Keep it, if there is room."""
        if self._count < MOST:
            with open(self._file(self._count), "wb") as file:
                pickle.dump(moment, file, protocol=pickle.HIGHEST_PROTOCOL)
            self._count += 1

    def __iter__(self) -> Iterator[Moment]:
        for number in range(self._count):
            with open(self._file(number), "rb") as file:
                yield pickle.load(file)

    def _file(self, number: int) -> Path:
        return self._folder / f"{number:04d}.moment"
