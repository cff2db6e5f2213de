"""What is kept of the worst pairs: a few of each log, which a damaged file does not stop."""

from __future__ import annotations

import numpy as np
import pytest

from zeroflow_core.evaluation import worst
from zeroflow_core.evaluation.truth import Estimate

POINTS = 1000
ESTIMATE = Estimate(np.random.default_rng(0).normal(size=(POINTS, 3)).astype(np.float32), np.ones(POINTS, dtype=bool))


def _record(index: int, error: float) -> dict:
    """Of a pair with 20 points of moving foreground and this mean error, in metres."""
    sums = [20.0, 20.0, 20.0 * error] + [0.0] * 6
    return {"log": "a", "index": index, "tallies": {"av2-2023": {"Foreground/Dynamic/Close": sums}}}


def _names(out) -> list[str]:
    return sorted(str(path.relative_to(out / "worst")) for path in (out / "worst").rglob("*") if path.is_file())


def test_the_worst_pair_of_a_log_is_kept(tmp_path):
    for index, error in enumerate((0.3, 0.5, 0.4)):
        worst.keep_if_worst(tmp_path, "a", index, _record(index, error), ESTIMATE, 1)
    assert _names(tmp_path) == ["a/1.npz"]
    kept = worst.kept(tmp_path, _record(1, 0.5))
    np.testing.assert_array_equal(kept.residual, ESTIMATE.residual)
    np.testing.assert_array_equal(kept.covered, ESTIMATE.covered)


def test_as_many_as_asked_for_are_kept_and_never_more(tmp_path):
    kept = []
    for index, error in enumerate((0.3, 0.5, 0.4, 0.1, 0.5)):
        worst.keep_if_worst(tmp_path, "a", index, _record(index, error), ESTIMATE, 3)
        kept.append([int(name[2]) for name in _names(tmp_path)])
    assert kept == [[0], [0, 1], [0, 1, 2], [0, 1, 2], [1, 2, 4]]
    worst.keep_if_worst(tmp_path, "b", 0, _record(0, 0.5), ESTIMATE, 0)
    assert not (tmp_path / "worst" / "b").exists()


@pytest.mark.parametrize("part", [0.0, 0.5, 0.95])
def test_a_damaged_file_is_as_none(tmp_path, part):
    worst.keep(tmp_path, "a", 0, _record(0, 0.5), ESTIMATE)
    path = tmp_path / "worst" / "a" / "0.npz"
    content = bytearray(path.read_bytes())
    start = int(part * len(content))
    content[start : start + 64] = b"\xff" * 64
    path.write_bytes(content)
    assert worst.kept(tmp_path, _record(0, 0.5)) is None
    worst.keep_if_worst(tmp_path, "a", 1, _record(1, 0.6), ESTIMATE, 1)
    assert _names(tmp_path) == ["a/1.npz"]


def test_only_the_chosen_stay_and_nothing_half_written(tmp_path):
    for index in range(3):
        worst.keep(tmp_path, "a", index, _record(index, 0.5), ESTIMATE)
    worst.keep(tmp_path, "a-1", 0, _record(0, 0.5), ESTIMATE)
    (tmp_path / "worst" / "a" / ".0123456789abcdef.1.npz").write_bytes(b"killed")
    worst.forget_others(tmp_path, [_record(1, 0.5)])
    assert _names(tmp_path) == ["a/1.npz"]
    assert [path.name for path in (tmp_path / "worst").iterdir()] == ["a"]


def test_logs_whose_names_begin_alike_keep_theirs(tmp_path):
    worst.keep_if_worst(tmp_path, "a-1", 0, _record(0, 0.3), ESTIMATE, 1)
    worst.keep_if_worst(tmp_path, "a", 0, _record(0, 0.5), ESTIMATE, 1)
    assert _names(tmp_path) == ["a-1/0.npz", "a/0.npz"]
