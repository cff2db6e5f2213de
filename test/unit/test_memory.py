"""Memory that is kept: whether the same block is had again without the system."""

import platform
import subprocess
import sys

import pytest

_BLOCKS, _BYTES = 20, 16 << 20
_PROGRAM = f"""
import resource, sys
import numpy as np
from zeroflow_core.memory import keep_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if "keep" in sys.argv:
    keep_memory()
np.ones({_BYTES}, np.uint8)
before = faults()
for _ in range({_BLOCKS}):
    np.ones({_BYTES}, np.uint8)
print(faults() - before)
"""


def _faults(*arguments: str) -> int:
    """Pages that the system gave to a process which made blocks, one after the other."""
    command = [sys.executable, "-c", _PROGRAM, *arguments]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_a_block_that_was_freed_is_used_again():
    assert _faults("keep") < 0.1 * _faults()
