"""A student's flow, less the motion that the other sweep does not bear out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.geometry import finite_rows
from zeroflow_core.pairs import Flow, FramePair, Status
from zeroflow_core.verification.verdicts import MOVES, SLOWEST, Rules, judge

VERIFY = ("auto", "always", "never")

# A student sees what moves better than a teacher that fits one sweep to the next, but tells less exactly how fast.
_RULES = Rules(alike=0.5, fewest=8, lowest=0.15, explained=0.85, refuted=0.85, asked=128)


def is_verified(choice: str, metadata: dict[str, Any]) -> bool:
    """Whether the flow of a student with this metadata is to be verified: by `choice`, one of VERIFY, ``auto`` as the
    student was made for.

    Raises:
        ZeroFlowError: an unknown choice.
    """
    if choice not in VERIFY:
        raise ZeroFlowError(f"verify '{choice}' is unknown; choose one of: {', '.join(VERIFY)}")
    return choice == "always" or (choice == "auto" and metadata.get("verify") is True)


def verify_flow(flow: Flow, pair: FramePair) -> Flow:
    """The flow of a pair's pc0, where things that are said to move stand unless pc1 bears their motion out.

    What is slower than 0.3 m/s stands, too. Status and points without an estimate stay as they are.
    """
    vectors = flow.vectors
    with np.errstate(invalid="ignore", over="ignore"):
        speed = np.sqrt(np.einsum("ij,ij->i", vectors, vectors)) / abs(flow.dt)
        known = np.isfinite(vectors).all(axis=1) & (flow.status == Status.OK)
        moving = np.flatnonzero(known & (speed >= SLOWEST))
        nothing = (speed < SLOWEST) | np.isinf(speed)
    others = pair.pc1[finite_rows(pair.pc1) & ~pair.is_ground1]
    verdict = np.zeros(len(moving), dtype=np.uint8)
    if len(others):
        verdict = judge(pair.pc0[moving], vectors[moving], others, flow.dt, _RULES)
    vectors = vectors.copy()
    vectors[nothing] = 0
    vectors[moving[verdict != MOVES]] = 0
    return replace(flow, vectors=vectors)


def prepare() -> None:
    """Compile what verifies, or load it as it was compiled: seconds that the first pair need not wait for.

    Raises:
        ZeroFlowError: numba can't be loaded.
    """
    try:
        import zeroflow_core.verification.kernels  # noqa: F401
    except ImportError as error:
        raise ZeroFlowError(
            f"verifying motion needs numba, which can't be loaded ({error}); pip install --upgrade numba"
        ) from error
    points = np.random.default_rng(0).uniform([-20, -20, -1], [20, 20, 1], (2000, 3)).astype(np.float32)
    judge(points, np.full_like(points, 0.5), points, 0.1, _RULES)
