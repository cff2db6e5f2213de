"""What tests ask of processes that are not their own children."""

from __future__ import annotations

from pathlib import Path


def runs(pid: int) -> bool:
    """Not, once it is a zombie that its parent has not looked after."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
