"""``zeroflow evaluate``: how good a method's flow is on labelled logs, by all three definitions of the field."""

from __future__ import annotations

from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer

from zeroflow_core.cli.options import Checkpoint, Device, Engine, Precision, Seed, TeacherConfiguration, Verify
from zeroflow_core.cli.progress import progress_bar
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.wording import several

if TYPE_CHECKING:
    import rich.progress

    from zeroflow_core.evaluation.methods import Settings
    from zeroflow_core.evaluation.run import Progress

_TOLD = 5  # failed pairs on screen; metrics.json has all


def evaluate(
    data: Annotated[Path, typer.Option(help="Folder that holds the logs in sensor/<split>, as AV2's does.")],
    out: Annotated[Path, typer.Option(help="Folder for the results; an interrupted run in it goes on.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "val",
    method: Annotated[
        str,
        typer.Option(
            help="student, nsfp or fastnsf (teachers), zero (nothing moves) or labels (what the logs or --labels say)."
        ),
    ] = "student",
    checkpoint: Checkpoint = "default",
    teacher_config: TeacherConfiguration = "fast",
    seed: Seed = 0,
    labels: Annotated[
        Path | None, typer.Option(help="For --method labels: folder of stored flows, such as published pseudo-labels.")
    ] = None,
    ground: Annotated[
        str,
        typer.Option(
            help="What student and teachers leave out as ground: map, patchwork, none or auto (the student as it was "
            "trained, a teacher by the map where there is one)."
        ),
    ] = "auto",
    device: Device = "auto",
    engine: Engine = "fast",
    precision: Precision = "auto",
    streaming: Annotated[
        str,
        typer.Option(
            help="For the student: none, or anchored (the grid stands still in the world for some metres, so that the "
            "fast engine on a CPU encodes each sweep once; elsewhere it spares nothing)."
        ),
    ] = "none",
    verify: Verify = "auto",
    log: Annotated[list[str] | None, typer.Option(help="Only this log; give it again for more.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes; each takes whole logs.")] = 1,
    pictures: Annotated[int, typer.Option(min=0, help="Worst pairs to show in the report.")] = 4,
    submission: Annotated[
        int | None, typer.Option(help="2023 or 2024: also write the archive for that challenge's server.")
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            help="For --submission 2023: the challenge's archive of masks. Its server needs the official ones; "
            "without this option they are made by the rule and can differ by single points."
        ),
    ] = None,
    supervised: Annotated[
        bool, typer.Option("--supervised", help="For --submission 2024: say in it that the method learned from labels.")
    ] = False,
) -> None:
    """Score a method on labelled logs by the three definitions of three-way EPE, and write a report.

    A point that the method gives no flow for counts as one that it says
    stands still.

    OUT gets report.html, metrics.json and pairs.csv. The same command again
    goes on with an interrupted run. Exits with 1 when a pair failed; the
    others are scored all the same.

    Example: zeroflow evaluate --data synthetic --method student --out results/student
    """
    from rich.console import Console

    from zeroflow_core.evaluation import run
    from zeroflow_core.evaluation.methods import Settings
    from zeroflow_core.evaluation.tables import print_run

    settings = Settings(
        data,
        split,
        method,
        checkpoint=checkpoint,
        labels=labels,
        ground=ground,
        device=device,
        engine=engine,
        precision=precision,
        streaming=streaming,
        verify=verify,
        teacher_config=teacher_config,
        seed=seed,
        logs=tuple(log or ()),
    )
    _check_companions(settings, submission, masks, supervised)
    with progress_bar() as progress:
        bar = _Bar(progress, f"Evaluating {method}")
        outcome = run.evaluate(
            settings,
            out,
            jobs=jobs,
            pictures=pictures,
            submission=submission,
            masks=masks,
            supervised=supervised,
            on_progress=bar.show,
        )
    if outcome.metrics is not None:
        print_run(outcome.metrics, Console(highlight=False))
        there = f" ({bar.kept:,} pairs were there already)" if bar.kept else ""
        print(f"{out / 'report.html'}, with metrics.json and pairs.csv beside it{there}")
    if outcome.archive is not None:
        print(f"{outcome.archive}: for the server of the {submission} challenge")
    if outcome.failed:
        _complain(outcome.failed, no_archive=submission is not None and outcome.archive is None)
        raise typer.Exit(1)


class _Bar:
    """The run's progress on a bar.

    kept: pairs that an earlier run had done
    """

    def __init__(self, progress: rich.progress.Progress, description: str) -> None:
        self._progress = progress
        self._task = progress.add_task(description, total=None, note="")
        self._start: float | None = None
        self.kept = 0

    def show(self, now: Progress) -> None:
        if self._start is None:
            self._start, self.kept = monotonic(), now.done
            self._progress.reset(self._task, total=now.total, completed=now.done)  # not counted as fast work
        self._progress.update(self._task, completed=now.done, note=self._note(now))

    def _note(self, now: Progress) -> str:
        if now.done == now.total:
            return "writing the report"
        if now.done == self.kept:
            return ""
        rate = (now.done - self.kept) / max(monotonic() - self._start, 1e-3)
        note = [f"{rate:.1f} pairs/s" if rate >= 0.1 else f"{1 / rate:.0f} s a pair"]
        if now.three_way_epe is not None:
            note.append(f"three-way {now.three_way_epe:.4f} m")
        if now.failed:
            note.append(f"{now.failed} failed")
        return ", ".join(note)


def _check_companions(settings: Settings, submission: int | None, masks: Path | None, supervised: bool) -> None:
    """An option that would do nothing is a mistake: the figures would be of something else than was meant. Those of
    student and teachers may stand beside any method, so that one command line serves them all."""
    method, labels = settings.method, settings.labels
    if labels is not None and method != "labels":
        raise ZeroFlowError(f"--labels {labels} is for --method labels; --method {method} does not read it")
    if masks is not None and submission != 2023:
        raise ZeroFlowError(f"--masks {masks} is for --submission 2023; add that, or leave it out")
    if supervised and submission != 2024:
        raise ZeroFlowError("--supervised is said in a submission of 2024 only; add --submission 2024, or leave it out")


def _complain(failed: list[dict], *, no_archive: bool) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    lines = [f"{several(len(failed), 'pair')} failed:"]
    lines += [f"  {pair['log']}, pair {pair['index']}: {pair['error']}" for pair in failed[:_TOLD]]
    if len(failed) > _TOLD:
        lines.append(f"  … and {len(failed) - _TOLD:,} more, see 'failed' in metrics.json")
    if no_archive:
        lines.append("no archive: some of its pairs failed; run the same command again")
    console.print(Text("\n".join(lines), "red"), soft_wrap=True)
