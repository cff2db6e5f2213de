"""`weights`: how good weights are, on recorded sweeps and on simulated worlds that no training has seen."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from zeroflow_core.bench.machine import described
from zeroflow_core.files import new_file

if TYPE_CHECKING:
    from zeroflow_core.bench.weights_methods import Contender
    from zeroflow_core.bench.weights_sets import WeightSet

_WIDTH = 150  # characters of the tables: rather that than numbers cut off


@dataclass
class Results:
    """All that is known so far, plain data, and the file that has it after every set."""

    about: dict[str, Any]
    file: Path | None
    sets: list[dict[str, Any]] = field(default_factory=list)

    def content(self) -> dict[str, Any]:
        return {"bench": "weights", **self.about, "sets": self.sets}

    def write(self) -> None:
        """Raises ZeroFlowError when the file can't be written."""
        if self.file is not None:
            _write(self.file, json.dumps(self.content(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def weights(
    checkpoint: Annotated[
        list[str], typer.Option(help="Weights to judge, as NAME=FILE or what --checkpoint takes elsewhere; repeatable.")
    ] = ("default",),
    data: Annotated[
        Path | None,
        typer.Option(
            envvar="ZEROFLOW_TEST_DATA",
            help="Folder with a folder for each source of recorded logs; without it only what is simulated.",
        ),
    ] = None,
    asked: Annotated[
        list[str],
        typer.Option("--set", help="Only this set, or those whose names begin so: av2, worlds, static-vlp32."),
    ] = (),
    teacher: Annotated[
        str | None,
        typer.Option(help="The teacher as well, NSFP in this configuration: fast (as in default.json) or published."),
    ] = None,
    unverified: Annotated[
        bool, typer.Option("--unverified", help="Verified students also with the motion that nothing bears out.")
    ] = False,
    logs: Annotated[int, typer.Option(min=1, help="Simulated worlds with traffic for each scanner.")] = 6,
    static_logs: Annotated[int, typer.Option(min=1, help="Simulated worlds where only the ego moves, likewise.")] = 6,
    cache: Annotated[
        Path, typer.Option(help="Folder that keeps simulated logs and the teacher's answers for the next time.")
    ] = Path("out/weights"),
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes that simulate and label; else one a core.")] = None,
    device: Annotated[str, typer.Option(help="Of students and teacher: auto, cpu, cuda or cuda:n.")] = "auto",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="File for every figure, written after every set.")
    ] = None,
    markdown_file: Annotated[Path | None, typer.Option("--markdown", help="File for the tables as Markdown.")] = None,
    picture: Annotated[Path | None, typer.Option(help="File for a picture of the errors (.png).")] = None,
) -> None:
    """Judge weights: the shipped ones, or several side by side.

    Sets are the labelled logs of --data, each its own; simulated worlds with
    traffic, seen by four scanners; and worlds where nothing but the ego moves.
    All are scored on the same points, forward and backward in time, beside
    zero flow.

    Worlds are simulated once, in a minute; then a student takes about one, and
    the teacher half a minute a pair.

    Example: python -m zeroflow_core.bench weights --checkpoint mine=out/student.safetensors --checkpoint default
    """
    import torch

    from zeroflow_core.bench.weights_methods import TEACHER, contenders
    from zeroflow_core.bench.weights_methods import teacher as ask_teacher
    from zeroflow_core.bench.weights_sets import (
        Worlds,
        check_asked,
        chooser,
        real_sets,
        simulated_sets,
        simulated_sweeps,
    )
    from zeroflow_core.bench.weights_tables import markdown, print_tables
    from zeroflow_core.devices import choose_device
    from zeroflow_core.nsfp.config import teacher_config

    device, worlds, wanted = choose_device(device), Worlds(logs, static_logs), chooser(asked)
    recorded, left_out = real_sets(data)
    check_asked(asked, recorded, worlds)
    if teacher is not None:
        teacher_config("nsfp", teacher)
    contenders(checkpoint, (), device, unverified)  # what is wrong with them shows before the work, not after
    about = described(device)
    del about["commit"]
    results = Results({**about, "threads": torch.get_num_threads(), "left_out": left_out}, json_file)
    results.write()  # likewise
    with _progress() as progress:
        bar = progress.add_task("simulated sweeps", total=simulated_sweeps(worlds, wanted))
        sets = [one for one in recorded if wanted(one.name)]
        sets += simulated_sets(cache / "logs", worlds, wanted, jobs, lambda: progress.advance(bar))
        methods = contenders(checkpoint, sets, device, unverified)
        pairs = sum(len(one.pairs) for one in sets)
        if teacher is not None:
            bar = progress.add_task("labelled pairs", total=pairs)
            methods[TEACHER] = ask_teacher(
                sets, teacher, cache / "teacher", jobs, device, lambda done: progress.update(bar, completed=done)
            )
        results.about["methods"] = {name: one.said for name, one in methods.items()}
        _score(sets, methods, results, progress, progress.add_task("scored pairs", total=pairs))
    console = Console(highlight=False)
    console.width = max(console.width, _WIDTH)
    print_tables(results.content(), console)
    if markdown_file is not None:
        _write(markdown_file, markdown(results.content()))
    if picture is not None:
        from zeroflow_core.bench.weights_picture import draw_weights

        image = draw_weights(results.content())
        with new_file(picture, "wb") as file:
            image.save(file, format="PNG")


def _score(
    sets: list[WeightSet], methods: dict[str, Contender], results: Results, progress: Progress, bar: Any
) -> None:
    """One set after the other; `results` grows."""
    from zeroflow_core.bench.weights_run import ego_metres, score_set

    for one in sets:
        scores = score_set(one, methods, lambda: progress.advance(bar))
        results.sets.append(
            {
                "name": one.name,
                "kind": one.kind,
                "logs": [log.name for log in one.logs],
                "pairs": len(one.pairs),
                "ego_metres": ego_metres(one),
                "scores": scores,
            }
        )
        results.write()


def _progress() -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


def _write(path: Path, text: str) -> None:
    with new_file(path, "w") as file:
        file.write(text)
