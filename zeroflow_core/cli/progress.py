"""The bar of a command that takes long: on a terminal only, gone when it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


def progress_bar() -> Progress:
    """A bar with counts and the time left; each task has a field `note`, a text beside them."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = BarColumn(bar_width=None)  # gives way where the terminal is narrow
    columns = TextColumn("{task.description}"), bar, MofNCompleteColumn(), TextColumn("{task.fields[note]}")
    console = Console(stderr=True)
    return Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal)
