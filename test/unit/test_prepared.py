"""Pairs made ready for training, and kept."""

from __future__ import annotations

import shutil
import threading
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from training_cases import BEAMS, TINY, make_source, off_surface, pose, write_pairs

from zeroflow_core.datasets.av2 import Log
from zeroflow_core.datasets.pseudo_labels import label_folders
from zeroflow_core.datasets.stored_flow import read_stored_flow, write_stored_flow
from zeroflow_core.distillation.pairs import PairRef, choose_pairs
from zeroflow_core.distillation.training import prepared as module
from zeroflow_core.distillation.training.prepared import PreparedPairs, Source
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.pairs import Sweep


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_source(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def strange(tmp_path_factory):
    """Points outside the grid and NaN ones, and labels that are not valid."""
    return make_source(tmp_path_factory.mktemp("strange"), (3,), strange=True)


@pytest.fixture(autouse=True)
def _forget_open_logs():
    yield
    module._open.cache_clear()
    module.students_ground.cache_clear()


def _of(source: Source, folder=None) -> PreparedPairs:
    return PreparedPairs(source, choose_pairs(source.logs), TINY, folder)


def _same(one, other) -> None:
    for field in fields(one):
        first, second = getattr(one, field.name), getattr(other, field.name)
        if field.name == "ego0_SE3_ego1":
            first, second = first.matrix, second.matrix
        assert (first is None) == (second is None), field.name
        if first is not None:
            np.testing.assert_array_equal(first, second)
            assert np.asarray(first).dtype == np.asarray(second).dtype, field.name


def test_a_pair_is_its_sweeps_and_its_labels(source):
    pairs = _of(source)
    assert len(pairs) == 5
    for k, ref in enumerate(pairs.pairs):
        pair, log = pairs[k], Log(ref.log)
        np.testing.assert_array_equal(pair.pc0, log.sweep(ref.index).points)
        np.testing.assert_array_equal(pair.pc1, log.sweep(ref.index + 1).points)
        motion = pose(ref.index).inverse() @ pose(ref.index + 1)
        np.testing.assert_allclose(pair.ego0_SE3_ego1.matrix, motion.matrix, atol=1e-6)
        assert pair.dt == pytest.approx(0.1)
        np.testing.assert_array_equal(np.bincount(pair.ring0), [len(pair.pc0) // BEAMS] * BEAMS)
        assert off_surface(pair.forward()).max() < 2e-3 and off_surface(pair.reverse()).max() < 2e-3
        assert np.isfinite(pair.label0).all() and np.isfinite(pair.label1).all()


def test_labels_are_joined_by_row_whatever_is_left_out(strange):
    for pair in (_of(strange)[k] for k in range(2)):
        assert len(pair.pc0) == len(pair.pc1) == 320 - 4 - 4
        assert np.isfinite(pair.pc0).all() and np.abs(pair.pc0).max() < 15
        for label in (pair.label0, pair.label1):
            assert np.isnan(label).any(axis=1).sum() == np.isnan(label).all(axis=1).sum() == 20
        for sample in (pair.forward(), pair.reverse()):
            # Some partners are among the points that were left out, so all but a few have one.
            assert np.quantile(off_surface(sample), 0.95) < 2e-3


def test_ground_is_left_out_with_its_labels(source, monkeypatch):
    """By the rule, on each of the two sweeps."""
    monkeypatch.setattr(module, "students_ground", lambda path, name: lambda sweep: sweep.points[:, 2] < 0.1)
    pair, whole = _of(source)[0], None
    monkeypatch.undo()
    whole = _of(source)[0]
    for side in "01":
        cloud, label, ring = (getattr(whole, name + side) for name in ("pc", "label", "ring"))
        above = cloud[:, 2] >= 0.1
        assert 0 < above.sum() < len(above)
        np.testing.assert_array_equal(getattr(pair, f"pc{side}"), cloud[above])
        np.testing.assert_array_equal(getattr(pair, f"label{side}"), label[above])
        np.testing.assert_array_equal(getattr(pair, f"ring{side}"), ring[above])


def test_points_are_kept_as_far_as_a_turned_and_scaled_sample_shows_them():
    pairs = PreparedPairs(Source((), label_folders(Path("x"), "train", "nsfp"), "none"), [], TINY, None)
    corner = np.hypot(8, 8)
    points = np.float32([[corner / 0.95, 0, 0], [corner * 1.2, 0, 0], [0, 0, 3.3], [0, 0, -3.3], [0, 0, 4]])
    points = np.concatenate([points, np.float32([[np.nan, 0, 0], [0, np.inf, 0], [0, 0, np.nan]])])
    sweep = Sweep(points, 0, is_ground=np.zeros(8, bool))
    assert pairs._rows(sweep).tolist() == [0, 2, 3]


def test_without_reverse_labels_there_are_none(tmp_path):
    source = make_source(tmp_path, (2,), reverse=False)
    for folder in (None, tmp_path / "kept"):
        pairs = _of(source, folder)
        assert pairs[0].label1 is None and pairs[0].label1 is None


def test_what_is_kept_is_what_was_prepared(source, strange, tmp_path, monkeypatch):
    for one in (source, strange):
        plain, first = _of(one), _of(one, tmp_path)
        content = [plain[k] for k in range(len(plain))]
        for k in range(len(plain)):
            _same(first[k], content[k])
        again = _of(one, tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(again, "_prepare", lambda pair: pytest.fail("it was kept"))
            for k in range(len(plain)):
                _same(again[k], content[k])
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".safetensors"]


def test_each_pair_has_a_file_of_its_own(source, tmp_path):
    pairs = _of(source, tmp_path)
    for k in range(len(pairs)):
        _ = pairs[k]
    assert len(list(tmp_path.rglob("*.safetensors"))) == len(pairs)


@pytest.mark.parametrize("change", ["ground", "labels", "grid", "direction"])
def test_another_content_lies_in_another_folder(source, tmp_path, monkeypatch, change):
    _ = _of(source, tmp_path)[0]
    labels, grid = source.labels, TINY
    if change == "ground":
        monkeypatch.setattr(module, "ground_of", lambda log, name: lambda sweep: sweep.points[:, 2] < 0)
        source = replace(source, ground="patchwork")
    elif change == "labels":
        forward = shutil.copytree(labels.forward, tmp_path / "copy" / labels.forward.name)
        source = replace(source, labels=replace(labels, forward=forward))
    elif change == "direction":
        source = replace(source, labels=replace(labels, reverse=None))
    else:
        grid = replace(TINY, minimum=(-16.0, -16.0, -3.0), maximum=(16.0, 16.0, 3.0))
    _ = PreparedPairs(source, choose_pairs(source.logs), grid, tmp_path)[0]
    assert len({path.parents[1] for path in tmp_path.rglob("*.safetensors")}) == 2


def test_labels_written_anew_are_prepared_anew(tmp_path):
    source = make_source(tmp_path)
    pairs = _of(source, tmp_path / "kept")
    before, digest = pairs[0].label0.copy(), pairs.digest
    log = Log(pairs.pairs[0].log)
    (path,) = source.labels.files(log, 0)[:1]
    residual, valid = read_stored_flow(path, len(log.sweep(0)))
    write_stored_flow(path, residual * 5, valid)
    np.testing.assert_allclose(pairs[0].label0, 5 * before.astype(np.float32), rtol=2e-3)
    rng = np.random.default_rng(0)
    write_stored_flow(path, rng.normal(size=residual.shape), valid)
    assert pairs.digest != digest, "a training with other labels is another training"


def test_weight_and_order_of_logs_do_not_matter_to_what_is_kept(source, tmp_path, monkeypatch):
    pairs = _of(source, tmp_path)
    for k in range(len(pairs)):
        _ = pairs[k]
    turned = replace(source, weight=3.0, logs=source.logs[::-1])
    again = _of(turned, tmp_path)
    monkeypatch.setattr(again, "_prepare", lambda pair: pytest.fail("it was kept"))
    _same(again[0], pairs[3])


@pytest.mark.parametrize("damage", ["cut short", "empty", "noise", "something else"])
def test_a_damaged_file_is_named(source, tmp_path, damage):
    from safetensors.numpy import save_file

    _ = _of(source, tmp_path)[0]
    (path,) = tmp_path.rglob("*.safetensors")
    content = path.read_bytes()
    if damage == "something else":
        save_file({"x": np.zeros(3)}, path)
    else:
        path.write_bytes({"cut short": content[:-7], "empty": b"", "noise": b"\xff" * 500}[damage])
    with pytest.raises(ZeroFlowError, match=f"{path.name} is damaged .*remove it"):
        _ = _of(source, tmp_path)[0]
    path.unlink()
    _same(_of(source, tmp_path)[0], _of(source)[0])


def test_a_write_that_fails_leaves_nothing(source, tmp_path, monkeypatch):
    folder = tmp_path / "kept"

    def full_disk(path, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("zeroflow_core.files.os.replace", full_disk)
    with pytest.raises(ZeroFlowError, match="cannot write .*No space left on device"):
        _ = _of(source, folder)[0]
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_several_may_prepare_the_same_pair(source, tmp_path):
    expected, found, mistakes = _of(source)[0], [], []

    def read():
        try:
            found.append(_of(source, tmp_path)[0])
        except BaseException as error:
            mistakes.append(error)

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not mistakes
    for one in found:
        _same(one, expected)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_missing_and_damaged_files_are_told(tmp_path):
    path = write_pairs(tmp_path, "log", 3, seed=1)
    source = Source((path,), label_folders(tmp_path / "labels", "train", "nsfp"), "none")
    (source.labels.forward / "log" / "1000000000.feather").unlink()
    with pytest.raises(ZeroFlowError, match="no flow for sweep 1000000000"):
        PreparedPairs(source, [PairRef(path, 0)], TINY, tmp_path / "kept")[0]
    (path / "sensors" / "lidar" / "1200000000.feather").write_bytes(b"ARROW1 no more")
    module._open.cache_clear()
    with pytest.raises(ZeroFlowError, match="1200000000.feather is damaged"):
        PreparedPairs(source, [PairRef(path, 1)], TINY, tmp_path / "kept")[0]
    assert not (tmp_path / "kept").exists()
