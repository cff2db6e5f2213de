"""Options that say what to learn from, for the commands that begin with that."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[
    Path | None, typer.Option(help="Folder that holds the logs in sensor/<split> or lidar/<split>, as AV2's does.")
]
LogNames = Annotated[list[str] | None, typer.Option(help="Of --data: only this log; give it again for more.")]
BagPath = Annotated[Path | None, typer.Option(help="A rosbag2, or a folder of them; imported into OUT/data.")]
Topic = Annotated[str | None, typer.Option(help="Of a bag with several: its clouds.")]
Odometry = Annotated[str | None, typer.Option(help="Of a bag with several: its odometry.")]
EgoMotion = Annotated[
    str, typer.Option(help="Of a bag: odometry, tf, kiss_icp, or auto, the first of them that it has.")
]
Height = Annotated[
    float | None, typer.Option(help="Of a bag's clouds' frame above the ground, metres; else estimated.")
]
Deskew = Annotated[
    str,
    typer.Option(
        help="Of a bag: whether the vehicle's motion is taken out of its clouds: always, never (its driver did it), or "
        "auto: with kiss_icp."
    ),
]
TeacherMethod = Annotated[
    str, typer.Option(help="The teacher: nsfp, or fastnsf (no labels backwards in time).")
]
Ground = Annotated[
    str,
    typer.Option(
        help="What is left out as ground: map, patchwork, none, or auto: the map where there is one, else patchwork."
    ),
]
PairsPerLog = Annotated[int | None, typer.Option(min=1, help="Label only so many pairs of each log.")]
