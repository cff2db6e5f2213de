"""The model card of weights: what they learned from, how, how good they are, and what they are not for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zeroflow_core.distillation.making.plan import Plan, Recorded
from zeroflow_core.distillation.making.teaching import Taught
from zeroflow_core.distillation.training.recipes import Recipe
from zeroflow_core.distillation.training.train import Trained
from zeroflow_core.evaluation.wording import count, duration, metres, several, share
from zeroflow_core.fastflow3d.config import ONE_X
from zeroflow_core.files import new_file

CARD = "card.md"


@dataclass(frozen=True)
class Facts:
    """
    recipe:  of the training as it was done
    truth:   it learned from the simulation's truth
    student: the file
    weights: how many numbers it learned; grid: its configuration as plain data; metadata: its other metadata
    table:   Markdown of ``python -m zeroflow_core.bench weights``, or None
    """

    plan: Plan
    recipe: Recipe
    truth: bool
    taught: Sequence[Taught]
    trained: Trained
    student: Path
    weights: int
    metadata: dict[str, Any]
    table: str | None


def write_card(path: Path, facts: Facts) -> None:
    """Write the card, complete or not at all.

    Raises:
        ZeroFlowError: the file system refuses.
    """
    with new_file(path, "w") as file:
        file.write("\n".join(_lines(facts)) + "\n")


def _lines(facts: Facts) -> Iterator[str]:
    grid, labels = facts.metadata["grid"], "the simulation's exact flow" if facts.truth else "pseudo-labels"
    x, _, _ = grid["maximum"]
    yield f"# {facts.metadata['name']}"
    yield ""
    yield (
        f"A FastFlow3D of size *{facts.plan.student}*: pillars of {grid['pillar_size']:g} m on ±{x:g} m, "
        f"{grid['channels']} channels, {tuple(grid['blocks'])} encoder blocks; {facts.weights / 1e6:.1f} million "
        f"weights, fp16, {facts.student.stat().st_size / 1e6:.1f} MB. It learned from {labels}, and has not seen a "
        "human label. `python -m zeroflow_core.distillation.make_weights` makes it."
    )
    if facts.truth:
        yield ""
        yield "**It is an upper bound to compare with, and not to ship**: no teacher knows what it was taught."
    for heading, part in (
        ("How good it is", _result(facts)),
        ("What it learned from", _data(facts)),
        ("Training", _training(facts)),
        ("What it is for, and its limits", _limits(facts)),
    ):
        yield ""
        yield f"## {heading}"
        yield ""
        yield from part


def _result(facts: Facts) -> Iterator[str]:
    if facts.table is not None:
        yield facts.table.strip()
        yield ""
    figures = {name.partition("/")[2]: value for name, value in facts.trained.figures.items()}
    if "moving_epe" in figures:
        labels = f"the teacher's labels{', cleared,' if facts.recipe.refine else ''}"
        what = "the simulation's flow" if facts.truth else labels
        alone = ", by itself, without a check of its flow" if facts.metadata.get("verify") else ""
        yield f"By {what} of pairs that it did not learn from{alone}, metres from one sweep to the next:"
        yield ""
        yield "| | what moves | what stands |"
        yield "|---|---:|---:|"
        for name, prefix in (("zero flow", "zero_"), ("student", "")):
            yield f"| {name} | {metres(figures[f'{prefix}moving_epe'])} | {metres(figures[f'{prefix}still_epe'])} |"
    elif facts.table is None:
        yield "Nobody has looked."


def _data(facts: Facts) -> Iterator[str]:
    for entry in facts.plan.simulated:
        last = entry.seed + entry.chunks - 1
        seeds = f"seeds {entry.seed} to {last}" if entry.chunks > 1 else f"seed {entry.seed}"
        seen = f"{', '.join(entry.scanners)}{' in turn' if len(entry.scanners) > 1 else ''}"
        varied = ", each by another relative of it and with other traffic" if entry.randomise else ""
        yield (
            f"- {several(entry.chunks * entry.logs, 'simulated log')} of {entry.sweeps} sweeps, scenes: {entry.scene}, "
            f"in {several(entry.chunks, 'chunk')} ({seeds}), seen by {seen}{varied}. No data with a licence of its own "
            "is in them."
        )
    if not facts.plan.recorded:
        yield "- licence of the weights: Apache-2.0, as of what they were made by"
    recorded = [one for one in facts.taught if not one.logs.scanner]
    for one, taught in zip(facts.plan.recorded, recorded, strict=not facts.truth):
        yield f"- {_recorded(one, taught.pairs)}"
    pairs = facts.metadata["pairs"]
    told = ", ".join(f"{name} {count(number)}" for name, number in pairs.items())
    yield f"- {several(sum(pairs.values()), 'pair')} of sweeps with labels: {told}"
    if not facts.truth:
        yield from _labels(facts)


def _recorded(one: Recorded, pairs: int) -> str:
    where = one.source.data or one.source.bag
    licence = f"licence: {one.licence}" if one.licence else "the recipe does not say under which licence"
    return f"recorded sweeps, {where.name}: {several(pairs, 'pair')}; {licence}. Their labels were not learned from."


def _labels(facts: Facts) -> Iterator[str]:
    manifests = [one.manifest for one in facts.taught]
    hours = sum(manifest["device_hours"] for manifest in manifests)
    device = "GPU" if manifests[0]["configuration"]["device"] == "cuda" else "CPU-core"
    cleared = "; motion that the sweeps do not bear out was taken back, or left out where it cannot be told"
    cleared = cleared if facts.recipe.refine else ""
    each = duration(3600 * hours / sum(manifest["counts"]["labelled"] for manifest in manifests))
    yield (
        f"- teacher: {manifests[0]['teacher']}, seed {facts.plan.teacher.seed}; {hours:.1f} {device}-hours, {each} a "
        f"pair{cleared}"
    )
    errors = [one.manifest["errors"].get("forward", {}) for one in facts.taught if one.logs.scanner]
    known = [one for one in errors if None not in (one.get("three_way_epe"), one.get("fd"))]
    if known:
        three_way, moving = (sum(one[part] for one in known) / len(known) for part in ("three_way_epe", "fd"))
        before = ", before that" if facts.recipe.refine else ""
        yield (
            f"- how wrong its labels were by the simulation's flow{before}, mean over {several(len(known), 'chunk')}: "
            f"three-way {metres(three_way)} m, moving objects {metres(moving)} m (definition of the ZeroFlow paper)"
        )


def _training(facts: Facts) -> Iterator[str]:
    recipe, trained = facts.recipe, facts.trained
    which = "the best epoch, by the held-back pairs' labels" if facts.plan.held_back else "the last epoch"
    directions = "both directions of time" if recipe.reverse else "forward in time"
    yield (
        f"{several(trained.steps, 'step')} of {several(recipe.batch, 'sample')}, {several(recipe.epochs, 'epoch')} at "
        f"most, {directions}, seed {facts.plan.seed}, in {trained.seconds / 3600:.1f} hours; "
        f"{share(facts.plan.held_back)} of the pairs were held back. The weights are "
        f"{'a moving average of those' if recipe.ema else 'those'} of {which}. Everything else about the training is "
        "in the file's own metadata."
    )


def _limits(facts: Facts) -> Iterator[str]:
    metadata = facts.metadata
    grid, interval = metadata["grid"], metadata["interval_s"]
    scanners = sorted({one.logs.scanner for one in facts.taught} - {""})
    x, _, high = grid["maximum"]
    yield (
        f"- It expects sweeps {interval:g} s apart ({1 / interval:g} a second), and a vehicle frame with the ground "
        f"near z = {metadata['ground_z']:g} m. It sees ±{x:g} m around it, z from {grid['minimum'][2]:g} to {high:g} "
        "m; further away it has no answer."
    )
    rule = "by a map of it, else Patchwork++" if metadata["ground"] == "map" else f"by the rule *{metadata['ground']}*"
    yield f"- Ground is to be left out before it as in training, {rule}."
    if metadata.get("verify"):
        yield (
            "- Motion that the other sweep does not bear out is taken back after it; but for those that say otherwise, "
            "figures are of both together. With `verify` never, the node and `zeroflow evaluate` show what it says by "
            "itself. What slides within itself (a bus or tram seen from the side, at a walking pace anything) cannot "
            "be told from a wall, and stands."
        )
    if scanners:
        yield f"- It knows spinning scanners like {', '.join(scanners)}, and has seen no solid-state or flash LiDAR."
    if all(one.logs.scanner for one in facts.taught):
        yield "- It has not learned from recorded sweeps: rain, snow, dust, mirrors and odd vehicles are news to it."
    if grid["pillar_size"] > ONE_X.pillar_size:
        yield "- Its pillars are coarser than the paper's: what is small or slow it may miss."
    yield "- It takes x, y and z alone: neither intensity nor rings change its answer."
    yield "- It is research software: nobody's safety may depend on it."
