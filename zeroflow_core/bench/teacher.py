"""`teacher`: how good and how fast the teacher is, in its configurations side by side, on one pair and machine."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from zeroflow_core.bench.machine import described
from zeroflow_core.bench.own_process import in_own_process
from zeroflow_core.bench.teacher_pair import Source, choose_pair, read_pair
from zeroflow_core.bench.teacher_run import Batch, Run, Task, measure_batch, measure_run
from zeroflow_core.bench.teacher_summary import summarise
from zeroflow_core.bench.teacher_tables import print_tables, told
from zeroflow_core.datasets.av2 import Log
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.figures import figures_of_zero_flow
from zeroflow_core.evaluation.truth import read_truth
from zeroflow_core.files import new_file
from zeroflow_core.nsfp.config import TeacherConfig, teacher_config

_RUNS = ("nsfp:published", "nsfp:fast")
_BUSY = 0.25  # of the cores, by the load of the last minute, from which on times are not the teacher's alone
_WIDTH = 132  # characters of the tables: rather that than numbers cut off


@dataclass
class Results:
    """All that is known so far, and the file that has it after every run."""

    about: dict[str, Any]
    zero: dict[str, dict]
    file: Path | None
    runs: list[Run] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)

    def write(self, *, finished: bool = False) -> None:
        """Raises ZeroFlowError when the file can't be written."""
        if self.file is None:
            return
        content = {
            "bench": "teacher",
            "finished": finished,
            **self.about,
            "zero": self.zero,
            "runs": [asdict(run) for run in self.runs],
            "batches": [asdict(batch) for batch in self.batches],
            "summaries": [asdict(summary) for summary in summarise(self.runs)],
        }
        with new_file(self.file, "w") as file:
            file.write(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def teacher(
    data: Annotated[
        Path | None,
        typer.Option(help="Folder that holds labelled logs in sensor/<split>; without it a pair is simulated."),
    ] = None,
    split: Annotated[str, typer.Option(help="Of --data: train or val.")] = "val",
    pair: Annotated[
        str | None, typer.Option(help="Of --data: INDEX of the pair in the first labelled log, or LOG:INDEX.")
    ] = None,
    run: Annotated[
        list[str], typer.Option(help="METHOD:CONFIGURATION to measure, such as fastnsf:fast; may be given again.")
    ] = _RUNS,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each; the seeds are 0, 1 and so on.")] = 3,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:n.")] = "auto",
    batch: Annotated[
        int | None, typer.Option(min=1, help="Also time so many pairs of the log at once, with the fast engines.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="File for everything measured, written after every run.")
    ] = None,
) -> None:
    """Measure the teacher on one pair: errors, seconds, memory, arithmetic.

    Without --run it is NSFP, as published and fast; for Fast NSF give
    --run fastnsf:published --run fastnsf:fast, beside nsfp's or alone. "fast"
    is measured against the published configuration of the same method.

    What is compared takes turns, a seed each, every run in a process of its
    own on all cores. As published it takes minutes a run on a CPU.

    Example: python -m zeroflow_core.bench teacher --data av2 --json fast.json
    """
    from zeroflow_core.devices import choose_device

    configurations = {name: _configuration(name) for name in run}
    device = choose_device(device)
    with choose_pair(data, split, pair, batch or 1) as source:
        zero = figures_of_zero_flow(read_truth(Log(source.log), source.index))
        results = Results(_about(source, configurations, device), zero, json_file)
        _warn_if_busy(results.about)
        results.write()  # what forbids it shows before the work, not after
        tasks = [
            Task(name, configurations[name], source.log, source.index, seed, device)
            for seed, name in product(range(seeds), configurations)
        ]
        try:
            _measure(tasks, batch, results)
            results.write(finished=True)
        finally:  # after Ctrl-C or a run that failed, what there is is told
            if results.runs:
                console = Console(highlight=False)
                console.width = max(console.width, _WIDTH)
                print_tables(results.zero, summarise(results.runs), results.batches, console)


def _warn_if_busy(about: dict[str, Any]) -> None:
    if about["load"] > _BUSY * about["cpus"]:
        Console(stderr=True, highlight=False).print(
            f"the machine is busy (load {about['load']:.1f} on {about['cpus']} cores): times say little",
            style="yellow",
            soft_wrap=True,
        )


def _measure(tasks: list[Task], batch: int | None, results: Results) -> None:
    """One task after the other, then a batch of each configuration that can have one; `results` grows."""
    first_seed = [task for task in tasks if task.seed == tasks[0].seed and task.config.engine != "plain"]
    batches = first_seed if batch is not None else []
    columns = SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn()
    console = Console(stderr=True, highlight=False)
    calm = {"refresh_per_second": 1, "transient": True}  # drawing takes time from what is measured
    with Progress(*columns, console=console, disable=not console.is_terminal, **calm) as progress:
        bar = progress.add_task("", total=len(tasks) + len(batches))
        for task in tasks:
            progress.update(bar, description=f"{task.name}, seed {task.seed}")
            results.runs.append(in_own_process(measure_run, task))
            progress.advance(bar)
            console.print(told(results.runs[-1]), soft_wrap=True)
            results.write()
        for task in batches:
            progress.update(bar, description=f"{task.name}, {batch} pairs in flight")
            results.batches.append(in_own_process(measure_batch, task, batch))
            progress.advance(bar)
            results.write()


def _configuration(name: str) -> TeacherConfig:
    method, colon, config = name.partition(":")
    if not colon:
        raise ZeroFlowError(f"--run '{name}' names no configuration; write METHOD:CONFIGURATION, as nsfp:fast")
    return teacher_config(method, config)


def _about(source: Source, configurations: dict[str, TeacherConfig], device: str) -> dict[str, Any]:
    """What the measurement is of, plain data."""
    pair = read_pair(Log(source.log), source.index)
    points = {f"points{k}": len(cloud) for k, cloud in enumerate((pair.pc0, pair.pc1))}
    not_ground = {f"not_ground{k}": int((~mask).sum()) for k, mask in enumerate((pair.is_ground0, pair.is_ground1))}
    return {
        **described(device),
        "pair": {**source.origin, "stamp0_ns": pair.stamp0_ns, **points, **not_ground},
        "configurations": {name: config.to_dict() for name, config in configurations.items()},
    }
