"""Labels that a teacher made, on disk: the published ones, and those of `zeroflow distill label`.

Forward labels lie in ``<split>_<method>_flow_feather/<log>/<stamp of the pair's first sweep>.feather``. Where the
teacher gives both directions, the backward ones lie in a sibling folder, ``…_feather_reverse/<log>/<stamp of the
pair's second sweep>.feather``. Points are joined to labels by their row, ground included; see stored_flow.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zeroflow_core.datasets.av2 import Log
from zeroflow_core.datasets.stored_flow import StoredFlows
from zeroflow_core.errors import ZeroFlowError

REVERSE = "_reverse"  # at the end of a folder's name
_FEATHER = "_flow_feather"


@dataclass(frozen=True)
class PseudoLabels:
    """Folders ``<log>/<digits>.feather`` with the labels of pairs of consecutive sweeps.

    forward: of the first sweep's points, towards the second
    reverse: of the second sweep's points, towards the first; None where there are none, as in the published sets
    """

    forward: Path
    reverse: Path | None = None

    def has(self, log: Log, i: int) -> bool:
        """Whether the pair of sweeps `i` and `i` + 1 has labels, in both directions where there is a reverse folder.

        Raises:
            ZeroFlowError: there is no such folder at all.
        """
        return all(stored.has(log, i) for stored in self._stored())

    def files(self, log: Log, i: int) -> list[Path]:
        """The files with the labels of the pair of sweeps `i` and `i` + 1, those that are there."""
        return [path for path in (stored.find(log, i) for stored in self._stored()) if path is not None]

    def read(self, log: Log, i: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Labels of the pair of sweeps `i` and `i` + 1: residual flow in metres over the pair, NaN where there is none.

        Returns (N0,3) float32 of sweep `i`'s points in its vehicle frame, and (N1,3) float32 of sweep `i` + 1's points
        towards sweep `i`, in *its own* vehicle frame; None in place of that without a reverse folder.

        Raises:
            ZeroFlowError: no such file, a damaged one, or one of another sweep.
        """
        forward, *reverse = (stored.read(log, i)[0] for stored in self._stored())
        return forward, reverse[0] if reverse else None

    def _stored(self) -> list[StoredFlows]:
        stored = [StoredFlows(self.forward)]
        return stored if self.reverse is None else [*stored, StoredFlows(self.reverse, reverse=True)]


def label_folders(out: Path, split: str, method: str) -> PseudoLabels:
    """Where the labels of a split lie in `out`; Fast NSF has no backward flow, so no reverse ones."""
    forward = out / f"{split}_{method}{_FEATHER}"
    return PseudoLabels(forward, None if method == "fastnsf" else forward.with_name(forward.name + REVERSE))


def find_pseudo_labels(path: Path) -> PseudoLabels:
    """The labels at `path`: a folder ``<log>/<digits>.feather``, with its sibling ``…_reverse`` where there is one; or
    a folder that holds one such set, as `zeroflow distill label` leaves behind.

    Raises:
        ZeroFlowError: there is no such folder, no set in it, or several.
    """
    if not path.is_dir():
        raise ZeroFlowError(f"there is no folder {path}; give the one that holds <log>/<digits>.feather")
    forward = path
    if not _is_set(path):
        sets = sorted(folder for folder in path.glob(f"*{_FEATHER}") if folder.is_dir())
        if not sets:
            raise ZeroFlowError(
                f"{path} holds no labels, neither <log>/<digits>.feather nor <split>_<method>{_FEATHER}/; give the "
                "folder that zeroflow distill label wrote, or that was downloaded"
            )
        if len(sets) > 1:
            raise ZeroFlowError(f"{path} holds several sets of labels; give one of them, such as {sets[0]}")
        forward = sets[0]
    reverse = forward.with_name(forward.name + REVERSE)
    return PseudoLabels(forward, reverse if reverse.is_dir() else None)


def _is_set(path: Path) -> bool:
    return any(file.stem.isdecimal() for file in path.glob("*/*.feather"))
