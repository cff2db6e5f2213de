"""``zeroflow compare``: the figures of several runs of ``zeroflow evaluate`` side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from zeroflow_core.cli.options import check_file
from zeroflow_core.errors import ZeroFlowError


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders that zeroflow evaluate wrote, two or more.")],
    out: Annotated[Path | None, typer.Option(help="Also write it as a page, to this .html file.")] = None,
) -> None:
    """Put two or more runs side by side.

    Shows every definition's figures, marks the best of each, and warns where
    the runs scored other logs, pairs or points and so can't be compared.

    Example: zeroflow compare results/zero results/student --out compare.html
    """
    from rich.console import Console

    from zeroflow_core.evaluation.results import read_metrics
    from zeroflow_core.evaluation.tables import print_comparison

    if len(runs) < 2:
        raise ZeroFlowError(f"{runs[0]} is one run; give two or more to compare")
    metrics, names = [read_metrics(folder) for folder in runs], names_of(runs)
    if out is not None:
        from zeroflow_core.evaluation.report import write_comparison

        check_file(out, "compare.html")
        write_comparison(out, list(zip(names, metrics, strict=True)))
    print_comparison(metrics, names, Console(highlight=False))
    if out is not None:
        print(f"{out}: the same as a page")


def names_of(folders: Sequence[Path]) -> list[str]:
    """As much of the end of each path as tells the folders apart.

    Raises:
        ZeroFlowError: a folder is given twice.
    """
    whole = [folder.resolve().parts[1:] for folder in folders]
    if len(set(whole)) < len(whole):
        twice = next(folder for folder, parts in zip(folders, whole, strict=True) if whole.count(parts) > 1)
        raise ZeroFlowError(f"{twice} is given twice; give each run once")
    candidates = (["/".join(parts[-length:]) for parts in whole] for length in range(1, max(map(len, whole)) + 1))
    return next(names for names in candidates if len(set(names)) == len(names))
