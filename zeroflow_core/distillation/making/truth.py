"""The simulation's own flow in the layout of a teacher's labels: what a student learns from that is the upper bound of
what any teacher could teach it. Nothing that ships has learned from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from zeroflow_core.datasets.av2 import Log
from zeroflow_core.datasets.pseudo_labels import PseudoLabels, label_folders
from zeroflow_core.datasets.stored_flow import write_stored_flow
from zeroflow_core.distillation.pairs import choose_pairs
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.truth import read_truth
from zeroflow_core.files import remove_unfinished
from zeroflow_core.simulation.log import read_velocity

METHOD = "truth"  # in the folders' names


def write_truth(
    logs: Sequence[Path], split: str, out: Path, on_pair: Callable[[int], None] = lambda done: None
) -> PseudoLabels:
    """Write the flow of every pair of simulated logs in both directions; what is there is kept.

    on_pair: called with how many pairs are done

    Raises:
        ZeroFlowError: a log that is not simulated, or the file system refuses.
    """
    labels = label_folders(out, split, METHOD)
    remove_unfinished(out)
    pairs, log = choose_pairs(logs), None
    for done, pair in enumerate(pairs):
        on_pair(done)
        if log is None or log.path != pair.log:
            log = Log(pair.log)
        first_ns, second_ns = (int(log.stamps_ns[k]) for k in (pair.index, pair.index + 1))
        forward, reverse = (
            folder / log.log_id / f"{stamp}.feather"
            for folder, stamp in ((labels.forward, first_ns), (labels.reverse, second_ns))
        )
        if not (forward.is_file() and reverse.is_file()):
            _write(log, pair.index, forward, reverse)
    on_pair(len(pairs))
    return labels


def _write(log: Log, i: int, forward: Path, reverse: Path) -> None:
    first_ns, second_ns = (int(log.stamps_ns[k]) for k in (i, i + 1))
    velocity = read_velocity(log.path, second_ns)
    if velocity is None:
        raise ZeroFlowError(f"the log {log.path} is not simulated: it does not say how its points move")
    truth = read_truth(log, i).scene_flow
    backward = velocity * np.float32((first_ns - second_ns) * 1e-9)
    known = np.isfinite(backward).all(axis=1)
    write_stored_flow(reverse, np.nan_to_num(backward), known)
    write_stored_flow(forward, truth.residual, truth.is_valid)
