"""Pseudo-labels on disk: both directions, published ones, what is missing; and the ground that goes with a log."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from zeroflow_core.datasets.av2 import Log
from zeroflow_core.datasets.av2_writer import write_log
from zeroflow_core.datasets.ground_choice import ground_of
from zeroflow_core.datasets.pseudo_labels import PseudoLabels, find_pseudo_labels, label_folders
from zeroflow_core.datasets.stored_flow import write_stored_flow
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.geometry import SE3
from zeroflow_core.ground import Patchwork, no_ground
from zeroflow_core.pairs import Sweep

STAMPS = (100, 1000, 2000)


@pytest.fixture
def log(tmp_path) -> Log:
    """Three sweeps of 2, 3 and 4 points."""
    sweeps = [Sweep(np.zeros((k + 2, 3), np.float32), stamp, SE3.identity()) for k, stamp in enumerate(STAMPS)]
    write_log(tmp_path / "data" / "a log", sweeps, None, {})
    return Log(tmp_path / "data" / "a log")


def store(folder: Path, name: str, points: int, flow: float) -> None:
    is_valid = np.arange(points) > 0  # all but the first
    write_stored_flow(folder / "a log" / f"{name}.feather", np.full((points, 3), flow), is_valid)


def test_labels_in_both_directions_are_joined_to_their_own_sweep(log, tmp_path):
    labels = label_folders(tmp_path, "train", "nsfp")
    for i in (0, 1):
        store(labels.forward, str(STAMPS[i]), i + 2, 1.0 + i)
        store(labels.reverse, str(STAMPS[i + 1]), i + 3, -1.0 - i)
    for i in (0, 1):
        assert labels.has(log, i)
        forward, reverse = labels.read(log, i)
        assert forward.shape == (i + 2, 3) and reverse.shape == (i + 3, 3)
        assert forward.dtype == reverse.dtype == np.float32
        assert np.isnan(forward[0]).all() and (forward[1:] == 1 + i).all()
        assert np.isnan(reverse[0]).all() and (reverse[1:] == -1 - i).all()


def test_published_labels_are_numbered_and_have_no_reverse(log, tmp_path):
    forward = tmp_path / "val_nsfp_flow_feather"
    for i in (0, 1):
        store(forward, f"{i:010d}", i + 2, 1.0 + i)
    labels = find_pseudo_labels(tmp_path)
    assert labels == PseudoLabels(forward) and labels.has(log, 1)
    assert labels.read(log, 1)[1] is None and (labels.read(log, 1)[0][1:] == 2).all()


def test_numbered_reverse_labels_are_of_the_second_sweep(log, tmp_path):
    forward, reverse = tmp_path / "f", tmp_path / "f_reverse"
    for i in (0, 1):
        store(forward, f"{i:010d}", i + 2, 1.0)
        store(reverse, f"{i:010d}", i + 3, 2.0)
    assert find_pseudo_labels(forward).reverse == reverse
    assert len(find_pseudo_labels(forward).read(log, 1)[1]) == 4


def test_a_pair_is_labelled_when_both_directions_are_there(log, tmp_path):
    labels = label_folders(tmp_path, "train", "nsfp")
    labels.forward.mkdir()
    with pytest.raises(ZeroFlowError, match="there is no folder .*_reverse"):
        labels.has(log, 0)
    labels.reverse.mkdir()
    assert not labels.has(log, 0)
    with pytest.raises(ZeroFlowError, match="has no folder a log"):
        labels.read(log, 0)
    store(labels.reverse, "1000", 3, 1.0)
    assert not labels.has(log, 0)
    store(labels.forward, "100", 2, 1.0)
    assert labels.has(log, 0) and not labels.has(log, 1)
    with pytest.raises(ZeroFlowError, match="has no flow for sweep 1000: neither 1000.feather nor 2 numbered files"):
        labels.read(log, 1)


def test_labels_of_another_cloud_are_refused(log, tmp_path):
    labels = label_folders(tmp_path, "train", "nsfp")
    store(labels.forward, "100", 2, 1.0)
    store(labels.reverse, "1000", 2, 1.0)  # as many as the first sweep has
    with pytest.raises(ZeroFlowError, match="1000.feather holds flow for 2 points, but the sweep has 3"):
        labels.read(log, 0)


def test_folders_that_are_no_labels(tmp_path):
    with pytest.raises(ZeroFlowError, match="there is no folder"):
        find_pseudo_labels(tmp_path / "nowhere")
    with pytest.raises(ZeroFlowError, match="holds no labels"):
        find_pseudo_labels(tmp_path)
    for split in ("train", "val"):
        (tmp_path / f"{split}_nsfp_flow_feather").mkdir()
    with pytest.raises(ZeroFlowError, match="several sets of labels; give one of them"):
        find_pseudo_labels(tmp_path)


def test_the_ground_of_a_log(log):
    assert isinstance(ground_of(log), Patchwork) and ground_of(log, "none") is no_ground
    with pytest.raises(ZeroFlowError, match="has no map with ground heights"):
        ground_of(log, "map")
    with pytest.raises(ZeroFlowError, match="ground rule 'grass' is unknown"):
        ground_of(log, "grass")
