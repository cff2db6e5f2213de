"""Fast NSF's loss: how far any point is from a cloud, read from a grid that is filled once.

Fast NSF (Li et al., ICCV 2023) and its published code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zeroflow_core.errors import ZeroFlowError

_MOST_CELLS = 1 << 30  # 4.3 GB


class DistanceTransforms:
    """For pairs of clouds, distance in metres to the nearest occupied cell of one, anywhere in the space of both.

    Everything as in the published code:
    * a grid spans both clouds and one to three cells more on each side; a cell is occupied if a point of the target
      rounds to it;
    * distance is counted in steps from a cell to its 26 neighbours, of their true length (1, √2 or √3 cells). That is
      what the published call of FastGeodis comes to: never below the Euclidean distance, at most 12.8 % above it;
    * between cells it is interpolated linearly along each axis, and outside the grid it is that of the border.

    The grids are filled in another way, with the same distances up to the rounding of float32.

    Memory: 4 bytes a cell, 8 while the grids are filled; for a box of 102.4 × 102.4 × 6 m at 10 cells per metre (1028 ×
    1028 × 64) that is 271 and 541 MB. On a GPU the same steps run there, for all pairs at once.

    grids: (B,Z,Y,X) float32, metres; each as large as the largest
    """

    def __init__(self, targets: Sequence[Tensor], others: Sequence[Tensor], cells_per_metre: int = 10) -> None:
        """
        targets: (M,3) float32, metres: the clouds to be near to, M ≥ 1
        others:  (N,3) in the same frame and on the same device: give the grids their extent only, N ≥ 1

        Raises:
            ZeroFlowError: the clouds of a pair span a space too large for a grid.
        """
        self._cells_per_metre = cells_per_metre
        pairs = list(zip(targets, others, strict=True))
        lower = torch.stack([torch.minimum(a.amin(dim=0), b.amin(dim=0)) for a, b in pairs]) * cells_per_metre
        upper = torch.stack([torch.maximum(a.amax(dim=0), b.amax(dim=0)) for a, b in pairs]) * cells_per_metre
        lower = torch.floor(lower - 1) / cells_per_metre
        sizes = torch.ceil((torch.ceil(upper + 1) / cells_per_metre - lower) * cells_per_metre).long() + 2
        occupied = [
            ((target - low) * cells_per_metre).round().long() for target, low in zip(targets, lower, strict=True)
        ]
        self.grids = _distances(occupied, sizes.amax(dim=0), 1 / cells_per_metre)

        self._lower = lower[:, None]
        self._first, self._last = torch.zeros_like(self._lower), (sizes - 1).to(self._lower)[:, None]
        self._last_corner = (sizes - 2)[:, None]
        of_grid, next_z, next_y, next_x = self.grids.stride()
        self._strides = torch.tensor([next_x, next_y, next_z], device=lower.device)
        self._starts = torch.arange(len(pairs), device=lower.device)[:, None] * of_grid
        to_corners = [z + y + x for z in (0, next_z) for y in (0, next_y) for x in (0, next_x)]
        self._to_corners = torch.tensor(to_corners, device=lower.device)[:, None, None]

    def __call__(self, points: Tensor) -> Tensor:
        """Distances (B,N) in metres at `points` (B,N,3), differentiable."""
        corners, (x, y, z) = self._around(self._clamped(self._places(points)))
        on_edges = torch.lerp(corners[:, :, 0], corners[:, :, 1], x)
        on_faces = torch.lerp(on_edges[:, 0], on_edges[:, 1], y)
        return torch.lerp(on_faces[0], on_faces[1], z)

    @torch.no_grad()
    def with_gradient(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Distances (B,N) in metres at `points` (B,N,3) and their gradient (B,N,3).

        The same as ``__call__`` and autograd give, without autograd and without a wait for the GPU. Outside the grid
        the gradient is 0 along the axes that were cut short.
        """
        places = self._places(points)
        corners, (x, y, z) = self._around(self._clamped(places))
        on_edges = torch.lerp(corners[:, :, 0], corners[:, :, 1], x)
        on_faces = torch.lerp(on_edges[:, 0], on_edges[:, 1], y)
        x_steps = corners[:, :, 1] - corners[:, :, 0]
        x_steps = torch.lerp(x_steps[:, 0], x_steps[:, 1], y)
        y_steps = on_edges[:, 1] - on_edges[:, 0]
        along_x = torch.lerp(x_steps[0], x_steps[1], z)
        along_y = torch.lerp(y_steps[0], y_steps[1], z)
        along_z = on_faces[1] - on_faces[0]
        inside = (places >= self._first) & (places <= self._last)
        gradient = torch.stack([along_x, along_y, along_z], dim=2) * self._cells_per_metre
        return torch.lerp(on_faces[0], on_faces[1], z), torch.where(inside, gradient, 0.0)

    def _places(self, points: Tensor) -> Tensor:
        """Where points (B,N,3) are in their grids, in cells (x, y, z) and parts of a cell."""
        return (points - self._lower) * self._cells_per_metre

    def _clamped(self, places: Tensor) -> Tensor:
        return torch.clamp(places, self._first, self._last)

    def _around(self, places: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Distances (2,2,2,B,N) at the eight cells around each place, by z, y, x, and its share of the way in each."""
        # Clamped as integers: a place that is NaN must not read beyond the grid.
        corner = torch.clamp(places.detach().long(), torch.zeros_like(self._last_corner), self._last_corner)
        indices = (corner * self._strides).sum(dim=2) + self._starts + self._to_corners
        return self.grids.view(-1)[indices].view(2, 2, 2, *places.shape[:2]), (places - corner).unbind(dim=2)


class DistanceTransform(DistanceTransforms):
    """The same for one pair: of points (N,3) distances (N,) and their gradient (N,3).

    grid: (Z,Y,X) float32, metres
    """

    def __init__(self, target: Tensor, other: Tensor, cells_per_metre: int = 10) -> None:
        super().__init__([target], [other], cells_per_metre)
        self.grid = self.grids[0]

    def __call__(self, points: Tensor) -> Tensor:
        return super().__call__(points[None])[0]

    def with_gradient(self, points: Tensor) -> tuple[Tensor, Tensor]:
        distances, gradient = super().with_gradient(points[None])
        return distances[0], gradient[0]


def _distances(occupied: Sequence[Tensor], size: Tensor, cell: float) -> Tensor:
    """Grids (B,Z,Y,X) of distances in metres to the cells `occupied` (M,3); `size` (3,) and cells are x, y, z."""
    columns, rows, layers = size.tolist()
    if columns * rows * layers > _MOST_CELLS:
        raise ZeroFlowError(
            f"the two clouds span {columns * cell:.0f} × {rows * cell:.0f} × {layers * cell:.0f} m, too much for a "
            f"grid of {cell:g} m cells ({columns * rows * layers * 4e-9:.0f} GB); lower the range of the teacher"
        )
    # A shortest way of such steps can be had with a step forth along its longest axis each time. So one sweep up and
    # one down each axis find all; each sweep's slices lie well in memory, for which grids are turned before the last.
    grids = torch.full((len(occupied), layers, columns, rows), torch.inf, device=size.device)
    for grid, (x, y, z) in zip(grids, (cells.T for cells in occupied), strict=True):
        grid[z, x, y] = 0.0
    _sweep(grids.transpose(0, 1), cell)
    _sweep(grids.permute(2, 0, 1, 3), cell)
    grids = grids.transpose(2, 3).contiguous()
    _sweep(grids.permute(2, 0, 1, 3), cell)
    return grids


def _sweep(slices: Tensor, cell: float) -> None:
    """Shortens distances in place by steps from each slice to the next, up and down; slices (S,B,·,·) of B grids."""
    straight, diagonal, across = cell, cell * 2**0.5, cell * 3**0.5
    pairs, height, width = slices.shape[1:]
    framed = slices.new_full((pairs, height + 2, width + 2), torch.inf)  # the slice before
    before = framed[:, 1:-1, 1:-1]
    left, right, above, below = framed[..., :-2], framed[..., 2:], framed[:, :-2, 1:-1], framed[:, 2:, 1:-1]
    beside, best, corners = (torch.empty_like(part) for part in (left, before, before))
    beside_above, beside_before, beside_below = beside[:, :-2], beside[:, 1:-1], beside[:, 2:]
    upwards = slices.unbind()
    for order in (upwards, upwards[::-1]):
        before.copy_(order[0])
        for current in order[1:]:
            torch.minimum(left, right, out=beside)
            torch.minimum(beside_above, beside_below, out=corners).add_(across - diagonal)
            torch.minimum(above, below, out=best)
            torch.minimum(best, beside_before, out=best)
            torch.minimum(best, corners, out=best).add_(diagonal - straight)
            torch.minimum(best, before, out=best).add_(straight)
            torch.minimum(best, current, out=current)
            before.copy_(current)
