"""`distillation`: from nothing to a student without a label, and how good it is beside its teacher and zero flow."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from zeroflow_core.bench.machine import described

if TYPE_CHECKING:
    from zeroflow_core.distillation.run import Distilled

FIGURES = ("three_way_epe", "fd", "fs", "bs")


def distillation(
    out: Annotated[Path, typer.Option(help="Folder for logs, labels and student; an interrupted run goes on.")],
    sensor: Annotated[str, typer.Option(help="Scanner to simulate: av2, hdl64, os1-128, vlp32 or small.")] = "small",
    scene: Annotated[str, typer.Option(help="street, junction, highway or mixed.")] = "mixed",
    logs: Annotated[int, typer.Option(min=1, help="Simulated logs to learn from.")] = 72,
    sweeps: Annotated[int, typer.Option(min=2, help="Of each log.")] = 4,
    judged: Annotated[int, typer.Option(min=1, help="Further simulated logs, to judge by.")] = 12,
    student: Annotated[str, typer.Option(help="small, half, 1x or xl; auto is 1x on a GPU, else small.")] = "auto",
    recipe: Annotated[str, typer.Option(help="fast, published, or a .json file with changes.")] = "fast",
    epochs: Annotated[int | None, typer.Option(min=1, help="Else as many as the recipe has.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:n.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Of simulation, teacher and training.")] = 0,
) -> None:
    """Simulate drives, label them with the teacher, train a student on that, and judge all on drives nobody has seen.

    The simulation's truth is looked at by nothing but the judging.

    Example: python -m zeroflow_core.bench distillation --out proof
    """
    from zeroflow_core.devices import choose_device
    from zeroflow_core.distillation.run import DistillSettings, distill
    from zeroflow_core.distillation.sources import LogSource
    from zeroflow_core.evaluation.methods import Settings
    from zeroflow_core.evaluation.run import evaluate
    from zeroflow_core.simulation.logs import simulate_logs

    device, start = choose_device(device), time.monotonic()
    data = out / "logs"
    with Console(stderr=True).status("simulating") as status:
        for split, count in (("train", logs), ("val", judged)):
            randomise = split == "train"
            simulate_logs(data, split, count, sweeps, seed, sensor, scene, randomise=randomise, device=device)

        def show(stage: str, progress: Any) -> None:
            done = getattr(progress, "step", getattr(progress, "done", 0))
            total = getattr(progress, "steps", getattr(progress, "total", None))
            status.update(f"{stage}: {done:,}" + (f" of {total:,}" if total else ""))

        settings = DistillSettings(
            LogSource(data, "train"), out / "run", student, recipe, epochs, device=device, seed=seed
        )
        done = distill(settings, show)
        status.update("judging the teacher")
        teacher = evaluate(
            Settings(data, "val", "nsfp", device=device, seed=seed), out / "run" / "evaluation" / "teacher"
        )
    _show(done, {**done.metrics, "teacher": teacher.metrics}, time.monotonic() - start, device)


def _show(done: Distilled, metrics: dict[str, dict], seconds: float, device: str) -> None:
    table = Table(title="errors on drives that nobody learned from, av2-2023, metres")
    for heading in ("", "three-way", "FD", "FS", "BS", "mean dynamic (av2-2024)"):
        table.add_column(heading, justify="right" if heading else "left")
    line: dict[str, Any] = {"bench": "distillation", **described(device), "seconds": round(seconds)}
    for name in ("zero", "student", "teacher"):
        errors = {figure: metrics[name]["av2-2023"][figure] for figure in FIGURES}
        errors["mean_dynamic"] = metrics[name]["av2-2024"]["mean_dynamic"]
        table.add_row(name, *("–" if value is None else f"{value:.4f}" for value in errors.values()))
        line[name] = errors
    console = Console()
    console.print(table)
    console.print(f"{done.report}: everything else, with the curves over the steps", soft_wrap=True)
    console.print(json.dumps(line), soft_wrap=True, highlight=False, markup=False)
