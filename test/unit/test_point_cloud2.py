"""PointCloud2 of every layout, against columns packed here by hand."""

from __future__ import annotations

import array
import struct
from types import SimpleNamespace

import numpy as np
import pytest

from zeroflow_core.datasets.point_cloud2 import Cloud, CloudError, decode, dtype_of, fields_of, is_return, structured
from zeroflow_core.errors import ZeroFlowError

DATATYPE = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "f4": 7, "f8": 8}


def make_message(
    columns: dict[str, np.ndarray],
    *,
    height: int = 1,
    leading: int = 0,
    gap: int = 0,
    row_padding: int = 0,
    big_endian: bool = False,
    stamp: tuple[int, int] = (0, 0),
) -> SimpleNamespace:
    """A PointCloud2 stand-in; `leading` bytes before the first field, `gap` after each field, all 0xEE."""
    count = len(next(iter(columns.values())))
    width = count // height
    offsets, position = {}, leading
    for name, column in columns.items():
        offsets[name] = position
        position += column.dtype.itemsize + gap
    point_step = position
    row_step = width * point_step + row_padding
    data = np.full(height * row_step, 0xEE, dtype=np.uint8)
    for name, column in columns.items():
        raw = np.ascontiguousarray(column.astype(column.dtype.newbyteorder(">" if big_endian else "<")))
        raw = raw.view(np.uint8).reshape(count, -1)
        for i in range(count):
            start = (i // width) * row_step + (i % width) * point_step + offsets[name]
            data[start : start + raw.shape[1]] = raw[i]
    fields = [
        SimpleNamespace(name=name, offset=offsets[name], datatype=DATATYPE[column.dtype.str[1:]], count=1)
        for name, column in columns.items()
    ]
    header = SimpleNamespace(stamp=SimpleNamespace(sec=stamp[0], nanosec=stamp[1]), frame_id="base_link")
    return SimpleNamespace(
        header=header,
        height=height,
        width=width,
        fields=fields,
        is_bigendian=big_endian,
        point_step=point_step,
        row_step=row_step,
        data=array.array("B", data.tobytes()),
        is_dense=True,
    )


def xyz_columns(n: int, dtype=np.float32, seed: int = 0) -> dict[str, np.ndarray]:
    points = np.random.default_rng(seed).normal(0, 30, (n, 3)).astype(dtype)
    return {name: points[:, axis].copy() for axis, name in enumerate("xyz")}


def stacked(columns: dict[str, np.ndarray]) -> np.ndarray:
    return np.stack([columns[name] for name in "xyz"], axis=1).astype(np.float32)


def test_every_layout_gives_the_same_columns():
    rng = np.random.default_rng(11)
    for _ in range(200):
        height = int(rng.integers(1, 4))
        n = height * int(rng.integers(1, 9))
        columns = xyz_columns(n, dtype=rng.choice([np.float32, np.float64]), seed=int(rng.integers(1 << 30)))
        columns["intensity"] = rng.integers(0, 255, n).astype(rng.choice(["f4", "u1", "u2", "f8"]))
        columns["ring"] = rng.integers(0, 127, n).astype(rng.choice(["u2", "u1", "i4", "f4"]))
        columns["t"] = rng.integers(0, 100_000_000, n).astype("u4")
        columns["unused"] = rng.normal(size=n)
        order = rng.permutation(list(columns))
        message = make_message(
            {str(name): columns[name] for name in order},
            height=height,
            leading=int(rng.integers(0, 5)),
            gap=int(rng.integers(0, 5)),
            row_padding=int(rng.integers(0, 9)),
            big_endian=bool(rng.integers(0, 2)),
        )
        cloud = decode(message)
        np.testing.assert_array_equal(cloud.points, stacked(columns))
        np.testing.assert_array_equal(cloud.intensity, columns["intensity"].astype(np.float32))
        np.testing.assert_array_equal(cloud.ring, columns["ring"].astype(np.uint16))
        np.testing.assert_array_equal(cloud.time_offset_ns, columns["t"].astype(np.int32))
        assert cloud.points.dtype == np.float32 and cloud.points.dtype.isnative
        assert cloud.intensity.dtype == np.float32 and cloud.intensity.dtype.isnative
        assert cloud.ring.dtype == np.uint16
        assert cloud.time_offset_ns.dtype == np.int32


def test_bytes_written_by_hand():
    data = struct.pack("<fffHfff", 1.0, 2.0, 3.0, 7, -1.5, 0.25, 4.0) + struct.pack("<H", 9)
    message = make_message({**xyz_columns(2), "ring": np.array([7, 9], np.uint16)})
    message.data = data
    cloud = decode(message)
    np.testing.assert_array_equal(cloud.points, [[1, 2, 3], [-1.5, 0.25, 4]])
    np.testing.assert_array_equal(cloud.ring, [7, 9])


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, lambda b: np.frombuffer(b, np.uint8)])
def test_data_of_any_bytes_type(wrap):
    columns = xyz_columns(5)
    message = make_message(columns)
    message.data = wrap(message.data.tobytes())
    np.testing.assert_array_equal(decode(message).points, stacked(columns))


def test_aligned_float32_coordinates_are_not_copied():
    message = make_message({**xyz_columns(6), "intensity": np.ones(6, np.float32)})
    points = decode(message).points
    assert np.shares_memory(points, np.frombuffer(message.data, np.uint8))


def test_padded_rows_of_a_single_point_are_told_apart():
    columns = xyz_columns(4)
    message = make_message(columns, height=4, row_padding=8)
    np.testing.assert_array_equal(decode(message).points, stacked(columns))


def test_optional_columns_are_none_where_absent():
    cloud = decode(make_message(xyz_columns(3)))
    assert cloud.intensity is None and cloud.ring is None and cloud.time_offset_ns is None


def test_rows_with_nan_and_inf_are_kept():
    columns = xyz_columns(4)
    columns["x"][1] = np.nan
    columns["z"][2] = np.inf
    np.testing.assert_array_equal(decode(make_message(columns)).points, stacked(columns))


def test_float64_coordinates_beyond_float32_become_infinite_silently():
    columns = xyz_columns(2, dtype=np.float64)
    columns["x"][0] = 1e300
    with np.errstate(all="raise"):
        assert np.isinf(decode(make_message(columns)).points[0, 0])


@pytest.mark.parametrize("width, height", [(0, 1), (0, 0), (5, 0)])
def test_a_cloud_of_no_points_is_empty_whatever_its_fields(width, height):
    message = make_message(xyz_columns(1))
    message.width, message.height, message.fields, message.data = width, height, [], b""
    cloud = decode(message)
    assert isinstance(cloud, Cloud) and cloud.points.shape == (0, 3) and cloud.points.dtype == np.float32


STAMP = (1_700_000_000, 250_000_000)


@pytest.mark.parametrize(
    "name, values, expected",
    [
        ("t", np.array([0, 5, 99_999_999], np.uint32), [0, 5, 99_999_999]),
        ("t", np.array([-7, 5], np.int32), [-7, 5]),
        ("time", np.array([0.0, 0.05, -0.1], np.float32), [0, 50_000_000, -100_000_000]),
        ("time", np.array([0.0, 0.05, np.nan], np.float64), [0, 50_000_000, 0]),
        ("timestamp", np.array([0.0, 0.1], np.float64), [0, 100_000_000]),
        ("timestamp", 1_700_000_000 + np.array([0.25, 0.375, 0.125]), [0, 125_000_000, -125_000_000]),
        ("timestamp", np.array([1_700_000_000.375, 1_700_000_000.25, 0.0]), [125_000_000, 0, 0]),
        ("timestamp", np.array([0.0, 0.0, 0.0, 1_700_000_000.375]), [0, 0, 0, 125_000_000]),  # few returns
        ("timestamp", 1_700_000_000.25e9 + np.array([0.0, 1024e3]), [0, 1_024_000]),
    ],
)
def test_time_fields(name, values, expected):
    message = make_message({**xyz_columns(len(values)), name: values}, stamp=STAMP)
    # float32 seconds and float64 nanoseconds since 1970 are only so exact
    np.testing.assert_allclose(decode(message).time_offset_ns, expected, atol=300)


@pytest.mark.parametrize(
    "values",
    [
        np.array([5.0, 6.0]),  # seconds, but neither of this sweep nor near the stamp
        np.array([3_000_000_000, 0], np.uint32),
        np.array([1e308, -1e308]),
        np.array([1.7e9, 1.7e9], np.float32),
    ],
)
def test_times_that_make_no_sense_are_left_out(values):
    message = make_message({**xyz_columns(2), "t": values}, stamp=(1_600_000_000, 0))
    cloud = decode(message)
    assert cloud.time_offset_ns is None and len(cloud) == 2


def test_row_step_left_at_zero_means_packed():
    columns = xyz_columns(6)
    message = make_message(columns, height=2)
    message.row_step = 0
    np.testing.assert_array_equal(decode(message).points, stacked(columns))


def test_field_count_left_at_zero_means_one():
    columns = xyz_columns(2)
    message = make_message(columns)
    for field in message.fields:
        field.count = 0
    np.testing.assert_array_equal(decode(message).points, stacked(columns))


def test_missing_padding_after_the_last_row_is_fine():
    columns = xyz_columns(6)
    message = make_message(columns, height=2, row_padding=10)
    message.data = message.data[:-10]
    np.testing.assert_array_equal(decode(message).points, stacked(columns))


def _without_y(m):
    m.fields = [f for f in m.fields if f.name != "y"]


def _short(m):
    m.data = m.data[:-1]


def _no_data(m):
    m.data = b""


def _small_step(m):
    m.point_step = 11


def _zero_step(m):
    m.point_step = 0


def _small_row_step(m):
    m.height, m.width, m.row_step = 2, 2, 23


def _unknown_datatype(m):
    m.fields[0].datatype = 9


def _integer_x(m):
    m.fields[0].datatype = 5


def _negative_offset(m):
    m.fields[2].offset = -4


def _huge(m):
    m.width = 2**32 - 1


def _no_fields(m):
    m.fields = []


def _none(m):
    m.data = None


def _negative(m):
    m.width = -1


@pytest.mark.parametrize(
    "spoil, says",
    [
        (_without_y, "no field y; its fields: x, z"),
        (_no_fields, "no field x, y, z; its fields: none"),
        (_short, "incomplete"),
        (_no_data, "incomplete"),
        (_huge, "incomplete"),
        (_small_step, "point_step is 11"),
        (_zero_step, "point_step is 0"),
        (_small_row_step, "row_step 23"),
        (_unknown_datatype, "unknown datatype 9"),
        (_integer_x, "not FLOAT32 or FLOAT64"),
        (_negative_offset, "takes bytes -4"),
        (_none, "not a usable PointCloud2"),
        (_negative, "negative size"),
    ],
)
def test_what_is_wrong_is_said(spoil, says):
    message = make_message(xyz_columns(4))
    spoil(message)
    with pytest.raises(CloudError, match=says):
        decode(message)


def test_cloud_error_is_for_people():
    assert issubclass(CloudError, ZeroFlowError)


def test_garbage_raises_nothing_but_cloud_error():
    rng = np.random.default_rng(5)
    numbers = [0, 1, 2, 3, 4, 7, 12, 16, 22, 255, 2**16, 2**31 - 1, 2**32 - 1, -1, 2**70]
    odd = [None, "7", 1.5, np.nan, np.inf, b"x", [], object(), np.uint32(2**32 - 1)]
    names = ["x", "y", "z", "intensity", "ring", "t", "time", "timestamp", "", "x", None]

    def number():
        source = odd if rng.random() < 0.04 else numbers
        return source[rng.integers(len(source))]

    refused = decoded = 0
    for _ in range(3000):
        message = make_message(
            {**xyz_columns(4), "t": rng.normal(0, 10.0 ** rng.integers(-3, 300), 4)}, stamp=STAMP
        )
        for attribute in ("width", "height", "point_step", "row_step", "is_bigendian"):
            if rng.random() < 0.2:
                setattr(message, attribute, number())
        if rng.random() < 0.5:
            message.fields = [
                SimpleNamespace(
                    name=names[rng.integers(len(names))],
                    offset=number() if rng.random() < 0.3 else int(rng.integers(0, 16)),
                    datatype=number() if rng.random() < 0.3 else int(rng.integers(1, 9)),
                    count=number() if rng.random() < 0.3 else 1,
                )
                for _ in range(rng.integers(0, 7))
            ]
        if rng.random() < 0.3:
            message.data = rng.integers(0, 256, int(rng.integers(0, 200))).astype(np.uint8).tobytes()
        if rng.random() < 0.02:
            message.data = odd[rng.integers(len(odd))]
        if rng.random() < 0.02:
            delattr(message, str(rng.choice(list(vars(message)))))
        try:
            cloud = decode(message)
        except CloudError as error:
            assert str(error)
            refused += 1
        else:
            assert cloud.points.shape == (message.width * message.height, 3) or len(cloud) == 0
            decoded += 1
    assert refused > 500 and decoded > 500  # the fuzz reaches both sides


def test_field_names_without_end_do_not_make_messages_without_end():
    message = make_message(xyz_columns(1))
    for field in message.fields:
        field.name *= 10_000
    with pytest.raises(CloudError) as refusal:
        decode(message)
    assert len(str(refusal.value)) < 400


def test_dtype_of_is_the_inverse_of_fields_of():
    layout = {"names": ["x", "t", "ring"], "formats": ["<f4", "<i4", "u1"], "offsets": [4, 0, 9], "itemsize": 12}
    fields = [
        SimpleNamespace(name=name, offset=offset, datatype=datatype, count=count)
        for name, offset, datatype, count in fields_of(np.dtype(layout))
    ]
    assert dtype_of(fields, 12) == np.dtype(layout)
    assert dtype_of(fields, 12, big_endian=True)["x"] == np.dtype(">f4")
    fields[0].datatype = 9
    with pytest.raises(ValueError, match="'x' has the unknown datatype 9"):
        dtype_of(fields, 12)


def test_structured_packs_without_padding():
    columns = {
        **xyz_columns(3),
        "ring": np.array([1, 2, 3], np.uint16),
        "t": np.array([10, 20, 30], ">u4"),
    }
    packed = structured(columns)
    assert packed.dtype.itemsize == 18
    coordinates = [("x", 0, 7, 1), ("y", 4, 7, 1), ("z", 8, 7, 1)]
    assert fields_of(packed.dtype) == [*coordinates, ("ring", 12, 4, 1), ("t", 14, 6, 1)]
    first = struct.unpack("<fffHI", packed.tobytes()[:18])
    assert first == (columns["x"][0], columns["y"][0], columns["z"][0], 1, 10)


def test_structured_and_decode_are_inverse():
    columns = xyz_columns(7)
    columns.update(intensity=np.arange(7, dtype=np.float32), t=np.arange(7, dtype=np.uint32))
    packed = structured(columns)
    message = make_message(columns)
    message.point_step, message.row_step = packed.dtype.itemsize, packed.nbytes
    message.fields = [
        SimpleNamespace(name=name, offset=offset, datatype=datatype, count=count)
        for name, offset, datatype, count in fields_of(packed.dtype)
    ]
    message.data = packed.tobytes()
    cloud = decode(message)
    np.testing.assert_array_equal(cloud.points, stacked(columns))
    np.testing.assert_array_equal(cloud.intensity, columns["intensity"])
    np.testing.assert_array_equal(cloud.time_offset_ns, columns["t"])


@pytest.mark.parametrize(
    "columns",
    [
        {"x": np.zeros(3, np.float32), "y": np.zeros(2, np.float32)},
        {"x": np.zeros((3, 2), np.float32)},
        {"x": np.zeros(3, np.float16)},
        {"x": np.zeros(3, np.int64)},
        {},
    ],
)
def test_structured_refuses_what_pointfield_cannot_hold(columns):
    with pytest.raises(ValueError):
        structured(columns)


def test_what_is_a_return():
    points = np.float32([[1, 2, 3], [0, 0, 0], [0, 0, 1], [np.nan, 0, 0], [1, np.inf, 1]])
    np.testing.assert_array_equal(is_return(points), [True, False, True, False, False])
    assert is_return(np.empty((0, 3), np.float32)).shape == (0,)
