"""How far a command is that takes long: a bar on a terminal, gone when it ends, and now and then a line elsewhere."""

from __future__ import annotations

import sys
from time import monotonic
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn

_LINE_EVERY_S = 60.0


def progress_bar() -> Progress:
    """A bar with counts and the time left; each task has a field `note`, a text beside them.

    Where stderr is no terminal but, say, the log of a batch job, it is a line a minute at most. After Ctrl-C it says
    that the same command goes on, and exits with 130: for commands that do so.
    """
    bar = BarColumn(bar_width=None)  # gives way where the terminal is narrow
    columns = TextColumn("{task.description}"), bar, MofNCompleteColumn(), TextColumn("{task.fields[note]}")
    console = Console(stderr=True)
    return _Bar(*columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal)


class _Bar(Progress):
    def __init__(self, *columns: Any, **how: Any) -> None:
        super().__init__(*columns, **how)
        self._last_line = monotonic()

    def update(self, task_id: Any, **changes: Any) -> None:
        super().update(task_id, **changes)
        if self.disable and monotonic() - self._last_line >= _LINE_EVERY_S:
            self._last_line = monotonic()
            print(_line(self._tasks[task_id]), file=sys.stderr, flush=True)

    def __exit__(self, kind: Any, *error: Any) -> None:
        super().__exit__(kind, *error)
        if kind is KeyboardInterrupt:
            print("Stopped; the same command goes on from here.", file=sys.stderr)
            raise typer.Exit(130)


def _line(task: Task) -> str:
    done = f"{task.description}: {task.completed:,.0f} of {task.total or 0:,.0f}"
    return ", ".join(filter(None, (done, task.fields["note"])))
