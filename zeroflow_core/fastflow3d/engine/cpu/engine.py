"""Two clouds → flow on a CPU: pillars, encoder, decoder, head."""

from __future__ import annotations

import threading

import numpy as np
import torch

from zeroflow_core.fastflow3d.config import FastFlow3DConfig
from zeroflow_core.fastflow3d.engine.cpu import point_kernels
from zeroflow_core.fastflow3d.engine.cpu.decoder import Decoder
from zeroflow_core.fastflow3d.engine.cpu.encoder import Encoder
from zeroflow_core.fastflow3d.engine.cpu.pillars import Pillars
from zeroflow_core.fastflow3d.engine.cpu.products import Products
from zeroflow_core.fastflow3d.engine.cpu.threads import Threads
from zeroflow_core.fastflow3d.engine.fold import Folded, fold
from zeroflow_core.fastflow3d.model import FastFlow3D

_ROWS = 256  # of a piece


class CpuEngine:
    """Keeps the last two clouds it has encoded: one that comes again, bit for bit, is not encoded again.

    flops: floating-point operations of the last call's matrix products
    """

    def __init__(self, model: FastFlow3D, precision: str, device: str = "cpu") -> None:
        """precision: 'fp32', or 'bf16': the factors of matrix products in bfloat16. Uses as many threads as torch."""
        folded = fold(model)
        threads = Threads(torch.get_num_threads())
        self._products = Products(threads, precision, _largest(folded), _ROWS)
        self._pillars = Pillars(folded)
        self._encoder = Encoder(folded, self._products)
        self._decoder = Decoder(folded, self._products)
        self._by_offset = np.ascontiguousarray(folded.offsets.T.numpy())
        self._out_weight = np.ascontiguousarray(folded.out_weight.T.numpy())
        self._out_bias = folded.out_bias.numpy()
        self._lock = threading.Lock()
        self.flops = 0
        self._compile(folded.config)

    def flow(self, pc0: np.ndarray | torch.Tensor, pc1: np.ndarray | torch.Tensor) -> np.ndarray | torch.Tensor:
        """(N0,3), (N1,3), metres → (N0,3) float32, metres, NaN for points outside the grid or not finite."""
        clouds = [_as_array(cloud) for cloud in (pc0, pc1)]
        with self._lock, torch.inference_mode():
            self._products.flops = 0
            slot0, slot1 = self._encode(*clouds)
            sums = self._decoder.decode(self._pillars, self._encoder, slot0, slot1)
            flow = self._head(slot0, sums)
            self.flops = self._products.flops
        return flow if isinstance(pc0, np.ndarray) else torch.from_numpy(flow)

    def _compile(self, config: FastFlow3DConfig) -> None:
        """Have everything that is compiled at first use compiled now, not when the first sweep waits for it."""
        point = np.add(config.minimum, config.maximum, dtype=np.float32)[None] / 2
        self.flow(point, point)
        self._pillars.forget(0)
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
        if not new:
            return slots[0], slots[1]
        pillars.make_room(max(len(pc0), len(pc1)))
        for slot, _ in new:
            pillars.forget(slot)
        try:
            self._products.threads.run(lambda i, worker: pillars.put(*new[i]), len(new))
            self._encoder.encode(pillars, [slot for slot, _ in new])
        except BaseException:  # a slot's cloud and its maps belong together
            for slot, _ in new:
                pillars.forget(slot)
            raise
        return slots[0], slots[1]

    def _head(self, slot: int, sums: np.ndarray) -> np.ndarray:
        kept = self._pillars.slots[slot]
        points = len(kept.cloud)
        flow = np.empty((points, 3), np.float32)
        share = 4096

        def piece(i: int, worker: int) -> None:
            last = min(points, (i + 1) * share)
            point_kernels.head(
                kept.pillar_of, kept.offsets, sums, self._by_offset, self._out_weight, self._out_bias, i * share, last,
                flow,
            )  # fmt: skip

        self._products.threads.run(piece, -(-points // share))
        return flow


def _as_array(cloud: np.ndarray | torch.Tensor) -> np.ndarray:
    array = cloud if isinstance(cloud, np.ndarray) else cloud.detach().cpu().numpy()
    return np.ascontiguousarray(array, dtype=np.float32)


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and np.array_equal(a.view(np.uint32), b.view(np.uint32))


def _largest(folded: Folded) -> int:
    """Elements per row of the largest factor or product."""
    convolutions = [conv for stage in folded.encoder for conv in stage]
    sizes = [
        (36 if conv.stride == 1 else 9) * max(conv.weight.shape[:2]) for conv in convolutions if conv.weight.ndim == 4
    ]
    sizes += [36 * max(level.join.weight.shape[:2]) for level in folded.levels]
    window = 25 * folded.levels[-1].coarse.weight.shape[0] + 49 * 2 * folded.config.channels
    return max(*sizes, -(-window // 2))
