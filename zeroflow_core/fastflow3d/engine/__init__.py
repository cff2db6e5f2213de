"""The student's fast engine: inference with the weights of `model`, the same answers, a fraction of the work.

`fold` turns the network into what inference needs of it; `cpu` and `cuda` have an engine each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from zeroflow_core.fastflow3d.model import FastFlow3D


class Engine(Protocol):
    """What computes a student's flow.

    keeps_clouds: it knows the clouds of its last call again and saves what it computed of them
    flops:        floating-point operations of the last call's matrix work, 2 for each multiply-add
    bytes_moved:  what its convolutions read and write at least; None where that is not counted
    """

    keeps_clouds: bool
    flops: int
    bytes_moved: int | None

    def __init__(self, model: FastFlow3D, precision: str, device: str) -> None: ...

    def flow(self, pc0: Any, pc1: Any) -> Any:
        """As Student.flow, of clouds whose shapes are right."""
