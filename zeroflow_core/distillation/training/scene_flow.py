"""Distillation of scene flow: a FastFlow3D learns the flow that a teacher wrote down for pairs of sweeps."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from zeroflow_core.distillation.pairs import PairRef
from zeroflow_core.distillation.training.batches import Order, Samples
from zeroflow_core.distillation.training.losses import point_weights, weighted_epe
from zeroflow_core.distillation.training.prepared import PreparedPairs
from zeroflow_core.distillation.training.recipes import Recipe
from zeroflow_core.distillation.training.samples import Sample
from zeroflow_core.distillation.training.task import Weights
from zeroflow_core.distillation.training.validation import errors_on_labelled, errors_on_prepared
from zeroflow_core.fastflow3d.config import FastFlow3DConfig
from zeroflow_core.fastflow3d.model import FastFlow3D
from zeroflow_core.fastflow3d.student import Student

_PRECISION_PAIRS = 16  # of each source, that tell whether a student can do with bfloat16


class Item(NamedTuple):
    """A Sample as tensors."""

    pc0: Tensor
    pc1: Tensor
    label: Tensor
    dt: float
    low: Tensor | None


class FlowLearner(nn.Module):
    """A FastFlow3D that sees each sample through a window of its grid. Its state dict has the published keys.

    config: of the window, or of the whole grid
    bf16:   convolutions in bfloat16
    """

    def __init__(self, config: FastFlow3DConfig, bf16: bool) -> None:
        super().__init__()
        self.model = FastFlow3D(config)
        self._bf16 = bf16

    def forward(self, items: Sequence[Item]) -> list[tuple[Tensor, Tensor]]:
        """For each item flow (M,3), metres per interval, and index (M,): which of pc0's points it belongs to."""
        embed = self.model.embedder
        device = next(self.model.parameters()).device
        minimum = embed.feature_net.grid.minimum
        embedded0, embedded1 = [], []
        for item in items:
            if item.low is not None:
                minimum[:2] = item.low.to(device)
            embedded0.append(embed(item.pc0.to(device)))
            embedded1.append(embed(item.pc1.to(device)))
        pillars0, canvases0 = zip(*embedded0, strict=True)
        _, canvases1 = zip(*embedded1, strict=True)
        return self.model.decode(pillars0, canvases0, canvases1, self._bf16)


class SceneFlow:
    """The task: see task.Task for what its members are.

    config:    of the student
    weights:   to start from; None draws new ones
    sources:   pairs to learn from
    held_back: pairs that are kept from learning, to see how the student does on pairs it does not know
    labelled:  pairs of logs with labels of their own, to score it by the definitions of the field
    metadata:  of the student, as a checkpoint holds it
    """

    def __init__(
        self,
        config: FastFlow3DConfig,
        weights: Weights | None,
        sources: Sequence[PreparedPairs],
        held_back: Sequence[PreparedPairs],
        labelled: Sequence[PairRef],
        recipe: Recipe,
        metadata: dict[str, Any],
        device: str,
        bf16: bool,
        seed: int,
    ) -> None:
        self.config, self.recipe, self.metadata = config, recipe, metadata
        self.samples = Samples(sources, recipe, config, seed)
        two_way = tuple(recipe.reverse and source.source.labels.reverse is not None for source in sources)
        self.order = Order(
            tuple(map(len, sources)), tuple(one.source.weight for one in sources), two_way, recipe.visits, seed
        )
        self.identity = {
            "student": config.to_dict(),
            "recipe": recipe.to_dict(),
            "pairs": [f"{len(source)} ({source.digest})" for source in sources],
            "weights": list(self.order.weights),
            "seed": seed,
            "ground": metadata.get("ground"),
            "start": "drawn" if weights is None else _digest(value.numpy().tobytes() for value in weights.values()),
            "validation": f"{len(labelled)} labelled pairs ({_digest(map(_named, labelled))}), "
            f"{sum(map(len, held_back))} held back ({_digest(one.digest.encode() for one in held_back)})",
        }
        self._held_back, self._labelled, self._device = list(held_back), list(labelled), device
        learner = FlowLearner(self.samples.window, bf16)
        if weights is not None:
            learner.model.load_state_dict(weights)
        self.student = learner.to(device, memory_format=layout_of(device, bf16)).train()
        self._decoder = decoder_weights(learner.model)
        if recipe.decoder_norms and weights is None:
            draw_evenly(self._decoder)
        self._norms = [torch.linalg.vector_norm(weight.detach()) for weight in self._decoder]

    def collate(self, samples: list[Sample]) -> list[Item]:
        return [
            Item(
                *(torch.from_numpy(np.ascontiguousarray(values)) for values in (one.pc0, one.pc1, one.label)),
                one.dt,
                None if one.low is None else torch.from_numpy(one.low),
            )
            for one in samples
        ]

    def parameter_groups(self) -> list[dict]:
        decoder = set(map(id, self._decoder))
        others = [parameter for parameter in self.student.parameters() if id(parameter) not in decoder]
        return [{"params": others, "rate": 1.0}, {"params": self._decoder, "rate": self.recipe.decoder_rate}]

    def loss(self, answers: list[tuple[Tensor, Tensor]], part: Sequence[Item], done: float) -> Tensor:
        still = float(np.interp(done, (0, 1), self.recipe.still_weight))
        total = torch.zeros((), device=answers[0][0].device)
        for (flow, index), item in zip(answers, part, strict=True):
            label = item.label.to(flow.device)[index]
            known = torch.isfinite(label).all(dim=1)
            flow, label = flow[known], label[known]
            total = total + weighted_epe(flow, label, point_weights(self.recipe.loss, label, item.dt, still))
        return total

    def after_step(self) -> None:
        if not self.recipe.decoder_norms:
            return
        with torch.no_grad():
            for weight, norm in zip(self._decoder, self._norms, strict=True):
                weight.mul_(norm / torch.linalg.vector_norm(weight))

    def validate(self, weights: Weights) -> dict[str, float | None]:
        student = self._as_student(weights)
        return {**errors_on_prepared(student, self._held_back), **errors_on_labelled(student, self._labelled)}

    def score(self, figures: dict[str, float | None]) -> float:
        """Three-way EPE on labelled logs; else the mean of the errors on what moves and what stands by the labels."""
        three_way = figures.get("val/three_way_epe")
        if three_way is not None:
            return three_way
        moving, still = figures.get("heldback/moving_epe"), figures.get("heldback/still_epe")
        if moving is None:  # by what stands alone, a student that sees no motion would be the best
            return math.inf
        return moving if still is None else (moving + still) / 2

    def needs_fp32(self, weights: Weights) -> bool:
        """Whether a student with these weights gets worse on held-back pairs, by more than a millimetre, when it
        multiplies in bfloat16. False where nothing was held back."""
        held_back = [source.some(_PRECISION_PAIRS) for source in self._held_back]
        full, half = (
            errors_on_prepared(self._as_student(weights, precision), held_back) for precision in ("fp32", "bf16")
        )
        return any(value is not None and half[name] > value + 1e-3 for name, value in full.items())

    def _as_student(self, weights: Weights, precision: str = "fp32") -> Student:
        """A student with these weights, over the whole grid."""
        model = FastFlow3D(self.config)
        model.load_state_dict({key.removeprefix("model."): value for key, value in weights.items()})
        return Student(model, self.metadata, self._device, precision, "reference")


def _digest(parts: Iterable[bytes]) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part)
    return whole.hexdigest()[:8]


def _named(pair: PairRef) -> bytes:
    return f"{pair.log.name} {pair.index}\n".encode()


def layout_of(device: str, bf16: bool) -> torch.memory_format:
    """Of feature maps and weights while a student learns: in fp32 on a CPU oneDNN is faster by its own, which it takes
    from torch's usual one."""
    plain = torch.device(device).type == "cpu" and not bf16
    return torch.contiguous_format if plain else torch.channels_last


def decoder_weights(model: FastFlow3D) -> list[nn.Parameter]:
    """Of its convolutions, of which it has nothing else."""
    return [p for name, p in model.backbone.named_parameters() if name.startswith("decoder") and p.ndim == 4]


def draw_evenly(weights: list[nn.Parameter]) -> None:
    """Random values that neither amplify nor attenuate."""
    for weight in weights:
        nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
