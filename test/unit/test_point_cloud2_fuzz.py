"""Clouds of every kind and clouds that lie, against a decoder that reads one value after another.

More than 10,000 cases, the same ones every time; ZEROFLOW_FUZZ=20 makes it twenty times as many, and new ones.
"""

from __future__ import annotations

import array
import math
import os
import struct
import tracemalloc
import warnings
from collections.abc import Sequence
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("hypothesis", reason="hypothesis is not installed")

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from zeroflow_core.datasets.point_cloud2 import CloudError, decode

FACTOR = int(os.environ.get("ZEROFLOW_FUZZ", "1"))
CODES = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 8: "d"}
SIZES = {datatype: struct.calcsize(code) for datatype, code in CODES.items()}
STAMP = SimpleNamespace(sec=1_700_000_000, nanosec=250_000_000)


def fuzz(cases: int):
    """How a property is tried out: as often as said, and unless asked for more, the same way every time."""
    return settings(
        max_examples=cases * FACTOR,
        derandomize=FACTOR == 1,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


def field(name: str, offset: int, datatype: int, count: int = 1) -> SimpleNamespace:
    return SimpleNamespace(name=name, offset=offset, datatype=datatype, count=count)


def message(width, height, point_step, row_step, fields, data: bytes, big_endian=False) -> SimpleNamespace:
    return SimpleNamespace(
        header=SimpleNamespace(stamp=STAMP, frame_id="lidar"),
        width=width,
        height=height,
        point_step=point_step,
        row_step=row_step,
        fields=fields,
        is_bigendian=big_endian,
        is_dense=True,
        data=array.array("B", data),
    )


class Dice:
    """Decisions out of random bytes, which hypothesis draws and shrinks much faster at once than one by one."""

    def __init__(self, thrown: bytes) -> None:
        self._thrown = iter(thrown)

    def pick(self, options: Sequence):
        return options[next(self._thrown, 0) % len(options)]

    def number(self, size: int) -> int:
        return int.from_bytes(bytes(next(self._thrown, 0) for _ in range(size)), "little")

    def uint32(self) -> int:
        """Small, near a power of two, or anything."""
        small, near = self.number(1) % 80, 2 ** self.pick((8, 16, 24, 31, 32)) - self.pick((1, 0, 2))
        return self.pick((small, small, near % 2**32, self.number(4)))

    def order(self, things: list) -> list:
        return sorted(things, key=lambda _: next(self._thrown, 0))


def dice(size: int):
    return st.binary(min_size=size, max_size=size).map(Dice)


EXTRAS = ("intensity", "ring", "t", "time", "timestamp", "rgb", "")


@st.composite
def clouds(draw) -> SimpleNamespace:
    """Clouds as a driver may send them: fields in any order, with gaps between them or on top of each other."""
    thrown = draw(dice(64))
    coordinate = thrown.pick((7, 7, 8))
    table = [("x", coordinate, 1), ("y", coordinate, 1), ("z", thrown.pick((coordinate, coordinate, 7, 8)), 1)]
    extras = range(thrown.pick((0, 1, 2, 4)))
    table += [(thrown.pick(EXTRAS), thrown.pick(range(1, 9)), thrown.pick((1, 1, 0, 3))) for _ in extras]
    table = thrown.pick((table, thrown.order(table)))
    overlap, gap, end = thrown.pick(range(10)) == 9, thrown.pick((0, 0, 1, 4)), thrown.pick((0, 0, 4, 3))
    fields = []
    for name, datatype, count in table:
        fields.append(field(name, 0 if overlap else end, datatype, count))
        end += SIZES[datatype] * max(count, 1) + gap
    height, width = thrown.pick([(1, 1), (1, 5), (2, 3), (3, 1), (1, 0)])
    point_step = end + thrown.pick((0, 0, 2, 4))
    padding = thrown.pick((0, 0, 5, 8))
    row_step = width * point_step + padding
    size = height * row_step - thrown.pick((0, padding))
    data = bytearray(draw(st.binary(min_size=size, max_size=size)))
    made = message(width, height, point_step, row_step, fields, b"", thrown.pick((False, True)))
    for one in fields:
        if one.name in ("t", "time", "timestamp") and thrown.pick((False, True, True)):
            offsets_ns = [thrown.number(4) % 4_000_000_800 - 2_000_000_400 for _ in range(width * height)]
            _write_times(made, data, one, offsets_ns, thrown.pick(("since", "seconds", "nanoseconds")))
    made.data = array.array("B", data)
    return made


def _write_times(made, data: bytearray, one, offsets_ns: list[int], kind: str) -> None:
    """Such times as drivers give, for the points of the cloud; some of them are none."""
    stamp_ns = STAMP.sec * 10**9 + STAMP.nanosec
    for k in range(made.width * made.height):
        value = offsets_ns[k]
        if one.datatype >= 7:
            value = {"since": value * 1e-9, "seconds": (stamp_ns + value) * 1e-9, "nanoseconds": stamp_ns + value}[kind]
            value = 0.0 if kind != "since" and k % 5 == 4 else float(value)
        else:
            bits = 8 * SIZES[one.datatype]
            low = 0 if one.datatype in (2, 4, 6) else -(2 ** (bits - 1))
            value = low + (value - low) % 2**bits
        start = k // made.width * made.row_step + k % made.width * made.point_step + one.offset
        if start + SIZES[one.datatype] <= len(data):
            struct.pack_into((">" if made.is_bigendian else "<") + CODES[one.datatype], data, start, value)


LIES = ("number", "number", "number", "cut", "big endian", "table", "table", "again", "no field", "name")
NAMES = ("x", "y", "z", "intensity", "t", "X", "", "x\n" * 400)


@st.composite
def liars(draw) -> SimpleNamespace:
    """Clouds that say something else than what they hold."""
    made, thrown = draw(clouds()), draw(dice(40))
    for _ in range(thrown.pick((1, 2, 3))):
        lie = thrown.pick(LIES)
        if lie == "number":
            setattr(made, thrown.pick(("width", "height", "point_step", "row_step")), thrown.uint32())
        elif lie == "cut":
            made.data = made.data[: -1 - thrown.number(1)]
        elif lie == "big endian":
            made.is_bigendian = not made.is_bigendian
        elif lie == "no field":
            made.fields = thrown.order(made.fields)[1:]
        elif lie == "again" and made.fields:
            made.fields = [*made.fields, field(thrown.pick(made.fields).name, 0, thrown.pick((2, 7)))]
        elif lie == "name" and made.fields:
            thrown.pick(made.fields).name = thrown.pick(NAMES)
        elif lie == "table" and made.fields:
            setattr(thrown.pick(made.fields), thrown.pick(("offset", "count")), thrown.uint32())
            if thrown.pick((False, False, True)):
                thrown.pick(made.fields).datatype = thrown.number(1)
    return made


def slowly(made) -> dict[str, list] | None:
    """The values of each field that counts, read one by one; None for a cloud that has to be refused."""
    width, height, row_step = made.width, made.height, made.row_step
    if width * height == 0:
        return {"x": [], "y": [], "z": []}
    if height == 1 or row_step == 0:
        row_step = width * made.point_step
    if row_step < width * made.point_step or (height - 1) * row_step + width * made.point_step > len(made.data):
        return None
    used = {}
    for one in made.fields:
        if one.name not in ("x", "y", "z", "intensity", "ring", "t", "time", "timestamp") or one.name in used:
            continue
        if one.datatype not in ((7, 8) if one.name in ("x", "y", "z") else CODES):
            return None
        if one.offset + SIZES[one.datatype] * max(one.count, 1) > made.point_step:
            return None
        used[one.name] = one
    if not {"x", "y", "z"} <= used.keys():
        return None
    order = ">" if made.is_bigendian else "<"
    starts = [row * row_step + column * made.point_step for row in range(height) for column in range(width)]
    return {
        name: [struct.unpack_from(order + CODES[one.datatype], made.data, start + one.offset)[0] for start in starts]
        for name, one in used.items()
    }


def as_float32(values: list) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.array(values, np.float64).astype(np.float32)


def as_ring(value: float) -> int:
    if isinstance(value, float) and not math.isfinite(value):
        return 65535 if value == math.inf else 0
    return min(max(int(value), 0), 65535)


def as_offsets(values: list) -> list[Fraction] | None:
    """Nanoseconds from the stamp, exactly; None where they cannot be of one sweep."""
    if all(isinstance(value, int) for value in values):
        offsets = [Fraction(value) for value in values]
    else:
        known = [Fraction(value) if math.isfinite(value) else Fraction(0) for value in values]
        largest = max(map(abs, known))
        stamp_ns = STAMP.sec * 10**9 + STAMP.nanosec
        if largest <= 2:
            offsets = [1_000_000_000 * value for value in known]
        else:
            unit = 1 if largest > 10**12 else 1_000_000_000
            offsets = [value * unit - stamp_ns if value else Fraction(0) for value in known]
    return offsets if max(map(abs, offsets)) <= 2_000_000_000 else None


def decoded(made):
    """What decode() makes of it, None if it refuses; a warning is as bad as an exception."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return decode(made)
        except CloudError as error:
            assert 0 < len(str(error)) < 500
            return None


def check(made) -> bool:
    """That the cloud is decoded right, or refused when it should be; returns whether it was decoded."""
    cloud, truth = decoded(made), slowly(made)
    assert (cloud is None) == (truth is None)
    if cloud is None:
        return False
    count = made.width * made.height
    assert cloud.points.shape == (count, 3) and cloud.points.dtype == np.float32
    for axis, name in enumerate("xyz"):
        np.testing.assert_array_equal(cloud.points[:, axis], as_float32(truth[name]))
    for name, values, dtype in (("intensity", cloud.intensity, np.float32), ("ring", cloud.ring, np.uint16)):
        assert (values is None) == (name not in truth)
        if values is not None:
            expected = as_float32(truth[name]) if name == "intensity" else [as_ring(v) for v in truth[name]]
            assert values.dtype == dtype and values.dtype.isnative
            np.testing.assert_array_equal(values, expected)
    times = next((truth[name] for name in ("t", "time", "timestamp") if name in truth), None)
    if times is None:
        assert cloud.time_offset_ns is None
    else:
        check_times(cloud.time_offset_ns, as_offsets(times), exact=isinstance(times[0], int))
    return True


def check_times(got: np.ndarray | None, offsets: list[Fraction] | None, exact: bool) -> None:
    if offsets is not None and max(map(abs, offsets)) > 1_999_999_000 and not exact:
        return  # on the edge of what can be a sweep rounding decides
    assert (got is None) == (offsets is None)
    if got is not None:
        assert got.dtype == np.int32
        worst = max(abs(int(g) - o) for g, o in zip(got, offsets, strict=True))
        assert worst <= (0 if exact else 200)  # float64 nanoseconds since 1970 are rounded to 256


@fuzz(4000)
@given(clouds())
def test_whatever_the_layout_each_value_is_found(made):
    assert check(made)


@fuzz(5000)
@given(liars())
def test_a_cloud_that_lies_is_refused_unless_its_lie_makes_sense(made):
    check(made)


ODD = (None, "7", b"x", 1.5, math.nan, math.inf, -1, -(2**31), 2**70, (), np.uint32(2**32 - 1), [1], {}, b"a" * 40, 12)
ATTRIBUTES = ("width", "height", "point_step", "row_step", "fields", "data", "is_bigendian", "header")


@fuzz(1500)
@given(clouds(), dice(20))
def test_nothing_but_a_cloud_error_comes_out_whatever_goes_in(made, thrown):
    fields = made.fields
    for _ in range(thrown.pick((1, 2, 4))):
        where, what = thrown.pick(ATTRIBUTES), thrown.pick(ODD)
        if thrown.pick((False, True)):
            setattr(made, where, what)
        else:
            setattr(thrown.pick(fields), thrown.pick(("name", "offset", "datatype", "count")), what)
    cloud = decoded(made)
    assert cloud is None or len(cloud) == made.width * made.height


@fuzz(500)
@given(dice(40), st.binary(max_size=400))
def test_memory_is_bounded_by_what_arrived_not_by_what_it_says(thrown, data):
    width, height, point_step, row_step = (thrown.uint32() for _ in range(4))
    offsets = thrown.pick([(0, 0, 0), (0, 4, 8), (8, 4, 0)])
    fields = [field(name, offset, 7) for name, offset in zip("xyz", offsets, strict=True)]
    fields += [field("intensity", 0, 8), field("ring", 0, 7), field("t", 0, 8)][: thrown.pick((0, 3))]
    made = message(width, height, point_step, row_step, fields, data)
    tracemalloc.start()
    try:
        cloud = decoded(made)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert cloud is None or len(cloud) == width * height
    assert peak < 100_000 + 100 * len(data)


def test_two_million_points():
    count = 2_000_000
    layout = {"names": ["x", "y", "z", "t"], "formats": ["<f4"] * 3 + ["<u4"], "offsets": [0, 4, 8, 16], "itemsize": 24}
    rows = np.zeros(count, np.dtype(layout))
    rows["x"], rows["z"], rows["t"] = np.arange(count), -np.arange(count), np.arange(count)
    fields = [field(name, offset, 7) for name, offset in (("x", 0), ("y", 4), ("z", 8))] + [field("t", 16, 6)]
    cloud = decode(message(1000, 2000, 24, 24_000, fields, rows.tobytes()))
    np.testing.assert_array_equal(cloud.points[:, 0], np.arange(count, dtype=np.float32))
    np.testing.assert_array_equal(cloud.points[:, 2], -cloud.points[:, 0])
    np.testing.assert_array_equal(cloud.time_offset_ns, np.arange(count))


def test_a_field_table_without_end_is_looked_through_once():
    fields = [field(f"channel {k}", 0, 7) for k in range(100_000)]
    assert decoded(message(1, 1, 12, 12, fields, bytes(12))) is None
    fields += [field(name, 4 * axis, 7) for axis, name in enumerate("xyz")]
    assert len(decoded(message(1, 1, 12, 12, fields, bytes(12)))) == 1
