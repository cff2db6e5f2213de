"""Moving objects as RViz markers: a box, an arrow as long as a second of travel, and the speed as text."""

from __future__ import annotations

import math

from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from zeroflow_core.drawing.colour_wheel import colours
from zeroflow_core.objects import MovingObject

_FULL_COLOUR = 10.0  # m/s
_LIFETIME = Duration(nanosec=500_000_000)  # they vanish by themselves when no cloud follows


def marker_array(header: Header, objects: list[MovingObject]) -> MarkerArray:
    """Markers in the frame and at the stamp of `header`, which `objects` are in; those of before are deleted."""
    markers = [Marker(header=header, action=Marker.DELETEALL)]
    for number, moving in enumerate(objects):
        markers += [_box(header, number, moving), _arrow(header, number, moving), _text(header, number, moving)]
    return MarkerArray(markers=markers)


def _marker(header: Header, namespace: str, number: int, kind: int, color: ColorRGBA) -> Marker:
    marker = Marker(header=header, ns=namespace, id=number, type=kind, action=Marker.ADD, color=color)
    marker.lifetime = _LIFETIME
    marker.pose.orientation.w = 1.0
    return marker


def _box(header: Header, number: int, moving: MovingObject) -> Marker:
    marker = _marker(header, "box", number, Marker.CUBE, _color(moving, 0.35))
    marker.pose.position = _point(*moving.centre)
    marker.pose.orientation.w = math.cos(moving.yaw / 2)
    marker.pose.orientation.z = math.sin(moving.yaw / 2)
    # RViz refuses boxes without extent, and one scan line has none in z.
    marker.scale.x, marker.scale.y, marker.scale.z = (max(float(extent), 0.05) for extent in moving.size)
    return marker


def _arrow(header: Header, number: int, moving: MovingObject) -> Marker:
    marker = _marker(header, "velocity", number, Marker.ARROW, _color(moving, 1.0))
    marker.points = [_point(*moving.centre), _point(*(moving.centre + moving.velocity))]
    marker.scale.x, marker.scale.y = 0.15, 0.4  # diameters of shaft and head
    return marker


def _text(header: Header, number: int, moving: MovingObject) -> Marker:
    marker = _marker(header, "speed", number, Marker.TEXT_VIEW_FACING, ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0))
    x, y, z = moving.centre
    marker.pose.position = _point(x, y, z + moving.size[2] / 2 + 0.8)
    marker.scale.z = 0.9
    marker.text = f"{moving.speed:.1f} m/s"
    return marker


def _color(moving: MovingObject, alpha: float) -> ColorRGBA:
    """The colour of its direction of motion, as in every picture of this package."""
    red, green, blue = colours(moving.velocity[None], full_speed=_FULL_COLOUR)[0] / 255
    return ColorRGBA(r=float(red), g=float(green), b=float(blue), a=alpha)


def _point(x: float, y: float, z: float) -> Point:
    return Point(x=float(x), y=float(y), z=float(z))
