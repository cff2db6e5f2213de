"""One kind of distillation, as the training loop sees it: samples, a student, a loss, and what tells a good student.

Scene flow is the one there is (scene_flow.py). Another, such as image features for a LiDAR backbone, is another class
with these members; the loop, its checkpoints, its resuming and its processes stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor, nn
from torch.utils.data import Dataset

from zeroflow_core.distillation.training.batches import Order

Weights = dict[str, Tensor]
"""A student's state dict."""


class Task(Protocol):
    """
    student:  the module that learns; called with a part of a batch, it gives what `loss` takes. Its state dict is what
              checkpoints hold
    samples:  gives a sample for each visit of the order
    order:    of the visits
    identity: plain data that tells this task from any other: a run is only resumed by the same one
    """

    student: nn.Module
    samples: Dataset
    order: Order
    identity: dict[str, Any]

    def collate(self, samples: list) -> Sequence:
        """A batch from samples, in the process that loads them."""
        ...

    def parameter_groups(self) -> list[dict]:
        """The student's parameters as groups for the optimiser, each with ``rate``: its learning rate as a multiple."""
        ...

    def loss(self, answers: Any, part: Sequence, done: float) -> Tensor:
        """Sum of the losses of the samples in `part` of a batch; `done` is the share of all steps that is over."""
        ...

    def after_step(self) -> None:
        """Called when the optimiser has changed the student."""
        ...

    def validate(self, weights: Weights) -> dict[str, float | None]:
        """Figures of a student with these weights, by name; None where there is nothing to tell them by."""
        ...

    def score(self, figures: dict[str, float | None]) -> float:
        """What of the figures is to become as small as possible."""
        ...
