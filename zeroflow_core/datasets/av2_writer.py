"""Logs in AV2's layout, with AV2's columns and types, which the `av2` package reads; and av2.py, too."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from zeroflow_core.datasets.av2 import CALIBRATION, FLOW, POSES, QUATERNION, SIZE, TRANSLATION, Cuboid, FlowLabels
from zeroflow_core.files import new_folder
from zeroflow_core.geometry import SE3
from zeroflow_core.pairs import Sweep


def write_log(
    path: Path | str,
    sweeps: Iterable[Sweep],
    labels: Iterable[FlowLabels] | None,
    calibration: dict[str, SE3],
) -> None:
    """Write a log of sweeps, and labels where there are any, taking and writing one after the other.

    path:        the log's folder, which appears when everything is written
    sweeps:      each with a pose; stamps ascending
    labels:      one for each pair of consecutive sweeps, taken after its second sweep; or None
    calibration: ego_SE3_sensor by the name of the sensor

    Raises:
        ZeroFlowError: the folder exists already or cannot be written.
        ValueError: sweeps or labels that make no log.
    """
    remaining = None if labels is None else iter(labels)
    with new_log(path) as log:
        log.add_calibration(calibration)
        previous: Sweep | None = None
        for sweep in sweeps:
            log.add_sweep(sweep)
            if remaining is not None and previous is not None:
                pair_labels = next(remaining, None)
                if pair_labels is None:
                    raise ValueError(f"there are no labels for sweep {previous.stamp_ns}")
                log.add_labels(previous.stamp_ns, pair_labels)
            previous = sweep
        if remaining is not None and next(remaining, None) is not None:
            raise ValueError("there are more labels than pairs of sweeps")


@contextmanager
def new_log(path: Path | str, dtype: type[np.floating] = np.float16) -> Iterator[LogWriter]:
    """A log to add to, at `path` when the block ends well and nowhere when it fails.

    dtype: of coordinates as they are stored; see LogWriter

    Raises:
        ZeroFlowError: the folder exists already or cannot be written.
        ValueError: nothing was added that makes a log.
    """
    with new_folder(Path(path)) as folder:
        log = LogWriter(folder, dtype)
        yield log
        log.finish()


class LogWriter:
    """The files of one log, written as they are added; made by `new_log`.

    Coordinates are stored as AV2 stores them, in float16: steps of 3 cm beyond 32 m; and intensity is rounded into
    0 … 255. Or, for recordings that are more exact, both are kept in float32.

    folder: where they are until the log is complete, for files that AV2 does not know
    dtype:  float16 or float32
    """

    def __init__(self, folder: Path, dtype: type[np.floating] = np.float16) -> None:
        self.folder = folder
        self._dtype = dtype
        self._num_points: dict[int, int] = {}  # of each sweep, by its stamp
        self._poses: dict[int, SE3] = {}
        self._annotations: list[dict[str, np.ndarray]] = []
        self._last_labels: dict[str, np.ndarray] = {}
        (folder / "sensors" / "lidar").mkdir(parents=True)

    def add_sweep(self, sweep: Sweep) -> None:
        """The sweep and its pose.

        Raises:
            ValueError: a sweep without a pose, or not later than the one before.
        """
        if sweep.world_SE3_ego is None:
            raise ValueError(f"a log needs the pose of every sweep; sweep {sweep.stamp_ns} has none")
        last = max(self._num_points, default=-1)
        if sweep.stamp_ns <= last:
            raise ValueError(f"stamps must ascend from 0: {sweep.stamp_ns} after {last}")
        write_table(self.folder / "sensors" / "lidar" / f"{sweep.stamp_ns}.feather", _sweep_columns(sweep, self._dtype))
        self._num_points[sweep.stamp_ns] = len(sweep)
        self._poses[sweep.stamp_ns] = sweep.world_SE3_ego

    def add_pose(self, stamp_ns: int, city_SE3_ego: SE3) -> None:
        """A pose between the sweeps; at the stamp of a sweep, the sweep's own pose stands."""
        self._poses.setdefault(stamp_ns, city_SE3_ego)

    def add_labels(self, stamp_ns: int, labels: FlowLabels, extra: dict[str, np.ndarray] | None = None) -> None:
        """Labels of the pair whose first sweep has the stamp `stamp_ns`.

        extra: columns (N,) behind AV2's own

        Raises:
            ValueError: labels for no sweep of this log, or for another number of points.
        """
        if len(labels.total_flow) != self._num_points.get(stamp_ns):
            counts = f"{len(labels.total_flow)}, not {self._num_points.get(stamp_ns)}"
            raise ValueError(f"labels for {counts} points of sweep {stamp_ns}")
        self._last_labels = _label_columns(labels)
        write_table(self.folder / "flow_labels" / f"{stamp_ns}.feather", self._last_labels | (extra or {}))

    def add_cuboids(self, stamp_ns: int, cuboids: Iterable[Cuboid]) -> None:
        """The objects at the stamp of a sweep.

        A log has annotations.feather when this was called at least once, with or without objects.
        """
        self._annotations.append(_annotation_columns(stamp_ns, list(cuboids)))

    def add_calibration(self, calibration: dict[str, SE3]) -> None:
        """ego_SE3_sensor by the name of the sensor."""
        names = {"sensor_name": np.array(list(calibration), dtype=np.str_)}
        write_table(self.folder / CALIBRATION, names | _pose_columns(calibration.values()))

    def finish(self) -> None:
        """Write the tables of the whole log.

        Raises:
            ValueError: a log without sweeps.
        """
        if not self._num_points:
            raise ValueError("a log needs at least one sweep")
        if len(self._num_points) == 2 and self._last_labels:
            write_table(self.folder / "flow_labels.feather", self._last_labels)  # where av2's tools look for it
        stamps = sorted(self._poses)
        poses = _pose_columns(self._poses[stamp] for stamp in stamps)
        write_table(self.folder / POSES, {"timestamp_ns": np.array(stamps, dtype=np.int64), **poses})
        if self._annotations:
            first = self._annotations[0]
            columns = {name: np.concatenate([part[name] for part in self._annotations]) for name in first}
            write_table(self.folder / "annotations.feather", columns)


def write_table(path: Path, columns: dict[str, np.ndarray]) -> None:
    """A feather file with these columns, (N,) each; its folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(as_feather(columns))


def as_feather(columns: dict[str, np.ndarray]) -> memoryview:
    """The content of a feather file with these columns, (N,) each."""
    import pyarrow as pa
    from pyarrow import feather

    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    written = io.BytesIO()  # not straight into a file: pyarrow's own sentence about a full disk is a riddle
    feather.write_feather(table, written)
    return written.getbuffer()


def _sweep_columns(sweep: Sweep, dtype: type[np.floating]) -> dict[str, np.ndarray]:
    zeros = np.zeros(len(sweep))
    intensity = zeros if sweep.intensity is None else sweep.intensity
    ring = zeros if sweep.ring is None else sweep.ring
    offset = zeros if sweep.time_offset_ns is None else sweep.time_offset_ns
    return {
        **{name: sweep.points[:, axis].astype(dtype) for axis, name in enumerate("xyz")},
        "intensity": intensity.astype(dtype) if dtype == np.float32 else _as_bytes(intensity),
        "laser_number": np.clip(ring, 0, 255).astype(np.uint8),
        "offset_ns": offset.astype(np.int32),
    }


def _as_bytes(intensity: np.ndarray) -> np.ndarray:
    return np.clip(np.nan_to_num(np.round(intensity)), 0, 255).astype(np.uint8)


def _label_columns(labels: FlowLabels) -> dict[str, np.ndarray]:
    return {
        **{name: labels.total_flow[:, axis].astype(np.float32) for axis, name in enumerate(FLOW)},
        "classes": labels.classes.astype(np.uint8),
        "dynamic": labels.dynamic.astype(np.bool_),
        "is_ground_0": labels.is_ground0.astype(np.bool_),
    }


def _annotation_columns(stamp_ns: int, cuboids: list[Cuboid]) -> dict[str, np.ndarray]:
    sizes = np.array([cuboid.size for cuboid in cuboids], dtype=np.float64).reshape(-1, 3)
    return {
        "timestamp_ns": np.full(len(cuboids), stamp_ns, dtype=np.int64),
        "track_uuid": np.array([cuboid.track_id for cuboid in cuboids], dtype=np.str_),
        "category": np.array([cuboid.category for cuboid in cuboids], dtype=np.str_),
        **{name: sizes[:, k] for k, name in enumerate(SIZE)},
        **_pose_columns(cuboid.ego_SE3_object for cuboid in cuboids),
        "num_interior_pts": np.array([cuboid.num_points for cuboid in cuboids], dtype=np.int64),
    }


def _pose_columns(poses: Iterable[SE3]) -> dict[str, np.ndarray]:
    rows = np.array([[*pose.quaternion, *pose.translation] for pose in poses], dtype=np.float64)
    rows = rows.reshape(-1, 7)  # also for none
    return {name: rows[:, k] for k, name in enumerate(QUATERNION + TRANSLATION)}
