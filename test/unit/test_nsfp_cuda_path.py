"""What the fast engine does on a GPU, as far as it shows without one: tiles, batches, draws, graphs, memory.

PyTorch on a CPU runs the very steps that a GPU runs; where a GPU is, they run there, too.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nsfp_cases import make_pair, mean_error, two_boxes
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zeroflow_core.nsfp import device_sampling, engine, sampling
from zeroflow_core.nsfp import teacher as teacher_module
from zeroflow_core.nsfp.config import METHODS, TeacherConfig, teacher_config
from zeroflow_core.nsfp.distance_transform import DistanceTransform, DistanceTransforms
from zeroflow_core.nsfp.fields import Fields, initial_parameters
from zeroflow_core.nsfp.matching import TileChamfer, TreeChamfer
from zeroflow_core.nsfp.plain import Optimised
from zeroflow_core.nsfp.teacher import Teacher
from zeroflow_core.pairs import FramePair, Status

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
CPU = torch.device("cpu")

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
every_method = pytest.mark.parametrize("method", METHODS)
every_precision = pytest.mark.parametrize("precision", PRECISIONS)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiles_for_trees(monkeypatch):
    """The engine computes its loss on the CPU as on a GPU."""
    monkeypatch.setattr(engine, "TreeChamfer", by_tiles)


def by_tiles(clouds: list[Tensor], truncation: float, samples: int = 96) -> TileChamfer:
    return TileChamfer(*batch(clouds), truncation, samples)


def batch(clouds: list[Tensor]) -> tuple[Tensor, Tensor]:
    counts = torch.tensor([len(cloud) for cloud in clouds], dtype=torch.int32)
    return torch.nn.utils.rnn.pad_sequence(clouds, batch_first=True), counts


def cloud(n: int, seed: int, spread: float = 6.0) -> Tensor:
    return (torch.rand(n, 3, generator=torch.Generator().manual_seed(seed)) - 0.5) * spread


def clouds_of(pair: FramePair) -> engine.Clouds:
    return torch.from_numpy(pair.pc0), torch.from_numpy(pair.pc1)


def three_pairs() -> list[engine.Clouds]:
    """Of several hundred points, of forty, and of one."""
    pc0, pc1 = clouds_of(two_boxes(2, 1.4).pair)
    assert len(pc0) > 640
    return [(pc0, pc1[:500]), (pc1[:40], pc0[:44]), (pc0[:1], pc0[:1] + 0.1)]


def config_of(method: str, **changes) -> TeacherConfig:
    return replace(teacher_config(method), **{"iterations": 12, "samples": 96, "learning_rate": 2e-3} | changes)


def run_of(
    clouds: list[engine.Clouds], config: TeacherConfig, precision: str = "fp32", device: torch.device = CPU
) -> engine._Run:
    return engine._Run(clouds, config, PRECISIONS[precision], device, 0)


def optimise(clouds: list, config: TeacherConfig, device: str = "cpu", precision: str = "fp32") -> list[Optimised]:
    return engine.optimise_together(clouds, config, precision, device, 0)


def assert_near(found: Optimised, expected: Optimised, within: float) -> None:
    """`within` metres, of each point."""
    for one, other in ((found.forward, expected.forward), (found.backward, expected.backward)):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=0, atol=within)
    assert found.loss == pytest.approx(expected.loss, rel=0.02)


# --- tiles instead of trees --------------------------------------------------------------------------------


@pytest.mark.parametrize("truncation", [2.0, 0.2])
def test_tiles_give_the_loss_and_the_gradient_of_trees(truncation):
    clouds = [cloud(n, seed) for seed, n in enumerate((120, 1, 400))]
    moving, drawn = (torch.stack([cloud(96, seed + i) for i in range(3)]) for seed in (10, 20))
    loss, gradient = by_tiles(clouds, truncation)(moving, drawn)
    expected, pull = TreeChamfer(clouds, truncation)(moving, drawn)
    assert loss.dtype == gradient.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(gradient, pull, rtol=1e-5, atol=1e-7)
    assert gradient.any(dim=2).any(dim=1).all()


@every_precision
def test_an_optimisation_by_tiles_is_that_by_trees(precision, monkeypatch):
    config, pairs = config_of("nsfp", iterations=20), three_pairs()
    by_trees = [optimise([pair], config, precision=precision)[0] for pair in pairs]
    monkeypatch.setattr(engine, "TreeChamfer", by_tiles)
    start = optimise(pairs, replace(config, iterations=1), precision=precision)
    for found, expected, first in zip(optimise(pairs, config, precision=precision), by_trees, start, strict=True):
        assert_near(found, expected, 0.01 if precision == "fp32" else 0.1)
        assert (found.forward - first.forward).abs().max() > 0.02, "twenty steps of this size tell nothing"


# --- many pairs --------------------------------------------------------------------------------------------


@every_method
def test_a_batch_is_each_pair_alone(method, tiles_for_trees):
    config, pairs = config_of(method), three_pairs()
    for pair, found in zip(pairs, optimise(pairs, config), strict=True):
        assert found.forward.shape == pair[0].shape
        assert_near(found, optimise([pair], config)[0], 1e-3)


def test_grids_of_many_pairs_are_each_alone():
    sizes = ((40, 2.0), (9, 6.0), (1, 3.0))
    targets, others = ([cloud(n, seed + n, spread) for n, spread in sizes] for seed in (0, 1))
    points = torch.stack([cloud(80, seed, 8.0) for seed in range(3)])  # some are outside of every grid
    together = DistanceTransforms(targets, others)
    distances, gradients = together.with_gradient(points)
    assert torch.equal(together(points), distances)
    for i, (target, other) in enumerate(zip(targets, others, strict=True)):
        alone = DistanceTransform(target, other)
        z, y, x = alone.grid.shape
        assert torch.equal(together.grids[i, :z, :y, :x], alone.grid)
        for found, expected in zip((distances[i], gradients[i]), alone.with_gradient(points[i]), strict=True):
            assert torch.equal(found, expected)
    assert not torch.equal(together.grids[0], together.grids[1])


@pytest.mark.parametrize("trees", [True, False])
def test_a_pair_that_diverges_spoils_no_other(trees, monkeypatch):
    if not trees:
        monkeypatch.setattr(engine, "TreeChamfer", by_tiles)
    config, pairs = config_of("nsfp", iterations=5), three_pairs()
    expected, iterate = optimise(pairs, config), engine._Run.iterate

    def spoilt(run, on_iteration):
        run._parameters[0, 1, 77] = torch.nan
        iterate(run, on_iteration)

    monkeypatch.setattr(engine._Run, "iterate", spoilt)
    found = optimise(pairs, config)
    assert found[1].forward.isnan().all() and np.isnan(found[1].loss)
    for i in (0, 2):
        assert torch.equal(found[i].forward, expected[i].forward) and found[i].loss == expected[i].loss
        assert torch.equal(found[i].backward, expected[i].backward)


@every_precision
def test_networks_take_no_notice_of_what_follows_their_parameters(precision):
    # On a GPU rows of parameters end with a few more, for the sake of their length.
    points, pull = (torch.stack([cloud(30, seed), cloud(30, seed + 1)]) for seed in (1, 3))
    answers = []
    for more in (0, 5):
        parameters = torch.nn.functional.pad(torch.stack([initial_parameters(s, "torch") for s in (1, 2)]), (0, more))
        gradients = torch.zeros_like(parameters)
        fields = Fields(parameters, gradients, 30, PRECISIONS[precision])
        answers.append([fields.forward(points).clone(), fields.backward(pull).clone(), gradients[:, : -more or None]])
        assert not gradients[:, gradients.shape[1] - more :].any()
    torch.testing.assert_close(*answers, rtol=1e-3, atol=1e-5)


# --- draws -------------------------------------------------------------------------------------------------


def sweeps_that_differ() -> tuple[list[Tensor], list[Tensor]]:
    scenes = [two_boxes(seed, share).pair for seed, share in ((0, 1.0), (1, 0.4))]
    same = cloud(50, 1)
    pairs = [*(clouds_of(pair) for pair in scenes), (same, same), (same[:1], same[:2] + 9)]
    return [pc0 for pc0, _ in pairs], [pc1 for _, pc1 in pairs]


def differing_rows(clouds: list[Tensor], others: list[Tensor], device: str) -> list[list[int]]:
    inputs = [tensor.to(device) for tensor in (*batch(clouds), *batch(others))]
    return [row.nonzero()[:, 0].tolist() for row in device_sampling.differing(*inputs)]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
def test_where_sweeps_differ_is_found_alike(device):
    clouds, others = sweeps_that_differ()
    for one, other in ((clouds, others), (others, clouds)):
        expected = [sampling.differing(a.numpy(), b.numpy()).tolist() for a, b in zip(one, other, strict=True)]
        assert differing_rows(one, other, device) == expected
        assert len(expected[0]) > 20 and not expected[2]


def drawn_on_device(clouds: list[Tensor], others: list[Tensor], shares: list[float], seed: int = 0, samples: int = 200):
    (pc0, count0), (pc1, count1) = batch(clouds), batch(others)
    return device_sampling.draw((pc0, pc1), (count0, count1), samples, np.array(shares), seed)


def test_draws_have_their_shares():
    clouds, others = sweeps_that_differ()
    shares = [1.0, 0.5, 0.25, 0.0]
    for side, rows in enumerate(drawn_on_device(clouds, others, shares)):
        assert rows.shape == (4, 4, 200) and rows.dtype == torch.int32
        assert (rows.diff(dim=2) >= 0).all()
        pairs = zip(clouds, others, strict=True) if side == 0 else zip(others, clouds, strict=True)
        for pair, (one, other) in enumerate(pairs):
            special = sampling.differing(one.numpy(), other.numpy())
            assert rows[:, pair].min() >= 0 and rows[:, pair].max() < len(one)
            if len(special) == 0:
                continue
            share = np.isin(rows[:, pair].numpy(), special).mean(axis=1)
            by_chance = len(special) / len(one)
            np.testing.assert_allclose(share, shares + (1 - np.array(shares)) * by_chance, atol=0.1)


def test_draws_are_of_all_points_alike():
    same = cloud(50, 1)
    rows, _ = drawn_on_device([same], [same], [0.5] * 30, samples=400)
    counts = np.bincount(rows.numpy().ravel(), minlength=50)
    assert len(counts) == 50 and counts.min() > 170 and counts.max() < 320
    assert len({row.numpy().tobytes() for row in rows[:, 0]}) == 30


def test_draws_depend_on_pair_and_seed_alone():
    clouds, others = sweeps_that_differ()
    state = torch.get_rng_state()
    together, other_seed = (drawn_on_device(clouds, others, [0.5, 0.1], seed) for seed in (0, 1))
    for pair in range(4):
        alone = drawn_on_device(clouds[pair : pair + 1], others[pair : pair + 1], [0.5, 0.1])
        for side in range(2):
            assert torch.equal(alone[side][:, 0], together[side][:, pair])
    assert not torch.equal(together[0], other_seed[0])
    assert not torch.equal(together[0][:, 2], together[1][:, 2]), "each sweep has its own"
    assert torch.equal(torch.get_rng_state(), state)


# --- an iteration as a CUDA graph --------------------------------------------------------------------------


class NothingOfTheHost(TorchDispatchMode):
    """Fails where an operation reads or makes a tensor of the host."""

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        made = operation(*arguments, **(options or {}))
        for tensor in tree_leaves((arguments, options, made)):
            assert not isinstance(tensor, Tensor) or tensor.device.type == "meta", operation
        return made


def moved(thing: object, device: str, known: dict[int, object]) -> object:
    """`thing`, and all tensors that it holds, on another device; the same tensor stays the same."""
    if id(thing) not in known:
        if isinstance(thing, Tensor):
            known[id(thing)] = thing.to(device)
        elif isinstance(thing, (list, tuple)):
            known[id(thing)] = type(thing)(moved(part, device, known) for part in thing)
        elif type(thing).__module__.startswith("zeroflow_core"):
            known[id(thing)] = thing
            parts = {name: moved(part, device, known) for name, part in vars(thing).items()}
            for name, part in parts.items():
                object.__setattr__(thing, name, part)
        else:
            known[id(thing)] = thing
    return known[id(thing)]


@every_method
@every_precision
def test_an_iteration_asks_the_host_for_nothing(method, precision, tiles_for_trees):
    # Tensors without data: whoever asks for some fails, and so does who mixes them with those that have.
    with torch.no_grad():
        run = moved(run_of(three_pairs()[:2], config_of(method), precision), "meta", {})
        with NothingOfTheHost():
            run._step()
        with pytest.raises(RuntimeError, match="meta"):
            run._losses.sum().item()


@pytest.mark.parametrize("method, precision", [("nsfp", "bf16"), ("fastnsf", "fp32")])
def test_an_iteration_once_recorded_is_every_iteration(method, precision, tiles_for_trees):
    # What is not in a tensor would stay as it was when it was recorded.
    config = config_of(method, iterations=6)
    with torch.no_grad():
        eager, recorded = (run_of(three_pairs()[:2], config, precision) for _ in range(2))
        for _ in range(6):
            eager._step()
        recorded._step()
        step = make_fx(lambda: recorded._step())()  # runs it, too
        for _ in range(4):
            step()
        assert torch.equal(recorded._losses, eager._losses) and eager._losses.all()
        assert torch.equal(recorded._parameters, eager._parameters)


class FakeGraph:
    """Stands for `torch.cuda.graph` and `torch.cuda.CUDAGraph`; at its end a capture that failed fails again."""

    def __init__(self) -> None:
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1

    def __enter__(self) -> None: ...

    def __exit__(self, kind, *_) -> None:
        if kind is not None:
            raise RuntimeError("operation failed due to a previous error during capture")


def replayed(monkeypatch, iterations: int, problem: Exception | None = None) -> tuple[int, int, int]:
    """Steps before the capture, replays, steps after it."""
    graph, steps = FakeGraph(), []
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda *_, **__: graph)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(synchronize=lambda: None))
    run, before = object.__new__(engine._Run), min(3, iterations)

    def step() -> None:
        steps.append(1)
        if problem is not None and len(steps) == before + 1:
            raise problem

    run._config, run._step = config_of("nsfp", iterations=iterations), step
    run._replay()
    return before, graph.replays, len(steps) - before - 1


@pytest.mark.parametrize("iterations, replays", [(1, 0), (2, 0), (3, 0), (4, 1), (50, 47)])
def test_all_iterations_are_made(iterations, replays, monkeypatch):
    assert replayed(monkeypatch, iterations) == (min(3, iterations), replays, 0)


def test_what_cannot_be_captured_runs_all_the_same(monkeypatch):
    with pytest.warns(UserWarning, match="the teacher is slower for it: no event may be recorded"):
        assert replayed(monkeypatch, 50, RuntimeError("no event may be recorded")) == (3, 0, 47)


def test_out_of_memory_while_capturing_is_just_that(monkeypatch):
    with pytest.raises(torch.OutOfMemoryError, match="tried to allocate much"):
        replayed(monkeypatch, 50, torch.OutOfMemoryError("tried to allocate much"))


# --- memory ------------------------------------------------------------------------------------------------


def bytes_held(thing: object, known: dict[int, int]) -> dict[int, int]:
    """Memory of all tensors that `thing` holds, by its address."""
    if isinstance(thing, Tensor):
        known[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
    elif isinstance(thing, (list, tuple)) or type(thing).__module__.startswith("zeroflow_core"):
        for part in thing if isinstance(thing, (list, tuple)) else vars(thing).values():
            bytes_held(part, known)
    return known


@every_method
@every_precision
@pytest.mark.parametrize("samples, iterations", [(3072, 300), (500, 2000)])
def test_a_pair_takes_the_memory_that_is_said(method, precision, samples, iterations, tiles_for_trees):
    space = {"minimum": (-8.0, -8.0, -3.0), "maximum": (8.0, 8.0, 3.0)}
    config = config_of(method, samples=samples, iterations=iterations, **space)
    corners = torch.tensor([config.minimum, config.maximum])
    pair = tuple(torch.cat([corners, cloud(3000, seed)]) for seed in (1, 2))
    with torch.no_grad():
        held = sum(bytes_held(run_of([pair], config, precision), {}).values())
    said = engine.bytes_of_pair(config, len(pair[0]))
    assert held <= said < 2 * held


@every_method
def test_as_many_pairs_are_taken_as_half_the_free_memory_holds(method, monkeypatch):
    config, asked = teacher_config(method), []
    each = engine.bytes_of_pair(config)

    def free_for(pairs: float) -> int:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: asked.append(device) or (int(pairs * each), 0))
        return engine.pairs_that_fit(config, "cuda:1")

    assert [free_for(pairs) for pairs in (20.5, 100.5, 1e6, 3.9, 0.5, 0)] == [10, 50, 64, 1, 1, 1]
    assert set(asked) == {"cuda:1"}
    assert engine.pairs_that_fit(config, "cpu") == 1
    assert engine.pairs_that_fit(teacher_config(method, "published"), "cuda") == 1


def gpu_teacher(pairs_in_flight: int) -> Teacher:
    """A teacher that takes its CPU for a GPU."""
    teacher = Teacher("nsfp", config_of("nsfp", iterations=2), device="cpu", pairs_in_flight=pairs_in_flight)
    teacher.device = "cuda"
    return teacher


def numbered_pairs(n: int) -> Iterator[FramePair]:
    """Pairs that tell which they are: by their number of points, from 2 on."""
    for i in range(n):
        yield make_pair(cloud(i + 2, i), cloud(5, i))


@pytest.mark.parametrize("fit, sizes", [(7, [7, 4]), (2, [7, 4, 2, 2, 3, 2, 1, 2, 2]), (1, None)])
def test_out_of_memory_halves_the_batch_and_later_ones_stay_small(fit, sizes, monkeypatch):
    tried = []

    def optimise(clouds, config, *_):
        tried.append(len(clouds))
        if len(clouds) > fit:
            raise torch.OutOfMemoryError("no memory left")
        return [Optimised(torch.full_like(pc0, len(pc0)), torch.zeros_like(pc1), 2, 1.0, 9) for pc0, pc1 in clouds]

    monkeypatch.setattr(teacher_module, "optimise_together", optimise)
    labels = list(gpu_teacher(7).label(numbered_pairs(11)))
    assert [label.flow.vectors[0, 0] for label in labels] == list(range(2, 13))
    assert all(label.problem is None and (label.flow.status == Status.OK).all() for label in labels)
    assert tried == sizes or (sizes is None and tried[0] == 7 and tried[-4:] == [1] * 4)


@pytest.mark.parametrize(
    "problem",
    [
        torch.OutOfMemoryError("no memory left"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
    ],
)
def test_a_pair_that_does_not_fit_alone_is_told_and_the_next_is_labelled(problem, monkeypatch):
    def optimise(clouds, *_):
        if any(len(pc0) == 4 for pc0, _ in clouds):
            raise problem
        return [Optimised(torch.ones_like(pc0), torch.zeros_like(pc1), 2, 1.0, 9) for pc0, pc1 in clouds]

    monkeypatch.setattr(teacher_module, "optimise_together", optimise)
    labels = list(gpu_teacher(5).label(numbered_pairs(6)))
    assert [label.problem is None for label in labels] == [True, True, False, True, True, True]
    assert "memory" in labels[2].problem and (labels[2].flow.status == Status.NO_ESTIMATE).all()


def test_what_ran_out_of_memory_is_gone_before_the_half_is_tried(monkeypatch):
    real, gone = engine.optimise_together, []

    class Run(engine._Run):
        runs: list[weakref.ref] = []

        def __init__(self, clouds, *arguments):
            gone.append(all(run() is None for run in self.runs))
            self.runs.append(weakref.ref(self))
            super().__init__(clouds, *arguments)

        def iterate(self, on_iteration):
            if len(self._pc0) > 1:
                raise torch.OutOfMemoryError("no memory left")
            super().iterate(on_iteration)

    monkeypatch.setattr(engine, "_Run", Run)
    monkeypatch.setattr(
        teacher_module, "optimise_together", lambda clouds, config, *_: real(clouds, config, "fp32", "cpu", 0)
    )
    gc.collect()
    gc.disable()
    try:
        labels = list(gpu_teacher(3).label(numbered_pairs(3)))
    finally:
        gc.enable()
    assert gone == [True] * 5 and len(labels) == 3


def test_sweeps_that_meet_in_one_point_meet():
    # Of most a few points tell; here those few are far from all others.
    pc0, pc1 = cloud(200, 1, 4.0), cloud(200, 2, 4.0) + torch.tensor([20.0, 0, 0])
    teacher = Teacher("nsfp", config_of("nsfp", iterations=1), device="cpu")
    assert "nothing in common" in teacher.label_one(make_pair(pc0, pc1)).problem
    pc1[77] = pc0[133] + 0.1
    assert teacher.label_one(make_pair(pc0, pc1)).problem is None


# --- on a GPU ----------------------------------------------------------------------------------------------


@needs_gpu
@every_method
@every_precision
def test_a_graph_replayed_is_every_iteration(method, precision, monkeypatch):
    config, pairs = config_of(method, iterations=20), three_pairs()
    replayed, again = (optimise(pairs, config, "cuda", precision) for _ in range(2))

    def eagerly(run):
        for _ in range(config.iterations):
            run._step()

    monkeypatch.setattr(engine._Run, "_replay", eagerly)
    for one, same, eager in zip(replayed, again, optimise(pairs, config, "cuda", precision), strict=True):
        assert torch.equal(one.forward, same.forward), "two runs are one"
        assert torch.equal(one.forward, eager.forward) and one.loss == eager.loss


@needs_gpu
@every_method
def test_a_batch_on_a_gpu_is_each_pair_alone(method, recwarn):
    config, pairs = config_of(method), three_pairs()
    for pair, found in zip(pairs, optimise(pairs, config, "cuda"), strict=True):
        assert_near(found, optimise([pair], config, "cuda")[0], 5e-3)
    assert not [str(warning.message) for warning in recwarn if "slower" in str(warning.message)]


@needs_gpu
@every_method
@every_precision
def test_a_gpu_finds_the_motion_that_a_cpu_finds(method, precision):
    # Other points are drawn, so it is not the same to the digit.
    scene = two_boxes()
    config = replace(teacher_config(method), iterations=120, samples=400, precision=precision)
    flows = {
        device: Teacher(method, config, device=device).label_one(scene.pair).flow.vectors for device in ("cpu", "cuda")
    }
    for flow in flows.values():
        assert mean_error(flow, scene.flow0, scene.moving0) < 0.1
        assert mean_error(flow, scene.flow0, ~scene.moving0) < 0.1
    assert np.linalg.norm(flows["cpu"] - flows["cuda"], axis=1).mean() < 0.1


@needs_gpu
def test_memory_that_is_said_is_enough_on_a_gpu():
    config = teacher_config("nsfp")
    pairs = [(cloud(20_000, seed, 60.0), cloud(20_000, seed + 1, 60.0)) for seed in range(8)]
    optimise(pairs, replace(config, iterations=5), "cuda", "bf16")  # what libraries take once
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    optimise(pairs, config, "cuda", "bf16")
    assert torch.cuda.max_memory_allocated() - before < 8 * engine.bytes_of_pair(config, 20_000)
    assert torch.cuda.memory_allocated() == before
