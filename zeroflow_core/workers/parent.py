"""Processes that end with the one that started them, however that one ends: by Ctrl-C, a lost terminal, or killed."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

_PARENT = "ZEROFLOW_PARENT"
_PR_SET_PDEATHSIG = 1  # prctl(2)


def ending_with_me() -> dict[str, str]:
    """Variables for the environment of a process that is to end with this one, by `end_with_parent`. Linux counts the
    end of the thread that starts it as the parent's."""
    return {_PARENT: str(os.getpid())}


def end_with_parent() -> None:
    """Have Linux send this process SIGTERM when its parent ends, if that one asked for it by `ending_with_me`."""
    parent = os.environ.pop(_PARENT, "")  # not for this one's own children
    if not parent.isdecimal() or sys.platform != "linux":
        return
    if int(parent) == os.getppid():
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != int(parent) and not Path(f"/proc/{parent}").exists():  # it was quicker
        os.kill(os.getpid(), signal.SIGTERM)
