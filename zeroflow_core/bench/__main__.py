"""``python -m zeroflow_core.bench``: one sub-command a file, registered here."""

from __future__ import annotations

import sys

import typer
from rich.console import Console
from rich.text import Text

from zeroflow_core.bench.distillation import distillation
from zeroflow_core.bench.labels import labels
from zeroflow_core.bench.loader import loader
from zeroflow_core.bench.node import node
from zeroflow_core.bench.odometry import odometry
from zeroflow_core.bench.realism import realism
from zeroflow_core.bench.render import render
from zeroflow_core.bench.simulation import simulation
from zeroflow_core.bench.student import student
from zeroflow_core.bench.teacher import teacher
from zeroflow_core.bench.training import training
from zeroflow_core.bench.weights import weights
from zeroflow_core.errors import ZeroFlowError

app = typer.Typer(
    name="python -m zeroflow_core.bench",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command()(distillation)
app.command()(labels)
app.command()(loader)
app.command()(node)
app.command()(odometry)
app.command()(realism)
app.command()(render)
app.command()(simulation)
app.command()(student)
app.command()(teacher)
app.command()(training)
app.command()(weights)


@app.callback()
def bench() -> None:
    """Measure what is claimed, on this machine."""


def main() -> int:
    """Run the command line; 1 after a user's mistake, told in one sentence on stderr."""
    try:
        app(prog_name="python -m zeroflow_core.bench")
    except ZeroFlowError as error:
        Console(stderr=True).print(Text(str(error), style="red"), soft_wrap=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
