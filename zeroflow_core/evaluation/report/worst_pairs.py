"""The worst pairs in pictures: estimate, truth and error from above, cut to where the error is."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw

from zeroflow_core.drawing.birds_eye import draw_birds_eye
from zeroflow_core.drawing.error_view import LARGE, NO_FLOW, SMALL, draw_error_view, error_colours
from zeroflow_core.drawing.legend import legend_panel
from zeroflow_core.drawing.scale import on_log_scale
from zeroflow_core.drawing.view import TEXT, View
from zeroflow_core.evaluation.report.charts import colour_bar
from zeroflow_core.evaluation.report.markup import Markup, tag
from zeroflow_core.evaluation.report.page import Section, section
from zeroflow_core.evaluation.wording import count, metres

_SIDE, _OVERVIEW = 560, 200  # pixels; half as much again as a laptop shows
_MAGNIFY = 1.6
_WHEEL_SCALE = 1.5  # pixels of the colour wheel in one of the page
_WHOLE = 104.0  # metres across a picture that shows everything scored
_WINDOWS = (40.0, 60.0, 80.0)  # metres across one that shows a part
_MARGIN = 0.08  # of a picture, to each side of what it should show
_SHARE = 0.7  # of the error that such a part must hold
_FASTEST = 1e6  # metres per pair; a picture shows no more than the heading of an estimate beyond all measure
_GREY, _FAINT = "#7d8794", "#3c444f"  # of points that are right, and not scored


@dataclass(frozen=True)
class WorstPair:
    """A pair to show. All arrays have the N points of its first sweep, in that sweep's vehicle frame.

    epe:        mean error of its moving foreground, metres
    num_points: how many points those are
    points:     (N,3) float32, metres
    truth, estimate: (N,3) float32, residual flow in metres over `dt` seconds
    covered:    (N,) bool, the method gave a flow
    scored:     (N,) bool, the point counts
    """

    log_id: str
    index: int
    stamp_ns: int
    dt: float
    epe: float
    num_points: int
    points: np.ndarray
    truth: np.ndarray
    estimate: np.ndarray
    covered: np.ndarray
    scored: np.ndarray

    @property
    def error(self) -> np.ndarray:
        """(N,) float64 metres, 0 where not scored."""
        error = np.linalg.norm(self.estimate.astype(np.float64) - self.truth, axis=1)  # squares may be beyond float32
        return np.where(self.scored & np.isfinite(error), error, 0.0)


def worst_pairs(pairs: Sequence[WorstPair]) -> Section:
    """The section with a row of pictures for each pair."""
    return section(
        "worst",
        "Worst pairs",
        tag(
            "p",
            "The worst pair of each of the worst logs, and more of the same logs only where these are too few; by the "
            "mean error of moving foreground (AV2 2023), pairs with fewer than 20 such points left out. From above, "
            "driving to the right; estimate and truth have the same colours.",
            class_="lead",
        ),
        _legend(),
        [_pair(pair) for pair in pairs],
    )


def _legend() -> Markup:
    panel = legend_panel(_WHEEL_SCALE, 10.0)
    width, height = (round(side / _WHEEL_SCALE) for side in panel.size)
    alt = "Colour wheel: amber ahead, green left, blue back, pink right"
    wheel = _picture(panel, alt, "PNG", style=f"width:{width}px;height:{height}px")
    swatches = (
        (_GREY, f"right within {100 * SMALL:g} cm"),
        (_css(NO_FLOW), "the method gave no flow"),
        (_FAINT, "not scored"),
    )
    items = [tag("li", tag("span", class_="swatch", style=f"background:{fill}"), text) for fill, text in swatches]
    return tag(
        "div",
        tag(
            "div",
            wheel,
            tag("span", "The hue is the heading of what moves, its strength the speed; grey stands still."),
        ),
        tag("div", tag("span", "In the error view:"), tag("ul", items)),
        class_="legend",
    )


def _pair(pair: WorstPair) -> Markup:
    centre, across = where_the_error_is(pair.points, pair.error)
    look = {"size": (_SIDE, _SIDE), "metres_across": across, "centre": centre, "magnify": _MAGNIFY}
    known = {"scored": pair.scored, "covered": pair.covered}
    estimate = np.clip(pair.estimate, -_FASTEST, _FASTEST)
    views = {
        "Estimate": draw_birds_eye(pair.points, estimate / pair.dt, legend=False, **look),
        "Truth": draw_birds_eye(pair.points, pair.truth / pair.dt, legend=False, **look),
        "Error": draw_error_view(pair.points, pair.error, **known, **look),
    }
    if across < _WHOLE:
        size = {"size": (_OVERVIEW, _OVERVIEW), "metres_across": _WHOLE}
        views["Whole sweep"] = draw_error_view(pair.points, pair.error, **known, **size)
        _frame(views["Whole sweep"], centre, across)
    where = f"{across:g} m across" + ("" if across >= _WHOLE else f", around {_place(centre)}")
    of_pair = f"of pair {pair.index} of log {pair.log_id} from above"
    figures = [
        tag("figure", _picture(image, f"{name} {of_pair}"), tag("figcaption", name)) for name, image in views.items()
    ]
    return tag(
        "div",
        tag("h3", f"{metres(pair.epe)} m over {count(pair.num_points)} points"),
        tag("p", f"Log {pair.log_id}, pair {pair.index}, stamp {pair.stamp_ns} ns; {where}.", class_="faint"),
        tag("div", figures[:3], tag("div", figures[3:], _scale()), class_="views"),
        class_="pair",
    )


def where_the_error_is(points: np.ndarray, error: np.ndarray) -> tuple[tuple[float, float], float]:
    """What a picture should show: its centre in metres, and how many metres across.

    points: (N,3) metres; error: (N,) metres. Errors too small to have a colour don't count. Where no window holds most
    of the error, everything is shown.
    """
    half, cell = _WHOLE / 2, 1.0
    wrong = (error >= SMALL) & np.isfinite(points).all(axis=1) & (np.abs(points[:, :2]) < half).all(axis=1)
    points, error = points[wrong, :2], error[wrong]
    cells = ((points + half) / cell).astype(np.int64)
    below = np.zeros((int(_WHOLE / cell) + 1,) * 2)  # sums of the error behind and to the right of each corner
    np.add.at(below, (cells[:, 0] + 1, cells[:, 1] + 1), error)
    below = below.cumsum(axis=0).cumsum(axis=1)
    for across in _WINDOWS:
        width = int((1 - 2 * _MARGIN) * across / cell)
        held = below[width:, width:] - below[:-width, width:] - below[width:, :-width] + below[:-width, :-width]
        if held.max() >= _SHARE * below[-1, -1] > 0:
            corner = np.array(np.unravel_index(held.argmax(), held.shape))
            shown = points[((cells >= corner) & (cells < corner + width)).all(axis=1)]
            x, y = (shown.min(axis=0) + shown.max(axis=0)) / 2
            return (float(x), float(y)), across
    return (0.0, 0.0), _WHOLE


def _place(centre: tuple[float, float]) -> str:
    sides = (centre[0], "ahead", "behind"), (centre[1], "to the left", "to the right")
    named = [f"{abs(metres):.0f} m {one if metres > 0 else other}" for metres, one, other in sides if round(metres)]
    return " and ".join(named) or "the vehicle"


def _scale() -> Markup:
    """What the colours of the error view mean."""
    shown = error_colours(np.geomspace(SMALL, LARGE, 48))
    ticks = [(float(on_log_scale(np.float64(error), SMALL, LARGE)), f"{error:g}") for error in (0.05, 0.1, 0.2, 0.5, 1)]
    return colour_bar([_css(colour) for colour in shown], [*ticks, (1.0, f"{LARGE:g} m")], "Colours of the error")


def _css(colour: Sequence[float]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*(int(value) for value in colour))


def _frame(image: Image.Image, centre: tuple[float, float], across: float) -> None:
    """A line around the part of the whole sweep that the other pictures show."""
    view = View(*image.size, image.width / _WHOLE)
    half = np.array([across, -across]) / 2
    (left, top), (right, bottom) = view.pixels(np.array([np.array(centre) - half, np.array(centre) + half]))
    ImageDraw.Draw(image).rectangle((left, top, right, bottom), outline=TEXT, width=2)


def _picture(image: Image.Image, alt: str, kind: str = "WEBP", **attributes: str) -> Markup:
    buffer = BytesIO()
    image.save(buffer, kind, **({"quality": 82, "method": 4} if kind == "WEBP" else {"optimize": True}))
    data = base64.b64encode(buffer.getvalue()).decode()
    source = f"data:image/{kind.lower()};base64,{data}"
    return tag("img", src=source, alt=alt, width=image.width, height=image.height, **attributes)
