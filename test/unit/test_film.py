"""Films: that they hold the pictures they were given, for as long as they should, or do not appear at all."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageDraw

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.files import new_file
from zeroflow_core.playback import film
from zeroflow_core.playback.film import check_suffix, write_film
from zeroflow_core.workers import map_in_workers

BACKGROUND, RED, GREEN = (13, 16, 23), (230, 60, 60), (40, 200, 90)
SECONDS = [0.1, 0.1, 0.3, 0.1, 0.05]


def _picture(k: int, size: tuple[int, int] = (321, 201)) -> Image.Image:
    """A red box that moves by 20 pixels a picture, above a green one that stands still."""
    image = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(image)
    draw.rectangle((20 + 20 * k, 20, 60 + 20 * k, 60), fill=RED)
    draw.rectangle((20, 100, 300, 180), fill=GREEN)
    return image


def _frames(count: int = len(SECONDS)) -> Iterator[tuple[Image.Image, float]]:
    return ((_picture(k), SECONDS[k % len(SECONDS)]) for k in range(count))


def _read(path: Path) -> tuple[list[np.ndarray], list[float]]:
    """The pictures of a film, (H,W,3) uint8, and when each begins, in seconds."""
    if path.suffix == ".mp4":
        with av.open(path) as container:
            frames = list(container.decode(video=0))
        convert = {"format": "rgb24", "src_colorspace": "ITU709"}
        return [frame.reformat(**convert).to_ndarray() for frame in frames], [float(frame.time) for frame in frames]
    pictures, starts, now = [], [], 0.0
    with Image.open(path) as animation:
        for k in range(animation.n_frames):
            animation.seek(k)
            pictures.append(np.asarray(animation.convert("RGB")))
            starts.append(now)
            now += animation.info["duration"] / 1000
    return pictures, starts


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_a_film_holds_its_pictures_for_as_long_as_they_are_shown(tmp_path, suffix):
    path = tmp_path / f"clip{suffix}"
    write_film(path, _frames())
    pictures, starts = _read(path)
    assert len(pictures) == len(SECONDS)
    np.testing.assert_allclose(starts, np.cumsum([0, *SECONDS[:-1]]), atol=0.006)
    for k, picture in enumerate(pictures):
        for colour, (x, y) in ((RED, (40 + 20 * k, 40)), (GREEN, (160, 140)), (BACKGROUND, (310, 80))):
            assert np.abs(picture[y, x].astype(int) - colour).max() <= 8, (k, x, y)
        if k:
            assert np.abs(picture[40, 24].astype(int) - BACKGROUND).max() <= 12
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_an_mp4_is_what_browsers_play(tmp_path):
    path = tmp_path / "clip.mp4"
    write_film(path, _frames())
    with av.open(path) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height) == (320, 200)  # its sides must be even
        assert (stream.codec_context.colorspace, stream.codec_context.color_range) == (1, 1)  # BT.709, limited
        assert container.duration / av.time_base == pytest.approx(sum(SECONDS), abs=0.002)  # the last one is seen, too
    content = path.read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")  # it starts before all of it is there


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_a_film_may_have_a_single_picture(tmp_path, suffix):
    path = tmp_path / f"clip{suffix}"
    write_film(path, [(_picture(2), 0.1)])
    if suffix == ".mp4":
        assert len(_read(path)[0]) == 1
    else:
        assert np.abs(np.asarray(Image.open(path).convert("RGB"))[140, 160].astype(int) - GREEN).max() <= 8


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_what_stays_the_same_takes_no_room(tmp_path, suffix):
    rng = np.random.default_rng(1)
    noise = Image.fromarray(rng.integers(0, 255, (200, 320, 3), dtype=np.uint8))
    write_film(tmp_path / f"one{suffix}", [(noise, 0.1)])
    write_film(tmp_path / f"ten{suffix}", [(noise, 0.1)] * 10)
    assert (tmp_path / f"ten{suffix}").stat().st_size < (tmp_path / f"one{suffix}").stat().st_size + 2000
    pictures, starts = _read(tmp_path / f"ten{suffix}")
    assert len(pictures) == 10
    assert starts[-1] == pytest.approx(0.9)
    for picture in pictures[1:]:
        assert np.abs(picture.astype(int) - pictures[0])[2:, 2:].max() == 0


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_times_do_not_drift(tmp_path, suffix):
    write_film(tmp_path / f"clip{suffix}", [(_picture(k % 8), 1 / 30) for k in range(31)])
    assert _read(tmp_path / f"clip{suffix}")[1][30] == pytest.approx(1.0, abs=0.006)


def test_a_png_is_the_picture(tmp_path):
    write_film(tmp_path / "one.png", [(_picture(1), 0.0)])
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "one.png")), np.asarray(_picture(1)))


def test_a_gifs_colours_are_not_lost_to_those_of_large_areas(tmp_path):
    """A handful of coloured points in a large grey picture with many greys."""
    rng = np.random.default_rng(1)
    pixels = np.repeat(rng.integers(10, 200, (360, 640, 1), dtype=np.uint8), 3, axis=2)
    hues = [(255, 60, 40), (40, 220, 120), (60, 140, 255), (250, 220, 40), (220, 80, 230)]
    for k, hue in enumerate(hues):
        pixels[100:104, 100 + 20 * k : 106 + 20 * k] = hue
    write_film(tmp_path / "clip.gif", [(Image.fromarray(pixels), 0.1)] * 3)
    seen = _read(tmp_path / "clip.gif")[0][0]
    for k, hue in enumerate(hues):
        assert np.abs(seen[102, 102 + 20 * k].astype(int) - hue).max() <= 24, hue


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_pictures_are_taken_one_by_one(tmp_path, suffix):
    alive: set[int] = set()
    most = 0

    class Watched(Image.Image):
        def __del__(self):
            alive.discard(id(self))

    def frames() -> Iterator[tuple[Image.Image, float]]:
        nonlocal most
        for k in range(40):
            image = _picture(k % 5)
            image.__class__ = Watched
            alive.add(id(image))
            most = max(most, len(alive))
            yield image, 0.1

    write_film(tmp_path / f"clip{suffix}", frames())
    assert most <= 10  # a .gif's palette is made of eight


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_a_film_that_fails_leaves_what_was_there(tmp_path, suffix):
    path = tmp_path / f"clip{suffix}"
    path.write_text("an older one")

    def frames() -> Iterator[tuple[Image.Image, float]]:
        yield from _frames(12)
        raise ZeroFlowError("the source is damaged")

    with pytest.raises(ZeroFlowError, match="the source is damaged"):
        write_film(path, frames())
    assert path.read_text() == "an older one"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


_FILLS_THE_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from PIL import Image
from zeroflow_core.playback.film import write_film
from zeroflow_core.errors import ZeroFlowError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then writing fails as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
rng = np.random.default_rng(1)
noise = (Image.fromarray(rng.integers(0, 255, (200, 320, 3), dtype=np.uint8)) for _ in range(60))
try:
    write_film(Path(sys.argv[1]), ((image, 0.1) for image in noise))
except ZeroFlowError as error:
    print(error)
"""


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp", ".png"])
def test_a_full_disk_is_told_in_a_sentence_and_leaves_nothing(tmp_path, suffix):
    path = tmp_path / f"clip{suffix}"
    command = [sys.executable, "-c", _FILLS_THE_DISK, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.startswith(f"cannot write {path}: "), done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_one_left_behind_is_removed(tmp_path):
    path = tmp_path / "clip.gif"
    with new_file(path, "wb") as file:
        killed, other = Path(file.name), tmp_path / Path(file.name).name.replace("clip", "other")
    killed.touch()
    other.touch()
    write_film(path, _frames(2))
    assert sorted(tmp_path.iterdir()) == sorted([path, other]), "what is of another film may be at work"


def test_nothing_to_show_is_told(tmp_path):
    with pytest.raises(ZeroFlowError, match="there is nothing to show"):
        write_film(tmp_path / "clip.gif", [])


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("clip.avi", r"the suffix \.avi; choose \.mp4, \.gif, \.webp for a film or \.png"),
        ("clip", "no suffix; choose"),
    ],
)
def test_other_kinds_of_file_are_told(tmp_path, name, sentence):
    with pytest.raises(ZeroFlowError, match=sentence):
        check_suffix(tmp_path / name)


def test_without_pyav_a_line_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ZeroFlowError, match=r"pip install av, or write a \.webp or \.gif") as told:
        check_suffix(tmp_path / "clip.mp4")
    assert "\n" not in str(told.value)
    write_film(tmp_path / "clip.webp", _frames(2))


def test_a_pyav_without_the_encoder_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    with pytest.raises(ZeroFlowError, match=r"no encoder for H\.264"):
        check_suffix(tmp_path / "clip.mp4")


def test_what_the_encoder_refuses_is_told(tmp_path, monkeypatch):
    def refuses(*_):
        raise av.error.InvalidDataError(1, "made up")

    monkeypatch.setattr(film, "_stream", refuses)
    with pytest.raises(ZeroFlowError, match=r"the film could not be encoded .*made up.*; write a \.webp or \.gif"):
        write_film(tmp_path / "clip.mp4", _frames())
    assert list(tmp_path.iterdir()) == []


# Pictures from other processes


def square(number: int, seconds: float, report) -> None:
    time.sleep(seconds)
    report((number * number, os.getpid()))


def fail(kind: str, report) -> None:
    if kind == "mistake":
        raise ZeroFlowError("a mistake in a sentence")
    if kind == "bug":
        raise KeyError("a bug")
    if kind == "death":
        os.kill(os.getpid(), 9)
    report(0)


def test_results_come_in_the_order_of_their_tasks_from_several_processes():
    tasks = [(k, 0.3 if k == 0 else 0.0) for k in range(12)]
    results = list(map_in_workers(square, tasks, 2))
    assert [value for value, _ in results] == [k * k for k in range(12)]
    assert len({process for _, process in results} - {os.getpid()}) == 2


def test_neither_tasks_nor_results_pile_up():
    given = 0

    def tasks() -> Iterator[tuple[int, float]]:
        nonlocal given
        for k in range(30):
            given += 1
            yield k, 0.2 if k == 0 else 0.0

    for taken, _ in enumerate(map_in_workers(square, tasks(), 2), 1):
        assert given - taken <= 2 * 3
    assert given == 30


@pytest.mark.parametrize(
    ("kind", "error", "said"),
    [
        ("mistake", ZeroFlowError, "^a mistake in a sentence$"),
        ("bug", RuntimeError, r"(?s)in a worker process:.*KeyError: 'a bug'"),
        ("death", ZeroFlowError, "a worker process was killed"),
    ],
)
def test_what_goes_wrong_in_a_process_comes_out(kind, error, said):
    with pytest.raises(error, match=said):
        list(map_in_workers(fail, [("well",), (kind,), ("well",)], 2))


def test_what_goes_wrong_with_the_tasks_comes_out_and_ends_the_processes():
    processes = []

    def tasks() -> Iterator[tuple[int, float]]:
        yield 1, 0.0
        yield 2, 0.0
        yield 3, 0.0
        raise ZeroFlowError("no more")

    with pytest.raises(ZeroFlowError, match="no more"):
        processes.extend(process for _, process in map_in_workers(square, tasks(), 1))
    assert not any(Path(f"/proc/{process}").exists() for process in processes)


def test_closing_ends_the_processes_even_at_work():
    results = map_in_workers(square, ((k, 0.0 if k == 0 else 60.0) for k in range(9)), 1)
    _, process = next(results)
    results.close()
    assert not Path(f"/proc/{process}").exists()


def test_without_tasks_there_are_no_processes():
    assert list(map_in_workers(square, [], 2)) == []
