"""What a FastFlow3D is built from. `ONE_X` and `XL` are the published sizes, `SMALL` and `HALF` are ours for a few CPU
cores."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class FastFlow3DConfig:
    """
    minimum, maximum: corners (x, y, z) of the grid in metres; the lower bound is inside, the upper outside
    pillar_size:      edge of a pillar in x and y, metres; a pillar is as high as the grid
    channels:         features per pillar (C); encoder stage k has C·2^k
    blocks:           convolution blocks in each encoder stage, the first of each with stride 2

    Raises:
        ValueError: a grid that is not square, or that the encoder stages cannot halve.
    """

    minimum: tuple[float, float, float] = (-51.2, -51.2, -3.0)
    maximum: tuple[float, float, float] = (51.2, 51.2, 3.0)
    pillar_size: float = 0.2
    channels: int = 32
    blocks: tuple[int, ...] = (4, 6, 6)

    def __post_init__(self) -> None:
        for name in ("minimum", "maximum", "blocks"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.minimum) != 3 or len(self.maximum) != 3 or self.pillar_size <= 0 or self.channels < 1:
            raise ValueError(f"not a usable grid: {self}")
        extents = {round((self.maximum[k] - self.minimum[k]) / self.pillar_size) for k in (0, 1)}
        if len(extents) != 1 or not self.blocks or min(self.blocks) < 1:
            raise ValueError(f"the grid must be square, with at least one block in each stage: {self}")
        if self.cells < 1 or self.cells % 2 ** len(self.blocks):
            raise ValueError(f"{self.cells} pillars a side cannot be halved {len(self.blocks)} times")

    @property
    def cells(self) -> int:
        """Pillars along x, and along y."""
        return round((self.maximum[0] - self.minimum[0]) / self.pillar_size)

    def to_dict(self) -> dict:
        return asdict(self)


SMALL = FastFlow3DConfig(pillar_size=0.512, channels=16, blocks=(2, 3, 3))
HALF = FastFlow3DConfig(channels=16, blocks=(2, 3, 3))  # as fine as 1x, and half as wide
ONE_X = FastFlow3DConfig()
XL = FastFlow3DConfig(pillar_size=0.1, channels=64, blocks=(4, 6, 6, 6))
SIZES = {"small": SMALL, "half": HALF, "1x": ONE_X, "xl": XL}
