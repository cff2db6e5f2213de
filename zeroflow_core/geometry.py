"""Rigid transforms, named by the frames they join: ``dst_SE3_src`` maps points of `src` into `dst`.

Composition reads like the names: ``world_SE3_ego @ ego_SE3_lidar == world_SE3_lidar``. Transforms are kept
and composed in float64; points keep their own dtype (float32 on the road from sweep to flow).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_BLOCK = 8192  # points that are moved at a time, which fit in a core's cache


@dataclass(frozen=True)
class SE3:
    """A rotation (3,3) and a translation (3,) in metres, both float64.

    Raises:
        ValueError: wrong shapes, non-finite values, or a matrix that is not a rotation (tolerance 1e-4).
    """

    rotation: np.ndarray
    translation: np.ndarray

    def __post_init__(self) -> None:
        rotation = np.asarray(self.rotation, dtype=np.float64)
        translation = np.asarray(self.translation, dtype=np.float64)
        if rotation.shape != (3, 3) or translation.shape != (3,):
            raise ValueError(
                f"SE3 needs rotation (3, 3) and translation (3,), got {rotation.shape}, {translation.shape}"
            )
        if not (np.isfinite(rotation).all() and np.isfinite(translation).all()):
            raise ValueError("SE3 with a value that is not finite")
        if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-4 or np.linalg.det(rotation) < 0:
            raise ValueError("SE3 rotation is not orthonormal")
        object.__setattr__(self, "rotation", rotation)
        object.__setattr__(self, "translation", translation)

    @staticmethod
    def identity() -> SE3:
        return SE3(np.eye(3), np.zeros(3))

    @staticmethod
    def from_matrix(matrix: np.ndarray) -> SE3:
        """From a homogeneous matrix (4,4)."""
        matrix = np.asarray(matrix, dtype=np.float64)
        if matrix.shape != (4, 4):
            raise ValueError(f"a homogeneous transform is (4, 4), got {matrix.shape}")
        return SE3(matrix[:3, :3], matrix[:3, 3])

    @staticmethod
    def from_quaternion(wxyz: np.ndarray, translation: np.ndarray) -> SE3:
        """From a quaternion (w, x, y, z), normalised here, and a translation (3,) in metres."""
        wxyz = np.asarray(wxyz, dtype=np.float64)
        norm = np.linalg.norm(wxyz)
        if wxyz.shape != (4,) or not np.isfinite(norm) or norm < 1e-6:
            raise ValueError(f"not a usable quaternion (w, x, y, z): {wxyz}")
        w, x, y, z = wxyz / norm
        rotation = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
            ]
        )
        return SE3(rotation, translation)

    @staticmethod
    def from_yaw(yaw: float, translation: np.ndarray) -> SE3:
        """Rotation by `yaw` radians about z (counter-clockwise), then `translation` (3,) in metres."""
        c, s = np.cos(yaw), np.sin(yaw)
        return SE3(np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]]), translation)

    @property
    def matrix(self) -> np.ndarray:
        """Homogeneous matrix (4,4) float64."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.rotation
        matrix[:3, 3] = self.translation
        return matrix

    @property
    def quaternion(self) -> np.ndarray:
        """Unit quaternion (w, x, y, z) with w ≥ 0."""
        m = self.rotation
        # The largest of the four squared components is the numerically safe one to divide by.
        squares = np.array([1 + m[0, 0] + m[1, 1] + m[2, 2], 1 + m[0, 0] - m[1, 1] - m[2, 2],
                            1 - m[0, 0] + m[1, 1] - m[2, 2], 1 - m[0, 0] - m[1, 1] + m[2, 2]])
        k = int(np.argmax(squares))
        rows = np.array(
            [
                [squares[0], m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]],
                [m[2, 1] - m[1, 2], squares[1], m[0, 1] + m[1, 0], m[0, 2] + m[2, 0]],
                [m[0, 2] - m[2, 0], m[0, 1] + m[1, 0], squares[2], m[1, 2] + m[2, 1]],
                [m[1, 0] - m[0, 1], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], squares[3]],
            ]
        )
        q = rows[k] / np.linalg.norm(rows[k])
        return q if q[0] >= 0 else -q

    def inverse(self) -> SE3:
        return SE3(self.rotation.T, -self.rotation.T @ self.translation)

    def __matmul__(self, other: SE3) -> SE3:
        return SE3(self.rotation @ other.rotation, self.rotation @ other.translation + self.translation)

    def transform(self, points: np.ndarray) -> np.ndarray:
        """Points (N,3) of the source frame, in the destination frame; computed in float64, same dtype out.

        The identity gives them back bit for bit; else a row with a value that is not finite has some in its place.
        """
        return _moved(points, self.rotation, self.translation)

    def rotate(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors (N,3) of the source frame, in the destination frame (no translation)."""
        return _moved(vectors, self.rotation, np.zeros(3))


def finite_rows(points: np.ndarray) -> np.ndarray:
    """(N,) bool: rows of (N,3) without NaN and inf; much faster than ``np.isfinite(points).all(axis=1)``."""
    x, y, z = points.T
    finite = np.isfinite(x)
    finite &= np.isfinite(y)
    finite &= np.isfinite(z)
    return finite


def _moved(points: np.ndarray, rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """Column by column, as a product of matrices of so few columns busies all cores and is slower nevertheless."""
    points = np.asarray(points)
    moved = np.empty(points.shape, dtype=points.dtype if points.dtype.kind == "f" else np.float64)
    if np.array_equal(rotation, np.eye(3)) and not translation.any():
        moved[...] = points
        return moved
    flat, rows = points.reshape(-1, 3), moved.reshape(-1, 3)
    columns = np.empty((5, min(len(flat), _BLOCK)))
    with np.errstate(invalid="ignore", over="ignore"):  # clouds hold inf rows, which turn into NaN
        for start in range(0, len(flat), _BLOCK):
            block = flat[start : start + _BLOCK]
            x, y, z, total, term = columns[:, : len(block)]
            x[:], y[:], z[:] = block.T
            for k in range(3):
                np.multiply(x, rotation[k, 0], out=total)
                total += np.multiply(y, rotation[k, 1], out=term)
                total += np.multiply(z, rotation[k, 2], out=term)
                total += translation[k]
                rows[start : start + len(block), k] = total
    return moved


def interpolate(start: SE3, end: SE3, ratio: float) -> SE3:
    """The pose `ratio` of the way from `start` to `end`: linear translation, spherical rotation.

    `ratio` outside [0, 1] extrapolates with the same velocity.
    """
    q0, q1 = start.quaternion, end.quaternion
    cosine = float(q0 @ q1)
    if cosine < 0:
        q1, cosine = -q1, -cosine
    angle = np.arccos(min(cosine, 1.0))
    if angle < 1e-9:
        q = q0
    else:
        q = (np.sin((1 - ratio) * angle) * q0 + np.sin(ratio * angle) * q1) / np.sin(angle)
    return SE3.from_quaternion(q, (1 - ratio) * start.translation + ratio * end.translation)
