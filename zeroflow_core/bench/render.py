"""`render`: how long a film takes, from the command to the file, and what of it is estimating, drawing and encoding."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from zeroflow_core.bench.machine import described
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.files import new_file

_SENSOR, _SCENE, _SEED = "av2", "junction", 7
_SAMPLED = 20  # sweeps whose stages are timed one by one
_WARM_UP = 2
_COMMAND = "import sys; from zeroflow_core.cli.main import main; sys.exit(main())"


@dataclass(frozen=True)
class Cost:
    """
    sweeps, points: how many, and the median of a sweep
    total_s:        of the command `zeroflow render`, its start included
    estimate_s, draw_s, encode_s: medians of a sweep, each by itself and one after the other
    bytes:          of the film
    """

    sweeps: int
    points: int
    total_s: float
    estimate_s: float
    draw_s: float
    encode_s: float
    bytes: int


def render(
    sweeps: Annotated[int, typer.Option(min=_WARM_UP + 1, help="Of the film.")] = 100,
    log: Annotated[Path | None, typer.Option(help="An AV2 log in place of a simulated drive with labels.")] = None,
    suffix: Annotated[str, typer.Option(help=".mp4, .gif or .webp.")] = ".mp4",
    size: Annotated[str, typer.Option(help="Width x height in pixels.")] = "1280x720",
    json_file: Annotated[Path | None, typer.Option("--json", help="File for everything that was measured.")] = None,
) -> None:
    """Time `zeroflow render` on AV2-size sweeps with labels: the whole command, and its stages one by one.

    The command estimates in one process and draws in others: on several cores it takes less than the sum of its stages.

    Example: python -m zeroflow_core.bench render --sweeps 100
    """
    about = {"bench": "render", **described("cpu"), "suffix": suffix, "size": size}
    with tempfile.TemporaryDirectory() as folder, Console(stderr=True).status("measuring") as status:
        source = _simulated(Path(folder), sweeps, status.update) if log is None else log
        status.update("timing the stages")
        stages = _stages(source, min(sweeps, _SAMPLED), size, Path(folder) / f"stages{suffix}")
        status.update(f"timing the film of {sweeps} sweeps")
        film = Path(folder) / f"film{suffix}"
        cost = Cost(sweeps=sweeps, total_s=_film(source, film, sweeps, size), bytes=film.stat().st_size, **stages)
    _tell(cost, suffix, size)
    if json_file is not None:
        with new_file(json_file, "w") as file:
            file.write(json.dumps(about | asdict(cost), indent=1) + "\n")


def _simulated(folder: Path, sweeps: int, say: Callable[[str], None]) -> Path:
    from zeroflow_core.simulation.log import simulate_log

    say(f"simulating {sweeps + 1} sweeps")
    log = folder / "drive"
    simulate_log(log, _SEED, sweeps + 1, _SENSOR, _SCENE)
    return log


def _film(source: Path, out: Path, sweeps: int, size: str) -> float:
    """Seconds of the command."""
    words = ["render", str(source), "--out", str(out), "--count", str(sweeps), "--size", size]
    start = perf_counter()
    done = subprocess.run([sys.executable, "-c", _COMMAND, *words], capture_output=True, text=True, check=False)
    seconds = perf_counter() - start
    if not out.exists():
        raise ZeroFlowError(f"`zeroflow render` made no film: {done.stderr.strip()[-500:]}")
    return seconds


def _stages(source: Path, sweeps: int, size: str, out: Path) -> dict[str, Any]:
    from zeroflow_core.playback import open_playback
    from zeroflow_core.playback.film import write_film
    from zeroflow_core.playback.rendering import Look, draw_still, tell

    width, height = map(int, size.split("x"))
    playback = open_playback(source)
    look = Look(playback.name, playback.method, (width, height), min_speed=playback.min_speed)
    estimating, moments = _timed(playback.moments(range(min(sweeps, len(playback)))))
    drawing, images = _timed(draw_still(told, look) for told in tell(moments))
    start = perf_counter()
    write_film(out, [(image, 0.1) for image in images])
    return {
        "points": int(np.median([len(moment.points) for moment in moments])),
        "estimate_s": float(np.median(estimating[_WARM_UP:])),
        "draw_s": float(np.median(drawing[_WARM_UP:])),
        "encode_s": (perf_counter() - start) / len(images),
    }


def _timed(things: Iterator[Any]) -> tuple[list[float], list[Any]]:
    """How long each took to come, in seconds, and all of them."""
    seconds, there, start = [], [], perf_counter()
    for thing in things:
        seconds.append(perf_counter() - start)
        there.append(thing)
        start = perf_counter()
    return seconds, there


def _tell(cost: Cost, suffix: str, size: str) -> None:
    title = f"{cost.sweeps} sweeps of {cost.points:,} points as {suffix}, {size}"
    table = Table(title=title, box=box.SIMPLE_HEAD)
    for heading in ("film, s", "s a sweep", "of it estimated, ms", "drawn, ms", "encoded, ms", "MB"):
        table.add_column(heading, justify="right")
    stages = (f"{1000 * seconds:.0f}" for seconds in (cost.estimate_s, cost.draw_s, cost.encode_s))
    table.add_row(f"{cost.total_s:.1f}", f"{cost.total_s / cost.sweeps:.3f}", *stages, f"{cost.bytes / 1e6:.1f}")
    Console(highlight=False).print(table)
