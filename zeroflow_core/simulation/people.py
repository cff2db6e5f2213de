"""People on foot, on wheels and on bicycles, each drawn from a random generator: metres, x forward."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from zeroflow_core.simulation.model import Limb, Model, boxed
from zeroflow_core.simulation.solids import Material, Shape, Solid, rotation_from_turn
from zeroflow_core.simulation.vehicles import BAR_BELOW_TOP, BAR_X, CHASSIS, RUBBER, block, motorcycle, wheel

SKIN = Material(reflectance=0.45)
METAL = Material(reflectance=0.3)
Point = tuple[float, float, float]


def stick(start: Point, end: Point, radius: float, material: Material) -> Solid:
    """A round bar between two points."""
    start, end = np.array(start, dtype=float), np.array(end, dtype=float)
    along = end - start
    length = float(np.linalg.norm(along))
    turn = (0.0, float(np.arccos(along[2] / length)), float(np.arctan2(along[1], along[0])))
    return Solid(Shape.CYLINDER, (radius, radius, length / 2), tuple(map(float, (start + end) / 2)), turn, material)


def pedestrian(rng: np.random.Generator) -> Model:
    """An adult or, less often, a child, perhaps with a bag, whose legs and arms swing when walking: PEDESTRIAN."""
    height = _height(rng)
    solids, limbs = _walker(rng, height, child=height < 1.45)
    return boxed("PEDESTRIAN", solids, limbs)


def bystander(rng: np.random.Generator) -> Model:
    """Someone who stands, feet apart, arms hanging or before the body, and no part of whom swings: PEDESTRIAN."""
    height = _height(rng)
    solids, limbs = _walker(rng, height, child=height < 1.45)
    hands = float(rng.uniform(0.3, 0.9) if rng.random() < 0.6 else rng.uniform(-0.1, 0.2))
    for limb in limbs:
        x, y, z = limb.joint
        forward = float(rng.uniform(-0.15, 0.15)) if z < 0.6 * height else hands
        apart = y + np.sign(y) * float(rng.uniform(0.02, 0.08))
        solids += [_posed(solid, -forward, (x, apart, z)) for solid in limb.solids]
    return boxed("PEDESTRIAN", solids)


def with_stroller(rng: np.random.Generator) -> tuple[Model, Model]:
    """A pedestrian and the stroller pushed along: PEDESTRIAN and STROLLER, which share one track."""
    height = _normal(rng, 1.7, 0.07, 1.55, 1.9)
    solids, limbs = _walker(rng, height, child=False, pushing=True)
    x, cover = float(rng.uniform(0.8, 0.95)), _cloth(rng)
    stroller = [
        Solid(Shape.ELLIPSOID, (0.36, 0.22, 0.25), (x, 0.0, 0.66), (0.0, -0.3, 0.0), cover),
        stick((x - 0.05, 0.0, 0.75), (0.47, 0.0, 1.02), 0.03, METAL),
        block((x - 0.3, x + 0.3), (-0.2, 0.2), (0.2, 0.34), cover),
    ]
    stroller += [wheel(x + dx, y, 0.12, 0.05) for dx in (-0.3, 0.33) for y in (-0.25, 0.25)]
    return boxed("PEDESTRIAN", solids, limbs), boxed("STROLLER", stroller)


def wheelchair(rng: np.random.Generator) -> Model:
    """A wheelchair and who sits in it: WHEELCHAIR."""
    top, trousers, spokes = _cloth(rng), _cloth(rng), Material(reflectance=0.2, loss=0.6)
    trunk = float(rng.uniform(0.5, 0.6))
    solids = [
        Solid(Shape.CYLINDER, (0.13, 0.2, trunk / 2), (-0.08, 0.0, 0.5 + trunk / 2), (0.0, -0.1, 0.0), top),
        Solid(Shape.ELLIPSOID, (0.1, 0.08, 0.12), (-0.08, 0.0, 0.62 + trunk), material=SKIN),
        block((-0.2, 0.38), (-0.19, 0.19), (0.44, 0.58), trousers),
        block((0.28, 0.42), (-0.16, 0.16), (0.1, 0.5), trousers),
        block((-0.3, -0.25), (-0.22, 0.22), (0.45, 0.95), CHASSIS),
    ]
    solids += [wheel(-0.1, y, 0.3, 0.04, spokes) for y in (-0.29, 0.29)]
    solids += [wheel(0.32, y, 0.09, 0.04) for y in (-0.24, 0.24)]
    return boxed("WHEELCHAIR", solids)


def bicycle(rng: np.random.Generator) -> Model:
    """A bicycle without its rider: BICYCLE."""
    return _bicycle(rng)[0]


def cyclist(rng: np.random.Generator) -> tuple[Model, Model]:
    """Who rides and what is ridden: BICYCLIST, whose legs pedal, and BICYCLE, which share one track."""
    machine, saddle, bar = _bicycle(rng)
    return _rider(rng, "BICYCLIST", saddle, bar, pedals=0.3, pedalling=float(rng.uniform(4.5, 6.5))), machine


def motorcyclist(rng: np.random.Generator) -> tuple[Model, Model]:
    """Who rides and what is ridden: MOTORCYCLIST and MOTORCYCLE, which share one track."""
    machine = motorcycle(rng)
    saddle, bar = (-0.25, 0.66 * machine.size[2]), (BAR_X, machine.size[2] - BAR_BELOW_TOP)
    return _rider(rng, "MOTORCYCLIST", saddle, bar, pedals=0.3, pedalling=None), machine


def _height(rng: np.random.Generator) -> float:
    if rng.random() < 0.12:
        return float(rng.uniform(1.0, 1.44))
    return _normal(rng, 1.71, 0.09, 1.5, 1.95)


def _normal(rng: np.random.Generator, mean: float, deviation: float, low: float, high: float) -> float:
    return float(np.clip(rng.normal(mean, deviation), low, high))


def _cloth(rng: np.random.Generator) -> Material:
    return Material(reflectance=float(rng.uniform(0.1, 0.6)), roughness=0.01)


def _walker(rng, height: float, child: bool, pushing: bool = False) -> tuple[list[Solid], list[Limb]]:
    """Solids and limbs of someone who walks; lengths are shares of the height."""
    girth = _normal(rng, 1.0, 0.12, 0.8, 1.35) * (0.75 if child else 1.0)
    top, trousers = _cloth(rng), _cloth(rng)
    hip, shoulder = 0.5 * height, 0.81 * height
    coat = 0.16 * height if rng.random() < 0.2 else 0.0  # reaches down over the thighs
    low, high = hip - 0.02 - coat, shoulder + 0.03
    head = max(0.078 * height, 0.105)
    torso = (0.12 * girth, 0.18 * girth, (high - low) / 2)
    solids = [
        Solid(Shape.CYLINDER, torso, (0.0, 0.0, (low + high) / 2), material=top),
        Solid(Shape.ELLIPSOID, (0.1, 0.08, head), (0.02, 0.0, height - head), material=SKIN),
    ]
    luggage = rng.random()
    if luggage < 0.2 and not pushing:
        bag = (0.1, 0.15 * girth, 0.14 * height)
        solids.append(Solid(Shape.ELLIPSOID, bag, (-0.12 * girth - 0.06, 0.0, 0.68 * height), material=_cloth(rng)))
    elif luggage < 0.35 and not pushing:
        y = 0.18 * girth + 0.13
        solids.append(block((-0.18, 0.18), (y - 0.06, y + 0.06), (0.22 * height, 0.38 * height), _cloth(rng)))

    stride, phase = 1.4 * height / 1.75, float(rng.uniform(0, 2 * np.pi))
    swing, arm_swing = np.deg2rad(rng.uniform(25, 30)), np.deg2rad(rng.uniform(15, 23))
    limbs = []
    for side, opposite in ((1, 0.0), (-1, np.pi)):
        leg = (
            stick((0, 0, 0.01), (0, 0, 0.04 * height - hip), 0.068 * girth + 0.005, trousers),
            block((-0.08, 0.115 * height - 0.02), (-0.045, 0.045), (0.012 * height - hip, 0.05 * height - hip), RUBBER),
        )
        limbs.append(Limb(leg, (0.0, 0.09 * girth * side, hip), float(swing), stride, phase + opposite))
        at_shoulder = (0.0, (0.18 * girth + 0.035) * side, shoulder)
        if pushing:
            hand = (0.47, 0.2 * side, 1.02)
            solids.append(stick(at_shoulder, hand, 0.045, top))
        else:
            arm = (stick((0, 0, 0.03), (0.04, 0, -0.37 * height), 0.045 * girth, top),)
            limbs.append(Limb(arm, at_shoulder, float(arm_swing), stride, phase + opposite + np.pi))
    return solids, limbs


def _bicycle(rng: np.random.Generator) -> tuple[Model, tuple[float, float], tuple[float, float]]:
    """The bicycle, and (x, z) of its saddle and of its handlebar."""
    radius, base = float(rng.uniform(0.32, 0.36)), float(rng.uniform(0.98, 1.1))
    saddle, bar = (-0.2, float(rng.uniform(0.88, 1.0))), (0.32, float(rng.uniform(0.98, 1.12)))
    frame, spokes = Material(reflectance=float(rng.uniform(0.1, 0.6))), Material(reflectance=0.15, loss=0.65)
    crank, head = (-0.08, 0.0, 0.29), (bar[0], 0.0, bar[1] - 0.2)
    solids = [
        wheel(base / 2, 0.0, radius, 0.045, spokes),
        wheel(-base / 2, 0.0, radius, 0.045, spokes),
        stick(crank, head, 0.03, frame),
        stick((-0.17, 0.0, saddle[1] - 0.2), head, 0.025, frame),
        stick(crank, (saddle[0], 0.0, saddle[1] - 0.04), 0.025, frame),
        stick((base / 2, 0.0, radius), (bar[0], 0.0, bar[1]), 0.03, frame),
        stick((bar[0], -0.28, bar[1]), (bar[0], 0.28, bar[1]), 0.02, frame),
        block((saddle[0] - 0.12, saddle[0] + 0.14), (-0.07, 0.07), (saddle[1] - 0.05, saddle[1]), RUBBER),
    ]
    return boxed("BICYCLE", solids), saddle, bar


def _rider(rng, category: str, saddle, bar, pedals: float, pedalling: float | None) -> Model:
    """Someone who sits at `saddle` and holds `bar`, both (x, z), with the feet around the height `pedals`.

    pedalling: metres travelled per turn of the pedals; None for feet that rest
    """
    girth, top, trousers = float(rng.uniform(0.85, 1.2)), _cloth(rng), _cloth(rng)
    lean, trunk = float(rng.uniform(0.25, 0.6)), float(rng.uniform(0.52, 0.6))
    hip = (saddle[0], saddle[1] + 0.05)
    shoulder = (hip[0] + trunk * np.sin(lean), hip[1] + trunk * np.cos(lean))
    middle = ((hip[0] + shoulder[0]) / 2, 0.0, (hip[1] + shoulder[1]) / 2)
    head = (shoulder[0] + 0.09, 0.0, shoulder[1] + 0.19)
    helmet = Material(reflectance=float(rng.uniform(0.1, 0.7)))
    solids = [
        Solid(Shape.CYLINDER, (0.12 * girth, 0.18 * girth, trunk / 2 + 0.05), middle, (0.0, lean, 0.0), top),
        Solid(Shape.ELLIPSOID, (0.12, 0.1, 0.14), head, material=helmet),
    ]
    limbs = []
    phase = float(rng.uniform(0, 2 * np.pi))
    for side in (1, -1):
        solids.append(stick((*shoulder[:1], 0.2 * side, shoulder[1] - 0.02), (bar[0], 0.25 * side, bar[1]), 0.045, top))
        joint = (hip[0], 0.1 * side, hip[1])
        knee, foot = (0.36, 0.02 * side, -0.2), (0.2, 0.02 * side, pedals - hip[1])
        leg = (stick((0.0, 0.0, 0.0), knee, 0.075 * girth, trousers), stick(knee, foot, 0.055, trousers))
        swing = 0.0 if pedalling is None else 0.27
        limbs.append(Limb(leg, joint, swing, pedalling or 1.0, phase + (np.pi if side < 0 else 0.0)))
    if pedalling is None:
        solids += [_posed(solid, 0.0, limb.joint) for limb in limbs for solid in limb.solids]
        limbs = []
    return boxed(category, solids, limbs)


def _posed(solid: Solid, pitch: float, joint: Point) -> Solid:
    """A limb's solid in its owner's frame; one that is itself turned about y alone may be pitched about the joint."""
    rotation = rotation_from_turn(np.array([0.0, pitch, 0.0]))
    roll, own, yaw = solid.turn
    return replace(solid, centre=tuple(map(float, rotation @ solid.centre + joint)), turn=(roll, own + pitch, yaw))
