"""Where the beams of a spinning LiDAR end: solids and ground, met by rays that start one column after another.

A ray is the column it is fired in and the tangent t of its elevation: o + λ (u + t w), with the column's origin o,
its level direction u and its upward direction w. λ orders what lies on one ray; the range is λ √(1 + t²).

Work is spent only where it may matter, in three steps, each a few operations on long tensors (CPU or GPU alike):
solids × sectors of columns (does the bounding sphere come near?), solids × columns (which beams cross the
bounding box?), and then the exact intersection of just those rays. Vectors are kept as three tensors, one for
each component, which is how gathering and arithmetic are fastest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from zeroflow_core.simulation.scene import Scene
from zeroflow_core.simulation.solids import Shape, Solid, rotation_from_turn, solid_extent
from zeroflow_core.simulation.tracks import KNOT_S

GROUND = -1
NOTHING = -2

_SECTOR = 32  # columns
_SLACK_M = 0.08  # what may move sideways, and the head with it, while half a sector is fired
_GAP_M = 0.3  # size of the gaps in leaves, and of what glass mirrors
_NEAREST = 0.4  # metres, of λ: closer surfaces are not seen
_CHUNK = {"cpu": 1 << 16, "cuda": 1 << 23}  # rays at a time; on the CPU they should stay in its cache

Vector = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Columns:
    """One head's firings, in the order of time.

    origin, level, up: (3,C) float32, world frame less `shift`; level and up are unit vectors, square to each other
    shift:             (3,) float64, metres: subtracted so that float32 is exact enough
    time:              (C,) float64, seconds in the scene
    step:              radians from a column to the next about `up`, left positive
    tangents:          (B,) float32, ascending, of the beams' elevations
    """

    origin: torch.Tensor
    level: torch.Tensor
    up: torch.Tensor
    shift: np.ndarray
    time: torch.Tensor
    step: float
    tangents: torch.Tensor


@dataclass(frozen=True)
class Hits:
    """What each ray of a head meets first; rays are numbered column · B + beam.

    depth: (C·B,) float32, λ; inf where there is nothing
    solid: (C·B,) int64, index into Caster.solids, GROUND or NOTHING
    """

    depth: torch.Tensor
    solid: torch.Tensor


class Caster:
    """A scene as tensors on a device.

    solids: every solid of the scene, sorted so that those which never move come first, and one kind after another
    body:   (S,) int64, index into scene.bodies
    """

    def __init__(self, scene: Scene, device: torch.device | str = "cpu") -> None:
        self.scene, self.device = scene, torch.device(device)
        moves = [body.track is not None for body in scene.bodies]
        pairs = [(solid, number) for number, body in enumerate(scene.bodies) for solid in body.solids]
        pairs.sort(key=lambda pair: (moves[pair[1]], pair[0].shape, pair[0].material.loss > 0))
        self.solids: list[Solid] = [solid for solid, _ in pairs]
        bodies = np.array([number for _, number in pairs], dtype=np.int64)
        count, self.num_static = len(pairs), sum(not moves[number] for number in bodies)
        self.body = self._tensor(bodies, torch.int64)
        kinds = [(int(solid.shape), solid.material.loss > 0) for solid in self.solids]
        self._kinds = [(kind, k) for k, kind in enumerate(kinds) if k in (0, self.num_static) or kind != kinds[k - 1]]

        turn = np.array([solid.turn for solid in self.solids], dtype=np.float64).reshape(count, 3)
        # For culling a solid's box stands upright in its body's frame, whatever the solid's own pitch and roll.
        rest = rotation_from_turn(turn * [1, 1, 0])
        extent = [solid_extent(solid, r) for solid, r in zip(self.solids, rest, strict=True)]
        extent = np.array(extent, dtype=np.float64).reshape(count, 3)
        half = np.array([solid.half for solid in self.solids], dtype=np.float64).reshape(count, 3)
        self._yaw = self._tensor(np.stack([np.cos(turn[:, 2]), np.sin(turn[:, 2])]))
        self._rest = self._tensor(rest.reshape(count, 9).T)
        self._turned = self._tensor(np.abs(turn[:, :2]).max(axis=1, initial=0) > 1e-9, torch.bool)
        self._half = self._tensor(half.T)
        self._extent = self._tensor(extent.T)
        self._reach = self._tensor(np.linalg.norm(extent, axis=1))
        self._loss = self._tensor([solid.material.loss for solid in self.solids])
        centre = np.array([solid.centre for solid in self.solids], dtype=np.float64).reshape(count, 3)
        self._centre = self._tensor(centre.T, torch.float64)

        moving = [number for number, moved in enumerate(moves) if moved]
        rank = np.full(len(scene.bodies), -1)
        rank[moving] = np.arange(len(moving))
        self._mover = self._tensor(rank[bodies], torch.int64)
        tracks = [scene.bodies[number].track for number in moving]
        shape = (len(tracks), len(scene.times), 3)
        self._knot_position = self._tensor(np.array([t.position for t in tracks]).reshape(shape), torch.float64)
        turns = np.array([t.turn for t in tracks]).reshape(shape)
        self._knot_rotation = self._tensor(rotation_from_turn(turns).reshape(*shape[:2], 9))

    def _tensor(self, values, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(values), dtype=dtype).to(self.device)

    def cast(self, columns: Columns, max_range: float) -> Hits:
        """The first surface on every ray. max_range: metres, of λ"""
        best = self._ground(columns, max_range)
        window = Window(self, columns)
        for first, last in ((0, self.num_static), (self.num_static, len(self.solids))):
            if last > first:
                pairs = self._crossed(window, *self._near(window, first, last, max_range), max_range)
                self._intersect(best, columns.tangents, *pairs)
        depth, solid = _unpack(best)
        seen = depth < max_range
        return Hits(torch.where(seen, depth, torch.inf), torch.where(seen, solid, NOTHING))

    # --- solids × sectors -------------------------------------------------------------------------------------

    def _near(self, window: Window, first: int, last: int, max_range: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Pairs (P,), (P,) of solid and column, sorted by solid, whose column may meet the bounding sphere."""
        x, y, z = window.centres_in_sectors(first, last)
        reach = self._reach[first:last, None]
        level = torch.hypot(x, y)
        half = torch.asin((reach / level.clamp(min=1e-3)).clamp(max=1.0))
        half = torch.where(level > reach, half + _SLACK_M / level.clamp(min=_SLACK_M) + 0.002, 2 * torch.pi)
        column = window.middle + torch.atan2(y, x) / window.columns.step
        spread = half / abs(window.columns.step)
        low = torch.maximum(torch.ceil(column - spread), window.start).long()
        high = torch.minimum(torch.floor(column + spread), window.end - 1).long()
        close = torch.sqrt(level * level + z * z) - reach < max_range
        count = torch.where(close, high - low + 1, 0).clamp(min=0).flatten()
        owner, within = _expand(count)
        sectors = len(window.start)
        return first + owner // sectors, low.flatten().index_select(0, owner) + within

    # --- solids × columns -------------------------------------------------------------------------------------

    def _crossed(self, window: Window, solid: torch.Tensor, column: torch.Tensor, max_range: float):
        """The pairs with rays that may cross the solid's box: solid, column, first beam, beams, and o, u, w."""
        o, u, w = window.upright(solid, column)
        ex, ey, ez = (row.index_select(0, solid) for row in self._extent)
        # Where the box's z is not the head's, a column's beams lean sideways with height: a shear undoes that.
        inverse = 1 / w[2].clamp(min=0.05)  # bodies may lean, but do not lie on their side
        near, far = torch.full_like(ex, _NEAREST), torch.full_like(ex, max_range)
        for axis, extent in ((0, ex), (1, ey)):
            lean = w[axis] * inverse
            along = 1 / _away_from_zero(u[axis] - u[2] * lean)
            middle, reach = (o[2] * lean - o[axis]) * along, (extent + ez * lean.abs()) * along.abs()
            near, far = torch.maximum(near, middle - reach), torch.minimum(far, middle + reach)
        below, above = -ez - o[2], ez - o[2]
        low = (torch.minimum(below / near, below / far) - u[2]) * inverse
        high = (torch.maximum(above / near, above / far) - u[2]) * inverse
        tangents = window.columns.tangents
        first = torch.searchsorted(tangents, low - 1e-5)
        count = torch.searchsorted(tangents, high + 1e-5, right=True) - first
        kept = torch.nonzero((near <= far) & (count > 0)).squeeze(1)
        pick = [values.index_select(0, kept) for values in (solid, column, first, count, *o, *u, *w)]
        return *pick[:4], tuple(pick[4:7]), tuple(pick[7:10]), tuple(pick[10:13])

    # --- solids × rays ----------------------------------------------------------------------------------------

    def _intersect(self, best, tangents, solid, column, first, count, o, u, w) -> None:
        """Lower `best` (R,) int64, see _pack, where a solid is nearer."""
        o, u, w = self._to_unit(solid, (o, u, w))
        if len(solid) == 0:
            return
        # Pairs are sorted by solid and solids by kind, so a kind is one run of pairs; runs are cut into chunks.
        starts = torch.tensor([number for _, number in self._kinds], device=self.device)
        borders = [*torch.searchsorted(solid, starts).tolist(), len(solid)]
        total = count.cumsum(0)
        for ((shape, lossy), _), start, end in zip(self._kinds, borders[:-1], borders[1:], strict=True):
            if start == end:
                continue
            base = int(total[start - 1]) if start else 0
            chunk = _CHUNK[self.device.type]
            full = torch.tensor(range(base + chunk, int(total[end - 1]), chunk), dtype=torch.int64, device=self.device)
            cuts = sorted({start, *torch.searchsorted(total, full).clamp(min=start + 1).tolist(), end})
            for a, b in zip(cuts, cuts[1:], strict=False):
                pair, within = _expand(count[a:b])
                beam = first[a:b].index_select(0, pair) + within
                t = tangents.index_select(0, beam)
                origin = [row[a:b].index_select(0, pair) for row in o]
                direction = [
                    torch.addcmul(low[a:b].index_select(0, pair), high[a:b].index_select(0, pair), t)
                    for low, high in zip(u, w, strict=True)
                ]
                near, met = _ENTER[shape](origin, direction)
                met &= near > _NEAREST
                ray = column[a:b].index_select(0, pair) * len(tangents) + beam
                number = solid[a:b].index_select(0, pair)
                if lossy:
                    place = [torch.addcmul(start, along, near) for start, along in zip(origin, direction, strict=True)]
                    met &= self.patch(place, number, _GAP_M) >= self._loss.index_select(0, number)
                key = torch.where(met, _pack(near, number), _EMPTY)
                best.scatter_reduce_(0, ray, key, "amin")

    def patch(self, place: Sequence[torch.Tensor], solid: torch.Tensor, size: float) -> torch.Tensor:
        """A number in [0, 1), the same all over a patch of `size` metres, for places (P,) in the solids' unit frames.

        Leaves and gaps stay where they are from sweep to sweep, and one beam meets what its neighbour meets.
        """
        half = [row.index_select(0, solid) for row in self._half]
        cells = [(part * scale / size).floor().long() for part, scale in zip(place, half, strict=True)]
        return chance(cells[0] * 73856093 + cells[1] * 19349663 + cells[2] * 83492791, solid)

    def _to_unit(self, solid: torch.Tensor, vectors: tuple[Vector, ...]) -> list[Vector]:
        """From the upright frame of each solid into its own, scaled so that its half extents are 1."""
        turned = torch.nonzero(self._turned.index_select(0, solid)).squeeze(1)
        scale = [row.index_select(0, solid).reciprocal() for row in self._half]
        rest = [row.index_select(0, solid.index_select(0, turned)) for row in self._rest]
        result = []
        for vector in vectors:
            if len(turned):
                inner = _turn_back(rest, tuple(part.index_select(0, turned) for part in vector))
                vector = tuple(p.index_copy(0, turned, q) for p, q in zip(vector, inner, strict=True))
            result.append(tuple(part * factor for part, factor in zip(vector, scale, strict=True)))
        return result

    def in_unit_frame(self, columns: Columns, solid: torch.Tensor, column: torch.Tensor) -> list[Vector]:
        """o, u, w (P,) of P columns, each in the own frame of a solid, where its half extents are 1."""
        window, static = Window(self, columns), solid < self.num_static
        parts = [torch.nonzero(static).squeeze(1), torch.nonzero(~static).squeeze(1)]
        found = [window.upright(solid.index_select(0, part), column.index_select(0, part)) for part in parts]
        order = torch.argsort(torch.cat(parts))
        vectors = tuple(
            tuple(torch.cat(rows).index_select(0, order) for rows in zip(*halves, strict=True))
            for halves in zip(*found, strict=True)
        )
        return self._to_unit(solid, vectors)

    # --- the ground -------------------------------------------------------------------------------------------

    def _ground(self, columns: Columns, max_range: float) -> torch.Tensor:
        """Keys (R,) int64, see _pack, of the ground or of nothing.

        Seen along a column, the ground has a tangent at each distance; a ray ends where that first exceeds its own.
        """
        beams, height = len(columns.tangents), self._height(columns.shift)
        x, y, z = columns.origin
        # Where the head leans, its beams meet the ground beside the vertical plane of the column.
        lean = [part / columns.up[2] for part in columns.up[:2]]
        level = [part - columns.level[2] * leaning for part, leaning in zip(columns.level[:2], lean, strict=True)]
        above = z - height(x, y)
        ratio = 1.06
        count = int(np.log(max_range / _NEAREST) / np.log(ratio)) + 2
        distance = torch.tensor(_NEAREST * ratio ** np.arange(count), dtype=torch.float32).to(self.device)
        px, py = (
            (start - above * leaning)[:, None] + forward[:, None] * distance
            for start, leaning, forward in zip((x, y), lean, level, strict=True)
        )
        fall = z[:, None] - height(px, py)  # (C, count), from the head down to the ground at each distance
        tangent = (-fall / distance - columns.level[2][:, None]) / columns.up[2][:, None]
        horizon = torch.cummax(tangent, dim=1).values
        index = torch.searchsorted(horizon, columns.tangents.expand(len(horizon), beams).contiguous()).flatten()
        ray = torch.nonzero((index < count) & (index > 0)).squeeze(1)
        index = index.index_select(0, ray)
        column = torch.div(ray, beams, rounding_mode="floor")
        t = columns.tangents.index_select(0, ray - column * beams)
        o = [row.index_select(0, column) for row in columns.origin]
        d = [
            torch.addcmul(low.index_select(0, column), high.index_select(0, column), t)
            for low, high in zip(columns.level, columns.up, strict=True)
        ]

        def clearance(o, d, depth: torch.Tensor) -> torch.Tensor:
            return o[2] + depth * d[2] - height(o[0] + depth * d[0], o[1] + depth * d[1])

        place = column * count + index
        near, far = distance.index_select(0, index - 1), distance.index_select(0, index)
        over, under = (
            fall.flatten().index_select(0, at) + depth * d[2] for at, depth in ((place - 1, near), (place, far))
        )
        depth, missed = far, under
        for _ in range(2):  # false position
            depth = near + (far - near) * (over / (over - under)).nan_to_num(0.5).clamp(0, 1)
            missed = clearance(o, d, depth)
            up = missed > 0
            near, over = torch.where(up, depth, near), torch.where(up, missed, over)
            far, under = torch.where(up, far, depth), torch.where(up, under, missed)
        steep = torch.nonzero(missed.abs() > 0.01).squeeze(1)  # the face of a kerb is a jump, to be closed in on
        if len(steep):
            o, d = ([part.index_select(0, steep) for part in vector] for vector in (o, d))
            near, far = near.index_select(0, steep), far.index_select(0, steep)
            for _ in range(8):
                middle = (near + far) / 2
                up = clearance(o, d, middle) > 0
                near, far = torch.where(up, middle, near), torch.where(up, far, middle)
            depth = depth.index_copy(0, steep, (near + far) / 2)
        best = torch.full((len(horizon) * beams,), _EMPTY, dtype=torch.int64, device=self.device)
        best[ray] = _pack(depth.clamp(min=0), torch.full_like(ray, GROUND))
        return best

    def _height(self, shift: np.ndarray):
        """Height of the terrain in the shifted world, from x and y."""
        x0, y0, z0 = (float(value) for value in shift)
        return lambda x, y: self.scene.terrain.height(x + x0, y + y0) - z0


class Window:
    """The solids' frames at the times of one head's columns."""

    def __init__(self, caster: Caster, columns: Columns) -> None:
        self.columns, self._caster = columns, caster
        count, device = len(columns.time), caster.device
        knot = (columns.time - float(caster.scene.times[0])) / KNOT_S
        first, last = int(knot[0].item()), int(knot[-1].item())
        self._knot = (knot.long() - first).clamp(min=0)
        self._part = (knot - knot.floor()).float()
        shift = torch.as_tensor(columns.shift, dtype=torch.float64, device=device)
        self._position = (caster._knot_position[:, first : last + 2] - shift).float()
        self._rotation = caster._knot_rotation[:, first : last + 2]
        static = torch.arange(len(caster.solids), device=device) < caster.num_static
        self._centre = (caster._centre - shift[:, None] * static).float()
        self.start = torch.arange(0, count, _SECTOR, device=device)
        self.end = (self.start + _SECTOR).clamp(max=count)
        self.middle = torch.div(self.start + self.end - 1, 2, rounding_mode="floor")

    def centres_in_sectors(self, first: int, last: int) -> Vector:
        """Centres (S',K) of the solids `first` … `last`-1 in the frame of the middle column of each of K sectors."""
        centre = self._centre[:, first:last]
        caster, middle = self._caster, self.middle
        if first < caster.num_static:
            world = centre[:, :, None].expand(-1, -1, len(middle))
        else:
            mover = caster._mover[first:last]
            rotation = self._rotation.index_select(0, mover)  # (S', knots, 9)
            position = self._position.index_select(0, mover)
            knots = [
                position[..., row] + sum(rotation[..., 3 * row + k] * centre[k][:, None] for k in range(3))
                for row in range(3)
            ]
            knot, part = self._knot[middle], self._part[middle]
            world = [k.index_select(1, knot) * (1 - part) + k.index_select(1, knot + 1) * part for k in knots]
        origin, u, w = (rows[:, middle] for rows in (self.columns.origin, self.columns.level, self.columns.up))
        left = torch.linalg.cross(w, u, dim=0)
        away = [world[k] - origin[k] for k in range(3)]
        return tuple(sum(axis[k] * away[k] for k in range(3)) for axis in (u, left, w))

    def upright(self, solid: torch.Tensor, column: torch.Tensor) -> tuple[Vector, Vector, Vector]:
        """o, u, w (P,) of columns in the solids' frames without pitch and roll; all static, or all moving, solids."""
        caster, columns = self._caster, self.columns
        o, u, w = (
            tuple(row.index_select(0, column) for row in rows) for rows in (columns.origin, columns.level, columns.up)
        )
        if len(solid) and int(solid[0]) >= caster.num_static:
            knots = self._position.shape[1]
            at = caster._mover.index_select(0, solid) * knots + self._knot.index_select(0, column)
            part = self._part.index_select(0, column)

            def lerp(table: torch.Tensor) -> list[torch.Tensor]:
                rows = table.flatten(0, 1).t().contiguous()
                return [torch.lerp(row.index_select(0, at), row.index_select(0, at + 1), part) for row in rows]

            position, rotation = lerp(self._position), lerp(self._rotation)
            o = _turn_back(rotation, tuple(a - b for a, b in zip(o, position, strict=True)))
            u, w = _turn_back(rotation, u), _turn_back(rotation, w)
        o = tuple(a - row.index_select(0, solid) for a, row in zip(o, self._centre, strict=True))
        c, s = (row.index_select(0, solid) for row in caster._yaw)
        return tuple((c * x + s * y, c * y - s * x, z) for x, y, z in (o, u, w))


# --- shapes of half extent 1: how far along o + λ d a ray enters, and whether it does ---------------------------


def _enter_box(o: list[torch.Tensor], d: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    spans = [_slab(a, b) for a, b in zip(o, d, strict=True)]
    near = torch.maximum(torch.maximum(spans[0][0], spans[1][0]), spans[2][0])
    far = torch.minimum(torch.minimum(spans[0][1], spans[1][1]), spans[2][1])
    return near, near <= far


def _enter_cylinder(o: list[torch.Tensor], d: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    low, high = _slab(o[2], d[2])
    near, far, met = _quadric(o[:2], d[:2])
    near = torch.maximum(near, low)
    return near, met & (near <= torch.minimum(far, high))


def _enter_ellipsoid(o: list[torch.Tensor], d: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    near, _, met = _quadric(o, d)
    return near, met


_ENTER = {Shape.BOX: _enter_box, Shape.CYLINDER: _enter_cylinder, Shape.ELLIPSOID: _enter_ellipsoid}


def _slab(o: torch.Tensor, d: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    inverse = _away_from_zero(d).reciprocal()
    middle, half = o * inverse, inverse.abs()
    return -middle - half, half - middle


def _quadric(o: list[torch.Tensor], d: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    a, b, c = (sum(p * q for p, q in zip(v, w, strict=True)) for v, w in ((d, d), (o, d), (o, o)))
    inverse = a.clamp(min=1e-12).reciprocal()
    discriminant = b * b - a * (c - 1)
    root = discriminant.clamp(min=0).sqrt()
    return (-b - root) * inverse, (root - b) * inverse, discriminant >= 0


# --- small parts ------------------------------------------------------------------------------------------------

_EMPTY = 0x7F800000 << 32  # infinitely far


def _pack(depth: torch.Tensor, solid: torch.Tensor) -> torch.Tensor:
    """One int64 that orders by depth ≥ 0: its bits above those of the solid's number."""
    return (depth.view(torch.int32).long() << 32) + (solid + 2)


def _unpack(key: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return (key >> 32).int().view(torch.float32), (key & 0xFFFFFFFF) - 2


def _expand(count: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For each of `count` (P,) items of each owner: the owner's number and the item's own, both (sum,) int64."""
    numbers = torch.arange(len(count), device=count.device)
    ends = count.cumsum(0)
    owner = torch.repeat_interleave(numbers, count)
    return owner, torch.arange(len(owner), device=count.device) - (ends - count).index_select(0, owner)


def _turn_back(matrix: list[torch.Tensor], vector: Vector) -> Vector:
    """Rᵀ v, for R in nine tensors, row by row."""
    x, y, z = vector
    return tuple(matrix[k] * x + matrix[3 + k] * y + matrix[6 + k] * z for k in range(3))


def _away_from_zero(values: torch.Tensor) -> torch.Tensor:
    return torch.where(values.abs() < 1e-9, 1e-9, values)


def chance(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Uniform in [0, 1), (P,) float32, the same on every device: a hash of two integers."""
    x = (first * 0x9E3779B1 + second * 0x85EBCA77) & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * 0x2C1B3C6D) & 0xFFFFFFFF
    x = ((x ^ (x >> 12)) * 0x297A2D39) & 0xFFFFFFFF
    return ((x ^ (x >> 15)) >> 8).float() / (1 << 24)
