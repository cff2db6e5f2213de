"""From a path and the distance travelled to tracks: wheels on the ground, trailers in tow, limbs that swing."""

from __future__ import annotations

import numpy as np
import torch

from zeroflow_core.simulation.model import Limb
from zeroflow_core.simulation.paths import Path
from zeroflow_core.simulation.scene import EGO_CENTRE_X, EGO_HEIGHT
from zeroflow_core.simulation.solids import rotation_from_turn, turn_from_rotation
from zeroflow_core.simulation.terrain import Terrain
from zeroflow_core.simulation.tracks import KNOT_S, Track

RAMP = 0.3  # metres over which a wheel or a foot climbs a kerb


def ground(terrain: Terrain, xy: np.ndarray) -> np.ndarray:
    """Height (...) that carries a wheel at `xy` (...,2), metres: the terrain's, with the kerb as a short ramp."""
    x, y = (torch.from_numpy(xy[..., k]) for k in range(2))
    edge = terrain.beyond_edge(x, y)
    step = torch.clamp(edge / RAMP + 0.5, 0, 1)
    return (terrain.smooth_height(x, y, edge) + terrain.kerb * step * step * (3 - 2 * step)).numpy()


def stand(terrain: Terrain, xy: np.ndarray, yaw: np.ndarray, base: float = 0.0, gauge: float = 0.0) -> Track:
    """How something stands at each of `xy` (K,2) with heading `yaw` (K,) on wheels `base` and `gauge` metres apart.

    Without a base it stands upright, as people do; without a gauge it does not lean sideways.
    """
    turn = np.zeros((*yaw.shape, 3))
    if base or gauge:
        ahead = np.stack([np.cos(yaw), np.sin(yaw)], axis=-1)
        left = np.stack([-ahead[..., 1], ahead[..., 0]], axis=-1)
        wheels = [xy + ahead * (f * base / 2) + left * (g * gauge / 2) for f in (1, -1) for g in (1, -1)]
        z = ground(terrain, np.stack(wheels))
    else:
        z = ground(terrain, xy[None])
    if gauge:
        turn[..., 0] = np.arctan2(z[0] + z[2] - z[1] - z[3], 2 * gauge)
    if base:
        turn[..., 1] = -np.arctan2(z[0] + z[1] - z[2] - z[3], 2 * base)
    turn[..., 2] = np.unwrap(yaw)
    return Track(np.concatenate([xy, z.mean(axis=0)[..., None]], axis=-1), turn)


def fixed(terrain: Terrain, xy: np.ndarray, yaw: float, count: int, base: float = 0.0, gauge: float = 0.0) -> Track:
    """`count` times the same pose, at `xy` (2,)."""
    one = stand(terrain, np.asarray(xy, dtype=float)[None], np.array([yaw]), base, gauge)
    return Track(np.broadcast_to(one.position, (count, 3)), np.broadcast_to(one.turn, (count, 3)))


def ride(terrain: Terrain, path: Path, s: np.ndarray, size: tuple[float, float, float], lean: bool = False) -> Track:
    """A vehicle whose middle is at arc lengths `s` (K,): both axles on the path, the wheels on the ground.

    size: of its box, metres; lean: into bends, as two-wheelers do
    """
    base = 0.6 * size[0]
    front, rear = path.at(s + base / 2), path.at(s - base / 2)
    chord = front - rear
    yaw = np.arctan2(chord[:, 1], chord[:, 0])
    track = stand(terrain, (front + rear) / 2, yaw, base, 0.0 if lean else 0.85 * size[1])
    if lean:
        speed = np.gradient(s, KNOT_S)
        around = np.arange(-3.0, 3.1)[:, None]
        bend = np.unwrap(path.heading(s + around), axis=0)
        curvature = (bend[-1] - bend[0]) / 6
        track.turn[:, 0] = np.clip(-np.arctan(_smooth(speed**2 * curvature, 25) / 9.81), -0.4, 0.4)
    return track


def tow(terrain: Terrain, puller: Track, hitch: float, kingpin: float, axle: float, width: float) -> Track:
    """A trailer behind `puller`: its axle rolls after the hitch without sliding sideways.

    hitch: where the puller carries it, kingpin: the same point of the trailer, axle: its wheels; x in metres in
    the frames of the puller and of the trailer
    """
    ahead = np.stack([np.cos(puller.turn[:, 2]), np.sin(puller.turn[:, 2])], axis=1)
    point = puller.position[:, :2] + hitch * ahead
    arm, yaw = kingpin - axle, np.empty(len(point))
    yaw[0] = puller.turn[0, 2]
    for k, (dx, dy) in enumerate(np.diff(point, axis=0)):
        yaw[k + 1] = yaw[k] + (np.cos(yaw[k]) * dy - np.sin(yaw[k]) * dx) / arm
    ahead = np.stack([np.cos(yaw), np.sin(yaw)], axis=1)
    wheels, pin = ground(terrain, point - arm * ahead), ground(terrain, point)
    middle = point - kingpin * ahead
    z = pin + (wheels - pin) * kingpin / arm
    level = stand(terrain, point - arm * ahead, yaw, 0.0, 0.85 * width)
    turn = np.stack([level.turn[:, 0], np.arctan2(wheels - pin, arm), np.unwrap(yaw)], axis=1)
    return Track(np.concatenate([middle, z[:, None]], axis=1), turn)


def swing(body: Track, limb: Limb, travelled: np.ndarray) -> Track:
    """Track of a limb of `body` after `travelled` (K,) metres."""
    rotation = rotation_from_turn(body.turn)
    angle = limb.angle(travelled)
    c, s, o = np.cos(angle), np.sin(angle), np.zeros_like(angle)
    pitch = np.stack([np.stack([c, o, s], -1), np.stack([o, o + 1, o], -1), np.stack([-s, o, c], -1)], -2)
    return Track(body.position + rotation @ np.array(limb.joint), turn_from_rotation(rotation @ pitch))


def ego(terrain: Terrain, path: Path, s: np.ndarray, size: tuple[float, float, float]) -> Track:
    """Track of the frame at the rear axle of the vehicle that carries the scanner; `s` (K,) is its middle's."""
    middle = ride(terrain, path, s, size)
    offset = rotation_from_turn(middle.turn) @ np.array([-EGO_CENTRE_X, 0.0, EGO_HEIGHT])
    return Track(middle.position + offset, middle.turn)


def _smooth(values: np.ndarray, half: int) -> np.ndarray:
    padded = np.pad(values, half, mode="edge")
    return np.convolve(padded, np.full(2 * half + 1, 1 / (2 * half + 1)), mode="valid")
