"""Fixtures every test may use."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # Shells start jobs in the background so, and every process of a test would ignore Ctrl-C as well.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real logs that ZEROFLOW_TEST_DATA names; tests that need it are skipped without it."""
    folder = os.environ.get("ZEROFLOW_TEST_DATA")
    if not folder:
        pytest.skip("ZEROFLOW_TEST_DATA is not set: it names the folder of real logs to test with")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"ZEROFLOW_TEST_DATA names {path}, which is not a folder")
    return path


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout these tests belong to."""
    return Path(__file__).resolve().parents[1]
