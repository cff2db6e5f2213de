"""What is finished of a log, one line a pair, so that a run goes on after a kill at any moment."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zeroflow_core.errors import ZeroFlowError

Record = dict[str, Any]
"""One pair: log, index, stamp_ns, and either dt, seconds and tallies, or error."""


class Journal:
    """A file of records that only grows. A line that a kill cut short is forgotten.

    Raises:
        ZeroFlowError: the file can't be read or written, or holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def records(self) -> Iterator[Record]:
        """The last record of every pair, in the order of the pairs."""
        if not self.path.exists():
            return
        try:
            with open(self.path, "rb") as file:
                # Twice through the file, one line in memory at a time: a log's records can be large.
                places: dict[int, int] = {}
                for place, line in _whole_lines(file):
                    places[json.loads(line)["index"]] = place
                for _, place in sorted(places.items()):
                    file.seek(place)
                    yield json.loads(file.readline())
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ZeroFlowError(f"{self.path} is not a journal of an evaluation ({error}); remove it") from error

    def finished(self) -> set[int]:
        """Indices of the pairs that have been done and did not fail."""
        return {record["index"] for record in self.records() if "error" not in record}

    def append(self, record: Record) -> None:
        """Add a record; whole or, to every later reader, not at all."""
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab+") as file:
                end = file.seek(0, os.SEEK_END)
                if end:
                    file.seek(end - 1)
                    if file.read(1) != b"\n":
                        file.truncate(_end_of_last_line(file))
                file.write(line)
        except OSError as error:
            raise ZeroFlowError(f"cannot write {self.path}: {error.strerror or error}") from error


def _whole_lines(file) -> Iterator[tuple[int, bytes]]:
    """(position, line) of every line that has an end."""
    place = 0
    for line in file:
        if line.endswith(b"\n"):
            yield place, line
        place += len(line)


def _end_of_last_line(file) -> int:
    file.seek(0)
    return max((place + len(line) for place, line in _whole_lines(file)), default=0)
