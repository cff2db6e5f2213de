"""The recipe of the interim student: a coarse, thin FastFlow3D for two CPU cores, from simulated logs.

    python -m zeroflow_core.distillation.interim --out interim.safetensors

It learns from the simulation's truth, not from a teacher: it stands in until a distilled student ships.
Ground is marked by Patchwork++, as in the live node. Both directions in time are learned, so that the node
can ask for the flow of the newest cloud. The network is convolutional, so it learns on windows a quarter of
the grid, which costs a quarter of the time. A stopped run goes on where it was; it needs 3 GB for its logs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from zeroflow_core.datasets.av2 import Log
from zeroflow_core.distillation.training.losses import speed_weight, weighted_epe
from zeroflow_core.distillation.training.samples import window_config
from zeroflow_core.distillation.training.scene_flow import FlowLearner, decoder_weights, draw_evenly
from zeroflow_core.evaluation.errors import FlowErrors
from zeroflow_core.fastflow3d.checkpoint import save_model
from zeroflow_core.fastflow3d.config import SMALL, FastFlow3DConfig
from zeroflow_core.fastflow3d.model import FastFlow3D
from zeroflow_core.fastflow3d.student import Student
from zeroflow_core.files import new_file
from zeroflow_core.geometry import SE3
from zeroflow_core.ground import Patchwork, mark_ground
from zeroflow_core.pairs import FramePair, Sweep, estimate_flow, make_pair, remove_ego_motion
from zeroflow_core.simulation.log import read_velocity, simulate_sweeps
from zeroflow_core.simulation.logs import MIXED, simulate_logs
from zeroflow_core.simulation.scenes import SCENES

WINDOW = window_config(SMALL, 0.5)
INTERVAL_S = 0.1
HELD_OUT_SCANNERS = ("av2", "hdl64", "os1-128", "vlp32")


@dataclass(frozen=True)
class Phase:
    """still_weight: of standing points in the loss, at the phase's start and at its end"""

    steps: int
    learning_rate: float
    decoder_learning_rate: float
    still_weight: tuple[float, float]


@dataclass(frozen=True)
class Recipe:
    """First it has to dare to see motion, which standing points outnumber; then to leave alone what stands."""

    seed: int = 1
    logs: tuple[tuple[str, int], ...] = (("av2", 150), ("hdl64", 90), ("os1-128", 45), ("vlp32", 45), ("small", 30))
    sweeps: int = 4
    batch: int = 8
    phases: tuple[Phase, ...] = (
        Phase(2300, 1e-3, 3e-4, (0.1, 0.5)),
        Phase(2600, 4e-4, 1.2e-4, (0.5, 1.0)),
        Phase(300, 2e-4, 6e-5, (2.0, 3.0)),
    )
    held_out_seeds: int = 5


def make_logs(recipe: Recipe, folder: Path, console: Console) -> list[Path]:
    """Logs to learn from: every scene, scanners and traffic drawn at random. Those already there are kept."""
    total = sum(logs for _, logs in recipe.logs) * recipe.sweeps
    made: list[Path] = []
    with Progress(TextColumn("logs"), BarColumn(), TimeRemainingColumn(), console=console) as progress:
        bar = progress.add_task("", total=total)
        for number, (scanner, logs) in enumerate(recipe.logs):
            made += simulate_logs(
                folder / scanner,
                "train",
                logs,
                recipe.sweeps,
                seed=1000 * recipe.seed + number,
                scanner=scanner,
                scene=MIXED,
                randomise=True,
                on_sweep=lambda points, kept: progress.advance(bar),
            ).logs
    return made


def labelled_pair(log: Log, k: int, ground: Patchwork) -> tuple[tuple[Sweep, np.ndarray], tuple[Sweep, np.ndarray]]:
    """Sweeps `k` and `k` + 1, ground marked, each with the motion (N,3) of its points to the other's moment, metres."""
    first, second = (mark_ground(log.sweep(i), ground) for i in (k, k + 1))
    ego0_SE3_ego1 = first.world_SE3_ego.inverse() @ second.world_SE3_ego
    forward = remove_ego_motion(first.points, log.flow_labels(k).total_flow, ego0_SE3_ego1)
    backward = -INTERVAL_S * read_velocity(log.path, second.stamp_ns)
    return (first, forward.astype(np.float32)), (second, backward.astype(np.float32))


@dataclass(frozen=True)
class Sample:
    """A window of a pair: the points of both clouds inside it, and the flow of the first's.

    pc0, pc1, label: (N0,3), (N1,3), (N0,3) float32
    low:             (2,) float32, the window's lower corner in x and y, metres
    """

    pc0: torch.Tensor
    pc1: torch.Tensor
    label: torch.Tensor
    low: torch.Tensor


class Samples(torch.utils.data.IterableDataset):
    """Samples without end: every pair of sweeps forward and backward in time, four windows of each.

    Every second window lies around a moving point. Each is seen in a heading of its own.
    """

    PER_PAIR = 8

    def __init__(self, logs: list[Path], seed: int, window: FastFlow3DConfig, start: int) -> None:
        self.logs, self.seed, self.window, self.start = logs, seed, window, start

    def __iter__(self) -> Iterator[Sample]:
        pair_number, ground = self.start, Patchwork()
        pairs = [(path, k) for path in self.logs for k in range(len(Log(path)) - 1)]
        while True:
            epoch, place = divmod(pair_number, len(pairs))
            path, k = pairs[np.random.default_rng([self.seed, epoch]).permutation(len(pairs))[place]]
            rng = np.random.default_rng([self.seed, epoch, place])
            first, second = labelled_pair(Log(path), k, ground)
            for (sweep0, label), (sweep1, _) in ((first, second), (second, first)):
                wrong_odometry = SE3.from_yaw(rng.normal(0, 5e-4), rng.normal(0, 0.008, 3))
                pair = make_pair(sweep0, replace(sweep1, world_SE3_ego=sweep1.world_SE3_ego @ wrong_odometry))
                for around_motion in (True, False, True, False):
                    sample = self._sample(pair, label, rng, around_motion)
                    if min(len(sample.pc0), len(sample.pc1)) >= 100:
                        yield sample
            pair_number += 1

    def _sample(self, pair: FramePair, label: np.ndarray, rng: np.random.Generator, around_motion: bool) -> Sample:
        kept = ~pair.is_ground0
        turn = SE3.from_yaw(rng.uniform(-np.pi, np.pi), np.array([0, 0, rng.normal(0, 0.1)]))
        pc0, pc1 = turn.transform(pair.pc0[kept]), turn.transform(pair.pc1[~pair.is_ground1])
        label = turn.rotate(label[kept])

        size, steps = self.window.cells, 2 ** len(SMALL.blocks)  # so that its maps are cut-outs of the whole grid's
        spots = np.flatnonzero(np.linalg.norm(label, axis=1) > 0.05) if around_motion else np.arange(len(pc0))
        centre = pc0[rng.choice(spots), :2] if len(spots) else np.zeros(2)
        centre = (centre - SMALL.minimum[:2]) / SMALL.pillar_size + rng.uniform(-0.3, 0.3, 2) * size
        corner = np.clip(centre - size / 2, 0, SMALL.cells - size) // steps * steps
        low = (corner * SMALL.pillar_size + SMALL.minimum[:2]).astype(np.float32)
        box = np.array([low, low + size * SMALL.pillar_size])
        box = np.column_stack([box, [SMALL.minimum[2], SMALL.maximum[2]]])
        in0, in1 = (((pc >= box[0]) & (pc < box[1])).all(axis=1) for pc in (pc0, pc1))
        return Sample(*map(torch.from_numpy, (pc0[in0], pc1[in1], label[in0], low)))


def train(recipe: Recipe, logs: list[Path], folder: Path, console: Console) -> FastFlow3D:
    """Train on windows of `logs`, phase by phase; from the state of each in `folder` a stopped run goes on."""
    torch.manual_seed(recipe.seed)
    learner = FlowLearner(WINDOW, bf16=True).to(memory_format=torch.channels_last).train()
    decoder = decoder_weights(learner.model)
    draw_evenly(decoder)
    scales = [torch.linalg.vector_norm(weight.detach()) for weight in decoder]
    first_step = 0
    for number, phase in enumerate(recipe.phases, start=1):
        state = folder / f"phase{number}.pt"
        _train_phase(learner, decoder, scales, recipe, phase, logs, first_step, state, console)
        first_step += phase.steps
    return learner.model


def _train_phase(
    learner: FlowLearner,
    decoder: list[torch.nn.Parameter],
    scales: list[torch.Tensor],
    recipe: Recipe,
    phase: Phase,
    logs: list[Path],
    first_step: int,
    path: Path,
    console: Console,
) -> None:
    """One phase, its state written to `path` every 100 steps.

    The decoder is a chain of linear layers without a norm: left alone, its scale grows a thousandfold at such
    learning rates and no GELU of the head ever fires again. So its weights keep their norm and learn directions.
    """
    members = {id(weight) for weight in decoder}
    others = [parameter for parameter in learner.parameters() if id(parameter) not in members]
    optimiser = torch.optim.Adam([{"params": others}, {"params": decoder}])
    rates = [phase.learning_rate, phase.decoder_learning_rate]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, total_steps=phase.steps, pct_start=0.1)
    parts, step = {"model": learner.model, "optimiser": optimiser, "schedule": schedule}, 0
    if path.exists():
        state = torch.load(path, weights_only=True)
        if state["recipe"] != asdict(recipe):
            raise SystemExit(f"{path} belongs to another recipe: {state['recipe']}; choose another --folder")
        step = state["step"]
        for name, part in parts.items():
            part.load_state_dict(state[name])
        console.print(f"{path.stem}: going on at step {step}")
    if step >= phase.steps:
        return

    start = (first_step + step) * recipe.batch // Samples.PER_PAIR
    data = Samples(logs, recipe.seed, WINDOW, start)
    loader = torch.utils.data.DataLoader(data, batch_size=recipe.batch, num_workers=1, collate_fn=list)
    columns = (TextColumn(path.stem), BarColumn(), TextColumn("{task.completed}/{task.total} {task.fields[loss]}"))
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        bar = progress.add_task("", total=phase.steps, completed=step, loss="")
        recent: list[float] = []
        for batch in loader:
            still = np.interp(step / phase.steps, (0, 1), phase.still_weight)
            loss = torch.zeros(())
            for (flow, index), sample in zip(learner(batch), batch, strict=True):
                label = sample.label[index]
                loss = loss + weighted_epe(flow, label, speed_weight(label, INTERVAL_S, still)) / len(batch)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learner.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            with torch.no_grad():
                for weight, scale in zip(decoder, scales, strict=True):
                    weight.mul_(scale / torch.linalg.vector_norm(weight))
            step += 1
            recent.append(float(loss.detach()))
            progress.update(bar, completed=step, loss=f"loss {np.mean(recent[-50:]):.4f}")
            if step % 100 == 0 or step == phase.steps:
                state = {name: part.state_dict() for name, part in parts.items()}
                with new_file(path, "wb") as file:
                    torch.save({**state, "step": step, "recipe": asdict(recipe)}, file)
                with open(path.with_suffix(".csv"), "a") as log:
                    log.write(f"{first_step + step},{np.mean(recent[-100:]):.6f}\n")
            if step >= phase.steps:
                return


def evaluate(student: Student, seeds: int) -> FlowErrors:
    """Errors on worlds never trained on, of every scene and by every scanner, on the road the node takes, both ways
    through time."""
    errors, ground = FlowErrors(), Patchwork()
    for seed, scene, scanner in product(range(seeds), SCENES, HELD_OUT_SCANNERS):
        first, second = simulate_sweeps(seed, 2, scanner, scene)
        sweep0, sweep1 = (mark_ground(simulated.sweep, ground) for simulated in (first, second))
        backward = -INTERVAL_S * second.velocity
        for pair, truth in ((make_pair(sweep0, sweep1), first.flow), (make_pair(sweep1, sweep0), backward)):
            flow = estimate_flow(student, pair)
            errors.add(flow.vectors[~pair.is_ground0], truth[~pair.is_ground0], pair.dt)
    return errors


def main(arguments: list[str] | None = None) -> None:
    import argparse

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--folder", type=Path, default=Path("out/interim"), help="logs, training state, loss curve")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    options = parser.parse_args(arguments)

    console, recipe = Console(), Recipe(seed=options.seed)
    options.folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    model = FastFlow3D(SMALL)
    logs = make_logs(recipe, options.folder / "logs", console)
    model.load_state_dict(train(recipe, logs, options.folder, console).state_dict())
    minutes = (time.monotonic() - began) / 60
    metadata = {
        "name": "interim",
        "ground": "patchwork",
        "interval_s": INTERVAL_S,
        "ground_z": -0.33,
        "made_by": "zeroflow_core.distillation.interim",
        "precision": "fp32",  # bfloat16 moves its three-way error on real pairs by 1 to 5 mm
        "recipe": asdict(recipe),
    }
    save_model(options.out, model, metadata, half=True)

    from zeroflow_core.fastflow3d.student import load_student

    errors = evaluate(load_student(options.out, device="cpu", engine="reference"), recipe.held_out_seeds)
    console.print(f"{options.out}: made in {minutes:.1f} minutes; on worlds never trained on:")
    console.print_json(json.dumps(errors.to_dict()))


if __name__ == "__main__":
    main()
