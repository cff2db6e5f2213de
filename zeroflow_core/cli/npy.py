"""A cloud that a command is given as a .npy file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zeroflow_core.errors import ZeroFlowError

if TYPE_CHECKING:
    import numpy as np


def read_cloud(path: Path, called: str) -> np.ndarray:
    """The cloud in `path`: (N,3) float32, metres.

    called: how a message names it, such as "--pc0 a.npy"

    Raises:
        ZeroFlowError: there is no such file, or it holds something else.
    """
    import numpy as np

    try:
        cloud = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise ZeroFlowError(f"{called}: no such file") from error
    except (OSError, ValueError, EOFError) as error:
        raise ZeroFlowError(f"{called}: not a readable .npy file ({error})") from error
    if not isinstance(cloud, np.ndarray) or cloud.ndim != 2 or cloud.shape[1] != 3 or cloud.dtype.kind not in "fiu":
        shape = f"{cloud.dtype} {cloud.shape}" if isinstance(cloud, np.ndarray) else "an archive"
        raise ZeroFlowError(f"{called}: needs numbers of shape (N, 3), found {shape}")
    with np.errstate(over="ignore"):  # too large for a float32 is infinite there: a point that is not finite
        return cloud.astype(np.float32)
