"""Options that several commands have, and what must be true of an --out before long work begins."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from zeroflow_core.errors import ZeroFlowError

Checkpoint = Annotated[
    str, typer.Option(help="For the student: a .ckpt or .safetensors file, 'default', or a published name.")
]
TeacherConfiguration = Annotated[
    str, typer.Option(help="For nsfp and fastnsf: fast, or published, which takes minutes a pair without a GPU.")
]
Seed = Annotated[
    int, typer.Option(min=0, max=2**63 - 1, help="For nsfp and fastnsf: the same seed gives the same flow.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:n.")]
Engine = Annotated[
    str, typer.Option(help="For the student: fast, or reference (plain modules, the ones that train); same weights.")
]
Verify = Annotated[
    str,
    typer.Option(
        help="For the student: take back motion that the other sweep does not bear out: always, never, or auto (as the "
        "checkpoint was made for; published ones are not)."
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        help="For the student: fp32, bf16, or auto (fast: what the checkpoint names, else bf16 on GPUs and x86 CPUs "
        "that multiply it, else fp32; reference: fp32). Other CPUs do bf16 as well, but slowly."
    ),
]


def check_file(out: Path, example: str) -> None:
    """Raise ZeroFlowError unless --out can be a file; `example` is a name for one."""
    if os.path.isdir(out):  # a Path raises where the name is too long
        raise ZeroFlowError(f"--out {out} is a folder; give a file, such as {out / example}")
    if not os.path.isdir(out.parent):
        raise ZeroFlowError(f"--out {out}: the folder {out.parent} does not exist; create it first")


def check_folder(out: Path) -> None:
    """Raise ZeroFlowError unless --out can be a folder to write files to; it is made where it is missing."""
    if out.exists() and not out.is_dir():
        raise ZeroFlowError(f"--out {out} is a file; give the folder to write to")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ZeroFlowError(f"--out {out} cannot be made: {error.strerror or error}") from error
    try:
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise ZeroFlowError(f"--out {out} cannot be written to: {error.strerror or error}") from error
