"""``zeroflow distill train``: labels that a teacher wrote down → a student."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from zeroflow_core.cli.distill.progress import Stages
from zeroflow_core.cli.options import Device, check_folder
from zeroflow_core.cli.progress import progress_bar
from zeroflow_core.errors import ZeroFlowError


def train(
    labels: Annotated[
        list[str],
        typer.Option(
            metavar="FOLDER[=WEIGHT]",
            help="Labels to learn from, as distill label leaves them behind; give it again for more. With a weight of "
            "2 its pairs are seen twice as often as others.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for all that comes out; an interrupted training goes on.")],
    data: Annotated[
        Path | None, typer.Option(help="For labels that don't say where their logs are, such as published ones.")
    ] = None,
    split: Annotated[str, typer.Option(help="Of --data.")] = "train",
    student: Annotated[
        str, typer.Option(help="1x or xl (the paper's), half, small (for CPUs), or a checkpoint to start from.")
    ] = "1x",
    recipe: Annotated[
        str, typer.Option(help="fast, published (50 epochs at a constant small rate), or a .json file with changes.")
    ] = "fast",
    epochs: Annotated[int | None, typer.Option(min=1, help="Else as many as the recipe has.")] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Samples a step, over all processes; else the recipe's.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="At its highest; else the recipe's.")] = None,
    loss: Annotated[
        str | None, typer.Option(help="unscaled, speed-scaled, or released (as published); else the recipe's.")
    ] = None,
    micro_batch: Annotated[
        int | None, typer.Option(min=1, help="Samples at a time, where a batch does not fit into memory.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that load samples; else by the cores.")] = None,
    val: Annotated[
        str | None,
        typer.Option(metavar="ROOT[:SPLIT]", help="Labelled logs to choose the best epoch by; SPLIT else val."),
    ] = None,
    held_back: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Share of the pairs not to learn from, to see how it does on them.")
    ] = 0.1,
    prepared: Annotated[Path | None, typer.Option(help="Folder for prepared pairs; else OUT/prepared.")] = None,
    ground: Annotated[
        str | None, typer.Option(help="What the student is not to see: map, patchwork or none; else as in the labels.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the student; else OUT's.")] = None,
    device: Device = "auto",
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of weights, order and augmentation.")] = 0,
) -> None:
    """Train a student on labels, and choose its best epoch.

    OUT gets student.safetensors, best.ckpt and last.ckpt (the published
    layout), curves.csv, validation.csv, and tensorboard/ where TensorBoard is
    installed. The same command again goes on with an interrupted training.
    On several GPUs: torchrun --nproc-per-node 8 --no-python zeroflow distill train …

    Example: zeroflow distill train --labels labels --student small --out student
    """
    from zeroflow_core.distillation.training.label_sources import source_of, split_at
    from zeroflow_core.distillation.training.recipes import recipe as recipe_named
    from zeroflow_core.distillation.training.train import TrainSettings
    from zeroflow_core.distillation.training.train import train as run

    changes: dict[str, Any] = {"epochs": epochs, "batch": batch, "learning_rate": learning_rate, "loss": loss}
    chosen = recipe_named(recipe, **{key: value for key, value in changes.items() if value is not None})
    sources = tuple(source_of(*_weighed(entry), data=data, split=split, ground=ground) for entry in labels)
    check_folder(out)
    with progress_bar() as progress:
        stages = Stages(progress)
        trained = run(
            TrainSettings(
                sources,
                out,
                student,
                chosen,
                device=device,
                seed=seed,
                workers=workers,
                micro_batch=micro_batch,
                prepared=prepared,
                validation=split_at(val),
                held_back=held_back,
                name=name or out.resolve().name,
            ),
            lambda now: stages.show("train", now),
        )
    if not trained.first:
        return
    told = [f"{key} {value:.4f}" for key, value in trained.figures.items() if value is not None]
    print(f"{trained.steps:,} steps, {trained.wait_share:.0%} of the time waiting for data; {', '.join(told)}")
    print(f"{trained.student}")


def _weighed(entry: str) -> tuple[Path, float]:
    folder, sign, weight = entry.rpartition("=")
    if not sign or Path(entry).is_dir():
        return Path(entry), 1.0
    try:
        value = float(weight)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e3:
        raise ZeroFlowError(f"--labels {entry}: '{weight}' is no weight; give a number above 0, such as {folder}=2")
    return Path(folder), value
