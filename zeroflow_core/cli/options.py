"""Options that several commands have, and what must be true of an --out before long work begins."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zeroflow_core.errors import ZeroFlowError

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:n.")]
Engine = Annotated[str, typer.Option(help="reference: plain modules, the ones that train.")]
Precision = Annotated[str, typer.Option(help="auto, fp32 or bf16.")]


def check_file(out: Path, example: str) -> None:
    """Raise ZeroFlowError unless --out can be a file; `example` is a name for one."""
    if out.is_dir():
        raise ZeroFlowError(f"--out {out} is a folder; give a file, such as {out / example}")
    if not out.parent.is_dir():
        raise ZeroFlowError(f"--out {out}: the folder {out.parent} does not exist; create it first")
