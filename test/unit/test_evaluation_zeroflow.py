"""ZeroFlow's own definition: by hand, and against a plain computation of it from the files of a log."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from av2.evaluation.scene_flow.constants import CATEGORY_TO_INDEX
from evaluation_cases import (
    AV2_LOG,
    METHODS,
    TRI_LOGS,
    Point,
    count,
    coverage,
    estimate_of,
    figures_of,
    just_above,
    just_below,
    mean_error,
    of_length,
    perfect,
    pooled_figures,
    scene_flow_truth,
    simulated_logs,
    truths_of,
    with_errors,
    zero,
)
from pyarrow import feather

from zeroflow_core.datasets.av2 import Log
from zeroflow_core.evaluation import zeroflow_paper
from zeroflow_core.evaluation.truth import Estimate, PairTruth, read_truth
from zeroflow_core.geometry import SE3

PARTS = ("fd", "fs", "bs")
MEMBERS = {
    "BACKGROUND": ["NONE", "BOLLARD", "CONSTRUCTION_BARREL", "CONSTRUCTION_CONE", "MOBILE_PEDESTRIAN_CROSSING_SIGN"]
    + ["SIGN", "STOP_SIGN"],
    "PEDESTRIAN": ["PEDESTRIAN", "STROLLER", "WHEELCHAIR", "OFFICIAL_SIGNALER"],
    "SMALL_MOVERS": ["BICYCLE", "BICYCLIST", "MOTORCYCLE", "MOTORCYCLIST", "WHEELED_DEVICE", "WHEELED_RIDER"],
    "LARGE_MOVERS": ["ARTICULATED_BUS", "BOX_TRUCK", "BUS", "LARGE_VEHICLE", "RAILED_VEHICLE", "REGULAR_VEHICLE"]
    + ["SCHOOL_BUS", "TRUCK", "TRUCK_CAB", "VEHICULAR_TRAILER", "TRAFFIC_LIGHT_TRAILER", "MESSAGE_BOARD_TRAILER"],
    "": ["ANIMAL", "DOG"],
}

# --- by hand: which points count, and where ----------------------------------------------------------------

FAST, SLOW = (0.0, 1.0, 0.0), (0.0, 0.02, 0.0)

POINTS = with_errors(
    [
        # The square of 70 m, edges included.
        Point((35.0, 0.0, 0.0), "bs"),
        Point((-35.0, 35.0, 0.0), "bs"),
        Point((0.0, -35.0, 0.0), "fd", "BUS", FAST),
        Point((just_above(35.0), 0.0, 0.0)),
        Point((just_above(-35.0), 0.0, 0.0)),
        Point((0.0, just_above(35.0), 0.0)),
        Point((0.0, just_above(-35.0), 0.0)),
        Point((48.0, 0.0, 0.0), "", "BUS", FAST),
        # The network's height: from 3 m below, which is in, to 3 m above, which is not.
        Point((1.0, 0.0, -3.0), "bs"),
        Point((1.0, 0.0, just_above(-3.0))),
        Point((1.0, 0.0, just_below(3.0)), "bs"),
        Point((1.0, 0.0, 3.0)),
        Point((1.0, 0.0, 10.0), "", "BUS", FAST),
        Point((1.0, 0.0, np.nan)),
        # Ground is left out, but a point without a known flow is not.
        Point((2.0, 0.0, 0.0), "", "BUS", FAST, ground=True),
        Point((2.0, 1.0, 0.0), "", ground=True),
        Point((2.0, 2.0, 0.0), "fs", "BUS", valid=False),
        Point((2.0, 3.0, 0.0), "bs", valid=False),
        # Signs are background, at any speed; their trailers are not, and animals are nowhere.
        Point((3.0, 0.0, 0.0), "bs", "STOP_SIGN", FAST),
        Point((3.0, 1.0, 0.0), "bs", residual=FAST),
        Point((3.0, 2.0, 0.0), "fd", "MESSAGE_BOARD_TRAILER", FAST),
        Point((3.0, 3.0, 0.0), "", "ANIMAL", FAST),
        Point((3.0, 4.0, 0.0), "", "DOG"),
        # Dynamic is from half a metre a second on, at ten sweeps a second.
        Point((4.0, 0.0, 0.0), "fd", "PEDESTRIAN", of_length(0.05)),
        Point((4.0, 1.0, 0.0), "fs", "PEDESTRIAN", (just_below(0.05), 0.0, 0.0)),
        Point((4.0, 2.0, 0.0), "fd", "BICYCLIST", (0.0, 0.051, 0.0)),
        # No flow is zero residual, and lowers the coverage.
        Point((5.0, 0.0, 0.0), "fd", "TRUCK", FAST, estimate=None),
        Point((5.0, 1.0, 0.0), "fs", "TRUCK", SLOW, estimate=None),
        Point((5.0, 2.0, 0.0), "bs", "SIGN", SLOW, estimate=None),
    ]
)


def test_which_points_count_and_where():
    figures = figures_of(zeroflow_paper, scene_flow_truth(POINTS), POINTS)
    assert figures["num_points"] == sum(point.part != "" for point in POINTS) == 16
    for part in PARTS:
        assert figures[f"num_{part}"] == count(POINTS, part)
        assert figures[part] == pytest.approx(mean_error(POINTS, part), abs=1e-7)
        assert figures[f"coverage_{part}"] == pytest.approx(coverage(POINTS, part))
    assert [count(POINTS, part) for part in PARTS] == [5, 3, 8]
    assert figures["coverage"] == pytest.approx(13 / 16)
    assert figures["three_way_epe"] == pytest.approx(np.mean([mean_error(POINTS, part) for part in PARTS]), abs=1e-7)


def test_ranges_are_in_the_first_vehicle_frame():
    points = [Point((35.0, 0.0, 2.9), "bs"), Point((36.0, 0.0, 0.0)), Point((0.0, 0.0, 3.1))]
    moved = SE3.from_yaw(0.8, np.array([5.0, 1.0, 0.5]))
    assert figures_of(zeroflow_paper, scene_flow_truth(points, moved), points)["num_points"] == 1


def test_a_method_that_says_less_is_scored_on_the_same_points():
    truth = scene_flow_truth(POINTS)
    silent = [replace(point, estimate=None) for point in POINTS]
    still = [replace(point, estimate=(0.0, 0.0, 0.0)) for point in POINTS]
    without, with_zero = figures_of(zeroflow_paper, truth, silent), figures_of(zeroflow_paper, truth, still)
    assert without["coverage"] == without["coverage_fd"] == 0 and with_zero["coverage"] == with_zero["coverage_bs"] == 1
    names = [name for name in without if not name.startswith("coverage")]
    assert [without[name] for name in names] == [with_zero[name] for name in names]


def test_every_category_has_its_class():
    assert sum(len(members) for members in MEMBERS.values()) == 31
    members = [(name, member) for name, names in MEMBERS.items() for member in names]
    points = with_errors(Point((1.0, k, 0.0), part, name) for k, (part, name) in enumerate(members))
    figures = figures_of(zeroflow_paper, scene_flow_truth(points), points)
    assert set(figures["classes"]) == set(MEMBERS) - {""}
    for name, of_class in figures["classes"].items():
        assert of_class["num_points"] == len(MEMBERS[name])
        assert of_class["epe"] == pytest.approx(mean_error(points, name), abs=1e-7)
    assert (figures["num_fd"], figures["num_fs"], figures["num_bs"], figures["num_points"]) == (0, 22, 7, 29)


# --- by hand: the other figures ----------------------------------------------------------------------------


def test_accuracies_are_of_dynamic_foreground_and_absolute():
    def off(residual, error):
        return tuple(np.add(residual, (0.0, 0.0, error)))

    errors = [0.0, 0.0499, 0.0501, 0.0999, 0.1001]
    fast = (0.0, 9.0, 0.0)  # of which 0.1 m is little
    points = [Point((1.0, k, 0.0), "fd", "BUS", fast, off(fast, error)) for k, error in enumerate(errors)]
    # An error of the threshold itself is no hit.
    points += [Point((2.0, k, 0.0), "fd", "BUS", of_length(length)) for k, length in enumerate((0.05, 0.1))]
    points += [Point((3.0, k, 0.0), "fs", "BUS") for k in range(9)] + [Point((4.0, 0.0, 0.0), "bs", residual=FAST)]
    figures = figures_of(zeroflow_paper, scene_flow_truth(points), points)
    assert figures["acc_strict"] == pytest.approx(2 / 7) and figures["acc_relax"] == pytest.approx(5 / 7)


def test_speeds_of_a_class():
    speeds = [0.0, just_below(0.05), 0.06, just_below(0.2), of_length(0.2), 0.5, 3.0]
    motions = [speed if np.ndim(speed) else (0.0, speed, 0.0) for speed in speeds]
    points = [
        Point((1.0, k, 0.0), "", category, motion, np.add(motion, (0.0, 0.0, 0.01 * (k + 1))))
        for category in ("STROLLER", "CONSTRUCTION_CONE")
        for k, motion in enumerate(motions)
    ]
    figures = figures_of(zeroflow_paper, scene_flow_truth(points), points)
    for name in ("PEDESTRIAN", "BACKGROUND"):
        rows = figures["classes"][name]["by_speed"]
        assert [(row["from_mps"], row["to_mps"]) for row in rows] == [(0.0, 0.5), (0.5, 2.0), (2.0, None)]
        assert [row["num_points"] for row in rows] == [2, 2, 3]
        assert [row["epe"] for row in rows] == pytest.approx([0.015, 0.035, 0.06], abs=1e-7)
        assert figures["classes"][name]["epe"] == pytest.approx(0.04, abs=1e-7)
    assert [row["epe"] for row in figures["classes"]["SMALL_MOVERS"]["by_speed"]] == [None] * 3
    assert figures["classes"]["LARGE_MOVERS"]["num_points"] == 0 and figures["classes"]["LARGE_MOVERS"]["epe"] is None


def test_pairs_are_pooled_by_their_points():
    a = [Point((1.0, k, 0.0), "fd", "BUS", FAST, (0.0, 1.08, 0.0)) for k in range(3)] + [Point((2.0, 0.0, 0.0), "bs")]
    b = [Point((1.0, 0.0, 0.0), "fd", "BUS", FAST, (0.0, 1.4, 0.0)), Point((3.0, 0.0, 0.0), "fs", "BUS", SLOW, None)]
    c = [Point((2.0, 0.0, 0.0), "bs", estimate=(0.2, 0.0, 0.0)), Point((60.0, 0.0, 0.0))]
    figures = pooled_figures(zeroflow_paper, [(scene_flow_truth(points), estimate_of(points)) for points in (a, b, c)])
    assert [figures[part] for part in PARTS] == pytest.approx([0.16, 0.02, 0.1], abs=1e-6)
    assert figures["three_way_epe"] == pytest.approx(0.28 / 3, abs=1e-6)
    assert (figures["num_points"], figures["num_fd"], figures["num_fs"], figures["num_bs"]) == (7, 4, 1, 2)
    assert figures["acc_relax"] == pytest.approx(3 / 4) and figures["coverage"] == pytest.approx(6 / 7)


def test_what_has_no_points_has_no_figures():
    figures = figures_of(zeroflow_paper, scene_flow_truth([]), [])
    assert figures["num_points"] == figures["num_fd"] == figures["num_fs"] == figures["num_bs"] == 0
    numbers = {name: value for name, value in figures.items() if name != "classes" and not name.startswith("num_")}
    assert set(numbers.values()) == {None}

    points = [Point((1.0, 0.0, 0.0), "fd", "BUS", FAST), Point((1.0, 1.0, 0.0), "bs")]
    figures = figures_of(zeroflow_paper, scene_flow_truth(points), points)
    assert figures["fs"] is None and figures["three_way_epe"] is None and figures["acc_strict"] == 0
    assert figures["fd"] == 1 and figures["bs"] == 0 and figures["coverage_fs"] is None


# --- a plain computation -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def logs(test_data, tmp_path_factory) -> list[Path]:
    simulated = simulated_logs(tmp_path_factory.mktemp("simulated"))
    return [*(test_data / name for name in (AV2_LOG, *TRI_LOGS)), *simulated]


def ground_of(log: Path, city: np.ndarray) -> np.ndarray:
    """By the map's nearest pixel: within 0.4 m of it, or lower."""
    (raster,) = (np.load(path).astype(np.float64) for path in (log / "map").glob("*_ground_height_surface____*.npy"))
    (sim2,) = (json.loads(path.read_text()) for path in (log / "map").glob("*img_Sim2_city.json"))
    turned = city[:, :2] @ np.reshape(sim2["R"], (2, 2)).T + sim2["t"]
    column, row = np.round(turned * sim2["s"]).astype(int).T
    inside = (0 <= row) & (row < raster.shape[0]) & (0 <= column) & (column < raster.shape[1])
    height = np.full(len(city), np.nan)
    height[inside] = raster[row[inside], column[inside]]
    return (np.abs(city[:, 2] - height) <= 0.4) | (city[:, 2] < height)


def plain(log: Path, truth: PairTruth, stamp_ns: int, estimate: Estimate) -> dict[str, np.ndarray]:
    """Per scored point: part, error and class. Poses, points, map are read anew; the labels are the truth's."""
    sweep = feather.read_table(log / "sensors" / "lidar" / f"{stamp_ns}.feather", memory_map=False)
    points = np.stack([sweep[axis].to_numpy().astype(np.float64) for axis in "xyz"], axis=1)
    ground = ground_of(log, Log(log).pose(stamp_ns).transform(points))
    x, y, z = points.T
    scored = (np.maximum(abs(x), abs(y)) <= 35) & (z >= -3) & (z < 3) & ~ground
    names = np.array(list(CATEGORY_TO_INDEX))[truth.scene_flow.classes]
    scored &= ~np.isin(names, MEMBERS[""])
    residual = truth.scene_flow.residual.astype(np.float64)
    dynamic = np.linalg.norm(residual, axis=1) * 10 >= 0.5
    background = np.isin(names, MEMBERS["BACKGROUND"])
    part = np.where(background, "bs", np.where(dynamic, "fd", "fs"))
    error = np.linalg.norm(estimate.residual - residual, axis=1)
    return {"part": part[scored], "error": error[scored], "names": names[scored], "covered": estimate.covered[scored]}


def agree(figures: dict, rows: list[dict[str, np.ndarray]]) -> None:
    """Every figure but the speeds of a class."""
    part, error, names, covered = (np.concatenate([row[key] for row in rows]) for key in rows[0])
    means = []
    for name in PARTS:
        own = part == name
        means.append(error[own].mean())
        assert figures[f"num_{name}"] == own.sum()
        assert figures[name] == pytest.approx(means[-1], abs=1e-6, rel=0)
        assert figures[f"coverage_{name}"] == pytest.approx(covered[own].mean())
    assert figures["three_way_epe"] == pytest.approx(np.mean(means), abs=1e-6, rel=0)
    assert figures["num_points"] == len(part) > 1000 and figures["coverage"] == pytest.approx(covered.mean())
    assert figures["acc_strict"] == pytest.approx((error[part == "fd"] < 0.05).mean(), abs=1e-6)
    assert figures["acc_relax"] == pytest.approx((error[part == "fd"] < 0.1).mean(), abs=1e-6)
    for name, of_class in figures["classes"].items():
        own = error[np.isin(names, MEMBERS[name])]
        assert of_class["num_points"] == len(own) == sum(row["num_points"] for row in of_class["by_speed"])
        assert of_class["epe"] == (pytest.approx(own.mean(), abs=1e-6, rel=0) if len(own) else None)


@pytest.mark.parametrize("method", METHODS)
def test_a_plain_computation_agrees(logs, method):
    every_pair, every_row = [], []
    for path in logs:
        pairs = [(truth, METHODS[method](truth)) for truth in truths_of(path)]
        stamps = Log(path).stamps_ns.tolist()
        rows = [plain(path, truth, stamp, estimate) for stamp, (truth, estimate) in zip(stamps, pairs, strict=False)]
        agree(pooled_figures(zeroflow_paper, pairs), rows)
        every_pair, every_row = every_pair + pairs, every_row + rows
    agree(pooled_figures(zeroflow_paper, every_pair), every_row)


# --- facts -------------------------------------------------------------------------------------------------


def test_the_real_pair(logs):
    truth = read_truth(Log(logs[0]), 0)
    figures = pooled_figures(zeroflow_paper, [(truth, zero(truth))])
    parts = [figures[name] for name in ("three_way_epe", "fd", "fs", "bs")]
    assert parts == pytest.approx([0.2237, 0.6645, 0.0057, 0.0008], abs=5e-5)
    assert [figures[f"num_{part}"] for part in PARTS] == [1_709, 6_085, 50_123] and figures["num_points"] == 57_917


def test_the_truth_scores_nothing(logs):
    for log in logs:
        truth = read_truth(Log(log), 0)
        figures = pooled_figures(zeroflow_paper, [(truth, perfect(truth))])
        assert figures["three_way_epe"] == figures["fd"] == figures["bs"] == 0 and figures["acc_strict"] == 1
