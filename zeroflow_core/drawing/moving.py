"""What counts as moving, and the colour of what is drawn around it."""

from __future__ import annotations

import numpy as np

from zeroflow_core.drawing import colour_wheel
from zeroflow_core.drawing.view import BACKGROUND
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.objects import MovingObject

LEAST_SPEED, MOST_SPEED = 0.05, 50.0  # m/s, as the node has them
_PALE = 0.6  # of the colour of what was not seen this time


def is_moving(points: np.ndarray, velocity: np.ndarray | None, min_speed: float) -> np.ndarray:
    """(N,) bool of points (N,3): a velocity (N,3) in m/s that is finite and at least `min_speed`."""
    if velocity is None:
        return np.zeros(len(points), dtype=bool)
    velocity = np.asarray(velocity, dtype=np.float32).reshape(-1, 3)
    with np.errstate(invalid="ignore", over="ignore"):
        squares = np.einsum("ij,ij->i", velocity, velocity, dtype=np.float64)  # finite wherever a float32 is
        return np.isfinite(squares) & (squares >= min_speed**2)


def check_min_speed(min_speed: float) -> None:
    """Raise ZeroFlowError unless things can be told apart by that many m/s."""
    if not LEAST_SPEED <= min_speed <= MOST_SPEED:
        raise ZeroFlowError(
            f"--min-speed {min_speed:g} cannot be; give metres per second from {LEAST_SPEED:g} to {MOST_SPEED:g}"
        )


def line_colour(shown: MovingObject, full_speed: float) -> tuple[int, ...]:
    """The colour of the object's points, but never greyer than at half of `full_speed`: lines are thin. Pale where it
    has no points, as what is only predicted."""
    velocity = shown.velocity * max(1.0, 0.5 * full_speed / max(shown.speed, 1e-6))
    colour = tuple(int(value) for value in colour_wheel.colours(velocity[None], full_speed)[0])
    return colour if shown.num_points else paler(colour)


def paler(colour: tuple[int, ...]) -> tuple[int, ...]:
    """That of what was not seen this time: nearer to the background's."""
    return tuple(round(back + _PALE * (own - back)) for own, back in zip(colour, BACKGROUND, strict=True))
