"""What stands beside a road, each drawn from a random generator, in metres.

Local frame: origin on the ground, x along the street, the street on the side of +y: buildings have their front in
the plane y = 0 and lie behind it, lamps and traffic lights reach out to +y, everything else is around the origin.
What stands on uneven ground reaches SUNK below it. Things that AV2 annotates are models, the rest are solids.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from zeroflow_core.simulation.model import Model, boxed
from zeroflow_core.simulation.people import stick
from zeroflow_core.simulation.solids import Material, Shape, Solid, Windows
from zeroflow_core.simulation.vehicles import GLASS, block, mid, slab

SUNK = 0.4
BARK = Material(reflectance=0.3, roughness=0.02)
CONCRETE = Material(reflectance=0.35, roughness=0.01)
STEEL = Material(reflectance=0.4)
DARK_METAL = Material(reflectance=0.12)
RETROREFLECTIVE = Material(reflectance=2.0)
Solids = tuple[Solid, ...]


def placed(solids: Solids, x: float, y: float, z: float, yaw: float) -> Solids:
    """Local solids in the world: turned by `yaw` about their origin, which comes to (x, y, z)."""
    c, s = np.cos(yaw), np.sin(yaw)
    result = []
    for solid in solids:
        (cx, cy, cz), (roll, pitch, own_yaw) = solid.centre, solid.turn
        centre = (float(x + c * cx - s * cy), float(y + s * cx + c * cy), float(z + cz))
        # yaw is the outermost of a solid's own turns, so that two of them add up
        result.append(replace(solid, centre=centre, turn=(roll, pitch, float(own_yaw + yaw))))
    return tuple(result)


def footprint(solids: Solids) -> tuple[tuple[float, float], tuple[float, float]]:
    """((lowest x, highest x), (lowest y, highest y)) that the solids cover, metres."""
    box = boxed(None, list(solids))
    (x, y), (length, width) = box.centre[:2], box.size[:2]
    return (x - length / 2, x + length / 2), (y - width / 2, y + width / 2)


# plants


def tree(rng: np.random.Generator) -> Solids:
    """A broad-leaved tree, 4–15 m."""
    height = float(np.clip(rng.gamma(9.0, 0.95), 4.0, 15.0))
    bottom = float(rng.uniform(0.22, 0.36)) * height
    spread = float(rng.uniform(0.26, 0.4)) * height
    trunk = float(rng.uniform(0.012, 0.022)) * height + 0.04
    outer, middling, inner = _foliage(rng, 0.45, 0.55, (0.45, 0.3, 0.1))
    middle, half_height = (bottom + height) / 2, (height - bottom) / 2
    solids = [stick((0, 0, -SUNK), (0, 0, middle), trunk, BARK)]
    crown, turn = np.array([spread, spread, half_height]), float(rng.uniform(0, 2 * np.pi))
    lobes = int(rng.integers(1, 4))
    for k in range(lobes):
        angle, size = turn + 2 * np.pi * k / lobes, 1.0 if lobes == 1 else float(rng.uniform(0.65, 0.85))
        off = spread * (1 - size)
        at = (off * np.cos(angle), off * np.sin(angle), middle + float(rng.uniform(-1, 1)) * half_height * (1 - size))
        solids.append(_ball(at, crown * size * (1.0, float(rng.uniform(0.85, 1.1)), 1.0), outer))
    inside = ((0.78, middling), (0.45, inner))
    return (*solids, *(_ball((0.0, 0.0, middle), crown * share, leaves) for share, leaves in inside))


def conifer(rng: np.random.Generator) -> Solids:
    """A fir or a spruce: crowns that narrow upwards."""
    height, radius = float(rng.uniform(5.0, 16.0)), float(rng.uniform(0.14, 0.22))
    outer, inner = _foliage(rng, 0.2, 0.3, (0.32, 0.15))
    solids = [stick((0, 0, -SUNK), (0, 0, 0.5 * height), 0.015 * height + 0.05, BARK)]
    for z, wide, tall in ((0.32, 1.0, 0.26), (0.56, 0.72, 0.24), (0.8, 0.4, 0.2)):
        half = (radius * height * wide, radius * height * wide, tall * height)
        solids.append(_ball((0.0, 0.0, z * height), half, outer))
    core = (0.62 * radius * height, 0.62 * radius * height, 0.45 * height)
    return (*solids, _ball((0.0, 0.0, 0.5 * height), core, inner))


def bush(rng: np.random.Generator) -> Solids:
    """One or two rounded bushes, 0.5–2 m high."""
    leaves, solids = _foliage(rng, 0.1, 0.2, (0.3, 0.15)), []
    for k in range(int(rng.integers(1, 3))):
        height, wide = float(rng.uniform(0.5, 2.0)), float(rng.uniform(0.4, 1.1))
        half = np.array([wide, wide * float(rng.uniform(0.7, 1.1)), 0.65 * height])
        shells = zip((1.0, 0.75), leaves, strict=True)
        solids += [_ball((k * wide * 1.1, 0.0, 0.35 * height), half * share, leaf) for share, leaf in shells]
    return tuple(solids)


def hedge(rng: np.random.Generator, length: float) -> Solids:
    """A clipped hedge of that length."""
    height, thick = float(rng.uniform(0.8, 2.2)), float(rng.uniform(0.5, 1.0))
    outer, inner = _foliage(rng, 0.06, 0.14, (0.4, 0.1))
    return _wall_like(length, thick, height, outer), _wall_like(length, 0.5 * thick, height - 0.15, inner)


def thicket(rng: np.random.Generator, length: float) -> Solids:
    """The edge of a wood: tall bushes and young trees of 3.5–9 m, one clump after another."""
    count, leaves, solids = max(1, round(length / 2.5)), _foliage(rng, 0.3, 0.45, (0.6, 0.45, 0.1)), []
    for x in (np.arange(count) + 0.5) * length / count - length / 2:
        height, deep = float(rng.uniform(3.5, 9.0)), float(rng.uniform(1.0, 2.4))
        half = np.array([0.5 * length / count, deep, 0.55 * height])
        at = (float(x), float(rng.uniform(-0.5, 0.5)), 0.45 * height)
        solids += [_ball(at, half * share, leaf) for share, leaf in zip((1.0, 0.85, 0.65), leaves, strict=True)]
    return tuple(solids)


# poles


def pole(rng: np.random.Generator) -> Solids:
    """A post for wires, 6–11 m."""
    height, radius = float(rng.uniform(6.0, 11.0)), float(rng.uniform(0.1, 0.17))
    solids = [stick((0, 0, -SUNK), (0, 0, height), radius, BARK)]
    if rng.random() < 0.6:
        solids.append(block((-0.06, 0.06), (-1.1, 1.1), (height - 0.8, height - 0.65), BARK))
    return tuple(solids)


def lamp_post(rng: np.random.Generator) -> Solids:
    """A street lamp on an arm towards +y."""
    height, arm, radius = float(rng.uniform(5.5, 9.5)), float(rng.uniform(0.8, 2.4)), float(rng.uniform(0.06, 0.11))
    return (
        stick((0, 0, -SUNK), (0, 0, height), radius, STEEL),
        stick((0, 0, height - 0.08), (0, arm, height - 0.08), 0.04, STEEL),
        block((-0.14, 0.14), (arm - 0.1, arm + 0.5), (height - 0.16, height), STEEL),
    )


def traffic_light(rng: np.random.Generator) -> Solids:
    """A signal on its post, often with a second one on an arm over the lanes towards +y."""
    solids = [stick((0, 0, -SUNK), (0, 0, 3.4), 0.07, DARK_METAL), _signal(0.0, 2.4)]
    if rng.random() < 0.6:
        reach, height = float(rng.uniform(4.0, 7.5)), float(rng.uniform(5.6, 6.4))
        solids[0] = stick((0, 0, -SUNK), (0, 0, height + 0.2), 0.12, DARK_METAL)
        solids.append(stick((0, 0, height), (0, reach, height), 0.06, DARK_METAL))
        solids += [_signal(y, height - 0.75) for y in (reach - 0.3, reach - 3.3)]
    return tuple(solids)


def bollard(rng: np.random.Generator) -> Model:
    """BOLLARD, 0.7–1.1 m."""
    height, radius = float(rng.uniform(0.7, 1.1)), float(rng.uniform(0.06, 0.14))
    return boxed("BOLLARD", [stick((0, 0, 0), (0, 0, height), radius, Material(float(rng.uniform(0.15, 0.7))))])


def cone(rng: np.random.Generator) -> Model:
    """CONSTRUCTION_CONE, 0.5–0.95 m, with a retroreflective collar."""
    height = float(rng.uniform(0.5, 0.95))
    orange, base = Material(reflectance=0.45), float(rng.uniform(0.15, 0.2))
    solids = [
        block((-base, base), (-base, base), (0.0, 0.04), Material(reflectance=0.1)),
        stick((0, 0, 0.04), (0, 0, 0.45 * height), 0.66 * base, orange),
        stick((0, 0, 0.45 * height), (0, 0, 0.75 * height), 0.42 * base, RETROREFLECTIVE),
        stick((0, 0, 0.75 * height), (0, 0, height), 0.22 * base, orange),
    ]
    return boxed("CONSTRUCTION_CONE", solids)


def barrel(rng: np.random.Generator) -> Model:
    """CONSTRUCTION_BARREL, about a metre, with retroreflective bands."""
    height, radius = float(rng.uniform(0.9, 1.1)), float(rng.uniform(0.24, 0.3))
    parts = [(0.0, 0.08, 0.06, Material(reflectance=0.1)), (0.0, 1.0, 0.0, Material(reflectance=0.45))]
    parts += [(z, z + 0.15, 0.005, RETROREFLECTIVE) for z in (0.45, 0.75)]
    solids = [
        stick((0, 0, a * height), (0, 0, b * height), radius + wider, material) for a, b, wider, material in parts
    ]
    return boxed("CONSTRUCTION_BARREL", solids)


def stop_sign(rng: np.random.Generator) -> Model:
    """STOP_SIGN: a plate on a post that faces ±x."""
    bottom, size = float(rng.uniform(1.9, 2.3)), float(rng.uniform(0.6, 0.78))
    middle = bottom + size / 2
    plate = stick((0.035, 0, middle), (0.06, 0, middle), size / 2, RETROREFLECTIVE)
    return boxed("STOP_SIGN", [stick((0, 0, 0), (0, 0, bottom + size), 0.035, STEEL), plate])


def sign(rng: np.random.Generator) -> Model:
    """SIGN: one or two plates on a post that face ±x."""
    bottom, width, height = float(rng.uniform(1.9, 2.4)), float(rng.uniform(0.3, 0.75)), float(rng.uniform(0.45, 0.9))
    plates = [block((0.035, 0.06), (-width / 2, width / 2), (bottom, bottom + height), RETROREFLECTIVE)]
    if rng.random() < 0.3:
        plates.append(block((0.035, 0.06), (-0.2, 0.2), (bottom - 0.3, bottom - 0.05), RETROREFLECTIVE))
    return boxed("SIGN", [stick((0, 0, 0), (0, 0, bottom + height), 0.035, STEEL), *plates])


# furniture


def bench(rng: np.random.Generator) -> Solids:
    """A bench that looks towards +y."""
    half, wood = float(rng.uniform(0.7, 1.0)), Material(float(rng.uniform(0.2, 0.4)))
    return (
        block((-half, half), (-0.22, 0.25), (0.4, 0.46), wood),
        block((-half, half), (-0.28, -0.22), (0.46, 0.85), wood),
        block((-half + 0.15, -half + 0.22), (-0.22, 0.22), (-0.2, 0.4), DARK_METAL),
        block((half - 0.22, half - 0.15), (-0.22, 0.22), (-0.2, 0.4), DARK_METAL),
    )


def bin(rng: np.random.Generator) -> Solids:
    """A litter bin or a wheeled one before a house."""
    material = Material(float(rng.uniform(0.1, 0.4)))
    if rng.random() < 0.5:
        radius = float(rng.uniform(0.2, 0.3))
        return (stick((0, 0, -0.2), (0, 0, float(rng.uniform(0.8, 1.1))), radius, material),)
    half = float(rng.uniform(0.26, 0.36))
    return (block((-half, half), (-half - 0.05, half + 0.05), (-0.1, float(rng.uniform(0.95, 1.15))), material),)


def bus_shelter(rng: np.random.Generator) -> Solids:
    """A glass shelter, open towards +y, with a bench and an advertisement at one end."""
    half, depth = float(rng.uniform(1.5, 2.4)), float(rng.uniform(1.2, 1.6))
    solids = (
        block((-half, half), (-depth, 0.15), (2.3, 2.42), STEEL),
        block((-half, half), (-depth, -depth + 0.04), (0.2, 2.3), GLASS),
        block((-half, -half + 0.04), (-depth, -0.1), (0.2, 2.3), GLASS),
        block((half - 0.14, half), (-depth, -0.1), (-0.2, 2.2), Material(0.4)),
        block((-half + 0.5, half - 0.6), (-depth + 0.1, -depth + 0.45), (0.42, 0.48), STEEL),
    )
    post = -half + 0.06
    posts = tuple(stick((post, y, -SUNK), (post, y, 2.35), 0.05, STEEL) for y in (-depth + 0.06, -0.06))
    return placed(solids + posts, 0.0, depth / 2, 0.0, 0.0)


def fence(rng: np.random.Generator, length: float) -> Solids:
    """Boards, pickets or wire mesh on posts."""
    height, kind = float(rng.uniform(0.9, 1.9)), int(rng.integers(3))
    material = Material(float(rng.uniform(0.2, 0.5)), roughness=0.01, loss=(0.0, 0.35, 0.75)[kind])
    posts = 0 if kind == 0 else max(2, round(length / 3.0) + 1)
    uprights = [stick((x, 0, -SUNK), (x, 0, height), 0.05, STEEL) for x in np.linspace(-length / 2, length / 2, posts)]
    return (_wall_like(length, 0.04, height, material), *uprights)


def wall(rng: np.random.Generator, length: float) -> Solids:
    """A garden wall."""
    stone = Material(float(rng.uniform(0.25, 0.5)), 0.015)
    return (_wall_like(length, float(rng.uniform(0.2, 0.35)), float(rng.uniform(0.6, 2.0)), stone),)


def guard_rail(rng: np.random.Generator, length: float) -> Solids:
    """A steel rail on posts every 4 m, or a solid concrete barrier every now and then."""
    if rng.random() < 0.25:
        parts = ((0.6, (-SUNK, 0.3)), (0.25, (0.3, 0.85)))
        return tuple(block(mid(length), mid(thick), z, CONCRETE) for thick, z in parts)
    rail = block(mid(length), (-0.05, 0.03), (0.42, 0.75), STEEL)
    count = max(1, round(length / 4.0))
    at = (np.arange(count) + 0.5) * length / count - length / 2
    return (rail, *(block((x - 0.05, x + 0.05), (-0.2, -0.05), (-SUNK, 0.72), STEEL) for x in at))


# buildings


def house(rng: np.random.Generator) -> Solids:
    """A detached house: front at y = 0, ridge along x or across."""
    length, depth = float(rng.uniform(7.0, 14.0)), float(rng.uniform(7.0, 11.0))
    storeys = int(rng.integers(2, 4))
    solids = _building(rng, length, depth, 2.9 * storeys + 0.3, pitched=rng.random() < 0.85)
    if rng.random() < 0.35:  # a garage or an extension beside it
        wing = block((length / 2, length / 2 + 3.4), (-6.5, -0.8), (-SUNK, 2.7), _facade(rng, windows=False))
        solids = (*solids, wing)
    return solids


def facade_row(rng: np.random.Generator, length: float) -> Solids:
    """Town houses wall to wall along x, together `length` long, fronts at or just behind y = 0."""
    solids: list[Solid] = []
    count = max(1, round(length / float(rng.uniform(7.0, 12.0))))
    shares = rng.uniform(0.7, 1.3, count)
    edges = np.concatenate([[0.0], np.cumsum(shares / shares.sum())]) * length - length / 2
    storeys = int(rng.integers(3, 6))
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        height = 3.0 * max(2, storeys + int(rng.integers(-1, 2))) + float(rng.uniform(0.2, 1.2))
        one = _building(rng, high - low, float(rng.uniform(9.0, 13.0)), height, pitched=rng.random() < 0.5, row=True)
        solids += placed(one, (low + high) / 2, -float(rng.uniform(0.0, 0.35)), 0.0, 0.0)
    return tuple(solids)


def office_block(rng: np.random.Generator, length: float) -> Solids:
    """A large flat building with rows of windows, 9–40 m high."""
    depth, storey, storeys = float(rng.uniform(14.0, 28.0)), float(rng.uniform(3.2, 3.9)), int(rng.integers(3, 11))
    spacing = float(rng.uniform(1.6, 3.6))
    share = float(rng.uniform(0.45, 0.85))
    recess = float(rng.uniform(0.05, 0.3))
    grid = Windows((spacing, storey), (share * spacing, share * storey * 0.8), SUNK + 0.8, recess)
    height = storeys * storey + 0.6
    skin = Material(float(rng.uniform(0.2, 0.55)), 0.01, windows=grid)
    plant = block(mid(0.4 * length), (-0.7 * depth, -0.3 * depth), (height, height + 2.5), STEEL)
    return block(mid(length), (-depth, 0.0), (-SUNK, height), skin), plant


def gantry(rng: np.random.Generator, width: float) -> Solids:
    """A beam with signs over a road of that width along x, a post on either side; the road's middle is y = 0."""
    height, span = float(rng.uniform(5.6, 6.6)), width + 2.0
    solids = [stick((0, y, -SUNK), (0, y, height + 0.3), 0.2, STEEL) for y in (-span / 2, span / 2)]
    solids.append(block((-0.25, 0.25), mid(span), (height, height + 0.6), Material(0.4, 0.2, 0.4)))  # a lattice
    for y in np.linspace(-width / 3, width / 3, int(rng.integers(1, 4))):
        half = float(rng.uniform(1.3, 2.2))
        solids.append(block((-0.4, -0.3), (y - half, y + half), (height - 0.5, height + 1.9), RETROREFLECTIVE))
    return tuple(solids)


def bridge(rng: np.random.Generator, width: float) -> Solids:
    """A bridge across a road of that width along x, with a wall on either side; the road's middle is y = 0."""
    height, half, span = float(rng.uniform(5.2, 6.2)), float(rng.uniform(3.5, 7.0)), width + 6.0
    deck = block((-half, half), mid(span + 24.0), (height, height + 1.1), CONCRETE)
    rails = [block((x - 0.1, x + 0.1), mid(span + 24.0), (height + 1.1, height + 2.1), STEEL) for x in (-half, half)]
    walls = [block((-half, half), (y - 0.6, y + 0.6), (-SUNK, height), CONCRETE) for y in (-span / 2, span / 2)]
    return deck, *rails, *walls


def _ball(centre, half, material: Material) -> Solid:
    return Solid(Shape.ELLIPSOID, tuple(map(float, half)), tuple(map(float, centre)), material=material)


def _foliage(rng: np.random.Generator, low: float, high: float, gaps: tuple[float, ...]) -> tuple[Material, ...]:
    """Leaves of one plant, of its outer shell and of those within.

    Beams come back from some way behind the surface of a shell, or pass its gaps to the next; so they end all
    through the plant. low, high: range of the shells' roughness, metres; gaps: the share of each shell's surface
    """
    reflectance, roughness = float(rng.uniform(0.3, 0.5)), float(rng.uniform(low, high))
    return tuple(Material(reflectance, roughness, share) for share in gaps)


def _wall_like(length: float, thickness: float, height: float, material: Material) -> Solid:
    return block(mid(length), mid(thickness), (-SUNK, height), material)


def _signal(y: float, bottom: float) -> Solid:
    return block((-0.32, -0.1), (y - 0.18, y + 0.18), (bottom, bottom + 1.0), DARK_METAL)


def _facade(rng: np.random.Generator, windows: bool = True) -> Material:
    wide, tall = float(rng.uniform(0.9, 1.5)), float(rng.uniform(1.2, 1.7))
    gap, depth = float(rng.uniform(0.9, 1.7)), float(rng.uniform(0.08, 0.22))
    grid = Windows((wide + gap, 2.95), (wide, tall), SUNK + 0.9, depth)
    return Material(float(rng.uniform(0.25, 0.6)), 0.012, windows=grid if windows else None)


def _building(rng, length: float, depth: float, eaves: float, pitched: bool, row: bool = False) -> Solids:
    """Front at y = 0, middle of the front at x = 0."""
    body = block(mid(length), (-depth, 0.0), (-SUNK, eaves), _facade(rng))
    tiles = Material(float(rng.uniform(0.15, 0.35)), 0.03)
    if not pitched:
        parapet = float(rng.uniform(0.1, 0.5))
        return body, block(mid(length), (-depth, 0.0), (eaves, eaves + parapet), tiles)
    across = not row and rng.random() < 0.35  # the ridge points to the street
    half = (length if across else depth) / 2
    pitch, over = np.deg2rad(rng.uniform(28, 43)), 0.0 if row else float(rng.uniform(0.1, 0.35))
    edge, ridge = (half + over, eaves - over * np.tan(pitch)), (0.0, eaves + half * np.tan(pitch))
    along = (depth if across else length) - 0.1  # gables lie a little behind the walls
    thickness = half * np.sin(pitch)  # fills the gable
    roof = slab(edge, ridge, thickness, along, tiles), slab((-edge[0], edge[1]), ridge, thickness, along, tiles)
    return body, *placed(roof, 0.0, -depth / 2, 0.0, 0.0 if across else np.pi / 2)
