"""A world being put together: actors that keep clear of each other, and surroundings that keep clear of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from zeroflow_core.simulation import poses
from zeroflow_core.simulation.clearance import Occupancy, Plot, footprint, trace
from zeroflow_core.simulation.model import Model
from zeroflow_core.simulation.scene import EGO_CENTRE_X, EGO_SIZE, Actor, Body, RoadMap, Scene
from zeroflow_core.simulation.solids import Shape, Solid, rotation_from_turn, turn_from_rotation
from zeroflow_core.simulation.terrain import Terrain
from zeroflow_core.simulation.tracks import Track

Solids = tuple[Solid, ...]
OVERHEAD = 4.4  # metres; what hangs higher is in nobody's way
TOUCH = 0.36  # metres by which the surroundings may overlap, so that pieces of a fence can join: a raster's diagonal
MARGIN = 0.2  # metres that actors keep from one another, each side


@dataclass(frozen=True)
class Part:
    """A model on its track. travelled: (K,) metres at each knot, which swing its limbs; None if it has none."""

    model: Model
    track: Track
    travelled: np.ndarray | None = None


class Stage:
    """What is in the world so far.

    low, high: corners (2,) of the part of the world that surroundings may stand in, metres
    """

    def __init__(self, times: np.ndarray, terrain: Terrain, low: np.ndarray, high: np.ndarray) -> None:
        self.times, self.terrain = times, terrain
        self._bodies: list[Body] = []
        self._actors: list[Actor] = []
        self._solids: list[Solid] = []
        self._occupancy, self.plot = Occupancy(len(times)), Plot(low, high)

    def enter_ego(self, track: Track) -> None:
        """The vehicle with the scanner, before anybody else."""
        self._ego = track
        self._occupy(*self._occupancy.box(track, EGO_SIZE, (EGO_CENTRE_X, 0.0), 2 * MARGIN), EGO_SIZE[2])

    def enter(self, *parts: Part, margin: float = MARGIN) -> bool:
        """Add what moves as a group, such as truck and trailer, unless it would run into something."""
        boxes = [self._occupancy.box(part.track, part.model.size, part.model.centre, margin) for part in parts]
        for box, half in boxes:
            if not self._occupancy.free(box, half):
                return False
        for part, (box, half) in zip(parts, boxes, strict=True):
            self._occupy(box, half, part.model.centre[2] + part.model.size[2] / 2)
            self._add(part)
        return True

    def park(self, model: Model, xy: np.ndarray, yaw: float, margin: float = 0.05) -> bool:
        """Add an actor that never moves, on its wheels, unless something is in its way."""
        base, gauge = (0.6 * model.size[0], 0.85 * model.size[1]) if max(model.size[:2]) > 1.5 else (0.0, 0.0)
        track = poses.fixed(self.terrain, xy, yaw, len(self.times), base, gauge)
        return self.enter(Part(model, track, np.zeros(len(self.times)) if model.limbs else None), margin=margin)

    def place(
        self, what: Model | Solids, xy: np.ndarray, yaw: float, base: float = 0.0, clear: float | None = 0.15
    ) -> bool:
        """Add to the surroundings, unless something is in its way or it is out of the world.

        base:  metres over which it follows the slope, as fences do; 0 stands upright
        clear: metres that what it has on the ground keeps from the roads' edges; None for what stands on a road
        """
        xy = np.asarray(xy, dtype=float)
        solids = what.solids if isinstance(what, Model) else what
        places = [_Place.of(solid, xy, yaw) for solid in solids]
        if isinstance(what, Model):  # what has a box keeps all of it for itself
            half = tuple(length / 2 for length in what.size)
            places.append(_Place.of(Solid(Shape.BOX, half, what.centre), xy, yaw))
        for place in places:
            points = place.points(0.8, TOUCH)
            if not self.plot.covers(points).all() or not self.plot.free(points, place.low):
                return False
        if clear is not None:
            standing = np.concatenate([place.points() for place in places if place.low < 1.0])
            if self.beyond_edge(standing).min() < clear:
                return False
        for place in places:
            if place.low < OVERHEAD:
                self.plot.take(place.points(), place.high)
        track = poses.fixed(self.terrain, xy, yaw, len(self.times), base)
        if isinstance(what, Model):
            self._add(Part(what, track))
        else:
            self._solids += _set(what, track)
        return True

    def beyond_edge(self, xy: np.ndarray) -> np.ndarray:
        """Distance (N,) of points (N,2) beyond the roads' edges, metres; negative on a road."""
        return self.terrain.beyond_edge(*map(torch.from_numpy, xy.T)).numpy()

    def scene(self, name: str, roads: RoadMap) -> Scene:
        """All of it."""
        bodies = (*self._bodies, Body(tuple(self._solids)))
        return Scene(name, self.times, self.terrain, bodies, tuple(self._actors), self._ego, roads)

    def _add(self, part: Part) -> None:
        model, actor = part.model, len(self._actors)
        self._actors.append(Actor(model.category, len(self._bodies), model.size, model.centre))
        self._bodies.append(Body(model.solids, part.track, actor))
        for limb in model.limbs:
            self._bodies.append(Body(limb.solids, poses.swing(part.track, limb, part.travelled), actor))

    def _occupy(self, box: np.ndarray, half: np.ndarray, height: float) -> None:
        self._occupancy.add(box, half)
        self.plot.take(trace(box, half), height)


@dataclass(frozen=True)
class _Place:
    """Where a solid of something stands: a rectangle on the ground, in the frame of the whole, metres.

    middle, half: (2,) of the rectangle; low, high: heights between which the solid is
    xy, yaw:      where the whole stands, and how it is turned
    """

    middle: np.ndarray
    half: np.ndarray
    low: float
    high: float
    xy: np.ndarray
    yaw: float

    @classmethod
    def of(cls, solid: Solid, xy: np.ndarray, yaw: float) -> _Place:
        centre, extent = np.array(solid.centre), np.abs(solid.rotation) @ np.array(solid.half)
        return cls(centre[:2], extent[:2], centre[2] - extent[2], centre[2] + extent[2], xy, yaw)

    def points(self, part: float = 1.0, off: float = 0.0) -> np.ndarray:
        """Points (N,2) that fill it; of `part` of it, or of all but `off` metres at the edges if that is more."""
        x, y = (footprint(*np.maximum(part * self.half, self.half - off)) + self.middle).T
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        return self.xy + np.stack([c * x - s * y, s * x + c * y], axis=-1)


def _set(solids: Solids, track: Track) -> list[Solid]:
    """The solids in the world frame, with their body at the track's first pose."""
    rotation, position = rotation_from_turn(track.turn[0]), track.position[0]
    upright, yaw = not track.turn[0, :2].any(), track.turn[0, 2]
    placed = []
    for solid in solids:
        roll, pitch, own = solid.turn
        turn = (roll, pitch, own + yaw) if upright else turn_from_rotation(rotation @ solid.rotation)
        centre = rotation @ np.array(solid.centre) + position
        placed.append(replace(solid, centre=tuple(map(float, centre)), turn=tuple(map(float, turn))))
    return placed
