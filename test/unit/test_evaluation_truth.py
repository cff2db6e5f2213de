"""What is known of a pair: against av2's own flow, the other tools' rule, the real pair's files, and by hand."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from evaluation_cases import AV2_LOG, TRI_LOGS, labelled_by_cuboids, of_length
from pyarrow import feather

from zeroflow_core.datasets.av2 import Cuboid, FlowLabels, Log
from zeroflow_core.datasets.av2_writer import write_log
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.cuboid_labels import flow_of_cuboids
from zeroflow_core.evaluation.truth import as_estimate, has_labels, is_dynamic, read_truth, total_flow
from zeroflow_core.geometry import SE3
from zeroflow_core.ground import MapRaster
from zeroflow_core.pairs import Flow, Status, Sweep, remove_ego_motion
from zeroflow_core.simulation.log import simulate_log

# The second vehicle frame is a quarter turn to the left of the first and 2 m ahead.
TURN = SE3.from_yaw(np.pi / 2, np.array([2.0, 0.0, 0.0]))


@pytest.fixture(scope="module")
def simulated(tmp_path_factory) -> dict[str, Path]:
    """A simulated log with flow labels, and the same with cuboids alone; where av2's Rust loader looks for them."""
    folder = tmp_path_factory.mktemp("root") / "simulated" / "sensor" / "val"
    simulate_log(folder / "labels", seed=21, sweeps=3, scanner="small", scene="junction")
    labelled_by_cuboids(folder / "labels", folder / "cuboids")
    return {name: folder / name for name in ("labels", "cuboids")}


# --- residual and total flow -------------------------------------------------------------------------------


def test_total_flow_by_hand():
    # A point 5 m ahead stands still: from the second pose it is 3 m to the right, which is at y = −3.
    points = np.array([[5.0, 0.0, 1.0], [5.0, 0.0, 1.0]], dtype=np.float32)
    residual = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.5]], dtype=np.float32)
    flow = total_flow(points, residual, TURN)
    assert flow.dtype == np.float64
    np.testing.assert_allclose(points + flow, [[0.0, -3.0, 1.0], [0.0, -4.0, 1.5]], atol=1e-12)


def test_total_flow_is_the_inverse_of_removing_ego_motion():
    rng = np.random.default_rng(1)
    points, residual = rng.uniform(-60, 60, (200, 3)).astype(np.float32), rng.normal(size=(200, 3))
    back = remove_ego_motion(points, total_flow(points, residual, TURN), TURN)
    np.testing.assert_allclose(back, residual, atol=1e-12)


def test_dynamic_is_from_five_centimetres_on():
    below = np.nextafter(np.float32(0.05), np.float32(0))
    residual = np.array([of_length(0.05), [0, 0.05, 0], [0, 0, -below], [0.03, 0.03, 0.03], [0, 0, 0]])
    assert is_dynamic(residual.astype(np.float64)).tolist() == [True, True, False, True, False]
    assert is_dynamic(residual[1:].astype(np.float32)).tolist() == [True, False, True, False]


# --- no flow -----------------------------------------------------------------------------------------------


def test_no_flow_counts_as_zero_residual():
    vectors = np.tile(np.array([1, 2, 3], dtype=np.float32), (7, 1))
    vectors[4] = np.nan
    vectors[5, 2] = np.nan
    vectors[6, 0] = np.inf
    status = np.array([Status.OK, Status.GROUND, Status.OUT_OF_RANGE, Status.NOT_FINITE, 0, 0, 0], dtype=np.uint8)
    estimate = as_estimate(Flow(vectors, status, dt=0.1))
    assert estimate.covered.tolist() == [True] + [False] * 6
    np.testing.assert_array_equal(estimate.residual, [[1, 2, 3]] + [[0, 0, 0]] * 6)
    assert estimate.residual.dtype == np.float32


# --- cuboids by hand ---------------------------------------------------------------------------------------


def box(track: str, at: tuple[float, float, float], yaw: float = 0.0, category: str = "BUS", points: int = 1) -> Cuboid:
    """4 m long, 2 m wide, 1 m high."""
    return Cuboid(category, track, SE3.from_yaw(yaw, np.array(at)), np.array([4.0, 2.0, 1.0]), points)


def test_boxes_are_grown_in_length_and_width_but_not_in_height():
    sides = np.array([*np.diag([2.1, 1.1, 0.5]), *np.diag([-2.1, -1.1, -0.5]), (2.1, 1.1, -0.5)])
    points = np.concatenate([sides * (1 - 1e-9), sides * (1 + 1e-9), [(0, 0, 0.5), (0, 0, -0.5)]])  # the edge is in
    residual, classes, valid = flow_of_cuboids(points, [box("a", (0, 0, 0))], [box("a", (1, 0, 0))], SE3.identity())
    assert classes.tolist() == [7] * 7 + [0] * 7 + [7] * 2  # BUS is the seventh category
    np.testing.assert_allclose(residual[:, 0], [1] * 7 + [0] * 7 + [1] * 2)
    assert valid.all() and not residual[:, 1:].any()


def test_a_turning_box_carries_its_points_and_ego_motion_is_not_in_it():
    # In the first frame the box is 10 m ahead; in the second it is where TURN puts (10, 0, 0), turned by 180°.
    now = box("a", (10, 0, 0))
    stands = replace(now, ego_SE3_object=TURN.inverse() @ now.ego_SE3_object)
    turned = replace(now, ego_SE3_object=TURN.inverse() @ SE3.from_yaw(np.pi, np.array([10.0, 0.0, 0.0])))
    points = np.array([[11.5, 0.5, 0.25], [10.0, 0.0, 0.0]])
    np.testing.assert_allclose(flow_of_cuboids(points, [now], [stands], TURN)[0], 0, atol=1e-12)
    np.testing.assert_allclose(flow_of_cuboids(points, [now], [turned], TURN)[0], [[-3, -1, 0], [0, 0, 0]], atol=1e-12)


def test_a_track_that_ends_makes_its_points_invalid_and_still():
    points = np.array([[0.0, 0.0, 0.0], [20.0, 0.0, 0.0], [40.0, 0.0, 0.0]])
    now = [box("a", (0, 0, 0)), box("b", (20, 0, 0), category="DOG")]
    residual, classes, valid = flow_of_cuboids(points, now, [box("a", (1, 0, 0)), box("c", (20, 0, 0))], SE3.identity())
    assert classes.tolist() == [7, 10, 0] and valid.tolist() == [True, False, True]
    np.testing.assert_array_equal(residual, [[1, 0, 0], [0, 0, 0], [0, 0, 0]])


def test_where_boxes_overlap_the_last_one_counts_but_invalid_stays():
    points = np.array([[0.0, 0.0, 0.0]])
    first, last, ended = box("a", (0, 0, 0)), box("b", (0, 0, 0), category="DOG"), box("c", (0, 0, 0), category="SIGN")
    later = [box("a", (1, 0, 0)), box("b", (0, 1, 0))]
    assert flow_of_cuboids(points, [first, last], later, SE3.identity())[0].tolist() == [[0, 1, 0]]
    assert flow_of_cuboids(points, [last, first], later, SE3.identity())[1].tolist() == [7]
    residual, classes, valid = flow_of_cuboids(points, [ended, first], later, SE3.identity())
    assert (residual.tolist(), classes.tolist(), valid.tolist()) == ([[1, 0, 0]], [7], [False])
    residual, classes, valid = flow_of_cuboids(points, [first, ended], later, SE3.identity())
    assert (residual.tolist(), classes.tolist(), valid.tolist()) == ([[1, 0, 0]], [21], [False])


# --- ground ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("yaw", [0.0, 0.6])
def test_av2s_pixels_are_av2s(yaw):
    from av2.geometry.sim2 import Sim2
    from av2.map.map_api import GroundHeightLayer

    heights = np.random.default_rng(7).normal(size=(5, 8))
    turn, shift, scale = SE3.from_yaw(yaw, np.zeros(3)).rotation[:2, :2], np.array([3.0, 2.0]), 2.0
    pixels = np.stack(np.meshgrid(np.arange(-2, 10, 0.25), np.arange(-2, 7, 0.25)), axis=-1).reshape(-1, 2)
    if yaw:
        pixels += 0.1  # off the edges, which rounding would decide
    xy = (pixels / scale - shift) @ turn
    theirs = GroundHeightLayer(heights, Sim2(turn, shift, scale)).get_ground_height_at_xy(xy)
    assert 100 < np.isfinite(theirs).sum() < len(xy) - 100
    np.testing.assert_array_equal(MapRaster(heights, turn, shift, scale).as_av2().height_at(xy), theirs)


def test_av2s_ground_is_within_thirty_centimetres_or_below():
    raster = MapRaster(np.array([[0.0, np.nan]]), np.eye(2), np.zeros(2), 1.0)
    z = np.array([0.0, 1e-6, -1e-6, 0.1, 0.0999, 0.1001, 0.2, -0.5, -0.8, -30.0], dtype=np.float32)
    points = np.column_stack([np.zeros((len(z), 2)), z]).astype(np.float32)
    sweep = Sweep(points, 1, SE3(np.eye(3), np.array([0.2, 0.0, 0.3])))  # so that the first one is at 0.3 m exactly
    assert raster.as_av2()(sweep).tolist() == [True, False, True, False, False, False, False, True, True, True]
    assert raster(sweep).tolist() == [True, True, True, False, True, False, False, True, True, True]
    beside = replace(sweep, world_SE3_ego=SE3(np.eye(3), np.array([1.2, 0.0, 0.3])))
    assert not raster.as_av2()(beside).any()


# --- files by hand -----------------------------------------------------------------------------------------

OFF = np.array([0.0, 0.0, 0.01])  # of the labels' ego motion from the poses'


def write_pair(folder: Path, points: np.ndarray, classes: np.ndarray, flow: np.ndarray, **more: np.ndarray) -> Log:
    """A log of two sweeps with labels and no map. flow: (N,3), added to what standing points have."""
    poses = [SE3.from_yaw(0.3, np.array([100.0, 50.0, 2.0])), SE3.from_yaw(0.4, np.array([101.0, 50.5, 2.0]))]
    sweeps = [Sweep(points.astype(np.float32), 10**9 + k * 10**8, pose) for k, pose in enumerate(poses)]
    total = (poses[1].inverse() @ poses[0]).transform(points) - points + OFF + flow
    no = np.zeros(len(points), dtype=bool)
    columns = {"dynamic": no, "is_ground_0": no} | more
    labels = FlowLabels(total.astype(np.float32), classes.astype(np.uint8), columns["dynamic"], columns["is_ground_0"])
    write_log(folder, sweeps, [labels], {})
    table = feather.read_table(folder / "flow_labels" / "1000000000.feather", memory_map=False)
    if "is_valid" in more:
        table = table.append_column("is_valid", pa.array(more["is_valid"]))
    feather.write_feather(table, str(folder / "flow_labels" / "1000000000.feather"))
    return Log(folder)


def by_poses(truth) -> np.ndarray:
    points = truth.points0.astype(np.float64)
    return truth.ego0_SE3_ego1.inverse().transform(points) - points


def test_the_ego_motion_is_that_of_the_labels_standing_points(tmp_path):
    rng = np.random.default_rng(4)
    points = rng.integers(-100, 100, (300, 3)) / 4
    classes, flow = np.where(np.arange(300) < 150, 19, 0), np.zeros((300, 3))
    dynamic, is_valid, is_ground = (np.zeros(300, dtype=bool) for _ in range(3))
    dynamic[100:170], is_valid[:], is_valid[170:190], is_ground[280:] = True, True, False, True
    flow[:190] = rng.normal(0, 3, (190, 3))  # whatever is foreground, moves or is not known
    points[299, 2] = np.nan
    log = write_pair(tmp_path / "log", points, classes, flow, dynamic=dynamic, is_valid=is_valid, is_ground_0=is_ground)
    truth = read_truth(log, 0)
    np.testing.assert_allclose(truth.av2.standing_flow[:299], by_poses(truth)[:299] + OFF, atol=1e-5)
    expected = flow @ truth.ego0_SE3_ego1.rotation.T + OFF
    np.testing.assert_allclose(truth.scene_flow.residual[:299], expected[:299], atol=1e-5)
    for labels in (truth.av2, truth.scene_flow):
        np.testing.assert_array_equal(labels.is_valid, is_valid)
        np.testing.assert_array_equal(labels.is_ground, is_ground)
        np.testing.assert_array_equal(labels.classes, classes)
    np.testing.assert_array_equal(truth.av2.dynamic, dynamic)


@pytest.mark.parametrize("axis", range(3))
def test_standing_points_in_a_plane_suffice(tmp_path, axis):
    points = np.random.default_rng(6).integers(-100, 100, (300, 3)) / 4
    points[:, axis] = 0.0
    truth = read_truth(write_pair(tmp_path / "log", points, np.zeros(300), np.zeros((300, 3))), 0)
    np.testing.assert_allclose(truth.av2.standing_flow, by_poses(truth) + OFF, atol=1e-5)


@pytest.mark.parametrize("case", ["few", "on a line"])
def test_the_poses_tell_where_the_labels_cannot(tmp_path, case):
    rng = np.random.default_rng(5)
    points, flow = rng.integers(-100, 100, (300, 3)) / 4, np.zeros((300, 3))
    standing = np.arange(300) < (50 if case == "few" else 150)
    if case == "on a line":
        points[standing, 1:] = 0.0
    truth = read_truth(write_pair(tmp_path / "log", points, np.where(standing, 0, 19), flow), 0)
    np.testing.assert_allclose(truth.av2.standing_flow, by_poses(truth), atol=1e-9)


# --- against av2's own flow --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def av2_pairs(test_data, simulated, tmp_path_factory) -> list[tuple]:
    """What av2's SceneFlowDataloader makes of every pair: (log folder, stamp, is_ground, rigid flow, flow)."""
    import torch
    from av2.torch.data_loaders.scene_flow import SceneFlowDataloader
    from kornia.geometry.linalg import transform_points

    root = tmp_path_factory.mktemp("datasets")
    pairs = []
    for folder in (test_data / "av2", test_data / "tri", simulated["labels"].parents[2]):
        (root / folder.name).symlink_to(folder)
        loader = SceneFlowDataloader(root, folder.name, "val")
        with torch.no_grad():  # with current kornia it fails outside
            for k in range(len(loader)):
                sweep, _, ego1_SE3_ego0, flow = loader[k]
                log_id, stamp_ns = sweep.sweep_uuid
                points = sweep.lidar.as_tensor()[:, :3]
                rigid = (transform_points(ego1_SE3_ego0.matrix(), points[None])[0] - points).numpy()
                log = folder / "sensor" / "val" / log_id
                pairs.append((log, stamp_ns, sweep.is_ground.numpy(), rigid, flow))
    assert len(pairs) == 1 + 4 + 4
    return pairs


def truth_at(folder: Path, stamp_ns: int):
    log = Log(folder)
    return read_truth(log, log.stamps_ns.tolist().index(stamp_ns))


def test_labels_of_2023_are_av2s(av2_pairs):
    invalid = 0
    for folder, stamp_ns, is_ground, rigid, flow in av2_pairs:
        if folder.name == "labels":
            continue  # the simulation's own labels, not made from cuboids
        labels = truth_at(folder, stamp_ns).av2
        np.testing.assert_allclose(labels.total_flow, flow.flow.numpy(), atol=1e-3, err_msg=folder.name)
        np.testing.assert_allclose(labels.standing_flow, rigid, atol=1e-3)
        residual = labels.total_flow - labels.standing_flow
        np.testing.assert_allclose(residual, flow.flow.numpy() - rigid, atol=2e-4)
        np.testing.assert_array_equal(labels.classes, flow.category_indices.numpy())
        if not (folder / "flow_labels.feather").exists():  # which does not say
            np.testing.assert_array_equal(labels.is_valid, flow.is_valid.numpy())
        np.testing.assert_array_equal(labels.dynamic, flow.is_dynamic.numpy())
        assert (labels.is_ground != is_ground).mean() < 1e-3  # av2 rounds city coordinates to float32
        invalid += (~labels.is_valid).sum()
    assert invalid > 50


def test_labels_of_a_file_stand_as_they_are(test_data, simulated):
    for folder in (test_data / AV2_LOG, simulated["labels"]):
        log = Log(folder)
        truth = read_truth(log, 0)
        file = folder / "flow_labels" / f"{log.stamps_ns[0]}.feather"
        table = feather.read_table(file if file.exists() else folder / "flow_labels.feather", memory_map=False)
        flow = np.stack([table[f"flow_t{axis}_m"].to_numpy() for axis in "xyz"], axis=1)
        np.testing.assert_array_equal(truth.av2.total_flow, flow.astype(np.float64))
        np.testing.assert_array_equal(truth.av2.classes, table["classes"].to_numpy())
        np.testing.assert_array_equal(truth.scene_flow.classes, table["classes"].to_numpy())
        np.testing.assert_array_equal(truth.av2.dynamic, table["dynamic"].to_numpy())
        np.testing.assert_array_equal(truth.av2.is_ground, table["is_ground_0"].to_numpy())
        assert truth.av2.is_valid.all() and truth.scene_flow.is_valid.all()
        ego0, ego1 = (log.pose(stamp) for stamp in log.stamps_ns[:2])
        np.testing.assert_allclose(truth.ego0_SE3_ego1.matrix, (ego0.inverse() @ ego1).matrix)
        expected = (ego0.inverse() @ ego1).transform(truth.points0.astype(np.float64) + flow) - truth.points0
        np.testing.assert_allclose(truth.scene_flow.residual, expected, atol=1e-6)
        assert truth.dt == pytest.approx((log.stamps_ns[1] - log.stamps_ns[0]) * 1e-9, abs=1e-12)


def test_the_real_pairs_background_stands_still(test_data):
    truth = read_truth(Log(test_data / AV2_LOG), 0)
    background = truth.av2.classes == 0
    assert np.linalg.norm(truth.scene_flow.residual[background], axis=1).max() < 1e-3
    # With the ego motion that the labels themselves hold, the background stands still to what float32 can say.
    off = truth.av2.total_flow - truth.av2.standing_flow
    assert np.linalg.norm(off[background], axis=1).max() < 5e-5
    published = np.load(test_data / AV2_LOG / "ego_motion.npz")["ego_motion"][0]
    np.testing.assert_allclose(np.linalg.inv(truth.ego0_SE3_ego1.matrix), published, atol=1e-3)


def test_the_truth_of_both_kinds_is_the_same_motion(test_data, simulated):
    """The standing flow and the residual together are the total flow: frames, signs and directions."""
    for folder in (test_data / AV2_LOG, test_data / TRI_LOGS[0], simulated["labels"], simulated["cuboids"]):
        truth = read_truth(Log(folder), 0)
        ego1_SE3_ego0 = np.linalg.inv(truth.ego0_SE3_ego1.matrix)
        turned = truth.scene_flow.residual @ ego1_SE3_ego0[:3, :3].T
        off = np.linalg.norm(truth.av2.standing_flow + turned - truth.av2.total_flow, axis=1)
        same = truth.av2.classes == truth.scene_flow.classes  # not in a cuboid without points
        assert same.mean() > 0.98
        assert (off[same] >= 1e-3).sum() < 10  # where cuboids overlap, one without points may be the last


# --- against the rule of ZeroFlow's and the 2024 challenge's tools -----------------------------------------


def flow_of_every_cuboid(log: Log, stamps_ns: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Residual flow, class names and validity with av2's cuboids, those without points included."""
    from av2.structures.cuboid import CuboidList
    from av2.utils.io import read_city_SE3_ego, read_feather, read_lidar_sweep

    points = read_lidar_sweep(log.path / "sensors" / "lidar" / f"{stamps_ns[0]}.feather").astype(np.float64)
    tracks = read_feather(log.path / "annotations.feather")["track_uuid"]
    cuboids = CuboidList.from_feather(log.path / "annotations.feather").cuboids
    by_stamp = [
        {track: cuboid for track, cuboid in zip(tracks, cuboids, strict=True) if cuboid.timestamp_ns == stamp}
        for stamp in stamps_ns
    ]
    poses = read_city_SE3_ego(log.path)
    ego0_SE3_ego1 = poses[stamps_ns[0]].inverse().compose(poses[stamps_ns[1]])
    residual, names = np.zeros(points.shape), np.full(len(points), "NONE", dtype=object)
    valid = np.ones(len(points), dtype=bool)
    for track, cuboid in by_stamp[0].items():
        cuboid.length_m, cuboid.width_m = cuboid.length_m + 0.2, cuboid.width_m + 0.2
        own, inside = cuboid.compute_interior_points(points)
        names[inside] = str(cuboid.category.value if hasattr(cuboid.category, "value") else cuboid.category)
        if track in by_stamp[1]:
            motion = ego0_SE3_ego1.compose(by_stamp[1][track].dst_SE3_object).compose(cuboid.dst_SE3_object.inverse())
            residual[inside] = motion.transform_point_cloud(own) - own
        else:
            valid[inside] = False
    return residual, names, valid


def test_labels_of_2024_count_cuboids_without_points_too(test_data, simulated):
    from av2.evaluation.scene_flow.constants import CATEGORY_TO_INDEX

    more = 0
    for folder in (*(test_data / name for name in TRI_LOGS), simulated["cuboids"]):
        log = Log(folder)
        for i in range(len(log) - 1):
            truth = read_truth(log, i)
            residual, names, valid = flow_of_every_cuboid(log, tuple(log.stamps_ns[i : i + 2].tolist()))
            np.testing.assert_allclose(truth.scene_flow.residual, residual, atol=1e-5)
            assert truth.scene_flow.residual.dtype == np.float32
            np.testing.assert_array_equal(truth.scene_flow.classes, [CATEGORY_TO_INDEX[name] for name in names])
            np.testing.assert_array_equal(truth.scene_flow.is_valid, valid)
            more += (truth.scene_flow.classes != truth.av2.classes).sum()
    assert more > 0


def test_the_real_pairs_cuboids_make_its_labels(test_data, tmp_path):
    copy = tmp_path / "log"
    shutil.copytree(test_data / AV2_LOG, copy, ignore=shutil.ignore_patterns("flow_labels*"))
    published, made = read_truth(Log(test_data / AV2_LOG), 0), read_truth(Log(copy), 0)
    np.testing.assert_allclose(made.av2.total_flow, published.av2.total_flow, atol=1e-3)
    np.testing.assert_array_equal(made.av2.classes, published.av2.classes)
    np.testing.assert_array_equal(made.av2.dynamic, published.av2.dynamic)
    assert (made.av2.is_ground != published.av2.is_ground).sum() < 20
    # The file's ground is av2's; the other definitions' comes from the raster in either case.
    assert published.av2.is_ground.sum() == 17_374 and published.scene_flow.is_ground.sum() == 18_754
    np.testing.assert_array_equal(made.scene_flow.is_ground, published.scene_flow.is_ground)


# --- logs that cannot be scored ----------------------------------------------------------------------------


def test_a_log_without_labels_is_named(test_data, simulated, tmp_path):
    kitti = Log(next((test_data / "kitti" / "sensor" / "test").iterdir()))
    assert not has_labels(kitti)
    with pytest.raises(ZeroFlowError, match=f"{kitti.log_id}.*no labels"):
        read_truth(kitti, 0)
    assert has_labels(Log(simulated["labels"])) and has_labels(Log(simulated["cuboids"]))
    shutil.copytree(simulated["labels"], tmp_path / "log", ignore=shutil.ignore_patterns("annotations.feather"))
    log = Log(tmp_path / "log")
    (log.path / "flow_labels" / f"{log.stamps_ns[1]}.feather").unlink()
    assert has_labels(log)
    with pytest.raises(ZeroFlowError, match=f"{log.stamps_ns[1]}"):
        read_truth(log, 1)


def test_without_a_map_the_labels_ground_stands_in_and_without_either_the_log_is_named(simulated, tmp_path):
    for name, path in simulated.items():
        shutil.copytree(path, tmp_path / name, ignore=shutil.ignore_patterns("map"))
    truth = read_truth(Log(tmp_path / "labels"), 0)
    np.testing.assert_array_equal(truth.scene_flow.is_ground, truth.av2.is_ground)
    assert truth.av2.is_ground.any()
    with pytest.raises(ZeroFlowError, match="cuboids.*no map"):
        read_truth(Log(tmp_path / "cuboids"), 0)
