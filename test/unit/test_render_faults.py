"""Damaged sources, strange sweeps and sudden ends are told in a sentence, and leave nothing half-written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from bag_cases import START, STEP, cloud_message, odometry_message, record
from PIL import Image
from process_cases import runs
from scene_cases import road
from typer.testing import CliRunner

from zeroflow_core.cli import main
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.geometry import SE3
from zeroflow_core.pairs import Sweep
from zeroflow_core.playback import open_playback
from zeroflow_core.playback.frames import Frame
from zeroflow_core.playback.playback import Playback
from zeroflow_core.playback.rendering import Look, draw_still, tell
from zeroflow_core.simulation.log import simulate_log

_COMMAND = "import sys; from zeroflow_core.cli.main import main; sys.exit(main())"
_SMALL = ("--size", "480x270", "--jobs", "1")
_LONG = "x" * 300
_SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "sensor" / "val" / "drive"
    simulate_log(path, seed=21, sweeps=9, scanner="small", scene="junction")
    return path


def _render(*arguments: object) -> str:
    """What a call prints.

    Raises:
        what it raises
    """
    result = CliRunner().invoke(main.app, ["render", *map(str, arguments)])
    if result.exception is not None:
        raise result.exception
    assert "Traceback" not in result.output and "Warning" not in result.output
    return result.stdout


# Options


@pytest.mark.parametrize(
    ("out", "options", "sentence"),
    [
        ("clip.webp", ["--min-speed", "nan"], "--min-speed nan cannot be; give metres per second from 0.05 to 50"),
        ("clip.webp", ["--min-speed", "-1"], "--min-speed -1 cannot be"),
        ("clip.webp", ["--min-speed", "inf"], "--min-speed inf cannot be"),
        ("clip.webp", ["--fps", "nan"], "--fps nan cannot be"),
        ("clip.webp", ["--speed", "nan"], "--speed nan cannot be"),
        ("clip.webp", ["--metres", "nan"], "--metres nan is no width"),
        ("clip.webp", ["--size", "0x0"], "--size 0x0 is no size"),
        ("clip.webp", ["--method", "student", "--checkpoint", "/no/such.ckpt"], "/no/such.ckpt: no such file"),
        ("scene.png", ["--start", "2"], "--start is of a film, and .*scene.png is one picture; give --sweep"),
        ("scene.png", ["--count", "1"], "--count is of a film"),
        ("scene.png", ["--fps", "5"], "--fps is of a film"),
        pytest.param(f"{_LONG}.png", [], "cannot write .*name too long", id="a long name"),
    ],
)
def test_what_cannot_be_is_told(log, tmp_path, out, options, sentence):
    with pytest.raises(ZeroFlowError, match=sentence):
        _render(log, "--out", tmp_path / out, *_SMALL, "--method", "zero", *options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [pytest.param(_LONG, id="long"), "nul\0byte", "loop"])
def test_a_source_of_a_name_that_cannot_be(tmp_path, name):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ZeroFlowError, match="there is no .*; give an AV2 log, a rosbag2"):
        open_playback(tmp_path / name)


# Runs


def _run_folder(folder: Path, here: object, there: object, data: Path) -> Path:
    """A folder as evaluate leaves it, of two logs, with what is `here` in run.json and `there` in metrics.json."""
    for name in ("one", "two"):
        sweeps = data / "sensor" / "val" / name / "sensors" / "lidar"
        sweeps.mkdir(parents=True)
        (sweeps / "1.feather").touch()
        (sweeps / "2.feather").touch()
    folder.mkdir()
    run = {"data": str(data), "split": "val", "method": "zero"}
    metrics = {"per_log": {"one": {"av2-2023": {"fd": 0.1}}}, "run": {"checkpoint": None}}
    (folder / "run.json").write_text(json.dumps(run | here if isinstance(here, dict) else here))
    (folder / "metrics.json").write_text(json.dumps(metrics | there if isinstance(there, dict) else there))
    return folder


@pytest.mark.parametrize(
    ("here", "there", "sentence"),
    [
        ({"data": "/no/such"}, {}, "the logs of the evaluation in .* have moved: there is no folder /no/such any more"),
        ({"data": _LONG}, {}, "have moved"),
        ({"data": "nul\0byte"}, {}, "have moved"),
        ({"data": 5}, {}, r"run.json is damaged \(data is wrong\); run its command again"),
        ({"data": None}, {}, "data is wrong"),
        ({"split": 7}, {}, "split is wrong"),
        ({"split": "test"}, {}, "there is no split 'test'"),
        ({"method": ["zero"]}, {}, "method is wrong"),
        ({"method": "guess"}, {}, "method 'guess' is unknown"),
        ({"ground": 5}, {}, "ground is wrong"),
        ({"method": "labels", "labels": 5}, {}, "labels is wrong"),
        ([1, 2], {}, "run.json is damaged"),
        ("text", {}, "run.json is damaged"),
        ({}, None, "metrics.json is damaged"),
        ({}, {"per_log": ["one"]}, "per_log is wrong"),
        ({}, {"per_log": None}, "per_log is wrong"),
        ({}, {"per_log": {"one": {"av2-2023": {"fd": "far"}}}}, "per_log.one.av2-2023.fd is wrong"),
        ({}, {"per_log": {"gone": {"av2-2023": {"fd": 0.1}}}}, "has no logs any more"),
        ({"method": "student"}, {"run": None}, "run.checkpoint is wrong"),
        ({"method": "student"}, {"run": {"checkpoint": 5}}, "run.checkpoint is wrong"),
    ],
)
def test_an_evaluation_that_is_damaged_or_whose_logs_have_moved(tmp_path, here, there, sentence):
    folder = _run_folder(tmp_path / "run", here, there, tmp_path / "data")
    with pytest.raises(ZeroFlowError, match=sentence):
        open_playback(folder)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (None, "settings.data is wrong"),
        ([1], "settings.data is wrong"),
        ({"data": 5}, "settings.data is wrong"),
        ({"split": 5}, "settings.split is wrong"),
        ({"names": "one"}, "settings.names is wrong"),
        ({"names": ["gone"]}, "the distillation in .* has no logs any more"),
        ({"data": "/no/such"}, "the logs of the distillation in .* have moved"),
        ({}, "student.safetensors: cannot be read, it is truncated"),
    ],
)
def test_a_distillation_that_is_damaged(tmp_path, settings, sentence):
    (tmp_path / "run" / "labels").mkdir(parents=True)
    (tmp_path / "data" / "train" / "one" / "sensors" / "lidar").mkdir(parents=True)
    (tmp_path / "data" / "train" / "one" / "sensors" / "lidar" / "1.feather").touch()
    (tmp_path / "run" / "student.safetensors").write_bytes(b"half of it")
    if isinstance(settings, dict):
        settings = {"data": str(tmp_path / "data")} | settings
    (tmp_path / "run" / "config.json").write_text(json.dumps({"settings": settings}))
    with pytest.raises(ZeroFlowError, match=sentence):
        open_playback(tmp_path / "run")


# Strange sweeps


class _Frames:
    name, method = "strange", "made up"

    def __init__(self, frames: Sequence[Frame]) -> None:
        self._frames = frames

    def __len__(self) -> int:
        return len(self._frames)

    def read(self, indices: Sequence[int]) -> Iterator[Frame]:
        return (self._frames[i] for i in indices if self._frames[i] is not None)


def _frame(index: int, points, velocity, truth=None, stamp_ns: int | None = None, place: float = 0.0) -> Frame:
    points = np.asarray(points, np.float32).reshape(-1, 3)
    stamp_ns = index * _SECOND // 10 if stamp_ns is None else stamp_ns
    sweep = Sweep(points, stamp_ns, world_SE3_ego=SE3(np.eye(3), np.array([place, -place, 0.0])))
    as_rows = [np.broadcast_to(np.float32(value), points.shape) for value in (velocity, truth or 0.0)]
    return Frame(index, sweep, *as_rows[: 1 if truth is None else 2])


_ROAD = road().points
_STRANGE = {
    "no points": [_frame(k, [], 0) for k in range(3)],
    "one point": [_frame(k, [5, 1, 0], 3, 4) for k in range(3)],
    "all NaN": [_frame(k, np.full((500, 3), np.nan), np.nan, np.nan) for k in range(3)],
    "too far": [_frame(k, np.full((500, 3), sign * 1e30), 1e30) for k, sign in enumerate((1, -1, 1))],
    "infinite": [_frame(k, np.full((500, 3), np.inf), np.inf) for k in range(3)],
    "one place": [_frame(k, np.tile([5.0, 1.0, 0.5], (20_000, 1)), 4) for k in range(3)],
    "high up": [_frame(k, _ROAD + [0, 0, 1e6], 0) for k in range(3)],
    "nothing known": [_frame(k, _ROAD, np.nan, np.nan) for k in range(3)],
    "too fast": [_frame(k, _ROAD, 1e30, 3e38) for k in range(3)],
    "of changing size": [_frame(k, _ROAD[:size], 5) for k, size in enumerate((0, 1, 5000, 3))],
    "poses that jump": [_frame(k, _ROAD, 5, place=place) for k, place in enumerate((0, 1e7, -1e12, 0))],
    "stamps that jump": [_frame(k, _ROAD, 5, stamp_ns=at * _SECOND) for k, at in enumerate((50, 50, 9, 90_000, 0))],
}


@pytest.mark.parametrize("name", _STRANGE)
def test_strange_sweeps_are_drawn_without_a_word(name):
    frames = _STRANGE[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told = list(tell(Playback(_Frames(frames)).moments()))
        pictures = [draw_still(one, Look(size=(480, 270))) for one in told]
    assert len(pictures) == len(frames)
    assert all(0.0 < one.shown_s <= 1.0 for one in told), "nobody waits for hours"


@pytest.mark.parametrize("change", [{"size": np.zeros(3)}, {"velocity": np.zeros(3)}, {"size": np.full(3, 1e6)}])
def test_strange_objects_are_drawn(change):
    moment = road(truth=True)
    tracks = [replace(track, object=replace(track.object, **change)) for track in moment.tracks]
    moment = replace(moment, tracks=tracks, true_objects=[track.object for track in tracks])
    (told,) = tell([moment])
    assert draw_still(told, Look(size=(480, 270))).size == (480, 270)


def test_where_no_sweep_can_be_used_none_is_lively():
    with pytest.raises(ZeroFlowError, match="none of the 2 sweeps of strange that were looked at can be used"):
        Playback(_Frames([None] * 3)).liveliest()


@pytest.fixture(scope="module")
def bag(tmp_path_factory) -> Path:
    """Six clouds, of which one holds no point."""
    messages = []
    for k in range(6):
        stamp_ns, points = START + k * STEP, _ROAD if k != 3 else np.full_like(_ROAD, np.nan)
        pose = SE3(np.eye(3), np.array([float(k), 0.0, 0.0]))
        messages.append(("/odom", odometry_message(pose, stamp_ns, child="velodyne"), stamp_ns))
        messages.append(("/points", cloud_message(points, stamp_ns), stamp_ns + 1))
    return record(tmp_path_factory.mktemp("bags") / "drive", messages)


def test_a_cloud_that_cannot_be_used_is_not_another_one(bag, tmp_path):
    arguments = (bag, "--height", 1.8, "--method", "zero")
    with pytest.raises(ZeroFlowError, match="sweep 3 of bag drive cannot be used; choose another --sweep"):
        _render(*arguments, "--out", tmp_path / "scene.png", "--size", "480x270", "--sweep", 3)
    said = _render(*arguments, "--out", tmp_path / "scene.png", "--size", "480x270", "--sweep", 4)
    assert "sweep 4 of bag drive" in said
    assert "4 sweeps of bag drive" in _render(*arguments, "--out", tmp_path / "clip.webp", *_SMALL)
    assert Image.open(tmp_path / "clip.webp").n_frames == 4


@pytest.mark.parametrize("height", ["nan", "-5", "1e9"])
def test_a_height_that_cannot_be(bag, tmp_path, height):
    with pytest.raises(ZeroFlowError, match="a height of .* m above the ground cannot be"):
        _render(bag, "--out", tmp_path / "clip.webp", *_SMALL, "--height", height)


def test_stamps_without_a_neighbour_are_nothing_to_show(tmp_path):
    messages = [("/points", cloud_message(_ROAD, START + 3600 * k * _SECOND), START + k) for k in range(4)]
    path = record(tmp_path / "drive", messages)
    arguments = (path, "--height", 1.8, "--method", "zero", "--size", "480x270")
    with pytest.raises(ZeroFlowError, match="none of the 2 sweeps of bag drive"):
        _render(*arguments, "--out", tmp_path / "scene.png")
    with pytest.raises(ZeroFlowError, match="no sweep could be used"):
        _render(*arguments, "--out", tmp_path / "clip.webp")
    assert [path.name for path in tmp_path.iterdir()] == ["drive"]


# Sudden ends


def _started(log: Path, out: Path) -> tuple[subprocess.Popen, list[int]]:
    """A command that draws, and its processes."""
    words = [sys.executable, "-c", _COMMAND, "render", log, "--out", out, "--method", "labels", "--size", "1920x1080"]
    process = subprocess.Popen(list(map(str, words)), stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(out.parent.iterdir()) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert children
    return process, list(map(int, children))


def _all_end(processes: list[int]) -> bool:
    deadline = time.monotonic() + 30
    while any(map(runs, processes)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_sigterm_leaves_nothing(log, tmp_path):
    process, children = _started(log, tmp_path / "clip.webp")
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (128 + signal.SIGTERM, "")
    assert list(tmp_path.iterdir()) == [] and _all_end(children)


def test_after_sigkill_the_processes_end_in_silence_and_the_next_run_works(log, tmp_path):
    out = tmp_path / "clip.webp"
    process, children = _started(log, out)
    process.kill()
    _, said = process.communicate(timeout=60)
    assert said == "" and _all_end(children)
    assert not out.exists()
    _render(log, "--out", out, "--method", "labels", *_SMALL, "--count", 3)
    assert Image.open(out).n_frames == 3


def test_a_killed_worker_is_told_in_a_sentence(log, tmp_path):
    process, children = _started(log, tmp_path / "clip.webp")
    os.kill(children[0], signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said.startswith("a worker process was killed, perhaps because memory ran out") and said.count("\n") == 1
    assert list(tmp_path.iterdir()) == [] and _all_end(children)


@pytest.mark.parametrize("suffix", [".webp", ".gif", ".mp4"])
def test_the_same_command_gives_the_same_film_with_any_number_of_processes(log, tmp_path, suffix):
    films = []
    for jobs in (1, 2):
        how = ("--method", "labels", "--size", "480x270", "--count", 3, "--jobs", jobs)
        _render(log, "--out", tmp_path / f"clip{suffix}", *how)
        films.append((tmp_path / f"clip{suffix}").read_bytes())
    assert all(one == other for one, other in pairwise(films))
