"""One picture of a moment: from above and as a driver sees it, the truth beside the estimate where it is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from zeroflow_core.drawing.birds_eye import draw_birds_eye
from zeroflow_core.drawing.drivers_view import draw_drivers_view
from zeroflow_core.drawing.header import draw_header, draw_name
from zeroflow_core.drawing.legend import legend_strip
from zeroflow_core.drawing.view import BACKGROUND
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.moments import Moment
from zeroflow_core.objects import MovingObject

VIEWS = ("birds-eye", "driver")
LEAST_SIZE = (480, 270)  # pixels

_BORDER = (38, 47, 60)
_LEAST_UNIT = 0.75  # of the words in a small picture
_GAP = 2  # pixels between views
_FROM_ABOVE = 0.55  # of the height, when one view stands on the other
_WHEEL, _LARGE_WHEEL = 74, 104  # pixels at unit 1
_MOST_LEGEND = 0.4  # of the picture's height, where the legend stands below one view and beside the other
_WIDE = 1.25  # width to height from which there is room for one view beside the other


@dataclass(frozen=True)
class _Side:
    """What one column shows: the estimate or the truth."""

    name: str
    velocity: np.ndarray | None
    objects: Sequence[MovingObject]
    trails: Sequence[np.ndarray]


@dataclass(frozen=True)
class _Look:
    """What all views of a picture have in common. unit: size of words and lines, 1 at 1280 × 720."""

    unit: float
    metres_across: float
    min_speed: float
    full_speed: float


def draw_scene(
    moment: Moment,
    *,
    title: str = "",
    subtitle: str = "",
    figures: Sequence[tuple[str, str]] = (),
    size: tuple[int, int] = (1280, 720),
    views: Sequence[str] = VIEWS,
    metres_across: float = 102.4,
    min_speed: float = 0.5,
    full_speed: float = 10.0,
) -> Image.Image:
    """Draw what there is to see at a moment, with a legend. Where there is a truth, it stands beside the estimate.

    figures: names and values to write beside the title, such as the time
    views:   which of VIEWS; one alone fills the picture
    metres_across: width in metres of the view from above
    min_speed:  m/s from which a point counts as moving
    full_speed: m/s at which its colour is full

    Returns an RGB image of `size` (width, height).

    Raises:
        ZeroFlowError: the picture is smaller than LEAST_SIZE, or `views` names none, or one that there is not.
    """
    _check(size, views)
    width, height = size
    unit = max(_LEAST_UNIT, min(np.sqrt(width * height / (1280 * 720)), width / 640, height / 360))
    look = _Look(unit, metres_across, min_speed, full_speed)
    sides = _sides(moment)
    names = len(sides) > 1
    beside = not names and len(views) > 1 and width >= _WIDE * height
    image = Image.new("RGB", size, BACKGROUND)

    left_part = width - min(height, round(0.56 * width))
    column, legend = width, legend_strip(width, unit, full_speed, round(_WHEEL * unit))
    if beside:
        narrow = legend_strip(left_part, unit, full_speed, round(_LARGE_WHEEL * unit))
        if narrow.height < _MOST_LEGEND * height:  # otherwise all of the width is better used
            column, legend = left_part, narrow
    top = draw_header(image, column, unit, title, subtitle, figures)
    bottom = max(height - legend.height, top)
    image.paste(legend, (0, bottom))
    if beside:
        (side,) = sides
        highest, lowest = (0, height) if column < width else (top, bottom)
        _draw_view(image, (left_part + _GAP, highest, width, lowest), "birds-eye", moment, side, look)
        _draw_view(image, (0, top, left_part, bottom), "driver", moment, side, look)
        return image

    for k, side in enumerate(sides):
        left, right = ((width + _GAP) * j // len(sides) for j in (k, k + 1))
        right -= _GAP
        begin = top + (draw_name(image, (left, top, right), unit, side.name, len(side.objects)) if names else 0)
        share = {1: (1.0,), 2: (_FROM_ABOVE, 1 - _FROM_ABOVE)}[len(views)]
        for view, part in zip(sorted(views, key=VIEWS.index), share, strict=True):
            end = bottom if view == VIEWS[-1] or len(views) == 1 else begin + round(part * (bottom - begin))
            _draw_view(image, (left, begin, right, end), view, moment, side, look)
            begin = end + _GAP
    if names:
        ImageDraw.Draw(image).rectangle((width // 2 - 1, top, width // 2, bottom), _BORDER)
    return image


def _check(size: tuple[int, int], views: Sequence[str]) -> None:
    if size[0] < LEAST_SIZE[0] or size[1] < LEAST_SIZE[1]:
        least = "{}x{}".format(*LEAST_SIZE)
        raise ZeroFlowError(f"{size[0]}x{size[1]} pixels are too few to draw a scene; make it {least} or more")
    if not views or set(views) - set(VIEWS) or len(set(views)) < len(views):
        raise ZeroFlowError(f"views must be one or both of {' and '.join(VIEWS)}, not {', '.join(views) or 'none'}")


def _sides(moment: Moment) -> list[_Side]:
    trails = [moment.paths.get(track.id, np.zeros((0, 3))) for track in moment.tracks]
    sides = [_Side("Estimate", moment.velocity, moment.objects, trails)]
    if moment.truth is not None:
        sides.append(_Side("Truth", moment.truth, moment.true_objects, ()))
    return sides


def _draw_view(
    image: Image.Image, area: tuple[int, int, int, int], view: str, moment: Moment, side: _Side, look: _Look
) -> None:
    """One view of one side, in the area (left, top, right, bottom) of `image`."""
    left, top, right, bottom = area
    if right - left < 8 or bottom - top < 8:
        return
    arguments = {
        "trails": side.trails,
        "ego_path": moment.ego_path,
        "size": (right - left, bottom - top),
        "metres_across": look.metres_across,
        "magnify": look.unit * 720 / (bottom - top),
        "min_speed": look.min_speed,
        "full_speed": look.full_speed,
    }
    if view == "birds-eye":
        part = draw_birds_eye(moment.points, side.velocity, side.objects, legend=False, **arguments)
    else:
        part = draw_drivers_view(moment.points, side.velocity, side.objects, **arguments)
    image.paste(part, (left, top))
