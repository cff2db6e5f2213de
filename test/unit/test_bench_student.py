"""The student's benchmark: turns taken, the headline first, sums by hand, a leak caught, mistakes in sentences."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from zeroflow_core.bench import student_growth, student_limits, student_pairs, student_run, student_tables
from zeroflow_core.bench.__main__ import app
from zeroflow_core.bench.student_growth import Growth, Reading, check_growth, judged, resident_memory
from zeroflow_core.bench.student_limits import Limits
from zeroflow_core.bench.student_pairs import occupancy_pair, occupied_share, points_pair, usual_pairs
from zeroflow_core.bench.student_run import Pace, measure
from zeroflow_core.bench.student_weights import seeded_model
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.fastflow3d.config import FastFlow3DConfig
from zeroflow_core.fastflow3d.engine.fold import dense_macs
from zeroflow_core.fastflow3d.student import Student
from zeroflow_core.simulation.log import simulate_log

TINY = FastFlow3DConfig(minimum=(-8, -8, -3), maximum=(8, 8, 3), pillar_size=0.5, channels=4, blocks=(1, 2))
LIMITS = Limits({"fp32": 1e11, "bf16": 4e11}, 2e10)
KEYS = {"reference_ms", "engine_ms", "ratio", "device", "dtype", "points"}
command = import_module("zeroflow_core.bench.student")
load_libraries = student_run.load_libraries


class FakeStudent:
    """Says of every point within 8 m that it moves 0.1 m, the fast one 0.1002; tells who answered, in order."""

    order: list[tuple[str, str]] = []

    def __init__(self, model, metadata, device, precision="fp32", engine="reference"):
        self.model, self.device, self.precision, self.engine = model, device, precision, engine
        self.network = SimpleNamespace(flops=3_000_000_000, bytes_moved=None if precision == "fp32" else 5_000_000)

    def flow(self, pc0, pc1):
        assert isinstance(pc0, np.ndarray) and pc0.dtype == pc1.dtype == np.float32
        self.order.append((self.engine, self.precision))
        flow = np.zeros_like(pc0)
        flow[:, 0] = 0.1 if self.engine == "reference" else 0.1002
        flow[np.abs(pc0).max(axis=1) >= 8] = np.nan
        return flow


@pytest.fixture
def fake(monkeypatch) -> type[FakeStudent]:
    """The networks are fakes, the published sizes tiny, the machine's limits known, and sweeps short."""
    fake = type("Fake", (FakeStudent,), {"order": []})
    for place in (student_run, import_module("zeroflow_core.fastflow3d.student")):
        monkeypatch.setattr(place, "Student", fake)
    monkeypatch.setattr("zeroflow_core.fastflow3d.config.ONE_X", TINY)
    monkeypatch.setattr("zeroflow_core.fastflow3d.config.XL", replace(TINY, channels=8))
    monkeypatch.setattr("zeroflow_core.devices.choose_precision", lambda name, _: "bf16" if name == "auto" else name)
    monkeypatch.setattr(student_limits, "limits_of", lambda device, precisions: LIMITS)
    monkeypatch.setattr(student_run, "_give_memory_back", lambda: None)  # it takes a tenth of a second
    monkeypatch.setattr(student_run, "load_libraries", lambda *_: None)
    monkeypatch.setattr(student_pairs, "POINT_COUNTS", (200, 400))
    monkeypatch.setattr(student_pairs, "OCCUPANCIES", (0.25, 1.0))
    monkeypatch.delenv("ZEROFLOW_TEST_DATA", raising=False)
    return fake


@pytest.fixture(scope="module")
def logs(tmp_path_factory) -> Path:
    """A folder with one log of two sweeps of the small scanner."""
    root = tmp_path_factory.mktemp("logs")
    simulate_log(root / "sensor" / "val" / "drive", seed=7, sweeps=2, scanner="small", scene="street")
    return root


def bench(*arguments):
    return CliRunner().invoke(app, ["student", *map(str, arguments)])


def rows_of(tmp_path: Path, *arguments) -> list[dict]:
    file = tmp_path / "new" / "student.json"
    done = bench("--repeats", 1, "--json", file, *arguments)
    assert done.exit_code == 0, done.output
    return json.loads(file.read_text())


# --- turns and sums -----------------------------------------------------------------------------------------------


def test_the_networks_take_turns_after_warming_up(fake):
    rows = measure(points_pair(300), seeded_model(TINY), ["bf16", "fp32"], "cpu", LIMITS, Pace(9.0, turns=2))
    reference, bf16, fp32 = ("reference", "fp32"), ("fast", "bf16"), ("fast", "fp32")
    first, warm_up, turn = [reference, bf16, fp32], [bf16] * 2 + [fp32] * 2, [reference, *[bf16] * 4, *[fp32] * 4]
    assert fake.order == [*first, *warm_up, *turn, *turn]
    assert [(row.dtype, row.reference_samples, row.engine_samples) for row in rows] == [("bf16", 2, 6), ("fp32", 2, 6)]


def test_clouds_are_new_to_an_engine_that_keeps_them(fake, monkeypatch):
    """An engine that remembers the clouds of four pairs would answer from memory; only one pair a turn lets it."""
    pair, seen, known, answer = points_pair(300), [], [], fake.flow

    def flow(self, pc0, pc1):
        if self.engine == "fast":
            known.append(sum(any(np.array_equal(cloud, old) for old in seen[-8:]) for cloud in (pc0, pc1)))
            seen.extend((pc0, pc1))
        return answer(self, pc0, pc1)

    monkeypatch.setattr(fake, "flow", flow)
    measure(pair, seeded_model(TINY), ["fp32"], "cpu", LIMITS, Pace(9.0, turns=2))
    assert known == [0, 2, 0, *[0, 0, 0, 1], *[0, 0, 0, 1]]  # after the very first one the order begins again
    assert all((np.sort(cloud, axis=0) == np.sort(pair.pc0, axis=0)).all() for cloud in seen[::2])


def test_a_row_is_what_its_definitions_say(fake, monkeypatch):
    """Made-up times: the reference takes 50, 10 and 20 ms, the fast one 1 to 9 ms, and 0.5 ms with a known cloud."""
    fast = [9.0, 1.0, 2.0, 0.5, 3.0, 4.0, 5.0, 0.5, 6.0, 7.0, 8.0, 0.5]
    times = {"reference": iter([50.0, 10.0, 20.0]), "fast": iter(fast)}
    monkeypatch.setattr(student_run, "_WARM_UP_PAIRS", 0)
    monkeypatch.setattr(student_run, "_milliseconds", lambda student, *_: next(times[student.engine]))
    pair = points_pair(400)
    (row,) = measure(pair, seeded_model(TINY), ["bf16"], "cpu", LIMITS, Pace(9.0, turns=3))
    assert (row.reference_ms, row.reference_p99_ms, row.reference_samples) == (20.0, 50.0, 3)
    assert (row.engine_ms, row.engine_p99_ms, row.engine_samples, row.ratio) == (5.0, 9.0, 9, 4.0)
    assert row.engine_reusing_ms == 0.5
    assert (row.points, row.points1, row.points_from) == (400, 400, "host")
    assert row.occupied == occupied_share(pair.pc0, TINY)
    assert (row.engine_flops, row.reference_flops) == (3_000_000_000, 2 * dense_macs(TINY))
    assert row.matmul_rate == 4e11 and row.matmul_share == pytest.approx(3e9 / 5e-3 / 4e11)
    assert row.copy_share == pytest.approx(5e6 / 5e-3 / 2e10)
    assert row.dense_ms == pytest.approx(1000 * 2 * dense_macs(TINY) / 4e11)
    apart = (row.difference_mean_m, row.difference_p999_m, row.difference_max_m)
    assert apart == pytest.approx((2e-4, 2e-4, 2e-4), rel=1e-3) and row.same_points


def test_other_valid_points_are_told(fake, monkeypatch):
    answer = fake.flow

    def flow(self, pc0, pc1):
        flow = answer(self, pc0, pc1)
        if self.engine == "fast":
            flow[np.flatnonzero(~np.isnan(flow[:, 0]))[0]] = np.nan
        return flow

    monkeypatch.setattr(fake, "flow", flow)
    (row,) = measure(points_pair(400), seeded_model(TINY), ["fp32"], "cpu", LIMITS, Pace(9.0, turns=1))
    assert not row.same_points and row.copy_share is None and row.difference_max_m < 1e-3


def test_memory_is_that_of_each_network_alone(fake, monkeypatch):
    """Each is watched from before it is made until its first answer, and starts with nothing left over."""
    happened = []

    class Memory:
        def __init__(self, device: str) -> None:
            assert device == "cpu"
            happened.append("watched")

        def taken(self) -> int:
            happened.append(fake.order[-1][0])
            return {"reference": 96, "fast": 32}[fake.order[-1][0]]

    make = fake.__init__
    monkeypatch.setattr(fake, "__init__", lambda *settings: (make(*settings), happened.append("made"))[0])
    monkeypatch.setattr(student_run, "PeakMemory", Memory)
    monkeypatch.setattr(student_run, "_give_memory_back", lambda: happened.append("tidied"))
    (row,) = measure(points_pair(300), seeded_model(TINY), ["fp32"], "cpu", LIMITS, Pace(9.0, turns=1))
    assert (row.reference_memory_bytes, row.engine_memory_bytes) == (96, 32)
    assert happened == ["tidied", "watched", "made", "reference", "tidied", "watched", "made", "fast"]


def test_memory_is_given_back():
    student_run._give_memory_back()  # whatever the C library, and with or without a GPU


def test_threads_are_those_that_users_get(tmp_path: Path, fake):
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        (row,) = rows_of(tmp_path, "--points", 99, "--precision", "fp32")
        assert row["threads"] == torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_turns_go_on_for_a_while_or_as_often_as_asked():
    assert [Pace(20.0).ends(turn, elapsed) for turn, elapsed in ((1, 9.9), (1, 10.1), (2, 13.0), (2, 13.4))] == [
        False,
        True,
        False,
        True,
    ]
    assert Pace(20.0).ends(1, 60.0) and Pace(20.0).ends(100, 0.1) and not Pace(20.0).ends(99, 0.1)
    assert Pace(20.0, turns=2).ends(2, 0.0) and not Pace(20.0, turns=2).ends(1, 500.0)


def test_p99_of_few_is_the_slowest():
    assert student_run._p99([3.0, 9.0, 1.0]) == 9.0
    assert student_run._p99(list(range(1000))) == 990.0


def test_a_copy_is_counted_both_ways(monkeypatch):
    monkeypatch.setattr(student_limits, "_BYTES", 1 << 20)
    monkeypatch.setattr(student_limits, "_LEAST_S", 0.0)
    seconds = iter([0.0, 0.0, 9.0, 0.0, 0.5, 0.0, 0.25, 0.0, 0.75])  # the first one, which warms up, and three
    monkeypatch.setattr(student_limits, "perf_counter", lambda: next(seconds, 10.0))
    assert student_limits.copy_rate("cpu") == 2 * (1 << 20) / 0.25


# --- clouds and weights -------------------------------------------------------------------------------------------


def test_made_up_points_are_as_many_as_asked_and_rarer_far_away():
    pair = points_pair(20_000)
    again, other = points_pair(20_000), points_pair(20_000, seed=8)
    for cloud, same, different in ((pair.pc0, again.pc0, other.pc0), (pair.pc1, again.pc1, other.pc1)):
        assert cloud.shape == (20_000, 3) and cloud.dtype == np.float32
        assert (cloud == same).all() and not (cloud == different).all()
        distance = np.hypot(cloud[:, 0], cloud[:, 1])
        density = np.histogram(distance, [5, 15, 45])[0] / (15**2 - 5**2, 45**2 - 15**2)
        assert density[0] > 3 * density[1] and (np.abs(cloud[:, :2]) > 51.2).any()
    assert not (pair.pc0 == pair.pc1).any(axis=1).all()


@pytest.mark.parametrize(("share", "pillars"), [(0.01, 10), (0.25, 256), (1.0, 1024)])
def test_so_many_pillars_are_occupied_with_as_many_points(share: float, pillars: int):
    pair = occupancy_pair(share, TINY)
    for cloud in (pair.pc0, pair.pc1):
        assert occupied_share(cloud, TINY) == pillars / 1024 and cloud.shape == (1024, 3)
    assert not (pair.pc0 == pair.pc1).all()
    if share == 0.25:  # of an even draw the mean would be 6.1 m
        assert np.hypot(*pair.pc0[:, :2].T).mean() < 5.6


def test_a_real_pair_comes_without_ground_first(logs: Path):
    without, with_ground = usual_pairs(logs, None)
    assert (without.name, with_ground.name) == ("drive without ground", "drive with ground")
    for cloud, more in ((without.pc0, with_ground.pc0), (without.pc1, with_ground.pc1)):
        assert 0 < len(cloud) < len(more) and np.isfinite(more).all()
    assert [len(pair.pc0) for pair in usual_pairs(logs, 123)] == [123]
    assert [len(pair.pc0) for pair in usual_pairs(None, None)] == [100_000]


def test_seeded_weights_are_the_same_again_and_flows_some_decimetres():
    model, again, other = seeded_model(TINY), seeded_model(TINY), seeded_model(TINY, seed=8)
    same = [(a == b).all() for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True)]
    assert all(same) and not model.training
    assert not torch.equal(model.head.decoder[0].weight, other.head.decoder[0].weight)
    pair = points_pair(3000)
    with torch.inference_mode():
        ((flow, index),) = model([torch.from_numpy(pair.pc0)], [torch.from_numpy(pair.pc1)])
    assert len(index) > 100 and 0.05 < float(flow.norm(dim=1).mean()) < 1.0 and float(flow.std(dim=0).min()) > 1e-3


# --- growth -------------------------------------------------------------------------------------------------------


def test_a_leak_is_caught_and_buffers_are_none(monkeypatch):
    asked, told = [], []
    # Not the process's own: what earlier tests have freed would take in a leak without the process growing.
    monkeypatch.setattr(
        "zeroflow_core.bench.student_growth.resident_memory",
        lambda: (1 << 30) + len(asked) * (256 << 10),  # a quarter of a MiB a pair is lost
    )

    def leaking(pc0, pc1):
        asked.append((len(pc0), len(pc1), float(pc0[0, 0])))

    leak = check_growth(leaking, 100, 50, "cpu", told.append)
    assert leak.grew and 9 << 20 < leak.grown < 18 << 20  # half of the pairs' 25 MiB
    assert told == leak.readings and [reading.frames for reading in told] == list(range(5, 101, 5))
    assert len(asked) == 101 and asked[0][:2] == (60, 60) and len(set(asked)) > 95
    assert all(40 <= number <= 60 for pair in asked for number in pair[:2]) and {a == b for a, b, _ in asked} == {
        True,
        False,
    }

    steady = check_growth(lambda pc0, pc1: None, 100, 50, "cpu")
    assert not steady.grew and steady.grown == 0


def test_the_memory_of_a_process_is_read():
    before = resident_memory()
    block = np.ones(256 << 20, np.uint8)  # more than anything freed before it has room for
    assert resident_memory() - before > block.nbytes // 2


def test_allocators_may_settle_but_not_grow():
    def readings(resident, device=0):
        return [Reading(k, resident(k) << 20, device and device(k) << 20) for k in range(1, 21)]

    settled = judged(readings(lambda k: 500 + 200 * (k > 4)))
    assert (settled.grown, settled.grew) == (0, False)
    assert judged(readings(lambda k: 500 + k)).grown == 10 << 20  # from the 8th to the 18th
    assert judged(readings(lambda k: 500 + k)).grew and not judged(readings(lambda k: 500 + k // 4)).grew
    assert not judged(readings(lambda k: 500 - k)).grew
    assert judged(readings(lambda k: 500, lambda k: 100 + 8 * k)).grew


def test_growth_in_a_sentence():
    def readings(last):
        return [Reading(500, 700 << 20, 0), Reading(10_000, last << 20, 0)]

    assert student_tables.verdict(Growth(readings(701), 1 << 19, False)) == (
        "memory did not grow: +0.5 MiB between the second and the last quarter of 10,000 pairs; 700 MiB resident after "
        "500, 701 MiB 9,500 pairs later"
    )
    assert student_tables.verdict(Growth(readings(760), 40 << 20, True)).startswith("memory GREW: +40.0 MiB")


# --- the command --------------------------------------------------------------------------------------------------


def test_the_file_has_the_headline_first(logs: Path, tmp_path: Path, fake, monkeypatch):
    monkeypatch.setenv("ZEROFLOW_TEST_DATA", str(logs))
    rows = rows_of(tmp_path)
    assert [(row["pair"], row["dtype"]) for row in rows] == [
        ("drive without ground", "bf16"),
        ("drive without ground", "fp32"),
        ("drive with ground", "bf16"),
        ("drive with ground", "fp32"),
    ]
    for row in rows:
        assert row.keys() > KEYS | {"engine_p99_ms", "engine_memory_bytes", "engine_flops", "machine", "torch"}
        assert row["ratio"] == pytest.approx(row["reference_ms"] / row["engine_ms"])
        assert (row["device"], row["size"], row["weights"], row["bench"]) == ("cpu", "1x", "seed 7", "student")
    assert 0 < rows[0]["points"] < rows[2]["points"]


def test_without_data_a_pair_is_made_up(tmp_path: Path, fake):
    (row,) = rows_of(tmp_path, "--precision", "auto")
    assert (row["pair"], row["points"], row["dtype"]) == ("100,000 points, seed 7", 100_000, "bf16")


def test_points_take_the_place_of_data(logs: Path, tmp_path: Path, fake):
    (row,) = rows_of(tmp_path, "--data", logs, "--points", 345, "--precision", "fp32", "--size", "xl")
    assert (row["points"], row["points1"], row["dtype"], row["size"]) == (345, 345, "fp32", "xl")
    assert fake.order[0] == ("reference", "fp32")


def test_sweeps_and_growth_come_after(tmp_path: Path, fake):
    file = tmp_path / "student.json"
    done = bench("--points", 500, "--precision", "bf16", "--repeats", 1, "--sweep", "--frames", 40, "--json", file)
    assert done.exit_code == 0, done.output
    rows = json.loads(file.read_text())
    assert [row["kind"] for row in rows] == ["pair", "points", "points", "occupancy", "occupancy", "growth"]
    assert [row["points"] for row in rows[:3]] == [500, 200, 400]
    assert [row["occupied"] for row in rows[3:5]] == [0.25, 1.0] and rows[3]["points"] == rows[4]["points"] == 1024
    growth = rows[-1]
    assert growth["readings"][-1]["frames"] == 40 and growth["grew"] is False and growth["device"] == "cpu"
    assert fake.order[-41:] == [("fast", "bf16")] * 41
    for title in student_tables._TITLES.values():
        assert title in done.stdout
    assert "memory did not grow" in done.stdout and "after 40 pairs:" in done.stderr
    assert "500 points, seed 7, bf16: " in done.stderr


def test_tables_have_a_line_for_each_row(fake, monkeypatch):
    times = {"reference": [2500.0], "fast": [250.0, 125.0, 500.0, 99.0]}
    taken = {engine: iter(its * 2) for engine, its in times.items()}
    monkeypatch.setattr(student_run, "_WARM_UP_PAIRS", 0)
    monkeypatch.setattr(student_run, "_milliseconds", lambda student, *_: next(taken[student.engine]))
    monkeypatch.setattr(student_run, "occupied_share", lambda cloud, config: 0.033)
    done = bench("--points", 4000, "--precision", "both", "--repeats", 1)
    cells = [line.split() for line in done.stdout.splitlines()]
    start = ["4,000", "points,", "seed", "7"]
    assert [
        *start,
        "bf16",
        "4,000",
        "3.3%",
        "host",
        "2.50",
        "s",
        "2.50",
        "s",
        "(1)",
        "250",
        "ms",
        "500",
        "ms",
        "(3)",
    ] + ["10.0", "99", "ms"] in cells
    assert [*start, "bf16", "3.0", "0.0", "0.0246", "ms", "3.0%", "0.01", "0.1%"] in cells, done.stdout
    assert [*start, "fp32", "3.0", "0.0", "0.0983", "ms", "12.0%", "–", "–"] in cells
    assert any(line[:8] == [*start, "bf16", "0.2000", "0.2000", "0.2000"] and line[8] == "yes" for line in cells)
    assert "a product in bf16: 400 GFLOP/s; a product in fp32: 100 GFLOP/s; a copy: 20.0 GB/s" in done.stdout
    assert "FastFlow3D 1x, seed 7; " in done.stdout


def test_other_work_on_the_machine_is_told(fake, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    for load, told in ((1.5, True), (0.1, False)):
        monkeypatch.setattr("os.getloadavg", lambda load=load: (load, 0.0, 0.0))
        done = bench("--points", 99, "--precision", "fp32", "--repeats", 1)
        assert f"load {load} on 2 cores" in done.stdout and ("THE MACHINE IS BUSY" in done.stdout) == told


def test_rows_are_kept_when_a_later_pair_fails(logs: Path, tmp_path: Path, fake, monkeypatch):
    file, answer = tmp_path / "student.json", fake.flow

    def flow(self, pc0, pc1):
        if len(self.order) == 9:  # the first pair's are one each, two to warm up, and a turn of five
            raise ZeroFlowError("out of luck")
        return answer(self, pc0, pc1)

    monkeypatch.setattr(fake, "flow", flow)
    done = bench("--data", logs, "--precision", "fp32", "--repeats", 1, "--json", file)
    assert "out of luck" in str(done.exception)
    assert [row["pair"] for row in json.loads(file.read_text())] == ["drive without ground"]
    assert "drive without ground" in done.stdout


def test_weights_may_come_from_a_file(tmp_path: Path, fake):
    from zeroflow_core.fastflow3d.checkpoint import save_model

    save_model(tmp_path / "own.safetensors", seeded_model(replace(TINY, channels=2)), {"name": "own"})
    (row,) = rows_of(tmp_path, "--checkpoint", tmp_path / "own.safetensors", "--points", 99, "--precision", "fp32")
    assert (row["size"], row["weights"]) == ("of its own size", "own")
    assert row["reference_flops"] == 2 * dense_macs(replace(TINY, channels=2))


def test_the_engine_itself(tmp_path: Path, fake, monkeypatch):
    """On a grid so small that it takes no longer than loading it."""
    monkeypatch.setattr(student_run, "Student", Student)
    monkeypatch.setattr(student_run, "load_libraries", load_libraries)
    (row,) = rows_of(tmp_path, "--points", 2000, "--precision", "fp32")
    assert row["same_points"] and row["difference_max_m"] < 1e-4 and 0 < row["difference_mean_m"]
    assert 0 < row["engine_ms"] < 1000 and 0 < row["engine_reusing_ms"] < 1000 and row["engine_flops"] > 1e5
    assert 0 < row["engine_memory_bytes"] < 1 << 30 and 0 < row["matmul_share"] < 1


def test_mistakes_are_told_before_any_work(logs: Path, tmp_path: Path, fake, monkeypatch):
    monkeypatch.undo()
    monkeypatch.delenv("ZEROFLOW_TEST_DATA", raising=False)
    monkeypatch.setattr(command, "_measure", lambda *_: pytest.fail("it began"))
    (tmp_path / "file").write_text("")
    lone = tmp_path / "lone" / "log" / "sensors" / "lidar"
    lone.mkdir(parents=True)
    (lone / "1.feather").write_text("")
    for arguments, sentence in [
        (["--size", "2x"], "--size '2x' is unknown; choose one of: 1x, xl"),
        (["--size", "1x", "--checkpoint", "a.ckpt"], "--size 1x is for seeded weights"),
        (["--checkpoint", tmp_path / "a.ckpt"], "no such file"),
        (["--precision", "fp8"], "precision 'fp8' is unknown"),
        (["--device", "abacus"], "device 'abacus' is unknown"),
        (["--data", tmp_path / "nowhere"], "there is no folder"),
        (["--data", tmp_path / "lone"], "has two sweeps; give another folder, or --points"),
        (["--points", 99, "--json", tmp_path / "file" / "a.json"], "cannot write"),
    ]:
        done = bench(*arguments)
        assert isinstance(done.exception, ZeroFlowError) and sentence in str(done.exception), done.output


def test_a_system_that_does_not_tell_its_memory_says_so(monkeypatch):
    def refuse(self):
        raise FileNotFoundError("no such file")

    monkeypatch.setattr(student_growth.Path, "read_text", refuse)
    with pytest.raises(ZeroFlowError, match="--frames needs /proc/self/statm"):
        check_growth(lambda *_: pytest.fail("it began"), 20, 5, "cpu")
