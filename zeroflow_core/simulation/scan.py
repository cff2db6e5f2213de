"""Sweeps of a scene: columns fired one after another while everything moves, and the truth about every return."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from zeroflow_core.geometry import SE3
from zeroflow_core.pairs import Sweep
from zeroflow_core.simulation.echoes import Surfaces, listen
from zeroflow_core.simulation.raycast import GROUND, NOTHING, Caster, Columns
from zeroflow_core.simulation.scanners import Head, Scanner
from zeroflow_core.simulation.scene import Scene
from zeroflow_core.simulation.solids import rotation_from_turn
from zeroflow_core.simulation.tracks import at
from zeroflow_core.simulation.truth import ActorBox, Truth

START_NS = 315_960_000_000_000_000  # stamp of the first sweep, in the years that Argoverse 2's clock shows


@dataclass(frozen=True)
class SimulatedSweep:
    """A sweep with the truth about its N points. Vectors are in the sweep's own vehicle frame, in metres.

    sweep:     compensated for ego motion to the stamp, as AV2's are; objects are where the beams met them
    flow:      (N,3) float32, motion over ground until the next sweep, of the rigid object the point belongs to
    backward:  (N,3) float32, from the point to where it was one sweep before, likewise
    velocity:  (N,3) float32, metres per second over ground, on the way from there
    limb_flow: (N,3) float32, as flow, with the own motion of legs and arms
    actor:     (N,) int32, index into Scene.actors; -1 for what belongs to none
    is_ground: (N,) bool
    cuboids:   a box for every actor within range
    """

    sweep: Sweep
    flow: np.ndarray
    backward: np.ndarray
    velocity: np.ndarray
    limb_flow: np.ndarray
    actor: np.ndarray
    is_ground: np.ndarray
    cuboids: list[ActorBox]


class Simulator:
    """Drives a scanner through a scene. The same arguments give the same sweeps, in whatever order they are asked for.

    device: where rays are cast; the same kind of device gives the same bytes
    """

    def __init__(self, scene: Scene, scanner: Scanner, seed: int, device: str | torch.device = "cpu") -> None:
        self.scene, self.scanner, self.seed = scene, scanner, seed
        self.device = torch.device(device)
        self._caster = Caster(scene, self.device)
        self._surfaces, self._truth = Surfaces(self._caster), Truth(scene, scanner)
        self._passing = lru_cache(maxsize=4)(self._truth.passing)  # each is asked for by three sweeps
        self._heads = [_MountedHead(head, scanner, self.device) for head in scanner.heads]
        # The last entry is for the ground, whose number is -1.
        self._body_of_solid = np.append(self._caster.body.cpu().numpy(), -1)
        self._actor_of_body = np.array([*(body.actor for body in scene.bodies), -1], dtype=np.int32)

    @property
    def mounting(self) -> dict[str, SE3]:
        """ego_SE3_sensor by name. AV2's tools ask for up_lidar and down_lidar, so those are always there."""
        halves: dict[str, list[SE3]] = {}
        for head in self.scanner.heads:
            halves.setdefault(head.name, []).append(head.vehicle_SE3_head)
        poses = {name: SE3(p[0].rotation, np.mean([q.translation for q in p], axis=0)) for name, p in halves.items()}
        first = next(iter(poses.values()))
        return {"up_lidar": first, "down_lidar": first} | poses

    def stamp_ns(self, k: int) -> int:
        """Stamp of sweep `k`, from which the times of its columns are counted."""
        return START_NS + round(k * self.scanner.sweep_s * 1e9)

    def ego_pose(self, time: float) -> SE3:
        """city_SE3_ego at `time`, in seconds after the first sweep's stamp."""
        return self.scene.ego.pose(self.scene.times, time)

    @torch.inference_mode()
    def sweep(self, k: int) -> SimulatedSweep:
        """Sweep `k`, counted from 0."""
        begin = k * self.scanner.sweep_s
        pose = self.ego_pose(begin)
        sequence = np.random.SeedSequence([self.seed, k])
        generator = torch.Generator(self.device).manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> 1))
        returns = [self._returns(mounted, begin, pose.translation, generator) for mounted in self._heads]
        parts = [torch.cat(part).cpu().numpy() for part in zip(*returns, strict=True)]
        order = np.argsort(parts[0], kind="stable")  # as fired, whichever head it was
        offset, laser, intensity, solid, away = (part[order] for part in parts)

        away = away.astype(np.float64)
        world = away + pose.translation
        body = self._body_of_solid[np.maximum(solid, -1)]
        actor = self._actor_of_body[body]
        before, now, after = (self._passing(j) for j in (k - 1, k, k + 1))
        flow, backward = (self._truth.rigid_motion(world, actor, now, then) for then in (after, before))
        # An object passes the beams a little earlier or later than a sweep ago when its bearing has changed.
        velocity = -backward / np.append(now - before, 1.0)[actor, None]
        limb_flow = self._truth.limb_motion(world, body, begin + offset, after - now, flow)
        in_ego = [(v @ pose.rotation).astype(np.float32) for v in (away, flow, backward, velocity, limb_flow)]
        return SimulatedSweep(
            Sweep(
                points=in_ego[0],
                stamp_ns=self.stamp_ns(k),
                world_SE3_ego=pose,
                intensity=intensity,
                ring=laser.astype(np.uint16),
                time_offset_ns=np.round(offset * 1e9).astype(np.int32),
            ),
            *in_ego[1:],
            actor=actor,
            is_ground=solid == GROUND,
            cuboids=self._truth.boxes(world, actor, now, pose.translation),
        )

    def _returns(self, mounted: _MountedHead, begin: float, shift: np.ndarray, generator: torch.Generator):
        """One head's M returns: seconds after begin, laser, intensity, solid (M,); world less shift (M,3)."""
        columns = self._columns(mounted, begin, shift)
        hits = self._caster.cast(columns, self.scanner.max_range)
        ray = torch.nonzero((hits.solid != NOTHING) & mounted.clear).squeeze(1)
        solid = hits.solid.index_select(0, ray)
        surface = self._surfaces.meet(columns, ray, hits.depth.index_select(0, ray), solid)
        beams = len(columns.tangents)
        stretch = torch.sqrt(1 + columns.tangents**2)
        echoes = listen(self.scanner, surface, stretch.index_select(0, ray % beams), generator)

        ray = ray.index_select(0, echoes.rows)
        column, beam = torch.div(ray, beams, rounding_mode="floor"), ray % beams
        t, depth = columns.tangents.index_select(0, beam), echoes.distance / stretch.index_select(0, beam)
        away = [
            origin.index_select(0, column) + depth * (level.index_select(0, column) + t * up.index_select(0, column))
            for origin, level, up in zip(columns.origin, columns.level, columns.up, strict=True)
        ]
        offset, laser = mounted.seconds.index_select(0, column), mounted.laser.index_select(0, beam)
        return offset, laser, echoes.intensity, solid.index_select(0, echoes.rows), torch.stack(away, dim=1)

    def _columns(self, mounted: _MountedHead, begin: float, shift: np.ndarray) -> Columns:
        """The head's firings in the sweep that begins at `begin`."""
        scene, time = self.scene, begin + mounted.offset
        rotation = rotation_from_turn(at(scene.times, scene.ego.turn, time))
        position = at(scene.times, scene.ego.position, time) + rotation @ mounted.ego_SE3_head.translation - shift
        level = np.einsum("cij,cj->ci", rotation, mounted.level)
        up = rotation @ mounted.ego_SE3_head.rotation[:, 2]
        rows = (torch.from_numpy(np.ascontiguousarray(v.T, dtype=np.float32)) for v in (position, level, up))
        seconds = torch.from_numpy(time).to(self.device)
        return Columns(*(row.to(self.device) for row in rows), shift, seconds, mounted.step, mounted.tangents)


class _MountedHead:
    """What of a head is the same in every sweep.

    offset, seconds: (C,) seconds after the sweep's begin, as an array and on the device
    level:           (C,3) directions in the vehicle frame, across which `step` radians lie from one to the next
    tangents, laser: (B,) of the beams' elevations, ascending, and the beams' laser numbers
    clear:           (C·B,) bool, the beam gets past the vehicle that carries the head
    """

    def __init__(self, head: Head, scanner: Scanner, device: torch.device) -> None:
        self.head = head
        self.ego_SE3_head = head.vehicle_SE3_head
        order = np.argsort(head.elevations, kind="stable")
        tangents = np.tan(np.radians(np.array(head.elevations)[order]))
        self.step = (-1 if head.clockwise else 1) * 2 * np.pi / head.columns
        azimuth = np.radians(head.first_azimuth) + self.step * np.arange(head.columns)
        level = np.stack([np.cos(azimuth), np.sin(azimuth), np.zeros(head.columns)], axis=1)
        self.level = self.ego_SE3_head.rotate(level)
        self.offset = head.start_s + np.arange(head.columns) * (scanner.sweep_s / head.columns)
        self.seconds = torch.from_numpy(self.offset).to(device)
        self.tangents = torch.tensor(tangents, dtype=torch.float32, device=device)
        self.laser = torch.tensor(order + head.first_laser, device=device)
        direction = self.level[:, None] + tangents[:, None] * self.ego_SE3_head.rotation[:, 2]
        blocked = _meets(scanner.own_body, self.ego_SE3_head.translation, direction)
        self.clear = torch.from_numpy(~blocked.ravel()).to(device)


def _meets(boxes, origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """(C,B) bool, of rays (C,B,3) from `origin` (3,) and boxes (half extents, centre), all in the vehicle frame."""
    inverse = 1 / np.where(np.abs(direction) < 1e-9, 1e-9, direction)
    met = np.zeros(direction.shape[:2], dtype=bool)
    for half, centre in boxes:
        middle, reach = (np.array(centre) - origin) * inverse, np.array(half) * np.abs(inverse)
        near, far = (middle - reach).max(axis=-1), (middle + reach).min(axis=-1)
        met |= (near <= far) & (far > 0)
    return met
