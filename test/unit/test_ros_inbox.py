"""The two newest clouds wait for the worker; older ones go, and are named so that they can be counted."""

from __future__ import annotations

import threading

import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

from zeroflow_ros.flow_node import _Inbox


def test_the_newest_cloud_and_the_one_before_it_are_kept():
    inbox = _Inbox()
    assert [inbox.put(name) for name in "abcd"] == [[], [], ["a"], ["b"]]
    assert [message for _, message in inbox.take()] == ["c", "d"]
    inbox.put("e")
    assert [message for _, message in inbox.take()] == ["e"]


def test_whoever_waits_gets_the_next_cloud():
    inbox = _Inbox()
    threading.Timer(0.05, inbox.put, ["a"]).start()
    ((arrived, message),) = inbox.take()
    assert message == "a" and arrived > 0


def test_closing_ends_the_wait_and_drops_what_is_there():
    inbox = _Inbox()
    threading.Timer(0.05, inbox.close).start()
    assert inbox.take() == []
    inbox.put("a")
    assert inbox.take() == []
