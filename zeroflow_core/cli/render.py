"""``zeroflow render``: a film or a picture of what moves, on any machine."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zeroflow_core.cli.ending import ended_by_sigterm
from zeroflow_core.cli.options import Device, check_file
from zeroflow_core.cli.playback_options import (
    Checkpoint,
    Count,
    Every,
    Ground,
    Height,
    Labels,
    LogName,
    Method,
    MinSpeed,
    Odometry,
    Seed,
    Start,
    TeacherConfiguration,
    Topic,
    Truth,
    chosen,
)
from zeroflow_core.cli.progress import progress_bar
from zeroflow_core.errors import ZeroFlowError

if TYPE_CHECKING:
    from PIL import Image

    from zeroflow_core.playback import Playback
    from zeroflow_core.playback.rendering import Look

_LARGEST = 7680  # pixels along a side
_LEAD_IN = 15  # sweeps before that of a single picture: where everything came from is worth their time


def render(
    source: Annotated[Path, typer.Argument(help="An AV2 log, a rosbag2, or a run of evaluate or distill.")],
    out: Annotated[Path, typer.Option(help="A film: .mp4, .gif or .webp; or one picture: .png.")],
    start: Start = 0,
    count: Count = None,
    every: Every = 1,
    sweep: Annotated[
        int | None, typer.Option(min=0, help="For a .png: which one; else a lively one.", show_default=False)
    ] = None,
    speed: Annotated[float, typer.Option(help="1 is real time, by the stamps; 0.5 is half as fast.")] = 1.0,
    fps: Annotated[
        float | None, typer.Option(help="Sweeps a second, whatever the stamps say.", show_default=False)
    ] = None,
    size: Annotated[str, typer.Option(help="Width x height in pixels.")] = "1280x720",
    views: Annotated[str, typer.Option(help="birds-eye, driver, or both with a comma.")] = "birds-eye,driver",
    metres: Annotated[float, typer.Option(help="Width of what the view from above shows.")] = 102.4,
    min_speed: MinSpeed = 0.5,
    truth: Truth = True,
    method: Method = None,
    checkpoint: Checkpoint = None,
    labels: Labels = None,
    ground: Ground = None,
    device: Device = "auto",
    teacher_config: TeacherConfiguration = None,
    seed: Seed = None,
    log: LogName = None,
    topic: Topic = None,
    odometry: Odometry = None,
    height: Height = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes that draw; else one for each core.", show_default=False)
    ] = None,
) -> None:
    """Draw what moves, from above and as a driver sees it, with the truth beside the estimate where there are labels.

    Colour is heading, strength is speed, an arrow is one second of travel.
    Needs no screen.

    Example: zeroflow render drive_bag --out drive.mp4
    """
    from zeroflow_core.playback import open_playback
    from zeroflow_core.playback.film import STILL, check_suffix
    from zeroflow_core.workers import cores

    check_file(out, "clip.mp4")
    check_suffix(out)
    is_still = out.suffix.lower() == STILL
    if sweep is not None and not is_still:
        raise ZeroFlowError(f"--sweep is of one picture, and {out} is a film; give --start and --count")
    of_films = {"--start": start != 0, "--count": count, "--every": every != 1, "--speed": speed != 1, "--fps": fps}
    if is_still and (given := [option for option, value in of_films.items() if value]):
        raise ZeroFlowError(f"{given[0]} is of a film, and {out} is one picture; give --sweep")
    _check_time(speed, fps)
    playback = open_playback(
        source,
        method=method,
        log=log,
        topic=topic,
        odometry=odometry,
        height=height,
        with_truth=truth,
        min_speed=min_speed,
        checkpoint=checkpoint,
        labels=labels,
        ground=ground,
        device=device,
        teacher_config=teacher_config,
        seed=seed,
    )
    look = _look(playback, size, views, metres)
    if is_still:
        index = _draw_still(playback, sweep, look, out)
        print(f"{out}: sweep {index} of {playback.name}")
        return
    indices = chosen(playback, start, count, every)
    faster = speed if fps is None else None
    drawn = _draw_film(playback, indices, look, out, jobs or cores(), faster, fps)
    if drawn is None:
        print(f"Stopped; {out} was not written.", file=sys.stderr)
        raise typer.Exit(130)
    print(f"{out}: {drawn} sweeps of {playback.name}, {out.stat().st_size / 1e6:.1f} MB")


def _draw_still(playback: Playback, sweep: int | None, look: Look, out: Path) -> int:
    """The number of the sweep that was drawn."""
    from zeroflow_core.playback.film import write_film
    from zeroflow_core.playback.rendering import draw_still, tell

    if sweep is not None and sweep >= len(playback):
        raise ZeroFlowError(f"{playback.name} has no --sweep {sweep}; its last is {len(playback) - 1}")
    index = playback.liveliest() if sweep is None else sweep
    wanted = range(max(index - 1, 0), index + 1)  # what lies before tells how fast the vehicle is
    told = list(tell(playback.moments(wanted, lead_in=_LEAD_IN)))
    if len(told) < len(wanted):  # which of them it is, is not told
        told = list(tell(playback.moments([index], lead_in=_LEAD_IN)))
    if not told:
        raise ZeroFlowError(f"sweep {index} of {playback.name} cannot be used; choose another --sweep")
    with ended_by_sigterm():
        write_film(out, [(draw_still(told[-1], look), 0.0)])
    return index


def _draw_film(
    playback: Playback, indices: list[int], look: Look, out: Path, jobs: int, faster: float | None, fps: float | None
) -> int | None:
    """How many sweeps were drawn, or None: stopped by Ctrl-C."""
    from zeroflow_core.playback.film import write_film
    from zeroflow_core.playback.rendering import draw_film, tell

    drawn = 0
    with ended_by_sigterm(), progress_bar() as progress:
        task = progress.add_task(f"Drawing {playback.name}", total=len(indices), note="")

        def timed() -> Iterator[tuple[Image.Image, float]]:
            nonlocal drawn
            for image, seconds in draw_film(tell(playback.moments(indices)), look, min(jobs, len(indices))):
                yield image, 1 / fps if faster is None else seconds / faster
                drawn += 1
                progress.update(task, advance=1)

        try:
            write_film(out, timed())
        except KeyboardInterrupt:
            return None
    return drawn


def _look(playback: Playback, size: str, views: str, metres: float) -> Look:
    from zeroflow_core.drawing.scene import LEAST_SIZE, VIEWS
    from zeroflow_core.playback.rendering import Look

    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", size)
    sides = (0, 0) if match is None else (int(match[1]), int(match[2]))
    if not all(least <= side <= _LARGEST for side, least in zip(sides, LEAST_SIZE, strict=True)):
        least = "{}x{}".format(*LEAST_SIZE)
        raise ZeroFlowError(
            f"--size {size} is no size of a picture; give width x height in pixels, such as 1280x720, from {least} to "
            f"{_LARGEST}x{_LARGEST}"
        )
    chosen = tuple(dict.fromkeys(view.strip() for view in views.split(",")))
    unknown = [view for view in chosen if view not in VIEWS]
    if unknown:
        raise ZeroFlowError(f"--views '{unknown[0]}' is unknown; choose from: {', '.join(VIEWS)}")
    if not 5 <= metres <= 1000:
        raise ZeroFlowError(f"--metres {metres:g} is no width of a view; give metres from 5 to 1000")
    return Look(playback.name, playback.method, sides, chosen, metres_across=metres, min_speed=playback.min_speed)


def _check_time(speed: float, fps: float | None) -> None:
    if not 0.01 <= speed <= 100:
        raise ZeroFlowError(f"--speed {speed:g} cannot be; give how many times faster than real time, from 0.01 to 100")
    if fps is not None and not 0.1 <= fps <= 120:
        raise ZeroFlowError(f"--fps {fps:g} cannot be; give sweeps a second, from 0.1 to 120")
