"""The ground: a slope, gentle waves, kerbs beside the roads, banks beside the highway."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Road:
    """A road for the terrain: a straight line or a circle without end, so many metres to each side.

    point, heading: where its middle passes, world frame, and in which direction there (radians)
    curvature:      1/m, left turns positive; 0 is straight
    half_width:     from the middle to the kerb, metres
    """

    point: tuple[float, float]
    heading: float
    half_width: float
    curvature: float = 0.0

    def lateral(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Signed distance (...) of positions x, y (...) from the road's middle, left positive, metres."""
        dx, dy = x - self.point[0], y - self.point[1]
        c, s = float(np.cos(self.heading)), float(np.sin(self.heading))
        along, across = c * dx + s * dy, c * dy - s * dx
        if self.curvature == 0:
            return across
        # distance to the circle, in a form that keeps its digits for large radii
        k = self.curvature
        q = across - 0.5 * k * (along * along + across * across)
        return 2 * q / (1 + torch.sqrt(torch.clamp(1 - 2 * k * q, min=0)))


@dataclass(frozen=True)
class Terrain:
    """Height of the ground over the world's x and y, metres.

    slope:         (d/dx, d/dy)
    waves:         (W,4): wave number in x and in y (rad/m), phase (rad), amplitude (m)
    roads:         where it is level; beyond their edges lies the raised sidewalk
    kerb:          height of the step at their edges; 0 for none
    corner_radius: of the kerb where roads meet, metres
    bank:          (height, start, width) of a smooth rise (or fall) that begins `start` metres beyond the edge
    """

    slope: tuple[float, float] = (0.0, 0.0)
    waves: tuple[tuple[float, float, float, float], ...] = ()
    roads: tuple[Road, ...] = ()
    kerb: float = 0.0
    corner_radius: float = 6.0
    bank: tuple[float, float, float] = (0.0, 2.0, 10.0)

    def height(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Height (...) at x, y (...), the kerb's step included."""
        edge = self.beyond_edge(x, y) if self.roads else None
        z = self.smooth_height(x, y, edge)
        return z + self.kerb * (edge > 0) if self.kerb and edge is not None else z

    def smooth_height(self, x: torch.Tensor, y: torch.Tensor, edge: torch.Tensor | None = None) -> torch.Tensor:
        """Height (...) at x, y (...) as if there were no kerb: the level of the roads, carried on."""
        z = self.slope[0] * x + self.slope[1] * y
        for kx, ky, phase, amplitude in self.waves:
            z = z + amplitude * torch.sin(kx * x + ky * y + phase)
        if self.bank[0] and self.roads:
            edge = self.beyond_edge(x, y) if edge is None else edge
            rise = torch.clamp((edge - self.bank[1]) / self.bank[2], 0, 1)
            z = z + self.bank[0] * rise * rise * (3 - 2 * rise)
        return z

    def beyond_edge(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Distance (...) beyond the nearest road's edge, metres; negative on a road, and everywhere without roads."""
        if not self.roads:
            return torch.full_like(x, -torch.inf)
        edge = self.roads[0].lateral(x, y).abs() - self.roads[0].half_width
        for road in self.roads[1:]:  # corners are rounded where two roads meet
            other, r = road.lateral(x, y).abs() - road.half_width, self.corner_radius
            corner = r - torch.hypot(torch.clamp(r - edge, min=0), torch.clamp(r - other, min=0))
            edge = torch.where((edge < r) & (other < r), corner, torch.minimum(edge, other))
        return edge

    def at(self, xy: np.ndarray) -> np.ndarray:
        """Height (...) float64 at `xy` (...,2), the kerb's step included."""
        return self.height(*_tensors(xy)).numpy()


def _tensors(xy: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    xy = np.asarray(xy, dtype=np.float64)
    return torch.from_numpy(np.ascontiguousarray(xy[..., 0])), torch.from_numpy(np.ascontiguousarray(xy[..., 1]))
