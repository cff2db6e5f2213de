"""The fast engine beside the reference on one pair of clouds: time in turns, memory, arithmetic, and how their answers
differ."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import count, cycle
from time import perf_counter
from typing import Any

import numpy as np
import torch

from zeroflow_core.bench.memory import PeakMemory
from zeroflow_core.bench.student_limits import Limits
from zeroflow_core.bench.student_pairs import CloudPair, occupied_share, points_pair
from zeroflow_core.bench.student_weights import seeded_model
from zeroflow_core.fastflow3d.config import FastFlow3DConfig
from zeroflow_core.fastflow3d.engine.fold import dense_macs
from zeroflow_core.fastflow3d.model import FastFlow3D
from zeroflow_core.fastflow3d.student import Student

_FAST_A_TURN, _REUSING_A_TURN = 3, 1  # pairs that a fast engine does in its turn; the reference does one
_MOST_TURNS = 100
_WARM_UP_PAIRS = 2  # after the very first one
_ORDERS = 5  # of the same points; more than an engine keeps clouds, so that each is new to it


@dataclass(frozen=True)
class Row:
    """One precision of the fast engine beside the reference, which computes in fp32.

    kind, pair:        of the clouds, see student_pairs
    dtype:             of the fast engine's products: fp32 or bf16
    points_from:       ``host``: arrays in, an array out; ``device``: tensors there in, a tensor there out
    points, points1:   of pc0 and pc1
    occupied:          share of the grid's pillars that hold points of pc0
    …_ms, …_p99_ms:    median and 99th percentile (the longest of fewer than 100) of so many …_samples, milliseconds
    ratio:             reference_ms / engine_ms
    engine_reusing_ms: median where pc1 is, bit for bit, a cloud of the pair before; in all other times both are new
    …_start_ms:        to make the network from weights in memory, and its first flow; loading libraries left out
    …_memory_bytes:    at the most meanwhile, a copy of the weights included; None where the system does not tell
    …_flops:           of products and convolutions for this pair, a multiplication and an addition counted as two;
                       the reference's are everywhere on the grid
    engine_bytes:      moved, None where the engine does not count them
    matmul_rate, copy_rate: of the machine, see student_limits; in this dtype
    matmul_share, copy_share: of them, what the engine reached by its own count
    dense_ms:          what the reference's operations would take at the matmul rate
    difference_…_m:    between the flows of both, metres: mean, 99.9th percentile and maximum
    same_points:       both have a flow for the same points
    """

    kind: str
    pair: str
    dtype: str
    points_from: str
    points: int
    points1: int
    occupied: float
    reference_ms: float
    reference_p99_ms: float
    reference_samples: int
    engine_ms: float
    engine_p99_ms: float
    engine_samples: int
    ratio: float
    engine_reusing_ms: float
    reference_start_ms: float
    engine_start_ms: float
    reference_memory_bytes: int | None
    engine_memory_bytes: int | None
    reference_flops: int
    engine_flops: int
    engine_bytes: int | None
    matmul_rate: float
    matmul_share: float
    copy_rate: float
    copy_share: float | None
    dense_ms: float
    difference_mean_m: float
    difference_p999_m: float
    difference_max_m: float
    same_points: bool


@dataclass
class Entrant:
    """One of those that take turns, and what its first pair of clouds came to.

    flow, flops, bytes_moved: of its first pair; (N0,3) float32, metres
    ms:         of each pair that was timed
    reusing_ms: the same where pc1 was known from the pair before; none of the reference, which keeps nothing
    """

    student: Student
    start_ms: float
    memory_bytes: int | None
    flow: np.ndarray
    flops: int
    bytes_moved: int | None
    ms: list[float] = field(default_factory=list)
    reusing_ms: list[float] = field(default_factory=list)

    @property
    def is_reference(self) -> bool:
        return self.student.engine == "reference"


@dataclass(frozen=True)
class Pace:
    """How long to go on: for so many turns, or without a number for about so many seconds (at least one turn)."""

    seconds: float
    turns: int | None = None

    def ends(self, turn: int, elapsed: float) -> bool:
        """Whether the turn that has just ended, the first being 1, was the last."""
        if self.turns is not None:
            return turn >= self.turns
        return turn >= _MOST_TURNS or elapsed * (turn + 1) / turn > self.seconds


def measure(
    pair: CloudPair, model: FastFlow3D, precisions: Sequence[str], device: str, limits: Limits, pace: Pace
) -> list[Row]:
    """The reference and the fast engine in each of `precisions`, made afresh and timed in turns in this process.

    A row for each precision; on a GPU first those with the points there already, then those from the host and back.

    model: in eval mode; each network gets a copy
    """
    reference = enter(pair, model, "reference", "fp32", device)
    entrants = [enter(pair, model, "fast", precision, device) for precision in precisions]
    occupied = occupied_share(pair.pc0, model.config)
    rows = []
    for place in ("host",) if device == "cpu" else ("device", "host"):
        take_turns([reference, *entrants], pair, place, pace)
        rows += [_row(pair, place, occupied, reference, entrant, limits) for entrant in entrants]
    return rows


def load_libraries(precisions: Sequence[str], device: str) -> None:
    """Let each kind of network answer once on a small grid, so that what is loaded and compiled only once, and the
    memory it takes, does not count for the first one measured."""
    config = FastFlow3DConfig(minimum=(-6.4, -6.4, -3.0), maximum=(6.4, 6.4, 3.0), blocks=(1, 2))
    pair, model = points_pair(1000), seeded_model(config)
    for engine, precision in [("reference", "fp32"), *(("fast", precision) for precision in precisions)]:
        enter(pair, model, engine, precision, device)


def enter(pair: CloudPair, model: FastFlow3D, engine: str, precision: str, device: str) -> Entrant:
    """Make the network and let it answer once, which is not timed later: buffers are made then and kernels chosen."""
    _give_memory_back()
    memory, start = PeakMemory(device), perf_counter()
    student = Student(deepcopy(model), {}, device, precision, engine)
    flow = student.flow(pair.pc0, pair.pc1)
    milliseconds, bytes_taken = 1000 * (perf_counter() - start), memory.taken()
    network = student.network
    return Entrant(student, milliseconds, bytes_taken, flow, network.flops, getattr(network, "bytes_moved", None))


def take_turns(entrants: Sequence[Entrant], pair: CloudPair, place: str, pace: Pace) -> None:
    """Time them alternately, after each has warmed up: their ``ms`` and ``reusing_ms`` are those of this pair.

    A turn of the fast engine is three pairs of clouds that it has not seen lately, then one of which it knows pc1.
    """
    clouds = {id(entrant): reordered(pair, place, entrant.student.device) for entrant in entrants}
    for entrant in entrants:
        entrant.ms, entrant.reusing_ms = [], []
        # On a CPU the reference's first pair took seconds and left nothing behind that could make others faster.
        enough = entrant.is_reference and entrant.student.device == "cpu"
        for _ in range(0 if enough else _WARM_UP_PAIRS):
            _milliseconds(entrant.student, *next(clouds[id(entrant)]), place)
    begin = perf_counter()
    for turn in count(1):
        for entrant in entrants:
            its = clouds[id(entrant)]
            for _ in range(1 if entrant.is_reference else _FAST_A_TURN):
                pc0, pc1 = next(its)
                entrant.ms.append(_milliseconds(entrant.student, pc0, pc1, place))
            for _ in range(0 if entrant.is_reference else _REUSING_A_TURN):
                pc0, _ = next(its)
                entrant.reusing_ms.append(_milliseconds(entrant.student, pc0, pc1, place))
        if pace.ends(turn, perf_counter() - begin):
            return


def reordered(pair: CloudPair, place: str, device: str) -> Iterator[tuple[Any, Any]]:
    """The pair's clouds again and again, the points in another order each time: as much work, the same flow of each
    point, but nothing that an engine still has from the pair before."""
    orders = [
        tuple(np.roll(cloud, len(cloud) * k // _ORDERS, axis=0) for cloud in (pair.pc0, pair.pc1))
        for k in range(_ORDERS)
    ]
    if place == "device":
        orders = [tuple(torch.from_numpy(cloud).to(device) for cloud in clouds) for clouds in orders]
    return cycle(orders)


def _milliseconds(student: Student, pc0: Any, pc1: Any, place: str) -> float:
    """Of one pair: from arrays to an array by the clock, on a GPU from tensors to a tensor by its own events."""
    if place == "host":
        start = perf_counter()
        student.flow(pc0, pc1)
        return 1000 * (perf_counter() - start)
    with torch.cuda.device(student.device):
        start_event, end_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start_event.record()
        student.flow(pc0, pc1)
        end_event.record()
        end_event.synchronize()
    return start_event.elapsed_time(end_event)


def _row(pair: CloudPair, place: str, occupied: float, reference: Entrant, fast: Entrant, limits: Limits) -> Row:
    student = fast.student
    reference_ms, engine_ms = (float(np.median(entrant.ms)) for entrant in (reference, fast))
    dense, flops, moved = 2 * dense_macs(student.model.config), fast.flops, fast.bytes_moved
    matmul_rate = limits.matmul[student.precision]
    known = [~np.isnan(entrant.flow).any(axis=1) for entrant in (reference, fast)]
    both = known[0] & known[1]
    apart = np.linalg.norm(fast.flow[both].astype(np.float64) - reference.flow[both], axis=1)
    apart = apart if len(apart) else np.zeros(1)
    return Row(
        kind=pair.kind,
        pair=pair.name,
        dtype=student.precision,
        points_from=place,
        points=len(pair.pc0),
        points1=len(pair.pc1),
        occupied=occupied,
        reference_ms=reference_ms,
        reference_p99_ms=_p99(reference.ms),
        reference_samples=len(reference.ms),
        engine_ms=engine_ms,
        engine_p99_ms=_p99(fast.ms),
        engine_samples=len(fast.ms),
        ratio=reference_ms / engine_ms,
        engine_reusing_ms=float(np.median(fast.reusing_ms)),
        reference_start_ms=reference.start_ms,
        engine_start_ms=fast.start_ms,
        reference_memory_bytes=reference.memory_bytes,
        engine_memory_bytes=fast.memory_bytes,
        reference_flops=dense,
        engine_flops=flops,
        engine_bytes=moved,
        matmul_rate=matmul_rate,
        matmul_share=flops / (engine_ms / 1000) / matmul_rate,
        copy_rate=limits.copy,
        copy_share=None if moved is None else moved / (engine_ms / 1000) / limits.copy,
        dense_ms=1000 * dense / matmul_rate,
        difference_mean_m=float(apart.mean()),
        difference_p999_m=float(np.percentile(apart, 99.9)),
        difference_max_m=float(apart.max()),
        same_points=bool((known[0] == known[1]).all()),
    )


def _p99(milliseconds: Sequence[float]) -> float:
    return float(np.percentile(milliseconds, 99, method="higher"))


def _give_memory_back() -> None:
    """What earlier work is done with, so that it is not there for the next to use unseen."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with suppress(OSError, AttributeError):  # another C library than GNU's has no such function
        ctypes.CDLL(None).malloc_trim(0)
