"""What a world consists of. Scenes are made in scenes.py; the scanner sees them in scan.py.

The world frame is the city frame of the logs: z up, metres. A body's frame has its origin on the ground below
its middle, x forward, y left, z up.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from zeroflow_core.simulation.solids import Solid
from zeroflow_core.simulation.terrain import Terrain
from zeroflow_core.simulation.tracks import Track


@dataclass(frozen=True)
class Body:
    """Solids that move as one.

    track: None for what never moves, whose solids are then in the world frame
    actor: index into Scene.actors of what it is a part of; -1 for the surroundings
    """

    solids: tuple[Solid, ...]
    track: Track | None = None
    actor: int = -1


@dataclass(frozen=True)
class Actor:
    """Something AV2 annotates: a vehicle, a person, a sign.

    category: AV2's name, such as REGULAR_VEHICLE
    body:     index into Scene.bodies of the body whose track is its own; limbs are other bodies of the actor
    size:     length, width and height of its box, metres: holds all its solids
    centre:   (x, y, z) of the box in the body's frame, metres
    """

    category: str
    body: int
    size: tuple[float, float, float]
    centre: tuple[float, float, float]


@dataclass(frozen=True)
class Lane:
    """left, right: (N,2) boundaries in the direction of travel, world frame, metres"""

    left: np.ndarray
    right: np.ndarray
    is_intersection: bool = False


@dataclass(frozen=True)
class RoadMap:
    """What a map says of the roads, in the world's x and y, metres.

    drivable:  polygons (N,2)
    crossings: pairs of edges ((2,2), (2,2)) that bound a pedestrian crossing along the way of those who cross
    """

    drivable: tuple[np.ndarray, ...] = ()
    lanes: tuple[Lane, ...] = ()
    crossings: tuple[tuple[np.ndarray, np.ndarray], ...] = ()


@dataclass(frozen=True)
class Scene:
    """A world over some seconds.

    times: (K,) knots of every track, uniform (tracks.knot_times)
    ego:   track of the vehicle frame that carries the scanner; EGO_HEIGHT above the ground
    """

    name: str
    times: np.ndarray
    terrain: Terrain
    bodies: tuple[Body, ...]
    actors: tuple[Actor, ...]
    ego: Track
    roads: RoadMap = field(default_factory=RoadMap)


EGO_HEIGHT = 0.33  # of the vehicle frame's origin above the ground, metres, as in AV2
EGO_SIZE = (4.9, 2.0, 1.65)  # box of the vehicle that carries the scanner; its rear axle is the frame's origin
EGO_CENTRE_X = 1.4  # metres from the rear axle to the box's middle
