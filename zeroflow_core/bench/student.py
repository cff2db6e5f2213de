"""`student`: how fast the student is, its fast engine beside the reference, on one machine."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from zeroflow_core.bench.machine import described
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.files import new_file

if TYPE_CHECKING:
    from zeroflow_core.bench.student_growth import Growth
    from zeroflow_core.bench.student_run import Row
    from zeroflow_core.fastflow3d.model import FastFlow3D

_BOTH = "both"
_SECONDS, _SWEEP_SECONDS = 28.0, 8.0  # for the turns of a pair of clouds
_WIDTH = 132  # characters of the tables: rather that than numbers cut off


@dataclass
class Results:
    """All that is known so far, and the file that has it after every pair of clouds."""

    about: dict[str, Any]
    file: Path | None
    rows: list[Row] = field(default_factory=list)
    growth: Growth | None = None

    def write(self) -> None:
        """A list, the headline first. Raises ZeroFlowError when the file can't be written."""
        if self.file is None:
            return
        content = [{"bench": "student", **self.about, **asdict(row)} for row in self.rows]
        if self.growth is not None:
            content.append({"bench": "student", **self.about, "kind": "growth", **asdict(self.growth)})
        with new_file(self.file, "w") as file:
            file.write(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def student(
    data: Annotated[
        Path | None,
        typer.Option(
            envvar="ZEROFLOW_TEST_DATA",
            help="Folder with logs in AV2's layout: the first pair of the first one; without it a pair is made up.",
        ),
    ] = None,
    points: Annotated[
        int | None, typer.Option(min=5, help="Make up a pair of so many points in place of --data's.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="1x or xl, with seeded weights; 1x where nothing is said.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Weights to use in place of seeded ones.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:n.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="Of the fast engine: auto, fp32, bf16, or both (what auto is, then fp32).")
    ] = _BOTH,
    repeats: Annotated[
        int | None, typer.Option(min=1, help="Turns for each pair of clouds; without it as many as 28 s allow.")
    ] = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Then 20 k to 200 k points, and 1 to 100 % of pillars.")
    ] = False,
    frames: Annotated[
        int | None, typer.Option(min=20, help="Then answer so many different pairs, and see whether memory grows.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="File for every row, the headline first; written as they come.")
    ] = None,
) -> None:
    """Measure the student: its fast engine against the reference, in turns.

    A turn is one pair by the reference, three by the fast engine, and one more
    of which it knows a cloud from the pair before. On a GPU there are rows for
    points that are on it already and for those that come from the host.

    Without --sweep and --frames it takes a minute and a half on a CPU; with
    --size xl some six.

    Example: python -m zeroflow_core.bench student --sweep --json student.json
    """
    import torch

    from zeroflow_core.bench.student_pairs import MADE_UP_POINTS, sweep_pairs, usual_pairs
    from zeroflow_core.bench.student_run import Pace
    from zeroflow_core.bench.student_tables import heading, print_tables
    from zeroflow_core.devices import choose_device

    device = choose_device(device)
    precisions = _precisions(precision, device)
    model, network = _network(size, checkpoint)
    results = Results({**described(device), "threads": torch.get_num_threads(), **network}, json_file)
    results.write()  # what forbids it shows before the work, not after
    pairs = [(pair, Pace(_SECONDS, repeats)) for pair in usual_pairs(data, points)]
    if sweep:
        pairs += [(pair, Pace(_SWEEP_SECONDS, repeats)) for pair in sweep_pairs(model.config)]
    console = Console(highlight=False)
    console.width = max(console.width, _WIDTH)
    console.print(heading(results.about), soft_wrap=True)
    try:
        _measure(pairs, model, precisions, device, results)
        if frames is not None:
            _watch_memory(frames, points or MADE_UP_POINTS, model, precisions[0], device, results)
    finally:  # after Ctrl-C, too, what there is is told
        print_tables(results.rows, results.growth, console)


def _precisions(precision: str, device: str) -> list[str]:
    """Those to measure, the headline's first."""
    from zeroflow_core.devices import choose_precision

    if precision != _BOTH:
        return [choose_precision(precision, device)]
    return list(dict.fromkeys([choose_precision("auto", device), "fp32"]))


def _network(size: str | None, checkpoint: Path | None) -> tuple[FastFlow3D, dict[str, Any]]:
    """With its weights on the CPU; and what it is, plain data."""
    from zeroflow_core.bench.student_weights import SEED, seeded_model
    from zeroflow_core.fastflow3d.checkpoint import load_model
    from zeroflow_core.fastflow3d.config import ONE_X, XL

    sizes = {"1x": ONE_X, "xl": XL}
    if size is not None and size not in sizes:
        raise ZeroFlowError(f"--size '{size}' is unknown; choose one of: {', '.join(sizes)}")
    if checkpoint is None:
        size = size or "1x"
        return seeded_model(sizes[size]), {"size": size, "weights": f"seed {SEED}"}
    if size is not None:
        raise ZeroFlowError(f"--size {size} is for seeded weights, and --checkpoint has a size of its own; give one")
    model, metadata = load_model(checkpoint)
    names = {config: name for name, config in sizes.items()}
    return model, {"size": names.get(model.config, "of its own size"), "weights": metadata["name"]}


def _measure(pairs: list, model: FastFlow3D, precisions: list[str], device: str, results: Results) -> None:
    """One pair of clouds after the other; `results` grows."""
    from zeroflow_core.bench.student_limits import limits_of
    from zeroflow_core.bench.student_run import load_libraries, measure
    from zeroflow_core.bench.student_tables import told

    progress = Console(stderr=True, highlight=False)
    # Drawing takes time from what is measured, so it happens once a second.
    with progress.status("timing products and copies", refresh_per_second=1) as status:
        load_libraries(precisions, device)
        limits = limits_of(device, precisions)
        for pair, pace in pairs:
            status.update(f"timing {pair.name}")
            rows = measure(pair, model, precisions, device, limits, pace)
            results.rows += rows
            results.write()
            for row in rows:
                progress.print(told(row), soft_wrap=True)


def _watch_memory(frames: int, points: int, model: FastFlow3D, precision: str, device: str, results: Results) -> None:
    from zeroflow_core.bench.student_growth import check_growth
    from zeroflow_core.bench.student_tables import told_reading
    from zeroflow_core.fastflow3d.student import Student

    progress = Console(stderr=True, highlight=False)
    fast = Student(model, {}, device, precision, "fast")
    results.growth = check_growth(
        fast.flow, frames, points, device, lambda reading: progress.print(told_reading(reading), soft_wrap=True)
    )
    results.write()
