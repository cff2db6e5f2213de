"""The fast engine says what FastFlow3D says: for every shape of network, cloud and input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_cases import (
    DEVICES,
    NOTHING,
    PAIRS,
    SMALL,
    assert_equal,
    exact_flow,
    grid,
    random_network,
    scene,
    single_points,
    student,
)

from zeroflow_core.fastflow3d.engine.fold import dense_macs

# Sides that tiles of four don't divide at some level, from one pillar at the coarsest on; channels that vectors
# of eight don't divide; sizes that float32 can't hold; grids that the origin is no middle of, or isn't in.
CONFIGS = {
    "16 cells": grid(16, 4, (1,)),
    "2 cells": grid(2, 4, (1,)),
    "4 cells, 2 stages": grid(4, 6, (1, 2)),
    "24 to 3": grid(24, 6, (2, 3, 3), 0.2, (-3.7, 12.4)),
    "40 to 5": grid(40, 16, (2, 3, 3), 0.1),
    "200 to 25": grid(200, 4, (1, 1, 1), 0.512),
    "32 channels": grid(16, 32, (1, 2), 0.2),
    "as deep as 1x": grid(24, 8, (4, 6, 6), 0.2),
    "12 to 6, deep": grid(12, 4, (5,), 0.3, (-0.9, -2.1)),
    "48 to 3, 4 stages": grid(48, 4, (1, 1, 2, 1), 0.2),
    "16 to 1, 4 stages": grid(16, 4, (2, 1, 1, 2), 1.1),
    "28 to 7, 5 channels": grid(28, 5, (3, 2), 0.7, (100.3, -250.9)),
    "not a whole number of pillars": replace(SMALL, maximum=(8.2, 8.2, 3.0)),
}


@pytest.fixture(scope="module", params=CONFIGS.values(), ids=CONFIGS.keys())
def model(request):
    return random_network(request.param, seed=len(str(request.param)))


@pytest.fixture(scope="module", params=DEVICES)
def fast(request, model):
    """One engine for all clouds of a network: what an earlier one leaves behind must not show."""
    return student(model, device=request.param)


@pytest.fixture(scope="module")
def small():
    return random_network(SMALL, 7)


@pytest.mark.parametrize("name", PAIRS)
def test_every_kind_of_pair(model, fast, name):
    clouds = PAIRS[name](model.config, np.random.default_rng(len(name)))
    assert_equal(fast.flow(*clouds), exact_flow(model, *clouds))


def test_one_point(model, fast):
    config = model.config
    partners = [lambda point: point, lambda point: NOTHING, lambda point: scene(config, 8)[1]]
    inside = 0
    points = list(single_points(config).values())[:: 4 if config.cells > 100 else 1]
    for k, point in enumerate(points, start=config.cells):
        pc1 = partners[k % 3](point)
        flow = fast.flow(point, pc1)
        assert_equal(flow, exact_flow(model, point, pc1))
        inside += bool(np.isfinite(flow).all())
    assert 0.5 * len(points) <= inside < len(points)


def test_the_reference_is_what_engines_are_judged_by(model):
    """Or else the rounding of one is counted as the other's fault."""
    reference = student(model, "reference")
    for name in ("a dense scene", "edges of pillars", "strange rows"):
        clouds = PAIRS[name](model.config, np.random.default_rng(len(name)))
        assert_equal(reference.flow(*clouds), exact_flow(model, *clouds), 2e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_the_order_of_points_is_no_matter(small, device):
    fast, rng = student(small, device=device), np.random.default_rng(2)
    pc0, pc1 = scene(SMALL, 9, 3000)
    order = rng.permutation(len(pc0))
    flow = fast.flow(pc0, pc1)
    assert np.nanstd(flow) > 0.1
    np.testing.assert_allclose(fast.flow(pc0[order], rng.permutation(pc1)), flow[order], atol=1e-5, rtol=0)
    by_place = np.lexsort(pc0.T)
    np.testing.assert_allclose(fast.flow(pc0[by_place], pc1), flow[by_place], atol=1e-5, rtol=0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "form",
    [
        lambda c: c.astype(np.float64),
        lambda c: c.astype(">f4"),
        lambda c: np.asfortranarray(c),
        lambda c: np.repeat(c, 3, axis=0)[::3],
        lambda c: c[::-1].copy()[::-1],
        lambda c: np.column_stack([c, c])[:, :3],
        lambda c: np.column_stack([c[:, ::-1], c])[:, 2::-1],
        lambda c: np.frombuffer(b"x" + c.tobytes(), dtype=np.uint8)[1:].view(np.float32).reshape(-1, 3),
        lambda c: torch.from_numpy(c),
        lambda c: torch.from_numpy(c).double(),
        lambda c: torch.from_numpy(c).T.contiguous().T,
        lambda c: torch.from_numpy(np.repeat(c, 2, axis=0))[::2],
        lambda c: torch.from_numpy(c).requires_grad_(),
    ],
    ids=[
        "float64",
        "big-endian",
        "Fortran",
        "every third row",
        "backwards",
        "a part of rows",
        "rows backwards",
        "unaligned, read-only",
        "tensor",
        "float64 tensor",
        "transposed tensor",
        "every second row of a tensor",
        "tensor with gradient",
    ],
)
def test_every_form_of_cloud(small, form, device):
    fast = student(small, device=device)
    clouds = scene(SMALL, 10)
    usual = fast.flow(*clouds)
    given = [form(cloud) for cloud in clouds]
    for cloud in given:
        if isinstance(cloud, np.ndarray):
            cloud.flags.writeable = False
    flow = student(small, device=device).flow(*given)
    if isinstance(given[0], torch.Tensor):
        assert isinstance(flow, torch.Tensor) and flow.dtype == torch.float32 and flow.device.type == device
        assert not flow.requires_grad
        flow = flow.cpu().numpy()
    assert isinstance(flow, np.ndarray) and flow.dtype == np.float32
    np.testing.assert_allclose(flow, usual, atol=1e-6, rtol=0)
    for cloud, original in zip(given, clouds, strict=True):
        array = cloud.detach().numpy() if isinstance(cloud, torch.Tensor) else cloud
        np.testing.assert_array_equal(array, original)


def test_the_first_cloud_says_what_comes_back(small):
    fast = student(small)
    pc0, pc1 = scene(SMALL, 11)
    array, tensor = fast.flow(pc0, torch.from_numpy(pc1)), fast.flow(torch.from_numpy(pc0), pc1)
    assert isinstance(array, np.ndarray) and isinstance(tensor, torch.Tensor)
    np.testing.assert_allclose(tensor.numpy(), array, atol=1e-6, rtol=0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["16 cells", "32 channels", "as deep as 1x"])
def test_bf16_is_near(name, device):
    """Whatever the machine has for it: the same points, and flows that differ by some hundredths."""
    config = CONFIGS[name]
    model = random_network(config, 12)
    fast = student(model, precision="bf16", device=device)
    for kind in ("a dense scene", "every pillar", "strange rows", "both empty", "one pillar in a scene"):
        clouds = PAIRS[kind](config, np.random.default_rng(12))
        flow, exact = fast.flow(*clouds), exact_flow(model, *clouds)
        np.testing.assert_array_equal(np.isnan(flow), np.isnan(exact))
        if np.isfinite(exact).any():
            error = np.linalg.norm(flow - exact, axis=1)
            assert np.nanmean(error) < 0.02 * np.nanmean(np.linalg.norm(exact, axis=1)), kind


def test_work_is_counted_and_grows_with_the_cloud():
    config = grid(64, 8, (1, 2), 0.2)
    fast, rng, work = student(random_network(config, 13)), np.random.default_rng(13), []
    middle = rng.normal(0, 0.4, (50, 3)).astype(np.float32)
    for name, clouds in (("few", (middle, middle)), ("all", PAIRS["every pillar"](config, rng))):
        fast.flow(*clouds)
        work.append(fast.network.flops)
        assert isinstance(work[-1], int), name
    assert 0 < work[0] < 0.5 * min(work[1], 2 * dense_macs(config))


def test_wrong_shapes_are_refused_and_forgotten(small):
    fast = student(small)
    clouds = scene(SMALL, 14)
    before = fast.flow(*clouds)
    for bad in (np.zeros((4, 4), np.float32), np.zeros(3, np.float32), np.zeros((0,), np.float32)):
        for pair, name in (((bad, clouds[1]), "pc0"), ((clouds[0], bad), "pc1")):
            with pytest.raises(ValueError, match=rf"{name} must be \(N, 3\)"):
                fast.flow(*pair)
    np.testing.assert_allclose(fast.flow(*clouds), before, atol=1e-6, rtol=0)
