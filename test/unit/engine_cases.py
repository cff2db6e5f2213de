"""Networks with random weights, clouds that are easy to get wrong, and FastFlow3D in float64 to judge engines by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from weakref import WeakKeyDictionary

import numpy as np
import pytest
import torch

from zeroflow_core.fastflow3d.config import FastFlow3DConfig
from zeroflow_core.fastflow3d.model import FastFlow3D
from zeroflow_core.fastflow3d.pillars import Pillars
from zeroflow_core.fastflow3d.student import Student

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=needs_gpu)]
TOLERANCE_M = 2e-5  # for flows of decimetres, at every point; a fifth of what is promised
Clouds = tuple[np.ndarray, np.ndarray]

# --- networks ----------------------------------------------------------------------------------------------


def grid(
    cells: int, channels: int, blocks: tuple[int, ...], size: float = 0.5, corner: tuple[float, float] | None = None
) -> FastFlow3DConfig:
    """A square grid around the origin, or with its lower corner at `corner`; z from −3 to 3 m, or off the middle."""
    x, y = corner or (-cells * size / 2, -cells * size / 2)
    z = (-3.0, 3.0) if corner is None else (-1.3, 4.1)
    return FastFlow3DConfig((x, y, z[0]), (x + cells * size, y + cells * size, z[1]), size, channels, blocks)


SMALL = grid(32, 4, (1, 2))


def random_network(config: FastFlow3DConfig, seed: int) -> FastFlow3D:
    """No bias is zero, no statistic trivial, some scales are negative; flows are about 0.3 m."""
    generator = torch.Generator().manual_seed(seed)

    def normal(shape: torch.Size, scale: float) -> torch.Tensor:
        return scale * torch.randn(shape, generator=generator)

    model = FastFlow3D(config).eval()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("running_var"):
                value.copy_(0.4 + 1.6 * torch.rand(value.shape, generator=generator))
            elif value.dim() > 1:
                value.copy_(normal(value.shape, (1.6 / value[0].numel()) ** 0.5))
            elif value.dim() == 1:
                value.copy_(normal(value.shape, 0.2))
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                sign = (torch.rand(module.weight.shape, generator=generator) < 0.9) * 2.0 - 1.0
                module.weight.copy_(sign * (0.7 + 0.6 * torch.rand(module.weight.shape, generator=generator)))
        flow = exact_flow(deepcopy(model), *scene(config, seed))
        model.head.decoder[2].weight.mul_(0.3 / float(np.nanstd(flow)))
    return model


def student(model: FastFlow3D, engine: str = "fast", precision: str = "fp32", device: str = "cpu") -> Student:
    """It has a copy of the model to itself."""
    metadata = {"name": "random", "ground": "none", "interval_s": 0.1}
    return Student(deepcopy(model), metadata, device, precision, engine=engine)


_in_float64: WeakKeyDictionary[FastFlow3D, FastFlow3D] = WeakKeyDictionary()


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """So many, while it lasts; as many has an engine that is made here."""
    usual = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


@torch.inference_mode()
@torch_threads(1)  # for so little, one is quicker than two that wait for each other
def exact_flow(model: FastFlow3D, pc0: np.ndarray, pc1: np.ndarray) -> np.ndarray:
    """FastFlow3D in float64, on the CPU; which pillar a point is in, and whether, float32 decides. (N0,3) float64, NaN
    for points outside. The model must not change afterwards."""
    if model not in _in_float64:
        _in_float64[model] = deepcopy(model).cpu().double()
    exact = _in_float64[model]
    net = exact.embedder.feature_net
    clouds = [torch.from_numpy(np.array(cloud, dtype=np.float32)) for cloud in (pc0, pc1)]
    pillars = [_exact_pillars(model.cpu().embedder.feature_net.grid(cloud), net.grid) for cloud in clouds]
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        canvas0, canvas1 = map(net, pillars)
        motion = exact.backbone(canvas0[None], canvas1[None])[0]
        estimate = exact.head(canvas0, canvas1, motion, pillars[0])
    finally:
        torch.set_default_dtype(usual)
    flow = np.full((len(pc0), 3), np.nan)
    flow[pillars[0].index.numpy()] = estimate.numpy()
    return flow


def _exact_pillars(pillars: Pillars, exact_grid: torch.nn.Module) -> Pillars:
    points, cell = pillars.points.double(), pillars.cell
    position = torch.stack([cell % exact_grid.cells, cell // exact_grid.cells, torch.zeros_like(cell)], dim=1)
    return Pillars(points, points - ((position + 0.5) * exact_grid.size + exact_grid.minimum), cell, pillars.index)


def assert_equal(flow: np.ndarray, exact: np.ndarray, tolerance: float = TOLERANCE_M, what: str = "") -> None:
    """The same points have a flow, and it is the same."""
    assert flow.dtype == np.float32 and flow.shape == exact.shape
    np.testing.assert_allclose(flow, exact, atol=tolerance, rtol=0, equal_nan=True, err_msg=what)


# --- clouds ------------------------------------------------------------------------------------------------


def scene(config: FastFlow3DConfig, seed: int, points: int = 600) -> Clouds:
    """Two sweeps: rings of ground, walls and small objects, thinner further out, a tenth of it out of the grid; every
    point moves a little."""
    rng = np.random.default_rng(seed)
    reach = config.cells * config.pillar_size / 2
    height = config.maximum[2] - config.minimum[2]
    kind = rng.integers(3, size=points)
    turn = rng.uniform(0, 2 * np.pi, points)
    ring = 1.3 * reach * (rng.integers(1, 9, points) / 8) ** 2
    ground = np.column_stack([ring * np.cos(turn), ring * np.sin(turn), np.full(points, -0.4 * height)])
    ends = rng.uniform(-1.2 * reach, 1.2 * reach, (4, 2, 2))
    wall, along = rng.integers(4, size=points), rng.uniform(0, 1, (points, 1))
    walls = (1 - along) * ends[wall, 0] + along * ends[wall, 1]
    walls = np.column_stack([walls, rng.uniform(-0.55, 0.55, points) * height])
    objects = rng.uniform(-reach, reach, (5, 3))[rng.integers(5, size=points)] * [1, 1, 0]
    objects += rng.normal(0, 1, (points, 3)) * [0.04 * reach, 0.02 * reach, 0.1 * height]
    at = np.choose(kind[:, None], [ground, walls, objects]) + _middle(config)
    motion = rng.normal(0, 0.05, (points, 3)) + np.where(kind[:, None] == 2, [0.3, 0.1, 0], 0)
    seen = [rng.random(points) < 0.9 for _ in range(2)]
    return at[seen[0]].astype(np.float32), (at + motion)[seen[1]].astype(np.float32)


def spread(config: FastFlow3DConfig, rng: np.random.Generator, points: int) -> np.ndarray:
    """(points,3) float32 anywhere in the grid."""
    return rng.uniform(config.minimum, config.maximum, (points, 3)).astype(np.float32)


def full(config: FastFlow3DConfig, rng: np.random.Generator) -> np.ndarray:
    """At least one point in each pillar, in no order."""
    y, x = np.divmod(np.arange(config.cells**2), config.cells)
    at = np.column_stack([x, y, np.zeros(len(x))]) + rng.uniform(0.1, 0.9, (len(x), 3))
    size = [config.pillar_size, config.pillar_size, config.maximum[2] - config.minimum[2]]
    cloud = np.concatenate([np.array(config.minimum) + at * size, spread(config, rng, len(x) // 3)])
    return rng.permutation(cloud).astype(np.float32)


def cell_edges(config: FastFlow3DConfig) -> np.ndarray:
    """Points on every line between pillars, as near as float32 has them, and its neighbours on both sides."""
    lines = []
    for axis in (0, 1):
        line = config.minimum[axis] + config.pillar_size * np.arange(config.cells + 1)
        by_steps = np.float32(config.minimum[axis]) + np.float32(config.pillar_size) * np.arange(
            config.cells + 1, dtype=np.float32
        )
        line = np.concatenate([line.astype(np.float32), by_steps])
        line = np.concatenate([line, np.nextafter(line, np.float32(-1e9)), np.nextafter(line, np.float32(1e9))])
        points = np.tile(_middle(config).astype(np.float32), (len(line), 1))
        points[:, axis] = line
        points[:, 1 - axis] = np.random.default_rng(axis).permutation(line)
        lines.append(points)
    ceiling = np.tile(_middle(config).astype(np.float32), (6, 1))
    for k, bound in enumerate(np.float32([config.minimum[2], config.maximum[2]])):
        ceiling[3 * k : 3 * k + 3, 2] = bound, np.nextafter(bound, np.float32(-9)), np.nextafter(bound, np.float32(9))
    return np.concatenate([*lines, ceiling])


def strange_rows(config: FastFlow3DConfig, rng: np.random.Generator) -> np.ndarray:
    """Ordinary points and rows that belong nowhere: not finite, huge, or wrapping round to a pillar as integers."""
    size = config.pillar_size
    odd = [np.nan, np.inf, -np.inf, 1e30, -3.4e38, 3.4e38, 1e10, 2.0**32 * size, -(2.0**32) * size, 2.0**31 * size]
    odd += [2.0**63 * size, 2.0**64 * size, config.cells * size * 1000, -1e-45]
    rows = spread(config, rng, 3 * len(odd) + 2)
    for k, value in enumerate(odd):
        rows[3 * k : 3 * k + 3][np.eye(3, dtype=bool)] = value
    rows[-2:] = [[np.nan], [np.inf]]
    return rng.permutation(np.concatenate([rows, spread(config, rng, 40)]))


def single_points(config: FastFlow3DConfig) -> dict[str, np.ndarray]:
    """(1,3) each: in the corner pillars, at the borders' middles, in the grid's middle, on its bounds, just outside."""
    low, high = (np.array(bound, dtype=np.float32) for bound in (config.minimum, config.maximum))
    half, middle = np.float32(config.pillar_size / 2), _middle(config).astype(np.float32)
    places = {}
    for name_x, x in (("left", low[0] + half), ("middle", middle[0]), ("right", high[0] - half)):
        for name_y, y in (("low", low[1] + half), ("middle", middle[1]), ("high", high[1] - half)):
            places[f"{name_x} {name_y}"] = (x, y, middle[2])
    for axis in range(3):
        for name, value in (
            ("on the lower bound", low[axis]),
            ("below it", np.nextafter(low[axis], np.float32(-1e9))),
            ("on the upper bound", high[axis]),
            ("below that", np.nextafter(high[axis], np.float32(-1e9))),
        ):
            places[f"{'xyz'[axis]} {name}"] = tuple(np.where(np.arange(3) == axis, value, middle))
    return {name: np.array([place], dtype=np.float32) for name, place in places.items()}


def _at_corners(config: FastFlow3DConfig, rng: np.random.Generator) -> np.ndarray:
    low, high = np.array(config.minimum[:2]), np.array(config.maximum[:2])
    corner = np.where(rng.random((200, 2)) < 0.5, low, high)
    inwards = np.where(corner == low, 1, -1) * rng.exponential(0.7 * config.pillar_size, (200, 2))
    return np.column_stack([corner + inwards, spread(config, rng, 200)[:, 2]]).astype(np.float32)


def _along_border(config: FastFlow3DConfig, rng: np.random.Generator, axis: int, upper: bool) -> np.ndarray:
    cloud = spread(config, rng, 4 * config.cells)
    depth = rng.uniform(0.01, 0.99, len(cloud)) * config.pillar_size
    cloud[:, axis] = config.maximum[axis] - depth if upper else config.minimum[axis] + depth
    return cloud


def _middle(config: FastFlow3DConfig) -> np.ndarray:
    return (np.array(config.minimum) + np.array(config.maximum)) / 2


NOTHING = np.empty((0, 3), dtype=np.float32)


def _in_one_pillar(config: FastFlow3DConfig, rng: np.random.Generator) -> np.ndarray:
    corner = np.array(config.minimum) + np.floor(0.55 * config.cells) * config.pillar_size * np.array([1, 1, 0])
    size = [config.pillar_size, config.pillar_size, config.maximum[2] - config.minimum[2]]
    return (corner + rng.uniform(0.02, 0.98, (3000, 3)) * size).astype(np.float32)


PAIRS: dict[str, Callable[[FastFlow3DConfig, np.random.Generator], Clouds]] = {
    "a scene": lambda c, rng: scene(c, 1),
    "a dense scene": lambda c, rng: scene(c, 2, 8000),
    "the same cloud twice": lambda c, rng: (scene(c, 3)[0],) * 2,
    "pc0 empty": lambda c, rng: (NOTHING, scene(c, 4)[1]),
    "pc1 empty": lambda c, rng: (scene(c, 5)[0], NOTHING),
    "both empty": lambda c, rng: (NOTHING, NOTHING),
    "nothing in the grid": lambda c, rng: (spread(c, rng, 9) + np.float32(1e4), spread(c, rng, 9) - np.float32(1e4)),
    "one pillar": lambda c, rng: (_in_one_pillar(c, rng), _in_one_pillar(c, rng)),
    "one pillar in a scene": lambda c, rng: (_in_one_pillar(c, rng), scene(c, 6)[1]),
    "every pillar": lambda c, rng: (full(c, rng), full(c, rng)),
    "every pillar, then one point": lambda c, rng: (full(c, rng), spread(c, rng, 1)),
    "one point, then every pillar": lambda c, rng: (spread(c, rng, 1), full(c, rng)),
    "corners": lambda c, rng: (_at_corners(c, rng), _at_corners(c, rng)),
    "lower x": lambda c, rng: (_along_border(c, rng, 0, False), _along_border(c, rng, 0, False)),
    "upper x": lambda c, rng: (_along_border(c, rng, 0, True), _along_border(c, rng, 0, True)),
    "lower y": lambda c, rng: (_along_border(c, rng, 1, False), _along_border(c, rng, 1, False)),
    "upper y": lambda c, rng: (_along_border(c, rng, 1, True), _along_border(c, rng, 1, True)),
    "opposite borders": lambda c, rng: (_along_border(c, rng, 0, False), _along_border(c, rng, 0, True)),
    "edges of pillars": lambda c, rng: (cell_edges(c), scene(c, 7)[1]),
    "edges of pillars twice": lambda c, rng: (cell_edges(c), rng.permutation(cell_edges(c))),
    "each point many times": lambda c, rng: (np.repeat(spread(c, rng, 9), 40, 0), np.tile(spread(c, rng, 9), (40, 1))),
    "strange rows": lambda c, rng: (strange_rows(c, rng), strange_rows(c, rng)),
    "only strange rows": lambda c, rng: (np.full((5, 3), np.nan, np.float32), np.full((4, 3), np.inf, np.float32)),
}
