"""``zeroflow flow``: what it writes and prints for a pair of a log, a bag or two clouds, and mistakes in a sentence."""

from __future__ import annotations

import io
import json
import re
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_teacher import FLOW, REACH, stand_in
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from zeroflow_core.cli import flow as command
from zeroflow_core.cli import main
from zeroflow_core.datasets.av2 import Log
from zeroflow_core.datasets.bags import write_bag
from zeroflow_core.datasets.stored_flow import read_stored_flow
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.methods import Settings
from zeroflow_core.evaluation.run import evaluate
from zeroflow_core.geometry import SE3
from zeroflow_core.ground import Patchwork, mark_ground
from zeroflow_core.simulation.log import simulate_log

NAMES = ["av2-2023", "av2-2024", "zeroflow"]
PARTS = ["three_way_epe", "fd", "fs", "bs"]


def _run(*arguments: object):
    environment = {"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"}
    return CliRunner().invoke(main.app, ["flow", *map(str, arguments)], env=environment)


def _flow(*arguments: object) -> str:
    """What a call that goes well prints."""
    result = _run(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


def _rows(text: str) -> dict[str, str]:
    """The counts by their names."""
    found = (re.match(r"(points|with flow|moving|iterations|loss|time) +([\d.,]+)", line) for line in text.splitlines())
    return {match[1]: match[2] for match in found if match}


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A simulated log of three sweeps, where things move, in sensor/val."""
    root = tmp_path_factory.mktemp("data")
    simulate_log(root / "sensor" / "val" / "drive", seed=21, sweeps=3, scanner="small", scene="junction")
    return root


@pytest.fixture(scope="module")
def log(root) -> Log:
    return Log(root / "sensor" / "val" / "drive")


@pytest.fixture(scope="module")
def bags(log, tmp_path_factory) -> Path:
    """The log as bags: with odometry in whole/, without in still/, of one sweep in short/."""
    folder, mounting = tmp_path_factory.mktemp("bags"), {"lidar": SE3.identity()}
    sweeps = [replace(sweep, is_ground=None) for sweep in log.sweeps()]
    write_bag(folder / "whole", sweeps, mounting)
    write_bag(folder / "still", sweeps, mounting, odom=False, tf=False)
    write_bag(folder / "short", sweeps[:1], mounting)
    return folder


@pytest.fixture
def clouds(tmp_path) -> tuple[Path, Path]:
    """Two clouds in one frame, .npy: a block of points over a flat ground, and the same 0.3 m further."""
    rng = np.random.default_rng(5)
    ground = np.column_stack([rng.uniform(-20, 20, (3000, 2)), rng.normal(-0.3, 0.01, 3000)])
    block = rng.uniform((4, 4, 0), (8, 6, 1.5), (500, 3))
    for name, shift in (("a", 0.0), ("b", 0.3)):
        np.save(tmp_path / f"{name}.npy", np.concatenate([ground, block + [shift, 0, 0]]))
    return tmp_path / "a.npy", tmp_path / "b.npy"


# --- logs ---------------------------------------------------------------------------------------------------


def test_zero_flow_of_a_labelled_pair(root, log, tmp_path):
    out = tmp_path / "deep" / "out"
    said = _flow(root, "--method", "zero", "--out", out)
    vectors, is_valid = read_stored_flow(out / "flow.feather", len(log.sweep(0)))
    assert is_valid.all() and (vectors == 0).all()
    assert _names(out) == {"flow.feather", "flow.png", "errors.json", "errors.png"}
    assert said.startswith("log drive, pair 0, 100 ms, by zero flow (ego motion alone)\n")
    assert said.endswith(f"\n{out / 'flow.feather'}, with flow.png, errors.json, errors.png beside it\n")
    rows = _rows(said)
    assert (rows["points"], rows["with flow"], rows["moving"]) == (f"{len(vectors):,}",) * 2 + ("0",)
    assert "iterations" not in rows and "loss" not in rows


def test_errors_are_those_of_an_evaluation(root, log, tmp_path, monkeypatch):
    stand_in(monkeypatch)
    said = _flow(log.path, "--method", "nsfp", "--pair", 1, "--out", tmp_path / "out")
    told = json.loads((tmp_path / "out" / "errors.json").read_text())
    shutil.copytree(root, tmp_path / "data")
    for path in (tmp_path / "data").rglob(f"{log.stamps_ns[0]}.feather"):
        path.unlink()  # so that the second pair is all there is
    for method, there in (("nsfp", told), ("zero", told["zero_flow"])):
        judged = evaluate(Settings(tmp_path / "data", "val", method), tmp_path / method).metrics
        assert judged["run"]["num_pairs"] == 1
        assert {name: there[name] for name in NAMES} == {name: judged[name] for name in NAMES}
    assert told["pair"]["stamp_ns"] == log.stamps_ns[1] and told["pair"]["dt_s"] == pytest.approx(0.1)
    lines = [line.split() for line in said.splitlines()]
    for name in NAMES:
        ours, zero = told[name], told["zero_flow"][name]
        (at,) = [k for k, line in enumerate(lines) if line[:1] == [name]]
        assert lines[at][1:5] == [f"{ours[part]:.4f}" for part in PARTS]
        assert lines[at][5:] == [f"{ours['num_points']:,}", f"{100 * ours['coverage']:.1f}"]
        assert lines[at + 1] == ["zero", "flow", *(f"{zero[part]:.4f}" for part in PARTS)]
        assert ours["fd"] != zero["fd"] and ours["num_fd"] > 100


@pytest.mark.parametrize("method", ["nsfp", "fastnsf"])
def test_a_teacher_is_asked_as_told_and_what_it_says_is_kept(log, tmp_path, monkeypatch, method):
    fake = stand_in(monkeypatch)
    options = ("--method", method, "--teacher-config", "published", "--seed", 3, "--device", "cpu", "--pair", 1)
    said = _flow(log.path, *options, "--out", tmp_path)
    assert fake.asked == [(method, "published", "cpu", 3)]
    (pair,) = fake.seen
    sweep, raster = log.sweep(1), log.map_ground()
    np.testing.assert_array_equal(pair.pc0, sweep.points)
    np.testing.assert_array_equal(pair.is_ground0, mark_ground(sweep, raster).is_ground)

    near = (np.abs(sweep.points) <= REACH).all(axis=1) & ~pair.is_ground0
    vectors, is_valid = read_stored_flow(tmp_path / "flow.feather", len(sweep))
    np.testing.assert_array_equal(is_valid, near)
    np.testing.assert_array_equal(vectors[near], np.tile(np.float32(FLOW), (near.sum(), 1)))
    rows = _rows(said)
    assert (rows["points"], rows["with flow"], rows["moving"]) == (f"{len(sweep):,}", *[f"{near.sum():,}"] * 2)
    assert (rows["iterations"], rows["loss"]) == ("384", "0.01235") and "time" in rows
    assert f"{pair.is_ground0.sum():,} ground, {(~near & ~pair.is_ground0).sum():,} out of range" in said
    about = json.loads((tmp_path / "errors.json").read_text())["pair"]
    assert (about["iterations"], about["loss"]) == (384, 0.01234567)
    assert about["method"] == f"fake {method}, published, seed 3, ground: map"


def test_a_teachers_ground_is_the_maps_or_else_patchworks(log, tmp_path, monkeypatch):
    shutil.copytree(log.path, tmp_path / "unmapped", ignore=lambda _, names: [name for name in names if name == "map"])
    by_patchwork = mark_ground(log.sweep(0), Patchwork()).is_ground
    by_map = mark_ground(log.sweep(0), log.map_ground()).is_ground
    assert (by_map != by_patchwork).any()
    for path, ground, expected in (
        (log.path, "auto", by_map),
        (log.path, "map", by_map),
        (log.path, "patchwork", by_patchwork),
        (log.path, "none", np.zeros_like(by_map)),
        (tmp_path / "unmapped", "auto", by_patchwork),
    ):
        fake = stand_in(monkeypatch)
        said = _flow(path, "--ground", ground, "--out", tmp_path / "out")
        np.testing.assert_array_equal(fake.seen[0].is_ground0, expected)
        rule = "none" if not expected.any() else "map" if expected is by_map else "patchwork"
        assert said.splitlines()[0].endswith(f", ground: {rule}")
    result = _run(tmp_path / "unmapped", "--ground", "map", "--out", tmp_path / "out")
    assert "unmapped has no map with ground heights; choose --ground patchwork" in str(result.exception)


def test_pictures_show_what_moves_and_what_is_wrong(log, tmp_path, monkeypatch):
    for method in ("zero", "nsfp"):
        stand_in(monkeypatch)
        _flow(log.path, "--method", method, "--out", tmp_path / method)

    def coloured(path: Path) -> int:
        with Image.open(path) as image:
            assert image.format == "PNG" and image.size == (1200, 1200)
            pixels = np.asarray(image.convert("RGB")).astype(int)[200:]  # below the legend
        return int((np.ptp(pixels, axis=2) > 100).sum())

    assert coloured(tmp_path / "zero" / "flow.png") == 0
    assert coloured(tmp_path / "nsfp" / "flow.png") > 1000
    assert 100 < coloured(tmp_path / "zero" / "errors.png") < coloured(tmp_path / "nsfp" / "errors.png")


def test_pictures_and_table_name_what_they_show(log, tmp_path, monkeypatch):
    stand_in(monkeypatch)
    lines = []
    monkeypatch.setattr("zeroflow_core.cli.flow_result.draw_title", lambda image, view, *words: lines.extend(words))
    said = _flow(log.path, "--out", tmp_path)
    assert lines == ["Error of log drive, pair 0", "fake nsfp, fast, seed 0, ground: map"]
    assert re.search("^ *definition, metres +three-way +FD ", said, re.MULTILINE)


@pytest.mark.parametrize("failed", [False, True])
def test_a_pair_without_an_estimate_is_told_and_its_flow_is_defined(log, tmp_path, monkeypatch, failed):
    stand_in(monkeypatch, problem="pc1 holds nothing but ground", failed=failed)
    result = _run(log.path, "--out", tmp_path)
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert result.stderr == "no point has a flow: pc1 holds nothing but ground\n"
    vectors, is_valid = read_stored_flow(tmp_path / "flow.feather", len(log.sweep(0)))
    assert not is_valid.any() and np.isnan(vectors).all()  # stored as zeros, read as nothing
    rows = _rows(result.stdout)
    assert (rows["with flow"], rows["moving"], rows["iterations"]) == ("0", "0", "0") and "loss" not in rows
    assert re.search(r"[\d,]+ ground, [\d,]+ out of range, [\d,]+ without estimate", result.stdout)
    told = json.loads((tmp_path / "errors.json").read_text())
    assert told["pair"]["loss"] is None
    assert all(told[name]["three_way_epe"] == told["zero_flow"][name]["three_way_epe"] for name in NAMES)
    assert all(told[name]["coverage"] == 0 for name in NAMES)


def test_a_real_teacher_of_a_few_iterations(log, tmp_path, monkeypatch):
    from zeroflow_core.nsfp import teacher

    hasty = replace(teacher.teacher_config("nsfp", "published"), iterations=3)
    monkeypatch.setattr(teacher, "teacher_config", lambda method, name: hasty)
    texts = [_flow(log.path, "--device", "cpu", "--seed", 1, "--out", tmp_path / name) for name in ("one", "other")]
    assert _rows(texts[0])["iterations"] == "3" and float(_rows(texts[0])["loss"]) > 0
    stored = [read_stored_flow(tmp_path / name / "flow.feather", len(log.sweep(0)))[0] for name in ("one", "other")]
    np.testing.assert_array_equal(*stored)
    covered = np.isfinite(stored[0]).all(axis=1)
    assert 1000 < covered.sum() < len(covered) and np.abs(stored[0][covered]).max() < 1


def test_the_same_command_line_serves_all_methods(log, tmp_path, monkeypatch):
    options = ("--teacher-config", "published", "--seed", 2, "--checkpoint", "default", "--ground", "map")
    options += ("--engine", "reference", "--precision", "bf16")
    for method in command.METHODS:
        stand_in(monkeypatch)
        _flow(log.path, "--method", method, "--device", "cpu", *options, "--out", tmp_path / method)
        assert len(_names(tmp_path / method)) == 4


# --- bags and clouds ----------------------------------------------------------------------------------------


def test_a_bag_gives_what_its_log_gives(log, bags, tmp_path, monkeypatch):
    fake = stand_in(monkeypatch)
    said = _flow(bags / "whole", "--pair", 1, "--out", tmp_path / "bag")
    _flow(log.path, "--pair", 1, "--ground", "patchwork", "--out", tmp_path / "log")
    of_bag, of_log = fake.seen
    np.testing.assert_array_equal(of_bag.pc0, of_log.pc0)
    np.testing.assert_allclose(of_bag.pc1, of_log.pc1, atol=1e-5)
    np.testing.assert_array_equal(of_bag.is_ground0, of_log.is_ground0)
    assert said.startswith("bag whole, pair 1, 100 ms, by ") and "av2-2023" not in said
    assert _names(tmp_path / "bag") == {"flow.feather", "flow.png"}
    topics = ("--topic", "/lidar/points", "--odometry", "/odom")
    _flow(bags / "whole" / "whole.db3", "--method", "zero", *topics, "--out", tmp_path / "bag")


def test_two_clouds_are_taken_as_they_are(clouds, tmp_path, monkeypatch):
    fake = stand_in(monkeypatch)
    said = _flow(*clouds, "--out", tmp_path / "out")
    (pair,) = fake.seen
    np.testing.assert_array_equal(pair.pc0, np.load(clouds[0]).astype(np.float32))
    np.testing.assert_array_equal(pair.pc1, np.load(clouds[1]).astype(np.float32))
    assert not pair.is_ground0.any() and not pair.is_ground1.any() and pair.dt == pytest.approx(0.1)
    assert said.startswith("a.npy and b.npy, 100 ms, by fake nsfp, fast, seed 0, ground: none\n")
    _flow(*clouds, "--ground", "patchwork", "--interval", 2, "--out", tmp_path / "out")
    pair = fake.seen[1]
    assert 2000 < pair.is_ground0[:3000].sum() and pair.is_ground0[3000:].sum() < 100 and pair.dt == 2.0


def test_speed_is_by_the_interval(clouds, tmp_path, monkeypatch):
    stand_in(monkeypatch)  # whose points go 0.61 m
    for interval, moving in ((0.1, "3,500"), (1.2, "3,500"), (1.3, "0")):
        said = _flow(*clouds, "--interval", interval, "--out", tmp_path / "out")
        assert _rows(said)["moving"] == moving


@pytest.mark.parametrize("engine, precision", [("fast", "fp32"), ("reference", "bf16")])
def test_the_student_says_what_infer_says(clouds, tmp_path, engine, precision):
    how = ("--device", "cpu", "--engine", engine, "--precision", precision)
    said = _flow(*clouds, "--method", "student", *how, "--out", tmp_path / "out")
    assert f"student default ({engine}, {precision}, cpu, ground: none, verified)" in said
    arguments = ["--pc0", clouds[0], "--pc1", clouds[1], *how, "--out", tmp_path / "flow.npz"]
    result = CliRunner().invoke(main.app, ["infer", *map(str, arguments)])
    said = "".join(result.output.splitlines())
    assert result.exit_code == 0 and f"(default, {engine}, {precision}, cpu, verified)" in said
    with np.load(tmp_path / "flow.npz") as inferred:
        vectors, is_valid = read_stored_flow(tmp_path / "out" / "flow.feather", len(inferred["flow"]))
        np.testing.assert_array_equal(vectors, inferred["flow"])
        np.testing.assert_array_equal(is_valid, inferred["valid"])


def test_a_student_that_sees_no_point_is_no_success(clouds, tmp_path):
    far = tmp_path / "far.npy"
    np.save(far, np.load(clouds[0]) + [1000.0, 0.0, 0.0])
    result = _run(far, far, "--method", "student", "--device", "cpu", "--out", tmp_path / "out")
    assert result.exit_code == 1 and result.stderr.startswith("no point has a flow: ")
    assert (tmp_path / "out" / "flow.feather").is_file()


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_numbers_beyond_all_measure_are_points_like_others(clouds, tmp_path, monkeypatch):
    for path, huge in zip(clouds, (1e300, 3e38), strict=True):  # beyond a float32, and beyond one in pixels
        cloud = np.load(path)
        cloud[:3] = np.diag([huge, -huge, huge])
        np.save(path, cloud)
    for ground, (first, second) in (("none", clouds), ("none", clouds[::-1]), ("patchwork", clouds)):
        stand_in(monkeypatch)
        said = _flow(first, second, "--ground", ground, "--out", tmp_path / "out")
        assert _rows(said)["points"] == "3,500"


def test_the_case_of_a_suffix_does_not_matter(clouds, tmp_path, monkeypatch):
    fake = stand_in(monkeypatch)
    upper = [path.rename(path.with_suffix(".NPY")) for path in clouds]
    _flow(*upper, "--out", tmp_path / "out")
    assert not fake.seen[0].is_ground0.any()


@pytest.mark.parametrize("method", ["zero", "student", "nsfp"])
def test_a_cloud_without_a_point(tmp_path, method):
    np.save(tmp_path / "some.npy", np.random.default_rng(1).uniform(-5, 5, (50, 3)))
    np.save(tmp_path / "none.npy", np.zeros((0, 3)))
    for names in (("none", "some"), ("some", "none"), ("none", "none")):
        clouds = [tmp_path / f"{name}.npy" for name in names]
        result = _run(*clouds, "--method", method, "--device", "cpu", "--out", tmp_path / "out")
        assert result.exit_code == (method == "nsfp" or names[0] == "none")
        assert not isinstance(result.exception, ZeroFlowError)
        count = len(np.load(clouds[0]))
        assert _rows(result.stdout)["points"] == str(count)
        read_stored_flow(tmp_path / "out" / "flow.feather", count)


# --- the folder and the screen ------------------------------------------------------------------------------


def test_an_earlier_pairs_errors_do_not_stay(log, bags, tmp_path):
    _flow(log.path, "--method", "zero", "--out", tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    _flow(bags / "whole", "--method", "zero", "--out", tmp_path / "out")
    assert _names(tmp_path / "out") == {"flow.feather", "flow.png", "notes.txt"}


def test_what_a_killed_call_left_goes(log, tmp_path):
    left, of_others = f".{'0af3' * 4}.flow.png", f".{'0af3' * 4}.pairs.csv"
    for name in (left, of_others):
        (tmp_path / name).write_text("half")
    _flow(log.path, "--method", "zero", "--out", tmp_path)
    assert left not in _names(tmp_path) and of_others in _names(tmp_path)


def test_stopped_it_says_so_in_a_word(log, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    fake = stand_in(monkeypatch)
    monkeypatch.setattr(fake, "label_one", stop)
    result = _run(log.path, "--out", tmp_path)
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "Stopped.\n")


def test_labels_that_are_damaged_do_not_keep_the_flow_back(log, tmp_path):
    shutil.copytree(log.path, tmp_path / "drive")
    labels = tmp_path / "drive" / "flow_labels" / f"{log.stamps_ns[0]}.feather"
    labels.write_bytes(b"damaged")
    result = _run(tmp_path / "drive", "--method", "zero", "--out", tmp_path / "out")
    assert result.exit_code == 0 and _names(tmp_path / "out") == {"flow.feather", "flow.png"}
    assert result.stderr.startswith("errors are not told: ") and labels.name in result.stderr


def test_seconds_go_by_on_a_terminal_and_nowhere_else(monkeypatch):
    for terminal in (True, False):
        screen = io.StringIO()
        console = Console(file=screen, force_terminal=terminal, width=80, no_color=True)
        monkeypatch.setattr(command, "Console", lambda stderr, console=console: console)
        with command._spinner("Optimising"):
            pass
        assert ("Optimising 0:00:00" in screen.getvalue()) == terminal
        assert terminal or screen.getvalue().strip() == ""


def test_iterations_go_by_on_a_terminal_a_few_times_a_second(monkeypatch):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, no_color=True)
    monkeypatch.setattr(command, "Console", lambda stderr: console)
    with command._spinner("Optimising") as show:
        show(1, 0.5)
        show(2, 0.25)  # too soon after the first one
    assert "iteration 1, loss 0.5000 0:00:00" in screen.getvalue() and "iteration 2" not in screen.getvalue()


def test_a_teachers_iterations_reach_the_screen(log, tmp_path, monkeypatch):
    @contextmanager
    def spinner(doing):
        yield lambda *iteration: shown.append(iteration)

    shown = []
    stand_in(monkeypatch)
    monkeypatch.setattr(command, "_spinner", spinner)
    _flow(log.path, "--out", tmp_path)
    assert shown == [(384, 0.01234567)]


@pytest.mark.parametrize(
    "arguments, says",
    [
        (("{log}", "--method", "magic"), "method 'magic' is unknown; choose one of: nsfp, fastnsf, student, zero$"),
        (("{log}", "--method", "labels"), "method 'labels' is unknown"),
        (("{log}", "--teacher-config", "slow"), "'slow' is unknown; choose one of: fast, published"),
        (("{log}", "--ground", "sea"), "ground rule 'sea' is unknown"),
        (("{log}", "--device", "tpu"), "device 'tpu' is unknown"),
        (("{log}", "--method", "student", "--engine", "steam"), "engine 'steam' is unknown; choose one of: fast, ref"),
        (("{log}", "--method", "student", "--checkpoint", "gone.ckpt"), "gone.ckpt: no such file"),
        (("{log}", "--pair", "2"), "drive has 3 sweeps, so its last pair is --pair 1; there is no pair 2"),
        (("{log}", "--topic", "/points"), "--topic and --odometry are of a bag, and .*drive is none"),
        (("{log}", "--interval", "0.1"), "--interval is of two .npy clouds"),
        (("{log}", "{log}"), "is no source of one pair; give the folder of an AV2 log, a rosbag2, or two clouds"),
        (("{bags}",), "no AV2 log in .*bags"),
        (("",), "an empty name is no source of a pair"),
        (("nowhere",), "there is no nowhere; give the folder of an AV2 log, a rosbag2, or two clouds"),
        (("{tmp}/text.txt",), "text.txt is neither a log nor a bag"),
        (("{bags}/whole", "--pair", "2"), "whole has 3 sweeps, so its last pair is --pair 1"),
        (("{bags}/short",), "short has 1 sweep; flow needs two"),
        (
            ("{bags}/still",),
            "still have no ego motion: it has neither nav_msgs/msg/Odometry nor TF around",
        ),
        (("{bags}/whole", "--topic", "/other"), "has no sensor_msgs/msg/PointCloud2 topic /other; its topics: "),
        (("{bags}/whole", "--odometry", "/other"), "has no nav_msgs/msg/Odometry topic /other"),
        (("{a}",), "a.npy is no source of one pair"),
        (("{a}", "{tmp}/gone.npy"), "gone.npy: no such file"),
        (("{a}", "{tmp}/text.npy"), "text.npy: not a readable .npy file"),
        (("{a}", "{tmp}/wide.npy"), r"wide.npy: needs numbers of shape \(N, 3\), found float64 \(7, 4\)"),
        (("{a}", "{log}"), "is no source of one pair"),
        (("{a}", "{b}", "--pair", "0"), "--pair is of a log or a bag"),
        (("{a}", "{b}", "--ground", "map"), "only AV2 logs have a map with ground heights; choose --ground patchwork"),
        (("{a}", "{b}", "--interval", "0"), "--interval 0.0 is no time between two clouds"),
        (("{a}", "{b}", "--interval", "nan"), "--interval nan is no time between two clouds"),
    ],
)
def test_mistakes_are_told_in_a_sentence_and_leave_nothing(log, bags, clouds, tmp_path, arguments, says):
    (tmp_path / "text.txt").write_text("text")
    (tmp_path / "text.npy").write_text("text")
    np.save(tmp_path / "wide.npy", np.zeros((7, 4)))
    places = {"log": log.path, "bags": bags, "tmp": tmp_path, "a": clouds[0], "b": clouds[1]}
    result = _run(*(argument.format(**places) for argument in arguments), "--out", tmp_path / "out")
    assert result.exit_code == 1 and isinstance(result.exception, ZeroFlowError)
    assert re.search(says, str(result.exception)) and "\n" not in str(result.exception)
    assert result.stdout == "" and not (tmp_path / "out").exists()


def test_a_seed_beyond_what_torch_takes_is_refused(log, tmp_path):
    result = _run(log.path, "--seed", 2**63, "--out", tmp_path / "out")
    assert result.exit_code == 2 and "--seed" in result.stderr and not (tmp_path / "out").exists()


def test_a_folder_of_several_logs_is_no_pair(root, tmp_path):
    for name in ("one", "other"):
        shutil.copytree(root / "sensor" / "val" / "drive", tmp_path / "logs" / name)
    result = _run(tmp_path / "logs", "--out", tmp_path / "out")
    assert "logs holds 2 logs; give one of them, such as " in str(result.exception)


@pytest.mark.parametrize(
    "change, says",
    [
        ({"world_SE3_ego": None}, "clouds 1 and 2 of the bag .*whole have no ego motion: it has neither"),
        ({"stamp_ns": 7}, "clouds 1 and 2 of the bag .*whole have the same stamp, 7 ns"),
    ],
)
def test_clouds_of_a_bag_that_make_no_pair(log, bags, tmp_path, monkeypatch, change, says):
    def sweeps(path, topic, odometry):
        return (replace(sweep, **change) for sweep in log.sweeps())

    monkeypatch.setattr("zeroflow_core.datasets.bags.read_sweeps", sweeps)
    result = _run(bags / "whole", "--pair", 1, "--out", tmp_path / "out")
    assert isinstance(result.exception, ZeroFlowError) and re.search(says, str(result.exception))


def test_the_folder_must_be_one(log, tmp_path, monkeypatch):
    """It is found out before the work, even where a folder is there that no file can be made in."""
    fake = stand_in(monkeypatch)
    (tmp_path / "file").write_text("")
    for out, says in (
        (Path("/proc/self/task"), "cannot be written to: No such file or directory"),
        (tmp_path / "file", "is a file; give the folder to write to"),
        (tmp_path / "file" / "below", "cannot be made: Not a directory"),
    ):
        result = _run(log.path, "--out", out)
        assert isinstance(result.exception, ZeroFlowError) and str(result.exception) == f"--out {out} {says}"
    assert not fake.seen
