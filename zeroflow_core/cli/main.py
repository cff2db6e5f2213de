"""The console command `zeroflow`: one sub-command a file, registered here."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

import zeroflow_core
from zeroflow_core.cli.compare import compare
from zeroflow_core.cli.convert import convert
from zeroflow_core.cli.distill import app as distill
from zeroflow_core.cli.doctor import doctor
from zeroflow_core.cli.download import download
from zeroflow_core.cli.evaluate import evaluate
from zeroflow_core.cli.export import export
from zeroflow_core.cli.flow import flow
from zeroflow_core.cli.infer import infer
from zeroflow_core.cli.render import render
from zeroflow_core.cli.simulate import simulate
from zeroflow_core.cli.view import view
from zeroflow_core.errors import ZeroFlowError

app = typer.Typer(
    name="zeroflow",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="Example: [bold]zeroflow infer --checkpoint default --pc0 a.npy --pc1 b.npy --out flow.npz[/bold]",
)
app.command()(infer)
app.command()(flow)
app.command()(convert)
app.command()(simulate)
app.command()(evaluate)
app.command()(compare)
app.command()(render)
app.command()(view)
app.command()(export)
app.command()(download)
app.command()(doctor)
app.add_typer(distill)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"zeroflow {zeroflow_core.__version__}")
        raise typer.Exit


_Version = Annotated[
    bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
]


@app.callback()
def zeroflow(version: _Version = False) -> None:
    """Scene flow of LiDAR point clouds, learned without labels: how every point moves."""


def main() -> int:
    """Run the command line.

    Returns:
        1 after a user's mistake, or when memory ran out, told in one sentence on stderr. Success and misused options
        leave by SystemExit; any other exception is a bug and keeps its traceback.
    """
    try:
        app(prog_name="zeroflow")
    except ZeroFlowError as error:
        _complain(str(error))
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        from zeroflow_core.devices import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        _complain(f"memory ran out ({why}); end what else uses it, or try --device cpu where that is a GPU's")
    return 1


def _complain(sentence: str) -> None:
    Console(stderr=True).print(Text(sentence, style="red"), soft_wrap=True)
