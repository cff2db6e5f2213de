"""The frames of a log: each sweep with its flow towards the next one, beside what labels say of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np

from zeroflow_core.datasets.av2 import Log
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.methods import Method
from zeroflow_core.evaluation.truth import has_labels, read_truth
from zeroflow_core.ground import mark_ground
from zeroflow_core.pairs import Sweep, make_pair
from zeroflow_core.playback.frames import Frame

_log = logging.getLogger(__name__)


class LogFrames:
    """One frame a pair of consecutive sweeps.

    with_truth: whether labels are read, where there are any
    """

    def __init__(self, log: Log, method: Method, *, with_truth: bool = True) -> None:
        if len(log) < 2:
            raise ZeroFlowError(f"the log {log.path} has one sweep; flow needs two")
        self.name, self.method = f"log {log.log_id}", method.name
        self._source, self._estimator = log, method
        self._with_truth = with_truth and has_labels(log)
        self._rule = method.ground_rule(log)

    def __len__(self) -> int:
        return len(self._source) - 1

    def read(self, indices: Sequence[int]) -> Iterator[Frame]:
        marked: dict[int, Sweep] = {}  # the second sweep of a pair is the first of the next one
        for i in indices:
            marked = {k: marked.get(k) or mark_ground(self._source.sweep(k), self._rule) for k in (i, i + 1)}
            flow = self._estimator.flow(self._source, i, make_pair(marked[i], marked[i + 1]))
            yield Frame(i, marked[i], flow.velocity, self._truth(i))

    def _truth(self, i: int) -> np.ndarray | None:
        if not self._with_truth:
            return None
        try:
            truth = read_truth(self._source, i)
        except ZeroFlowError as why:  # the estimate can be shown all the same
            _log.warning("the truth is not shown: %s", why)
            self._with_truth = False
            return None
        labels = truth.scene_flow
        return np.where(labels.is_valid[:, None], labels.residual / np.float32(truth.dt), np.float32(np.nan))
