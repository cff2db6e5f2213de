"""What is logged of a moment, and under which names the viewer lists it.

Timelines: ``stamp``, the moments' own time, and ``sweep``, their number.

``world``                                  a fixed frame, z up, that begins where the vehicle was first
``world/map``                              what stood still lately: a point for each occupied cell, twice a second
``world/vehicle``                          the vehicle's pose; what is below is in its frame
``world/vehicle/body``, ``…/path``         the vehicle, and where it was
``world/vehicle/estimate/``, ``…/truth/``  as estimated, and as labelled:
    ``still``, ``moving``                  the points, those that move in the colours of heading and speed
    ``flow``                               half a second of the moving points' travel, of some of them
    ``boxes``, ``arrows``, ``trails``      the moving objects, a second of their travel, and where they were
``plots/``                                 figures over time
``legend``                                 what the colours mean
"""

from __future__ import annotations

import numpy as np
import rerun as rr

from zeroflow_core.drawing import colour_wheel
from zeroflow_core.drawing.legend import legend_strip
from zeroflow_core.drawing.moving import is_moving, line_colour
from zeroflow_core.drawing.points import grey
from zeroflow_core.ego_motion import LONGEST_GAP_NS
from zeroflow_core.geometry import SE3, finite_rows
from zeroflow_core.moments import Moment
from zeroflow_core.objects import MovingObject
from zeroflow_core.still_map import StillMap
from zeroflow_core.viewing.layout import layout

STAMP, INDEX = "stamp", "sweep"  # timelines
MOST_ARROWS = 2000
ARROW_S = 0.5  # seconds of travel that a point's arrow is long

_MAP_EVERY_NS = 500_000_000
_STEP_NS = 100_000_000  # from the last moment to one whose stamp has gone back
_HIGH = 3.0  # metres above the ground: what is lightest
_LEAST_SIDE = 0.3  # metres of a box, so that it is seen
_EGO = (236, 240, 245)
_NEUTRAL = (142, 152, 166)  # seen on black as well as on white
_MAP = (64, 74, 88)
_AHEAD, _BACK = (colour_wheel.colours(np.array([[x, 0.0]]), 1.0)[0].astype(np.uint8) for x in (1.0, -1.0))
_SERIES = (
    ("speed/vehicle", "vehicle", _NEUTRAL),
    ("speed/fastest", "fastest object", _AHEAD),
    ("objects/estimate", "estimate", _AHEAD),
    ("objects/truth", "truth", _BACK),
    ("latency/flow", "flow", _NEUTRAL),
)
_BODY = np.array([[2.3, 0.9], [-2.3, 0.9], [-2.3, -0.9], [2.3, -0.9], [3.1, 0.0], [2.3, 0.9]])  # metres


class SceneRecording:
    """Logs moments to a Rerun recording. Not for two threads at once.

    stream:     the recording; where it goes is its owner's business
    min_speed:  m/s over ground from which points count as moving
    full_speed: m/s at which their colour is full
    live:       the newest moment is shown as it comes, in place of a film to be played
    count:      moments that were logged
    """

    def __init__(
        self, stream: rr.RecordingStream, *, min_speed: float = 0.5, full_speed: float = 10.0, live: bool = False
    ) -> None:
        self._stream, self._min_speed, self._full_speed, self._live = stream, min_speed, full_speed, live
        self.count = 0
        self._map = StillMap()
        self._last: Moment | None = None
        self._shift_ns = 0
        self._mapped_ns: int | None = None
        self._home: np.ndarray | None = None
        self._shown: tuple[bool, bool] | None = None  # whether there is room for a truth, and for latencies
        # Of no use beside the moments' own time, and different each time the same is recorded.
        stream.set_log_time_enabled(False)
        stream.set_log_tick_enabled(False)
        self._log_what_stays()

    def log(self, moment: Moment, latency_ms: float | None = None) -> None:
        """Add a moment.

        latency_ms: from its stamp until it was seen, of a live one
        """
        self._lay_out(moment.truth is not None, latency_ms is not None)
        self._stream.set_time(STAMP, timestamp=np.datetime64(self._ascending(moment.stamp_ns), "ns"))
        self._stream.set_time(INDEX, sequence=self.count)
        self._log_vehicle(moment)
        self._log_side("estimate", moment, moment.velocity, moment.objects)
        self._log_tracks(moment)
        if moment.truth is not None:
            self._log_side("truth", moment, moment.truth, moment.true_objects)
            labels = [f"{one.speed:.1f} m/s" for one in moment.true_objects]
            self._log_boxes("truth", moment.true_objects, labels)
        elif self._last is not None and self._last.truth is not None:
            self._stream.log("world/vehicle/truth", rr.Clear(recursive=True))
        self._log_figures(moment, latency_ms)
        self._log_map(moment)
        self.count, self._last = self.count + 1, moment

    def _ascending(self, stamp_ns: int) -> int:
        """The stamp; once stamps have gone back, as those of a bag that is played again, that much later: a timeline
        has room for one thing at a time."""
        if self._last is not None and stamp_ns <= self._last.stamp_ns:
            self._shift_ns += self._last.stamp_ns - stamp_ns + _STEP_NS
        return stamp_ns + self._shift_ns

    def _log_what_stays(self) -> None:
        put = self._stream.log
        put("world", rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
        body = np.column_stack([_BODY, np.zeros(len(_BODY))])
        put("world/vehicle/body", rr.LineStrips3D([body], colors=[_EGO], radii=rr.Radius.ui_points(2.0)), static=True)
        legend = legend_strip(620, 1.6, self._full_speed, 170)
        put("legend", rr.Image(np.asarray(legend)), static=True)
        for at, name, colour in _SERIES:
            put(f"plots/{at}", rr.SeriesLines(names=[name], colors=[colour], widths=[2.0]), static=True)

    def _lay_out(self, with_truth: bool, with_latency: bool) -> None:
        """The viewer's layout, again when there turns out to be more to show."""
        before = self._shown or (False, False)
        shown = with_truth or before[0], with_latency or before[1]
        if shown != self._shown:
            self._stream.send_blueprint(layout(*shown, live=self._live))
            self._shown = shown

    def _log_vehicle(self, moment: Moment) -> None:
        pose = SE3.identity()
        if moment.world_SE3_vehicle is not None:
            pose = self._near(moment.world_SE3_vehicle)
        self._stream.log("world/vehicle", rr.Transform3D(translation=pose.translation, mat3x3=pose.rotation))
        self._stream.log("world/vehicle/path", _lines([moment.ego_path], [_EGO], 2.0))

    def _near(self, world_SE3_vehicle: SE3) -> SE3:
        """The pose in a world that begins where the vehicle was first: Rerun has 32 bits for a coordinate, and maps
        reach far."""
        if self._home is None:
            self._home = world_SE3_vehicle.translation
        return SE3(world_SE3_vehicle.rotation, world_SE3_vehicle.translation - self._home)

    def _log_side(
        self, side: str, moment: Moment, velocity: np.ndarray | None, objects: list[MovingObject]
    ) -> None:
        """The points as one side, estimate or truth, sees them."""
        points, at = moment.points, f"world/vehicle/{side}"
        seen, moving = finite_rows(points), is_moving(points, velocity, self._min_speed)
        still = points[seen & ~moving]
        self._stream.log(f"{at}/still", _points(still, _greys(still), 1.2))
        moving = np.flatnonzero(seen & moving)
        velocity = np.zeros_like(points) if velocity is None else velocity
        colours = colour_wheel.colours(velocity[moving], self._full_speed).astype(np.uint8)
        self._stream.log(f"{at}/moving", _points(points[moving], colours, 2.5))
        some = slice(None, None, max(1, -(-len(moving) // MOST_ARROWS)))
        self._stream.log(
            f"{at}/flow",
            rr.Arrows3D(
                origins=points[moving][some],
                vectors=ARROW_S * velocity[moving][some],
                colors=colours[some],
                radii=rr.Radius.ui_points(0.6),
            ),
        )
        arrows = rr.Arrows3D(
            origins=_rows(one.centre for one in objects),
            vectors=_rows(one.velocity for one in objects),
            colors=self._colours(objects),
            radii=rr.Radius.ui_points(2.0),
        )
        self._stream.log(f"{at}/arrows", arrows)

    def _log_tracks(self, moment: Moment) -> None:
        labels = [f"#{track.id} {track.object.speed:.1f} m/s" for track in moment.tracks]
        self._log_boxes("estimate", moment.objects, labels)
        trails = [(moment.paths.get(track.id), track.object) for track in moment.tracks]
        trails = [(path, shown) for path, shown in trails if path is not None and len(path) > 1]
        colours = self._colours([shown for _, shown in trails])
        self._stream.log("world/vehicle/estimate/trails", _lines([path for path, _ in trails], colours, 1.5))

    def _log_boxes(self, side: str, objects: list[MovingObject], labels: list[str]) -> None:
        half_turns = np.array([one.yaw for one in objects]) / 2
        none = np.zeros(len(objects))
        boxes = rr.Boxes3D(
            centers=_rows(one.centre for one in objects),
            half_sizes=np.maximum(_rows(one.size for one in objects), _LEAST_SIDE) / 2,
            quaternions=np.column_stack([none, none, np.sin(half_turns), np.cos(half_turns)]),
            colors=self._colours(objects),
            labels=labels,
            show_labels=True,
            radii=rr.Radius.ui_points(1.2),
        )
        self._stream.log(f"world/vehicle/{side}/boxes", boxes)

    def _log_figures(self, moment: Moment, latency_ms: float | None) -> None:
        put = self._stream.log
        put("plots/speed/fastest", rr.Scalars(max((one.speed for one in moment.objects), default=0.0)))
        if (speed := _ego_speed(self._last, moment)) is not None:
            put("plots/speed/vehicle", rr.Scalars(speed))
        put("plots/objects/estimate", rr.Scalars(float(len(moment.objects))))
        if moment.truth is not None:
            put("plots/objects/truth", rr.Scalars(float(len(moment.true_objects))))
        if latency_ms is not None:
            put("plots/latency/flow", rr.Scalars(latency_ms))

    def _log_map(self, moment: Moment) -> None:
        """Where the vehicle is known to be; elsewhere, and in another world, old points would smear."""
        if moment.world_SE3_vehicle is None or len(moment.ego_path) == 1:  # the vehicle comes from nowhere
            self._map.clear()
        if moment.world_SE3_vehicle is None:
            return
        pose = self._near(moment.world_SE3_vehicle)
        moving = is_moving(moment.points, moment.velocity, self._min_speed)
        points = self._map.update(moment.points, ~moving, moving, moment.stamp_ns, pose)
        if self._mapped_ns is None or not 0 <= moment.stamp_ns - self._mapped_ns < _MAP_EVERY_NS:
            self._mapped_ns = moment.stamp_ns
            self._stream.log("world/map", _points(pose.transform(points), [_MAP], 1.0))

    def _colours(self, objects: list[MovingObject]) -> np.ndarray:
        """(N,3) uint8."""
        return np.array([line_colour(one, self._full_speed) for one in objects], dtype=np.uint8).reshape(-1, 3)


def _points(points: np.ndarray, colours: np.ndarray | list[tuple[int, ...]], size: float) -> rr.Points3D:
    """size: radius on the screen, in its points"""
    return rr.Points3D(points.astype(np.float32), colors=colours, radii=rr.Radius.ui_points(size))


def _lines(strips: list[np.ndarray], colours: np.ndarray | list[tuple[int, ...]], width: float) -> rr.LineStrips3D:
    return rr.LineStrips3D(strips, colors=colours, radii=rr.Radius.ui_points(width))


def _greys(points: np.ndarray) -> np.ndarray:
    """(N,3) uint8: what is high is light."""
    if len(points) == 0:
        return np.zeros((0, 3), np.uint8)
    z = points[:, 2]
    return grey(np.clip((z - np.percentile(z, 10)) / _HIGH, 0.0, 1.0)).astype(np.uint8)


def _rows(vectors) -> np.ndarray:
    return np.array(list(vectors), dtype=np.float32).reshape(-1, 3)


def _ego_speed(before: Moment | None, moment: Moment) -> float | None:
    """m/s since the moment before, where both poses are known."""
    if before is None or before.world_SE3_vehicle is None or moment.world_SE3_vehicle is None:
        return None
    nanoseconds = moment.stamp_ns - before.stamp_ns
    if not 0 < nanoseconds <= LONGEST_GAP_NS:
        return None
    way = moment.world_SE3_vehicle.translation - before.world_SE3_vehicle.translation
    return float(np.linalg.norm(way)) / (nanoseconds * 1e-9)
