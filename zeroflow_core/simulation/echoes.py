"""What comes back of a beam: how bright and how slanted the surface is that it meets, and whether it is seen at all."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from zeroflow_core.simulation.raycast import GROUND, Caster, Columns, Vector
from zeroflow_core.simulation.scanners import Scanner
from zeroflow_core.simulation.solids import Shape

MIN_RANGE = 1.0  # metres

_ROAD, _VERGE = (0.14, 0.002), (0.30, 0.008)  # reflectance, and roughness along the beam in metres
_LEAF_M = 0.12  # size of what is rough
_GLASS_LOSS, _GLASS_REFLECTANCE, _PANE_M = 0.45, 0.1, 0.5


@dataclass(frozen=True)
class Surface:
    """What M beams meet: λ, |cos| of the incidence, reflectance, roughness along the beam in metres; `lost` in glass.

    All (M,) float32, `lost` bool.
    """

    depth: torch.Tensor
    slant: torch.Tensor
    reflectance: torch.Tensor
    roughness: torch.Tensor
    lost: torch.Tensor


@dataclass(frozen=True)
class Echoes:
    """The beams that are seen: rows (M',) of those asked for, their range in metres and their intensity, 0 … 255."""

    rows: torch.Tensor
    distance: torch.Tensor
    intensity: torch.Tensor


class Surfaces:
    """The materials of a scene's solids."""

    def __init__(self, caster: Caster) -> None:
        self._caster = caster
        solids = caster.solids
        materials = [solid.material for solid in solids]

        def tensor(rows: list, width: int) -> torch.Tensor:
            return torch.tensor(rows, dtype=torch.float32, device=caster.device).reshape(-1, width)

        self._kind = torch.tensor([int(solid.shape) for solid in solids], dtype=torch.int64, device=caster.device)
        self._half = tensor([solid.half for solid in solids], 3)
        self._answer = tensor([(m.reflectance, m.roughness) for m in materials], 2)
        panes = [m.windows for m in materials]
        self._panes = tensor([(*p.spacing, *p.size, p.sill, p.depth) if p else (0.0,) * 6 for p in panes], 6)

    def meet(self, columns: Columns, ray: torch.Tensor, depth: torch.Tensor, solid: torch.Tensor) -> Surface:
        """ray, depth, solid: (M,), of raycast.Hits, without those that meet nothing"""
        beams = len(columns.tangents)
        column = torch.div(ray, beams, rounding_mode="floor")
        t = columns.tangents.index_select(0, ray - column * beams)
        is_ground = solid == GROUND
        parts = [torch.nonzero(is_ground).squeeze(1), torch.nonzero(~is_ground).squeeze(1)]
        of_ground, of_solids = (
            meet(columns, *(values.index_select(0, rows) for values in (column, t, depth, solid)))
            for meet, rows in zip((self._ground, self._solids), parts, strict=True)
        )
        order = torch.argsort(torch.cat(parts))
        fields = [(getattr(of_ground, name), getattr(of_solids, name)) for name in Surface.__dataclass_fields__]
        return Surface(*(torch.cat(pair).index_select(0, order) for pair in fields))

    def _ground(self, columns: Columns, column, t, depth, solid) -> Surface:
        x, y, z = (
            origin.index_select(0, column) + depth * (level.index_select(0, column) + t * up.index_select(0, column))
            for origin, level, up in zip(columns.origin, columns.level, columns.up, strict=True)
        )
        fall = (z - columns.origin[2].index_select(0, column)).abs()
        slant = (fall / (depth * torch.sqrt(1 + t * t))).clamp(0.003, 1)
        x0, y0, _ = (float(value) for value in columns.shift)
        verge = self._caster.scene.terrain.beyond_edge(x + x0, y + y0) > 0
        reflectance, roughness = (torch.where(verge, beyond, on) for on, beyond in zip(_ROAD, _VERGE, strict=True))
        return Surface(depth, slant, reflectance, roughness, torch.zeros_like(verge))

    def _solids(self, columns: Columns, column, t, depth, solid) -> Surface:
        o, u, w = self._caster.in_unit_frame(columns, solid, column)
        direction = [torch.addcmul(low, high, t) for low, high in zip(u, w, strict=True)]
        place = [torch.addcmul(start, along, depth) for start, along in zip(o, direction, strict=True)]
        half = self._half.index_select(0, solid).unbind(dim=1)
        kind = self._kind.index_select(0, solid)
        normal, upright_face = _normal(kind, place)
        # In the unit frame lengths are scaled by 1 / half, and normals by half.
        dot = sum(n * d for n, d in zip(normal, direction, strict=True))
        norm = torch.sqrt(sum((n / h) ** 2 for n, h in zip(normal, half, strict=True)).clamp(min=1e-12))
        stretch = torch.sqrt(1 + t * t)
        slant = (dot.abs() / (norm * stretch)).clamp(0.02, 1)
        reflectance, roughness = self._answer.index_select(0, solid).unbind(dim=1)

        pitch_x, pitch_z, width, height, sill, recess = self._panes.index_select(0, solid).unbind(dim=1)
        on_x = place[0].abs() > place[1].abs()
        along = torch.where(on_x, place[1] * half[1], place[0] * half[0])
        above = (place[2] + 1) * half[2] - sill
        glass = upright_face & (pitch_x > 0) & (above > 0)
        glass &= along.remainder(pitch_x.clamp(min=0.1)) < width
        glass &= above.remainder(pitch_z.clamp(min=0.1)) < height
        deeper = torch.where(glass, recess / slant.clamp(min=0.3), 0.0)
        # What is rough is so in the same places every time; only a little of it is noise.
        deeper = deeper + 2 * roughness * self._caster.patch(place, solid, _LEAF_M)
        return Surface(
            depth + deeper / stretch,
            slant,
            torch.where(glass, _GLASS_REFLECTANCE, reflectance),
            0.1 * roughness,
            glass & (self._caster.patch(place, solid, _PANE_M) < _GLASS_LOSS),
        )


def listen(scanner: Scanner, surface: Surface, stretch: torch.Tensor, generator: torch.Generator) -> Echoes:
    """Which beams are seen, and what is measured.

    A return fades with the square of the range and with slanted incidence; around the scanner's sensitivity it is
    a matter of luck. stretch: (M,) √(1 + t²)
    """
    count, device = len(stretch), stretch.device
    noise = torch.randn(2, count, generator=generator, device=device)
    luck = torch.rand(count, generator=generator, device=device)
    distance = surface.depth * stretch
    power = surface.reflectance * surface.slant / distance.clamp(min=MIN_RANGE) ** 2 / scanner.sensitivity
    visible = power * power / (1 + power * power) * (1 - scanner.dropout)
    distance = distance + noise[0] * torch.sqrt(scanner.range_noise**2 + surface.roughness**2)
    seen = (luck < visible) & ~surface.lost & (distance > MIN_RANGE) & (distance < scanner.max_range)
    rows = torch.nonzero(seen).squeeze(1)
    intensity = scanner.gain * surface.reflectance**1.7 * (0.1 + 0.9 * surface.slant) + 1.5 * noise[1]
    intensity = intensity.index_select(0, rows).round().clamp(0, 255)
    return Echoes(rows, distance.index_select(0, rows), intensity)


def _normal(kind: torch.Tensor, place: list[torch.Tensor]) -> tuple[Vector, torch.Tensor]:
    """Gradient at a place on the unit shape, and whether that is an upright face of a box."""
    x, y, z = place
    size = [part.abs() for part in place]
    box, cylinder = kind == int(Shape.BOX), kind == int(Shape.CYLINDER)
    on_z = torch.where(box, (size[2] >= size[0]) & (size[2] >= size[1]), cylinder & (size[2] > 0.999))
    on_x = box & ~on_z & (size[0] >= size[1])
    on_y = box & ~on_z & ~on_x
    flat = on_x | on_y | on_z
    zero = torch.zeros_like(x)
    normal = (
        torch.where(flat & ~on_x, zero, x),
        torch.where(flat & ~on_y, zero, y),
        torch.where((flat & ~on_z) | (cylinder & ~on_z), zero, z),
    )
    return normal, on_x | on_y
