"""`simulation`: how many sweeps a second the ray casting makes, truth included."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Annotated

import numpy as np
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from zeroflow_core.bench.machine import machine_name
from zeroflow_core.errors import ZeroFlowError

_WARM_UP = 2  # sweeps; the first ones fill caches and load kernels
_ON_CPU = ((1, 1), (1, 2), (2, 1))  # processes and threads in each
_ON_GPU = ((1, 1),)


@dataclass(frozen=True)
class Task:
    """What each process does: sweeps of one scene."""

    sensor: str
    scene: str
    sweeps: int
    device: str
    seed: int = 7


@dataclass(frozen=True)
class Speed:
    """What came of it.

    processes, threads: how many, and how many in each process
    per_second:         sweeps a second of all processes together, from their common start to the end of the last
    median_s, low_s, high_s: of one sweep in one process: the median, the 10th and the 90th percentile
    points:             median of a sweep
    """

    processes: int
    threads: int
    per_second: float
    median_s: float
    low_s: float
    high_s: float
    points: int


def simulation(
    sensor: Annotated[str, typer.Option(help="Scanner to simulate.")] = "av2",
    scene: Annotated[str, typer.Option(help="Scene to drive through.")] = "street",
    sweeps: Annotated[int, typer.Option(min=1, help="Sweeps to time in each process.")] = 20,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:n.")] = "cpu",
) -> None:
    """Time the simulation: sweeps with their truth, without writing them. Making the scene is not timed.

    On the CPU with one process of one thread, one of two threads, and two of one thread.

    Example: python -m zeroflow_core.bench simulation --sensor av2 --scene street
    """
    import torch

    from zeroflow_core.bench.samples import check_simulation

    task = Task(sensor, scene, sweeps, device)
    check_simulation(sensor, scene, device)
    console = Console()
    title = f"{sensor} in {scene} on {device}: {sweeps} sweeps in each process, after {_WARM_UP} to warm up"
    table = Table(title=title, box=box.SIMPLE_HEAD)
    for heading in ("processes × threads", "sweeps/s", "ms: p10", "median", "p90", "points"):
        table.add_column(heading, justify="right")
    speeds = []
    with Console(stderr=True).status("timing") as status:
        for processes, threads in _ON_CPU if device == "cpu" else _ON_GPU:
            status.update(f"timing {processes} × {threads}")
            speed = measure(task, processes, threads)
            speeds.append(speed)
            table.add_row(
                f"{processes} × {threads}",
                f"{speed.per_second:.1f}",
                *(f"{1000 * seconds:.1f}" for seconds in (speed.low_s, speed.median_s, speed.high_s)),
                f"{speed.points:,}",
            )
    console.print(table)
    described = {"machine": machine_name(device), "cpus": os.cpu_count(), "torch": torch.__version__}
    line = {"bench": "simulation", **asdict(task), **described, "speeds": [asdict(speed) for speed in speeds]}
    console.print(json.dumps(line), soft_wrap=True, highlight=False, markup=False)


def measure(task: Task, processes: int, threads: int) -> Speed:
    """Time the task in so many fresh processes at once.

    Raises:
        ZeroFlowError: a process ended without a result.
    """
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    context = multiprocessing.get_context("spawn")  # a fresh one has its own threads, and may use a GPU
    with context.Manager() as manager:
        start = manager.Barrier(processes)
        try:
            with ProcessPoolExecutor(processes, mp_context=context) as pool:
                running = [pool.submit(_time_sweeps, task, threads, start.wait) for _ in range(processes)]
                results = [one.result() for one in running]
        except BrokenProcessPool as error:
            raise ZeroFlowError(
                f"a process that timed the simulation ended early ({error}); is there memory for {processes}?"
            ) from error
    ends = np.array([ends for ends, _ in results])  # (processes, sweeps + 1), seconds
    each = np.diff(ends, axis=1).ravel()
    low, median, high = np.percentile(each, [10, 50, 90])
    return Speed(
        processes=processes,
        threads=threads,
        per_second=float(each.size / (ends[:, -1].max() - ends[:, 0].min())),
        median_s=float(median),
        low_s=float(low),
        high_s=float(high),
        points=int(np.median([points for _, points in results])),
    )


def _time_sweeps(task: Task, threads: int, wait: Callable[[], int]) -> tuple[list[float], list[int]]:
    """When the first sweep began and each one ended, and how many points they have. Runs in a process of its own."""
    import torch

    from zeroflow_core.simulation.scan import Simulator
    from zeroflow_core.simulation.scanners import scanner_named
    from zeroflow_core.simulation.scenes import make_scene

    torch.set_num_threads(threads)
    scanner = scanner_named(task.sensor)
    seconds = (task.sweeps + _WARM_UP + 1) * scanner.sweep_s
    world = make_scene(task.scene, seed=task.seed, seconds=seconds, density=1.0)
    simulator = Simulator(world, scanner, seed=task.seed, device=task.device)
    for k in range(_WARM_UP):
        simulator.sweep(k)
    wait()
    ends, points = [perf_counter()], []
    for k in range(_WARM_UP, _WARM_UP + task.sweeps):
        points.append(len(simulator.sweep(k).sweep))
        ends.append(perf_counter())
    return ends, points
