"""``zeroflow render``: films and pictures of what moves, and mistakes in a sentence."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from zeroflow_core.bench.__main__ import app as bench
from zeroflow_core.cli import main
from zeroflow_core.datasets.av2 import Log
from zeroflow_core.datasets.bags import write_bag
from zeroflow_core.drawing.scene import draw_scene
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.geometry import SE3
from zeroflow_core.moments import Moment
from zeroflow_core.playback import open_playback
from zeroflow_core.playback.rendering import Look, draw_film, tell
from zeroflow_core.simulation.log import simulate_log

SWEEPS = 7
_COMMAND = "import sys; from zeroflow_core.cli.main import main; sys.exit(main())"


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "drive"
    simulate_log(path, seed=21, sweeps=SWEEPS, scanner="small", scene="junction")
    return path


def _run(*arguments: object):
    return CliRunner().invoke(main.app, ["render", *map(str, arguments)], env={"COLUMNS": "120", "TERM": "dumb"})


def _render(*arguments: object) -> str:
    """What a call that goes well prints."""
    result = _run(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


def _small(log: Path, out: Path, *arguments: object) -> str:
    return _render(log, "--out", out, "--method", "labels", "--size", "480x270", "--jobs", 1, *arguments)


def _starts(path: Path) -> list[float]:
    """When each picture of a .webp begins, in seconds."""
    starts, now = [], 0.0
    with Image.open(path) as film:
        for k in range(film.n_frames):
            film.seek(k)
            film.load()
            starts.append(now)
            now += film.info["duration"] / 1000
    return starts


def test_a_log_becomes_a_film_of_all_its_sweeps_in_real_time(log, tmp_path):
    out = tmp_path / "clip.webp"
    told = _small(log, out)
    assert told == f"{out}: {SWEEPS - 1} sweeps of log drive, {out.stat().st_size / 1e6:.1f} MB\n"
    np.testing.assert_allclose(_starts(out), 0.1 * np.arange(SWEEPS - 1), atol=0.002)
    assert Image.open(out).size == (480, 270)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.webp"]


def test_an_mp4_and_a_gif_have_as_many(log, tmp_path):
    _small(log, tmp_path / "clip.gif")
    assert Image.open(tmp_path / "clip.gif").n_frames == SWEEPS - 1
    _small(log, tmp_path / "clip.mp4")
    with av.open(tmp_path / "clip.mp4") as film:
        assert len(list(film.decode(video=0))) == SWEEPS - 1


@pytest.mark.parametrize(
    ("options", "starts"),
    [
        (("--count", 3), [0, 0.1, 0.2]),
        (("--start", 4), [0, 0.1]),
        (("--start", 1, "--every", 2, "--count", 2), [0, 0.2]),
        (("--every", 3), [0, 0.3]),
        (("--speed", 0.5, "--count", 3), [0, 0.2, 0.4]),
        (("--fps", 4, "--count", 3), [0, 0.25, 0.5]),
    ],
)
def test_sweeps_and_times_are_chosen(log, tmp_path, options, starts):
    _small(log, tmp_path / "clip.webp", *options)
    np.testing.assert_allclose(_starts(tmp_path / "clip.webp"), starts, atol=0.002)


def test_a_picture_is_the_scene_of_its_sweep(log, tmp_path):
    out = tmp_path / "scene.png"
    assert _render(log, "--out", out, "--method", "labels", "--sweep", 4) == f"{out}: sweep 4 of log drive\n"
    playback = open_playback(log, method="labels")
    *_, moment = playback.moments([3, 4], lead_in=3)
    speed = np.linalg.norm(Log(log).sweep(4).world_SE3_ego.translation - Log(log).sweep(3).world_SE3_ego.translation)
    expected = draw_scene(
        moment,
        title=playback.name,
        subtitle=playback.method,
        figures=[("Vehicle", f"{speed / 0.1:.1f} m/s")],
        min_speed=0.5,
    )
    picture = np.asarray(Image.open(out))
    assert picture.shape == (720, 1280, 3)
    np.testing.assert_array_equal(picture, np.asarray(expected))


def test_a_picture_is_lively_where_none_is_asked_for(log, tmp_path):
    told = _small(log, tmp_path / "scene.png")
    assert told.endswith(f": sweep {open_playback(log, method='labels').liveliest()} of log drive\n")


def test_options_of_the_look_change_the_picture(log, tmp_path):
    def picture(*options: object) -> bytes:
        _small(log, tmp_path / "scene.png", "--sweep", 3, *options)
        return Image.open(tmp_path / "scene.png").tobytes()

    usual = picture()
    for options in (
        ["--no-truth"],
        ["--views", "birds-eye"],
        ["--views", "driver"],
        ["--metres", "30"],
        ["--min-speed", "5"],
        ["--method", "zero"],
    ):
        assert picture(*options) != usual, options
    assert picture("--views", "driver, birds-eye", "--metres", "102.4") == usual


def test_a_bag_becomes_a_film(log, tmp_path):
    write_bag(tmp_path / "drive_bag", Log(log).sweeps(), {"lidar": SE3.identity()})
    out = tmp_path / "clip.webp"
    told = _render(tmp_path / "drive_bag", "--out", out, "--method", "zero", "--size", "480x270", "--count", 3)
    assert "3 sweeps of bag drive_bag" in told
    assert Image.open(out).n_frames == 3


def test_mistakes_are_told_in_a_sentence_before_anything_is_written(log, tmp_path):
    (tmp_path / "folder").mkdir()
    film, picture = tmp_path / "clip.webp", tmp_path / "scene.png"
    mistakes = [
        ((tmp_path / "gone", "--out", film), "there is no .*gone"),
        ((log, "--out", tmp_path / "clip.avi"), r"the suffix \.avi; choose \.mp4, \.gif, \.webp"),
        ((log, "--out", tmp_path / "folder"), "is a folder; give a file, such as .*clip.mp4"),
        ((log, "--out", tmp_path / "missing" / "clip.mp4"), "the folder .*missing does not exist"),
        ((log, "--out", film, "--sweep", 2), "--sweep is of one picture, and .*clip.webp is a film"),
        ((log, "--out", film, "--size", "1280"), "--size 1280 is no size .* as 1280x720, from 480x270"),
        ((log, "--out", film, "--size", "1280x20"), "--size 1280x20 is no size"),
        ((log, "--out", film, "--views", "top"), "--views 'top' is unknown; choose from: birds-eye, driver"),
        ((log, "--out", film, "--metres", 1), "--metres 1 is no width"),
        ((log, "--out", film, "--speed", 0), "--speed 0 cannot be"),
        ((log, "--out", film, "--fps", 1000), "--fps 1000 cannot be"),
        ((log, "--out", film, "--start", 6), "log drive has no sweep 6 to begin with; its last is 5"),
        ((log, "--out", picture, "--sweep", 6), "log drive has no --sweep 6; its last is 5"),
        ((log, "--out", picture, "--topic", "/points"), "--topic is of a bag"),
    ]
    for arguments, sentence in mistakes:
        result = _run(*arguments, "--method", "labels")
        assert isinstance(result.exception, ZeroFlowError), (arguments, result.output)
        assert re.search(sentence, str(result.exception)), (arguments, result.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_ctrl_c_leaves_nothing_and_says_so(log, tmp_path):
    words = [sys.executable, "-c", _COMMAND, "render", log, "--out", tmp_path / "clip.webp", "--method", "labels"]
    process = subprocess.Popen(
        [*map(str, words), "--size", "2560x1440"], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert children
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == f"Stopped; {tmp_path / 'clip.webp'} was not written.\n"
    assert list(tmp_path.iterdir()) == []
    assert not any(Path(f"/proc/{child}").exists() for child in children)


# What is told beside the pictures


def _moment(seconds: float, metres: float) -> Moment:
    pose = SE3(np.eye(3), np.array([metres, 0.0, 0.0]))
    return Moment(round(seconds * 1e9), np.zeros((1, 3), np.float32), world_SE3_vehicle=pose)


def test_times_and_speeds_are_those_until_the_next_sweep_and_gaps_are_not_waited_through():
    told = list(tell([_moment(5.0, 0), _moment(5.1, 1), _moment(5.3, 2), _moment(65.3, 80), _moment(65.4, 81.5)]))
    assert [one.time_s for one in told] == pytest.approx([0, 0.1, 0.3, 60.3, 60.4])
    assert [one.shown_s for one in told] == pytest.approx([0.1, 0.2, 0.15, 0.1, 0.1])
    assert [one.ego_speed for one in told] == [
        pytest.approx(10),
        pytest.approx(5),
        None,
        pytest.approx(15),
        pytest.approx(15),
    ]


def test_a_single_moment_is_told():
    (told,) = tell([_moment(5.0, 0)])
    assert (told.time_s, told.shown_s, told.ego_speed) == (0.0, 0.1, None)
    assert list(tell([])) == []


def test_moments_are_estimated_while_others_are_drawn_and_do_not_pile_up(log):
    moments = list(open_playback(log, method="labels").moments())
    given = 0

    def slowly():
        nonlocal given
        for moment in moments * 4:
            given += 1
            yield moment

    look = Look(size=(480, 270))
    for drawn, (image, _) in enumerate(draw_film(tell(slowly()), look, 1), 1):
        assert image.size == (480, 270)
        assert given - drawn <= 5
    assert drawn == len(moments) * 4


def test_the_bench_tells_a_films_time_and_its_stages(log, tmp_path):
    arguments = ["render", "--log", log, "--sweeps", 3, "--suffix", ".webp", "--size", "480x270"]
    result = CliRunner().invoke(bench, [*map(str, arguments), "--json", str(tmp_path / "bench.json")])
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "bench.json").read_text())
    assert found["sweeps"] == 3
    assert all(found[name] > 0 for name in ("total_s", "estimate_s", "draw_s", "encode_s", "bytes", "points"))
    assert found["total_s"] > found["estimate_s"] + found["draw_s"]
