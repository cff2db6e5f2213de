"""`zeroflow infer`: flow between two clouds stored as .npy files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zeroflow_core.cli.npy import read_cloud
from zeroflow_core.cli.options import Device, Engine, Precision, Verify, check_file
from zeroflow_core.files import new_file


def infer(
    pc0: Annotated[Path, typer.Option(help="Cloud to estimate flow for: .npy, (N,3), metres.")],
    pc1: Annotated[Path, typer.Option(help="Cloud it moves to, in the same frame: .npy, (N,3), metres.")],
    out: Annotated[Path, typer.Option(help="File to write: .npz with 'flow' (N,3) and 'valid' (N,).")],
    checkpoint: Annotated[
        str, typer.Option(help="A .ckpt or .safetensors file, 'default', or a published name.")
    ] = "default",
    device: Device = "auto",
    engine: Engine = "fast",
    precision: Precision = "auto",
    verify: Verify = "auto",
) -> None:
    """Estimate the flow of every point of PC0 towards PC1.

    Both clouds are in one frame (ego motion removed) and without ground. The
    flow is in metres per sweep interval, NaN where `valid` is False (outside
    the grid, or not finite).

    Example: zeroflow infer --pc0 a.npy --pc1 b.npy --out flow.npz
    """
    import numpy as np

    from zeroflow_core.fastflow3d.anchored import flow_estimator
    from zeroflow_core.fastflow3d.student import load_student
    from zeroflow_core.geometry import SE3
    from zeroflow_core.pairs import FramePair
    from zeroflow_core.verification.flows import is_verified

    check_file(out, "flow.npz")
    clouds = [read_cloud(path, f"{option} {path}") for path, option in ((pc0, "--pc0"), (pc1, "--pc1"))]
    student = load_student(checkpoint, device=device, engine=engine, precision=precision)
    no_ground = (np.zeros(len(cloud), dtype=bool) for cloud in clouds)
    interval_ns = round(student.metadata["interval_s"] * 1e9)
    pair = FramePair(*clouds, *no_ground, 0, interval_ns, SE3.identity())
    flow = flow_estimator(student, verify=verify)(pair).vectors
    valid = ~np.isnan(flow[:, 0])
    with new_file(out, "wb") as file:
        np.savez_compressed(file, flow=flow, valid=valid)
    how = f"{student.metadata['name']}, {student.engine}, {student.precision}, {student.device}"
    how += ", verified" if is_verified(verify, student.metadata) else ""
    typer.echo(f"{out}: flow of {valid.sum()} of {len(valid)} points ({how})")
