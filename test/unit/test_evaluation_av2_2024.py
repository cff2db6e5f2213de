"""The definition of the AV2 challenge of 2024: by hand, and against bucketed-scene-flow-eval, the challenge's own."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from evaluation_cases import (
    AV2_LOG,
    METHODS,
    NO_CHALLENGE_JUDGE,
    TRI_LOGS,
    Point,
    count,
    coverage,
    estimate_of,
    figures_of,
    just_below,
    mean_error,
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
from zeroflow_core.evaluation import av2_2024
from zeroflow_core.evaluation.truth import Estimate, PairTruth
from zeroflow_core.geometry import SE3
from zeroflow_core.simulation.log import simulate_log

PARTS = ("fd", "fs", "bs")
CLASSES = ("BACKGROUND", "CAR", "OTHER_VEHICLES", "PEDESTRIAN", "WHEELED_VRU")

# --- by hand: which points count, and where ----------------------------------------------------------------

FAST, SLOW = (0.0, 1.02, 0.0), (0.0, 0.02, 0.0)
AHEAD = SE3(np.eye(3), np.array([1.0, -0.5, 0.25]))  # from the second pose to the first


def seen_at(x: float, y: float, z: float) -> tuple[float, float, float]:
    """Where a point lies in the first vehicle frame that lies at x, y, z in the second."""
    return (x + 1.0, y - 0.5, z + 0.25)


POINTS = with_errors(
    [
        # Less than 35 m ahead, behind and to the sides, in the second frame.
        Point(seen_at(just_below(35.0), 0.0, 0.0), "bs"),
        Point(seen_at(just_below(-35.0), just_below(35.0), 0.0), "bs"),
        Point(seen_at(0.0, just_below(-35.0), 0.0), "bs"),
        Point(seen_at(35.0, 0.0, 0.0)),
        Point(seen_at(-35.0, 0.0, 0.0)),
        Point(seen_at(0.0, 35.0, 0.0)),
        Point(seen_at(0.0, -35.0, 0.0)),
        Point(seen_at(47.0, 0.0, 0.0), category="BUS", residual=FAST),
        Point(seen_at(49.0, 0.0, 0.0), category="BUS", residual=FAST),
        # Less than 2.5 m up and down, there too.
        Point(seen_at(1.0, 0.0, just_below(2.5)), "bs"),
        Point(seen_at(1.0, 0.0, just_below(-2.5)), "fd", "BUS", FAST),
        Point(seen_at(1.0, 0.0, 2.5)),
        Point(seen_at(1.0, 0.0, -2.5)),
        Point(seen_at(1.0, 0.0, 2.6), category="BUS", residual=FAST),
        Point((1.0, 0.0, np.nan)),
        # Ground and points without a known flow are left out.
        Point((1.0, 0.0, 0.0), "", "BUS", FAST, ground=True),
        Point((1.0, 1.0, 0.0), "", ground=True),
        Point((2.0, 0.0, 0.0), "", "BUS", FAST, valid=False),
        Point((2.0, 1.0, 0.0), "", valid=False),
        # Foreground is what the four classes of road users hold; signs, their trailers and animals are nowhere.
        Point((3.0, 0.0, 0.0), "fs", "REGULAR_VEHICLE"),
        Point((3.0, 1.0, 0.0), "fs", "SCHOOL_BUS", SLOW),
        Point((3.0, 2.0, 0.0), "fd", "WHEELCHAIR", FAST),
        Point((3.0, 3.0, 0.0), "fd", "WHEELED_RIDER", FAST),
        Point((4.0, 0.0, 0.0), "", "STOP_SIGN"),
        Point((4.0, 1.0, 0.0), "", "TRAFFIC_LIGHT_TRAILER", FAST),
        Point((4.0, 2.0, 0.0), "", "DOG", FAST),
        # Background that moves is scored in its buckets, but in no part.
        Point((5.0, 0.0, 0.0), "bd", residual=FAST),
        # The border of moving is 5 cm in the three parts.
        Point((6.0, 0.0, 0.0), "fd", "TRUCK", (0.05, 0.0, 0.0)),
        Point((6.0, 1.0, 0.0), "fs", "TRUCK", (just_below(0.05), 0.0, 0.0)),
        Point((6.0, 2.0, 0.0), "bd", residual=(0.0, 0.05, 0.0)),
        Point((6.0, 3.0, 0.0), "bs", residual=(0.0, just_below(0.05), 0.0)),
        # No flow is zero residual, and lowers the coverage.
        Point((7.0, 0.0, 0.0), "fd", "BUS", FAST, estimate=None),
        Point((7.0, 1.0, 0.0), "fs", "BUS", SLOW, estimate=None),
        Point((7.0, 2.0, 0.0), "bs", residual=SLOW, estimate=None),
        Point((7.0, 3.0, 0.0), "bd", residual=FAST, estimate=None),
    ]
)


def test_which_points_count_and_where():
    figures = figures_of(av2_2024, scene_flow_truth(POINTS, AHEAD), POINTS)
    assert figures["num_points"] == sum(point.part != "" for point in POINTS) == 18
    for part in PARTS:
        assert figures[f"num_{part}"] == count(POINTS, part)
        assert figures[part] == pytest.approx(mean_error(POINTS, part), abs=1e-7)
        assert figures[f"coverage_{part}"] == pytest.approx(coverage(POINTS, part))
    assert [count(POINTS, part) for part in PARTS] == [5, 4, 6]
    assert figures["coverage"] == pytest.approx(14 / 18)
    assert figures["three_way_epe"] == pytest.approx(np.mean([mean_error(POINTS, part) for part in PARTS]), abs=1e-7)


def test_the_square_turns_with_the_second_frame():
    eighth = SE3.from_yaw(np.pi / 4, np.zeros(3))
    points = [
        Point((30.0, 30.0, 0.0)),  # 42 m ahead or to the side
        Point((40.0, 0.0, 0.0), "bs"),  # 28 m ahead and 28 m to the side
        Point((0.0, -48.5, 0.0), "bs"),
    ]
    assert figures_of(av2_2024, scene_flow_truth(points, eighth), points)["num_points"] == 2


def test_a_method_that_says_less_is_scored_on_the_same_points():
    truth = scene_flow_truth(POINTS, AHEAD)
    silent = [replace(point, estimate=None) for point in POINTS]
    still = [replace(point, estimate=(0.0, 0.0, 0.0)) for point in POINTS]
    without, with_zero = figures_of(av2_2024, truth, silent), figures_of(av2_2024, truth, still)
    assert without["coverage"] == without["coverage_fd"] == 0 and with_zero["coverage"] == with_zero["coverage_bs"] == 1
    names = [name for name in without if not name.startswith("coverage")]
    assert [without[name] for name in names] == [with_zero[name] for name in names]
    assert without["mean_dynamic"] == pytest.approx(1)  # no motion is an error of one's whole speed


MEMBERS = {
    "BACKGROUND": ["NONE"],
    "CAR": ["REGULAR_VEHICLE"],
    "OTHER_VEHICLES": ["ARTICULATED_BUS", "BOX_TRUCK", "BUS", "LARGE_VEHICLE", "RAILED_VEHICLE", "SCHOOL_BUS", "TRUCK"]
    + ["TRUCK_CAB", "VEHICULAR_TRAILER"],
    "PEDESTRIAN": ["OFFICIAL_SIGNALER", "PEDESTRIAN", "STROLLER", "WHEELCHAIR"],
    "WHEELED_VRU": ["BICYCLE", "BICYCLIST", "MOTORCYCLE", "MOTORCYCLIST", "WHEELED_DEVICE", "WHEELED_RIDER"],
    "": ["ANIMAL", "DOG", "BOLLARD", "CONSTRUCTION_BARREL", "CONSTRUCTION_CONE", "MOBILE_PEDESTRIAN_CROSSING_SIGN"]
    + ["SIGN", "STOP_SIGN", "MESSAGE_BOARD_TRAILER", "TRAFFIC_LIGHT_TRAILER"],
}


def test_every_category_has_its_class():
    assert sum(len(members) for members in MEMBERS.values()) == 31
    members = [(name, member) for name, names in MEMBERS.items() for member in names]
    points = with_errors(Point((1.0, k, 0.0), part, name) for k, (part, name) in enumerate(members))
    figures = figures_of(av2_2024, scene_flow_truth(points), points)
    assert set(figures["classes"]) == set(CLASSES)
    for name in CLASSES:
        assert figures["classes"][name]["num_points"] == len(MEMBERS[name])
        assert figures["classes"][name]["static"] == pytest.approx(mean_error(points, name), abs=1e-7)
        assert figures["classes"][name]["dynamic"] is None
    assert figures["num_points"] == 21 and (figures["num_fs"], figures["num_bs"]) == (20, 1)


# --- by hand: the buckets ----------------------------------------------------------------------------------


def cars(*rows: tuple[float, float], category: str = "REGULAR_VEHICLE") -> list[Point]:
    """Points of the given speed in metres per pair, and error in metres."""
    return [Point((1.0, k % 30, 0.0), "", category, (v, 0.0, 0.0), (v, 0.0, e)) for k, (v, e) in enumerate(rows)]


def test_there_are_fifty_buckets_to_20_mps_and_one_above():
    speeds = [0.0, 0.0399, 0.0401, 0.0799, 0.0801, 0.5, just_below(1.0), 1.0, 1.0399, 1.98, just_below(2.0), 2.0, 9.0]
    points = cars(*((speed, 0.01 * (k + 1)) for k, speed in enumerate(speeds)))
    buckets = figures_of(av2_2024, scene_flow_truth(points), points)["classes"]["CAR"]["buckets"]
    expected = {  # from, to in m/s: the points in it
        (0.0, 0.4): [0, 1],
        (0.4, 0.8): [2, 3],
        (0.8, 1.2): [4],
        (4.8, 5.2): [5],
        (9.6, 10.0): [6],
        (10.0, 10.4): [7, 8],
        (19.6, 20.0): [9, 10],
        (20.0, None): [11, 12],
    }
    assert [bucket["num_points"] for bucket in buckets] == [len(rows) for rows in expected.values()]
    for bucket, ((start, end), rows) in zip(buckets, expected.items(), strict=True):
        assert bucket["from_mps"] == pytest.approx(start, abs=1e-9)
        assert bucket["to_mps"] is None if end is None else bucket["to_mps"] == pytest.approx(end, abs=1e-9)
        epe, speed = np.mean([0.01 * (k + 1) for k in rows]), np.mean([speeds[k] for k in rows])
        assert bucket["epe"] == pytest.approx(epe, abs=1e-7)
        assert bucket["speed"] == pytest.approx(10 * speed, abs=1e-6)
        if start > 0:
            assert bucket["normalised"] == pytest.approx(epe / speed, abs=1e-6)


def test_every_edge_between_buckets_is_where_it_belongs():
    speeds = [0.04 * k + offset for k in range(1, 51) for offset in (-1e-5, 1e-5)]
    points = [replace(point, category="BUS") for point in cars(*((speed, 0.0) for speed in speeds))]
    buckets = figures_of(av2_2024, scene_flow_truth(points), points)["classes"]["OTHER_VEHICLES"]["buckets"]
    assert [bucket["num_points"] for bucket in buckets] == [1, *[2] * 49, 1]
    edges = [bucket["from_mps"] for bucket in buckets]
    np.testing.assert_allclose(edges, 0.4 * np.arange(51), atol=1e-9)
    assert [bucket["to_mps"] for bucket in buckets] == [*edges[1:], None]


def test_scores_of_classes_and_their_means():
    points = [
        *cars((0.0, 0.02), (0.01, 0.04)),  # static: 0.03
        *cars((0.5, 0.1), (0.51, 0.1), (0.51, 0.13)),  # 0.11 of 0.50666…
        *cars((1.5, 0.9)),  # 0.6
        *cars((0.1, 0.1), (0.1, 0.3), category="PEDESTRIAN"),  # 2
        *cars((0.0, 0.01), (0.0, 0.01), (0.0, 0.01), category="NONE"),  # static: 0.01
        *cars((0.2, 0.05), category="NONE"),  # 0.25
        *cars((0.0, 5.0), (3.0, 5.0), category="DOG"),
    ]
    figures = figures_of(av2_2024, scene_flow_truth(points), points)
    classes = figures["classes"]
    car = (0.11 / np.mean([0.5, 0.51, 0.51]) + 0.6) / 2  # a mean over buckets, not over their points
    assert classes["CAR"]["static"] == pytest.approx(0.03, abs=1e-7)
    assert classes["CAR"]["dynamic"] == pytest.approx(car, abs=1e-6)
    assert classes["PEDESTRIAN"]["static"] is None
    assert classes["PEDESTRIAN"]["dynamic"] == pytest.approx(2, abs=1e-6)
    assert classes["BACKGROUND"]["static"] == pytest.approx(0.01, abs=1e-7)
    assert classes["BACKGROUND"]["dynamic"] == pytest.approx(0.25, abs=1e-6)
    for name in ("OTHER_VEHICLES", "WHEELED_VRU"):
        assert (classes[name]["static"], classes[name]["dynamic"]) == (None, None)
        assert classes[name]["num_points"] == 0 and classes[name]["buckets"] == []
    assert figures["mean_dynamic"] == pytest.approx((car + 2 + 0.25) / 3, abs=1e-6)
    assert figures["mean_static"] == pytest.approx((0.03 + 0.01) / 2, abs=1e-7)
    assert [classes[name]["num_points"] for name in CLASSES] == [4, 6, 0, 2, 0] and figures["num_points"] == 12


def test_pairs_are_pooled_by_their_points():
    first = cars((0.5, 0.1), (0.5, 0.1), (0.5, 0.1))
    second = [*cars((0.51, 0.5)), *cars((0.0, 0.3), category="NONE")]
    third = [*cars((0.0, 0.1), (0.0, 0.1), category="NONE"), *cars((0.02, 0.01), category="BUS")]
    pairs = [(scene_flow_truth(points), estimate_of(points)) for points in (first, second, third)]
    figures = pooled_figures(av2_2024, pairs)
    assert figures["classes"]["CAR"]["dynamic"] == pytest.approx((0.8 / 4) / (2.01 / 4), abs=1e-6)
    assert figures["fd"] == pytest.approx(0.2, abs=1e-7) and figures["num_fd"] == 4
    assert figures["classes"]["BACKGROUND"]["static"] == figures["bs"] == pytest.approx(0.5 / 3, abs=1e-7)
    assert figures["fs"] == pytest.approx(0.01, abs=1e-7) and figures["num_points"] == 8
    assert figures["three_way_epe"] == pytest.approx((0.2 + 0.01 + 0.5 / 3) / 3, abs=1e-7)


def test_what_has_no_points_has_no_figures():
    figures = figures_of(av2_2024, scene_flow_truth([]), [])
    assert figures["num_points"] == figures["num_fd"] == figures["num_fs"] == figures["num_bs"] == 0
    numbers = {name: value for name, value in figures.items() if name != "classes" and not name.startswith("num_")}
    assert set(numbers.values()) == {None} and set(figures["classes"]) == set(CLASSES)

    points = cars((0.5, 0.1), category="NONE")
    figures = figures_of(av2_2024, scene_flow_truth(points), points)
    assert figures["mean_static"] is None and figures["mean_dynamic"] == pytest.approx(0.2, abs=1e-6)
    assert figures["bs"] is None and figures["three_way_epe"] is None and figures["num_points"] == 1


# --- the judge ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def logs(test_data, tmp_path_factory) -> dict[str, Path]:
    """Every labelled log by its name, the simulated ones with fast traffic, ended tracks and cuboids alone."""
    folder = tmp_path_factory.mktemp("logs")
    simulate_log(folder / "highway", seed=24, sweeps=2, scanner="small", scene="highway")
    real = [test_data / name for name in (AV2_LOG, *TRI_LOGS)]
    return {path.name: path for path in (*real, folder / "highway", *simulated_logs(folder))}


@pytest.fixture(scope="module")
def truths(logs) -> dict[str, list[PairTruth]]:
    return {name: truths_of(path) for name, path in logs.items()}


class Judge:
    """The challenge's two evaluators."""

    def __init__(self, folder: Path) -> None:
        pytest.importorskip("bucketed_scene_flow_eval.eval", reason=NO_CHALLENGE_JUDGE, exc_type=ImportError)
        from bucketed_scene_flow_eval.datasets.argoverse2 import argoverse_scene_flow, av2_metacategories
        from bucketed_scene_flow_eval.eval import BucketedEPEEvaluator, ThreeWayEPEEvaluator

        names, self.folder = argoverse_scene_flow.CATEGORY_MAP, folder
        metas = (av2_metacategories.BUCKETED_METACATAGORIES, av2_metacategories.THREEWAY_EPE_METACATAGORIES)
        self.buckets = BucketedEPEEvaluator(names, meta_class_lookup=metas[0], output_path=folder / "buckets")
        self.parts = ThreeWayEPEEvaluator(names, meta_class_lookup=metas[1], output_path=folder / "parts")

    def see(self, flow, frame) -> None:
        """flow: EgoLidarFlow; frame: TimeSyncedSceneFlowFrame"""
        self.buckets.eval(flow, frame)
        self.parts.eval(flow, frame)

    def agrees(self, ours: dict) -> None:
        """Every figure of ours but the coverage."""
        classes, parts = self.buckets.compute_results(), self.parts.compute_results()
        table = json.loads((self.folder / "buckets" / "mean_average_results_35.json").read_text())
        expected = {
            **dict(zip(("mean_static", "mean_dynamic"), table, strict=True)),
            **dict(zip(("fs", "fd"), parts["FOREGROUND"], strict=True)),
            "bs": parts["BACKGROUND"][0],
        }
        expected["three_way_epe"] = np.mean([expected[part] for part in PARTS])
        for name, value in expected.items():
            same(ours[name], value)
        matrix = self._matrix(self.parts)
        of_parts = dict(zip(matrix.class_names, matrix.count_storage_matrix, strict=True))
        assert [ours[f"num_{part}"] for part in PARTS] == [*of_parts["FOREGROUND"][::-1], of_parts["BACKGROUND"][0]]

        matrix = self._matrix(self.buckets)
        assert ours["num_points"] == matrix.count_storage_matrix.sum()
        assert set(ours["classes"]) == set(classes) == set(matrix.class_names)
        for name, (static, dynamic) in classes.items():
            same(ours["classes"][name]["static"], static)
            same(ours["classes"][name]["dynamic"], dynamic)
            row = matrix.class_names.index(name)
            counts = matrix.count_storage_matrix[row]
            assert ours["classes"][name]["num_points"] == counts.sum()
            normalised = matrix.get_normalized_error_matrix()
            for bucket, k in zip(ours["classes"][name]["buckets"], np.flatnonzero(counts), strict=True):
                start, end = matrix.speed_buckets[k]
                assert bucket["from_mps"] == pytest.approx(10 * start)
                assert bucket["to_mps"] == (None if np.isinf(end) else pytest.approx(10 * end))
                assert bucket["num_points"] == counts[k]
                same(bucket["epe"], matrix.epe_storage_matrix[row, k])
                same(bucket["speed"] / 10, matrix.speed_storage_matrix[row, k])
                if k > 0:
                    same(bucket["normalised"], normalised[row, k])

    @staticmethod
    def _matrix(evaluator):
        pooled = evaluator._category_to_average_stats(evaluator._category_to_per_frame_stats())
        return evaluator._build_stat_table(pooled, 35)


def same(ours: float | None, theirs: float) -> None:
    assert (np.nan if ours is None else ours) == pytest.approx(theirs, abs=1e-6, rel=0, nan_ok=True)


def their_classes(truth: PairTruth) -> np.ndarray:
    """int8: −1 for background, else the position among the 30 categories in alphabetical order."""
    return truth.scene_flow.classes.astype(np.int8) - 1


def frame_of(truth: PairTruth):
    """The pair as the judge sees it, masked by its rules, in double precision."""
    from bucketed_scene_flow_eval import datastructures as theirs

    points, labels = truth.points0.astype(np.float64), truth.scene_flow
    pose = theirs.SE3.from_array(np.linalg.inv(truth.ego0_SE3_ego1.matrix))
    inside = theirs.PointCloud(pose.transform_points(points)).within_region_mask(-48, 48, -48, 48, -2.5, 2.5)
    mask = inside & ~labels.is_ground & labels.is_valid
    cloud = theirs.SupervisedPointCloudFrame(
        full_pc=theirs.PointCloud(points),
        pose=theirs.PoseInfo(sensor_to_ego=theirs.SE3.identity(), ego_to_global=pose),
        mask=mask,
        full_pc_classes=their_classes(truth),
    )
    flow = theirs.EgoLidarFlow(labels.residual.astype(np.float64), mask)
    return theirs.TimeSyncedSceneFlowFrame(
        pc=cloud, auxillary_pc=None, rgbs=None, log_id="log", log_idx=0, log_timestamp=0, flow=flow
    )


@pytest.mark.parametrize("method", METHODS)
def test_the_challenges_evaluators_agree(truths, method, tmp_path):
    for names in [*([name] for name in truths), list(truths)]:
        judge = Judge(tmp_path / "+".join(names)[:100])
        from bucketed_scene_flow_eval.datastructures import EgoLidarFlow

        pairs = [(truth, METHODS[method](truth)) for name in names for truth in truths[name]]
        for truth, estimate in pairs:
            judge.see(EgoLidarFlow(estimate.residual.astype(np.float64), estimate.covered.copy()), frame_of(truth))
        judge.agrees(pooled_figures(av2_2024, pairs))


def test_the_challenges_evaluators_agree_on_points_by_hand(tmp_path):
    """Empty classes and buckets, edges, invalid points, and classes that are in none."""
    judge = Judge(tmp_path)
    from bucketed_scene_flow_eval.datastructures import EgoLidarFlow

    rng = np.random.default_rng(5)
    pairs = []
    for k in range(4):
        random = [
            Point(
                tuple(rng.uniform(-40, 40, 2)) + (rng.uniform(-3, 3),),
                category=category,
                residual=rng.normal(0, 0.3 * k, 3),
                estimate=rng.normal(0, 0.3, 3) if rng.random() < 0.8 else None,
                valid=rng.random() < 0.9,
                ground=rng.random() < 0.1,
            )
            for category in ("NONE", "NONE", "BUS", "TRUCK", "STROLLER", "SIGN", "DOG")
            for _ in range(40)
        ]
        points = (POINTS if k == 0 else []) + random
        pairs.append((scene_flow_truth(points, AHEAD), estimate_of(points)))
    for truth, estimate in pairs:
        judge.see(EgoLidarFlow(estimate.residual.astype(np.float64), estimate.covered.copy()), frame_of(truth))
    judge.agrees(pooled_figures(av2_2024, pairs))


# --- the judge, from files to figures ----------------------------------------------------------------------


def write_flow(path: Path, flow: np.ndarray, is_valid: np.ndarray, **more: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {f"flow_t{axis}_m": flow[:, k].astype(np.float32) for k, axis in enumerate("xyz")}
    feather.write_feather(pa.table({**columns, "is_valid": is_valid, **more}), str(path))


@pytest.mark.parametrize("method", METHODS)
def test_the_challenges_own_loader_agrees(logs, truths, method, tmp_path):
    """Sweeps, poses, map and feather files read by the challenge's tools: its masks and frames, not ours."""
    judge = Judge(tmp_path)
    from bucketed_scene_flow_eval.datasets import Argoverse2CausalSceneFlow

    data, labels, estimates = (tmp_path / name for name in ("data", "labels", "estimates"))
    data.mkdir()
    pairs = []
    for name, path in logs.items():
        os.symlink(path, data / name)
        for stamp_ns, truth in zip(Log(path).stamps_ns, truths[name], strict=False):
            estimate = METHODS[method](truth)
            pairs.append((truth, estimate))
            file = f"{name}/{stamp_ns}.feather"
            known = truth.scene_flow
            write_flow(labels / file, known.residual, known.is_valid, classes_0=their_classes(truth))
            write_flow(estimates / file, estimate.residual, estimate.covered)

    options = {"root_dir": data, "with_ground": False, "with_rgb": False, "use_cache": False, "cache_root": tmp_path}
    known = Argoverse2CausalSceneFlow(flow_data_path=labels, use_gt_flow=True, **options)
    given = Argoverse2CausalSceneFlow(flow_data_path=estimates, use_gt_flow=False, **options)
    assert len(known) == len(given) == len(pairs) == 1 + 4 + 1 + 2 + 2
    for k in range(len(known)):
        judge.see(given[k][0].flow, known[k][0])
    judge.agrees(pooled_figures(av2_2024, pairs))


# --- facts -------------------------------------------------------------------------------------------------


def test_no_motion_scores_one_and_the_truth_nothing(truths):
    for of_log in truths.values():
        nothing = pooled_figures(av2_2024, [(truth, zero(truth)) for truth in of_log])
        assert nothing["mean_dynamic"] == pytest.approx(1, abs=1e-6)
        everything = pooled_figures(av2_2024, [(truth, perfect(truth)) for truth in of_log])
        assert everything["mean_dynamic"] == everything["mean_static"] == everything["fd"] == everything["bs"] == 0


def test_the_judge_met_all_there_is(truths):
    """Invalid points, empty classes, empty buckets, fast traffic."""
    figures = {name: pooled_figures(av2_2024, [(t, zero(t)) for t in of_log]) for name, of_log in truths.items()}
    assert any(not truth.scene_flow.is_valid.all() for truth in truths["cuboids"])
    assert any(figure["classes"]["WHEELED_VRU"]["num_points"] == 0 for figure in figures.values())
    assert any(bucket["to_mps"] is None for bucket in figures["highway"]["classes"]["CAR"]["buckets"])
    assert 1 < len(figures[Path(AV2_LOG).name]["classes"]["CAR"]["buckets"]) < 51


def test_an_estimate_of_the_wrong_direction_scores_two(truths):
    (truth,) = truths["highway"]
    estimate = Estimate(-truth.scene_flow.residual, np.ones(len(truth.points0), dtype=bool))
    assert pooled_figures(av2_2024, [(truth, estimate)])["mean_dynamic"] == pytest.approx(2, abs=1e-6)
