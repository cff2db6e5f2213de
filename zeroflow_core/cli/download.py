"""`zeroflow download`: published checkpoints, by name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.fastflow3d.downloading import download as fetch
from zeroflow_core.fastflow3d.published import COMMIT, PUBLISHED, REPOSITORY, Published, cache_folder, published_named

_TERMS = f"""\
All are FastFlow3D 1x, in files of about 82 MB: 27 MB of weights, and what their training would go on with. None of XL \
is published.
From {REPOSITORY} at {COMMIT[:7]}, which states no licence for them.
The data they learned from are for non-commercial use: Argoverse 2 by CC BY-NC-SA 4.0, Waymo Open by its own terms."""


def download(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Such as zeroflow-1x; --list shows all.")
    ] = None,
    show: Annotated[bool, typer.Option("--list", help="Show what there is, and what is here already.")] = False,
    to: Annotated[
        Path | None,
        typer.Option(
            help="Folder to put them in; else $ZEROFLOW_CACHE, $XDG_CACHE_HOME/zeroflow or ~/.cache/zeroflow, "
            "where they are found by name.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Download again what is there.")] = False,
) -> None:
    """Download checkpoints that ZeroFlow's authors publish, to be used by name.

    Each is compared with what the authors' repository says of it, to the last
    bit, now and whenever it is loaded by name. The same command again goes on
    with an interrupted download.

    Example: zeroflow download zeroflow-1x && zeroflow export zeroflow-1x --format torch --out student.pt
    """
    wanted = [published_named(name) for name in names or []]
    folder = cache_folder() if to is None else to.expanduser()
    if show:
        _show(wanted or list(PUBLISHED.values()), folder)
        return
    if not wanted:
        raise ZeroFlowError("nothing is named to download; zeroflow download --list shows what there is")
    for published in wanted:
        path, new = _download(published, folder, force)
        _check_loads(path)
        said = "downloaded" if new else "there already"
        use = published.name if to is None else path
        print(f"{path}: {said} and checked, {path.stat().st_size / 1e6:.1f} MB; use it with --checkpoint {use}")


def _show(wanted: list[Published], folder: Path) -> None:
    console = Console()
    table = Table(box=None, padding=(0, 1))
    for title in ("name", "data", "learned from", "here"):
        table.add_column(title, no_wrap=title == "name")
    for published in wanted:
        here = "yes" if (folder / published.file_name).is_file() else ""
        table.add_row(published.name, published.dataset, published.about, here)
    console.print(table)
    console.print(f"\n{_TERMS}", highlight=False)
    console.print(f"Here means in {folder}.", highlight=False, soft_wrap=True)


def _download(published: Published, folder: Path, force: bool) -> tuple[Path, bool]:
    console = Console(stderr=True)
    columns = (BarColumn(bar_width=None), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    name = TextColumn("{task.description}")
    try:
        with Progress(name, *columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            bar = progress.add_task(published.name, total=None)
            return fetch(
                published, folder, force, lambda done, total: progress.update(bar, completed=done, total=total)
            )
    except KeyboardInterrupt:
        print("Stopped; the same command goes on from here.", file=sys.stderr)
        raise typer.Exit(130) from None


def _check_loads(path: Path) -> None:
    from zeroflow_core.fastflow3d.checkpoint import load_model

    load_model(path)
