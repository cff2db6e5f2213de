"""Models of the generated world: boxes that hold them, plausible sizes, one model per seed."""

import numpy as np
import pytest
from av2.datasets.sensor.constants import AnnotationCategories

from zeroflow_core.simulation import people, roadside, vehicles
from zeroflow_core.simulation.model import Model
from zeroflow_core.simulation.scan import Simulator
from zeroflow_core.simulation.scanners import SCANNERS
from zeroflow_core.simulation.scene import EGO_HEIGHT, Body, Scene
from zeroflow_core.simulation.solids import Material, Shape, Solid, rotation_from_turn
from zeroflow_core.simulation.terrain import Terrain
from zeroflow_core.simulation.tracks import Track, knot_times

# category: ranges of length, width and height in metres
PLAUSIBLE = {
    "REGULAR_VEHICLE": ((3.6, 6.1), (1.65, 2.15), (1.35, 2.05)),
    "LARGE_VEHICLE": ((5.2, 7.0), (1.95, 2.2), (2.3, 2.9)),
    "BOX_TRUCK": ((6.2, 10.0), (2.2, 2.6), (2.9, 3.9)),
    "TRUCK": ((6.5, 9.0), (2.3, 2.7), (2.4, 3.9)),
    "TRUCK_CAB": ((4.8, 8.0), (2.4, 2.65), (2.8, 4.0)),
    "VEHICULAR_TRAILER": ((11.0, 16.5), (2.4, 2.65), (2.1, 4.2)),
    "BUS": ((10.0, 12.5), (2.4, 2.65), (3.0, 3.6)),
    "SCHOOL_BUS": ((8.8, 12.0), (2.3, 2.6), (2.9, 3.4)),
    "MOTORCYCLE": ((1.7, 2.3), (0.5, 0.9), (0.9, 1.4)),
    "MOTORCYCLIST": ((0.6, 1.1), (0.4, 0.8), (1.1, 1.6)),
    "BICYCLE": ((1.5, 1.9), (0.4, 0.7), (0.9, 1.3)),
    "BICYCLIST": ((0.5, 1.1), (0.4, 0.8), (1.3, 1.8)),
    "PEDESTRIAN": ((0.2, 1.3), (0.35, 0.9), (1.0, 1.96)),
    "STROLLER": ((0.7, 1.3), (0.4, 0.8), (0.8, 1.2)),
    "WHEELCHAIR": ((0.7, 1.2), (0.5, 0.8), (1.1, 1.5)),
    "BOLLARD": ((0.1, 0.4), (0.1, 0.4), (0.6, 1.2)),
    "CONSTRUCTION_CONE": ((0.2, 0.5), (0.2, 0.5), (0.4, 1.0)),
    "CONSTRUCTION_BARREL": ((0.5, 0.8), (0.5, 0.8), (0.8, 1.2)),
    "STOP_SIGN": ((0.05, 0.2), (0.5, 0.9), (2.2, 3.3)),
    "SIGN": ((0.05, 0.2), (0.2, 0.9), (2.2, 3.5)),
}
VEHICLES = [vehicles.car, vehicles.van, vehicles.box_truck, vehicles.truck, vehicles.tractor_trailer, vehicles.bus]
RIDDEN = [vehicles.motorcycle, people.bicycle, people.cyclist, people.motorcyclist]
ON_FOOT = [people.pedestrian, people.bystander, people.with_stroller, people.wheelchair]
SIGNS = [roadside.bollard, roadside.cone, roadside.barrel, roadside.stop_sign, roadside.sign]
POINTS = [roadside.tree, roadside.conifer, roadside.bush, roadside.pole, roadside.lamp_post, roadside.traffic_light]
POINTS += [roadside.bench, roadside.bin, roadside.bus_shelter, roadside.house]
LONG = [roadside.hedge, roadside.thicket, roadside.fence, roadside.wall, roadside.guard_rail, roadside.facade_row]
LONG += [roadside.office_block, roadside.gantry, roadside.bridge]
SEEDS = range(50)
LIMB_SLACK = 0.003  # metres by which a limb may leave the box, which is found from a few angles of its swing


def models(kind, seed) -> list[Model]:
    made = kind(np.random.default_rng(seed))
    return [part for part in (made if isinstance(made, tuple) else (made,)) if isinstance(part, Model)]


def surface(solid: Solid) -> np.ndarray:
    """Points (N,3) of its surface in its body's frame, the outermost among them."""
    turn = np.linspace(0, 2 * np.pi, 25)
    if solid.shape is Shape.BOX:
        unit = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1]), axis=-1).reshape(-1, 3)
    elif solid.shape is Shape.CYLINDER:
        unit = np.concatenate([np.stack([np.cos(turn), np.sin(turn), 0 * turn + z], axis=1) for z in (-1, 1)])
    else:
        level = np.linspace(-np.pi / 2, np.pi / 2, 13)[:, None]
        ring = np.stack([np.cos(level) * np.cos(turn), np.cos(level) * np.sin(turn), np.sin(level) + 0 * turn])
        unit = ring.reshape(3, -1).T
    return unit * solid.half @ solid.rotation.T + solid.centre


def points(model: Model, travelled: float) -> np.ndarray:
    parts = [surface(solid) for solid in model.solids]
    for limb in model.limbs:
        turn = rotation_from_turn(np.array([0.0, float(limb.angle(travelled)), 0.0]))
        parts += [surface(solid) @ turn.T + limb.joint for solid in limb.solids]
    return np.concatenate(parts)


@pytest.mark.parametrize("kind", VEHICLES + RIDDEN + ON_FOOT + SIGNS, ids=lambda kind: kind.__name__)
def test_a_models_box_is_plausible_and_holds_it_at_every_step(kind):
    for model in (model for seed in SEEDS for model in models(kind, seed)):
        assert model.category in AnnotationCategories.__members__
        for size, (low, high) in zip(model.size, PLAUSIBLE[model.category], strict=True):
            assert low <= size <= high, (model.category, model.size)
        assert abs(model.centre[1]) < 0.1
        reaches_out = model.category == "STROLLER" or kind is people.bystander
        assert abs(model.centre[0]) < 0.1 or reaches_out
        bottom = model.centre[2] - model.size[2] / 2
        assert 0 <= round(bottom, 9) <= 0.3
        strides = [limb.stride for limb in model.limbs] or [1.0]
        for travelled in np.linspace(0, strides[0], 5 if model.limbs else 1):
            outside = np.abs(points(model, travelled) - model.centre) - np.array(model.size) / 2
            assert outside.max() < (LIMB_SLACK if model.limbs else 1e-6), (model.category, travelled)
        assert len(model.solids) + sum(len(limb.solids) for limb in model.limbs) <= 15


def test_the_kinds_of_vehicles_all_occur():
    seen = {model.category for kind in VEHICLES + RIDDEN + ON_FOOT + SIGNS for s in SEEDS for model in models(kind, s)}
    assert seen == set(PLAUSIBLE)


@pytest.mark.parametrize("kind", VEHICLES + [vehicles.motorcycle, people.bicycle], ids=lambda kind: kind.__name__)
def test_wheels_touch_the_ground(kind):
    for model in (model for seed in SEEDS for model in models(kind, seed)):
        assert points(model, 0.0)[:, 2].min() == pytest.approx(0.0, abs=1e-9)


def test_opposite_legs_and_a_step_that_fits_the_stride():
    for seed in SEEDS:
        (walker,) = models(people.pedestrian, seed)
        left, right = (limb for limb in walker.limbs if limb.joint[2] < 0.6 * walker.size[2])
        travelled = np.linspace(0, 3, 31)
        np.testing.assert_allclose(left.angle(travelled), -right.angle(travelled), atol=1e-12)
        step = 4 * left.joint[2] * np.sin(left.swing)  # both legs, to and fro
        assert 0.75 < step / left.stride < 1.35


def test_trailer_and_tractor_hang_together():
    for seed in SEEDS:
        tractor, trailer, back, ahead = vehicles.tractor_trailer(np.random.default_rng(seed))
        assert 0 < back < tractor.size[0] / 2 and 0 < ahead < trailer.size[0] / 2
        # the trailer's front corners pass behind the cab, which is what reaches above its floor
        above = [p[:, 0].min() for p in map(surface, tractor.solids) if p[:, 2].max() > 1.2]
        corner = np.hypot(trailer.size[0] / 2 - ahead, trailer.size[1] / 2)
        assert min(above) + back > corner


def test_who_stands_takes_less_room_than_who_walks():
    standing, walking = ([models(kind, seed)[0] for seed in SEEDS] for kind in (people.bystander, people.pedestrian))
    assert not any(model.limbs for model in standing)
    length, width, _ = np.median([model.size for model in standing], axis=0)
    assert 0.4 < length < 0.65 < 0.8 * np.median([model.size[0] for model in walking])
    assert 0.55 < width < 0.75


def test_a_rider_sits_on_what_is_ridden():
    for kind in (people.cyclist, people.motorcyclist):
        for seed in SEEDS:
            rider, machine = models(kind, seed)
            assert rider.category.removesuffix("IST") == machine.category.removesuffix("E")
            top = rider.centre[2] + rider.size[2] / 2
            assert 1.45 < top < 2.0 and top > machine.size[2] + 0.3


@pytest.mark.parametrize("kind", POINTS + LONG, ids=lambda kind: kind.__name__)
def test_what_stands_beside_the_road_stands_on_the_ground(kind):
    length = (24.0,) if kind in LONG else ()
    for seed in SEEDS:
        solids = kind(np.random.default_rng(seed), *length)
        low = min(surface(solid)[:, 2].min() for solid in solids)
        assert -1.0 < low < 0.0
        assert all(min(solid.half) > 0 for solid in solids)
        (x0, x1), (y0, y1) = roadside.footprint(solids)
        if kind in LONG[:-2]:
            assert x1 - x0 == pytest.approx(24.0, abs=0.2)
        if kind in (roadside.house, roadside.facade_row, roadside.office_block):
            assert y1 < 0.4 and y0 < -6


@pytest.mark.parametrize("kind", VEHICLES + RIDDEN + ON_FOOT + SIGNS + POINTS, ids=lambda kind: kind.__name__)
def test_a_seed_is_all_there_is_to_a_model(kind):
    first, again, other = (kind(np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first == again and first != other


def test_beams_end_all_through_a_crown():
    times = knot_times(0.2)
    ego = Track(np.tile([0.0, 0.0, EGO_HEIGHT], (len(times), 1)), np.zeros((len(times), 3)))
    depth = []
    for seed in range(6):
        tree = roadside.placed(roadside.tree(np.random.default_rng(seed)), 12.0, 0.0, 0.0, 0.0)
        scene = Scene("tree", times, Terrain(), (Body(tree),), (), ego)
        simulated = Simulator(scene, SCANNERS["av2"], seed).sweep(0)
        points = simulated.sweep.points[~simulated.is_ground]
        points = points[points[:, 2] > tree[0].centre[2] - EGO_HEIGHT]  # the crown's upper half: no trunk
        depth += list((points[:, 0] - 12.0) / tree[1].half[0])
    assert len(depth) > 500
    outer, middle, inner = np.percentile(depth, [10, 50, 90])  # shares of the crown's radius, from its middle
    assert outer < -0.6 and -0.45 < middle < -0.15 and inner > 0.0


def test_placed_is_a_rigid_motion():
    rng = np.random.default_rng(0)
    solids = tuple(
        Solid(shape, (0.3, 0.5, 0.9), tuple(rng.normal(size=3)), tuple(rng.uniform(-3, 3, 3)), Material(0.2))
        for shape in Shape
        for _ in range(5)
    )
    turn = rotation_from_turn(np.array([0.0, 0.0, 2.1]))
    for local, world in zip(solids, roadside.placed(solids, 4.0, -3.0, 0.5, 2.1), strict=True):
        np.testing.assert_allclose(surface(world), surface(local) @ turn.T + [4.0, -3.0, 0.5], atol=1e-12)
        assert (world.shape, world.half, world.material) == (local.shape, local.half, local.material)
