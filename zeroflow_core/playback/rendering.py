"""Moments as pictures, drawn by other processes while this one estimates the next."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import numpy as np
from PIL import Image

from zeroflow_core.drawing.scene import VIEWS, draw_scene
from zeroflow_core.ego_motion import LONGEST_GAP_NS
from zeroflow_core.moments import Moment
from zeroflow_core.workers import map_in_workers

_USUAL_S = 0.1  # between sweeps, where there is only one
_LONGEST_S = 10.0  # to the second sweep: farther apart they are of different times


@dataclass(frozen=True)
class Look:
    """How moments are drawn, as draw_scene takes it."""

    title: str = ""
    subtitle: str = ""
    size: tuple[int, int] = (1280, 720)
    views: tuple[str, ...] = VIEWS
    metres_across: float = 102.4
    min_speed: float = 0.5


@dataclass(frozen=True)
class Told:
    """A moment among others.

    time_s:  since the first of them
    shown_s: until the next; for the last one, and before a gap, what is usual
    ego_speed: of the vehicle, m/s; None where it is not known
    """

    moment: Moment
    time_s: float
    shown_s: float
    ego_speed: float | None


def tell(moments: Iterable[Moment]) -> Iterator[Told]:
    """Each moment, as soon as the next one is known."""
    start_ns: int | None = None
    speed, intervals = None, []
    for moment, following in pairwise(chain(moments, [None])):
        start_ns = moment.stamp_ns if start_ns is None else start_ns
        shown = usual = statistics.median(intervals) if intervals else _USUAL_S
        if following is not None:
            seconds = (following.stamp_ns - moment.stamp_ns) * 1e-9
            speed = _ego_speed(moment, following, seconds)
            longest = max(2 * usual, 1.0) if intervals else _LONGEST_S
            if 0 < seconds <= longest:  # nobody waits through a gap
                shown = seconds
                intervals.append(seconds)
        yield Told(moment, (moment.stamp_ns - start_ns) * 1e-9, shown, speed)


def draw_film(told: Iterable[Told], look: Look, processes: int) -> Iterator[tuple[Image.Image, float]]:
    """Each as a picture, with the seconds for which it is shown.

    Raises:
        as map_in_workers does, and whatever makes `told`.
    """
    shown_s: list[float] = []

    def tasks() -> Iterator[tuple[Any, ...]]:
        for one in told:
            shown_s.append(one.shown_s)
            yield one.moment, [("Time", f"{one.time_s:.1f} s"), *_figures(one)], look

    with closing(map_in_workers(_draw_apart, tasks(), processes)) as pictures:
        for k, pixels in enumerate(pictures):
            yield Image.frombytes("RGB", look.size, pixels), shown_s[k]


def draw_still(told: Told, look: Look) -> Image.Image:
    """That one alone."""
    return _draw(told.moment, _figures(told), look)


def _draw_apart(moment: Moment, figures: list[tuple[str, str]], look: Look, report: Any) -> None:
    """Run in a worker."""
    report(_draw(moment, figures, look).tobytes())


def _draw(moment: Moment, figures: list[tuple[str, str]], look: Look) -> Image.Image:
    return draw_scene(moment, figures=figures, **vars(look))


def _figures(told: Told) -> list[tuple[str, str]]:
    figures = []
    if told.ego_speed is not None:
        figures.append(("Vehicle", f"{told.ego_speed:.1f} m/s"))
    if told.moment.truth is None:  # beside the truth, either has its own number
        figures.append(("Moving objects", str(len(told.moment.tracks))))
    return figures


def _ego_speed(moment: Moment, following: Moment, seconds: float) -> float | None:
    poses = moment.world_SE3_vehicle, following.world_SE3_vehicle
    if None in poses or not 0 < seconds <= LONGEST_GAP_NS * 1e-9:
        return None
    return float(np.linalg.norm(poses[1].translation - poses[0].translation)) / seconds
