"""Where a flow is wrong, from above: grey where it is right, dark to light in the colours of the error elsewhere."""

from __future__ import annotations

import numpy as np
from PIL import Image

from zeroflow_core.drawing.backdrop import backdrop, draw_vehicle
from zeroflow_core.drawing.lines import Lines
from zeroflow_core.drawing.points import draw_moving, draw_still
from zeroflow_core.drawing.scale import on_log_scale, scale_colours
from zeroflow_core.drawing.view import View

SMALL, LARGE = 0.05, 2.0  # metres: grey below the one, the last colour from the other on
NO_FLOW = (70, 200, 190)  # of points without a flow: a hue that the scale does not have
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

    lines = Lines(Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8)))
    draw_vehicle(lines, view)
    return lines.done()
