"""Two clouds → flow on a CPU: pillars, encoder, decoder, head."""

from __future__ import annotations

import os
from contextlib import suppress

import numpy as np
import torch

from zeroflow_core.fastflow3d.config import FastFlow3DConfig
from zeroflow_core.fastflow3d.engine.cpu import kernels
from zeroflow_core.fastflow3d.engine.cpu.decoder import WINDOW_ROWS, Decoder
from zeroflow_core.fastflow3d.engine.cpu.encoder import Encoder
from zeroflow_core.fastflow3d.engine.cpu.pillars import Pillars
from zeroflow_core.fastflow3d.engine.cpu.products import ROWS, Products
from zeroflow_core.fastflow3d.engine.cpu.threads import Threads
from zeroflow_core.fastflow3d.engine.fold import Folded, fold
from zeroflow_core.fastflow3d.model import FastFlow3D

_MOST_THREADS = 16
_KERNELS = 20  # more than there are


class CpuEngine:
    """Keeps the last two clouds it has encoded: one that comes again, bit for bit, is not encoded again.

    Any thread may call; calls wait for each other. It can't be copied or pickled.

    flops: floating-point operations of the last call's matrix products
    """

    keeps_clouds = True
    bytes_moved = None

    def __init__(self, model: FastFlow3D, precision: str, device: str = "cpu") -> None:
        """precision: 'fp32', or 'bf16': maps, factors and products in bfloat16. Uses as many threads as torch, but no
        more than 16: a step has few pieces."""
        with torch.autocast("cpu", enabled=False):
            folded = fold(model)
            self._threads = Threads(min(torch.get_num_threads(), _MOST_THREADS))
            self._products = Products(self._threads, precision, _room(folded))
            self._pillars = Pillars(folded)
            self._encoder = Encoder(folded, self._products)
            self._decoder = Decoder(folded, self._products)
        self._by_offset = np.ascontiguousarray(folded.offsets.T.numpy())
        self._out_weight = np.ascontiguousarray(folded.out_weight.T.numpy())
        self._out_bias = folded.out_bias.numpy()
        self._process = os.getpid()
        self.flops = 0
        self._compile(folded.config)

    def flow(self, pc0: np.ndarray | torch.Tensor, pc1: np.ndarray | torch.Tensor) -> np.ndarray | torch.Tensor:
        """(N0,3), (N1,3), metres → (N0,3) float32, metres, NaN for points outside the grid or not finite."""
        clouds = [_as_array(cloud) for cloud in (pc0, pc1)]
        flow = self._threads.call(lambda: self._flow(*clouds))
        return flow if isinstance(pc0, np.ndarray) else torch.from_numpy(flow)

    def _flow(self, pc0: np.ndarray, pc1: np.ndarray) -> np.ndarray:
        if os.getpid() != self._process:  # forked, perhaps in the middle of a pair
            self._forget_all()
            self._process = os.getpid()
        self._products.flops = 0
        try:
            slot0, slot1 = self._encode(pc0, pc1)
            sums = self._decoder.decode(self._pillars, self._encoder, slot0, slot1)
            flow = self._head(slot0, sums)
        except BaseException:
            self._forget_all()
            raise
        self.flops = self._products.flops
        return flow

    def _forget_all(self) -> None:
        self._pillars.forget_all()
        self._encoder.forget_all()

    def _compile(self, config: FastFlow3DConfig) -> None:
        """Have everything that is compiled at first use compiled now, not when the first sweep waits for it."""
        point = np.add(config.minimum, config.maximum, dtype=np.float32)[None] / 2
        for _ in range(_KERNELS):
            # Numba raises where what it has compiled can't be kept, on a full disk, but it has compiled it.
            with suppress(OSError):
                self.flow(point, point)
                break
        self._threads.call(self._forget_all)
        self.flops = 0

    def _encode(self, pc0: np.ndarray, pc1: np.ndarray) -> tuple[int, int]:
        """Slots of the two clouds, each encoded unless it is there already."""
        pillars = self._pillars
        slots = [pillars.slot_of(pc0), pillars.slot_of(pc1)]
        new = []
        for which, cloud in enumerate((pc0, pc1)):
            if slots[which] is None:
                same = which == 1 and _same(pc0, pc1)
                taken = slots[1 - which]
                slots[which] = slots[0] if same else (1 - taken if taken is not None else 0)
                if not same:
                    new.append((slots[which], cloud))
        if new:
            pillars.make_room(max(len(pc0), len(pc1)))
            for slot, _ in new:
                pillars.forget(slot)
            self._threads.run(lambda i, thread: pillars.put(*new[i]), len(new))
            self._encoder.encode(pillars, [slot for slot, _ in new])
        return slots[0], slots[1]

    def _head(self, slot: int, sums: np.ndarray) -> np.ndarray:
        kept = self._pillars.slots[slot]
        points = len(kept.cloud)
        flow = np.empty((points, 3), np.float32)
        share = 4096

        def piece(i: int, thread: int) -> None:
            last = min(points, (i + 1) * share)
            kernels.head(
                kept.pillar_of, kept.offsets, sums, self._by_offset, self._out_weight, self._out_bias, i * share, last,
                flow,
            )  # fmt: skip

        self._threads.run(piece, -(-points // share))
        return flow


def _as_array(cloud: np.ndarray | torch.Tensor) -> np.ndarray:
    array = cloud if isinstance(cloud, np.ndarray) else cloud.detach().cpu().numpy()
    with np.errstate(over="ignore"):  # too far for float32 is outside the grid, too
        return np.ascontiguousarray(array, dtype=np.float32)


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and np.array_equal(a.view(np.uint32), b.view(np.uint32))


def _room(folded: Folded) -> int:
    """Numbers of the largest factor or product of a piece."""
    convolutions = [conv for stage in folded.encoder for conv in stage]
    widths = [(36 if conv.stride == 1 else 9) * max(conv.weight.shape[:2]) for conv in convolutions]
    widths += [36 * max(level.join.weight.shape[:2]) for level in folded.levels]
    window = 25 * folded.levels[-1].coarse.weight.shape[0] + 49 * 2 * folded.config.channels
    return max(ROWS * max(widths), WINDOW_ROWS * window)
