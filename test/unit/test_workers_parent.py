"""Programs that end with the one that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from process_cases import runs

from zeroflow_core.workers.parent import end_with_parent, ending_with_me

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
CHILD = """
import os, time
from zeroflow_core.workers.parent import end_with_parent
time.sleep({delay})
end_with_parent()
print(os.getpid(), "ZEROFLOW_PARENT" in os.environ, flush=True)
time.sleep(600)
"""
PARENT = """
import os, subprocess, sys, time
from zeroflow_core.workers.parent import ending_with_me
child = subprocess.Popen([sys.executable, "-c", {child!r}], env=os.environ | ({variables}), start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""


def _ends(process: int, seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while runs(process) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not runs(process)


@pytest.fixture
def start():
    """Starts a parent whose child begins after a delay, and asks for the child to end with it or doesn't."""
    started, children = [], []

    def start_parent(delay: float = 0.0, variables: str = "ending_with_me()") -> tuple[subprocess.Popen, int]:
        program = PARENT.format(child=CHILD.format(delay=delay), variables=variables)
        parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        started.append(parent)
        children.append(int(parent.stdout.readline()))
        return parent, children[-1]

    yield start_parent
    for parent in started:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    for child in filter(runs, children):
        os.kill(child, signal.SIGKILL)


def test_a_child_ends_with_a_parent_that_is_killed(start):
    parent, child = start()
    assert parent.stdout.readline().split() == [str(child), "False"], "its own children are not concerned"
    parent.kill()
    assert _ends(child)


def test_a_child_that_begins_when_the_parent_has_ended_ends_too(start):
    parent, child = start(delay=1.0)
    parent.kill()
    parent.wait()
    assert _ends(child)


@pytest.mark.parametrize("variables", ["{}", "{'ZEROFLOW_PARENT': 'nobody'}", "{'ZEROFLOW_PARENT': str(os.getppid())}"])
def test_a_child_of_whom_that_was_not_asked_lives_on(start, variables):
    """Nor by a parent's parent, whose variables were handed down."""
    parent, child = start(variables=variables)
    assert parent.stdout.readline().split() == [str(child), "False"]
    parent.kill()
    parent.wait()
    assert not _ends(child, seconds=0.5)


def test_without_a_word_nothing_happens(monkeypatch):
    monkeypatch.delenv("ZEROFLOW_PARENT", raising=False)
    end_with_parent()
    assert ending_with_me() == {"ZEROFLOW_PARENT": str(os.getpid())}
