"""``zeroflow flow``: the flow of one pair of sweeps, in files and pictures, and how wrong it is where that is known."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from zeroflow_core.cli.options import (
    Checkpoint,
    Device,
    Engine,
    Precision,
    Seed,
    TeacherConfiguration,
    Verify,
    check_folder,
)
from zeroflow_core.errors import ZeroFlowError

if TYPE_CHECKING:
    from zeroflow_core.cli.pair_source import PairSource
    from zeroflow_core.evaluation.methods import Method
    from zeroflow_core.evaluation.truth import PairTruth
    from zeroflow_core.ground import GroundRule
    from zeroflow_core.nsfp.teacher import Label

METHODS = ("nsfp", "fastnsf", "student", "zero")

_SHOWN_EVERY_S = 0.3


@contextmanager
def _stops_with_a_word() -> Iterator[None]:
    """After Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        raise typer.Exit(130) from None


def _source(argument: str) -> Path:
    if not argument:  # from a variable that is not set, say; as a path it would be the current folder
        raise ZeroFlowError("an empty name is no source of a pair; give a log, a bag or two .npy clouds")
    return Path(argument)


@_stops_with_a_word()
def flow(
    source: Annotated[
        list[Path],
        typer.Argument(
            parser=_source,
            help="An AV2 log's folder, a rosbag2 with odometry, or two clouds in one frame: .npy, (N,3), metres.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results; those of an earlier call are replaced.")],
    method: Annotated[str, typer.Option(help="nsfp or fastnsf (teachers), student, or zero (nothing moves).")] = "nsfp",
    pair: Annotated[
        int | None, typer.Option(min=0, help="Number of the pair's first sweep; else 0.", show_default=False)
    ] = None,
    teacher_config: TeacherConfiguration = "fast",
    seed: Seed = 0,
    checkpoint: Checkpoint = "default",
    ground: Annotated[
        str,
        typer.Option(
            help="What student and teachers leave out as ground: map, patchwork, none or auto (the student as it was "
            "trained, a teacher by the map where there is one; nothing in .npy clouds)."
        ),
    ] = "auto",
    device: Device = "auto",
    engine: Engine = "fast",
    precision: Precision = "auto",
    verify: Verify = "auto",
    topic: Annotated[str | None, typer.Option(help="Of a bag with several: its clouds.")] = None,
    odometry: Annotated[str | None, typer.Option(help="Of a bag with several: its odometry.")] = None,
    interval: Annotated[
        float | None, typer.Option(help="Seconds between two .npy clouds; else 0.1.", show_default=False)
    ] = None,
) -> None:
    """Estimate how every point of a sweep moves over ground until the next sweep.

    OUT gets flow.feather (metres per pair, in the layout of the published
    pseudo-labels) and flow.png (from above, driving to the right); where the
    log has labels also errors.json, by the three definitions of three-way EPE,
    and errors.png. Exits with 1 where the pair gives no estimate at all.

    Example: zeroflow flow sensor/val/7fab2350-7eaf-3b7e-a39d-6937a4c1bede --method nsfp --out flow
    """
    from zeroflow_core.cli.flow_result import FILES, Result, print_result, write_result
    from zeroflow_core.cli.pair_source import find_pair
    from zeroflow_core.evaluation.methods import Settings, TeacherMethod, make_method
    from zeroflow_core.evaluation.truth import as_estimate
    from zeroflow_core.files import remove_unfinished
    from zeroflow_core.ground import mark_ground
    from zeroflow_core.pairs import make_pair

    if method not in METHODS:
        raise ZeroFlowError(f"method '{method}' is unknown; choose one of: {', '.join(METHODS)}")
    found = find_pair(source, pair, topic, odometry, interval)
    settings = Settings(
        source[0],
        method=method,
        checkpoint=checkpoint,
        ground=found.usual_ground if ground == "auto" else ground,
        device=device,
        engine=engine,
        precision=precision,
        verify=verify,
        teacher_config=teacher_config,
        seed=seed,
    )
    chosen = make_method(settings)
    rule = chosen.ground_rule(found.log)
    name = _name(chosen, rule)
    check_folder(out)
    remove_unfinished(out, FILES)
    frames = make_pair(*(mark_ground(sweep, rule) for sweep in found.sweeps))
    truth = _truth(found)

    start = time.perf_counter()
    label: Label | None = None
    if isinstance(chosen, TeacherMethod):
        with _spinner(f"Optimising, {name}") as show:
            label = chosen.label(frames, show)
    flow_of_pair = chosen.flow(found.log, found.index, frames) if label is None else label.flow
    result = Result(
        method=name,
        source=found.name,
        pair=frames,
        flow=flow_of_pair,
        seconds=time.perf_counter() - start,
        iterations=None if label is None else label.iterations,
        loss=label.loss if label is not None and math.isfinite(label.loss) else None,
        truth=truth,
    )
    names = write_result(result, out)
    print_result(result, Console(highlight=False))
    print(f"{out / names[0]}, with {', '.join(names[1:])} beside it")
    problem = None if label is None else label.problem
    if problem is None and not as_estimate(flow_of_pair).covered.any():
        problem = "all are ground, out of the student's range, or not finite"
    if problem is not None:
        _say(f"no point has a flow: {problem}")
        raise typer.Exit(1)


def _name(method: Method, rule: GroundRule) -> str:
    """Of two ground rules that the method's name may have, for many logs, the one that this pair has."""
    from zeroflow_core.evaluation.methods import EITHER_GROUND
    from zeroflow_core.ground import Patchwork

    return method.name.replace(EITHER_GROUND, "patchwork" if isinstance(rule, Patchwork) else "map")


def _truth(found: PairSource) -> PairTruth | None:
    from zeroflow_core.evaluation.truth import has_labels, read_truth

    if found.log is None or not has_labels(found.log):
        return None
    try:
        return read_truth(found.log, found.index)
    except ZeroFlowError as why:  # its flow can be told all the same
        _say(f"errors are not told: {why}")
        return None


@contextmanager
def _spinner(doing: str) -> Iterator[Callable[[int, float], None]]:
    """On a terminal, the seconds go by while it lasts, and the iterations and losses that what it gives is told."""
    console = Console(stderr=True)
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task, last = progress.add_task(doing, total=None), -math.inf

        def show(iteration: int, loss: float) -> None:
            nonlocal last
            if time.monotonic() - last >= _SHOWN_EVERY_S:
                last = time.monotonic()
                progress.update(task, description=f"iteration {iteration:,}, loss {loss:.4f}")

        yield show


def _say(sentence: str) -> None:
    Console(stderr=True).print(Text(sentence, "red"), soft_wrap=True)
