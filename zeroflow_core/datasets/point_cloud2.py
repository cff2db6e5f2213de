"""sensor_msgs/PointCloud2 to arrays and back, for messages of any origin (rclpy, rosbags, a stand-in)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import index
from typing import Any

import numpy as np

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.geometry import finite_rows
from zeroflow_core.pairs import Sweep

# PointField's datatype constants.
_FORMAT_OF_DATATYPE = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
_DATATYPE_OF_FORMAT = {name: number for number, name in _FORMAT_OF_DATATYPE.items()}

_TIME_FIELDS = ("t", "time", "timestamp")
_LONGEST_OFFSET_S = 2.0  # no sweep is longer, and int32 nanoseconds end at 2.147 s


class CloudError(ZeroFlowError):
    """A PointCloud2 that cannot be understood, and why."""


@dataclass(frozen=True)
class Cloud:
    """The columns of a PointCloud2, one row per point, in the order of the message (row by row if organised).

    Rows that hold NaN are kept. Arrays may be views into the message, strided and read-only.

    points:         (N,3) float32, metres, in the frame of the message
    intensity:      (N,) float32 or None
    ring:           (N,) uint16 or None
    time_offset_ns: (N,) int32, nanoseconds from the message's stamp, or None
    """

    points: np.ndarray
    intensity: np.ndarray | None = None
    ring: np.ndarray | None = None
    time_offset_ns: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.points)


def decode(msg: Any) -> Cloud:
    """The points of `msg`, anything with the attributes of a PointCloud2.

    Understands any order and spacing of fields, float32 and float64 coordinates, padded rows, organised
    clouds and big-endian data. The per-point time is a field called t, time or timestamp: integers are
    nanoseconds since the stamp; floats are seconds since the stamp, or, when larger than any sweep is long,
    the absolute time in seconds or nanoseconds. A time field that makes no sense is left out (None). A cloud
    of zero points is an empty Cloud, whatever its fields.

    Raises:
        CloudError: no x, y or z; data shorter than the header says; sizes, offsets or datatypes that
            contradict each other; or no PointCloud2 at all. Nothing else is raised, whatever comes in.
    """
    try:
        return _decode(msg)
    except (AttributeError, TypeError, ValueError, OverflowError, BufferError) as error:
        raise CloudError(f"this is not a usable PointCloud2: {error}") from error


def is_return(points: np.ndarray) -> np.ndarray:
    """(N,) bool: which of the points (N,3), in the frame of their message, a scanner has seen. In place of the others
    drivers give what is not finite, or all zeros."""
    x, y, z = points.T
    return finite_rows(points) & ((x != 0) | (y != 0) | (z != 0))


def structured(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Pack columns (N,) into one little-endian structured array (N,), fields in order and without padding.

    Its ``tobytes()`` is the data of a PointCloud2 with ``fields_of(array.dtype)`` and
    ``point_step == array.dtype.itemsize``.

    Raises:
        ValueError: columns of different lengths, or of a dtype that PointField does not know.
    """
    dtype = np.dtype([(name, column.dtype.newbyteorder("<")) for name, column in columns.items()])
    fields_of(dtype)
    shapes = {column.shape for column in columns.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise ValueError(f"columns must all be (N,), got {[c.shape for c in columns.values()]}")
    packed = np.empty(next(iter(shapes)), dtype=dtype)
    for name, column in columns.items():
        packed[name] = column
    return packed


def fields_of(dtype: np.dtype) -> list[tuple[str, int, int, int]]:
    """(name, offset, datatype, count) of each PointField that describes the structured `dtype`.

    Raises:
        ValueError: a field of a dtype that PointField does not know.
    """
    fields = []
    for name in dtype.names or ():
        field_dtype, offset = dtype.fields[name][:2]
        format_ = field_dtype.str[1:]
        if format_ not in _DATATYPE_OF_FORMAT:
            raise ValueError(f"a PointCloud2 field cannot be {field_dtype} (field '{name}')")
        fields.append((name, offset, _DATATYPE_OF_FORMAT[format_], 1))
    return fields


def rows_of(sweep: Sweep) -> np.ndarray:
    """What a sweep has, packed by `structured`: x y z intensity (float32), ring (uint16), t (nanoseconds, 32 bits)."""
    columns = {name: sweep.points[:, axis] for axis, name in enumerate("xyz")}
    if sweep.intensity is not None:
        columns["intensity"] = sweep.intensity.astype(np.float32, copy=False)
    if sweep.ring is not None:
        columns["ring"] = sweep.ring.astype(np.uint16, copy=False)
    if sweep.time_offset_ns is not None:
        # The usual type, but it cannot say that a point was measured before the stamp.
        signed = len(sweep) > 0 and sweep.time_offset_ns.min() < 0
        columns["t"] = sweep.time_offset_ns.astype(np.int32 if signed else np.uint32)
    return structured(columns)


def dtype_of(fields: Iterable[Any], point_step: int, big_endian: bool = False) -> np.dtype:
    """The structured dtype of a point with these PointFields, each with one value; the inverse of `fields_of`.

    Raises:
        ValueError: an unknown datatype, a name that comes twice, or a field that ends beyond `point_step`.
    """
    fields = list(fields)
    for field in fields:
        if field.datatype not in _FORMAT_OF_DATATYPE:
            raise ValueError(f"field '{field.name}' has the unknown datatype {field.datatype}")
    layout = {
        "names": [field.name for field in fields],
        "formats": [(">" if big_endian else "<") + _FORMAT_OF_DATATYPE[field.datatype] for field in fields],
        "offsets": [field.offset for field in fields],
        "itemsize": point_step,
    }
    return np.dtype(layout)


def _decode(msg: Any) -> Cloud:
    width, height = index(msg.width), index(msg.height)
    point_step, row_step = index(msg.point_step), index(msg.row_step)
    if width < 0 or height < 0:
        raise CloudError(f"the cloud has a negative size: width {width}, height {height}")
    if width * height == 0:
        return Cloud(np.empty((0, 3), dtype=np.float32))
    buffer, row_step = _buffer(msg.data, width, height, point_step, row_step)
    layout = _layout(msg.fields, point_step, bool(msg.is_bigendian))
    rows = np.ndarray((height, width), layout, buffer, strides=(row_step, point_step)).reshape(width * height)
    intensity = ring = time_offset_ns = None
    with np.errstate(over="ignore", invalid="ignore"):
        if "intensity" in layout.names:
            intensity = rows["intensity"].astype(np.float32, copy=False)
        if "ring" in layout.names:
            ring = _ring(rows["ring"])
        time_name = next((name for name in _TIME_FIELDS if name in layout.names), None)
        if time_name is not None:
            time_offset_ns = _time_offset_ns(rows[time_name], msg.header.stamp)
        return Cloud(_points(rows), intensity, ring, time_offset_ns)


def _buffer(data: Any, width: int, height: int, point_step: int, row_step: int) -> tuple[memoryview, int]:
    """The bytes of all points and those from row to row, once it is certain that the points are there."""
    packed_row = width * point_step
    if height == 1 or row_step == 0:  # some drivers leave row_step at 0
        row_step = packed_row
    if row_step < packed_row:
        raise CloudError(f"row_step {row_step} of the cloud is smaller than width {width} x point_step {point_step}")
    buffer = memoryview(data)
    needed = (height - 1) * row_step + packed_row
    if buffer.nbytes < needed:
        raise CloudError(
            f"the cloud is incomplete: {width} x {height} points need {needed} bytes, it has {buffer.nbytes}"
        )
    return buffer, row_step


def _layout(fields: Any, point_step: int, big_endian: bool) -> np.dtype:
    """Structured dtype of one point with those fields that decode() uses; other fields are stepped over."""
    formats: dict[str, str] = {}
    offsets: list[int] = []
    for field in fields:
        name = str(field.name)
        if name in formats or name not in ("x", "y", "z", "intensity", "ring", *_TIME_FIELDS):
            continue
        datatype, offset = index(field.datatype), index(field.offset)
        if datatype not in _FORMAT_OF_DATATYPE:
            raise CloudError(f"field '{name}' of the cloud has the unknown datatype {datatype}")
        format_ = _FORMAT_OF_DATATYPE[datatype]
        if name in ("x", "y", "z") and format_ not in ("f4", "f8"):
            raise CloudError(f"field '{name}' of the cloud has datatype {datatype}, not FLOAT32 or FLOAT64")
        size = np.dtype(format_).itemsize * max(index(field.count), 1)  # some drivers leave count at 0
        if offset < 0 or offset + size > point_step:
            raise CloudError(
                f"field '{name}' of the cloud takes bytes {offset} to {offset + size} of a point, "
                f"but point_step is {point_step}"
            )
        formats[name] = (">" if big_endian else "<") + format_
        offsets.append(offset)
    missing = [name for name in "xyz" if name not in formats]
    if missing:
        names = ", ".join(str(field.name) for field in fields) or "none"
        raise CloudError(f"the cloud has no field {', '.join(missing)}; its fields: {names:.200}")
    return np.dtype(
        {
            "names": list(formats),
            "formats": list(formats.values()),
            "offsets": offsets,
            "itemsize": point_step,
        }
    )


def _points(rows: np.ndarray) -> np.ndarray:
    """x, y, z as (N,3) float32: a view where they lie side by side as native, aligned float32."""
    x = rows["x"]
    offsets = [rows.dtype.fields[name][1] for name in "xyz"]
    adjacent = offsets == [offsets[0], offsets[0] + 4, offsets[0] + 8]
    native = all(rows.dtype[name] == np.dtype(np.float32) for name in "xyz")
    if adjacent and native and x.flags.aligned:
        return np.lib.stride_tricks.as_strided(x, shape=(len(rows), 3), strides=(*x.strides, 4))
    points = np.empty((len(rows), 3), dtype=np.float32)
    for axis, name in enumerate("xyz"):
        points[:, axis] = rows[name]
    return points


def _ring(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "u" and values.itemsize <= 2:
        return values.astype(np.uint16, copy=False)
    return np.nan_to_num(values.astype(np.float64)).clip(0, 65535).astype(np.uint16)


def _time_offset_ns(values: np.ndarray, stamp: Any) -> np.ndarray | None:
    """(N,) int32 nanoseconds from `stamp`, or None when the values cannot be times of this sweep."""
    if values.dtype.kind != "f":
        offset_ns = values.astype(np.int64)
        longest_ns = _LONGEST_OFFSET_S * 1e9
        return offset_ns.astype(np.int32) if -longest_ns <= offset_ns.min() <= offset_ns.max() <= longest_ns else None
    seconds = np.nan_to_num(values.astype(np.float64), copy=False, posinf=0.0, neginf=0.0)
    largest = np.abs(seconds).max()
    if largest > _LONGEST_OFFSET_S:  # not since the stamp
        unknown = seconds == 0  # where there was no return, drivers leave an absolute time at 0
        if largest > 1e12:  # as seconds that were 30 millennia: it counts nanoseconds
            seconds = (seconds - (int(stamp.sec) * 10**9 + int(stamp.nanosec))) * 1e-9
        else:  # whole seconds first: their difference is exact, nanoseconds since 1970 are not
            seconds = (seconds - int(stamp.sec)) - int(stamp.nanosec) * 1e-9
        seconds[unknown] = 0.0
        if np.abs(seconds).max() > _LONGEST_OFFSET_S:
            return None
    return np.round(seconds * 1e9).astype(np.int32)
