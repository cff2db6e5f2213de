"""Flow in files: the published layout, read and written."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from pyarrow import feather

from zeroflow_core.datasets.av2 import Log
from zeroflow_core.datasets.av2_writer import write_log, write_table
from zeroflow_core.datasets.stored_flow import StoredFlows, read_stored_flow, write_stored_flow
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.geometry import SE3
from zeroflow_core.pairs import Sweep

RESIDUAL = np.array([[1.5, -0.25, 0.001], [9.0, 9.0, 9.0], [0.0, 0.0, 0.0], [np.nan, 1.0, 2.0]])
IS_VALID = np.array([True, False, True, False])
STAMPS = (100, 1000, 2000, 3000)


@pytest.fixture
def log(tmp_path) -> Log:
    """Four sweeps of 2, 3, 4 and 5 points."""
    sweeps = [Sweep(np.zeros((k + 2, 3), np.float32), stamp, SE3.identity()) for k, stamp in enumerate(STAMPS)]
    write_log(tmp_path / "a log", sweeps, None, {})
    return Log(tmp_path / "a log")


def store(folder: Path, log: Log, names: list[str]) -> None:
    """Flow of length 1, 2, 3 for the pairs of the log, in files of these names."""
    for k, name in enumerate(names):
        write_stored_flow(folder / log.log_id / name, np.full((k + 2, 3), k + 1.0), np.ones(k + 2, dtype=bool))


def test_what_is_written_is_the_published_layout(tmp_path):
    write_stored_flow(tmp_path / "log" / "0000000000.feather", RESIDUAL, IS_VALID)
    table = feather.read_table(tmp_path / "log" / "0000000000.feather")
    columns = [("is_valid", "bool"), ("flow_tx_m", "float"), ("flow_ty_m", "float"), ("flow_tz_m", "float")]
    assert [(field.name, str(field.type)) for field in table.schema] == columns
    assert table["is_valid"].to_pylist() == [True, False, True, False]
    assert table["flow_tx_m"].to_pylist() == [1.5, 0, 0, 0]  # zero where there is no flow
    assert table["flow_ty_m"].to_pylist() == [-0.25, 0, 0, 0]
    assert table["flow_tz_m"].to_pylist() == [float(np.float32(0.001)), 0, 0, 0]
    assert [file.name for file in (tmp_path / "log").iterdir()] == ["0000000000.feather"]


def test_what_is_read_is_what_was_written(tmp_path):
    write_stored_flow(tmp_path / "1.feather", RESIDUAL, IS_VALID)
    residual, is_valid = read_stored_flow(tmp_path / "1.feather", 4)
    assert residual.dtype == np.float32 and is_valid.dtype == np.bool_
    np.testing.assert_array_equal(is_valid, IS_VALID)
    np.testing.assert_array_equal(residual[IS_VALID], RESIDUAL[IS_VALID].astype(np.float32))
    assert np.isnan(residual[~IS_VALID]).all()


def test_a_killed_writer_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "1.feather"
    write_stored_flow(path, np.ones((2, 3)), np.ones(2, dtype=bool))
    before = path.read_bytes()

    def killed(*names):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_stored_flow(path, np.zeros((2, 3)), np.ones(2, dtype=bool))
    assert path.read_bytes() == before


def test_a_file_that_cannot_be_written(tmp_path):
    (tmp_path / "log").write_text("in the way")
    with pytest.raises(ZeroFlowError, match="cannot write .*1.feather"):
        write_stored_flow(tmp_path / "log" / "1.feather", RESIDUAL, IS_VALID)


def test_files_that_cannot_be_used(tmp_path):
    path = tmp_path / "1.feather"
    with pytest.raises(ZeroFlowError, match="there is no stored flow .*1.feather"):
        read_stored_flow(path, 4)
    write_stored_flow(path, RESIDUAL, IS_VALID)
    with pytest.raises(ZeroFlowError, match="holds flow for 4 points, but the sweep has 5"):
        read_stored_flow(path, 5)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ZeroFlowError, match="1.feather is damaged"):
        read_stored_flow(path, 4)
    write_table(path, {"flow_tx_m": np.zeros(4), "flow_ty_m": np.zeros(4), "flow_tz_m": np.zeros(4)})
    with pytest.raises(ZeroFlowError, match="column is_valid"):
        read_stored_flow(path, 4)


def test_a_file_named_by_the_stamp(log, tmp_path):
    store(tmp_path / "flow", log, ["100.feather", "1000.feather", "2000.feather"])
    flows = StoredFlows(tmp_path / "flow")
    for i in (2, 0, 1):
        residual, is_valid = flows.read(log, i)
        assert residual.shape == (i + 2, 3) and (residual == i + 1).all() and is_valid.all()


def test_numbered_files_in_their_order(log, tmp_path):
    store(tmp_path / "flow", log, ["8.feather", "0000000009.feather", "10.feather"])
    (tmp_path / "flow" / log.log_id / "0000000009_occ.feather").write_text("of no interest")
    flows = StoredFlows(tmp_path / "flow")
    for i in range(3):
        assert (flows.read(log, i)[0] == i + 1).all()


def test_numbered_files_are_not_guessed_at(log, tmp_path):
    """Two of three could be any two; and a folder of stamps with a stranger in it is not numbered."""
    store(tmp_path / "flow", log, ["0000000000.feather", "0000000001.feather"])
    with pytest.raises(ZeroFlowError, match="neither 100.feather nor 3 numbered files.*holds 2 files"):
        StoredFlows(tmp_path / "flow").read(log, 0)
    store(tmp_path / "other", log, ["100.feather", "1000.feather", "1234.feather"])
    assert (StoredFlows(tmp_path / "other").read(log, 1)[0] == 2).all()
    with pytest.raises(ZeroFlowError, match="neither 2000.feather"):
        StoredFlows(tmp_path / "other").read(log, 2)


def test_flow_of_another_log(log, tmp_path):
    with pytest.raises(ZeroFlowError, match="there is no folder .*nowhere"):
        StoredFlows(tmp_path / "nowhere")
    (tmp_path / "flow").mkdir()
    with pytest.raises(ZeroFlowError, match="has no folder a log"):
        StoredFlows(tmp_path / "flow").read(log, 0)
    store(tmp_path / "flow", log, ["1000.feather", "100.feather", "2000.feather"])  # the first two exchanged
    with pytest.raises(ZeroFlowError, match="1000.feather holds flow for 2 points, but the sweep has 3"):
        StoredFlows(tmp_path / "flow").read(log, 1)
