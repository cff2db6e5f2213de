"""`training`: what a step of a student's training takes on a CPU, and what memory and layout have to do with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from zeroflow_core.bench.machine import described
from zeroflow_core.bench.own_process import in_own_process
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.wording import several
from zeroflow_core.files import new_file


class Way(NamedTuple):
    """of doing a step: with maps in the layout that trainings choose (`scene_flow.layout_of`) or the other one, and
    with memory kept (`keep_memory`) or given back"""

    name: str
    usual_layout: bool
    keeps: bool


WAYS = (
    Way("as trained", True, True),
    Way("memory given back", True, False),
    Way("the other layout", False, True),
    Way("both", False, False),
)


@dataclass(frozen=True)
class Work:
    """What is timed.

    size, window, batch: of the student and of a step's samples, as a recipe says them
    steps:   that are timed in a turn, after one that is not
    threads: of torch
    bf16:    convolutions in bfloat16
    """

    size: str
    window: float
    batch: int
    steps: int
    threads: int
    bf16: bool = False


def training(
    student: Annotated[str, typer.Option(help="Size: small, half, 1x or xl.")] = "half",
    window: Annotated[float, typer.Option(help="Side of a sample's window, as a share of the grid's.")] = 0.1875,
    batch: Annotated[int, typer.Option(min=1, help="Samples of a step.")] = 8,
    steps: Annotated[int, typer.Option(min=1, help="Steps in a turn.")] = 5,
    turns: Annotated[int, typer.Option(min=1, help="Turns that each way has.")] = 3,
    threads: Annotated[int | None, typer.Option(min=1, help="Of torch; else as many as it takes by itself.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="File for every figure.")] = None,
) -> None:
    """Time a step of the student's training on a CPU: forward, backward, Adam.

    Side by side: as trainings do it here (in bf16 where the CPU has it); with
    the memory of a step given back to the system and asked for again, as
    glibc does by itself; and with feature maps the other way round in memory.
    Ways take turns, each turn in a process of its own. Samples are made up;
    loading them is not timed (see loader).

    Example: python -m zeroflow_core.bench training --student half
    """
    import torch

    from zeroflow_core.devices import choose_precision
    from zeroflow_core.fastflow3d.config import SIZES

    if student not in SIZES:
        raise ZeroFlowError(f"student '{student}' is unknown; choose one of: {', '.join(SIZES)}")
    if not 0 < window <= 1:
        raise ZeroFlowError(f"window is a share above 0, up to 1, not {window:g}")
    bf16 = choose_precision("auto", "cpu") == "bf16"
    work = Work(student, window, batch, steps, threads or torch.get_num_threads(), bf16)
    seconds: dict[str, list[float]] = {way.name: [] for way in WAYS}
    about = {"bench": "training", **described("cpu"), **vars(work), "seconds": seconds}
    _write(json_file, about)  # what is wrong with the file shows before the work, not after
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        for way in progress.track(WAYS * turns, description="turns"):
            seconds[way.name] += in_own_process(_turn, work, way)  # as memory once kept is kept to the end
            _write(json_file, about)
    _show(work, seconds)


def _turn(work: Work, way: Way, report: Callable[[list[float]], None]) -> None:
    report(time_steps(work, way))


def time_steps(work: Work, way: Way) -> list[float]:
    """Seconds that each step of a turn took."""
    import torch

    from zeroflow_core.distillation.training.losses import weighted_epe
    from zeroflow_core.distillation.training.samples import window_config
    from zeroflow_core.distillation.training.scene_flow import FlowLearner, layout_of
    from zeroflow_core.distillation.training.train import keep_memory_of_steps
    from zeroflow_core.fastflow3d.config import SIZES

    torch.set_num_threads(work.threads)
    if way.keeps:
        keep_memory_of_steps("cpu")
    config = SIZES[work.size]
    layouts = [torch.contiguous_format, torch.channels_last]
    usual = layout_of("cpu", work.bf16)
    layouts.remove(usual)
    torch.manual_seed(0)
    learner = FlowLearner(window_config(config, work.window), work.bf16).train()
    learner.to(memory_format=usual if way.usual_layout else layouts[0])
    optimiser = torch.optim.Adam(learner.parameters())
    items, seconds = _items(work), []
    for _ in range(1 + work.steps):
        start = perf_counter()
        optimiser.zero_grad(set_to_none=True)
        answers = learner(items)
        losses = [
            weighted_epe(flow, item.label[index], torch.ones(len(flow)))
            for (flow, index), item in zip(answers, items, strict=True)
        ]
        torch.stack(losses).mean().backward()
        optimiser.step()
        seconds.append(perf_counter() - start)
    return seconds[1:]


def _items(work: Work) -> list:
    """Samples of made-up clouds, in windows around some of their points; the labels say that all stands."""
    import torch

    from zeroflow_core.bench.student_pairs import points_pair
    from zeroflow_core.distillation.training.samples import Sample, cut_window, window_config
    from zeroflow_core.distillation.training.scene_flow import Item
    from zeroflow_core.fastflow3d.config import SIZES

    config, rng, items = SIZES[work.size], np.random.default_rng(0), []
    for seed in range(work.batch):
        pair = points_pair(100_000, seed)
        whole = Sample(pair.pc0, pair.pc1, np.zeros_like(pair.pc0), 0.1)
        one = cut_window(whole, config, window_config(config, work.window), False, rng)
        clouds = (torch.from_numpy(np.ascontiguousarray(values)) for values in (one.pc0, one.pc1, one.label))
        items.append(Item(*clouds, one.dt, None if one.low is None else torch.from_numpy(one.low)))
    return items


def _write(path: Path | None, about: dict[str, Any]) -> None:
    if path is not None:
        with new_file(path, "w") as file:
            file.write(json.dumps(about, indent=1) + "\n")


def _show(work: Work, seconds: dict[str, list[float]]) -> None:
    samples, threads = several(work.batch, "sample"), several(work.threads, "thread")
    precision = "bf16" if work.bf16 else "fp32"
    table = Table(title=f"a step of {samples}, {work.size}, window {work.window:g}, {threads}, {precision}")
    for heading in ("", "ms, median", "ms, least", "as trained ÷ it"):
        table.add_column(heading, justify="left" if not heading else "right")
    usual = float(np.median(seconds[WAYS[0].name]))
    for name, values in seconds.items():
        median = float(np.median(values))
        table.add_row(name, f"{1e3 * median:.0f}", f"{1e3 * min(values):.0f}", f"{usual / median:.2f}")
    Console().print(table)
