"""What moves as RViz markers: for each object a box, an arrow as long as a second of travel, its number and its speed.

The velocities of points are one LINE_LIST: RViz draws thousands of lines at once, but not thousands of arrows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from zeroflow_core.drawing.colour_wheel import colours
from zeroflow_core.geometry import SE3
from zeroflow_core.tracking import Track
from zeroflow_ros.messages.colours import FULL_SPEED

_SAME_FRAME = SE3.identity()
_BOX, _ARROW, _TEXT, _FLOW = "box", "velocity", "speed", "flow"  # namespaces, which RViz shows and hides
_LIFETIME = Duration(sec=1)  # what vanishes is deleted; this is for a node that is gone
_PALE = 0.4  # of the opacity, where it is predicted
_MOST_LINES = 2000
_LINE_S = 0.5  # seconds of travel that a point's line is long
_HEADINGS, _STRENGTHS = 120, 8  # colours of lines that are told apart


class MarkerWriter:
    """Writes markers whose ids are those of the tracks, and deletes those of tracks that have gone."""

    def __init__(self) -> None:
        self._shown: set[int] = set()
        self._is_new = True

    def message(
        self,
        header: Header,
        tracks: Sequence[Track],
        lines: Marker | None = None,
        header_SE3_tracks: SE3 = _SAME_FRAME,
    ) -> MarkerArray:
        """Markers in the frame and at the stamp of `header`. The first message of a writer deletes whatever another one
        has left.

        lines:             of flow_lines
        header_SE3_tracks: from the frame that `tracks` are in, where boxes stand upright, into that of `header`
        """
        gone = sorted(self._shown - {track.id for track in tracks})
        markers = [Marker(header=header, action=Marker.DELETEALL)] if self._is_new else []
        for number in gone:
            markers += [
                Marker(header=header, ns=namespace, id=number, action=Marker.DELETE)
                for namespace in (_BOX, _ARROW, _TEXT)
            ]
        for track in tracks:
            markers += [draw(header, track, header_SE3_tracks) for draw in (_box, _arrow, _text)]
        if lines is not None:
            markers.append(lines)
        self._shown, self._is_new = {track.id for track in tracks}, False
        return MarkerArray(markers=markers)


def flow_lines(
    header: Header,
    points: np.ndarray,
    velocity: np.ndarray,
    min_speed: float,
    *,
    velocity_in_vehicle: np.ndarray | None = None,
) -> Marker:
    """Where points will be in half a second: a line from each that moves, coloured by its heading.

    points, velocity: (N,3), metres and m/s over ground, in the frame of `header`; rows that are not finite or slower
        than `min_speed` (m/s) get no line. Of more than 2,000, every second, third, … gets one.
    velocity_in_vehicle: (N,3), the same in the vehicle frame, which colours are by; `velocity` where None
    """
    with np.errstate(invalid="ignore"):
        moving = np.einsum("ij,ij->i", velocity, velocity) >= min_speed**2
    rows = np.flatnonzero(moving)
    rows = rows[np.isfinite(points[rows]).all(axis=1) & np.isfinite(velocity[rows]).all(axis=1)]
    rows = rows[:: max(1, math.ceil(len(rows) / _MOST_LINES))]
    marker = _marker(header, _FLOW, 0, Marker.LINE_LIST, ColorRGBA(a=1.0))
    if len(rows) == 0:
        marker.action = Marker.DELETE  # RViz complains of lists that are empty
        return marker
    start = points[rows].astype(np.float64)
    ends = np.stack([start, start + _LINE_S * velocity[rows]], axis=1).reshape(-1, 3)
    marker.points = [Point(x=x, y=y, z=z) for x, y, z in ends.tolist()]
    heading = velocity if velocity_in_vehicle is None else velocity_in_vehicle
    marker.colors = [colour for colour in _line_colours(heading[rows]) for _ in range(2)]
    marker.scale.x = 0.04  # width
    return marker


def _line_colours(velocity: np.ndarray) -> list[ColorRGBA]:
    """One for each velocity (N,3), shared by all that are alike: to make one for each would take longest of all."""
    heading = np.round(np.arctan2(velocity[:, 1], velocity[:, 0]) * (_HEADINGS / (2 * np.pi)))
    strength = np.ceil(np.hypot(velocity[:, 0], velocity[:, 1]) * (_STRENGTHS / FULL_SPEED)).clip(max=_STRENGTHS)
    return list(map(_line_colour, heading.tolist(), strength.tolist()))


@lru_cache(maxsize=2048)
def _line_colour(heading: float, strength: float) -> ColorRGBA:
    angle, speed = heading * (2 * math.pi / _HEADINGS), strength * (FULL_SPEED / _STRENGTHS)
    return _colour(np.array([speed * math.cos(angle), speed * math.sin(angle)]), 0.9)


def _box(header: Header, track: Track, header_SE3_tracks: SE3) -> Marker:
    moving = track.object
    marker = _marker(header, _BOX, track.id, Marker.CUBE, _colour(moving.velocity, _opacity(track, 0.35)))
    pose = header_SE3_tracks @ SE3.from_yaw(moving.yaw, moving.centre)
    marker.pose.position = _point(*pose.translation)
    turn = marker.pose.orientation
    turn.w, turn.x, turn.y, turn.z = pose.quaternion.tolist()
    # RViz refuses boxes without extent, and one scan line has none in z.
    marker.scale.x, marker.scale.y, marker.scale.z = (max(float(extent), 0.05) for extent in moving.size)
    return marker


def _arrow(header: Header, track: Track, header_SE3_tracks: SE3) -> Marker:
    moving = track.object
    marker = _marker(header, _ARROW, track.id, Marker.ARROW, _colour(moving.velocity, _opacity(track, 1.0)))
    ends = header_SE3_tracks.transform(np.stack([moving.centre, moving.centre + moving.velocity]))
    marker.points = [_point(*end) for end in ends]
    marker.scale.x, marker.scale.y = 0.15, 0.4  # diameters of shaft and head
    return marker


def _text(header: Header, track: Track, header_SE3_tracks: SE3) -> Marker:
    white = ColorRGBA(r=1.0, g=1.0, b=1.0, a=_opacity(track, 1.0))
    marker = _marker(header, _TEXT, track.id, Marker.TEXT_VIEW_FACING, white)
    above = track.object.centre + [0.0, 0.0, track.object.size[2] / 2 + 0.8]
    marker.pose.position = _point(*header_SE3_tracks.transform(above[None])[0])
    marker.scale.z = 0.9
    marker.text = f"#{track.id} {track.object.speed:.1f} m/s"
    return marker


def _marker(header: Header, namespace: str, number: int, kind: int, colour: ColorRGBA) -> Marker:
    marker = Marker(header=header, ns=namespace, id=number, type=kind, action=Marker.ADD, color=colour)
    marker.lifetime = _LIFETIME
    marker.pose.orientation.w = 1.0
    return marker


def _opacity(track: Track, seen: float) -> float:
    return seen * _PALE if track.is_predicted else seen


def _colour(velocity: np.ndarray, alpha: float) -> ColorRGBA:
    """The colour of a direction of motion, as in every picture of this package."""
    red, green, blue = colours(velocity[None], full_speed=FULL_SPEED)[0] / 255
    return ColorRGBA(r=float(red), g=float(green), b=float(blue), a=alpha)


def _point(x: float, y: float, z: float) -> Point:
    return Point(x=float(x), y=float(y), z=float(z))
