"""What is asked of the making, beside what the plan says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zeroflow_core.distillation.making.plan import Plan
from zeroflow_core.distillation.training.fitting import LAST
from zeroflow_core.distillation.training.recipes import Recipe
from zeroflow_core.errors import ZeroFlowError

TRAINING = "training"


@dataclass(frozen=True)
class MakeSettings:
    """
    plan:       what to make
    out:        folder for everything
    truth:      learn from the simulation's truth in place of the teacher's labels, and from simulated logs alone
    table:      Markdown that ``python -m zeroflow_core.bench weights`` wrote, for the card
    device:     ``auto``, ``cpu``, ``cuda`` or ``cuda:n``
    jobs:       processes that simulate and label; else as simulate_logs and label choose
    minutes:    to stop after, in whatever stage
    from_parts: folder of parts to go on from

    Raises:
        ZeroFlowError: one of them can't be.
    """

    plan: Plan
    out: Path
    truth: bool = False
    table: str | None = None
    device: str = "auto"
    jobs: int | None = None
    minutes: float | None = None
    from_parts: Path | None = None

    def __post_init__(self) -> None:
        if self.truth and not self.plan.simulated:
            raise ZeroFlowError("there is no truth to learn from: the recipe has no simulated logs")
        if self.minutes is not None and not self.minutes > 0:
            raise ZeroFlowError(f"{self.minutes:g} minutes are no time; give more than 0")

    @property
    def run(self) -> Path:
        """The folder of this training."""
        return self.out / f"{self.plan.name}{'-truth' if self.truth else ''}-seed-{self.plan.seed}"

    @property
    def checkpoint(self) -> Path:
        """With which the training goes on, once it has begun."""
        return self.run / TRAINING / LAST

    @property
    def begun(self) -> bool:
        """Whether a training from these labels has, of whichever seed: it would not know others again."""
        return any(self.out.glob(f"*/{TRAINING}/{LAST}"))

    @property
    def recipe(self) -> Recipe:
        """How it is trained. Truth needs no refinement, and would only lose by it."""
        return replace(self.plan.training, refine=False) if self.truth else self.plan.training

    @property
    def about(self) -> dict[str, Any]:
        """What it is made of, as plain data."""
        plan = {**self.plan.to_dict(), "training": self.recipe.to_dict()}
        return {"plan": plan, "labels": "truth" if self.truth else "pseudo"}

    @property
    def identity(self) -> dict[str, Any]:
        """What tells this training from others, wherever its recorded logs lie."""
        return self.identity_of(self.about)

    @staticmethod
    def identity_of(about: dict[str, Any]) -> dict[str, Any]:
        return {**about, "plan": {key: value for key, value in about["plan"].items() if key != "recorded"}}
