"""Nodes that another process starts end with it, whenever its own end comes."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from zeroflow_core.errors import ZeroFlowError
from zeroflow_ros.processes.child import child

NODE = "processes.child"  # a module that ends at once when it is run, and needs no ROS


class Stopped(Exception):
    """What the handlers of these tests raise, as a node's handler raises KeyboardInterrupt."""


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM])
def number(request):
    def handler(number: int, frame: object) -> None:
        raise Stopped

    before = signal.signal(request.param, handler)
    yield request.param
    signal.signal(request.param, before)


@pytest.fixture
def started(monkeypatch):
    """What was started: processes that live until they are stopped, whatever was asked for."""
    started = []

    class Process(subprocess.Popen):
        def __init__(self, command: list[str], **options: object) -> None:
            super().__init__(["sleep", "600"], **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Process)
    yield started
    for process in started:
        process.kill()
        process.wait()


def test_a_signal_while_the_node_is_being_started_stops_it_too(tmp_path, monkeypatch, started, number):
    lasting = subprocess.Popen

    def start(*arguments: object, **options: object) -> subprocess.Popen:
        process = lasting(*arguments, **options)
        os.kill(os.getpid(), number)  # the process is there, and nobody knows of it yet
        return process

    monkeypatch.setattr(subprocess, "Popen", start)
    handler = signal.getsignal(number)
    with pytest.raises(Stopped), child(NODE, tmp_path / "log", []):
        pytest.fail("the block begins although the signal came before")
    assert len(started) == 1
    assert started[0].returncode is not None, "it has ended"
    assert signal.getsignal(number) is handler


def test_a_signal_while_the_node_runs_stops_it(tmp_path, started, number):
    with pytest.raises(Stopped), child(NODE, tmp_path / "log", []) as node:
        assert node.running()
        os.kill(os.getpid(), number)
    assert started[0].returncode is not None


def test_without_a_signal_handlers_are_as_before_and_the_node_is_stopped(tmp_path, started, number):
    handler = signal.getsignal(number)
    with child(NODE, tmp_path / "log", []) as node:
        assert signal.getsignal(number) is handler
        assert node.running()
    assert started[0].returncode == -signal.SIGINT


def test_one_that_cannot_be_started_leaves_the_handlers_as_they_were(tmp_path, number):
    handler = signal.getsignal(number)
    with pytest.raises(FileNotFoundError), child(NODE, tmp_path / "nowhere" / "log", []):
        pytest.fail("there is no folder for its log")
    assert signal.getsignal(number) is handler


def test_a_node_that_fails_is_told_with_its_last_words(tmp_path):
    with child("no_such_module", tmp_path / "log", []) as node:
        node._process.wait()
        with pytest.raises(ZeroFlowError, match="(?s)no_such_module failed with exit code 1.*No module named"):
            node.check()


def test_a_node_that_ends_well_but_early_is_told(tmp_path):
    with child(NODE, tmp_path / "log", []) as node:
        node._process.wait()
        assert not node.running()
        with pytest.raises(ZeroFlowError, match="ended before its time"):
            node.check()
