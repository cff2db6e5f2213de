"""What a training tells while it goes on: rows of CSV files, and TensorBoard's curves where that is installed."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.files import new_file

CURVES, VALIDATION, TENSORBOARD = "curves.csv", "validation.csv", "tensorboard"
CURVE = ("step", "epoch", "loss", "learning_rate", "wait_share", "seconds")  # columns of CURVES


def open_board(folder: Path, step: int) -> Any:
    """A writer that forgets what an interrupted run wrote after `step`, or None where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    try:
        return SummaryWriter(str(folder), purge_step=step + 1 if step else None)
    except OSError as error:
        raise ZeroFlowError(f"cannot write {folder}: {error.strerror or error}") from error


def append_row(path: Path, columns: tuple[str, ...], row: dict[str, Any]) -> None:
    """Add a row to a CSV file, which gets a head of these columns when it is new."""
    new = not path.exists()
    try:
        with open(path, "a", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(row)
    except OSError as error:
        raise ZeroFlowError(f"cannot write {path}: {error.strerror or error}") from error


def cut_rows(path: Path, column: str, last: int) -> None:
    """Forget the rows whose `column` is beyond `last`, and one that a kill cut short.

    Raises:
        ZeroFlowError: the file is not of a training, or the file system refuses.
    """
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    head = lines[0].split(",") if lines else [column]
    if sorted(head[:2]) != sorted(CURVE[:2]) and lines:
        raise ZeroFlowError(f"{path} is in the way: no training has written it; move it, or choose another --out")
    place = head.index(column)
    rows = [line.split(",") for line in lines[1:]]
    kept = [row for row in rows if len(row) == len(head) and row[place].isdigit() and int(row[place]) <= last]
    if not kept:
        path.unlink()
        return
    with new_file(path, "w") as file:
        file.write("\n".join(",".join(row) for row in [head, *kept]) + "\n")
