"""The ray caster against plain arithmetic: every ray with every solid, in float64 and without any culling."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from zeroflow_core.simulation.raycast import GROUND, NOTHING, Caster, Columns
from zeroflow_core.simulation.scene import Body, Scene
from zeroflow_core.simulation.solids import Material, Shape, Solid, rotation_from_turn
from zeroflow_core.simulation.terrain import Road, Terrain
from zeroflow_core.simulation.tracks import Track, knot_times

TIMES = knot_times(1.0)
RANGE = 90.0
TANGENTS = np.tan(np.radians(np.linspace(-28, 16, 23)))
BURIED = Terrain(slope=(0.0, 0.0), waves=((0.0, 0.0, -np.pi / 2, 500.0),))  # ground out of everybody's way
STANDING = Track(np.zeros((len(TIMES), 3)), np.zeros((len(TIMES), 3)))


def scene_of(*bodies: Body, terrain: Terrain = BURIED) -> Scene:
    return Scene("test", TIMES, terrain, bodies, (), STANDING)


def columns(count=180, tilt=(0.0, 0.0), speed=0.0, shift=(0.0, 0.0, 0.0), height=1.8, step=-1, start=3.0) -> Columns:
    """A revolution in 0.1 s of a head at (0, 0, height) that moves along x."""
    azimuth = start + step * 2 * np.pi / count * np.arange(count)
    mounting = rotation_from_turn(np.array([*tilt, 0.0]))
    level = np.stack([np.cos(azimuth), np.sin(azimuth), 0 * azimuth]).T @ mounting.T
    time = np.arange(count) / count * 0.1
    origin = np.stack([speed * time, 0 * time, 0 * time + height]).T - shift
    up = np.broadcast_to(mounting[:, 2], level.shape)
    rows = (torch.from_numpy(np.ascontiguousarray(v.T, dtype=np.float32)) for v in (origin, level, up))
    tangents = torch.tensor(TANGENTS, dtype=torch.float32)
    return Columns(*rows, np.array(shift), torch.from_numpy(time), step * 2 * np.pi / count, tangents)


def dense(caster: Caster, columns: Columns) -> np.ndarray:
    """λ (C, B, S) float64 at which each ray enters each solid; inf where it does not."""
    result = np.full((len(columns.time), len(TANGENTS), len(caster.solids)), np.inf)
    o, u, w = (v.numpy().T.astype(np.float64) for v in (columns.origin, columns.level, columns.up))
    o = o + columns.shift
    d = u[:, None] + TANGENTS[None, :, None] * w[:, None]
    for number, solid in enumerate(caster.solids):
        body = caster.scene.bodies[int(caster.body[number])]
        for c, time in enumerate(columns.time.tolist()):
            rotation, position = np.eye(3), np.zeros(3)
            if body.track is not None:
                pose = body.track.pose(TIMES, time)
                rotation, position = pose.rotation, pose.translation
            rotation, position = rotation @ solid.rotation, rotation @ np.array(solid.centre) + position
            p, q = rotation.T @ (o[c] - position) / solid.half, d[c] @ rotation / solid.half
            result[c, :, number] = enter(solid.shape, p, q)
    return np.where((result > 0.4) & (result < RANGE), result, np.inf)


def enter(shape: Shape, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        first, second = (-1 - p) / q, (1 - p) / q
        near, far = np.minimum(first, second), np.maximum(first, second)
        axes = {Shape.BOX: 0, Shape.CYLINDER: 2, Shape.ELLIPSOID: 3}[shape]
        spans = [(near[:, 0], far[:, 0]), (near[:, 1], far[:, 1])] if shape is Shape.BOX else []
        if shape is not Shape.ELLIPSOID:
            spans.append((near[:, 2], far[:, 2]))
        if axes:
            a, b = (q[:, :axes] ** 2).sum(1), (q[:, :axes] * p[:axes]).sum(1)
            root = np.sqrt(b**2 - a * ((p[:axes] ** 2).sum() - 1))
            spans.append(((-b - root) / a, (-b + root) / a))
        low = np.max([span[0] for span in spans], axis=0)
        high = np.min([span[1] for span in spans], axis=0)
        return np.where(low <= high, low, np.inf)  # NaN: passes by


def agree(caster: Caster, columns: Columns) -> tuple[int, int]:
    """Compare; (rays that hit, rays that differ at the very edge of something)."""
    truth = dense(caster, columns).reshape(-1, len(caster.solids))
    hits = caster.cast(columns, RANGE)
    depth, solid = hits.depth.numpy().astype(np.float64), hits.solid.numpy()
    best = truth.min(axis=1)
    with np.errstate(invalid="ignore"):
        same = (np.isinf(depth) & np.isinf(best)) | (np.abs(depth - best) < 2e-3 + 1e-4 * best)
    known = np.isfinite(depth) & same
    assert (solid[np.isinf(depth)] == NOTHING).all()
    for ray in np.flatnonzero(known):
        assert truth[ray, solid[ray]] == pytest.approx(best[ray], abs=2e-2)
    return int(np.isfinite(best).sum()), int((~same).sum())


def some_solids(rng: np.random.Generator, count: int, spread: float, steep: bool) -> tuple[Solid, ...]:
    solids = []
    for _ in range(count):
        half = tuple(rng.uniform(0.05, 3.0, 3))
        turn = rng.uniform(-np.pi, np.pi, 3) if steep else np.array([0, 0, rng.uniform(-np.pi, np.pi)])
        place = (*rng.uniform(-spread, spread, 2), rng.uniform(-1, 5))
        solids.append(Solid(Shape(int(rng.integers(3))), half, place, tuple(turn)))
    return tuple(solids)


@pytest.mark.parametrize("steep", [False, True])
@pytest.mark.parametrize("tilt", [(0.0, 0.0), (0.05, -0.12)])
def test_static_solids_are_met_where_plain_arithmetic_meets_them(steep, tilt):
    rng = np.random.default_rng(5)
    caster = Caster(scene_of(Body(some_solids(rng, 60, 50.0, steep))))
    hit, differ = agree(caster, columns(tilt=tilt))
    assert hit > 600 and differ <= hit * 2e-3


@pytest.mark.parametrize("step", [-1, 1])
def test_moving_bodies_are_met_where_they_are_when_the_column_is_fired(step):
    rng = np.random.default_rng(6)
    bodies = [Body(some_solids(rng, 10, 30.0, False))]
    for _ in range(25):
        place, velocity = rng.uniform(-35, 35, 3) * [1, 1, 0], rng.uniform(-35, 35, 3) * [1, 1, 0.02]
        turn, spin = rng.uniform(-0.1, 0.1, 3), rng.uniform(-1, 1, 3) * [0.3, 0.3, 2]
        seconds = TIMES[:, None]
        bodies.append(Body(some_solids(rng, 2, 2.0, False), Track(place + velocity * seconds, turn + spin * seconds)))
    hit, differ = agree(Caster(scene_of(*bodies)), columns(speed=25.0, tilt=(0.02, 0.03), step=step))
    assert hit > 800 and differ <= hit * 5e-3


def test_a_world_far_from_its_origin_is_as_exact():
    rng = np.random.default_rng(7)
    far = np.array([1300.0, -900.0, 40.0])
    near = some_solids(rng, 40, 40.0, False)
    moved = tuple(Solid(s.shape, s.half, tuple(np.array(s.centre) + far), s.turn) for s in near)
    here = Caster(scene_of(Body(near))).cast(columns(), RANGE)
    there = Caster(scene_of(Body(moved))).cast(replace(columns(), shift=far), RANGE)
    torch.testing.assert_close(here.depth, there.depth, atol=1e-3, rtol=0)


def test_leaves_and_glass_let_their_share_of_beams_through_and_always_in_the_same_places():
    pane = Solid(Shape.BOX, (0.05, 60.0, 10.0), (10.0, 0.0, 0.0), material=Material(loss=0.3))
    wall = Solid(Shape.BOX, (0.05, 200.0, 200.0), (20.0, 0.0, 0.0))
    caster = Caster(scene_of(Body((wall, pane))))
    whole = Caster(scene_of(Body((Solid(pane.shape, pane.half, pane.centre),))))
    hits, again, dense = (caster.cast(columns(count=count), RANGE) for count in (2000, 2000, 4000))
    assert caster.solids == [wall, pane]
    through = torch.isfinite(whole.cast(columns(count=2000), RANGE).depth) & (hits.solid == 0)
    met = torch.isfinite(whole.cast(columns(count=2000), RANGE).depth)
    assert through.sum() / met.sum() == pytest.approx(0.3, abs=0.04)
    assert torch.equal(hits.solid, again.solid)
    assert torch.equal(hits.solid.view(2000, -1), dense.solid.view(4000, -1)[::2]), "whichever beam comes by"
    neighbours = through.view(2000, -1)[:-1] == through.view(2000, -1)[1:]
    assert neighbours[met.view(2000, -1)[1:]].float().mean() > 0.75, "gaps are wider than a beam"


@pytest.mark.parametrize("tilt", [(0.0, 0.0), (0.04, 0.06)])
def test_the_ground_is_the_first_place_where_a_ray_is_below_it(tilt):
    terrain = Terrain(
        (0.02, -0.01),
        ((0.05, 0.02, 0.3, 0.3), (0.02, -0.06, 1.0, 0.2)),
        (Road((0.0, 0.0), 0.2, 4.0), Road((25.0, 0.0), 1.7, 3.0)),
        kerb=0.15,
        bank=(1.5, 5.0, 8.0),
    )
    head = columns(count=90, tilt=tilt, height=2.0)
    hits = Caster(scene_of(terrain=terrain)).cast(head, RANGE)
    o, u, w = (v.numpy().T.astype(np.float64) for v in (head.origin, head.level, head.up))
    d = (u[:, None] + TANGENTS[None, :, None] * w[:, None]).reshape(-1, 3)
    o = np.repeat(o, len(TANGENTS), axis=0)
    steps = np.linspace(0.5, RANGE, 60_000)
    first = np.full(len(d), np.inf)
    for ray in range(0, len(d), 7):
        path = o[ray] + steps[:, None] * d[ray]
        below = path[:, 2] < terrain.at(path[:, :2])
        if below.any():
            first[ray] = steps[below.argmax()]
    checked = np.arange(0, len(d), 7)
    depth = hits.depth.numpy()[checked]
    truth = first[checked]
    assert ((hits.solid.numpy()[checked] == GROUND) == np.isfinite(depth)).all()
    near = truth < 60  # farther out the rays graze and millimetres of height are metres of range
    assert near.sum() > 150
    off = np.abs(depth[near] - truth[near])
    assert np.median(off) < 3e-3 and (off > 0.05).mean() < 0.02


def test_one_sweep_more_or_less_of_surroundings_changes_nothing_near():
    """Culling by sector and box must not depend on what else there is."""
    rng = np.random.default_rng(9)
    near, far = some_solids(rng, 30, 25.0, False), some_solids(rng, 200, 600.0, False)
    far = tuple(s for s in far if np.hypot(*s.centre[:2]) > RANGE + 10)
    alone, crowded = (Caster(scene_of(Body(s))).cast(columns(), RANGE).depth for s in (near, near + far))
    assert torch.equal(alone, crowded)
