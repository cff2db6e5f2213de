"""Flow in files, in the layout of the published pseudo-labels: ``<folder>/<log>/<digits>.feather``.

One file a pair, one row a point of the first sweep, ground included: is_valid (bool), flow_tx_m, flow_ty_m,
flow_tz_m (float32: residual flow in metres, in the first sweep's vehicle frame). Flow backward in time is stored the
same way, with the second sweep in the first one's place.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from zeroflow_core.datasets.av2 import FLOW, Log, Table
from zeroflow_core.datasets.av2_writer import as_feather
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.files import new_file


def write_stored_flow(path: Path, residual: np.ndarray, is_valid: np.ndarray) -> None:
    """Write the flow of one pair; the file appears complete or not at all, over one that is there.

    residual: (N,3) metres, in the first sweep's vehicle frame; stored as 0 where not valid
    is_valid: (N,) bool

    Raises:
        ZeroFlowError: the file system refuses.
    """
    residual = np.where(is_valid[:, None], residual, 0).astype(np.float32)
    flow = {name: residual[:, axis] for axis, name in enumerate(FLOW)}
    write_whole_table(path, {"is_valid": is_valid.astype(np.bool_), **flow})


def read_stored_flow(path: Path, num_points: int) -> tuple[np.ndarray, np.ndarray]:
    """Residual flow (N,3) float32 in metres, NaN where not valid, and validity (N,) bool.

    num_points: how many the sweep has; the file must have as many rows

    Raises:
        ZeroFlowError: the file is missing, damaged, of another layout, or of another sweep.
    """
    if not path.is_file():
        raise ZeroFlowError(f"there is no stored flow {path}; make it, or get it again")
    table = Table(path)
    if len(table) != num_points:
        raise ZeroFlowError(
            f"{path} holds flow for {len(table)} points, but the sweep has {num_points}; it was made from another "
            "cloud: make it from this log, with all points of the sweep, ground included"
        )
    is_valid = table.column("is_valid", np.bool_)
    residual = table.columns(FLOW, np.float32)
    return np.where(is_valid[:, None], residual, np.float32(np.nan)), is_valid


class StoredFlows:
    """A folder of stored flows, ``<folder>/<log>/<digits>.feather``, one file a pair of consecutive sweeps.

    folder:  where they are
    reverse: they are of the points of each pair's second sweep, towards the first, and in its vehicle frame

    Raises:
        ZeroFlowError: there is no such folder.
    """

    def __init__(self, folder: Path, *, reverse: bool = False) -> None:
        if not folder.is_dir():
            raise ZeroFlowError(f"there is no folder {folder}; give the one that holds <log>/<digits>.feather")
        self._folder = folder
        self._reverse = reverse

    def has(self, log: Log, i: int) -> bool:
        """Whether there is a file for the pair of sweeps `i` and `i` + 1, by its name; see `read`."""
        return self.find(log, i) is not None

    def read(self, log: Log, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Flow of the pair of sweeps `i` and `i` + 1, as of read_stored_flow.

        Its file is named by the stamp of the sweep whose points it is of. Published files are numbered instead: where
        none is named by a stamp of the log and there is one for each of its pairs, it is number `i` of them.

        Raises:
            ZeroFlowError: no such file, or see read_stored_flow.
        """
        path = self.find(log, i)
        if path is None:
            raise ZeroFlowError(self._what_is_missing(log, i))
        return read_stored_flow(path, len(log.sweep(self._sweep(i))))

    def _sweep(self, i: int) -> int:
        return i + 1 if self._reverse else i

    def find(self, log: Log, i: int) -> Path | None:
        """The file of the pair of sweeps `i` and `i` + 1, by its name; None where there is none. See `read`."""
        named = self._folder / log.log_id / f"{log.stamps_ns[self._sweep(i)]}.feather"
        if named.is_file():
            return named
        files, stamps = self._files(log), [int(stamp) for stamp in log.stamps_ns]
        if stamps[self._sweep(i)] in files:
            return files[stamps[self._sweep(i)]]
        numbered = len(files) == len(stamps) - 1 and files.keys().isdisjoint(stamps)
        return files[sorted(files)[i]] if numbered else None

    def _files(self, log: Log) -> dict[int, Path]:
        files = (self._folder / log.log_id).glob("*.feather")
        return {int(file.stem): file for file in files if file.stem.isdecimal()}

    def _what_is_missing(self, log: Log, i: int) -> str:
        folder, stamp = self._folder / log.log_id, log.stamps_ns[self._sweep(i)]
        if not folder.is_dir():
            return f"{self._folder} has no folder {log.log_id}: it holds no flow for that log"
        return (
            f"{folder} has no flow for sweep {stamp}: neither {stamp}.feather nor {len(log) - 1} numbered files, "
            f"one for each pair of the log; it holds {len(self._files(log))} files named by digits"
        )


def write_whole_table(path: Path, columns: dict[str, np.ndarray]) -> None:
    """A feather file with these columns, (N,) each, that appears complete or not at all.

    Raises:
        ZeroFlowError: the file system refuses.
    """
    with new_file(path, "wb") as file:
        file.write(as_feather(columns))
