"""How a node's process ends, as far as one can see it without one."""

from __future__ import annotations

import gc
import weakref

import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

from zeroflow_ros import flow_node
from zeroflow_ros.processes import running


class Ended(BaseException):
    """In place of the process's end."""


@pytest.fixture
def events(monkeypatch) -> list[str]:
    """What `run` does, in order; it ends nothing."""
    events: list[str] = []

    def end(code: int) -> None:
        events.append(f"exit {code}")
        raise Ended

    for name in ("init", "try_shutdown"):
        monkeypatch.setattr(running.rclpy, name, lambda name=name, **_: events.append(name))
    for name in ("remove_leftovers", "end_with_parent", "keep_memory"):
        monkeypatch.setattr(running, name, lambda: None)
    monkeypatch.setattr(running.dds, "use_profile", lambda: None)
    monkeypatch.setattr(running.signal, "signal", lambda *_: None)
    monkeypatch.setattr(running.os, "_exit", end)
    monkeypatch.setattr(running, "_nodes", [])
    return events


@pytest.mark.parametrize("interrupted", [False, True])
def test_nodes_are_destroyed_before_ros_is_shut_down(events, interrupted):
    """In Humble and Jazzy nobody else does, and the participant stays behind."""

    class Node:
        def destroy_node(self) -> None:
            events.append("destroy")

    class Untidy:
        def destroy_node(self) -> None:
            raise RuntimeError("its publisher is gone")

    def body(stop) -> int:
        node = Node()
        assert running.destroyed_at_end(node) is node
        running.destroyed_at_end(Untidy())
        if interrupted:
            raise KeyboardInterrupt
        return 3

    with pytest.raises(Ended):
        running.run("test", body, [])
    assert events == ["init", "destroy", "try_shutdown", f"exit {0 if interrupted else 3}"]


def test_what_an_activation_leaves_goes_with_the_next_one():
    """A road is a circle, with its last clouds in it, and the collector is told to pass over what is there."""

    class Circle:
        def __init__(self) -> None:
            self.itself = self

    circle = Circle()
    left = weakref.ref(circle)
    try:
        flow_node._spare_the_collector()
        del circle
        gc.collect()
        assert left() is not None  # passed over
        flow_node._spare_the_collector()
        assert left() is None
    finally:
        gc.unfreeze()
