"""Simulated logs, judged by the av2 package: its loaders, its map, its flow from cuboids, its evaluation."""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np
import pytest
import torch
from pyarrow import feather

from zeroflow_core.datasets.av2 import Log
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.pairs import remove_ego_motion
from zeroflow_core.simulation.log import Drive, simulate_log, simulate_sweeps
from zeroflow_core.simulation.log_map import clip
from zeroflow_core.simulation.scanners import scanner_named
from zeroflow_core.simulation.scenes import SCENES

VEHICLES = {"REGULAR_VEHICLE", "LARGE_VEHICLE", "BOX_TRUCK", "TRUCK", "TRUCK_CAB", "VEHICULAR_TRAILER", "BUS"}
VEHICLES |= {"ARTICULATED_BUS", "SCHOOL_BUS", "MOTORCYCLE", "BICYCLE"}


@pytest.fixture(scope="module")
def logs(tmp_path_factory) -> dict[str, Path]:
    """A log of every scene by a small scanner, and one of AV2's own; where av2's Rust loader looks for them."""
    folder = tmp_path_factory.mktemp("root") / "simulated" / "sensor" / "val"
    for scene in SCENES:
        simulate_log(folder / scene, seed=11, sweeps=3, scanner="small", scene=scene)
    simulate_log(folder / "av2", seed=12, sweeps=2, scanner="av2", scene="street")
    return {name: folder / name for name in (*SCENES, "av2")}


@pytest.fixture(scope="module")
def av2_pairs(logs) -> list[tuple]:
    """What av2's SceneFlowDataloader makes of every pair: (log, stamp, points, is_ground, cuboids, flow)."""
    from av2.torch.data_loaders.scene_flow import SceneFlowDataloader

    folder = logs["av2"].parent
    loader = SceneFlowDataloader(folder.parents[2], "simulated", "val")
    assert len(loader) == 2 * len(SCENES) + 1
    pairs = []
    with torch.no_grad():
        for k in range(len(loader)):
            sweep, _, _, flow = loader[k]
            log_id, stamp_ns = sweep.sweep_uuid
            points = sweep.lidar.as_tensor()[:, :3].numpy()
            pairs.append((folder / log_id, stamp_ns, points, sweep.is_ground.numpy(), sweep.cuboids, flow))
    return pairs


def labels_of(log: Path, stamp_ns: int) -> dict[str, np.ndarray]:
    table = feather.read_table(log / "flow_labels" / f"{stamp_ns}.feather")
    return {name: table[name].to_numpy() for name in table.column_names}


def flow_of(labels: dict[str, np.ndarray], prefix: str = "flow") -> np.ndarray:
    return np.stack([labels[f"{prefix}_t{axis}_m"] for axis in "xyz"], axis=1)


# --- the files ---------------------------------------------------------------------------------------------


def test_columns_and_types_are_those_of_av2(logs):
    size_and_pose = ("length_m", "width_m", "height_m", "qw", "qx", "qy", "qz", "tx_m", "ty_m", "tz_m")
    annotations = [("timestamp_ns", "int64"), ("track_uuid", "string"), ("category", "string")]
    annotations += [(name, "double") for name in size_and_pose] + [("num_interior_pts", "int64")]
    labels = [(f"flow_t{axis}_m", "float") for axis in "xyz"]
    labels += [("classes", "uint8"), ("dynamic", "bool"), ("is_ground_0", "bool")]
    ours = [("instance", "int32")] + [(f"limb_flow_t{axis}_m", "float") for axis in "xyz"]
    velocity = [(f"velocity_{axis}_mps", "float") for axis in "xyz"] + [("is_dynamic", "bool"), ("instance", "int32")]
    log = logs["av2"]
    first = Log(log).stamps_ns[0]
    for name, columns in {
        "annotations.feather": annotations,
        "flow_labels.feather": labels,
        f"flow_labels/{first}.feather": labels + ours,
        f"velocity/{first}.feather": velocity,
    }.items():
        assert [(f.name, str(f.type)) for f in feather.read_table(log / name).schema] == columns
    assert len(list((log / "flow_labels").iterdir())) == 1 and len(list((log / "velocity").iterdir())) == 2
    assert not (logs["street"] / "flow_labels.feather").exists()


def test_truth_is_for_the_points_as_they_are_stored(logs):
    log = Log(logs["junction"])
    drive = simulate_sweeps(seed=11, sweeps=3, scanner="small", scene="junction")
    first, second = next(drive), next(drive)
    labels = log.flow_labels(0)
    stored = log.sweep(0).points
    np.testing.assert_array_equal(stored, first.sweep.points.astype(np.float16).astype(np.float32))
    ego0_SE3_ego1 = log.pose(log.stamps_ns[0]).inverse() @ log.pose(log.stamps_ns[1])
    residual = remove_ego_motion(stored, labels.total_flow, ego0_SE3_ego1)
    np.testing.assert_allclose(residual, first.flow, atol=1e-5)
    np.testing.assert_array_equal(labels.is_ground0, first.is_ground)
    np.testing.assert_array_equal(labels.dynamic, np.linalg.norm(first.flow, axis=1) >= 0.05)
    table = labels_of(log.path, log.stamps_ns[0])
    np.testing.assert_array_equal(table["instance"], first.actor)
    limbs = remove_ego_motion(stored, flow_of(table, "limb_flow"), ego0_SE3_ego1)
    np.testing.assert_allclose(limbs, first.limb_flow, atol=1e-5)
    same = (first.limb_flow == first.flow).all(axis=1)
    assert same.mean() > 0.9
    np.testing.assert_array_equal(flow_of(table, "limb_flow")[same], flow_of(table)[same])
    velocity = feather.read_table(log.path / "velocity" / f"{log.stamps_ns[1]}.feather")
    velocity = np.stack([velocity[f"velocity_{axis}_mps"].to_numpy() for axis in "xyz"], axis=1)
    np.testing.assert_allclose(velocity, second.velocity, atol=1e-5)


def test_instances_are_the_tracks_of_the_annotations(logs):
    from av2.evaluation.scene_flow.constants import CATEGORY_TO_INDEX

    for path in logs.values():
        log = Log(path)
        tracks = {}
        for stamp_ns in log.stamps_ns:
            cuboids = log.annotations(stamp_ns)
            ids = [cuboid.track_id for cuboid in cuboids]
            assert len(set(ids)) == len(ids) >= 1 and all(str(uuid.UUID(track)) == track for track in ids)
            tracks |= {int(cuboid.track_id.rpartition("-")[2], 16): cuboid.category for cuboid in cuboids}
        labels = labels_of(path, log.stamps_ns[0])
        expected = [CATEGORY_TO_INDEX[tracks[k]] if k >= 0 else 0 for k in labels["instance"].tolist()]
        np.testing.assert_array_equal(labels["classes"], expected)


def test_a_track_has_one_size_and_is_of_something_seen(logs):
    for path in logs.values():
        table = feather.read_table(path / "annotations.feather").to_pandas().groupby("track_uuid")
        assert (table[["length_m", "width_m", "height_m"]].nunique() == 1).all(axis=None)
        assert (table["num_interior_pts"].sum() > 0).all()


def test_poses_are_dense_and_cover_every_beam(logs):
    log = Log(logs["av2"])
    last = log.sweep(len(log) - 1)
    end = last.stamp_ns + int(last.time_offset_ns.max())
    stamps = [stamp for stamp, _ in log.poses(0, 2**62)]
    assert stamps[0] <= log.stamps_ns[0] and stamps[-1] >= end
    assert np.diff(stamps).max() <= 10_000_001 and np.diff(stamps).min() > 1_000_000


# --- av2 reads them ----------------------------------------------------------------------------------------


def test_av2s_loaders_read_the_logs(logs):
    import av2._r as rust
    from av2.datasets.sensor.av2_sensor_dataloader import AV2SensorDataLoader
    from av2.utils.io import read_city_SE3_ego, read_ego_SE3_sensor, read_lidar_sweep

    folder = logs["av2"].parent
    loader = AV2SensorDataLoader(data_dir=folder, labels_dir=folder)
    assert set(loader.get_log_ids()) == set(logs) and loader.get_city_name("av2") == "SIM"
    for name, path in logs.items():
        log = Log(path)
        assert loader.get_ordered_log_lidar_timestamps(name) == log.stamps_ns.tolist()
        assert {"up_lidar", "down_lidar"} <= set(read_ego_SE3_sensor(path))
        for i, stamp_ns in enumerate(log.stamps_ns.tolist()):
            assert len(loader.get_labels_at_lidar_timestamp(name, stamp_ns)) == len(log.annotations(stamp_ns))
            points = read_lidar_sweep(loader.get_lidar_fpath(name, stamp_ns))
            np.testing.assert_array_equal(points, log.sweep(i).points)
            pose = read_city_SE3_ego(path)[stamp_ns].transform_matrix
            np.testing.assert_allclose(pose, log.pose(stamp_ns).matrix, atol=1e-9)
    backend = rust.DataLoader(str(folder.parents[2]), "simulated", "sensor", "val", 1, False)
    assert len(backend) == 3 * len(SCENES) + 2
    assert {len(backend.get(k).lidar.to_pandas()) for k in range(2)} <= {len(Log(logs["av2"]).sweep(k)) for k in (0, 1)}


def test_av2s_map_reads_the_map(logs):
    from av2.map.map_api import ArgoverseStaticMap

    for name, path in logs.items():
        static_map = ArgoverseStaticMap.from_map_dir(path / "map", build_raster=True)
        assert static_map.log_id == name
        lanes, areas = static_map.get_scenario_lane_segments(), static_map.get_scenario_vector_drivable_areas()
        assert lanes and areas
        known = set(static_map.get_scenario_lane_segment_ids())
        for lane in lanes:
            linked = {*lane.successors, *lane.predecessors, lane.left_neighbor_id, lane.right_neighbor_id}
            assert linked <= known | {None}
            assert np.isfinite(static_map.get_lane_segment_centerline(lane.id)).all()
        ego = Log(path).pose(Log(path).stamps_ns[0])
        contact = ego.transform(np.array([[0.0, 0.0, -0.33]]))
        height = static_map.append_height_to_2d_city_pt_cloud(contact[:, :2])
        np.testing.assert_allclose(height, contact, atol=0.12)
        assert static_map.get_raster_layer_points_boolean(contact[:, :2], "DRIVABLE_AREA").all()
        ours = Log(path).map_ground()
        around = contact[:, :2] + np.random.default_rng(0).uniform(-90, 90, (2000, 2))
        theirs = static_map.raster_ground_height_layer.get_ground_height_at_xy(around)
        np.testing.assert_allclose(ours.height_at(around), theirs, atol=0.3)


def test_the_raster_marks_the_ground(logs, av2_pairs):
    for log, stamp_ns, points, by_av2, _, _ in av2_pairs:
        truth = labels_of(log, stamp_ns)["is_ground_0"]
        near = np.abs(points[:, :2]).max(axis=1) < 90
        ours = Log(log).map_ground()(Log(log).sweep(list(Log(log).stamps_ns).index(stamp_ns)))
        for mask in (by_av2, ours):
            assert mask[near & truth].mean() > 0.99, log.name
            assert mask[near & ~truth].mean() < 0.15, log.name  # feet of walls, tyres


# --- av2's own flow and scores -----------------------------------------------------------------------------


def test_vehicles_are_in_their_cuboids_and_av2s_flow_is_the_truth(av2_pairs):
    from av2.torch.structures.flow import BOUNDING_BOX_EXPANSION, cuboids_to_id_cuboid_map

    judged = 0
    for log, stamp_ns, points, _, cuboids, flow in av2_pairs:
        labels = labels_of(log, stamp_ns)
        instance = labels["instance"]
        off = np.linalg.norm(flow.flow.numpy() - flow_of(labels), axis=1)
        at_home, boxes_around = np.zeros(len(points), dtype=bool), np.zeros(len(points), dtype=int)
        for track, cuboid in cuboids_to_id_cuboid_map(cuboids).items():
            cuboid.length_m += BOUNDING_BOX_EXPANSION
            cuboid.width_m += BOUNDING_BOX_EXPANSION
            _, inside = cuboid.compute_interior_points(points)
            own = instance == int(track.rpartition("-")[2], 16)
            if cuboid.category in VEHICLES and own.sum() >= 20:
                assert inside[own].mean() >= 0.98, (log.name, stamp_ns, track)
                judged += 1
            at_home |= own & inside
            boxes_around += inside
        valid = flow.is_valid.numpy()  # not where av2 leaves out the next cuboid, as it has no points
        clear = at_home & valid & (boxes_around == 1)  # where boxes overlap, av2 takes any
        assert clear.sum() > 0.8 * (instance >= 0).sum()
        assert off[clear].max() <= 0.02
        assert off[(instance < 0) & (boxes_around == 0)].max() < 1e-3
        assert valid[instance >= 0].mean() > 0.97
    assert judged >= 20


def scored_by_av2(pairs, folder: Path, truth, estimate) -> dict[str, float]:
    """av2's evaluation, through its own files; truth, estimate: pair -> (flow, dynamic, classes)"""
    from av2.evaluation.scene_flow.eval import evaluate
    from av2.evaluation.scene_flow.make_annotation_files import CLOSE_DISTANCE_THRESHOLD, write_annotation
    from av2.evaluation.scene_flow.utils import write_output_file

    annotations, predictions = folder / "annotations", folder / "predictions"
    annotations.mkdir()
    for pair in pairs:
        log, stamp_ns, points, is_ground, _, flow = pair
        distance = np.abs(points[:, :2]).max(axis=1)
        scored = (distance <= 50) & ~is_ground
        motion, dynamic, classes = (np.asarray(values)[scored] for values in truth(pair))
        close, valid = (distance <= CLOSE_DISTANCE_THRESHOLD)[scored], flow.is_valid.numpy()[scored]
        write_annotation(classes, close, dynamic, valid, motion, (log.name, stamp_ns), annotations)
        motion, dynamic, _ = (np.asarray(values)[scored] for values in estimate(pair))
        write_output_file(motion, dynamic, (log.name, stamp_ns), predictions)
    return evaluate(str(annotations), str(predictions))


def our_truth(pair):
    labels = labels_of(*pair[:2])
    return flow_of(labels), labels["dynamic"], labels["classes"]


def truth_from_cuboids(pair):
    return pair[5].flow, pair[5].is_dynamic, pair[5].category_indices


def zero_residual(pair):
    log, stamp_ns, points = Log(pair[0]), pair[1], pair[2].astype(np.float64)
    ego0, ego1 = (log.pose(stamp) for stamp in log.stamps_ns[list(log.stamps_ns).index(stamp_ns) :][:2])
    flow = (ego1.inverse() @ ego0).transform(points) - points
    return flow, np.zeros(len(points), dtype=bool), np.zeros(len(points), dtype=np.uint8)


def test_av2s_evaluation_of_the_truth_against_itself_is_zero(av2_pairs, tmp_path):
    scores = scored_by_av2(av2_pairs, tmp_path, our_truth, our_truth)
    assert scores["EPE 3-Way Average"] == 0 and scores["Dynamic IoU"] == 1


def test_av2s_evaluation_of_the_truth_against_its_own_from_cuboids(av2_pairs, tmp_path):
    scores = scored_by_av2(av2_pairs, tmp_path, truth_from_cuboids, our_truth)
    assert scores["EPE 3-Way Average"] < 0.01 and scores["EPE/Foreground/Dynamic"] < 0.02
    assert scores["Dynamic IoU"] > 0.97


def test_zero_residual_scores_as_on_real_streets(av2_pairs, tmp_path):
    streets = [pair for pair in av2_pairs if pair[0].name in ("street", "av2")]
    scores = scored_by_av2(streets, tmp_path, our_truth, zero_residual)
    assert 0.3 <= scores["EPE/Foreground/Dynamic"] <= 1.5
    assert scores["EPE/Foreground/Static"] < 0.05 and scores["EPE/Background/Static"] < 1e-3


# --- a function of the seed --------------------------------------------------------------------------------


def files_of(log: Path) -> dict[str, bytes]:
    return {str(file.relative_to(log)): file.read_bytes() for file in sorted(log.rglob("*")) if file.is_file()}


def test_same_seed_same_bytes(logs, tmp_path):
    simulate_log(tmp_path / "junction", seed=11, sweeps=3, scanner="small", scene="junction")
    assert files_of(tmp_path / "junction") == files_of(logs["junction"])
    simulate_log(tmp_path / "other" / "junction", seed=12, sweeps=3, scanner="small", scene="junction")
    assert files_of(tmp_path / "other" / "junction") != files_of(logs["junction"])


def test_the_number_of_threads_changes_no_byte(logs, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(3 if threads == 1 else 1)
    try:
        simulate_log(tmp_path / "av2", seed=12, sweeps=2, scanner="av2", scene="street")
    finally:
        torch.set_num_threads(threads)
    assert files_of(tmp_path / "av2") == files_of(logs["av2"])


def test_drives_are_named_by_all_that_makes_them():
    small = scanner_named("small")
    drives = [Drive(1, 2, small), Drive(2, 2, small), Drive(1, 3, small), Drive(1, 2, scanner_named("av2"))]
    drives += [Drive(1, 2, small, "junction"), Drive(1, 2, small, density=0.5)]
    names = {drive.id for drive in drives}
    assert len(names) == len(drives) and Drive(1, 2, small).id in names
    assert all(str(uuid.UUID(name)) == name for name in names)


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"sweeps": 0}, "0 sweeps"),
        ({"seed": -1}, "seed -1"),
        ({"scanner": "sonar"}, "scanner 'sonar' is unknown.* av2"),
        ({"scene": "desert"}, "scene 'desert' is unknown.* street"),
        ({"density": 7.0}, "density 7 cannot"),
    ],
)
def test_bad_arguments_are_named(tmp_path, arguments, says):
    with pytest.raises(ZeroFlowError, match=says):
        simulate_log(tmp_path / "log", **({"seed": 1, "sweeps": 2, "scanner": "small"} | arguments))
    assert not list(tmp_path.iterdir())


def test_polygons_are_clipped_to_the_map():
    low, high = np.array([0.0, 0.0]), np.array([10.0, 5.0])

    def area(polygon):
        x, y = polygon.T
        return 0.5 * abs(x @ np.roll(y, 1) - y @ np.roll(x, 1))

    square = np.array([[-5.0, -5.0], [5.0, -5.0], [5.0, 20.0], [-5.0, 20.0]])
    assert area(clip(square, low, high)) == pytest.approx(25.0)
    triangle = np.array([[8.0, 1.0], [12.0, 1.0], [8.0, 5.0]])
    assert area(clip(triangle, low, high)) == pytest.approx(6.0)
    assert len(clip(square - 100.0, low, high)) == 0
    np.testing.assert_array_equal(clip(triangle - [7.0, 0.0], low, high), triangle - [7.0, 0.0])
