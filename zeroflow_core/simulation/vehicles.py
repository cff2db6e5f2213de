"""Cars, vans, trucks, buses and motorcycles, each drawn from a random generator: metres, x forward, wheels on z = 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zeroflow_core.simulation.model import Model, boxed
from zeroflow_core.simulation.solids import Material, Shape, Solid, Windows

GLASS = Material(reflectance=0.05, loss=0.85)  # most beams pass on to what is behind
PANE = Material(windows=Windows((9.0, 9.0), (9.0, 9.0), sill=0.0, depth=0.0))  # and here they are lost
RUBBER = Material(reflectance=0.07)
CHASSIS = Material(reflectance=0.12)
PLATE = Material(reflectance=1.6)  # retroreflective
BAR_X, BAR_BELOW_TOP = 0.42, 0.06  # of a motorcycle's handlebar, metres
Span = tuple[float, float]


def block(x: Span, y: Span, z: Span, material: Material) -> Solid:
    """The box from the lower to the upper bound on each axis."""
    spans = np.array([x, y, z], dtype=float)
    half, centre = (spans[:, 1] - spans[:, 0]) / 2, spans.mean(axis=1)
    return Solid(Shape.BOX, tuple(map(float, half)), tuple(map(float, centre)), material=material)


def mid(width: float) -> Span:
    """So wide, half to each side of the middle."""
    return -width / 2, width / 2


def slab(low: Span, high: Span, thickness: float, width: float, material: Material) -> Solid:
    """A slanted box below the line from `low` to `high`, both (x, z): a windscreen, a bonnet, a roof.

    thickness: at right angles to the line, downwards; width: across, along y
    """
    (x0, z0), (x1, z1) = low, high
    length, angle = float(np.hypot(x1 - x0, z1 - z0)), float(np.arctan2(z1 - z0, x1 - x0))
    angle = (angle + np.pi / 2) % np.pi - np.pi / 2  # the direction along the line does not matter
    x = (x0 + x1) / 2 + np.sin(angle) * thickness / 2
    z = (z0 + z1) / 2 - np.cos(angle) * thickness / 2
    half = (length / 2, width / 2, thickness / 2)
    if abs(angle) > np.pi / 4:  # stands rather than lies: keep the solid's own z near upright
        half, angle = half[::-1], angle - np.copysign(np.pi / 2, angle)
    return Solid(Shape.BOX, half, (float(x), 0.0, float(z)), (0.0, -float(angle), 0.0), material)


def wheel(x: float, y: float, radius: float, width: float, material: Material = RUBBER) -> Solid:
    """A lying cylinder on the ground whose axle is along y."""
    return Solid(Shape.CYLINDER, (radius, radius, width / 2), (x, y, radius), (np.pi / 2, 0.0, 0.0), material)


def paint(rng: np.random.Generator) -> Material:
    """Paint of a vehicle as parked along a street: white, black, grey and silver prevail."""
    low, high = [(0.6, 0.8), (0.05, 0.1), (0.12, 0.25), (0.35, 0.55), (0.15, 0.4)][
        rng.choice(5, p=[0.24, 0.22, 0.2, 0.14, 0.2])
    ]
    return Material(reflectance=float(rng.uniform(low, high)))


@dataclass(frozen=True)
class _Profile:
    """Side view of a car, as ranges to draw from; lengths in metres, the rest as shares.

    shoulder:    height of the windows' lower edge, of the height
    nose:        height of the bonnet's front edge, of the shoulder's
    screen:      where the windscreen begins and ends, of the length, from the front
    rear_screen: where the rear window ends and begins, of the length, from the front
    """

    length: Span
    width: Span
    height: Span
    clearance: Span
    wheel_radius: Span
    shoulder: float
    nose: float
    screen: Span
    rear_screen: Span


_HATCHBACK = _Profile(
    (3.7, 4.45), (1.7, 1.85), (1.43, 1.58), (0.15, 0.2), (0.29, 0.33), 0.645, 0.8, (0.25, 0.43), (0.9, 0.985)
)
_SALOON = _Profile(
    (4.45, 5.1), (1.77, 1.93), (1.4, 1.52), (0.15, 0.19), (0.31, 0.34), 0.65, 0.8, (0.28, 0.44), (0.72, 0.86)
)
_SUV = _Profile(
    (4.3, 5.1), (1.82, 2.05), (1.62, 1.92), (0.18, 0.26), (0.34, 0.39), 0.63, 0.88, (0.25, 0.39), (0.92, 0.985)
)
_PICKUP = _Profile(
    (5.2, 6.0), (1.9, 2.08), (1.78, 2.0), (0.22, 0.3), (0.37, 0.42), 0.64, 0.9, (0.26, 0.36), (0.6, 0.62)
)
_MINIVAN = _Profile(
    (4.7, 5.25), (1.9, 2.05), (1.72, 1.98), (0.16, 0.2), (0.33, 0.36), 0.58, 0.85, (0.18, 0.38), (0.95, 0.99)
)
_HIGH_VAN = _Profile(
    (5.3, 6.9), (2.0, 2.1), (2.35, 2.8), (0.18, 0.25), (0.34, 0.37), 0.5, 0.82, (0.14, 0.28), (0.985, 0.99)
)


def car(rng: np.random.Generator) -> Model:
    """A hatchback, saloon, SUV or pick-up: REGULAR_VEHICLE."""
    kind = rng.choice(4, p=[0.24, 0.34, 0.32, 0.1])
    if kind == 3:
        return _pickup(rng)
    return _passenger_car(rng, (_HATCHBACK, _SALOON, _SUV)[kind], "REGULAR_VEHICLE")


def van(rng: np.random.Generator) -> Model:
    """A minivan (REGULAR_VEHICLE) or a high delivery van (LARGE_VEHICLE)."""
    if rng.random() < 0.5:
        return _passenger_car(rng, _MINIVAN, "REGULAR_VEHICLE")
    return _passenger_car(rng, _HIGH_VAN, "LARGE_VEHICLE", glazed=rng.random() < 0.3)


def _passenger_car(rng: np.random.Generator, profile: _Profile, category: str, glazed: bool = True) -> Model:
    length, width, height, clearance, radius = _draw(rng, profile)
    shoulder = profile.shoulder * height
    screen, roof = length / 2 - np.array(profile.screen) * length
    roof_end, tail = length / 2 - np.array(profile.rear_screen) * length
    inner, body = 0.83 * width, paint(rng)
    solids = _lower_body(length, width, shoulder, clearance, profile.nose * shoulder, screen, body)
    solids += [
        block((-length / 2, screen), mid(width - 0.12), (clearance + 0.12, shoulder), body),
        _cabin((roof_end, roof), inner, (shoulder - 0.02, height), body, glazed),
        _screen((screen, shoulder), (roof, height), inner),
    ]
    if roof_end - tail > 0.1:
        solids.append(_screen((tail, shoulder), (roof_end, height), inner))
    return boxed(category, solids + _four_wheels(length, width, radius) + [_plates(length)])


def _pickup(rng: np.random.Generator) -> Model:
    length, width, height, clearance, radius = _draw(rng, _PICKUP)
    shoulder, body = _PICKUP.shoulder * height, paint(rng)
    screen, roof = length / 2 - np.array(_PICKUP.screen) * length
    cab_end = length / 2 - float(rng.uniform(0.56, 0.66)) * length
    inner = 0.85 * width
    floor, rim, bed = shoulder - 0.45, shoulder - 0.03, (-length / 2, cab_end)
    solids = _lower_body(length, width, shoulder, clearance, _PICKUP.nose * shoulder, screen, body, top=floor)
    solids += [
        block((cab_end, screen), mid(width - 0.08), (clearance + 0.12, shoulder), body),
        _cabin((cab_end, roof), inner, (shoulder - 0.02, height), body),
        _screen((screen, shoulder), (roof, height), inner),
    ]
    if rng.random() < 0.4:  # a cover lies over the bed
        solids.append(block(bed, mid(width - 0.06), (clearance + 0.2, rim), body))
    else:
        sides = [(width / 2 - 0.11, width / 2 - 0.03), (0.03 - width / 2, 0.11 - width / 2)]
        solids += [block(bed, side, (floor, rim), body) for side in sides]
        solids.append(block((-length / 2, -length / 2 + 0.07), mid(width - 0.2), (floor, rim), body))
        solids.append(block(bed, mid(width - 0.06), (clearance + 0.2, floor), body))
    return boxed("REGULAR_VEHICLE", solids + _four_wheels(length, width, radius) + [_plates(length)])


def box_truck(rng: np.random.Generator) -> Model:
    """A cab and a closed box behind it: BOX_TRUCK."""
    length, width, height = _uniform(rng, (6.3, 9.8), (2.3, 2.58), (3.0, 3.8))
    cab, cab_height = _uniform(rng, (1.7, 2.1), (2.2, 2.6))
    front = length / 2
    solids = _cab(rng, front, cab, width - 0.12, min(cab_height, height - 0.3), bonnet=0.0)
    box = Material(reflectance=float(rng.uniform(0.4, 0.8)))
    solids += [
        block((-front, front - cab - 0.12), mid(width), (0.95, height), box),
        block((-front + 0.1, front - cab), mid(0.9), (0.55, 0.95), CHASSIS),
        block((-front, -front + 0.1), mid(width - 0.3), (0.45, 0.6), CHASSIS),
        _plates(length, 0.65),
    ]
    return boxed("BOX_TRUCK", solids + _axles(width, 0.45, [front - 1.0], [-front + 0.24 * length]))


def truck(rng: np.random.Generator) -> Model:
    """A tipper, a concrete mixer or a flatbed with its load: TRUCK."""
    length, width, cab, height = _uniform(rng, (6.6, 8.8), (2.4, 2.6), (1.8, 2.2), (2.6, 3.1))
    front, kind = length / 2, rng.integers(3)
    solids = _cab(rng, front, cab, width - 0.05, height, bonnet=0.0)
    solids.append(block((-front + 0.1, front - cab), mid(0.9), (0.65, 1.05), CHASSIS))
    colour = Material(reflectance=float(rng.uniform(0.15, 0.6)))
    bed = (-front, front - cab - 0.25)
    if kind == 0:
        solids.append(block(bed, mid(width), (1.15, float(rng.uniform(2.1, 2.9))), colour))
    elif kind == 1:
        radius, half = float(rng.uniform(0.95, 1.1)), (bed[1] - bed[0]) / 2 - 0.25
        centre = (sum(bed) / 2, 0.0, 1.15 + 1.25 * radius)
        drum = Solid(Shape.ELLIPSOID, (half * 1.1, radius, radius), centre, (0.0, 0.15, 0.0), colour)
        solids += [drum, block((bed[0], bed[0] + 0.9), mid(width - 0.6), (1.0, 2.2), CHASSIS)]
    else:
        load = Material(reflectance=float(rng.uniform(0.2, 0.5)), roughness=0.03)
        share = float(rng.uniform(0.4, 0.9))
        load_x = (bed[1] - 0.1 - share * (bed[1] - bed[0] - 0.2), bed[1] - 0.1)
        solids += [
            block(bed, mid(width), (1.05, 1.25), colour),
            block((bed[1], bed[1] + 0.08), mid(width), (1.05, 2.3), colour),
            block(load_x, mid(width - 0.2), (1.25, float(rng.uniform(1.7, 2.7))), load),
        ]
    rear = -front + 0.2 * length
    solids.append(_plates(length, 0.75))
    return boxed("TRUCK", solids + _axles(width, 0.5, [front - 1.2], [rear, rear + 1.3]))


def tractor_trailer(rng: np.random.Generator) -> tuple[Model, Model, float, float]:
    """TRUCK_CAB, VEHICULAR_TRAILER, and how they hang together.

    Then come two distances in metres: from the tractor's origin back to the pivot, and from the trailer's origin
    forward to it. The trailer's front corners clear the cab at any angle up to 90°.
    """
    width, cab_height = _uniform(rng, (2.45, 2.6), (2.9, 3.9))
    bonnet = float(rng.uniform(1.2, 1.7)) if rng.random() < 0.6 else 0.0
    sleeper = float(rng.uniform(0.4, 1.2))
    cab, gap = 1.7 + sleeper, float(rng.uniform(1.7, 2.0))
    length = bonnet + cab + gap + 1.2
    front, pivot = length / 2, length / 2 - bonnet - cab - gap
    solids = _cab(rng, front, cab, width - 0.15, cab_height, bonnet)
    solids += [
        block((-front, front - 0.4), mid(0.95), (0.6, 1.0), CHASSIS),
        block((front - bonnet - cab + 0.1, front - bonnet - 0.6), mid(width - 0.3), (0.4, 0.96), CHASSIS),  # tanks
        block((pivot - 0.45, pivot + 0.45), mid(0.9), (1.0, 1.12), CHASSIS),
        _plates(length, 0.75),
    ]
    solids += _axles(width, 0.5, [front - (1.0 if bonnet else 1.35)], [pivot + 0.62, pivot - 0.62])
    tractor = boxed("TRUCK_CAB", solids)
    trailer, kingpin = _trailer(rng)
    return tractor, trailer, -pivot, kingpin


def _trailer(rng: np.random.Generator) -> tuple[Model, float]:
    """The trailer and where its kingpin is, metres ahead of its origin."""
    length, width, height = _uniform(rng, (11.5, 16.0), (2.5, 2.6), (3.75, 4.1))
    front, kind = length / 2, rng.choice(3, p=[0.7, 0.15, 0.15])
    skin = Material(reflectance=float(rng.uniform(0.45, 0.8)))
    if kind == 0:
        cargo = [block((-front, front), mid(width), (1.18, height), skin)]
    elif kind == 1:  # a tank
        radius, z = width / 2 - 0.1, 1.25 + width / 2 - 0.1
        tank = Solid(Shape.CYLINDER, (radius, radius, front - 0.1), (0.0, 0.0, z), (0.0, np.pi / 2, 0.0), skin)
        cargo = [tank, block((-front, front), mid(1.1), (1.15, 1.5), CHASSIS)]
    else:  # a flatbed
        load = (float(rng.uniform(-0.9, -0.3)) * front, float(rng.uniform(0.4, 0.95)) * front)
        cargo = [
            block((-front, front), mid(width), (1.18, 1.4), CHASSIS),
            block(load, mid(width - 0.15), (1.4, float(rng.uniform(2.2, 3.6))), skin),
        ]
    rear = -front + float(rng.uniform(1.3, 2.6))
    legs = [block((front - 3.0, front - 2.85), (y - 0.08, y + 0.08), (0.25, 1.2), CHASSIS) for y in (-0.6, 0.6)]
    beam = block((-front, rear + 2.0), mid(1.0), (0.8, 1.18), CHASSIS)
    skirts = [block((rear + 2.0, front - 3.2), mid(width - 0.06), (0.4, 1.18), skin)] if rng.random() < 0.4 else []
    guard = block((-front, -front + 0.12), mid(width - 0.2), (0.5, 0.65), Material(reflectance=0.8))
    solids = cargo + legs + skirts + [beam, guard] + _axles(width, 0.5, [], [rear, rear + 1.25])
    return boxed("VEHICULAR_TRAILER", solids), front - 0.9


def bus(rng: np.random.Generator) -> Model:
    """A city bus (BUS) or, less often, a school bus with a bonnet (SCHOOL_BUS)."""
    if rng.random() < 0.2:
        return _school_bus(rng)
    length, width, height = _uniform(rng, (10.4, 12.3), (2.5, 2.6), (3.0, 3.35))
    front = length / 2
    glazing = Windows(spacing=(1.5, 3.5), size=(1.36, 1.05), sill=0.85, depth=0.03)
    body = Material(reflectance=float(rng.uniform(0.25, 0.75)), windows=glazing)
    solids = [
        block((-front, front - 0.06), mid(width), (0.3, height), body),
        block((front - 0.07, front), mid(width - 0.15), (1.05, height - 0.4), GLASS),
        block((-front + 2.0, front - 3.0), mid(width - 0.5), (height - 0.01, height + 0.22), Material(0.5)),
        _plates(length, 0.5),
    ]
    return boxed("BUS", solids + _axles(width, 0.48, [front - 2.7], [-front + 3.2]))


def _school_bus(rng: np.random.Generator) -> Model:
    length, width, height = _uniform(rng, (9.0, 11.8), (2.35, 2.5), (3.0, 3.25))
    front, bonnet = length / 2, 1.4
    glazing = Windows(spacing=(0.9, 3.5), size=(0.7, 0.65), sill=1.15, depth=0.03)
    yellow = Material(reflectance=0.5)
    solids = [
        block((-front, front - bonnet), mid(width), (0.45, height), Material(0.5, windows=glazing)),
        slab((front, 1.35), (front - bonnet - 0.1, 1.6), 0.75, width - 0.5, yellow),
        block((front - 0.25, front), mid(width - 0.2), (0.45, 0.75), CHASSIS),
        block((front - bonnet - 0.1, front - bonnet + 0.03), mid(width - 0.3), (1.6, 2.5), GLASS),
        _plates(length, 0.6),
    ]
    return boxed("SCHOOL_BUS", solids + _axles(width, 0.46, [front - 1.0], [-front + 2.9]))


def motorcycle(rng: np.random.Generator) -> Model:
    """A motorcycle or a scooter without its rider: MOTORCYCLE."""
    length, height, radius = _uniform(rng, (1.85, 2.2), (1.05, 1.3), (0.25, 0.32))
    axle, body = length / 2 - radius, paint(rng)
    handlebar = (BAR_X, 0.0, height - BAR_BELOW_TOP)
    fork_turn = (0.0, -0.42, 0.0)
    solids = [
        wheel(axle, 0.0, radius, 0.12),
        wheel(-axle, 0.0, radius, 0.16),
        block((-0.35 * length, 0.22 * length), mid(0.26), (radius, 0.55 * height), CHASSIS),
        Solid(Shape.ELLIPSOID, (0.32, 0.16, 0.17), (0.12, 0.0, 0.68 * height), material=body),
        slab((-0.42 * length, 0.64 * height), (-0.05, 0.6 * height), 0.14, 0.28, RUBBER),
        Solid(Shape.CYLINDER, (0.07, 0.12, 0.3 * height), (axle - 0.14, 0.0, 0.55 * height), fork_turn, CHASSIS),
        Solid(Shape.CYLINDER, (0.025, 0.025, 0.36), handlebar, (np.pi / 2, 0.0, 0.0), CHASSIS),
    ]
    return boxed("MOTORCYCLE", solids)


def _draw(rng: np.random.Generator, profile: _Profile) -> np.ndarray:
    ranges = (profile.length, profile.width, profile.height, profile.clearance, profile.wheel_radius)
    return _uniform(rng, *ranges)


def _uniform(rng: np.random.Generator, *ranges: Span) -> np.ndarray:
    return rng.uniform(*np.array(ranges).T)


def _lower_body(length, width, shoulder, clearance, nose, screen, body, top=None) -> list[Solid]:
    """What lies below the shoulder: full width between the bumpers, a narrower bonnet that falls to the front.

    top: of the part of full width; that of the bonnet's front edge if None
    """
    inset = 0.045 * length
    return [
        block((-length / 2 + inset, length / 2 - inset), mid(width), (clearance, (top or nose) - 0.06), body),
        slab((length / 2, nose), (screen, shoulder - 0.02), nose - clearance - 0.15, width - 0.24, body),
    ]


def _cabin(x: Span, width: float, z: Span, body: Material, glazed: bool = True) -> Solid:
    """Roof and pillars around side windows."""
    height, windows = z[1] - z[0], None
    if glazed:
        pane = (x[1] - x[0]) / (2 if x[1] - x[0] < 2.2 else 4)
        windows = Windows((pane, height + 1.0), (pane - 0.09, 0.7 * height), 0.1 * height, 0.03)
    return block(x, mid(width), z, Material(body.reflectance, windows=windows))


def _screen(low: Span, high: Span, width: float) -> Solid:
    """A windscreen so thick that it fills the triangle below its slope."""
    run, rise = abs(high[0] - low[0]), high[1] - low[1]
    thickness = run * rise / float(np.hypot(run, rise))
    # panes are upright faces; through what lies flatter the cabin behind is seen
    return slab(low, (high[0], high[1] - 0.02), thickness, width - 0.06, PANE if rise > run else GLASS)


def _four_wheels(length: float, width: float, radius: float) -> list[Solid]:
    side = width / 2 - 0.115  # the tyre's face lies just outside the body, as through an arch
    axles = (length / 2 - 0.19 * length, -length / 2 + 0.21 * length)
    return [wheel(x, y, radius, 0.24) for x in axles for y in (side, -side)]


def _axles(width: float, radius: float, single: list[float], twin: list[float]) -> list[Solid]:
    """Wheels of a heavy vehicle on axles at these x: single ones, and twin tyres."""
    wheels = [(x, 0.3) for x in single] + [(x, 0.58) for x in twin]
    return [wheel(x, side * (width - tyre) / 2, radius, tyre) for x, tyre in wheels for side in (1, -1)]


def _plates(length: float, z: float = 0.45) -> Solid:
    """Both number plates: a bar through the whole vehicle of which only the ends show."""
    return block(mid(length + 0.01), mid(0.45), (z, z + 0.13), PLATE)


def _cab(rng, front: float, length: float, width: float, height: float, bonnet: float) -> list[Solid]:
    """A lorry's cab with a windscreen, behind a bonnet of that length or none; `front`: x of the bumper."""
    body, face, floor = paint(rng), front - bonnet, 0.95 if bonnet else 0.5
    glass_low = max(1.55, 0.55 * height) if not bonnet else 1.75
    glass_high = min(height - 0.25, glass_low + 0.9)
    windows = Windows((length, 9.0), (0.7, 0.65), glass_low - floor, 0.04)
    solids = [
        block((face - length, face - 0.07), mid(width), (floor, height), Material(body.reflectance, windows=windows)),
        slab((face, glass_low), (face - 0.1, glass_high), 0.12, width - 0.2, PANE),
        block((face - 0.5, front), mid(width - 0.05), (0.35, 0.75 if bonnet else glass_low), body),
    ]
    if bonnet:
        solids.append(slab((front - 0.05, 1.45), (face - 0.1, 1.75), 0.85, width - 0.7, body))
    return solids
