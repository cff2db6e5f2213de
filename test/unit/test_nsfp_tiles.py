"""Nearest neighbours and loss for a GPU, against a KD-tree, all distances in NumPy, and the plain loss.

Plain PyTorch is tested wherever the tests run; the Triton kernels on a GPU, or else in Triton's interpreter.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from zeroflow_core.nsfp import tiles
from zeroflow_core.nsfp.chamfer import Chamfer

NOTHING = np.zeros((0, 3), np.float32)


def _clouds() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Queries and targets, metres."""
    random = np.random.default_rng(7)

    def cloud(rows: int, size: float = 2.0) -> np.ndarray:
        return random.uniform(-size, size, (rows, 3)).astype(np.float32)

    around = np.array([[-30, 0, 0], [0, 10, 1], [45, -45, 2]], np.float32)
    clustered = np.concatenate([centre + cloud(30, 0.3) for centre in around])
    line = np.linspace(0, 20, 65, dtype=np.float32)[:, None] * np.float32([1, 0, 0])
    grid = np.stack(np.meshgrid(*[np.arange(4, dtype=np.float32)] * 3), axis=-1).reshape(-1, 3)
    y, z = np.meshgrid(*[np.arange(64, dtype=np.float32) / 128] * 2)
    wall = np.stack([np.zeros_like(y), y, z], axis=-1).reshape(-1, 3)  # 4096 points: one group of tiles
    stray = cloud(70)
    stray[[3, 40, 69]] = [[np.nan, 0, 0], [0, np.inf, 0], [0, 0, -np.inf]]
    return {
        "random": (cloud(70), cloud(99)),
        "clustered": (clustered + cloud(90, 0.1), clustered[::-1].copy()),
        "duplicates": (np.repeat(cloud(20), 2, axis=0), np.repeat(cloud(40), 3, axis=0)),
        "ties": (grid + np.float32(0.5), grid),
        "between two tiles": (grid[grid[:, 0] == 1] + np.float32([0.5, 0, 0]), grid),
        "between two groups": (
            wall[::128] + np.float32([0.5, 0, 0]),
            np.concatenate([wall, wall + np.float32([1, 0, 0])]),
        ),
        "line": (line + np.float32([0, 1, 0]), line),
        "itself": (stray[:64], stray[:64]),
        "not finite": (stray, stray[::-1].copy()),
        "far apart": (cloud(33), cloud(64) + np.float32(1000)),
        "one query": (cloud(1), cloud(31)),
        "one target": (cloud(65), cloud(1)),
        "no target": (cloud(40), NOTHING),
        "no query": (NOTHING, cloud(40)),
        "nothing": (NOTHING, NOTHING),
        # More than one group of tiles, for few queries.
        "large": (cloud(16, 30.0), np.concatenate([around[1] + cloud(4200, 9.0), cloud(150, 30.0)])),
    }


SINGLE = {name: [pair] for name, pair in _clouds().items()}
BATCHES = SINGLE | {
    "three": [_clouds()[name] for name in ("one target", "ties", "random")],
    "three, some empty": [_clouds()[name] for name in ("no target", "not finite", "no query")],
}
RADII = {"1.4 m": math.sqrt(2), "any": math.inf}


def _batch(clouds: list[np.ndarray], padding: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Clouds, ordered, in one tensor; padding holds points that would be near, and what is no number."""
    counts = torch.tensor([len(cloud) for cloud in clouds], dtype=torch.int32)
    points = torch.zeros(len(clouds), int(counts.max()) + padding, 3)
    points[:, ::2] = math.nan
    for row, cloud in enumerate(clouds):
        points[row, : len(cloud)] = torch.from_numpy(cloud)
    order = tiles.tile_order(points, counts)
    return points.gather(1, order[..., None].expand(-1, -1, 3)), counts


def _inputs(name: str) -> tuple[torch.Tensor, ...]:
    queries, targets = zip(*BATCHES[name], strict=True)
    return *_batch(queries, padding=5), *_batch(targets, padding=3)


def _last_neighbours(queries: torch.Tensor, targets: torch.Tensor, target_count: torch.Tensor) -> torch.Tensor:
    """The index of the last of the targets nearest to each query."""
    distances = torch.cdist(queries, targets, compute_mode="donot_use_mm_for_euclid_dist").nan_to_num(math.inf)
    distances[(torch.arange(targets.shape[1]) >= target_count[:, None])[:, None].expand_as(distances)] = math.inf
    return targets.shape[1] - 1 - distances.flip(2).argmin(dim=2)


def _rubbish(points: torch.Tensor) -> torch.Tensor:
    """A guess that is right by chance at best."""
    return torch.randint(-(2**40), 2**40, points.shape[:2], generator=torch.Generator().manual_seed(1)) % 300 - 100


def _answers(device: str) -> dict[str, torch.Tensor]:
    """What the implementation in use makes of every batch."""
    answers = {}
    for name in BATCHES:
        inputs = _inputs(name)
        last = _last_neighbours(inputs[0], *inputs[2:]).to(device)
        rubbish = tuple(_rubbish(cloud).to(device) for cloud in (inputs[0], inputs[2]))
        inputs = [tensor.to(device) for tensor in inputs]
        for radius, metres in RADII.items():
            squared, index = tiles.nearest(*inputs, metres, last if radius == "1.4 m" else None)
            answers |= {f"{name}, {radius}: squared": squared, f"{name}, {radius}: index": index}
        if inputs[2].shape[1] < 1000:  # else slow to interpret
            loss, gradient = tiles.truncated_chamfer(*inputs, 2.0, rubbish)
            answers |= {f"{name}: loss": loss, f"{name}: gradient": gradient}
            answers |= {f"{name}: forth": rubbish[0], f"{name}: back": rubbish[1]}
    return {key: value.cpu() for key, value in answers.items()}


@pytest.fixture(scope="module")
def plain() -> dict[str, torch.Tensor]:
    return _answers("cpu")


def test_kernels_in_the_interpreter_agree_with_plain_pytorch_to_the_last_bit(plain, tmp_path: Path):
    pytest.importorskip("triton", reason="Triton is not installed")
    answers = tmp_path / "answers.pt"
    _run(f"import test_nsfp_tiles; test_nsfp_tiles.interpret_kernels({str(answers)!r})", TRITON_INTERPRET="1")
    _assert_same(torch.load(answers), plain)


def interpret_kernels(path: str) -> None:
    """In a process where Triton interprets: put the kernels' answers into a file."""
    tiles._runs_triton = lambda device: True
    torch.save(_answers("cpu"), path)


def _run(program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path} | variables
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done


def _assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    different = [
        name for name in expected if not torch.equal(found[name].nan_to_num(-1.0), expected[name].nan_to_num(-1.0))
    ]
    assert different == []


def test_kernels_compile_for_a_gpu_that_is_not_here(tmp_path: Path):
    pytest.importorskip("triton", "3.3", "Triton is not installed, or too old to compile without a GPU")
    program = "import test_nsfp_tiles; test_nsfp_tiles.compile_kernels()"
    done = _run(program, TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path))
    # A fused multiply-add would round distances in its own way.
    assert done.stdout.split() == ["_boxes_kernel", "0"] + 2 * ["_nearest_kernel", "0", "_side_kernel", "0"]


def compile_kernels() -> None:
    """Compile for an H100 and print how many multiply-adds there are in each kernel."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from zeroflow_core.nsfp import tiles_kernel

    types = dict.fromkeys(["count", "query_count", "target_count"], "*i32")
    types |= dict.fromkeys(["index", "loss", "gradient"], "*i64") | {"scale": "fp32"}
    types |= dict.fromkeys(["capacity", "query_capacity", "target_capacity", "groups", "limit_bits"], "i32")
    kernels = [(tiles_kernel._boxes_kernel, 0)]
    for queries in (32, 8):
        kernels += [(tiles_kernel._nearest_kernel, queries), (tiles_kernel._side_kernel, queries)]
    for kernel, queries in kernels:
        constants = {"QUERIES": queries, "TILE": tiles.TILE, "GROUP": tiles_kernel.GROUP, "QUERIES_MOVE": False}
        constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
        signature = {name: "constexpr" if name in constants else types.get(name, "*fp32") for name in kernel.arg_names}
        source = ASTSource(kernel, signature, constants)
        compiled = compile(source, target=GPUTarget("cuda", 90, 32), options=tiles_kernel._OPTIONS | {"num_warps": 1})
        print(kernel.__name__, compiled.asm["ptx"].count("fma."))


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@needs_gpu
@pytest.mark.parametrize("triton", [True, False])
def test_a_gpu_agrees_with_the_cpu_to_the_last_bit(plain, monkeypatch, triton: bool):
    monkeypatch.setattr(tiles, "_runs_triton", lambda device: triton)
    _assert_same(_answers("cuda"), plain)


@needs_gpu
def test_a_captured_loss_follows_the_points():
    moving, moving_count, still, still_count = (tensor.cuda() for tensor in _inputs("three"))
    guess = tuple(torch.full(cloud.shape[:2], -1, device="cuda") for cloud in (moving, still))
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        tiles.truncated_chamfer(moving, moving_count, still, still_count, 2.0, guess)
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph):  # fails where anything waits for the GPU
        loss, gradient = tiles.truncated_chamfer(moving, moving_count, still, still_count, 2.0, guess)
    for _ in range(3):
        moving += 0.1
        graph.replay()
        expected = tiles.truncated_chamfer(moving, moving_count, still, still_count, 2.0)
        assert torch.equal(loss, expected[0]) and torch.equal(gradient, expected[1])


@pytest.mark.parametrize("radius", RADII)
@pytest.mark.parametrize("name", BATCHES)
def test_nearest_is_exact(plain, name: str, radius: str):
    queries, query_counts, targets, target_counts = _inputs(name)
    limit = np.float32(RADII[radius] ** 2)
    for row, (query_count, target_count) in enumerate(zip(query_counts, target_counts, strict=True)):
        near_squared = plain[f"{name}, {radius}: squared"][row].numpy()
        near_index = plain[f"{name}, {radius}: index"][row].numpy()
        squared, index = _all_distances(queries[row, :query_count].numpy(), targets[row, :target_count].numpy(), limit)
        np.testing.assert_array_equal(near_index[:query_count], index)
        np.testing.assert_array_equal(near_squared[:query_count], squared)
        assert (near_index[query_count:] == -1).all() and np.isposinf(near_squared[query_count:]).all()


def _all_distances(queries: np.ndarray, targets: np.ndarray, limit: np.float32) -> tuple[np.ndarray, np.ndarray]:
    squared, index = np.full(len(queries), np.inf, np.float32), np.full(len(queries), -1)
    is_target = np.isfinite(targets).all(axis=1)
    for row, query in enumerate(queries):
        if np.isfinite(query).all() and is_target.any():
            x, y, z = np.where(is_target[:, None], query - targets, np.float32(np.inf)).T
            distances = x * x + y * y + z * z
            if distances.min() < limit:
                squared[row], index[row] = distances.min(), distances.argmin()
    return squared, index


@pytest.mark.parametrize("name", ["random", "clustered", "duplicates", "line", "large"])
def test_nearest_agrees_with_a_kd_tree(plain, name: str):
    queries, query_count, targets, target_count = _inputs(name)
    distance = cKDTree(targets[0, :target_count].numpy()).query(queries[0, :query_count].numpy())[0]
    squared = plain[f"{name}, any: squared"][0, :query_count]
    np.testing.assert_allclose(squared.sqrt().numpy(), distance, rtol=1e-6, atol=1e-7)


def test_the_radius_itself_is_out_of_it():
    queries, count = torch.zeros(1, 1, 3), torch.ones(1, dtype=torch.int32)
    for target, found in (([1.0, 1.0, 0.0], -1), ([1.0, 0.9999999, 0.0], 0)):
        squared, index = tiles.nearest(queries, count, torch.tensor([[target]]), count, math.sqrt(2))
        assert index.item() == found and (squared.item() < 2) == (found == 0)


def test_nearest_takes_many_queries_in_parts(plain, monkeypatch):
    monkeypatch.setattr(tiles, "_DISTANCES_AT_ONCE", 1000)
    squared, index = tiles.nearest(*_inputs("three"), math.inf)
    assert torch.equal(squared, plain["three, any: squared"]) and torch.equal(index, plain["three, any: index"])


@pytest.mark.parametrize("name", ["random", "clustered", "line", "far apart", "one query", "one target"])
def test_chamfer_and_its_gradient_are_those_of_the_plain_loss(plain, name: str):
    moving, moving_count, still, still_count = _inputs(name)
    cloud = moving[0, :moving_count].clone().requires_grad_()
    loss = Chamfer(still[0, :still_count], 2.0)(cloud)
    loss.backward()
    torch.testing.assert_close(plain[f"{name}: loss"][0], loss.detach(), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(plain[f"{name}: gradient"][0, :moving_count], cloud.grad, rtol=1e-5, atol=1e-8)
    assert not plain[f"{name}: gradient"][0, moving_count:].any()


def test_a_sample_stands_for_the_still_cloud_where_that_looks_for_neighbours():
    moving, moving_count, still, still_count = _inputs("random")
    sample, sample_count = still[:, 5:45], torch.tensor([40], dtype=torch.int32)
    loss, gradient = tiles.truncated_chamfer(
        moving, moving_count, still, still_count, 2.0, sample=(sample, sample_count)
    )

    cloud = moving[0, :moving_count].clone().requires_grad_()
    expected = 0.0
    for squared, dim in ((_squared(cloud, still[0, :still_count]), 1), (_squared(cloud, sample[0]), 0)):
        least = squared.amin(dim=dim)
        expected += torch.where(least < 2, least, 0.0).mean()
    expected.backward()
    torch.testing.assert_close(loss[0], expected.detach(), rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient[0, :moving_count], cloud.grad, rtol=1e-5, atol=1e-8)


def _squared(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return (one[:, None] - other).square().sum(dim=2)


@pytest.mark.parametrize("name", ["no target", "no query", "nothing"])
def test_chamfer_of_no_points_is_nothing(plain, name: str):
    assert plain[f"{name}: loss"].tolist() == [0] and not plain[f"{name}: gradient"].any()


def test_chamfer_is_no_number_where_a_point_is_not_finite(plain):
    # Else a flow that has come to nothing but NaN, which has no neighbours, would have the least loss of all.
    assert plain["three, some empty: loss"].isnan().tolist() == [False, True, False]
    assert plain["three, some empty: gradient"].isfinite().all()


def test_chamfer_leaves_the_neighbours_as_the_next_guess(plain):
    name = "three"
    assert torch.equal(plain[f"{name}: forth"], plain[f"{name}, 1.4 m: index"])
    queries, query_count, targets, target_count = _inputs(name)
    _, back = tiles.nearest(targets, target_count, queries, query_count, math.sqrt(2))
    assert torch.equal(plain[f"{name}: back"], back)


def test_neither_the_batch_nor_the_order_of_its_points_changes_a_loss_by_one_bit(plain):
    (moving, moving_count), (still, still_count) = (_batch([cloud]) for cloud in _clouds()["random"])
    order = torch.randperm(still.shape[1], generator=torch.Generator().manual_seed(2))
    loss, gradient = tiles.truncated_chamfer(moving, moving_count, still[:, order], still_count, 2.0)
    assert loss[0] == plain["three: loss"][2]
    assert torch.equal(gradient[0], plain["three: gradient"][2, : moving.shape[1]])


@pytest.mark.parametrize("name", BATCHES)
def test_tile_order_is_a_permutation_with_the_padding_last(name: str):
    clouds = [queries for queries, _ in BATCHES[name]]
    counts = torch.tensor([len(cloud) for cloud in clouds], dtype=torch.int32)
    points = torch.zeros(len(clouds), int(counts.max()) + 7, 3)
    for row, cloud in enumerate(clouds):
        points[row, : len(cloud)] = torch.from_numpy(cloud)
    order = tiles.tile_order(points, counts)
    assert torch.equal(order.sort(dim=1).values, torch.arange(points.shape[1]).expand(len(clouds), -1))
    for row, count in zip(order, counts, strict=True):
        assert (row[:count] < count).all()


@pytest.mark.parametrize("count", [1, 31, 32, 33, 64, 65, 500])
@pytest.mark.parametrize("spacing", [0.0, 1.0])
def test_tile_order_depends_on_no_other_cloud_of_the_batch(count: int, spacing: float):
    points = torch.rand(1, 3000, 3, generator=torch.Generator().manual_seed(count)) * 9
    points = (points / spacing).round() if spacing else points  # with many alike, or with none
    alone = tiles.tile_order(points[:, :count], torch.tensor([count], dtype=torch.int32))
    for rows in (count + 1, 100, 3000):
        order = tiles.tile_order(points[:, : max(rows, count)], torch.tensor([count], dtype=torch.int32))
        assert torch.equal(order[:, :count], alone)


def test_tiles_are_compact():
    points = torch.rand(1, 3000, 3, generator=torch.Generator().manual_seed(3))  # a metre wide
    order = tiles.tile_order(points, torch.tensor([2900], dtype=torch.int32))
    ordered = points[0, order[0]][: 2900 // tiles.TILE * tiles.TILE].view(-1, tiles.TILE, 3)
    extent = ordered.amax(dim=1) - ordered.amin(dim=1)
    assert extent.mean() < 0.25 and extent.max() < 0.55  # 32 of 3000 points fill a cube of 0.22 m


def test_importing_the_search_does_not_load_triton():
    done = _run("import sys, zeroflow_core.nsfp.tiles; print('triton' in sys.modules)")
    assert done.stdout.strip() == "False"


def test_a_device_where_triton_fails_is_served_by_plain_pytorch(monkeypatch):
    class Kernels:
        @staticmethod
        def nearest(*arguments):
            raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(tiles, "_kernels", lambda: Kernels)
    with pytest.warns(UserWarning, match="Triton does not work on cuda:0; plain PyTorch is many times slower"):
        assert not tiles._runs_triton.__wrapped__(torch.device("cuda", 0))
