"""Things that move and things that stand, as clouds, to tell one from the other."""

import numpy as np


def shell(length, width, height, spacing=0.15, at=(0, 0, 0)):
    """Points (N,3) on the sides of a box."""
    x, y, z = (np.arange(0, side + 1e-9, spacing) for side in (length, width, height))
    sides = [np.stack(np.meshgrid(x, [0, width], z), -1), np.stack(np.meshgrid([0, length], y, z), -1)]
    return np.concatenate([side.reshape(-1, 3) for side in sides]) + at


def jittered(points, rng):
    """As another scan of the same surface has it."""
    return points + rng.normal(0, 0.02, points.shape)


STILL = np.zeros(3)
CAR = shell(4.2, 1.8, 1.5, at=(5, 5, 0))
WALL = np.stack(np.meshgrid(np.arange(0, 20, 0.1), [-8.0], np.arange(0, 3, 0.1)), -1).reshape(-1, 3)
