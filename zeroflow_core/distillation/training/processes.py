"""The processes that train together, as torchrun starts them, or one alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Processes:
    """rank: of this process among `world` that train together; device: that it computes on"""

    rank: int
    world: int
    device: str

    @property
    def first(self) -> bool:
        return self.rank == 0


@contextmanager
def processes(device: str) -> Iterator[Processes]:
    """The processes that train together: those that torchrun started, or this one alone.

    device: ``cpu``, or ``cuda``, of which every process takes the one of its local rank
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Processes(0, 1, device)
        return
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    torch.distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield Processes(torch.distributed.get_rank(), world, device)
    finally:
        torch.distributed.destroy_process_group()
