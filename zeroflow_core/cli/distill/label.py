"""``zeroflow distill label``: a teacher labels raw sweeps, for a student to learn from."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer

from zeroflow_core.cli.distill.options import (
    BagPath,
    Data,
    Deskew,
    EgoMotion,
    Ground,
    Height,
    LogNames,
    Odometry,
    PairsPerLog,
    TeacherMethod,
    Topic,
)
from zeroflow_core.cli.distill.progress import Stages
from zeroflow_core.cli.options import Device, Seed, TeacherConfiguration
from zeroflow_core.cli.progress import progress_bar
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.wording import metres, several

if TYPE_CHECKING:
    import rich.progress

    from zeroflow_core.distillation.labelling.label import Labelled, LabelProgress

_TOLD = 5  # failed pairs on screen; the manifest has all


def _shard(argument: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", argument)
    if match is None:
        raise ZeroFlowError(f"--shard {argument} is no shard; give i/n, from 0/n on, such as 0/4 for the first of four")
    return int(match[1]), int(match[2])


def label(
    out: Annotated[Path, typer.Option(help="Folder for the labels; an interrupted run in it goes on.")],
    data: Data = None,
    split: Annotated[str, typer.Option(help="Of --data; the labels' folder is called after it.")] = "train",
    log: LogNames = None,
    logs: Annotated[
        Path | None, typer.Option(help="Of --data: only the logs that this file names, one a line.")
    ] = None,
    bag: BagPath = None,
    topic: Topic = None,
    odometry: Odometry = None,
    ego_motion: EgoMotion = "auto",
    height: Height = None,
    deskew: Deskew = "auto",
    method: TeacherMethod = "nsfp",
    teacher_config: TeacherConfiguration = "fast",
    ground: Ground = "auto",
    pairs_per_log: PairsPerLog = None,
    shard: Annotated[
        str,
        typer.Option(
            metavar="I/N",
            help="Do only part I of N, from 0 on; N such commands, wherever they run, share OUT. Of a bag: import it "
            "first (zeroflow convert), and give the logs as --data.",
        ),
    ] = "0/1",
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Spread the work over a Ray cluster: its address, auto (the one this machine belongs to) or local. "
            "All its machines must see the logs and OUT by the same names.",
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes; else one per GPU, or one per core.", show_default=False)
    ] = None,
    device: Device = "auto",
    seed: Seed = 0,
) -> None:
    """Label every pair of sweeps with a teacher's flow, forward and backward in time.

    OUT gets the labels in the layout of the published ones, and
    manifest.json, which says what they are and, where the logs have labels of
    their own, how good. The same command again goes on with an interrupted
    run, and tries failed pairs once more. Exits with 1 when a pair failed.

    Example: zeroflow distill label --data av2 --split train --pairs-per-log 12 --out labels
    """
    from zeroflow_core.distillation.labelling.label import LabelSettings
    from zeroflow_core.distillation.labelling.label import label as label_pairs
    from zeroflow_core.distillation.sources import LogSource, find_sources

    source = LogSource(
        data,
        split,
        (*(log or ()), *_names_in(logs)),
        bag,
        topic=topic,
        odometry=odometry,
        ego_motion=ego_motion,
        height=height,
        deskew=deskew,
    )
    settings = LabelSettings(
        (),
        split,
        out,
        method=method,
        teacher_config=teacher_config,
        device=device,
        ground=ground,
        seed=seed,
        per_log=pairs_per_log,
        shard=_shard(shard),
        jobs=jobs,
        ray=ray,
    )
    with progress_bar() as progress:
        stages = Stages(progress)
        found = find_sources(source, out / "data", lambda now: stages.show("import", now))
    settings = replace(settings, logs=tuple(found))
    with progress_bar() as progress:
        bar = _Bar(progress, method)
        labelled = label_pairs(settings, bar.show)
    _tell(labelled, bar, out)
    if labelled.failed:
        _complain(labelled, out)
        raise typer.Exit(1)


def _names_in(file: Path | None) -> list[str]:
    """Names of logs, one a line."""
    if file is None:
        return []
    try:
        names = [line.strip() for line in file.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ZeroFlowError(f"--logs {file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not names:
        raise ZeroFlowError(f"--logs {file} names no log; give names of folders, one a line")
    return names


class _Bar:
    """
    last: what was told last
    """

    def __init__(self, progress: rich.progress.Progress, method: str) -> None:
        self._progress, self._start = progress, monotonic()
        self._task = progress.add_task(f"Labelling with {method}", total=None, note="")
        self.last: LabelProgress | None = None

    def show(self, now: LabelProgress) -> None:
        if self.last is None:
            self._progress.reset(self._task, total=now.total, completed=now.done)  # not counted as fast work
        self.last = now
        self._progress.update(self._task, completed=now.done, note=note_of(now) if now.done > now.kept else "")

    @property
    def seconds(self) -> float:
        return monotonic() - self._start


def note_of(now: LabelProgress) -> str:
    """What there is to say beside the bar."""
    rate = f"{now.pairs_per_s:.2f} pairs/s" if now.pairs_per_s >= 0.1 else f"{1 / now.pairs_per_s:.0f} s a pair"
    failed = [f"{now.failed} failed"] if now.failed else []
    return ", ".join([rate, _hours(now.device_hours, now.device), *failed])


def _hours(hours: float, device: str) -> str:
    return f"{hours:.2f} {'GPU' if device == 'cuda' else 'core'}-hours"


def _tell(labelled: Labelled, bar: _Bar, out: Path) -> None:
    manifest, now = labelled.manifest, bar.last
    counts = manifest["counts"]
    here = "" if now is None or now.total == counts["pairs"] else f" ({now.done:,} of {now.total:,} of this shard)"
    print(f"{counts['labelled']:,} of {several(counts['pairs'], 'pair')} labelled{here} by {manifest['teacher']}")
    if now is not None and now.done > now.kept:
        kept = f"; {now.kept:,} were there already" if now.kept else ""
        print(f"{several(now.done - now.kept, 'pair')} in {bar.seconds:.0f} s, {note_of(now)}{kept}")
    if counts["without_estimate"]:
        print(f"{several(counts['without_estimate'], 'pair')} gave nothing to go by: without_estimate in the manifest")
    for direction, errors in manifest["errors"].items():
        parts = ", ".join(f"{name.upper()} {metres(errors[name])}" for name in ("fd", "fs", "bs"))
        print(f"errors {direction}: three-way {metres(errors['three_way_epe'])} m ({parts}), by ZeroFlow's definition")
    print(f"{out / 'manifest.json'}, with {' and '.join(_folders(labelled))} beside it")


def _folders(labelled: Labelled) -> list[str]:
    return [folder.name for folder in (labelled.labels.forward, labelled.labels.reverse) if folder is not None]


def _complain(labelled: Labelled, out: Path) -> None:
    from rich.console import Console
    from rich.text import Text

    failed = labelled.failed
    lines = [f"{several(len(failed), 'pair')} failed:"]
    lines += [f"  {pair['log']}, pair {pair['index']}: {pair['error']}" for pair in failed[:_TOLD]]
    if len(failed) > _TOLD:
        lines.append(f"  … and {len(failed) - _TOLD:,} more, see 'failed' in {out / 'manifest.json'}")
    lines.append("the same command tries them again")
    Console(stderr=True, highlight=False).print(Text("\n".join(lines), "red"), soft_wrap=True)
