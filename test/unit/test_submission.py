"""Submissions, judged by av2's tools (2023) and by the 2024 challenge's own reader."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_cases import NO_CHALLENGE_JUDGE
from pyarrow import feather

from zeroflow_core.datasets.av2 import Log
from zeroflow_core.datasets.av2_writer import write_log, write_table
from zeroflow_core.datasets.stored_flow import read_stored_flow
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.submission import Submission
from zeroflow_core.evaluation.truth import Estimate
from zeroflow_core.geometry import SE3
from zeroflow_core.pairs import Sweep, remove_ego_motion
from zeroflow_core.simulation.log import simulate_log

SWEEPS = {"b-three": 3, "C-seven": 7, "a-four": 4}  # av2's loader takes C first, then a, then b
OF_2023 = [("C-seven", 0), ("C-seven", 5), ("b-three", 1)]  # 0, 5, 10 of 6 + 3 + 2 pairs
OF_2024 = [("C-seven", 0), ("C-seven", 5), ("a-four", 0), ("b-three", 0)]


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> Path:
    """Three logs of different lengths, where av2's loader looks for them."""
    folder = tmp_path_factory.mktemp("root") / "sim" / "sensor" / "val"
    for seed, (name, sweeps) in enumerate(SWEEPS.items()):
        simulate_log(folder / name, seed=seed + 5, sweeps=sweeps, scanner="small", scene="street")
    return folder


@pytest.fixture(scope="module")
def av2_pairs(split) -> dict[tuple[str, int], tuple]:
    """What av2 evaluates: (log, number of the pair) → its loader's sweep 0, sweep 1, ego motion and flow."""
    from av2.evaluation.scene_flow.utils import get_eval_subset
    from av2.torch.data_loaders.scene_flow import SceneFlowDataloader

    loader = SceneFlowDataloader(split.parents[2], "sim", "val")
    pairs = {}
    with torch.no_grad():
        for k in get_eval_subset(loader):
            datum = loader[k]
            log_id, stamp_ns = datum[0].sweep_uuid
            pairs[log_id, Log(split / log_id).stamps_ns.tolist().index(stamp_ns)] = datum
    return pairs


@pytest.fixture(scope="module")
def official_masks(split, av2_pairs, tmp_path_factory) -> Path:
    """av2's archive of masks, made by av2."""
    from av2.evaluation.scene_flow.make_mask_files import make_mask_files

    path = tmp_path_factory.mktemp("masks") / "masks.zip"
    with torch.no_grad():
        make_mask_files(str(path), str(split.parents[2]), "sim", "val")
    return path


def logs_of(split: Path) -> list[Path]:
    return sorted(split.iterdir())


def ego_motion(log: Log, i: int) -> SE3:
    return log.pose(log.stamps_ns[i]).inverse() @ log.pose(log.stamps_ns[i + 1])


def nothing_moves(points: np.ndarray) -> Estimate:
    return Estimate(np.zeros(points.shape, dtype=np.float32), np.ones(len(points), dtype=bool))


def fill(submission: Submission, split: Path, wanted: list[tuple[str, int]], estimate=nothing_moves) -> None:
    for log_id, i in wanted:
        log = Log(split / log_id)
        sweep = log.sweep(i)
        submission.add(log, i, sweep, ego_motion(log, i), estimate(sweep.points))


def content(archive: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


def columns(feathers: bytes | Path) -> dict[str, np.ndarray]:
    table = feather.read_table(feathers if isinstance(feathers, Path) else io.BytesIO(feathers))
    return {name: table[name].to_numpy() for name in table.column_names}


def file_name(split: Path, log_id: str, i: int) -> str:
    return f"{log_id}/{Log(split / log_id).stamps_ns[i]}.feather"


# --- which pairs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("year", "expected"), [(2023, OF_2023), (2024, OF_2024)])
def test_every_fifth_pair(split, tmp_path, year, expected):
    for logs in (logs_of(split), logs_of(split)[::-1]):
        submission = Submission(year, tmp_path, logs)
        wanted = [(name, i) for name, sweeps in SWEEPS.items() for i in range(sweeps) if submission.wants(name, i)]
        assert set(wanted) == set(expected)


def test_av2s_loader_counts_as_we_do(av2_pairs):
    assert list(av2_pairs) == OF_2023


def test_logs_of_one_sweep_count_for_nothing(tmp_path):
    """And only the names of files are looked at."""
    for name, sweeps in {"a": 1, "b": 4, "c": 1, "d": 4}.items():
        for k in range(sweeps):
            file = tmp_path / name / "sensors" / "lidar" / f"{1000 + k}.feather"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    submission = Submission(2023, tmp_path / "out", [tmp_path / name for name in "abcd"])
    assert [(name, i) for name in "abcd" for i in range(4) if submission.wants(name, i)] == [("b", 0), ("d", 2)]
    with pytest.raises(ZeroFlowError, match="nothing to submit: 2 logs"):
        Submission(2024, tmp_path / "out", [tmp_path / name for name in "ac"])


def test_official_masks_decide(split, tmp_path, official_masks):
    submission = Submission(2023, tmp_path, logs_of(split), masks=official_masks)
    assert all(submission.wants(*pair) for pair in OF_2023) and not submission.wants("C-seven", 1)
    few = tmp_path / "few.zip"
    with zipfile.ZipFile(few, "w") as packed:
        packed.writestr("README.txt", "not a mask")
        packed.writestr(file_name(split, "a-four", 1), b"")
    submission = Submission(2023, tmp_path, logs_of(split), masks=few)
    assert submission.wants("a-four", 1) and not any(submission.wants(*pair) for pair in OF_2023)


# --- 2023 --------------------------------------------------------------------------------------------------


def test_2023_with_official_masks_passes_av2s_check(split, tmp_path, official_masks, capsys):
    from av2.evaluation.scene_flow.make_submission_archive import validate

    folder = tmp_path / "submission-2023"
    submission = Submission(2023, folder, logs_of(split), masks=official_masks)
    fill(submission, split, OF_2023)
    capsys.readouterr()
    archive = submission.finish(tmp_path / "submission-2023.zip")
    assert capsys.readouterr() == ("", "")
    assert archive == tmp_path / "submission-2023.zip"
    assert list(content(archive)) == [file_name(split, *pair) for pair in OF_2023]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["submission-2023", "submission-2023.zip"]
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path / "read back")
    validate(tmp_path / "read back", official_masks)


def test_2023_is_the_file_that_av2_writes(split, tmp_path, official_masks, av2_pairs):
    """For the motion of the ego vehicle alone, as av2's example submission."""
    import pandas as pd
    from av2.evaluation.scene_flow.utils import get_eval_point_mask, write_output_file
    from kornia.geometry.linalg import transform_points

    submission = Submission(2023, tmp_path / "ours", logs_of(split), masks=official_masks)
    fill(submission, split, OF_2023)
    for pair, (sweep0, _, ego1_SE3_ego0, _) in av2_pairs.items():
        points = sweep0.lidar.as_tensor()[get_eval_point_mask(sweep0.sweep_uuid, official_masks), :3]
        rigid = (transform_points(ego1_SE3_ego0.matrix(), points[None])[0] - points).numpy()
        write_output_file(rigid, np.zeros(len(rigid), dtype=bool), sweep0.sweep_uuid, tmp_path / "av2")
        name = file_name(split, *pair)
        ours, theirs = (pd.read_feather(tmp_path / folder / name) for folder in ("ours", "av2"))
        pd.testing.assert_frame_equal(ours, theirs, check_exact=False, atol=2e-3, rtol=2e-3)


def test_2023_mask_by_the_rule_is_av2s(split, tmp_path, av2_pairs):
    from av2.evaluation.scene_flow.utils import compute_eval_point_mask

    submission = Submission(2023, tmp_path / "out", logs_of(split))
    fill(submission, split, OF_2023)
    submission.finish(tmp_path / "out.zip")
    masks = content(tmp_path / "out-masks.zip")
    assert list(masks) == [file_name(split, *pair) for pair in OF_2023]
    for pair, datum in av2_pairs.items():
        mask = columns(masks[file_name(split, *pair)])["mask"]
        theirs = compute_eval_point_mask(datum).numpy()
        assert mask.dtype == np.bool_ and mask.shape == theirs.shape
        assert (mask != theirs).sum() <= 1  # av2 computes in float32
        assert 0.2 < mask.mean() < 0.9


def test_2023_truth_scores_zero_by_av2(split, tmp_path, official_masks, av2_pairs):
    from av2.evaluation.scene_flow.eval import evaluate_zip, results_to_dict
    from av2.evaluation.scene_flow.make_annotation_files import make_annotation_files

    (tmp_path / "annotations").mkdir()
    with torch.no_grad():
        make_annotation_files(str(tmp_path / "annotations"), str(official_masks), str(split.parents[2]), "sim", "val")

    def score(name: str, scale: float) -> dict[str, float]:
        submission = Submission(2023, tmp_path / name, logs_of(split), masks=official_masks)
        for (log_id, i), datum in av2_pairs.items():
            log = Log(split / log_id)
            sweep, ego = log.sweep(i), ego_motion(log, i)
            residual = scale * remove_ego_motion(sweep.points, datum[3].flow.numpy(), ego)
            estimate = Estimate(residual.astype(np.float32), np.ones(len(sweep), dtype=bool))
            submission.add(log, i, sweep, ego, estimate)
        archive = submission.finish(tmp_path / f"{name}.zip")
        return results_to_dict(evaluate_zip(tmp_path / "annotations", archive))

    truth, half = score("truth", 1.0), score("half", 0.5)
    assert truth["EPE 3-Way Average"] < 1e-3 and truth["EPE/Foreground/Dynamic"] < 2e-3  # float16
    assert truth["Dynamic IoU"] > 0.99
    assert half["EPE/Foreground/Dynamic"] > 0.1


def test_2023_zero_residual_on_a_real_pair_scores_as_known(test_data, tmp_path):
    from av2.evaluation.scene_flow.eval import evaluate_zip, results_to_dict
    from av2.evaluation.scene_flow.make_annotation_files import make_annotation_files
    from av2.evaluation.scene_flow.make_mask_files import make_mask_files

    masks, annotations, split = tmp_path / "masks.zip", tmp_path / "annotations", test_data / "av2" / "sensor" / "val"
    annotations.mkdir()
    with torch.no_grad():
        make_mask_files(str(masks), str(test_data), "av2", "val")
        make_annotation_files(str(annotations), str(masks), str(test_data), "av2", "val")
    pair = (logs_of(split)[0].name, 0)
    submission = Submission(2023, tmp_path / "out", logs_of(split), masks=masks)
    fill(submission, split, [pair])
    scores = results_to_dict(evaluate_zip(annotations, submission.finish(tmp_path / "out.zip")))
    parts = [scores[f"EPE/{part}"] for part in ("Foreground/Dynamic", "Foreground/Static", "Background/Static")]
    np.testing.assert_allclose([*parts, scores["EPE 3-Way Average"]], [0.6737, 0.0062, 0.0, 0.2267], atol=1e-3)

    by_rule = Submission(2023, tmp_path / "by rule", logs_of(split))
    fill(by_rule, split, [pair])
    by_rule.finish(tmp_path / "by rule.zip")
    mask = columns(content(tmp_path / "by rule-masks.zip")[file_name(split, *pair)])["mask"]
    assert (mask != columns(content(masks)[file_name(split, *pair)])["mask"]).sum() <= 1
    assert abs(mask.sum() - 78_506) <= 1


@pytest.fixture
def tiny(tmp_path) -> Path:
    """A log of two sweeps whose ego vehicle goes 1 m ahead and turns left by 90°, on a map that is flat at 0."""
    points = np.array(
        [
            [10.0, 0.0, 1.0],  # stands
            [10.0, 0.0, 1.0],  # moves 2 m to the left
            [10.0, 0.0, 1.0],  # no estimate
            [50.0, -50.0, 0.3125],  # the corner, just above the ground by av2's rule, ground by ZeroFlow's
            [50.03125, 0.0, 1.0],  # beyond the range
            [0.0, -50.03125, 1.0],
            [10.0, 0.0, 0.28125],  # ground
            [10.0, 0.0, -3.0],
        ],
        dtype=np.float32,
    )
    ahead = SE3.from_yaw(np.pi / 2, np.array([1.0, 0.0, 0.0]))
    log = tmp_path / "split" / "tiny"
    write_log(log, [Sweep(points, 10, SE3.identity()), Sweep(points, 20, ahead)], None, {})
    (log / "map").mkdir()
    np.save(log / "map" / "tiny_ground_height_surface____SIM.npy", np.zeros((200, 200), dtype=np.float16))
    (log / "map" / "tiny___img_Sim2_city.json").write_text(json.dumps({"R": [1, 0, 0, 1], "t": [100, 100], "s": 1.0}))
    return log


def tiny_estimate(points: np.ndarray) -> Estimate:
    residual = np.zeros(points.shape, dtype=np.float32)
    residual[1] = (0, 2, 0)
    residual[3] = (0.0499, 0, 0)
    residual[4:] = (7, 7, 7)  # of points that no row is for
    return Estimate(residual, np.array([True, True, False, True, True, True, True, True]))


def test_2023_rows_known_by_hand(tiny, tmp_path):
    submission = Submission(2023, tmp_path / "out", [tiny])
    fill(submission, tiny.parent, [("tiny", 0)], tiny_estimate)
    written = columns(content(submission.finish(tmp_path / "out.zip"))["tiny/10.feather"])
    assert {name: str(values.dtype) for name, values in written.items()} == {
        "flow_tx_m": "float16",
        "flow_ty_m": "float16",
        "flow_tz_m": "float16",
        "is_dynamic": "bool",
    }
    # Seen from ego1, (10, 0) is 9 m to the right: (0, -9); with 2 m to the left (2, -9). The corner is at
    # (50.0499 - 1, -50), turned: (-50, -49.0499).
    flow = np.stack([written[f"flow_t{axis}_m"] for axis in "xyz"], axis=1)
    np.testing.assert_array_equal(flow, np.float16([[-10, -9, 0], [-8, -9, 0], [-10, -9, 0], [-100, 0.9501, 0]]))
    assert written["is_dynamic"].tolist() == [False, True, False, False]
    mask = columns(content(tmp_path / "out-masks.zip")["tiny/10.feather"])["mask"]
    assert mask.tolist() == [True] * 4 + [False] * 4


def test_2023_a_log_without_a_map(tiny, tmp_path, official_masks):
    shutil.rmtree(tiny / "map")
    with pytest.raises(ZeroFlowError, match="tiny has no map/ .*official masks"):
        fill(Submission(2023, tmp_path / "out", [tiny]), tiny.parent, [("tiny", 0)])
    masks = tmp_path / "masks.zip"
    with zipfile.ZipFile(masks, "w") as packed:
        packed.writestr("tiny/10.feather", mask_file(tmp_path, np.arange(8) < 3))
    submission = Submission(2023, tmp_path / "out", [tiny], masks=masks)
    fill(submission, tiny.parent, [("tiny", 0)])
    assert len(columns(content(submission.finish(tmp_path / "out.zip"))["tiny/10.feather"])["is_dynamic"]) == 3


def mask_file(tmp_path: Path, mask: np.ndarray, **more: np.ndarray) -> bytes:
    write_table(tmp_path / "mask.feather", {"mask": mask, **more})
    return (tmp_path / "mask.feather").read_bytes()


def test_masks_that_are_not_for_this_split(split, tiny, tmp_path, official_masks):
    with pytest.raises(ZeroFlowError, match="3 of 3 masks in .*masks.zip are of no pair of these logs: C-seven/"):
        Submission(2023, tmp_path, [tiny], masks=official_masks)
    with pytest.raises(ZeroFlowError, match="1 of 3 masks .*: b-three/"):
        Submission(2023, tmp_path, [split / "C-seven", split / "a-four"], masks=official_masks)
    last = tmp_path / "last.zip"
    with zipfile.ZipFile(last, "w") as packed:
        packed.writestr("tiny/20.feather", b"of the last sweep, which no sweep follows")
    with pytest.raises(ZeroFlowError, match="1 of 1 masks"):
        Submission(2023, tmp_path, [tiny], masks=last)
    last.write_bytes(official_masks.read_bytes()[:100])
    with pytest.raises(ZeroFlowError, match="last.zip is no archive of masks"):
        Submission(2023, tmp_path, [tiny], masks=last)
    with pytest.raises(ZeroFlowError, match="nothing.zip is no archive of masks"):
        Submission(2023, tmp_path, [tiny], masks=tmp_path / "nothing.zip")
    with pytest.raises(ZeroFlowError, match="a submission of 2024 has no masks"):
        Submission(2024, tmp_path, [tiny], masks=official_masks)
    with pytest.raises(ZeroFlowError, match="no submission of 2025"):
        Submission(2025, tmp_path, [tiny])


def test_masks_that_are_not_for_this_sweep(tiny, tmp_path):
    masks, half = tmp_path / "masks.zip", np.arange(8) < 4
    for bad, sentence in {
        mask_file(tmp_path, half[:7]): r"bool for 8 points, and has mask bool for 7",
        mask_file(tmp_path, half.astype(np.uint8)): r"and has mask uint8 for 8",
        mask_file(tmp_path, half, more=half): r"and has mask bool, more bool for 8",
        b"no feather": r"tiny/10.feather in .*masks.zip is damaged",
    }.items():
        with zipfile.ZipFile(masks, "w") as packed:
            packed.writestr("tiny/10.feather", bad)
        submission = Submission(2023, tmp_path / "out", [tiny], masks=masks)
        with pytest.raises(ZeroFlowError, match=sentence):
            fill(submission, tiny.parent, [("tiny", 0)])
        assert not submission.has(Log(tiny), 0)


def test_2023_files_made_with_other_masks_are_refused(tiny, tmp_path):
    fill(Submission(2023, tmp_path / "out", [tiny]), tiny.parent, [("tiny", 0)])
    masks = tmp_path / "masks.zip"
    with zipfile.ZipFile(masks, "w") as packed:
        packed.writestr("tiny/10.feather", mask_file(tmp_path, np.arange(8) < 3))
    submission = Submission(2023, tmp_path / "out", [tiny], masks=masks)
    with pytest.raises(ZeroFlowError, match="av2's check refuses .*10.feather has 4 rows but it should have 3"):
        submission.finish(tmp_path / "out.zip")
    assert not (tmp_path / "out.zip").exists()


# --- 2024 --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("supervised", [False, True])
def test_2024_archive(split, tmp_path, supervised):
    submission = Submission(2024, tmp_path / "out", logs_of(split), supervised=supervised)

    def estimate(points: np.ndarray) -> Estimate:
        covered = points[:, 0] > 0
        return Estimate(np.where(covered[:, None], points / 100, np.float32(0)), covered)

    fill(submission, split, OF_2024, estimate)
    packed = content(submission.finish(tmp_path / "out.zip"))
    names = [f"{log_id}/{i:010d}.feather" for log_id, i in OF_2024]
    assert list(packed) == ["metadata.json", *names]
    assert json.loads(packed["metadata.json"]) == {"Is Supervised?": supervised}
    for name, (log_id, i) in zip(names, OF_2024, strict=True):
        points = Log(split / log_id).sweep(i).points
        (tmp_path / "one.feather").write_bytes(packed[name])
        residual, is_valid = read_stored_flow(tmp_path / "one.feather", len(points))
        np.testing.assert_array_equal(is_valid, points[:, 0] > 0)
        np.testing.assert_array_equal(residual[is_valid], points[is_valid] / 100)
        assert not columns(packed[name])["flow_tx_m"][~is_valid].any()


def test_2024_is_read_by_the_challenges_reader(split, tmp_path):
    """Its files stand in a row, so those between ours are filled up with empty ones."""
    module = "bucketed_scene_flow_eval.datasets.argoverse2.argoverse_scene_flow"
    reader = pytest.importorskip(module, reason=NO_CHALLENGE_JUDGE, exc_type=ImportError)
    submission = Submission(2024, tmp_path / "out", logs_of(split))
    fill(submission, split, OF_2024, lambda points: Estimate(points / 100, np.ones(len(points), dtype=bool)))
    with zipfile.ZipFile(submission.finish(tmp_path / "out.zip")) as packed:
        packed.extractall(tmp_path / "flow")
    for i in range(6):
        (tmp_path / "flow" / "C-seven" / f"{i:010d}.feather").touch()
    sequence = reader.ArgoverseSceneFlowSequence("C-seven", split / "C-seven", tmp_path / "flow" / "C-seven")
    for i in (0, 5):
        frame, _ = sequence.load(i, i)
        points = Log(split / "C-seven").sweep(i).points
        np.testing.assert_array_equal(frame.flow.full_flow, points / 100)
        assert frame.flow.mask.all() and frame.log_timestamp == Log(split / "C-seven").stamps_ns[i]


def test_2024_same_flow_same_bytes(split, tmp_path):
    archives = []
    for name in ("one", "two"):
        submission = Submission(2024, tmp_path / name, logs_of(split))
        fill(submission, split, OF_2024 if name == "one" else OF_2024[::-1])
        for k, file in enumerate(sorted((tmp_path / name).rglob("*.feather"))):
            os.utime(file, (10**9 + k, 10**9 + k))
        archives.append(submission.finish(tmp_path / f"{name}.zip").read_bytes())
    assert archives[0] == archives[1]


# --- a run that stops and goes on --------------------------------------------------------------------------


@pytest.mark.parametrize(("year", "wanted"), [(2023, OF_2023), (2024, OF_2024)])
def test_a_run_goes_on_where_it_was_killed(split, tmp_path, monkeypatch, year, wanted):
    first = Submission(year, tmp_path / "out", logs_of(split))
    fill(first, split, wanted[:1])
    log_id, i = wanted[1]

    def killed(*names):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            fill(first, split, wanted[1:2])
    second = Submission(year, tmp_path / "out", logs_of(split))
    assert [second.has(Log(split / name), k) for name, k in wanted] == [True] + [False] * (len(wanted) - 1)
    missing = len(wanted) - 1
    with pytest.raises(ZeroFlowError, match=f"{missing} of {len(wanted)} files are missing: {log_id}/.*run the eval"):
        second.finish(tmp_path / "out.zip")
    assert not (tmp_path / "out.zip").exists()
    fill(second, split, wanted[1:])
    assert len(content(second.finish(tmp_path / "out.zip"))) == len(wanted) + (year == 2024)
    assert not list(tmp_path.rglob(".*"))


def test_2023_a_pair_needs_its_mask_too(tiny, tmp_path):
    submission = Submission(2023, tmp_path / "out", [tiny])
    fill(submission, tiny.parent, [("tiny", 0)])
    assert submission.has(Log(tiny), 0)
    (tmp_path / "out-masks" / "tiny" / "10.feather").unlink()
    assert not submission.has(Log(tiny), 0)


@pytest.mark.parametrize("year", [2023, 2024])
def test_damaged_files_are_named(split, tmp_path, year):
    wanted = {2023: OF_2023, 2024: OF_2024}[year]
    submission = Submission(year, tmp_path / "out", logs_of(split))
    fill(submission, split, wanted)
    file = sorted((tmp_path / "out" / "b-three").iterdir())[0]
    file.write_bytes(file.read_bytes()[:-30])
    sentence = f"1 of {len(wanted)} files .* damaged, or not for their sweep: b-three/{file.name}; remove"
    with pytest.raises(ZeroFlowError, match=sentence):
        submission.finish(tmp_path / "out.zip")
    assert not (tmp_path / "out.zip").exists()


def test_2024_files_of_another_sweep_are_named(split, tmp_path):
    submission = Submission(2024, tmp_path / "out", logs_of(split))
    fill(submission, split, OF_2024)
    shutil.copy(tmp_path / "out/C-seven/0000000000.feather", tmp_path / "out/C-seven/0000000005.feather")
    with pytest.raises(ZeroFlowError, match="1 of 4 files .*: C-seven/0000000005.feather; remove"):
        submission.finish(tmp_path / "out.zip")


def test_an_archive_that_cannot_be_written(tiny, tmp_path):
    submission = Submission(2024, tmp_path / "out", [tiny])
    fill(submission, tiny.parent, [("tiny", 0)])
    with pytest.raises(ZeroFlowError, match="cannot write .*out/tiny/0000000000.feather/a.zip"):
        submission.finish(tmp_path / "out" / "tiny" / "0000000000.feather" / "a.zip")
