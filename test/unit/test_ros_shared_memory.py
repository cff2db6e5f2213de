"""What is removed from /dev/shm, and above all what is not."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest

from zeroflow_ros.processes.shared_memory import remove_leftovers


@pytest.fixture
def make(tmp_path):
    def make_segment(number: int, age_s: float = 60.0) -> tuple[Path, Path]:
        segment = tmp_path / f"fastdds_{number:016x}"
        lock = tmp_path / f"{segment.name}_el"
        segment.write_bytes(bytes(1000))
        lock.touch()
        os.utime(lock, (time.time() - age_s,) * 2)
        return segment, lock

    return make_segment


def test_what_a_killed_process_left_is_removed_and_nothing_else(make, tmp_path):
    dead, living, young = make(1), make(2), make(3, age_s=0.0)
    others = [tmp_path / name for name in ("fastdds_port7000", "fastdds_port7000_el", "fastdds_12_el", "mine", "sem.x")]
    for path in others:
        path.touch()
        os.utime(path, (0, 0))
    with open(living[1]) as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        assert remove_leftovers(tmp_path) == 1
    assert not any(path.exists() for path in dead)
    assert all(path.exists() for path in (*living, *young, *others))
    # Once its process has ended it goes, too; and a lock whose segment is gone already does no harm.
    living[0].unlink()
    assert remove_leftovers(tmp_path) == 1
    assert not living[1].exists()


def test_what_may_not_be_opened_stays(make, tmp_path):
    segment, lock = make(1)
    lock.unlink()
    lock.symlink_to(tmp_path / "nowhere")
    assert remove_leftovers(tmp_path) == 0
    assert segment.exists()


def test_without_shared_memory_there_is_nothing_to_do(tmp_path):
    assert remove_leftovers(tmp_path / "none") == 0
