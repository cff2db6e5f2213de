"""``zeroflow distill``: from raw logs or bags to a student, and its stages ``label`` and ``train`` by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zeroflow_core.cli.distill.progress import Stages
from zeroflow_core.cli.options import Device, Seed, TeacherConfiguration, check_folder
from zeroflow_core.cli.progress import progress_bar
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.wording import several

if TYPE_CHECKING:
    from zeroflow_core.distillation.run import Distilled

_TOLD = 5  # failed pairs on screen; the manifest of the labels has all

app = typer.Typer(name="distill", invoke_without_command=True, no_args_is_help=True, rich_markup_mode="rich")
try:
    from zeroflow_core.cli.distill.label import label

    app.command()(label)
except ImportError:
    pass
try:
    from zeroflow_core.cli.distill.train import train

    app.command()(train)
except ImportError:
    pass


@app.callback()
def distill(
    context: typer.Context,
    data: Annotated[
        Path | None, typer.Option(help="Folder that holds the logs in sensor/<split> or lidar/<split>, as AV2's does.")
    ] = None,
    split: Annotated[str, typer.Option(help="Of --data: the split to learn from.")] = "train",
    log: Annotated[list[str] | None, typer.Option(help="Of --data: only this log; give it again for more.")] = None,
    bag: Annotated[Path | None, typer.Option(help="A rosbag2, or a folder of them, to learn from.")] = None,
    topic: Annotated[str | None, typer.Option(help="Of a bag with several: its clouds.")] = None,
    odometry: Annotated[str | None, typer.Option(help="Of a bag with several: its odometry.")] = None,
    ego_motion: Annotated[
        str, typer.Option(help="Of a bag: odometry, tf, kiss_icp, or auto, the first of them that it has.")
    ] = "auto",
    height: Annotated[
        float | None, typer.Option(help="Of a bag's clouds' frame above the ground, metres; else estimated.")
    ] = None,
    deskew: Annotated[
        bool, typer.Option("--deskew", help="Of a bag: its driver left the vehicle's motion in the clouds.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for all that comes out; an interrupted run goes on.")] = None,
    student: Annotated[
        str, typer.Option(help="1x or xl (the published sizes), small, a checkpoint, or auto: 1x on a GPU, else small.")
    ] = "auto",
    recipe: Annotated[str, typer.Option(help="How the student trains: fast, or published.")] = "fast",
    epochs: Annotated[int | None, typer.Option(min=1, help="Else as many as the recipe has.")] = None,
    method: Annotated[str, typer.Option(help="The teacher: nsfp, or fastnsf (no labels backwards in time).")] = "nsfp",
    teacher_config: TeacherConfiguration = "fast",
    pairs_per_log: Annotated[int | None, typer.Option(min=1, help="Label only so many pairs of each log.")] = None,
    val: Annotated[
        str | None,
        typer.Option(metavar="ROOT[:SPLIT]", help="Labelled logs to judge by; else --data's val, where labelled."),
    ] = None,
    device: Device = "auto",
    seed: Seed = 0,
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
    check_folder(out)

    from zeroflow_core.distillation.run import DistillSettings, distill, resolved
    from zeroflow_core.distillation.sources import LogSource

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
        method=method,
        teacher_config=teacher_config,
        pairs_per_log=pairs_per_log,
        val=None if val is None else _root_and_split(val),
        device=device,
        seed=seed,
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


def _root_and_split(val: str) -> tuple[Path, str]:
    root, colon, split = val.rpartition(":")
    return (Path(root), split) if colon and not Path(val).is_dir() else (Path(val), "val")


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
