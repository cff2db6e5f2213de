"""``zeroflow distill``: from raw logs or bags to a student, and its stages ``label`` and ``train`` by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zeroflow_core.cli.distill.label import label
from zeroflow_core.cli.distill.options import (
    BagPath,
    Data,
    Deskew,
    EgoMotion,
    Ground,
    Height,
    LogNames,
    Odometry,
    PairsPerLog,
    TeacherMethod,
    Topic,
)
from zeroflow_core.cli.distill.progress import Stages
from zeroflow_core.cli.distill.train import train
from zeroflow_core.cli.options import Device, TeacherConfiguration
from zeroflow_core.cli.progress import progress_bar
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.wording import several

if TYPE_CHECKING:
    from zeroflow_core.distillation.run import Distilled

_TOLD = 5  # failed pairs on screen; the manifest of the labels has all

app = typer.Typer(name="distill", invoke_without_command=True, no_args_is_help=True, rich_markup_mode="rich")
app.command()(label)
app.command()(train)


@app.callback()
def distill(
    context: typer.Context,
    data: Data = None,
    split: Annotated[str, typer.Option(help="Of --data: the split to learn from.")] = "train",
    log: LogNames = None,
    bag: BagPath = None,
    topic: Topic = None,
    odometry: Odometry = None,
    ego_motion: EgoMotion = "auto",
    height: Height = None,
    deskew: Deskew = "auto",
    out: Annotated[Path | None, typer.Option(help="Folder for all that comes out; an interrupted run goes on.")] = None,
    student: Annotated[
        str, typer.Option(help="1x or xl (the paper's), half, small, a checkpoint, or auto: 1x on a GPU, else small.")
    ] = "auto",
    recipe: Annotated[
        str, typer.Option(help="How the student trains: fast, published, or a .json file with changes.")
    ] = "fast",
    epochs: Annotated[int | None, typer.Option(min=1, help="Else as many as the recipe has.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Samples a step; else the recipe's.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="At its highest; else the recipe's.")] = None,
    micro_batch: Annotated[
        int | None, typer.Option(min=1, help="Samples at a time, where a batch does not fit into memory.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, max=256, help="Processes that load samples; else by the cores.")
    ] = None,
    held_back: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Share of the pairs not to learn from, to see how it does on them.")
    ] = 0.1,
    method: TeacherMethod = "nsfp",
    teacher_config: TeacherConfiguration = "fast",
    ground: Ground = "auto",
    pairs_per_log: PairsPerLog = None,
    val: Annotated[
        str | None,
        typer.Option(metavar="ROOT[:SPLIT]", help="Labelled logs to judge by; else --data's val, where labelled."),
    ] = None,
    device: Device = "auto",
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of teacher and training.")] = 0,
) -> None:
    """Distil a student for your LiDAR: a teacher labels raw sweeps, and a fast student learns from that.

    No labels, poses or map are needed. OUT gets student.safetensors, a
    one-page report.md with pictures, and everything on the way there. The same
    command again goes on with an interrupted run. Exits with 1 when a pair
    failed; the student learns from the others all the same. label and train
    are its stages by themselves.

    Example: zeroflow distill --bag my_drive.mcap --topic /points --out my_student
    """
    if context.invoked_subcommand is not None:
        _check_alone(context)
        return
    if out is None:
        raise ZeroFlowError("there is no folder to write to; give --out")
    from zeroflow_core.distillation.run import DistillSettings, distill, resolved
    from zeroflow_core.distillation.sources import LogSource
    from zeroflow_core.distillation.training.label_sources import split_at

    settings = DistillSettings(
        source=LogSource(
            data,
            split,
            tuple(log or ()),
            bag,
            topic=topic,
            odometry=odometry,
            ego_motion=ego_motion,
            height=height,
            deskew=deskew,
        ),
        out=out,
        student=student,
        recipe=recipe,
        epochs=epochs,
        batch=batch,
        learning_rate=learning_rate,
        method=method,
        teacher_config=teacher_config,
        ground=ground,
        pairs_per_log=pairs_per_log,
        val=split_at(val),
        device=device,
        seed=seed,
        held_back=held_back,
        workers=workers,
        micro_batch=micro_batch,
    )
    chosen = resolved(settings)
    if student == "auto":
        print(f"On {chosen.device} the student is {chosen.student}; --student chooses another.")
    with progress_bar() as progress:
        done = distill(settings, Stages(progress).show)
    print(f"{done.report}: how it went, and how good the student is. It is {done.student}; to see it live:")
    print(done.launch)
    if done.failed or done.unscored:
        _complain(done, out)
        raise typer.Exit(1)


def _check_alone(context: typer.Context) -> None:
    """A stage has options of its own: what stands before its name would do nothing."""
    given = [name for name in context.params if context.get_parameter_source(name).name == "COMMANDLINE"]
    if given:
        option, stage = f"--{given[0].replace('_', '-')}", context.invoked_subcommand
        raise ZeroFlowError(f"{option} stands before {stage}; give it behind: zeroflow distill {stage} {option} …")


def _complain(done: Distilled, out: Path) -> None:
    from rich.console import Console
    from rich.text import Text

    lines = []
    for failed, doing, where in (
        (done.failed, "labelled", out / "labels" / "manifest.json"),
        (done.unscored, "evaluated", out / "evaluation"),
    ):
        if failed:
            lines.append(f"{several(len(failed), 'pair')} could not be {doing}:")
            lines += [f"  {pair['log']}, pair {pair['index']}: {pair['error']}" for pair in failed[:_TOLD]]
        if len(failed) > _TOLD:
            lines.append(f"  … and {len(failed) - _TOLD:,} more, see {where}")
    Console(stderr=True, highlight=False).print(Text("\n".join(lines), "red"), soft_wrap=True)
