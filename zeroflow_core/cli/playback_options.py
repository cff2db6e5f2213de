"""Options of the commands that show a log, a bag or a run: `open_playback` takes them by the same names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zeroflow_core.errors import ZeroFlowError

if TYPE_CHECKING:
    from zeroflow_core.playback import Playback

Start = Annotated[int, typer.Option(min=0, help="The first sweep.")]
Count = Annotated[int | None, typer.Option(min=1, help="How many sweeps; else all.", show_default=False)]
Every = Annotated[int, typer.Option(min=1, help="Take every second (2), third (3), … of them.")]
MinSpeed = Annotated[float, typer.Option(help="m/s over ground from which things are shown as moving.")]
Truth = Annotated[bool, typer.Option("--truth/--no-truth", help="Labels beside the estimate, where there are any.")]
Method = Annotated[
    str | None,
    typer.Option(
        help="student, nsfp or fastnsf (teachers), zero (nothing moves) or labels; else that of the run, the flow "
        "that a bag holds, or the student.",
        show_default=False,
    ),
]
Checkpoint = Annotated[
    str | None,
    typer.Option(
        help="For the student: a .ckpt or .safetensors file, 'default', or a published name.", show_default=False
    ),
]
Labels = Annotated[
    Path | None, typer.Option(help="For --method labels: folder of stored flows.", show_default=False)
]
Ground = Annotated[
    str | None, typer.Option(help="What is left out as ground: map, patchwork, none or auto.", show_default=False)
]
TeacherConfiguration = Annotated[str | None, typer.Option(help="For nsfp and fastnsf: fast or published.")]
Seed = Annotated[
    int | None,
    typer.Option(min=0, max=2**63 - 1, help="For nsfp and fastnsf; else 0, or the run's.", show_default=False),
]
LogName = Annotated[str | None, typer.Option("--log", help="Of several logs: its name.", show_default=False)]
Topic = Annotated[str | None, typer.Option(help="Of a bag with several: its clouds.", show_default=False)]
Odometry = Annotated[str | None, typer.Option(help="Of a bag with several: its odometry.", show_default=False)]
Height = Annotated[
    float | None, typer.Option(help="Of a bag: the scanner's above ground, in metres.", show_default=False)
]


def chosen(playback: Playback, start: int, count: int | None, every: int) -> list[int]:
    """The sweeps that these options name; at least one.

    Raises:
        ZeroFlowError: there are none.
    """
    if start >= len(playback):
        raise ZeroFlowError(f"{playback.name} has no sweep {start} to begin with; its last is {len(playback) - 1}")
    return list(range(start, len(playback), every))[:count]
