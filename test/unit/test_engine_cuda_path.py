"""What the student's engine does on a GPU, as far as it shows without one: equality, buffers, graphs, streams.

PyTorch on a CPU takes the very steps that a GPU takes, a stand-in records and replays them as a CUDA graph would; where
a GPU is, they run there, too. The Triton kernels have test_engine_cuda_kernels.py.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from engine_cases import (
    DEVICES,
    NOTHING,
    PAIRS,
    SMALL,
    exact_flow,
    full,
    grid,
    needs_gpu,
    random_network,
    scene,
    single_points,
    spread,
)
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from zeroflow_core.fastflow3d.engine.cuda import engine as cuda
from zeroflow_core.fastflow3d.engine.cuda import network as cuda_network
from zeroflow_core.fastflow3d.engine.cuda.engine import CudaEngine
from zeroflow_core.fastflow3d.engine.fold import fold

WITHIN_M = 1e-5  # of the model in float64, for flows of decimetres
CONFIGS = {
    "one stage": grid(16, 4, (1,)),
    "24 to 3": grid(24, 6, (2, 3, 3), 0.2, (-3.7, 12.4)),
    "28 to 7, 5 channels": grid(28, 5, (3, 2), 0.7, (100.3, -250.9)),
    "16 to 1, 4 stages": grid(16, 4, (2, 1, 1, 2), 1.1),
    "larger than its borders": grid(64, 4, (1, 2), 0.512),
}
every_device = pytest.mark.parametrize("device", DEVICES)


@pytest.fixture(autouse=True)
def few_points(monkeypatch):
    """Buffers for hundreds of points where there would be tens of thousands, and one thread."""
    monkeypatch.setattr(cuda, "_STEP", 512)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model():
    return random_network(SMALL, 40)


def engine_of(model, device: str = "cpu", precision: str = "fp32") -> CudaEngine:
    return CudaEngine(model, precision, device)


def network_of(engine: CudaEngine) -> cuda_network.Network:
    return engine._network


def assert_right(flow: np.ndarray | Tensor, model, pc0: np.ndarray, pc1: np.ndarray) -> None:
    flow = flow.cpu().numpy() if isinstance(flow, Tensor) else flow
    assert flow.dtype == np.float32 and flow.shape == pc0.shape
    np.testing.assert_allclose(flow, exact_flow(model, pc0, pc1), atol=WITHIN_M, rtol=0)


# --- the same answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@every_device
def test_every_kind_of_pair_on_one_engine(config, device):
    model = random_network(config, 41)
    engine, rng = engine_of(model, device), np.random.default_rng(41)
    pairs = [make(config, rng) for make in PAIRS.values()]
    pairs += [(point, NOTHING) for point in single_points(config).values()]
    for pair in pairs:
        assert_right(engine.flow(*pair), model, *pair)


@every_device
def test_bf16_is_near(device):
    config = CONFIGS["24 to 3"]
    model = random_network(config, 42)
    engine = engine_of(model, device, "bf16")
    for name in ("a dense scene", "every pillar", "corners", "strange rows", "both empty"):
        pair = PAIRS[name](config, np.random.default_rng(42))
        flow, exact = engine.flow(*pair), exact_flow(model, *pair)
        np.testing.assert_array_equal(np.isnan(flow), np.isnan(exact))
        if len(flow):
            error = np.linalg.norm(flow - exact, axis=1)
            assert 0 < np.nanmean(error) < 0.02 * np.nanmean(np.linalg.norm(exact, axis=1)), name


@pytest.mark.parametrize("blocks", [(1,), (1, 1), (1, 1, 1)])
def test_what_biases_come_to_is_known_from_a_smaller_grid(blocks):
    # A grid that has rows which no border reaches; how many it takes, the one row that stands for them does.
    model = random_network(grid(96, 2, blocks), 43)
    rest = cuda_network._of_nothing(fold(model))
    n, steps, unet = len(rest), len(blocks), model.backbone
    assert n < 96 and n % 2**steps == 0
    with torch.no_grad():
        widths = [4 * 2**k for k in range(steps, -1, -1)]
        x = torch.zeros(1, widths[0], 96 >> steps, 96 >> steps)
        for step, width in enumerate(widths[1:], start=1):
            side = 96 >> (steps - step)
            x = getattr(unet, f"decoder_step{step}")(x, torch.zeros(1, width, side, side))
        motion = getattr(unet, f"decoder_step{steps + 1}")(x)[0]
        hidden = model.head.decoder[0]
        expected = torch.einsum("chw,kc->hwk", motion, hidden.weight[:, 4:8]) + hidden.bias
    place = torch.arange(96)
    place = place - (place - n // 2).clamp(0, 96 - n)
    torch.testing.assert_close(rest[place][:, place], expected, rtol=0, atol=1e-5)
    assert not torch.allclose(expected[0], expected[48], atol=1e-2), "without borders this tells nothing"


def test_work_is_counted_as_pytorch_counts_it(model):
    engine, pair = engine_of(model), scene(SMALL, 44)
    counter = FlopCounterMode(display=False)
    with counter:
        engine.flow(*pair)
    counted = counter.get_flop_counts()["Global"]
    assert counted[torch.ops.aten.convolution] == 2 * network_of(engine).macs
    points0, points1 = map(len, pair)
    of_points = (points0 + points1) * 9 * 4 + points0 * (8 * 32 + 3 * 32 + 32 * 3)
    assert engine.flops == 2 * (network_of(engine).macs + of_points)
    weights = sum(p.numel() for p in model.backbone.parameters())
    assert 4 * weights / 2 < engine.bytes_moved == 2 * engine_of(model, precision="bf16").bytes_moved


# --- buffers -----------------------------------------------------------------------------------------------


@every_device
def test_buffers_grow_and_the_oldest_go(model, device, monkeypatch):
    monkeypatch.setattr(cuda, "_MOST_KEPT", 2)
    engine, rng = engine_of(model, device), np.random.default_rng(45)
    sizes = [(1, 2), (512, 3), (513, 0), (0, 1500), (40, 40), (4, 1024), (1024, 7), (600, 600)]
    kept = []
    for points0, points1 in sizes:
        pair = spread(SMALL, rng, points0), spread(SMALL, rng, points1)
        assert_right(engine.flow(*pair), model, *pair)
        kept.append(tuple(engine._kept))
    assert kept == [(512,), (512,), (512, 1024), (1024, 1536), (1536, 512), (512, 1024), (512, 1024), (512, 1024)]


@every_device
@pytest.mark.parametrize("on_device", [False, True], ids=["arrays", "tensors"])
def test_nothing_of_a_larger_cloud_is_left(model, device, on_device):
    engine, rng = engine_of(model, device), np.random.default_rng(46)
    crowd = full(SMALL, rng)[:512], full(SMALL, rng)[:511]
    for pair in (crowd, (crowd[0][:1], NOTHING), crowd, (NOTHING, crowd[1][:1]), (crowd[0][:7], crowd[1][:3])):
        given = [torch.from_numpy(cloud).to(device) for cloud in pair] if on_device else pair
        assert_right(engine.flow(*given), model, *pair)


@every_device
def test_what_comes_back_is_what_was_given_and_the_callers_own(model, device):
    engine, (pc0, pc1) = engine_of(model, device), scene(SMALL, 47)
    tensors = [torch.from_numpy(cloud).to(device).requires_grad_() for cloud in (pc0, pc1)]
    first = engine.flow(pc0, pc1), engine.flow(*tensors), engine.flow(pc0, tensors[1]), engine.flow(tensors[0], pc1)
    copies = [flow.copy() if isinstance(flow, np.ndarray) else flow.clone() for flow in first]
    engine.flow(pc1, pc0)
    for flow, copy, kind in zip(first, copies, (np.ndarray, Tensor, np.ndarray, Tensor), strict=True):
        assert isinstance(flow, kind)
        np.testing.assert_array_equal(*(np.asarray(f if kind is np.ndarray else f.cpu()) for f in (flow, copy)))
        assert_right(flow, model, pc0, pc1)
        if kind is Tensor:
            assert flow.device.type == device and not flow.requires_grad and not flow.is_inference()


@pytest.mark.parametrize("dtype", [np.float64, ">f4"])
def test_clouds_of_other_kinds(model, dtype):
    pair = [np.asfortranarray(cloud.astype(dtype)[::-1]) for cloud in scene(SMALL, 48)]
    engine = engine_of(model)
    assert_right(engine.flow(*pair), model, *(cloud.astype(np.float32) for cloud in pair))


@contextmanager
def float64_by_default():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "around",
    [torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16), float64_by_default, torch.enable_grad],
    ids=["inference", "autocast", "float64 by default", "gradients"],
)
def test_the_callers_settings_are_no_matter(model, around):
    pair, before = scene(SMALL, 49), engine_of(model)
    with around():
        inside = engine_of(model)
        flows = [engine.flow(*pair) for engine in (before, inside)]
    for flow in (*flows, inside.flow(*pair)):
        assert_right(flow, model, *pair)


def test_several_threads_may_call(model):
    engine, wrong = engine_of(model), []
    pairs = [scene(SMALL, seed) for seed in range(4)]
    answers = [exact_flow(model, *pair) for pair in pairs]  # not in the threads: it sets torch's default type

    def call(pair, expected):
        for _ in range(10):
            wrong.extend([1] * (not np.allclose(engine.flow(*pair), expected, atol=WITHIN_M, rtol=0, equal_nan=True)))

    threads = [threading.Thread(target=call, args=each) for each in zip(pairs, answers, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --- a frame as a CUDA graph -------------------------------------------------------------------------------


class NothingOfTheHost(TorchDispatchMode):
    """Fails where an operation reads or makes a tensor of the host."""

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        made = operation(*arguments, **(options or {}))
        for tensor in tree_leaves((arguments, options, made)):
            assert not isinstance(tensor, Tensor) or tensor.device.type == "meta", operation
        return made


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_frame_asks_the_host_for_nothing(model, precision):
    # Tensors without data: whoever asks for some fails, and so does who mixes them with those that have.
    with torch.no_grad():
        network = network_of(engine_of(model, "meta", precision))
        points, flow = torch.empty(2, 100, 3, device="meta"), torch.empty(100, 3, device="meta")
        with NothingOfTheHost():
            network.frame(points, flow)


class RecordedGraph(TorchDispatchMode):
    """Stands for `torch.cuda.CUDAGraph` and `torch.cuda.graph`: replayed, every operation reads and writes where it did
    when it was recorded, and nothing else happens."""

    def __init__(self) -> None:
        super().__init__()
        self.recorded, self.replays = [], 0

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        assert operation is not torch.ops.aten._local_scalar_dense.default, "the host waits for a number"
        made = operation(*arguments, **(options or {}))
        self.recorded.append((operation, arguments, options or {}, made))
        return made

    def replay(self) -> None:
        self.replays += 1
        for operation, arguments, options, made in self.recorded:
            again = operation(*arguments, **options)
            for old, new in zip(tree_leaves(made), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class FakeGPU:
    """Lets an engine on the CPU take the way of one on a GPU, and writes down what it asks of CUDA."""

    def __init__(self, monkeypatch, problem: Exception | None = None) -> None:
        self.log, self.graphs, self._problem = [], [], problem
        self.own, self.callers = self._stream("own"), self._stream("caller's")
        self.now = self.callers
        monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: self.now)
        monkeypatch.setattr(torch.cuda, "stream", self._on)
        monkeypatch.setattr(torch.cuda, "device", lambda *_: self._nothing())
        monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: self.log.append("all wait"))
        monkeypatch.setattr(torch.cuda, "CUDAGraph", self._graph)
        monkeypatch.setattr(torch.cuda, "graph", self._capture)

    def engine(self, model, precision: str = "fp32") -> CudaEngine:
        engine = engine_of(model, "cpu", precision)
        engine._is_gpu, engine._stream, engine._memory = True, self.own, "memory"
        network, frame = network_of(engine), network_of(engine).frame

        def logged(points: Tensor, flow: Tensor) -> None:
            assert self.now is self.own
            assert torch.backends.cudnn.enabled and torch.backends.cudnn.benchmark
            assert not torch.backends.cudnn.allow_tf32 and not torch.is_autocast_enabled("cpu")
            self.log.append("frame")
            frame(points, flow)

        network.frame = logged
        return engine

    def _stream(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(
            wait_stream=lambda other: self.log.append(f"{name} waits for {'own' if other is self.own else 'caller'}"),
            synchronize=lambda: self.log.append(f"host waits for {name}"),
        )

    @contextmanager
    def _on(self, stream):
        before, self.now = self.now, stream
        try:
            yield
        finally:
            self.now = before

    @contextmanager
    def _nothing(self):
        yield

    def _graph(self) -> RecordedGraph:
        graph = RecordedGraph()
        replay = graph.replay

        def logged() -> None:
            assert self.now is self.own
            self.log.append("replay")
            replay()

        graph.replay = logged
        self.graphs.append(graph)
        return graph

    @contextmanager
    def _capture(self, graph, memory, stream, capture_error_mode):
        assert (memory, stream, capture_error_mode) == ("memory", self.own, "thread_local")
        self.log.append("capture")
        before, self.now = self.now, stream
        try:
            with graph:
                yield
                if self._problem is not None:
                    raise self._problem
        except Exception:  # at its end, a capture that failed fails again, before it is back on the stream before
            raise RuntimeError("operation failed due to a previous error during capture")  # noqa: B904
        self.now = before

    def take_log(self) -> list[str]:
        log, self.log = self.log, []
        return log


PREPARED = ["own waits for caller", "frame", "frame", "capture", "frame", "caller's waits for own"]
REPLAYED = ["own waits for caller", "replay", "caller's waits for own"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_frame_once_captured_is_every_frame(model, precision, monkeypatch):
    # What is not in a tensor, or not in its place, would stay as it was when it was captured.
    gpu, plain, rng = FakeGPU(monkeypatch), engine_of(model, precision=precision), np.random.default_rng(50)
    engine = gpu.engine(model, precision)
    crowd = full(SMALL, rng)[:500], full(SMALL, rng)[:500]
    clouds = [scene(SMALL, seed, 300) for seed in (50, 51)] + [crowd, (NOTHING, NOTHING), (crowd[0][:2], crowd[1])]
    for k, pair in enumerate([*clouds, clouds[0]]):
        np.testing.assert_array_equal(engine.flow(*pair), plain.flow(*pair))
        assert gpu.take_log() == PREPARED * (k == 0) + REPLAYED + ["host waits for own"]
        tensors = [torch.from_numpy(cloud) for cloud in pair]
        np.testing.assert_array_equal(engine.flow(*tensors).numpy(), plain.flow(*pair))
        assert gpu.take_log() == REPLAYED, "nothing waits for a result that stays on the device"
    if precision == "fp32":
        assert_right(engine.flow(*crowd), model, *crowd)


def test_each_capacity_has_its_graph(model, monkeypatch):
    monkeypatch.setattr(cuda, "_MOST_KEPT", 2)
    gpu, rng = FakeGPU(monkeypatch), np.random.default_rng(51)
    engine = gpu.engine(model)
    for points, prepares, evicts in ((9, 1, 0), (600, 1, 0), (9, 0, 0), (1500, 1, 1), (9, 0, 0), (600, 1, 1)):
        pair = spread(SMALL, rng, points), spread(SMALL, rng, 5)
        assert_right(engine.flow(*pair), model, *pair)
        log = gpu.take_log()
        assert (log.count("capture"), log.count("all wait"), log.count("replay")) == (prepares, evicts, 1)
        assert not evicts or log[0] == "all wait", "a graph goes before all of its frames are through"
    assert len(gpu.graphs) == 4


def test_what_cannot_be_captured_runs_all_the_same(model, monkeypatch):
    gpu = FakeGPU(monkeypatch, RuntimeError("no event may be recorded"))
    engine = gpu.engine(model)
    for k, seed in enumerate((52, 53, 54)):
        pair = scene(SMALL, seed, 300)
        if k == 0:
            with pytest.warns(UserWarning, match="flow is slower for it: no event may be recorded"):
                flow = engine.flow(*pair)
            assert gpu.take_log()[: len(PREPARED)] == PREPARED
        else:
            flow = engine.flow(*pair)
            expected = ["own waits for caller", "frame", "caller's waits for own", "host waits for own"]
            assert gpu.take_log() == expected
        assert_right(flow, model, *pair)


def test_out_of_memory_while_capturing_is_just_that(model, monkeypatch):
    engine = FakeGPU(monkeypatch, torch.OutOfMemoryError("tried to allocate much")).engine(model)
    with pytest.raises(torch.OutOfMemoryError, match="tried to allocate much"):
        engine.flow(*scene(SMALL, 55))
    assert not engine._kept, "it would be taken for one that cannot be captured"


def test_any_gpu_is_from_then_on_the_one_that_was_current(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    found = [str(cuda._numbered(device)) for device in ("cuda", "cuda:0", "cuda:1", "cpu")]
    assert found == ["cuda:2", "cuda:0", "cuda:1", "cpu"]


def test_an_engine_leaves_cudnn_as_it_was(model):
    cudnn = torch.backends.cudnn
    before = cudnn.enabled, cudnn.benchmark, cudnn.allow_tf32, cudnn.deterministic
    engine_of(model).flow(*scene(SMALL, 56))
    assert (cudnn.enabled, cudnn.benchmark, cudnn.allow_tf32, cudnn.deterministic) == before


# --- on a GPU ----------------------------------------------------------------------------------------------


@needs_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_graph_replayed_is_every_frame(model, precision, recwarn):
    engine = engine_of(model, "cuda", precision)
    for seed in range(20):
        pair = scene(SMALL, seed, 300)
        flow = engine.flow(*pair)
        (buffers,) = engine._kept.values()
        graph, buffers.graph = buffers.graph, None
        assert graph is not None
        np.testing.assert_allclose(engine.flow(*pair), flow, atol=1e-5 if precision == "fp32" else 0.02, rtol=0)
        buffers.graph = graph
    assert not [str(warning.message) for warning in recwarn if "slower" in str(warning.message)]


@needs_gpu
def test_fp32_is_fp32_whatever_the_process_asks_for():
    model = random_network(grid(64, 32, (2, 2, 2)), 57)
    pair = scene(model.config, 57, 4000)
    matmul, convolutions = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    try:
        with torch.autocast("cuda", torch.bfloat16):
            assert_right(engine_of(model, "cuda").flow(*pair), model, *pair)
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, convolutions


@needs_gpu
def test_nothing_waits_and_nothing_is_allocated_on_the_device(model):
    engine = engine_of(model, "cuda")
    clouds = [[torch.from_numpy(cloud).cuda() for cloud in scene(SMALL, seed, 400)] for seed in range(5)]
    for pair in clouds:
        engine.flow(*pair)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(200):
            for pair in clouds:
                engine.flow(*pair)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    assert (torch.cuda.memory_allocated(), torch.cuda.memory_reserved()) == before


@needs_gpu
def test_memory_stays_as_it_is_from_host_to_host(model):
    engine = engine_of(model, "cuda")
    pairs = [scene(SMALL, seed, 400) for seed in range(5)]
    for pair in pairs:
        engine.flow(*pair)
    before = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    for _ in range(200):
        for pair in pairs:
            engine.flow(*pair)
    assert (torch.cuda.memory_allocated(), torch.cuda.memory_reserved()) == before


@needs_gpu
def test_results_are_in_the_order_of_the_callers_stream(model):
    engine, pairs = engine_of(model, "cuda"), [scene(SMALL, seed, 400) for seed in range(6)]
    flows, streams = [], [torch.cuda.Stream() for _ in range(3)]
    for k, pair in enumerate(pairs):
        with torch.cuda.stream(streams[k % 3]):
            clouds = [torch.from_numpy(cloud).pin_memory().to("cuda", non_blocking=True) for cloud in pair]
            flows.append(engine.flow(*clouds) + 1)
    torch.cuda.synchronize()
    for flow, pair in zip(flows, pairs, strict=True):
        np.testing.assert_allclose(flow.cpu().numpy() - 1, exact_flow(model, *pair), atol=WITHIN_M, rtol=0)
