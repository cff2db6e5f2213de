"""Statistics counted by hand, tables and sheets of tiny logs, complaints in sentences."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from zeroflow_core.bench import samples, statistics
from zeroflow_core.bench.__main__ import app
from zeroflow_core.bench.contact_sheet import save_contact_sheet
from zeroflow_core.bench.statistics import Sample, measure
from zeroflow_core.datasets.av2 import Log
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.geometry import SE3
from zeroflow_core.pairs import Sweep

BEAMS, STEPS = np.linspace(-22.0, 4.0, 64), np.arange(-180.0, 180.0, 3.0)  # degrees
MOUNTED = SE3(np.eye(3), np.array([0.0, 0.0, 1.4]))
realism = import_module("zeroflow_core.bench.realism")


def sweep_of(points, stamp_ns=0, x=0.0, **columns) -> Sweep:
    pose = SE3(np.eye(3), np.array([x, 0.0, 0.0]))
    return Sweep(np.asarray(points, dtype=np.float32).reshape(-1, 3), stamp_ns, pose, **columns)


def room(stamp_ns=0, x=0.0, half_width=12.0) -> Sweep:
    """A tiny 64-beam sweep from inside a square of walls without end, around the vehicle wherever that is."""
    ring, azimuth = np.repeat(np.arange(64), len(STEPS)), np.deg2rad(np.tile(STEPS, 64))
    elevation = np.deg2rad(BEAMS[ring])
    way = np.stack([np.cos(azimuth), np.sin(azimuth), np.tan(elevation)], axis=1)
    to_wall = half_width / np.abs(way[:, :2]).max(axis=1)
    with np.errstate(divide="ignore"):
        to_floor = np.where(way[:, 2] < 0, -1.73 / way[:, 2], np.inf)
    points = way * np.minimum(to_wall, to_floor)[:, None] + MOUNTED.translation
    return sweep_of(points, stamp_ns, x, ring=ring.astype(np.uint16), intensity=np.full(len(ring), 7.0, np.float32))


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """A folder with one log of three tiny sweeps of a 64-beam scanner, with labels: all moves ahead at 5 m/s."""
    import pyarrow as pa
    from pyarrow import feather

    def write(path, columns):
        path.parent.mkdir(parents=True, exist_ok=True)
        feather.write_feather(pa.table(columns), str(path))

    log = tmp_path / "logs" / "sensor" / "val" / "tiny"
    poses = []
    for k in range(3):
        sweep = room(stamp_ns=100_000_000 * (k + 1), x=1.0 * k)
        xyz = {name: sweep.points[:, axis].astype(np.float16) for axis, name in enumerate("xyz")}
        rest = {"intensity": sweep.intensity.astype(np.uint8), "laser_number": sweep.ring.astype(np.uint8)}
        offset = {"offset_ns": np.zeros(len(sweep), np.int32)}
        write(log / "sensors" / "lidar" / f"{sweep.stamp_ns}.feather", xyz | rest | offset)
        poses.append((sweep.stamp_ns, sweep.world_SE3_ego))
        if k < 2:
            flow = np.tile(np.array([0.5 - 1.0, 0, 0], np.float32), (len(sweep), 1))  # ego drives 1 m a sweep
            columns = {f"flow_t{axis}_m": flow[:, i] for i, axis in enumerate("xyz")}
            columns |= {"classes": np.zeros(len(sweep), np.uint8), "dynamic": np.ones(len(sweep), bool)}
            columns |= {"is_ground_0": np.zeros(len(sweep), bool)}
            write(log / "flow_labels" / f"{sweep.stamp_ns}.feather", columns)

    def pose_columns(transforms):
        rows = np.array([[*pose.quaternion, *pose.translation] for pose in transforms])
        return {name: rows[:, i] for i, name in enumerate(("qw", "qx", "qy", "qz", "tx_m", "ty_m", "tz_m"))}

    stamps = {"timestamp_ns": np.array([stamp for stamp, _ in poses])}
    write(log / "city_SE3_egovehicle.feather", stamps | pose_columns([pose for _, pose in poses]))
    names = {"sensor_name": ["up_lidar", "down_lidar"]}
    write(log / "calibration" / "egovehicle_SE3_sensor.feather", names | pose_columns([MOUNTED, MOUNTED]))
    return tmp_path / "logs"


# --- statistics ---------------------------------------------------------------------------------------------------


def test_shares_count_from_edge_to_edge():
    found = statistics.shares("range {} m, %", np.array([0.0, 4.9, 5.0, 7.0, 10.0, 99.0, 12.0, 13.0]), (0, 5, 10))
    assert found == {"range 0 to 5 m, %": 25.0, "range 5 to 10 m, %": 25.0, "range 10+ m, %": 50.0}
    found = statistics.shares("z {}", np.array([-3.0, -0.5, 0.5, 9.0]), (-1.0, 0.0))
    assert found == {"z below -1": 25.0, "z -1 to 0": 25.0, "z 0+": 50.0}
    assert set(statistics.shares("{}", np.empty(0), (0, 1)).values()) == {0.0}


def test_pillars_hold_the_points_of_their_20_cm():
    points = np.array([[0.05, 0.05, 9], [0.15, 0.19, -2], [0.25, 0.05, 0], [-0.05, 0.05, 0], [60, 0, 0], [0, 51.3, 0]])
    assert statistics.pillars(points) == {
        "pillars occupied": 3.0,
        "pillars, points in each: mean": pytest.approx(4 / 3),
        "pillars, points in each: median": 1.0,
        "pillars, points in each: p90": pytest.approx(1.8),
    }
    empty = statistics.pillars(np.empty((0, 3)))
    assert empty.pop("pillars occupied") == 0 and np.isnan(list(empty.values())).all()


def test_nearest_neighbours_are_those_above_ground_after_ego_motion():
    world = np.array([[10.0, 0, 1], [20, 5, 1], [-9, 3, 1], [5, 5, -0.3]])
    is_ground = np.array([False, False, False, True])
    sweep0, sweep1 = sweep_of(world), sweep_of(world - [2.0, 0, 0] + [0, 0, 0.25], x=2.0)
    found = statistics.neighbours(sweep0, sweep1, is_ground, is_ground, seed=1)
    assert list(found.values()) == pytest.approx([0.25, 0.25], abs=1e-6)
    nobody = statistics.neighbours(sweep0, sweep1, is_ground, np.ones(4, bool), seed=1)
    assert np.isnan(list(nobody.values())).all()


def test_moving_points_are_counted_above_ground_only():
    velocity = np.array([[0, 0, 0], [0, 3.0, 4.0], [0.1, 0, 0], [1.0, 0, 0], [9.0, 0, 0]])
    found = statistics.motion(velocity, np.array([False, False, False, False, True]))
    assert list(found.values()) == pytest.approx([50.0, 3.0, 4.6])
    assert np.isnan(list(statistics.motion(None, np.zeros(5, bool)).values())).all()


def cylinder(missing=(), noise=0.0, far=()):
    """Two beams of 360 firings on the wall of a cylinder of 10 m, some without return and some beyond it."""
    rng = np.random.default_rng(0)
    azimuth = np.deg2rad(np.tile(np.arange(360.0) - 179.75, 2))
    distance = 10 + noise * rng.standard_normal(720)
    distance[list(far)] = 30
    points = np.stack([distance * np.cos(azimuth), distance * np.sin(azimuth), np.zeros(720)], axis=1)
    kept = np.setdiff1d(np.arange(720), missing)
    ring, offset = np.repeat([0, 1], 360).astype(np.uint16), np.arange(720, dtype=np.int32)
    return sweep_of(points[kept], ring=ring[kept], time_offset_ns=offset[kept])


def test_beams_by_their_firings_jumps_and_noise():
    returned, weakest, jumps, noise = statistics.beams(cylinder(missing=range(0, 36)), np.zeros(3)).values()
    assert returned == pytest.approx(95.0, abs=0.1) and weakest == pytest.approx(91.0, abs=0.1)
    assert jumps == 0 and noise == pytest.approx(0, abs=0.01)
    _, _, jumps, _ = statistics.beams(cylinder(far=[100, 200, 201]), np.zeros(3)).values()
    assert jumps == pytest.approx(100 * 4 / 718)
    _, _, _, noise = statistics.beams(cylinder(noise=0.02), np.zeros(3)).values()
    assert noise == pytest.approx(20, rel=0.1)


def test_beams_without_numbers_are_unknown_and_inferred_ones_half_known():
    sweep = cylinder()
    assert np.isnan(list(statistics.beams(replace(sweep, ring=None), np.zeros(3)).values())).all()
    one = replace(sweep, ring=np.zeros(720, np.uint16))
    assert np.isnan(list(statistics.beams(one, np.zeros(3)).values())).all()
    returned, weakest, *_ = statistics.beams(replace(sweep, time_offset_ns=None), np.zeros(3)).values()
    assert returned == pytest.approx(100, abs=0.1) and np.isnan(weakest)


def test_all_of_a_pair_at_once():
    pair = Sample(room(), room(100_000_000, x=0.0), MOUNTED.translation)
    found = measure(pair, seed=3)
    assert found["points"] == 64 * len(STEPS)
    assert sum(value for name, value in found.items() if name.startswith("range") and "%" in name) == pytest.approx(100)
    assert sum(value for name, value in found.items() if name.startswith("height")) == pytest.approx(100)
    assert found["nearest in next sweep median, m"] == 0 and found["intensity median"] == 7
    assert 20 < found["ground by Patchwork++, %"] < 90
    assert np.isnan(found["ground by height, %"]) and np.isnan(found["moving, speed median, m/s"])
    rule = replace(pair, ground=lambda sweep: sweep.points[:, 2] < 0.07, velocity=np.full((len(pair.sweep0), 3), 2.0))
    found = measure(rule, seed=3)
    expected = 100 * (pair.sweep0.points[:, 2] < 0.07).mean()
    assert found["ground by height, %"] == pytest.approx(expected)
    assert found["moving, of points above ground, %"] == 100


def test_a_sweep_with_nothing_in_it():
    empty = sweep_of(np.empty((0, 3)), ring=np.empty(0, np.uint16), intensity=np.empty(0, np.float32))
    found = measure(Sample(empty, empty, np.zeros(3)), seed=0)
    assert found["points"] == 0 and np.isnan(found["range median, m"])


# --- samples ------------------------------------------------------------------------------------------------------


def test_a_log_is_sampled_evenly_with_the_velocity_of_its_labels(logs: Path):
    log = Log(logs / "sensor" / "val" / "tiny")
    assert samples.resembling(log) == "hdl64"
    assert [len(list(samples.log_samples(log, count))) for count in (1, 2, 9)] == [1, 2, 2]
    sample = next(samples.log_samples(log, 1))
    np.testing.assert_allclose(sample.velocity, np.tile([5.0, 0, 0], (len(sample.sweep0), 1)), atol=1e-5)
    np.testing.assert_allclose(sample.origin, MOUNTED.translation)
    assert sample.ground is None


def test_the_scanner_of_a_log_is_told_by_its_heads_and_beams(test_data: Path):
    from zeroflow_core.datasets.av2 import find_logs

    found = {path.parts[-4]: samples.resembling(Log(path)) for path in find_logs(test_data)}
    assert found == {"av2": "av2", "kitti": "hdl64", "tri": None}


# --- commands -----------------------------------------------------------------------------------------------------


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_realism_of_logs_against_logs(logs: Path, tmp_path: Path):
    sheets, numbers = tmp_path / "sheets", tmp_path / "numbers.json"
    done = run(
        "realism", "--data", logs, "--synthetic", logs, "--sweeps", 2, "--pictures", sheets, "--json", numbers
    )
    assert done.exit_code == 0, done.output
    rows = [line.split() for line in done.output.splitlines()]
    assert ["points", "7,680", "7,680", "7,680", "7,680", "1.00"] in rows
    assert "synthetic ÷ real" in done.output and "hdl64" in done.output
    assert "largest of 0 differences" in done.output
    with Image.open(sheets / "hdl64.png") as sheet:
        assert sheet.size == (640 + 8 + 1280, 2 * 360 + 8)
    stored = json.loads(numbers.read_text())
    assert stored["real"]["hdl64"]["tiny"][0]["points"] == 64 * len(STEPS)
    assert stored["real"]["hdl64"]["tiny"][1]["ground by height, %"] is None
    assert len(stored["synthetic"]["hdl64"]["synthetic"]) == 2


def test_differences_are_told_in_words_the_largest_first():
    def group(name, *values):
        return realism.Group(name, [{"points": p, "range 0 to 5 m, %": s, "unknown": np.nan} for p, s in values])

    real, made = group("real", (1000, 10.0), (1200, 20.0)), group("street", (900, 60.0), (500, 40.0))
    told = realism._differences(real, made)
    assert told[0] == "The largest of 2 differences of street:"
    assert told[1] == "  more: range 0 to 5 m, %: 50.0, real sweeps have 10.0 to 20.0"
    assert told[2] == "  less: points: 700, real sweeps have 1,000 to 1,200"
    assert "none" in realism._differences(real, group("street", (1100, 12.0)))[1]


def test_numbers_have_three_digits_that_count():
    values = [123456.7, 999.4, 12.345, 1.0, 0.04321, 0.0, np.nan]
    assert [realism._text(value) for value in values] == ["123,457", "999", "12.3", "1.00", "0.0432", "0", "–"]


def test_a_sheet_has_a_row_for_each_sweep(tmp_path: Path):
    sample = Sample(room(), room(), MOUNTED.translation)
    path = tmp_path / "new" / "sheet.png"
    save_contact_sheet(path, [("one", sample), ("two", sample), ("three", sample)])
    with Image.open(path) as sheet:
        assert sheet.size == (1928, 3 * 368 - 8)
        drawn = np.asarray(sheet)
    assert all(drawn[k * 368:k * 368 + 360, 700:1700].max() > 150 for k in range(3))
    (tmp_path / "file").write_text("")
    with pytest.raises(ZeroFlowError, match="cannot write"):
        save_contact_sheet(tmp_path / "file" / "sheet.png", [("one", sample)])


@pytest.mark.parametrize("command", ["realism", "simulation"])
def test_unknown_names_are_refused_before_any_work(command, logs: Path):
    given = ["--data", logs] if command == "realism" else []
    for option, value, sentence in [
        ("--scene", "moon", "scene 'moon' is unknown"),
        ("--sensor", "eyes", "'eyes' is unknown"),
        ("--device", "abacus", "device abacus cannot be used"),
    ]:
        done = run(command, *given, option, value)
        assert isinstance(done.exception, ZeroFlowError) and sentence in str(done.exception)


def test_folders_without_what_is_needed_end_in_a_sentence(logs: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for arguments, sentence in [
        (["--data", tmp_path / "nowhere"], "there is no folder"),
        (["--data", tmp_path / "empty"], "no AV2 log in"),
        (["--data", logs, "--synthetic", tmp_path / "empty"], "no AV2 log in"),
        (["--data", logs, "--synthetic", logs, "--json", tmp_path / "file" / "a.json"], "cannot write"),
    ]:
        done = run("realism", *arguments)
        assert isinstance(done.exception, ZeroFlowError) and sentence in str(done.exception), done.output
    for sweep in sorted((logs / "sensor/val/tiny/sensors/lidar").iterdir())[1:]:
        sweep.unlink()
    done = run("realism", "--data", logs)
    assert "has a scanner that can be simulated" in str(done.exception)


def test_the_module_runs_as_a_command_and_says_what_was_wrong(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "zeroflow_core.bench", "realism", "--data", str(tmp_path / "x")],
        capture_output=True, text=True, timeout=120,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "there is no folder" in done.stderr


def test_simulated_pairs_are_measured_and_timed(logs: Path, tmp_path: Path):
    done = run(
        "realism", "--data", logs, "--sensor", "hdl64", "--sensor", "small", "--scene", "street", "--sweeps", 1,
        "--pictures", tmp_path,
    )
    assert done.exit_code == 0, done.output
    assert "street ÷ real" in done.output and "small: no log in" in done.output
    assert (tmp_path / "hdl64.png").exists() and (tmp_path / "small.png").exists()

    done = run("simulation", "--sensor", "small", "--scene", "street", "--sweeps", 2)
    assert done.exit_code == 0, done.output
    measured = json.loads(done.output.splitlines()[-1])
    assert measured["bench"] == "simulation" and measured["torch"] and measured["machine"]
    assert [(s["processes"], s["threads"]) for s in measured["speeds"]] == [(1, 1), (1, 2), (2, 1)]
    for speed in measured["speeds"]:
        assert speed["per_second"] > 0 and speed["low_s"] <= speed["median_s"] <= speed["high_s"]
        assert speed["points"] > 1000
