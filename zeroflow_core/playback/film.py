"""Pictures one after the other as a film: .mp4 (H.264), .gif or .webp; or one of them as .png."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import IO, Any

from PIL import Image

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.files import new_file, remove_unfinished
from zeroflow_core.playback.animations import write_gif, write_webp

STILL = ".png"
FILMS = (".mp4", ".gif", ".webp")

Frames = Iterable[tuple[Image.Image, float]]
"""RGB images of one size, each with the seconds for which it is shown."""

_CLOCK = 90_000  # ticks a second, as usual in video
_QUALITY = "20"  # of H.264, by its constant rate factor: single points keep their colours


def check_suffix(path: Path) -> None:
    """
    Raises:
        ZeroFlowError: that is no kind of file that can be written here, or what it needs is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in (*FILMS, STILL):
        kinds = f"{', '.join(FILMS)} for a film or {STILL} for one picture"
        raise ZeroFlowError(f"--out {path} has {f'the suffix {suffix}' if suffix else 'no suffix'}; choose {kinds}")
    if suffix == ".mp4":
        _codec()


def write_film(path: Path, frames: Frames) -> None:
    """Write the film; it appears complete or not at all. Pictures are taken one by one, as they are written.

    path:   the suffix says what it becomes. An .mp4 is H.264 that every browser plays (4:2:0, so a last odd row or
            column is left out), a .gif has 255 colours, chosen by the first pictures, and times in hundredths.

    Raises:
        ZeroFlowError: no pictures, another suffix, the codec is not installed, or the file system refuses.
    """
    check_suffix(path)
    writers = {".mp4": _write_mp4, ".gif": write_gif, ".webp": write_webp, STILL: _write_png}
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ZeroFlowError(f"there is nothing to show in {path}: no sweep could be used")
    remove_unfinished(path.parent, [path.name])
    with new_file(path, "wb") as file:
        writers[path.suffix.lower()](file, chain([first], frames))


def _write_png(file: IO[bytes], frames: Iterator[tuple[Image.Image, float]]) -> None:
    next(frames)[0].save(file, format="PNG", optimize=True)


def _codec() -> Any:
    """PyAV, with an encoder for H.264.

    Raises:
        ZeroFlowError: there is none.
    """
    hint = "pip install av, or write a .webp or .gif, which need nothing more"
    try:
        import av
    except ImportError as error:
        raise ZeroFlowError(f"an .mp4 needs PyAV, which cannot be imported ({error}): {hint}") from error
    if "libx264" not in av.codecs_available:
        raise ZeroFlowError(f"this PyAV has no encoder for H.264 (libx264): {hint}")
    return av


def _write_mp4(file: IO[bytes], frames: Iterator[tuple[Image.Image, float]]) -> None:
    av = _codec()
    try:
        # By name: what puts the index in front (faststart) reads the file again.
        with av.open(file.name, "w", format="mp4", options={"movflags": "+faststart"}) as film:
            stream, ticks, shown = None, 0, {}  # how long, by when: or else the last one is gone at once
            for image, seconds in frames:
                if stream is None:
                    stream = _stream(film, image.width // 2 * 2, image.height // 2 * 2)
                frame = av.VideoFrame.from_image(image.crop((0, 0, stream.width, stream.height)))
                # Players take films of this size for BT.709; with any other, hues would be off.
                frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
                frame.pts, frame.time_base = ticks, Fraction(1, _CLOCK)
                shown[ticks] = max(round(seconds * _CLOCK), 1)
                ticks += shown[ticks]
                _mux(film, stream.encode(frame), shown)
            _mux(film, stream.encode(None), shown)
    except av.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise ZeroFlowError(f"the film could not be encoded ({error}); write a .webp or .gif") from error


def _mux(film: Any, packets: Iterable[Any], shown: dict[int, int]) -> None:
    for packet in packets:
        packet.duration = shown.pop(packet.pts)
        film.mux(packet)


def _stream(film: Any, width: int, height: int) -> Any:
    # Without pictures that are made of later ones, which leave the film's length to guesswork.
    options = {"crf": _QUALITY, "preset": "veryfast", "g": "50", "bf": "0"}
    stream = film.add_stream("libx264", rate=10, options=options)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    codec = stream.codec_context
    codec.time_base = Fraction(1, _CLOCK)
    codec.colorspace = codec.color_primaries = codec.color_trc = 1  # BT.709
    codec.color_range = 1  # limited
    return stream
