"""How the points of a sweep move, and the boxes an annotator would draw, as Argoverse 2 defines both.

A box stands where its object is when the beams pass it, and a point moves as its object's box does from one sweep
to the next.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zeroflow_core.geometry import SE3
from zeroflow_core.simulation.scanners import Scanner
from zeroflow_core.simulation.scene import Scene
from zeroflow_core.simulation.solids import rotation_from_turn
from zeroflow_core.simulation.tracks import at


@dataclass(frozen=True)
class ActorBox:
    """The annotated box of an actor in a sweep, upright in the actor's body frame.

    actor:         index into Scene.actors
    city_SE3_body: where the actor was when the beams passed
    low, high:     (3,) corners in the body frame, metres: around the actor, and around its points, smeared as they are
    num_points:    how many those are
    """

    actor: int
    city_SE3_body: SE3
    low: np.ndarray
    high: np.ndarray
    num_points: int

    @property
    def city_SE3_object(self) -> SE3:
        """Pose of the box's middle."""
        return self.city_SE3_body @ SE3(np.eye(3), (self.low + self.high) / 2)

    @property
    def size(self) -> np.ndarray:
        """(3,) length, width, height, metres."""
        return self.high - self.low


_LEAVING_M = 10.0  # beyond the range, boxes stay: what is seen now has one in the next sweep too


class Truth:
    """What is known of a scene's actors as a scanner passes them. Points and vectors are in the world frame, metres."""

    def __init__(self, scene: Scene, scanner: Scanner) -> None:
        self._scene, self._scanner = scene, scanner
        tracks = [scene.bodies[actor.body].track for actor in scene.actors]
        shape = (len(tracks), len(scene.times), 3)
        self._position = np.array([track.position for track in tracks]).reshape(shape)
        self._turn = np.array([track.turn for track in tracks]).reshape(shape)
        self._centre = np.array([actor.centre for actor in scene.actors]).reshape(-1, 3)
        self._size = np.array([actor.size for actor in scene.actors]).reshape(-1, 3)
        rigid = {actor.body for actor in scene.actors}
        self._limbs = [n for n, body in enumerate(scene.bodies) if body.actor >= 0 and n not in rigid]

    def passing(self, k: int) -> np.ndarray:
        """(A,) seconds in the scene: the mean time at which the beams of sweep `k` pass each actor.

        Where a sweep's first and last columns meet, an object is seen at the sweep's beginning and at its end; the
        mean lets the time drift from one to the other as the object crosses that seam.
        """
        scene, duration = self._scene, self._scanner.sweep_s
        radius = np.hypot(self._size[:, 0], self._size[:, 1]) / 2
        means = []
        for head in self._scanner.heads:
            first, (x, y, _) = k * duration + head.start_s, head.position
            part = np.full(len(radius), 0.5)
            for _ in range(4):
                time = first + part * duration
                position, rotation = self._poses(time)
                middle = position + np.einsum("aij,aj->ai", rotation, self._centre)
                yaw = at(scene.times, scene.ego.turn, time)[:, 2]
                c, s = np.cos(yaw), np.sin(yaw)
                origin = at(scene.times, scene.ego.position, time)[:, :2]
                origin = origin + np.stack([c * x - s * y, s * x + c * y], axis=1)
                away = middle[:, :2] - origin
                bearing = np.arctan2(away[:, 1], away[:, 0]) - yaw
                turned = (bearing - np.radians(head.first_azimuth)) * (-1 if head.clockwise else 1)
                part = np.mod(turned / (2 * np.pi), 1.0)
            distance = np.hypot(away[:, 0], away[:, 1])
            half = np.arcsin(np.minimum(radius / np.maximum(distance, 1e-6), 1.0)) / (2 * np.pi)
            half = np.where(distance > radius, half, 0.5)
            before, after = np.maximum(half - part, 0), np.maximum(part + half - 1, 0)  # beyond the seam
            means.append(first + np.clip(part + (before - after) / (2 * half), 0, 1) * duration)
        return np.mean(means, axis=0)

    def rigid_motion(self, points: np.ndarray, actor: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """(N,3) displacement of points (N,3) of actors (N,), each moved from its pose at `start` to `end` (A,)."""
        motion = np.zeros_like(points)
        rows = np.flatnonzero(actor >= 0)
        if len(rows):
            (p0, r0), (p1, r1) = self._poses(start), self._poses(end)
            turn, which = r1 @ np.swapaxes(r0, 1, 2), actor[rows]
            carried = np.einsum("nij,nj->ni", turn[which], points[rows] - p0[which]) + p1[which]
            motion[rows] = carried - points[rows]
        return motion

    def limb_motion(
        self, points: np.ndarray, body: np.ndarray, time: np.ndarray, interval: np.ndarray, rigid: np.ndarray
    ) -> np.ndarray:
        """`rigid` (N,3) with the limbs' own motion: of points (N,3) of bodies (N,), fired at `time` (N,), over an
        interval (A,) of their actor."""
        scene, motion = self._scene, rigid.copy()
        for limb in np.intersect1d(self._limbs, body):
            track, rows = scene.bodies[limb].track, np.flatnonzero(body == limb)
            now, later = time[rows], time[rows] + interval[scene.bodies[limb].actor]
            p0, p1 = (at(scene.times, track.position, t) for t in (now, later))
            r0, r1 = (rotation_from_turn(at(scene.times, track.turn, t)) for t in (now, later))
            local = np.einsum("nji,nj->ni", r0, points[rows] - p0)
            motion[rows] = np.einsum("nij,nj->ni", r1, local) + p1 - points[rows]
        return motion

    def boxes(self, points: np.ndarray, actor: np.ndarray, passing: np.ndarray, ego: np.ndarray) -> list[ActorBox]:
        """The box of every actor within range of `ego` (3,), large enough for its own among the points (N,3)."""
        position, rotation = self._poses(passing)
        rows = np.flatnonzero(actor >= 0)
        which = actor[rows]
        local = np.einsum("nji,nj->ni", rotation[which], points[rows] - position[which])
        low, high = self._centre - self._size / 2, self._centre + self._size / 2
        np.minimum.at(low, which, local)
        np.maximum.at(high, which, local)
        count = np.bincount(which, minlength=len(self._size))
        near = np.linalg.norm(position - ego, axis=1) < self._scanner.max_range + _LEAVING_M
        poses = {a: SE3(rotation[a], position[a]) for a in np.flatnonzero(near).tolist()}
        return [ActorBox(a, pose, low[a], high[a], int(count[a])) for a, pose in poses.items()]

    def _poses(self, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Position (A,3) and rotation (A,3,3) of every actor, each at its own time (A,)."""
        times = self._scene.times
        return at(times, self._position, time), rotation_from_turn(at(times, self._turn, time))
