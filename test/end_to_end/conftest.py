"""What tests with real processes share: they are killed at the end of the test that started them."""

from __future__ import annotations

from pathlib import Path

import pytest
from processes import Caller, Peer, Process, tiny_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """Weights of a student that takes milliseconds."""
    return tiny_checkpoint(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture
def start(tmp_path):
    """Starts modules as processes."""
    started = []

    def start_process(module: str, *arguments: object) -> Process:
        started.append(Process(tmp_path, module, *arguments))
        return started[-1]

    yield start_process
    for process in started:
        process.kill()


@pytest.fixture
def start_node(start, checkpoint):
    """Starts flow nodes with the given parameters, and waits until they are ready, or say what is given."""

    def start_flow_node(*arguments: str, ready: str = "ready: ", **parameters: object) -> Process:
        values = {"checkpoint": checkpoint, "device": "cpu"} | parameters
        words = [word for name, value in values.items() for word in ("-p", f"{name}:={value}")]
        node = start("zeroflow_ros.flow_node", "--ros-args", *words, *arguments)
        if ready:
            node.wait_for(ready)
        return node

    return start_flow_node


@pytest.fixture
def peer():
    with Peer() as peer:
        yield peer


@pytest.fixture
def caller():
    caller = Caller()
    yield caller
    caller.close()
