"""What the teacher's networks cost: their arithmetic, what this device does of it at best, and a whole dataset's."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

AV2_TRAIN_PAIRS = 109_371  # of AV2 Sensor's train split
# ZeroFlow (arXiv 2305.10424): what its recipe trains on, what labelling AV2 took its authors, the speed of the teacher
# in its abstract, and that of table 1.
PAPER_PAIRS = 100_800
PAPER_HOURS, PAPER_GPU, PAPER_T4_S = 753.0, "T4", 25.8
PAPER_PAIRS_PER_S = 0.028
PAPER_V100_S = 26.3

_SIZE, _GPU_SIZE = 2048, 8192  # rows of the matrices whose product is timed: large enough to keep a device busy
_LEAST_S, _LEAST_TIMES = 1.0, 3  # seconds and repetitions that it is timed for


def flops_per_iteration(method: str, points: int) -> int:
    """Floating-point operations of the networks in one iteration on `points` points, forward and backward.

    A multiplication and an addition count as two; biases, activations, the loss and the optimiser are left out, and
    so is whatever an engine computes twice.

    method: ``nsfp`` (a network there, and one back that takes what the first one moved) or ``fastnsf`` (the first only)
    """
    there = _flops_per_point(moved=False)
    return points * (there + _flops_per_point(moved=True) if method == "nsfp" else there)


def _flops_per_point(*, moved: bool) -> int:
    """moved: the network's input depends on parameters, so that its gradient is needed, too."""
    from zeroflow_core.nsfp.network import HIDDEN_LAYERS, WIDTH

    sizes = [3, *[WIDTH] * HIDDEN_LAYERS, 3]
    products = [inputs * outputs for inputs, outputs in zip(sizes, sizes[1:], strict=False)]
    forward = by_weights = sum(products)
    by_inputs = sum(products if moved else products[1:])
    return 2 * (forward + by_weights + by_inputs)


def matmul_rate(precision: str, device: str) -> float:
    """Floating-point operations a second of a product of large square matrices: what the device does at best.

    precision: ``fp32``, ``tf32`` or ``bf16``
    """
    import torch

    size, at_once = (_SIZE, 1) if device == "cpu" else (_GPU_SIZE, 4)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        taken = [_seconds(lambda: a @ b, at_once, device)]  # the first one warms up
        start = perf_counter()
        while len(taken) <= _LEAST_TIMES or perf_counter() - start < _LEAST_S:
            taken.append(_seconds(lambda: a @ b, at_once, device))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed
    return 2 * size**3 * at_once / min(taken[1:])


def _seconds(work: Callable[[], object], times: int, device: str) -> float:
    import torch

    start = perf_counter()
    for _ in range(times):
        work()
    if device != "cpu":
        torch.cuda.synchronize(device)
    return perf_counter() - start


def hours(pairs: int, pairs_per_s: float) -> float:
    """Of one machine, for so many pairs at this rate."""
    return pairs / pairs_per_s / 3600
