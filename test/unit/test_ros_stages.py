"""Between two threads the newest item waits; what gives way, or comes too late, is handed back."""

from __future__ import annotations

import threading
import time

from zeroflow_ros.live.stages import Latest, Stage


def test_the_newest_item_is_kept_and_what_it_replaces_is_handed_back():
    queue = Latest()
    assert [queue.put(name) for name in "abc"] == [None, "a", "b"]
    assert queue.take() == "c"
    assert queue.put("d") is None


def test_whoever_waits_gets_the_next_item():
    queue = Latest()
    threading.Timer(0.05, queue.put, ["a"]).start()
    assert queue.take() == "a"


def test_closing_ends_the_wait_and_hands_back_what_is_there_and_what_comes_after():
    queue = Latest()
    threading.Timer(0.05, queue.close).start()
    assert queue.take() is None
    assert queue.put("a") == "a"
    other = Latest()
    other.put("b")
    assert (other.close(), other.close(), other.take()) == ("b", None, None)


def test_every_item_is_either_handled_or_dropped_however_fast_they_come():
    handled, dropped = [], []

    def handle(item: int) -> None:
        time.sleep(0.001)
        handled.append(item)

    stage = Stage("test", handle, dropped.append)
    for k in range(500):
        stage.put(k)
        if k % 50 == 0:
            time.sleep(0.002)
    stage.stop()
    assert stage.join(5.0)
    stage.put(500)
    assert sorted(handled + dropped) == list(range(501))
    assert handled == sorted(handled) and 500 in dropped and len(handled) >= 2


def test_a_stage_that_is_stopped_ends_what_it_has_begun():
    begun, go_on, handled = threading.Event(), threading.Event(), []

    def handle(item: str) -> None:
        begun.set()
        go_on.wait(5.0)
        handled.append(item)

    stage = Stage("test", handle, lambda item: None)
    stage.put("a")
    assert begun.wait(5.0)
    stage.stop()
    assert not stage.join(0.05)
    go_on.set()
    assert stage.join(5.0) and handled == ["a"]
