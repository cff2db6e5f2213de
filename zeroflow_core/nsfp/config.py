"""What the teacher does with a pair: the published configurations, and ours."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from zeroflow_core.errors import ZeroFlowError

METHODS = ("nsfp", "fastnsf")
ENGINES = ("plain", "fast")


@dataclass(frozen=True)
class TeacherConfig:
    """
    method:           ``nsfp`` (Chamfer loss with a cycle) or ``fastnsf`` (distance transform, one network)
    engine:           ``plain``, as published, or ``fast``
    learning_rate:    of Adam; the fast engine's falls from there to nothing
    iterations:       at most; all of them in the fast engine
    patience:         plain: iterations without a better loss after which the optimisation stops
    min_delta:        plain: by how much a loss must fall below the best to be better
    truncation:       m²; squared distances from here on count as 0 (nsfp)
    samples:          fast: points of each cloud in an iteration, drawn anew each time
    differing:        fast: share of them that is drawn, at first, from where the two sweeps differ
    precision:        fast: of the hidden layers: ``fp32``, ``bf16`` or ``auto`` (bf16 where the device has it)
    minimum, maximum: corners (x, y, z) of the space whose points take part, in metres in pc0's vehicle frame; the
                      lower bound is inside, the upper outside: the published student's grid

    Raises:
        ZeroFlowError: an unknown method or engine, or a number that can't be.
    """

    method: str
    engine: str
    learning_rate: float = 0.008
    iterations: int = 5000
    patience: int = 100
    min_delta: float = 5e-5
    truncation: float = 2.0
    samples: int = 3072
    differing: float = 0.5
    precision: str = "auto"
    minimum: tuple[float, float, float] = (-51.2, -51.2, -3.0)
    maximum: tuple[float, float, float] = (51.2, 51.2, 3.0)

    def __post_init__(self) -> None:
        for name, choices in (("method", METHODS), ("engine", ENGINES)):
            if getattr(self, name) not in choices:
                raise ZeroFlowError(f"{name} '{getattr(self, name)}' is unknown; choose one of: {', '.join(choices)}")
        for name in ("learning_rate", "iterations", "patience", "truncation", "samples"):
            if not getattr(self, name) > 0:
                raise ZeroFlowError(f"{name} must be above 0, not {getattr(self, name)}")
        if not 0 <= self.differing <= 1:
            raise ZeroFlowError(f"differing is a share from 0 to 1, not {self.differing}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


_NAMED = {
    # ZeroFlow's teacher
    ("nsfp", "published"): TeacherConfig("nsfp", "plain"),
    # the commands in Fast NSF's own README
    ("fastnsf", "published"): TeacherConfig("fastnsf", "plain", patience=10, min_delta=1e-3),
    ("nsfp", "fast"): TeacherConfig("nsfp", "fast", iterations=300),
    ("fastnsf", "fast"): TeacherConfig("fastnsf", "fast", iterations=300),
}
CONFIGS = ("fast", "published")


def teacher_config(method: str, name: str = "fast") -> TeacherConfig:
    """The configuration of `method` called `name`.

    Raises:
        ZeroFlowError: an unknown method or name.
    """
    if method not in METHODS:
        raise ZeroFlowError(f"teacher '{method}' is unknown; choose one of: {', '.join(METHODS)}")
    if name not in CONFIGS:
        raise ZeroFlowError(f"teacher configuration '{name}' is unknown; choose one of: {', '.join(CONFIGS)}")
    return _NAMED[method, name]
