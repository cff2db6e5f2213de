"""``zeroflow simulate``: labelled logs in AV2's layout, from nothing but a seed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zeroflow_core.cli.options import Device
from zeroflow_core.cli.progress import progress_bar
from zeroflow_core.evaluation.wording import several

if TYPE_CHECKING:
    from zeroflow_core.simulation.scanners import Scanner


def simulate(
    out: Annotated[Path, typer.Option(help="Folder for the logs: they go to OUT/sensor/<split>/<log>.")],
    logs: Annotated[int, typer.Option(min=1, help="How many logs.")] = 4,
    sweeps: Annotated[int, typer.Option(min=1, help="Sweeps of each log, ten a second.")] = 40,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same logs.")] = 0,
    sensor: Annotated[str, typer.Option(help="av2, hdl64, os1-128, vlp32 or small.")] = "av2",
    scene: Annotated[str, typer.Option(help="street, junction, highway or mixed.")] = "mixed",
    split: Annotated[str, typer.Option(help="train, val or test.")] = "val",
    density: Annotated[float, typer.Option(help="Of the traffic; 1 is usual.")] = 1.0,
    height: Annotated[float | None, typer.Option(help="Of the sensor above the ground, metres.")] = None,
    tilt: Annotated[float | None, typer.Option(help="Of the sensor, nose down, degrees.")] = None,
    beams: Annotated[int | None, typer.Option(help="Beams kept of each of the sensor's heads.")] = None,
    noise: Annotated[float | None, typer.Option(help="Of the range: standard deviation, metres.")] = None,
    randomise: Annotated[
        bool, typer.Option("--randomise", help="Vary sensor and traffic around all that, from log to log.")
    ] = False,
    device: Device = "auto",
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes; else one per core, or one on a GPU.", show_default=False)
    ] = None,
) -> None:
    """Simulate drives and write them as logs in AV2's layout, with exact labels for every pair of sweeps.

    The same command again keeps the logs that are complete and writes those
    that are missing, so an interrupted run goes on.

    Example: zeroflow simulate --out synthetic --logs 4 --sweeps 40 --seed 7 --scene street
    """
    from zeroflow_core.devices import choose_device
    from zeroflow_core.simulation.logs import simulate_logs
    from zeroflow_core.simulation.scanners import adjusted, scanner_named

    scanner: Scanner = adjusted(scanner_named(sensor), height=height, tilt=tilt, beams=beams, noise=noise)
    start, points = time.monotonic(), []
    with progress_bar() as progress:
        bar = progress.add_task(f"Simulating {sensor}", total=logs * sweeps, note="")

        def on_sweep(num_points: int, kept: bool) -> None:
            if kept:
                progress.update(bar, total=progress.tasks[bar].total - 1)
                return
            points.append(num_points)
            progress.update(bar, advance=1, note=f"{len(points) / (time.monotonic() - start):.1f} sweeps/s")

        written = simulate_logs(
            out, split, logs, sweeps, seed, scanner, scene, density, randomise, choose_device(device), jobs, on_sweep
        )
    seconds = time.monotonic() - start
    kept = logs - len(written.new)
    said = f"{several(len(written.new), 'log')} written"
    if points:
        said += f": {several(len(points), 'sweep')} of {sum(points) / len(points):,.0f} points in {seconds:.1f} s"
        said += f", {len(points) / seconds:.1f} sweeps/s, {_megabytes(written.new):.1f} MB"
    if kept:
        said += f"; {kept} were there already"
    print(said)
    print(f"They are in {written.logs[0].parent}; for a bag to play: zeroflow convert {written.logs[0]} <bag>")


def _megabytes(logs: list[Path]) -> float:
    return sum(file.stat().st_size for log in logs for file in log.rglob("*") if file.is_file()) / 1e6
