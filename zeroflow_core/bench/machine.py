"""What a measurement was taken on, and with which version: without it a number says little."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from zeroflow_core.version import VERSION


def described(device: str) -> dict[str, Any]:
    """Plain data: the machine, how much it did in the last minute, its software, and this version.

    device: of the work: cpu, cuda or cuda:n
    """
    import torch

    return {
        "machine": machine_name(device),
        "device": device,
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
        "version": VERSION,
        "commit": _commit(),
    }


def machine_name(device: str) -> str:
    """What does the work, as its maker calls it."""
    if device != "cpu":
        import torch

        return torch.cuda.get_device_name(device)
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> str | None:
    """Of the checkout this runs from, ``-dirty`` where files differ from it; None where it is installed otherwise."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
