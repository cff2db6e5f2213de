"""What a spinning LiDAR sees of a scene: rays fired one column after another while everything moves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zeroflow_core.geometry import SE3
from zeroflow_core.pairs import Sweep
from zeroflow_core.simulation.scene import Scene, Solid


@dataclass(frozen=True)
class Scanner:
    """
    elevations:    beam angles in degrees, up positive
    columns:       firings per revolution
    height:        above the vehicle frame's origin, metres
    max_range:     metres
    range_noise:   standard deviation, metres
    dropout:       share of returns lost
    sweep_seconds: duration of one revolution
    """

    elevations: tuple[float, ...]
    columns: int = 1800
    height: float = 1.6
    forward: float = 1.3
    max_range: float = 120.0
    range_noise: float = 0.015
    dropout: float = 0.03
    sweep_seconds: float = 0.1


def _vlp32(shift: float) -> tuple[float, ...]:
    """Beam angles of a VLP-32C-like scanner: dense around the horizon, sparse below."""
    dense = np.linspace(-8.0, 3.0, 24)
    sparse = np.array([-25.0, -20.0, -16.0, -13.5, -11.5, -9.7, 6.0, 12.0])
    return tuple(np.sort(np.concatenate([dense, sparse]) + shift))


SCANNERS = {
    "av2": Scanner(elevations=(*_vlp32(0.0), *_vlp32(0.23))),
    "hdl64": Scanner(
        elevations=(*np.linspace(2.0, -8.33, 32), *np.linspace(-8.83, -24.33, 32)), columns=1850, height=1.4
    ),
    "vlp32": Scanner(elevations=_vlp32(0.0)),
    "small": Scanner(elevations=tuple(np.linspace(-15.0, 7.0, 16)), columns=620, height=1.5, dropout=0.05),
}


@dataclass(frozen=True)
class SimulatedSweep:
    """A sweep with the truth about each of its points, in the sweep's own vehicle frame.

    sweep:    points compensated for ego motion to the stamp, as AV2's are; objects are where the beams met them
    forward:  (N,3) float32, metres: motion over ground until one sweep later
    backward: (N,3) float32, metres: from the point to where it was one sweep earlier
    actor:    (N,) int32, index into scene.actors; -1 for the ground
    """

    sweep: Sweep
    forward: np.ndarray
    backward: np.ndarray
    actor: np.ndarray


def scan(scene: Scene, scanner: Scanner, time: float, stamp_ns: int, rng: np.random.Generator) -> SimulatedSweep:
    """One revolution that begins at `time` (seconds in the scene's clock)."""
    elevation = np.radians(np.asarray(scanner.elevations))
    azimuth = -np.linspace(-np.pi, np.pi, scanner.columns, endpoint=False)  # clockwise, from behind
    fired = time + np.arange(scanner.columns) / scanner.columns * scanner.sweep_seconds

    ego_x, ego_y, ego_yaw = scene.ego.at(fired)
    origin = np.stack([ego_x, ego_y, _ego_z(scene, ego_x, ego_y) + scanner.height], axis=1)
    origin[:, 0] += scanner.forward * np.cos(ego_yaw)
    origin[:, 1] += scanner.forward * np.sin(ego_yaw)
    bearing = azimuth + ego_yaw
    direction = np.empty((scanner.columns, len(elevation), 3), dtype=np.float32)
    direction[..., 0] = np.cos(bearing)[:, None] * np.cos(elevation)
    direction[..., 1] = np.sin(bearing)[:, None] * np.cos(elevation)
    direction[..., 2] = np.sin(elevation)

    # The nearest surface along each ray: the ground first, then every solid that may stand before it.
    depth = _ground_depth(scene, origin, direction, rng)
    actor = np.full(depth.shape, -1, dtype=np.int32)
    depth[depth > scanner.max_range] = np.inf
    for number, body in enumerate(scene.actors):
        columns = _facing_columns(body, fired, origin, bearing, scanner.max_range)
        if len(columns) == 0:
            continue
        x, y, yaw = body.motion.at(fired[columns])
        base = np.stack([x, y, scene.slope_x * x + scene.slope_y * y], axis=1)
        for solid in body.solids:
            hit = _solid_depth(solid, base, yaw, origin[columns], direction[columns])
            if solid.roughness:
                hit += np.abs(rng.normal(0, solid.roughness, hit.shape)).astype(np.float32)
            nearer = hit < depth[columns]
            depth[columns] = np.where(nearer, hit, depth[columns])
            actor[columns] = np.where(nearer, number, actor[columns])

    seen = depth < scanner.max_range
    seen &= rng.random(depth.shape) >= scanner.dropout + 0.4 * np.clip(depth / scanner.max_range, 0, 1) ** 2
    column, beam = np.nonzero(seen)
    actor = actor[seen]
    distance = depth[seen] + rng.normal(0, scanner.range_noise, len(column))
    world = origin[column] + direction[seen].astype(np.float64) * distance[:, None]

    pose = _ego_pose(scene, time)
    ego_SE3_world = pose.inverse()
    points = ego_SE3_world.transform(world).astype(np.float32)
    reflectance = np.array([body.reflectance for body in scene.actors] + [0.2])[actor]
    intensity = np.clip(255 * reflectance * np.exp(-distance / 80) + rng.normal(0, 4, len(column)), 0, 255)
    moments = fired[column]
    displacement = [
        ego_SE3_world.rotate(_displacement(scene, actor, world, moments, sign * scanner.sweep_seconds))
        for sign in (1, -1)
    ]
    return SimulatedSweep(
        Sweep(
            points=points,
            stamp_ns=stamp_ns,
            world_SE3_ego=pose,
            intensity=np.round(intensity).astype(np.float32),
            ring=beam.astype(np.uint16),
            time_offset_ns=np.round((moments - time) * 1e9).astype(np.int32),
        ),
        forward=displacement[0].astype(np.float32),
        backward=displacement[1].astype(np.float32),
        actor=actor,
    )


def _ego_z(scene: Scene, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Height of the vehicle frame's origin above world zero."""
    return scene.slope_x * x + scene.slope_y * y - scene.ground_z


def _ego_pose(scene: Scene, time: float) -> SE3:
    x, y, _ = scene.ego.at(time)
    return scene.ego.pose(time, z=float(_ego_z(scene, x, y)))


def _ground_depth(scene: Scene, origin: np.ndarray, direction: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Range (K,B) float32 at which each ray meets the ground plane, inf where it never does."""
    height = origin[:, 2] - scene.slope_x * origin[:, 0] - scene.slope_y * origin[:, 1]
    descent = scene.slope_x * direction[..., 0] + scene.slope_y * direction[..., 1] - direction[..., 2]
    bumps = rng.normal(0, 0.012, descent.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = (height[:, None] + bumps) / descent
    return np.where(descent > 1e-4, depth, np.inf).astype(np.float32)


def _facing_columns(body, fired, origin, bearing, max_range) -> np.ndarray:
    """Columns (K',) whose rays may meet the body: most solids fill a small part of the circle."""
    x, y, _ = body.motion.at(fired)
    dx, dy = x - origin[:, 0], y - origin[:, 1]
    distance, reach = np.hypot(dx, dy), body.reach
    off = np.abs((np.arctan2(dy, dx) - bearing + np.pi) % (2 * np.pi) - np.pi)
    half_angle = np.where(distance > reach, np.arcsin(np.clip(reach / np.maximum(distance, 1e-6), 0, 1)), np.pi)
    return np.flatnonzero((off <= half_angle + 0.01) & (distance - reach < max_range))


def _solid_depth(solid: Solid, base, yaw, origin, direction) -> np.ndarray:
    """Range (K,B) float32 at which rays enter the solid of an actor at base (K,3), yaw (K,); inf where not."""
    c, s = np.cos(yaw)[:, None], np.sin(yaw)[:, None]
    d_x, d_y, d_z = direction[..., 0], direction[..., 1], direction[..., 2]
    relative = origin - base
    o_x = c * relative[:, :1] + s * relative[:, 1:2] - solid.x
    o_y = -s * relative[:, :1] + c * relative[:, 1:2] - solid.y
    o_x, o_y, o_z = (v.astype(np.float32) for v in (o_x, o_y, relative[:, 2:3]))
    c, s = c.astype(np.float32), s.astype(np.float32)
    d_x, d_y = c * d_x + s * d_y, -s * d_x + c * d_y
    with np.errstate(divide="ignore", invalid="ignore"):
        near, far = _slab(o_z, d_z, solid.bottom, solid.top)
        if solid.radius > 0:
            a, b = d_x**2 + d_y**2, o_x * d_x + o_y * d_y
            root = np.sqrt(b**2 - a * (o_x**2 + o_y**2 - solid.radius**2))  # NaN: the ray passes by
            spans = [((-b - root) / a, (-b + root) / a)]
        else:
            spans = [_slab(o_x, d_x, -solid.length / 2, solid.length / 2)]
            spans.append(_slab(o_y, d_y, -solid.width / 2, solid.width / 2))
        for enter, leave in spans:
            near, far = np.maximum(near, enter), np.minimum(far, leave)
        return np.where((near <= far) & (near > 0.5), near, np.float32(np.inf)).astype(np.float32)


def _slab(origin, direction, low, high):
    """Where a ray enters and leaves the space between two parallel planes."""
    first, second = (low - origin) / direction, (high - origin) / direction
    return np.minimum(first, second), np.maximum(first, second)


def _displacement(scene: Scene, actor, world, moments, seconds) -> np.ndarray:
    """World displacement (N,3) of each point from its own moment over `seconds`, by its actor's rigid track."""
    moved = np.zeros_like(world)
    for number in np.unique(actor[actor >= 0]):
        motion = scene.actors[number].motion
        if motion.speed == 0 and motion.acceleration <= 0:
            continue
        rows = np.flatnonzero(actor == number)
        x0, y0, yaw0 = motion.at(moments[rows])
        x1, y1, yaw1 = motion.at(moments[rows] + seconds)
        turn, dx, dy = yaw1 - yaw0, world[rows, 0] - x0, world[rows, 1] - y0
        moved[rows, 0] = x1 + np.cos(turn) * dx - np.sin(turn) * dy - world[rows, 0]
        moved[rows, 1] = y1 + np.sin(turn) * dx + np.cos(turn) * dy - world[rows, 1]
        moved[rows, 2] = scene.slope_x * (x1 - x0) + scene.slope_y * (y1 - y0)
    return moved
