"""FastFlow3D on a GPU: a frame from points to flow is one CUDA graph, replayed in buffers that stay."""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor

from zeroflow_core.fastflow3d.engine.cuda.network import Network
from zeroflow_core.fastflow3d.engine.fold import fold
from zeroflow_core.fastflow3d.model import FastFlow3D

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_STEP = 32_768  # points; capacities are multiples of it, and each has its graph
_MOST_KEPT = 8  # capacities
_WARM_UP = 2  # frames before a graph is captured, in which kernels are compiled and cuDNN chooses its own
_preparing = threading.Lock()  # settings of cuDNN are the process's, and captures must come one by one


class CudaEngine:
    """The network of `model` on a GPU. What its weights become later, it does not see.

    The first pair takes some seconds, and so does, more briefly, the first of each step in the number of points. After
    that nothing is allocated but a result on the device, and the host waits for nothing but a result of its own.

    Results agree with those of FastFlow3D in fp32 to 1e-4 m and better; sums on a GPU round in any order, so that two
    runs may differ by micrometres. In bf16 the convolutions and their maps are rounded. Any thread may call; calls wait
    for each other.

    flops:       floating-point operations of the last call's matrix work, 2 for each multiply-add
    bytes_moved: what its convolutions read and write at least
    """

    keeps_clouds = False

    def __init__(self, model: FastFlow3D, precision: str, device: str) -> None:
        """precision: of convolutions and maps, ``fp32`` (never TF32) or ``bf16``; device: ``cuda`` (the GPU that is
        current now) or ``cuda:n``, or ``cpu``, slowly, to look at what a GPU would do."""
        self._device, pillars = _numbered(device), model.embedder.feature_net.grid
        self._is_gpu = self._device.type == "cuda"
        with self._set_up(), torch.autocast("cpu", enabled=False):
            self._network = Network(fold(model), pillars.minimum, pillars.size, _DTYPES[precision], self._device)
            self._stream = torch.cuda.Stream(self._device) if self._is_gpu else None
            self._memory = torch.cuda.graph_pool_handle() if self._is_gpu else None
            if self._is_gpu:
                torch.cuda.synchronize()  # else another stream could read weights before they are there
        self._kept: OrderedDict[int, _Buffers] = OrderedDict()  # by capacity, the last used last
        self._lock = threading.Lock()
        self.flops, self.bytes_moved = 0, self._network.bytes_moved

    def flow(self, pc0: np.ndarray | Tensor, pc1: np.ndarray | Tensor) -> np.ndarray | Tensor:
        """Residual flow of pc0's points towards pc1, both in one frame.

        pc0, pc1: (N0,3) and (N1,3), metres
        Returns (N0,3) float32, metres per interval, NaN for points outside the grid or not finite: an array for an
        array, a tensor on the device, in the order of its current stream, for a tensor.
        """
        with self._lock, self._set_up():
            buffers = self._buffers_for(max(len(pc0), len(pc1)))
            self.flops = 2 * (self._network.macs + self._network.macs_of_points(len(pc0), len(pc1)))
            if isinstance(pc0, np.ndarray) and isinstance(pc1, np.ndarray):
                return self._through_host(buffers, pc0, pc1)
            pair = [cloud if isinstance(cloud, Tensor) else _to_tensor(cloud) for cloud in (pc0, pc1)]
            flow = self._on_device(buffers, *pair)
            return flow if isinstance(pc0, Tensor) else flow.cpu().numpy()

    def _through_host(self, buffers: _Buffers, pc0: np.ndarray, pc1: np.ndarray) -> np.ndarray:
        for cloud, rows in zip((pc0, pc1), buffers.staging.numpy(), strict=True):
            rows[: len(cloud)] = cloud
            rows[len(cloud) :] = np.nan
        result = buffers.result[: len(pc0)]
        with self._on_own_stream():
            buffers.points.copy_(buffers.staging, non_blocking=True)
            self._run(buffers)
            result.copy_(buffers.flow[: len(pc0)], non_blocking=True)
        if self._stream is not None:
            self._stream.synchronize()
        return result.numpy().copy()

    def _on_device(self, buffers: _Buffers, pc0: Tensor, pc1: Tensor) -> Tensor:
        flow = torch.empty(len(pc0), 3, dtype=torch.float32, device=self._device)
        with self._on_own_stream():
            for cloud, rows in zip((pc0, pc1), buffers.points, strict=True):
                rows[: len(cloud)].copy_(cloud)
                rows[len(cloud) :].fill_(torch.nan)
            self._run(buffers)
            flow.copy_(buffers.flow[: len(pc0)])
        return flow

    def _run(self, buffers: _Buffers) -> None:
        if buffers.graph is not None:
            buffers.graph.replay()
        else:
            with _preparing, _exactly(self._device):
                self._network.frame(buffers.points, buffers.flow)

    def _buffers_for(self, points: int) -> _Buffers:
        capacity = _STEP * max(1, -(-points // _STEP))
        if capacity not in self._kept:
            if len(self._kept) >= _MOST_KEPT:
                if self._is_gpu:
                    torch.cuda.synchronize()  # the graph that goes may still be running
                self._kept.popitem(last=False)
            buffers = _Buffers(capacity, self._device)
            if self._is_gpu:
                self._capture(buffers)
            self._kept[capacity] = buffers
        self._kept.move_to_end(capacity)
        return self._kept[capacity]

    def _capture(self, buffers: _Buffers) -> None:
        """Give the buffers their graph, if one can be had."""
        graph = torch.cuda.CUDAGraph()
        # A capture that fails does not itself go back to the caller's stream.
        with _preparing, _exactly(self._device), self._on_own_stream():
            for _ in range(_WARM_UP):
                self._network.frame(buffers.points, buffers.flow)
            try:
                # All graphs share memory for what lies between points and flow: they never run at once. Other threads
                # may use the GPU meanwhile.
                with torch.cuda.graph(graph, self._memory, self._stream, capture_error_mode="thread_local"):
                    self._network.frame(buffers.points, buffers.flow)
                buffers.graph = graph
            except RuntimeError as problem:
                problem = problem.__context__ or problem  # the end of a capture that failed hides why in its own
                if isinstance(problem, torch.OutOfMemoryError):
                    raise problem from None
                warnings.warn(f"no CUDA graph could be captured, and flow is slower for it: {problem}", stacklevel=5)

    @contextmanager
    def _set_up(self) -> Iterator[None]:
        """Whatever mode the caller is in: tensors that later calls may write to, on the right GPU."""
        gpu = torch.cuda.device(self._device) if self._is_gpu else nullcontext()
        with torch.inference_mode(False), torch.no_grad(), gpu:
            yield

    @contextmanager
    def _on_own_stream(self) -> Iterator[None]:
        """After what the caller's stream has to do, and before what it will have to."""
        if self._stream is None:
            yield
            return
        callers = torch.cuda.current_stream()
        self._stream.wait_stream(callers)
        with torch.cuda.stream(self._stream):
            yield
        callers.wait_stream(self._stream)


class _Buffers:
    """What frames of at most `capacity` points in either cloud are read from and written to, and their graph.

    points: (2,capacity,3) float32 of pc0 and pc1, NaN in rows without a point
    flow:   (capacity,3) float32 of pc0
    staging, result: the same on the host, where a GPU reads and writes by itself
    """

    def __init__(self, capacity: int, device: torch.device) -> None:
        nowhere = {"dtype": torch.float32, "device": device}
        self.points = torch.full((2, capacity, 3), torch.nan, **nowhere)
        self.flow = torch.empty(capacity, 3, **nowhere)
        pinned = {"dtype": torch.float32, "pin_memory": device.type == "cuda"}
        self.staging = torch.empty(2, capacity, 3, **pinned)
        self.result = torch.empty(capacity, 3, **pinned)
        self.graph: torch.cuda.CUDAGraph | None = None


@contextmanager
def _exactly(device: torch.device) -> Iterator[None]:
    """cuDNN chooses by trying, but never TF32, and nobody else's precision applies."""
    cudnn = torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False)
    with cudnn, torch.autocast(device.type, enabled=False):
        yield


def _numbered(device: str) -> torch.device:
    """``cuda`` without a number would be another GPU as soon as a caller chooses another."""
    parsed = torch.device(device)
    is_any_gpu = parsed.type == "cuda" and parsed.index is None
    return torch.device("cuda", torch.cuda.current_device()) if is_any_gpu else parsed


def _to_tensor(cloud: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(cloud, dtype=np.float32))
