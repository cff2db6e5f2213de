"""Where a flow is wrong, from above: grey where it is right, dark to light in the colours of the error elsewhere."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from zeroflow_core.drawing.backdrop import backdrop, draw_distances, draw_vehicle, vehicle_scale
from zeroflow_core.drawing.lettering import Area, draw_scale_bar
from zeroflow_core.drawing.lines import Lines
from zeroflow_core.drawing.points import draw_moving, draw_still, grey
from zeroflow_core.drawing.scale import on_log_scale, scale_colours
from zeroflow_core.drawing.view import PANEL, TEXT, View, font

SMALL, LARGE = 0.05, 2.0  # metres: grey below the one, the last colour from the other on
NO_FLOW = (70, 200, 190)  # of points without a flow: a hue that the scale does not have
_TICKS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)  # metres
_NO_FLOW_TINT, _NOT_SCORED_TINT = (0.35, 0.92, 0.84), (0.45, 0.45, 0.45)  # of their greys


def error_colours(error: np.ndarray) -> np.ndarray:
    """sRGB (N,3) float32 in 0…255 of errors (N,) in metres, the larger the lighter."""
    return scale_colours(on_log_scale(error, SMALL, LARGE))


def draw_error_view(
    points: np.ndarray,
    error: np.ndarray,
    *,
    scored: np.ndarray,
    covered: np.ndarray,
    size: tuple[int, int] = (1280, 720),
    metres_across: float = 102.4,
    centre: tuple[float, float] = (0.0, 0.0),
    magnify: float = 1.0,
) -> Image.Image:
    """Draw the end-point error of every scored point, the others faintly below.

    points:  (N,3) metres in the vehicle frame; rows that are not finite are left out
    error:   (N,) metres; looked at where `scored`
    scored:  (N,) bool, the point counts
    covered: (N,) bool, the method gave it a flow. Scored points without one have a ring of their own colour
             around that of their error; where that error is small, they are grey with a touch of that colour
    metres_across: width of the picture in metres
    centre:  what is in the middle of the picture, metres in the vehicle frame
    magnify: how much larger than usual words, dots and lines are

    Returns an RGB image of `size` (width, height).
    """
    view = View(*size, size[0] / metres_across, centre, magnify)
    points = np.asarray(points, dtype=np.float32).reshape(-1, 3)
    inside, pixels = view.inside(points)
    height, scored, without_flow = points[inside, 2], scored[inside], ~covered[inside]
    error = np.where(scored, error[inside], 0.0)
    wrong = error >= SMALL

    canvas = backdrop(view).copy()
    radius = max(1.2, 1.4 * view.unit)
    for group, tint in (
        (~scored, _NOT_SCORED_TINT),
        (scored & ~wrong & without_flow, _NO_FLOW_TINT),
        (scored & ~wrong & ~without_flow, (1.0, 1.0, 1.0)),
    ):
        draw_still(canvas, pixels[group], height[group], tint)
    ringed = pixels[wrong & without_flow]
    draw_moving(canvas, ringed, np.tile(np.float32(NO_FLOW), (len(ringed), 1)), radius + 1.2 * view.unit)
    for low, high in ((SMALL, 0.25), (0.25, np.inf)):  # a large error is not to be averaged away by its neighbours
        group = (error >= low) & (error < high)
        draw_moving(canvas, pixels[group], error_colours(error[group]), radius)

    image = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    draw_distances(image, view)
    lines = Lines.over(image)
    draw_vehicle(lines, view, vehicle_scale(metres_across))
    image = lines.done()
    draw_scale_bar(image, view)
    return image


def draw_error_legend(image: Image.Image, view: View) -> Area:
    """What the colours of the error mean, on a panel in the upper right corner. Returns the area it takes."""
    unit, used = view.unit, font(13 * view.unit)
    margin, pad, row, bar = 16 * unit, 14 * unit, 21 * unit, 12 * unit
    width, height = round(206 * unit), round(2.2 * pad + bar + 5 * row)
    left, top = round(image.width - margin - width), round(margin)
    area = (left, top, left + width, top + height)
    pen = ImageDraw.Draw(image, "RGBA")
    pen.rounded_rectangle(area, round(8 * unit), PANEL)
    x, y = left + pad, top + 0.8 * pad + row / 2
    pen.text((x, y), "error of the flow, metres", TEXT, used, "lm")
    y += 0.9 * row
    across = round(width - 2 * pad)
    colours = error_colours(SMALL * (LARGE / SMALL) ** ((np.arange(across) + 0.5) / across)).astype(np.uint8)
    image.paste(Image.fromarray(np.repeat(colours[None], round(bar), axis=0)), (round(x), round(y)))
    y += bar
    for error in _TICKS:
        at = x + float(on_log_scale(np.float64(error), SMALL, LARGE)) * (across - 1)
        pen.line((at, y, at, y + 4 * unit), TEXT, max(1, round(unit)))
        anchor = "lt" if error == SMALL else "rt" if error == LARGE else "mt"
        pen.text((at, y + 6 * unit), f"{error:g}", TEXT, font(11 * unit), anchor)
    y += 1.6 * row
    half, middle = 5 * unit, x + 7 * unit
    greys = np.float32(grey(np.array([0.5]))[0])
    for tint, ring, text in (
        ((1.0, 1.0, 1.0), False, f"right within {100 * SMALL:g} cm"),
        (_NO_FLOW_TINT, True, "no flow; a ring: wrong"),
        (_NOT_SCORED_TINT, False, "not scored"),
    ):
        dot = (middle - half, y - half, middle + half, y + half)
        fill = tuple(int(value) for value in np.float32(tint) * greys)
        pen.ellipse(dot, fill, NO_FLOW if ring else None, max(1, round(1.5 * unit)) if ring else 0)
        pen.text((middle + 2.4 * half, y), text, TEXT, used, "lm")
        y += row
    return area
