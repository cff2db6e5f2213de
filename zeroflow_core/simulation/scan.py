"""Sweeps of a scene with the truth about every point.

What is fired when, what it meets (raycast.py), what comes back; and how each point moves, as Argoverse 2 defines it:
by the pose of its object's box in this sweep and in the next, where a box stands where the object is when beams pass it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from zeroflow_core.geometry import SE3
from zeroflow_core.pairs import Sweep
from zeroflow_core.simulation.raycast import GROUND, NOTHING, Caster, Columns
from zeroflow_core.simulation.scanners import Head, Scanner
from zeroflow_core.simulation.scene import EGO_HEIGHT, Scene
from zeroflow_core.simulation.solids import Shape, rotation_from_turn
from zeroflow_core.simulation.tracks import KNOT_S

START_NS = 315_960_000_000_000_000  # stamp of the first sweep, in the years that Argoverse 2's clock shows
MIN_RANGE = 1.0  # metres

# The vehicle that carries the scanner, seen by its own beams: half extents and centre in the vehicle frame, metres.
_OWN_BODY = (((2.45, 0.93, 0.3), (1.4, 0.0, 0.2)), ((1.0, 0.6, 0.6), (1.2, 0.0, 0.5)))
_GROUND_REFLECTANCE = (0.14, 0.3)  # of the road, and beyond its edge
_GROUND_ROUGHNESS = (0.008, 0.03)  # metres across the surface, likewise


@dataclass(frozen=True)
class ActorBox:
    """The annotated box of an actor at a sweep.

    actor:           index into Scene.actors
    city_SE3_object: pose of the box's middle
    size:            (3,) length, width, height in metres; holds all the actor's points, smeared as they are
    num_points:      how many those are
    """

    actor: int
    city_SE3_object: SE3
    size: np.ndarray
    num_points: int


@dataclass(frozen=True)
class SimulatedSweep:
    """A sweep with the truth about its N points. Vectors are in the sweep's own vehicle frame, in metres.

    sweep:     compensated for ego motion to the stamp, as AV2's are; objects are where the beams met them
    flow:      (N,3) float32, motion over ground until the next sweep, of the rigid object the point belongs to
    backward:  (N,3) float32, from the point to where it was one sweep before, likewise
    limb_flow: (N,3) float32, as flow, with the own motion of legs and arms
    actor:     (N,) int32, index into Scene.actors; -1 for what belongs to none
    is_ground: (N,) bool
    cuboids:   a box for every actor within range
    """

    sweep: Sweep
    flow: np.ndarray
    backward: np.ndarray
    limb_flow: np.ndarray
    actor: np.ndarray
    is_ground: np.ndarray
    cuboids: list[ActorBox]


class Simulator:
    """Drives a scanner through a scene. The same arguments give the same sweeps, in any order asked for.

    device: where rays are cast; the same bytes come from the same kind of device
    """

    def __init__(self, scene: Scene, scanner: Scanner, seed: int, device: str | torch.device = "cpu") -> None:
        self.scene, self.scanner, self.seed = scene, scanner, seed
        self.device = torch.device(device)
        self._caster = Caster(scene, device)
        self._heads = [_MountedHead(head, scanner, self.device) for head in scanner.heads]
        self._ego_position = scene.ego.position
        self._actor_tracks = [scene.bodies[actor.body].track for actor in scene.actors]
        self._actor_position = np.array([track.position for track in self._actor_tracks]).reshape(-1, len(scene.times), 3)
        self._actor_turn = np.array([track.turn for track in self._actor_tracks]).reshape(-1, len(scene.times), 3)
        self._actor_of_body = np.array([body.actor for body in scene.bodies], dtype=np.int32)
        rigid = {actor.body for actor in scene.actors}
        self._limbs = [n for n, b in enumerate(scene.bodies) if b.actor >= 0 and n not in rigid and b.track is not None]
        materials = [solid.material for solid in self._caster.solids]
        self._reflectance = self._tensor([m.reflectance for m in materials])
        self._roughness = self._tensor([m.roughness for m in materials])
        self._shape = torch.tensor([int(s.shape) for s in self._caster.solids], device=self.device)
        self._half = self._tensor([s.half for s in self._caster.solids]).reshape(-1, 3)
        panes = [(*m.windows.spacing, *m.windows.size, m.windows.sill, m.windows.depth) if m.windows else (0,) * 6 for m in materials]
        self._panes = self._tensor(panes).reshape(-1, 6)

    def _tensor(self, values) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.device)

    @property
    def mounting(self) -> dict[str, SE3]:
        """ego_SE3_sensor by name; up_lidar and down_lidar, which AV2's tools ask for, are always there."""
        poses = {head.name: SE3(rotation_from_turn(np.array([*head.tilt, 0.0])), np.array(head.position)) for head in self.scanner.heads}
        first = next(iter(poses.values()))
        return {"up_lidar": first, "down_lidar": first} | poses

    def stamp_ns(self, k: int) -> int:
        return START_NS + round(k * self.scanner.sweep_s * 1e9)

    def ego_pose(self, time: float) -> SE3:
        """world_SE3_ego at `time` in seconds of the scene."""
        return self.scene.ego.pose(self.scene.times, time)

    @torch.inference_mode()
    def sweep(self, k: int) -> SimulatedSweep:
        """Sweep `k`, which begins at k times the sweep's duration."""
        scene, begin = self.scene, k * self.scanner.sweep_s
        pose = self.ego_pose(begin)
        generator = torch.Generator(self.device).manual_seed(((self.seed * 1_000_003) ^ (k * 7919 + 17)) & (2**63 - 1))
        returns = [self._returns(head, begin, pose.translation, generator, k) for head in self._heads]
        world, ring, offset, intensity, solid = (torch.cat(parts).cpu().numpy() for parts in zip(*returns, strict=True))
        order = np.argsort(offset, kind="stable")  # as fired, whichever head it was
        world, ring, offset, intensity, solid = (part[order] for part in (world, ring, offset, intensity, solid))

        ego_R_world = pose.rotation.T
        points = (world.astype(np.float64) @ ego_R_world.T).astype(np.float32)
        body = np.append(self._caster.body.cpu().numpy(), -1)[np.where(solid >= 0, solid, -1)]
        actor = np.append(self._actor_of_body, -1)[body].astype(np.int32)
        passing = {j: self._passing(j) for j in (k - 1, k, k + 1)}
        moved = world.astype(np.float64) + pose.translation
        flow, backward = (self._rigid_motion(moved, actor, passing[k], passing[j]) for j in (k + 1, k - 1))
        limb = self._limb_motion(moved, body, actor, offset, begin, flow, passing[k + 1] - passing[k])
        return SimulatedSweep(
            Sweep(
                points=points,
                stamp_ns=self.stamp_ns(k),
                world_SE3_ego=pose,
                intensity=intensity,
                ring=ring.astype(np.uint16),
                time_offset_ns=np.round(offset * 1e9).astype(np.int32),
            ),
            *((vectors @ ego_R_world.T).astype(np.float32) for vectors in (flow, backward, limb)),
            actor=actor,
            is_ground=solid == GROUND,
            cuboids=self._boxes(moved, actor, passing[k], pose),
        )

    # --- what comes back --------------------------------------------------------------------------------------

    def _returns(self, mounted: _MountedHead, begin: float, shift: np.ndarray, generator: torch.Generator, k: int):
        """One head's returns, M of them: world less shift (M,3), laser (M,), seconds after begin, intensity, solid."""
        columns = self._columns(mounted, begin, shift)
        salt = (self.seed * 31 + k) * 2 + mounted.head.first_laser
        hits = self._caster.cast(columns, self.scanner.max_range, salt)
        beams = len(columns.tangents)
        ray = torch.nonzero((hits.solid != NOTHING) & mounted.clear).squeeze(1)
        depth, solid = hits.depth.index_select(0, ray), hits.solid.index_select(0, ray)
        column = torch.div(ray, beams, rounding_mode="floor")
        beam = ray - column * beams
        t = columns.tangents.index_select(0, beam)
        stretch = torch.sqrt(1 + t * t)
        slant, reflectance, roughness, lost, depth = self._surface(columns, ray, column, t, depth, solid, stretch, salt)

        noise = torch.randn(2, len(ray), generator=generator, device=self.device)
        chance = torch.rand(len(ray), generator=generator, device=self.device)
        distance = depth * stretch
        power = reflectance * slant / distance.clamp(min=MIN_RANGE) ** 2 / self.scanner.sensitivity
        seen = power * power / (1 + power * power) * (1 - self.scanner.dropout)
        distance = distance + noise[0] * torch.sqrt(self.scanner.range_noise**2 + roughness**2)
        intensity = 100 * reflectance * (0.25 + 0.75 * slant) + 2 * noise[1]
        kept = torch.nonzero((chance < seen) & ~lost & (distance > MIN_RANGE) & (distance < self.scanner.max_range)).squeeze(1)

        column, beam, t = column.index_select(0, kept), beam.index_select(0, kept), t.index_select(0, kept)
        depth = (distance / stretch).index_select(0, kept)
        world = torch.stack(
            [
                origin.index_select(0, column)
                + depth * (level.index_select(0, column) + t * up.index_select(0, column))
                for origin, level, up in zip(columns.origin, columns.level, columns.up, strict=True)
            ],
            dim=1,
        )
        offset = (columns.time.index_select(0, column) - begin).to(torch.float64)
        intensity = intensity.index_select(0, kept).round().clamp(0, 255)
        return world, mounted.laser.index_select(0, beam), offset, intensity, solid.index_select(0, kept)

    def _columns(self, mounted: _MountedHead, begin: float, shift: np.ndarray) -> Columns:
        """The head's firings in the sweep that begins at `begin`."""
        scene, head = self.scene, mounted.head
        time = begin + mounted.offset
        x = (time - scene.times[0]) / KNOT_S
        knot = np.clip(x.astype(np.int64), 0, len(scene.times) - 2)
        part = (x - knot)[:, None]
        position = scene.ego.position[knot] * (1 - part) + scene.ego.position[knot + 1] * part
        turn = scene.ego.turn[knot] * (1 - part) + scene.ego.turn[knot + 1] * part
        rotation = rotation_from_turn(turn)
        mounting = rotation_from_turn(np.array([*head.tilt, 0.0]))
        origin = position + np.einsum("cij,j->ci", rotation, np.array(head.position)) - shift
        level = np.einsum("cij,cj->ci", rotation, mounted.level @ mounting.T)
        up = np.einsum("cij,j->ci", rotation, mounting[:, 2])
        origin, level, up = (
            torch.from_numpy(np.ascontiguousarray(v.T.astype(np.float32))).to(self.device) for v in (origin, level, up)
        )
        seconds = torch.from_numpy(time).to(self.device)
        return Columns(origin, level, up, shift, seconds, mounted.step, mounted.tangents)

    def _surface(self, columns: Columns, ray, column, t, depth, solid, stretch, salt: int):
        """What a beam meets: |cos| of its incidence, reflectance, roughness along it (M,), loss (M,) bool, depth."""
        slant, lost = torch.empty_like(depth), torch.zeros_like(depth, dtype=torch.bool)
        reflectance, roughness = torch.empty_like(depth), torch.empty_like(depth)

        ground = torch.nonzero(solid == GROUND).squeeze(1)
        c, tangent, d = (values.index_select(0, ground) for values in (column, t, depth))
        x, y, dz = (
            origin.index_select(0, c) + d * (level.index_select(0, c) + tangent * up.index_select(0, c))
            for origin, level, up in zip(columns.origin, columns.level, columns.up, strict=True)
        )
        dz = (dz - columns.origin[2].index_select(0, c)).abs()
        x0, y0, _ = (float(value) for value in columns.shift)
        verge = (self.scene.terrain.beyond_edge(x + x0, y + y0) > 0).float()
        cosine = (dz / (d * stretch.index_select(0, ground))).clamp(0.003, 1)
        slant.index_copy_(0, ground, cosine)
        low, high = _GROUND_REFLECTANCE
        reflectance.index_copy_(0, ground, low + (high - low) * verge)
        low, high = _GROUND_ROUGHNESS
        # bumps of a road are seen along the beam at most as far as the beam's own width allows
        roughness.index_copy_(0, ground, ((low + (high - low) * verge) / cosine).clamp(max=0.08))

        rows = torch.nonzero(solid != GROUND).squeeze(1)
        number = solid.index_select(0, rows)
        o, u, w = self._caster.in_unit_frame(columns, number, column.index_select(0, rows))
        tangent, d = t.index_select(0, rows), depth.index_select(0, rows)
        direction = torch.stack([p + tangent * q for p, q in zip(u, w, strict=True)], dim=1)
        place = torch.stack(list(o), dim=1) + d[:, None] * direction
        normal = place.clone()
        shape = self._shape.index_select(0, number)
        box = shape == int(Shape.BOX)
        capped = (shape == int(Shape.CYLINDER)) & (place[:, 2].abs() > 0.999)
        face = torch.nn.functional.one_hot(place.abs().argmax(dim=1), 3)
        face = torch.where(capped[:, None], torch.tensor([0, 0, 1], device=self.device), face)
        normal = torch.where((box | capped)[:, None], place * face, normal)
        normal[:, 2] = torch.where((shape == int(Shape.CYLINDER)) & ~capped, 0.0, normal[:, 2])
        half = self._half.index_select(0, number)
        normal = normal / half  # back from the unit frame: normals scale inversely
        cosine = (normal * direction * half).sum(dim=1).abs()
        cosine = cosine / (torch.linalg.vector_norm(normal, dim=1) * stretch.index_select(0, rows)).clamp(min=1e-9)
        cosine = cosine.clamp(0.02, 1)
        slant.index_copy_(0, rows, cosine)
        rough = self._roughness.index_select(0, number)
        glow = self._reflectance.index_select(0, number)

        # Windows: on the upright faces of boxes that have any; most beams go through, the others come from behind.
        pane = self._panes.index_select(0, number)
        along = torch.where(place[:, 0].abs() > place[:, 1].abs(), place[:, 1] * half[:, 1], place[:, 0] * half[:, 0])
        above = (place[:, 2] + 1) * half[:, 2] - pane[:, 4]
        fine = box & (pane[:, 0] > 0) & (face[:, 2] == 0) & (above > 0)
        glazed = fine & (along.remainder(pane[:, 0].clamp(min=0.1)) < pane[:, 2])
        glazed &= above.remainder(pane[:, 1].clamp(min=0.1)) < pane[:, 3]
        through = _uniform(ray.index_select(0, rows), salt) < 0.7
        lost.index_copy_(0, rows, glazed & through)
        depth = depth.index_copy(0, rows, torch.where(glazed, d + pane[:, 5] / (cosine * stretch.index_select(0, rows)).clamp(min=0.3), d))
        reflectance.index_copy_(0, rows, torch.where(glazed, 0.1, glow))
        roughness.index_copy_(0, rows, rough)
        return slant, reflectance, roughness, lost, depth

    # --- how it moves -----------------------------------------------------------------------------------------

    def _passing(self, k: int) -> np.ndarray:
        """(A,) seconds of the scene: the mean time at which sweep `k`'s beams pass each actor.

        Where a sweep's first and last columns meet, an object is seen at its beginning and at its end; the mean
        lets the time drift from one to the other as the object crosses the seam.
        """
        begin = k * self.scanner.sweep_s
        if not self.scene.actors:
            return np.zeros(0)
        radius = np.array([np.hypot(*actor.size[:2]) / 2 for actor in self.scene.actors])
        means = []
        for mounted in self._heads:
            span, first = mounted.offset[-1] - mounted.offset[0], begin + mounted.offset[0]
            part = np.full(len(radius), 0.5)
            for _ in range(4):
                at = first + part * span
                ego = self._at(self.scene.ego.position[None], at)
                yaw = self._at(self.scene.ego.turn[None], at)[:, 2]
                away = self._at(self._actor_position, at) - ego
                bearing = np.arctan2(away[:, 1], away[:, 0]) - yaw
                turned = (bearing - np.radians(mounted.head.first_azimuth)) * np.sign(mounted.step)
                part = np.mod(turned / (2 * np.pi), 1.0)
            distance = np.hypot(away[:, 0], away[:, 1])
            half = np.arcsin(np.minimum(radius / np.maximum(distance, 1e-6), 1.0)) / (2 * np.pi)
            half = np.where(distance > radius, half, 0.5)
            before, after = np.maximum(half - part, 0), np.maximum(part + half - 1, 0)  # beyond the seam
            part = part + (before - after) / (2 * half)
            means.append(first + np.clip(part, 0, 1) * span)
        return np.mean(means, axis=0)

    def _at(self, values: np.ndarray, time: np.ndarray) -> np.ndarray:
        """Rows of `values` (A or 1, K, 3) at each of the times (A,)."""
        x = np.clip((time - self.scene.times[0]) / KNOT_S, 0, len(self.scene.times) - 1.001)
        knot = x.astype(np.int64)
        part, row = (x - knot)[:, None], np.arange(len(time)) if len(values) > 1 else 0
        return values[row, knot] * (1 - part) + values[row, knot + 1] * part

    def _poses(self, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Position (A,3) and rotation (A,3,3) of every actor, each at its time."""
        return self._at(self._actor_position, time), rotation_from_turn(self._at(self._actor_turn, time))

    def _rigid_motion(self, world: np.ndarray, actor: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """(N,3) displacement of points (N,3) of actors from their poses at `start` (A,) to those at `end` (A,)."""
        motion = np.zeros_like(world)
        rows = np.flatnonzero(actor >= 0)
        if len(rows) == 0:
            return motion
        (p0, r0), (p1, r1) = self._poses(start), self._poses(end)
        turn = r1 @ np.swapaxes(r0, 1, 2)
        which = actor[rows]
        motion[rows] = np.einsum("nij,nj->ni", turn[which], world[rows] - p0[which]) + p1[which] - world[rows]
        return motion

    def _limb_motion(self, world, body, actor, offset, begin, flow, interval) -> np.ndarray:
        """`flow` (N,3) with the own motion of limbs: from where a point of one is fired at to one interval later."""
        motion = flow.copy()
        for limb in np.intersect1d(self._limbs, body):
            rows, track = np.flatnonzero(body == limb), self.scene.bodies[limb].track
            time = begin + offset[rows]
            later = time + interval[actor[rows]]
            p0, p1 = (self._at(track.position[None], t) for t in (time, later))
            r0, r1 = (rotation_from_turn(self._at(track.turn[None], t)) for t in (time, later))
            local = np.einsum("nji,nj->ni", r0, world[rows] - p0)
            motion[rows] = np.einsum("nij,nj->ni", r1, local) + p1 - world[rows]
        return motion

    def _boxes(self, world: np.ndarray, actor: np.ndarray, passing: np.ndarray, pose: SE3) -> list[ActorBox]:
        """Every actor within range, its box large enough for its points."""
        if not self.scene.actors:
            return []
        position, rotation = self._poses(passing)
        centre = np.array([a.centre for a in self.scene.actors])
        size = np.array([a.size for a in self.scene.actors])
        rows = np.flatnonzero(actor >= 0)
        which = actor[rows]
        local = np.einsum("nji,nj->ni", rotation[which], world[rows] - position[which]) - centre[which]
        reach = np.zeros((len(size), 3))
        np.maximum.at(reach, which, np.abs(local) + 0.02)  # and the steps of AV2's float16
        size = np.maximum(size, 2 * reach)
        count = np.bincount(which, minlength=len(size))
        middle = position + np.einsum("aij,aj->ai", rotation, centre)
        near = np.linalg.norm(middle - pose.translation, axis=1) < self.scanner.max_range
        return [ActorBox(a, SE3(rotation[a], middle[a]), size[a], int(count[a])) for a in np.flatnonzero(near)]


class _MountedHead:
    """What of a head is the same in every sweep.

    offset:   (C,) seconds after the sweep's begin; level: (C,3) directions in the head's frame; step: radians
    tangents: (B,) ascending, and laser (B,) their numbers
    clear:    (C·B,) bool, the beam gets past the vehicle that carries the head
    """

    def __init__(self, head: Head, scanner: Scanner, device: torch.device) -> None:
        self.head = head
        order = np.argsort(head.elevations, kind="stable")
        tangents = np.tan(np.radians(np.array(head.elevations)[order]))
        self.step = (-1 if head.clockwise else 1) * 2 * np.pi / head.columns
        azimuth = np.radians(head.first_azimuth) + self.step * np.arange(head.columns)
        self.offset = head.start_s + np.arange(head.columns) * (scanner.sweep_s / head.columns)
        self.level = np.stack([np.cos(azimuth), np.sin(azimuth), np.zeros(head.columns)], axis=1)
        self.tangents = torch.tensor(tangents, dtype=torch.float32, device=device)
        self.laser = torch.tensor(order + head.first_laser, device=device)
        mounting = rotation_from_turn(np.array([*head.tilt, 0.0]))
        direction = (self.level[:, None] + tangents[None, :, None] * [0, 0, 1]) @ mounting.T
        self.clear = torch.tensor(~_meets_own_body(np.array(head.position), direction).ravel(), device=device)


def _meets_own_body(origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """(C,B) bool of rays (C,B,3) from `origin` (3,) in the vehicle frame."""
    met = np.zeros(direction.shape[:2], dtype=bool)
    for half, centre in _OWN_BODY:
        inverse = 1 / np.where(np.abs(direction) < 1e-9, 1e-9, direction)
        middle, reach = (np.array(centre) - origin) * inverse, np.array(half) * np.abs(inverse)
        near, far = (middle - reach).max(axis=-1), (middle + reach).min(axis=-1)
        met |= (near <= far) & (far > 0)
    return met


def _uniform(ray: torch.Tensor, salt: int) -> torch.Tensor:
    from zeroflow_core.simulation.raycast import _chance

    return _chance(ray, torch.zeros_like(ray), salt ^ 0x5BD1E995)
