"""How a student is trained: the published recipe, and ours, which needs a fraction of the steps."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from math import cos, pi
from pathlib import Path
from typing import Any

from zeroflow_core.distillation.training.augment import NO_AUGMENTATION, Augmentation, check_number
from zeroflow_core.distillation.training.losses import LOSSES
from zeroflow_core.errors import ZeroFlowError

SCHEDULES = ("constant", "cosine")
_NUMBERS = (
    ("learning_rate", 1e-12, 1e3),
    ("decoder_rate", 1e-9, 1e3),
    ("warm_up", 0, 1),
    ("around_motion", 0, 1),
    ("window", 0.01, 1),
)
_NUMBERS_OR_NONE = (("patience", 1, 1e9), ("clip", 1e-9, 1e9), ("ema", 1e-9, 0.999999))


@dataclass(frozen=True)
class Recipe:
    """
    name:            of the recipe
    epochs:          at most; see patience
    batch:           samples in one step of the optimiser, over all processes
    learning_rate:   of Adam, at its highest
    schedule:        ``constant``, or ``cosine``: up from nothing over the first `warm_up` of all steps, then down to
                     nothing along a cosine
    warm_up:         share of the steps
    loss:            see losses.point_weights
    still_weight:    speed-scaled: the weight of what stands, at the first step and, by a straight line, at the last
    batch_sum:       the batch's loss is the sum of its samples', as published, else their mean
    bf16:            convolutions in bfloat16
    clip:            largest norm of all gradients together, or None
    ema:             decay a step of the moving average of the weights, which is what is validated and exported; or None
    decoder_rate:    learning rate of the decoder's convolutions, as a multiple of the others'
    decoder_norms:   the norms of the decoder's convolutions stay as they are drawn. The decoder is a chain of linear
                     layers without a norm between them: at large learning rates its scale grows a thousandfold, and no
                     GELU of the head ever answers again
    window:          side of the part of the grid that a sample shows, as a share of the grid's; 1 is the whole grid.
                     The network is convolutional, so it learns from windows at the price of their area
    around_motion:   share of the windows that lie around a point whose label moves
    visits:          of every pair, in each of its directions, in an epoch, each with its own augmentation and window
    refine:          learn from labels that were cleared of motion which the sweeps do not bear out, see refinement
    reverse:         also learn the flow of the later sweep's points back to the earlier one, from the reverse labels
    augmentation:    see augment
    patience:        epochs without a better validation after which the training ends, or None

    Raises:
        ZeroFlowError: a number or a name that can't be.
    """

    name: str
    epochs: int
    batch: int
    learning_rate: float
    schedule: str = "constant"
    warm_up: float = 0.0
    loss: str = "unscaled"
    still_weight: tuple[float, float] = (0.1, 0.1)
    batch_sum: bool = False
    bf16: bool = False
    clip: float | None = None
    ema: float | None = None
    decoder_rate: float = 1.0
    decoder_norms: bool = False
    window: float = 1.0
    around_motion: float = 0.0
    visits: int = 1
    refine: bool = False
    reverse: bool = False
    augmentation: Augmentation = NO_AUGMENTATION
    patience: int | None = None

    def __post_init__(self) -> None:
        for name, choices in (("loss", LOSSES), ("schedule", SCHEDULES)):
            if getattr(self, name) not in choices:
                raise ZeroFlowError(f"{name} '{getattr(self, name)}' is unknown; choose one of: {', '.join(choices)}")
        for name in ("epochs", "batch", "visits"):
            check_number(name, getattr(self, name), 1, 1e9, whole=True)
        for name, low, high in _NUMBERS:
            check_number(name, getattr(self, name), low, high)
        for name, low, high in _NUMBERS_OR_NONE:
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), low, high, whole=name == "patience")
        still = self.still_weight
        if not isinstance(still, (tuple, list)) or len(still) != 2:
            raise ZeroFlowError(f"still_weight must be two numbers, at the first and the last step, not {still!r}")
        for weight in still:
            check_number("still_weight", weight, 0, 1e3)
        object.__setattr__(self, "still_weight", tuple(still))
        for name in ("batch_sum", "bf16", "decoder_norms", "refine", "reverse"):
            if not isinstance(getattr(self, name), bool):
                raise ZeroFlowError(f"{name} must be true or false, not {getattr(self, name)!r}")
        if not isinstance(self.augmentation, Augmentation):
            raise ZeroFlowError(f"augmentation must say what it changes, such as turn, not {self.augmentation!r}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def rate(self, done: float) -> float:
        """The learning rate as a multiple of its highest, when the share `done` of the steps is over."""
        if done < self.warm_up:
            return done / self.warm_up
        if self.schedule == "constant":
            return 1.0
        return 0.5 + 0.5 * cos(pi * min((done - self.warm_up) / max(1 - self.warm_up, 1e-9), 1.0))


_NAMED = {
    # ZeroFlow's own, but for the number of processes (4 with 16 samples each)
    "published": Recipe("published", epochs=50, batch=64, learning_rate=2e-6, loss="released", batch_sum=True),
    "fast": Recipe(
        "fast",
        epochs=12,
        batch=8,
        learning_rate=1e-3,
        schedule="cosine",
        warm_up=0.05,
        loss="speed-scaled",
        still_weight=(0.1, 1.0),
        bf16=True,
        clip=5.0,
        ema=0.998,
        decoder_rate=0.3,
        decoder_norms=True,
        window=0.5,
        around_motion=0.5,
        visits=2,
        refine=True,
        reverse=True,
        augmentation=Augmentation(),
        patience=4,
    ),
}
RECIPES = tuple(_NAMED)


def recipe(name: str, /, **changes: Any) -> Recipe:
    """The recipe called `name`, or that of a file, with some of its fields changed.

    name: one of RECIPES, or a ``.json`` file that says what it changes: ``{"from": "fast", "batch": 16}``

    Raises:
        ZeroFlowError: an unknown name or field, a damaged file, or a value that can't be.
    """
    if name.endswith(".json"):
        content = _read(Path(name))
        origin = content.pop("from", "fast")
        if origin not in _NAMED:
            raise ZeroFlowError(f"the recipe {name} is from '{origin}', which is none of: {', '.join(RECIPES)}")
        return recipe(origin, **{"name": Path(name).stem, **content, **changes})
    if name not in _NAMED:
        raise ZeroFlowError(f"recipe '{name}' is unknown; choose one of: {', '.join(RECIPES)}, or a .json file")
    known = [field.name for field in fields(Recipe)]
    for change in changes:
        if change not in known:
            raise ZeroFlowError(f"a recipe has no '{change}'; it has: {', '.join(known)}")
    augmentation = changes.get("augmentation")
    if isinstance(augmentation, dict):
        variations = [field.name for field in fields(Augmentation)]
        unknown = sorted(set(augmentation) - set(variations))
        if unknown:
            raise ZeroFlowError(f"an augmentation has no '{unknown[0]}'; it has: {', '.join(variations)}")
        changes = {**changes, "augmentation": replace(_NAMED[name].augmentation, **augmentation)}
    return replace(_NAMED[name], **changes)


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except OSError as error:
        raise ZeroFlowError(f"cannot read the recipe {path}: {error.strerror or error}") from error
    except (ValueError, TypeError) as error:
        raise ZeroFlowError(
            f'the recipe {path} is no JSON object ({error}); it should look like {{"from": "fast", "batch": 16}}'
        ) from error
