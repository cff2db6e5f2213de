"""Many simulated logs at once, in the folders of AV2's sensor dataset; what is there already is kept."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from zeroflow_core.datasets.av2 import Log
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.files import remove_leftovers
from zeroflow_core.simulation.log import Drive, write_drive
from zeroflow_core.simulation.scanners import Scanner, randomised, scanner_named
from zeroflow_core.simulation.scenes import MAX_DENSITY, SCENES
from zeroflow_core.workers import cores, run_in_workers

SPLITS = ("train", "val", "test")
MIXED = "mixed"  # one scene after the other
PATIENCE_S = 15.0  # which workers need to notice that the run they belonged to was killed


@dataclass(frozen=True)
class Written:
    """What simulate_logs did: the folders of all logs, in order, and of those among them that are new."""

    logs: list[Path]
    new: list[Path]


def simulate_logs(
    root: Path,
    split: str,
    logs: int,
    sweeps: int,
    seed: int,
    scanner: str | Scanner = "av2",
    scene: str = "street",
    density: float = 1.0,
    randomise: bool = False,
    device: str = "cpu",
    jobs: int | None = None,
    on_sweep: Callable[[int, bool], None] = lambda points, kept: None,
) -> Written:
    """Write `logs` logs of `sweeps` sweeps each to ``root/sensor/<split>/<log>``; see write_drive for what is in one.

    A log is named after its arguments. One that is there already is kept, so that the same call again goes on where
    an earlier one was interrupted. Logs are independent of each other and of their number.

    scanner:   one of SCANNERS, or any other
    scene:     one of SCENES, or mixed: a street, a junction, a highway, a street, …
    randomise: draw another relative of the scanner and another density, from half to one and a half, for each log
    device:    cpu, cuda or cuda:n
    jobs:      processes; None is one per core on the CPU and one on a GPU
    on_sweep:  called for each sweep with the number of its points, and whether it was there already (then with 0)

    Raises:
        ZeroFlowError: bad arguments, a place that cannot be written, or a process that was killed. Complete logs
            stay, others vanish.
    """
    if split not in SPLITS:
        raise ZeroFlowError(f"split '{split}' is unknown; choose one of: {', '.join(SPLITS)}")
    if logs < 1:
        raise ZeroFlowError(f"{logs} logs cannot be simulated; ask for at least 1")
    if jobs is not None and jobs < 1:
        raise ZeroFlowError(f"{jobs} jobs cannot simulate anything; ask for at least 1")
    if scene not in (*SCENES, MIXED):
        raise ZeroFlowError(f"scene '{scene}' is unknown; choose one of: {', '.join(SCENES)}, {MIXED}")
    scanner = scanner_named(scanner) if isinstance(scanner, str) else scanner
    usual = Drive(seed, sweeps, scanner, SCENES[0] if scene == MIXED else scene, density)
    drives = [_variant(usual, split, index, scene == MIXED, randomise) for index in range(logs)]
    folder = Path(root) / "sensor" / split
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ZeroFlowError(f"cannot make the folder {folder}: {error.strerror}") from error
    paths = [folder / drive.id for drive in drives]
    missing = [(path, drive) for path, drive in zip(paths, drives, strict=True) if not _is_there(path, sweeps)]
    for _ in range((logs - len(missing)) * sweeps):
        on_sweep(0, True)
    jobs = jobs or (cores() if device == "cpu" else 1)
    if min(jobs, len(missing)) > 1:
        tasks = [(path, drive, device) for path, drive in missing]
        try:
            run_in_workers(write_afresh, tasks, min(jobs, len(missing)), lambda points: on_sweep(points, False))
        finally:
            for path in paths:  # of a worker that was killed
                with suppress(ZeroFlowError):
                    remove_leftovers(path)
    else:
        for path, drive in missing:
            write_afresh(path, drive, device, lambda points: on_sweep(points, False))
    return Written(paths, [path for path, _ in missing])


def write_afresh(path: Path, drive: Drive, device: str, on_sweep: Callable[[int], None]) -> None:
    """write_drive, after removing what is left of an earlier attempt that was killed."""
    remove_leftovers(path, PATIENCE_S)
    write_drive(path, drive, device, on_sweep)


def _variant(usual: Drive, split: str, index: int, mixed: bool, randomise: bool) -> Drive:
    """Log number `index` of those of a split that are like `usual`; no split has a log of another one."""
    seeds, draws = np.random.SeedSequence([usual.seed, SPLITS.index(split), index]).spawn(2)
    drive = replace(usual, seed=int(seeds.generate_state(1)[0]))
    if mixed:
        drive = replace(drive, scene=SCENES[index % len(SCENES)])
    if randomise:
        rng = np.random.default_rng(draws)
        density = min(drive.density * float(rng.uniform(0.5, 1.5)), MAX_DENSITY)
        drive = replace(drive, scanner=randomised(drive.scanner, rng), density=density)
    return drive


def _is_there(path: Path, sweeps: int) -> bool:
    """Whether the log is complete.

    Raises:
        ZeroFlowError: something else is in its place.
    """
    if not (path.exists() or path.is_symlink()):
        return False
    try:
        complete = len(Log(path)) == sweeps
    except ZeroFlowError:
        complete = False
    if not complete:
        raise ZeroFlowError(f"{path} is in the way: it is not the log of {sweeps} sweeps by that name; remove it")
    return True
