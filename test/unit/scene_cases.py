"""A road made of formulas, the same on every machine: ground, walls, parked cars, and things that move."""

from __future__ import annotations

import numpy as np

from zeroflow_core.moments import Moment
from zeroflow_core.objects import MovingObject
from zeroflow_core.tracking import Track

CAR, PEDESTRIAN = (4.4, 1.8, 1.5), (0.6, 0.6, 1.7)
MOVING = (  # place of the middle of the base and velocity over ground, x and y; size
    ((15.0, -2.5), (9.0, 0.0), CAR),
    ((26.0, 3.0), (-7.0, 0.5), CAR),
    ((9.0, 8.5), (0.4, -5.0), CAR),
    ((-14.0, -2.5), (6.0, 0.0), CAR),
    ((11.0, -8.0), (0.0, 1.4), PEDESTRIAN),
)
_PARKED = ((4.0, -6.0), (-8.0, 6.5), (20.0, 7.0))
_PATH = np.linspace(-1.5, 0.0, 16)[:, None]  # seconds


def moving_object(place, velocity, size=CAR, num_points=100):
    """A box on the ground that looks where it goes."""
    yaw = float(np.arctan2(velocity[1], velocity[0]))
    centre = np.array([*place, size[2] / 2])
    return MovingObject(centre, np.array(size), yaw, np.array([*velocity, 0.0]), num_points)


def faces(box, step=0.2):
    """(N,3) points on the four upright faces of a box."""
    length, width, height = box.size
    z = np.arange(step / 2, height, step)
    along, across = np.arange(-length / 2, length / 2, step), np.arange(-width / 2, width / 2, step)
    outline = [(x, side * width / 2) for x in along for side in (-1, 1)]
    outline += [(side * length / 2, y) for y in across for side in (-1, 1)]
    ring = np.array([(*xy, height) for xy in outline for height in z])
    cos, sin = np.cos(box.yaw), np.sin(box.yaw)
    turned = ring[:, :2] @ [[cos, sin], [-sin, cos]]
    return np.column_stack([turned + box.centre[:2], ring[:, 2] + box.centre[2] - height / 2])


def still_points():
    """(N,3) ground in rings, two walls, parked cars."""
    turn = np.arange(0.0, 2 * np.pi, np.deg2rad(1.0))
    rings = [np.column_stack([r * np.cos(turn), r * np.sin(turn), 0 * turn]) for r in (5, 7, 10, 14, 20, 30)]
    x, z = (grid.ravel() for grid in np.meshgrid(np.arange(-45.0, 45.0, 0.5), np.arange(0.25, 5.0, 0.5)))
    walls = [np.column_stack([x, np.full(len(x), y), z]) for y in (-12.0, 13.0)]
    parked = [faces(moving_object(place, (1.0, 0.0))) for place in _PARKED]
    return np.concatenate([*rings, *walls, *parked])


def road(truth=False, trails=True):
    """The Moment; with truth, the estimate takes one car for standing still and another for too slow."""
    objects = [moving_object(*one) for one in MOVING]
    still, own = still_points(), [faces(one) for one in objects]
    points = np.concatenate([still, *own]).astype(np.float32)
    motion = [one.velocity + 0 * its for one, its in zip(objects, own, strict=True)]
    velocity = np.concatenate([np.zeros_like(still), *motion])
    velocity = velocity.astype(np.float32)
    estimate, seen = velocity.copy(), objects
    if truth:
        slow = len(still) + np.cumsum([0, *map(len, own)])
        estimate[slow[1]:slow[2]] = 0.0
        estimate[slow[2]:slow[3]] *= 0.5
        half = MovingObject(objects[2].centre, objects[2].size, objects[2].yaw, objects[2].velocity * 0.5, 100)
        seen = [objects[0], half, *objects[3:]]
    tracks = [Track(k + 1, one, 1.0, 10, False) for k, one in enumerate(seen)]
    return Moment(
        stamp_ns=1_000_000_000,
        points=points,
        velocity=estimate,
        tracks=tracks,
        truth=velocity if truth else None,
        true_objects=objects if truth else (),
        ego_path=_PATH * [6.0, 0.0, 0.0] if trails else np.zeros((1, 3)),
        paths={track.id: track.object.centre + _PATH * track.object.velocity for track in tracks} if trails else {},
    )
