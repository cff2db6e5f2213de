"""Argoverse 2 logs, of the sensor and the lidar dataset, as Sweeps. Writing them is av2_writer's.

A log is a folder ``<log>/`` with ``sensors/lidar/<stamp>.feather``, ``city_SE3_egovehicle.feather``,
``calibration/``, and, where there are any, ``map/``, ``annotations.feather`` and flow labels. Points are in
the vehicle frame and motion-compensated to the stamp in the file's name.

The tables are read with pyarrow directly: the `av2` package's own sweep reader drops intensity, laser number
and time, and importing it takes a second for OpenCV and pandas.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.geometry import SE3
from zeroflow_core.ground import MapRaster
from zeroflow_core.pairs import Sweep

QUATERNION = ("qw", "qx", "qy", "qz")
TRANSLATION = ("tx_m", "ty_m", "tz_m")
SIZE = ("length_m", "width_m", "height_m")
FLOW = ("flow_tx_m", "flow_ty_m", "flow_tz_m")

POSES = "city_SE3_egovehicle.feather"
CALIBRATION = "calibration/egovehicle_SE3_sensor.feather"

_KEPT_SWEEPS = 2


@dataclass(frozen=True)
class Cuboid:
    """One annotated object at one stamp.

    category:       AV2's name of the class, such as REGULAR_VEHICLE
    track_id:       the same for the same object throughout a log
    ego_SE3_object: pose of the box's centre in the vehicle frame at the stamp
    size:           (3,) float64, length, width and height in metres, along the object's x, y and z
    num_points:     points of the sweep that the annotators found in it
    """

    category: str
    track_id: str
    ego_SE3_object: SE3
    size: np.ndarray
    num_points: int


@dataclass(frozen=True)
class FlowLabels:
    """AV2's flow labels for the N points of the first sweep of a pair, in their order.

    total_flow: (N,3) float32, metres: position in the second vehicle frame minus position in the first, so
                with ego motion (pairs.remove_ego_motion turns it into the residual used everywhere here)
    classes:    (N,) uint8, AV2's index of the category, 0 for background
    dynamic:    (N,) bool, the point moves over ground
    is_ground0: (N,) bool
    is_valid:   (N,) bool, False where the flow is not known, or None where the file does not say
    """

    total_flow: np.ndarray
    classes: np.ndarray
    dynamic: np.ndarray
    is_ground0: np.ndarray
    is_valid: np.ndarray | None = None


def find_logs(path: Path | str) -> list[Path]:
    """The log folders at or below `path`, sorted: a log itself, a folder of logs, a split, or a whole root
    (``<root>/sensor/<split>/<log>`` or ``<root>/lidar/<split>/<log>``).

    Raises:
        ZeroFlowError: there is no log.
    """
    path = Path(path)
    if not path.is_dir():
        raise ZeroFlowError(f"there is no folder {path}; give an AV2 log or a folder that holds AV2 logs")
    try:
        logs = list(_logs_below(path, depth=4))
    except OSError as error:
        raise ZeroFlowError(f"cannot look for AV2 logs in {path}: {error}") from error
    if not logs:
        raise ZeroFlowError(
            f"no AV2 log in {path}; a log is a folder with sensors/lidar/*.feather, usually "
            "<root>/sensor/<split>/<log>"
        )
    return logs


def find_split(root: Path | str, split: str) -> list[Path]:
    """The log folders of one split, sorted by name: those in ``<root>/sensor/<split>``, ``<root>/lidar/<split>``
    or ``<root>/<split>``, whichever is there first.

    Raises:
        ZeroFlowError: no such folder, no such split in it, or no log in the split.
    """
    root = Path(root)
    if not root.is_dir():
        raise ZeroFlowError(f"there is no folder {root}; give the folder that holds sensor/{split}/<log>")
    roots = [folder for folder in (root / "sensor", root / "lidar", root) if folder.is_dir()]
    found = next((folder / split for folder in roots if split and (folder / split).is_dir()), None)
    if found is None:
        there = sorted({log.parent.name for folder in roots for log in folder.glob("*/*") if _is_log(log)})
        advice = f"it has: {', '.join(there)}" if there else f"give the folder that holds sensor/{split}/<log>"
        raise ZeroFlowError(f"there is no split '{split}' in {root}; {advice}")
    logs = [log for log in find_logs(found) if log.parent == found]
    if not logs:
        raise ZeroFlowError(f"no AV2 log directly in {found}; a log is a folder with sensors/lidar/*.feather")
    return logs


def _logs_below(path: Path, depth: int) -> Iterator[Path]:
    if _is_log(path):
        yield path
    elif depth > 0:
        for child in sorted(path.iterdir()):
            if child.is_dir() and not child.name.startswith("."):  # hidden: a log still being written
                yield from _logs_below(child, depth - 1)


def _is_log(path: Path) -> bool:
    return (path / "sensors" / "lidar").is_dir()


class Log:
    """One log for reading. Nothing but the names of its sweeps is read before it is asked for.

    Raises:
        ZeroFlowError: here and from every method, naming the file that is missing, damaged or in
            contradiction with another.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.log_id = os.path.basename(os.path.abspath(self.path))  # of a link, its own name
        folder = self.path / "sensors" / "lidar"
        if not folder.is_dir():
            raise ZeroFlowError(f"{self.path} is not an AV2 log: it has no folder sensors/lidar")
        files = [file for file in folder.glob("*.feather") if not file.name.startswith(".")]
        for file in files:
            if not file.stem.isdecimal() or int(file.stem) >= 2**63:
                raise ZeroFlowError(f"{file} is not named by a stamp in nanoseconds; move it away")
        if not files:
            raise ZeroFlowError(f"the log {self.path} has no sweeps: {folder} holds no .feather file")
        self._files = sorted(files, key=lambda file: int(file.stem))
        self.stamps_ns = np.array([int(file.stem) for file in self._files], dtype=np.int64)
        self._recent: dict[int, Sweep] = {}

    def __len__(self) -> int:
        return len(self.stamps_ns)

    def sweep(self, i: int) -> Sweep:
        """Sweep `i` (0 is the earliest) with its pose in the city frame. The last few are kept: pairs share them."""
        if i not in self._recent:
            while len(self._recent) >= _KEPT_SWEEPS:
                del self._recent[next(iter(self._recent))]
            self._recent[i] = self._read_sweep(i)
        return self._recent[i]

    def _read_sweep(self, i: int) -> Sweep:
        stamp_ns = int(self.stamps_ns[i])
        table = Table(self._files[i])
        present = table.names
        return Sweep(
            points=table.columns(("x", "y", "z"), np.float32),
            stamp_ns=stamp_ns,
            world_SE3_ego=self.pose(stamp_ns),
            intensity=table.column("intensity", np.float32) if "intensity" in present else None,
            ring=table.column("laser_number", np.uint16) if "laser_number" in present else None,
            time_offset_ns=table.column("offset_ns", np.int32) if "offset_ns" in present else None,
        )

    def sweep_files(self, first: int, end: int) -> list[Path]:
        """The files of the sweeps from `first` to before `end`."""
        return self._files[first:end]

    def sweeps(self) -> Iterator[Sweep]:
        """All sweeps, in the order of their stamps."""
        return (self.sweep(i) for i in range(len(self)))

    def pose(self, stamp_ns: int) -> SE3:
        """Pose of the vehicle in the city frame (city_SE3_ego) at one of the log's pose stamps."""
        stamps, poses = self._poses
        row = int(np.searchsorted(stamps, stamp_ns))
        if row == len(stamps) or stamps[row] != stamp_ns:
            raise ZeroFlowError(
                f"{self.path / POSES} has no pose at {stamp_ns} ns, the stamp of a sweep; get the file "
                "again, or move that sweep away"
            )
        return self._as_pose(poses[row], POSES)

    def poses(self, start_ns: int, end_ns: int) -> Iterator[tuple[int, SE3]]:
        """(stamp in ns, city_SE3_ego) of every pose from `start_ns` to `end_ns`, both included.

        AV2 logs hold many more poses than sweeps.
        """
        stamps, poses = self._poses
        first, last = np.searchsorted(stamps, start_ns), np.searchsorted(stamps, end_ns, side="right")
        return ((int(stamps[row]), self._as_pose(poses[row], POSES)) for row in range(first, last))

    def calibration(self) -> dict[str, SE3]:
        """ego_SE3_sensor by the name of the sensor: up_lidar, down_lidar, and cameras where there are any."""
        table = Table(self.path / CALIBRATION)
        poses = table.columns(QUATERNION + TRANSLATION, np.float64)
        names = table.strings("sensor_name")
        return {name: self._as_pose(pose, CALIBRATION) for name, pose in zip(names, poses, strict=True)}

    def map_ground(self) -> MapRaster | None:
        """The map's raster of ground heights as a ground rule, or None for a log without one."""
        folder = self.path / "map"
        rasters = sorted(folder.glob("*_ground_height_surface____*.npy"))
        if not rasters:
            return None
        placements = sorted(folder.glob("*___img_Sim2_city.json"))
        if not placements:
            raise ZeroFlowError(f"{rasters[0]} has no *___img_Sim2_city.json beside it; get both again")
        try:
            heights = np.load(rasters[0], allow_pickle=False)
            if heights.ndim != 2 or heights.dtype.kind != "f":
                raise ValueError(f"a raster of floats was expected, not {heights.dtype} {heights.shape}")
        except (OSError, ValueError, EOFError) as error:
            raise _damaged(rasters[0], error) from error
        try:
            sim2 = json.loads(placements[0].read_text())
            rotation = np.array(sim2["R"], dtype=np.float64).reshape(2, 2)
            translation = np.array(sim2["t"], dtype=np.float64).reshape(2)
            scale = float(sim2["s"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise _damaged(placements[0], error) from error
        return MapRaster(heights, rotation, translation, scale)

    def annotations(self, stamp_ns: int) -> list[Cuboid]:
        """The annotated objects at `stamp_ns`; empty where the log has no annotations then, or at all."""
        if self._annotations is None:
            return []
        stamps, poses, sizes, categories, tracks, points = self._annotations
        return [
            Cuboid(
                categories[row],
                tracks[row],
                self._as_pose(poses[row], "annotations.feather"),
                sizes[row],
                int(points[row]),
            )
            for row in np.flatnonzero(stamps == stamp_ns)
        ]

    @property
    def has_flow_labels(self) -> bool:
        """Whether there are flow labels for any of its pairs."""
        return any((self.path / "flow_labels").glob("*.feather")) or (self.path / "flow_labels.feather").exists()

    @property
    def has_map_ground(self) -> bool:
        """Whether the log has a map with ground heights."""
        return any((self.path / "map").glob("*_ground_height_surface____*.npy"))

    @property
    def has_annotations(self) -> bool:
        """Whether the log has cuboids at all; AV2's test logs and Lidar logs have none."""
        return (self.path / "annotations.feather").exists()

    def flow_labels(self, i: int) -> FlowLabels | None:
        """Labels of the pair of sweeps `i` and `i` + 1, or None where the log has none for it.

        They are in ``flow_labels/<stamp of sweep i>.feather``, or, for a log of just two sweeps, in
        ``flow_labels.feather``.
        """
        path = self.path / "flow_labels" / f"{self.stamps_ns[i]}.feather"
        if not path.exists():
            path = self.path / "flow_labels.feather"
            if not path.exists() or len(self) != 2 or i != 0:
                return None
        table = Table(path)
        points = len(self.sweep(i))
        if len(table) != points:
            raise ZeroFlowError(
                f"{path} labels {len(table)} points, but sweep {self.stamps_ns[i]} has {points}; "
                "the two files are not from the same log: get both again"
            )
        return FlowLabels(
            total_flow=table.columns(FLOW, np.float32),
            classes=table.column("classes", np.uint8),
            dynamic=table.column("dynamic", np.bool_),
            is_ground0=table.column("is_ground_0", np.bool_),
            is_valid=table.column("is_valid", np.bool_) if "is_valid" in table.names else None,
        )

    @cached_property
    def _poses(self) -> tuple[np.ndarray, np.ndarray]:
        """Stamps (M,) int64, sorted, and poses (M,7): qw qx qy qz tx ty tz."""
        table = Table(self.path / POSES)
        stamps = table.column("timestamp_ns", np.int64)
        poses = table.columns(QUATERNION + TRANSLATION, np.float64)
        order = np.argsort(stamps, kind="stable")
        return stamps[order], poses[order]

    @cached_property
    def _annotations(self) -> tuple | None:
        path = self.path / "annotations.feather"
        if not path.exists():
            return None
        table = Table(path)
        return (
            table.column("timestamp_ns", np.int64),
            table.columns(QUATERNION + TRANSLATION, np.float64),
            table.columns(SIZE, np.float64),
            table.strings("category"),
            table.strings("track_uuid"),
            table.column("num_interior_pts", np.int64),
        )

    def _as_pose(self, row: np.ndarray, name: str) -> SE3:
        try:
            return SE3.from_quaternion(row[:4], row[4:])
        except ValueError as error:
            raise _damaged(self.path / name, error) from error


class Table:
    """A feather file in memory, whose columns come out as numpy arrays of the type asked for."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        from pyarrow import feather

        self._path = path
        if not path.exists():
            raise ZeroFlowError(f"{path} is missing; the log is incomplete: get it again")
        try:
            self._table = feather.read_table(path, memory_map=False)
            self._table.validate(full=True)
            self.names = self._table.column_names
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise _damaged(path, error) from error

    def __len__(self) -> int:
        return self._table.num_rows

    def column(self, name: str, dtype: type) -> np.ndarray:
        """(N,) array. What would change the kind of value (text or float to integer) is refused."""
        if self.names.count(name) != 1:
            raise ZeroFlowError(
                f"{self._path} has columns {', '.join(self.names)}, where one column {name} was "
                "expected; it is no such file of AV2's"
            )
        column = self._table[name]
        if column.null_count:
            raise ZeroFlowError(f"{self._path} has empty cells in column {name}; get the file again")
        try:
            return column.to_numpy().astype(dtype, casting="same_kind")
        except TypeError as error:
            raise ZeroFlowError(
                f"column {name} of {self._path} has type {column.type}, which is not {np.dtype(dtype)}; "
                "it is no such file of AV2's"
            ) from error

    def columns(self, names: Iterable[str], dtype: type) -> np.ndarray:
        """(N, number of names) array."""
        return np.stack([self.column(name, dtype) for name in names], axis=1)

    def strings(self, name: str) -> list[str]:
        return [str(value) for value in self.column(name, np.object_)]


def _damaged(path: Path, error: Exception) -> ZeroFlowError:
    return ZeroFlowError(f"{path} is damaged or incomplete ({error}); get the file again")
