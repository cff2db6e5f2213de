"""The probe's books: what they balance, and that they do not balance when something is missing."""

from __future__ import annotations

import struct

import pytest

from zeroflow_ros.account import Account, around_stamp, header_stamp_ns, with_stamp

ENDS = ("flows_published", "skipped_busy", "gap")


def _values(**counts: int) -> dict[str, str]:
    """As diagnostics give them, with things that are no counters."""
    zero = dict.fromkeys(("clouds_received", *ENDS), 0)
    return {name: str(count) for name, count in (zero | counts).items()} | {"device": "cpu", "total_p50_ms": "12.50"}


def _account(**before: int) -> Account:
    account = Account(ENDS)
    account.diagnosis(0, "fine", _values(**before))
    account.begin()
    return account


def test_every_cloud_with_one_end_balances():
    account = _account()
    for stamp in range(5):
        account.sent(stamp, late=0.001 * stamp)
        account.processed(stamp)
    account.flow(0)
    account.flow(3)
    assert account.unanswered == 0
    account.diagnosis(1, "slow", _values(clouds_received=5, flows_published=2, skipped_busy=3))
    summary = account.summary()
    books = ("lost_to_node", "lost_to_probe", "unaccounted", "unanswered", "repeated", "strange")
    assert [summary[name] for name in books] == [0] * 6
    assert [summary[name] for name in ("sent", "received", "processed", "flows")] == [5, 5, 5, 2]
    assert summary["counts"] == {"clouds_received": 5, "flows_published": 2, "skipped_busy": 3}
    assert summary["latest_ms"] == pytest.approx(4.0)
    assert summary["latency_ms"]["clouds"] == 2
    assert 0 < summary["latency_ms"]["p50"] <= summary["latency_ms"]["p99"] <= summary["latency_ms"]["max"]
    assert summary["values"]["device"] == "cpu"


@pytest.mark.parametrize(
    "counts, name, amount",
    [
        ({"clouds_received": 2, "flows_published": 2}, "lost_to_node", 1),
        ({"clouds_received": 3, "flows_published": 2}, "unaccounted", 1),
        ({"clouds_received": 3, "flows_published": 3, "gap": 1}, "unaccounted", -1),
        ({"clouds_received": 3, "flows_published": 3}, "lost_to_probe", 2),
        ({"clouds_received": 3, "flows_published": 3}, "unanswered", 1),
    ],
)
def test_what_is_missing_is_named(counts, name, amount):
    account = _account()
    for stamp in range(3):
        account.sent(stamp, late=0.0)
    account.processed(0)
    account.processed(2)
    account.flow(2)
    account.diagnosis(0, "fine", _values(**counts))
    assert account.summary()[name] == amount
    assert account.unanswered == 1


def test_answers_that_come_twice_or_to_nothing_that_was_sent_are_told():
    account = _account()
    account.sent(7, late=0.0)
    for stamp in (7, 7, 8):
        account.flow(stamp)
    summary = account.summary()
    assert (summary["flows"], summary["repeated"], summary["strange"]) == (1, 1, 1)


def test_what_the_node_counted_before_is_left_out():
    account = _account(clouds_received=100, gap=100)
    account.sent(1, late=0.0)
    account.processed(1)
    account.diagnosis(0, "fine", _values(clouds_received=101, gap=101))
    summary = account.summary()
    assert (summary["received"], summary["unaccounted"], summary["counts"]["gap"]) == (1, 0, 1)


def test_only_diagnostics_since_the_beginning_are_judged():
    account = _account()
    for level in (0, 1, 1):
        account.diagnosis(level, f"level {level}", _values())
    diagnostics = account.summary()["diagnostics"]
    assert (diagnostics["messages"], diagnostics["levels"], diagnostics["last"]) == (3, {"0": 1, "1": 2}, "level 1")
    assert 0 <= diagnostics["longest_gap_s"] < 60


def test_a_node_that_answers_nothing_has_no_latency():
    summary = _account().summary()
    assert summary["latency_ms"] == {"clouds": 0, "p50": None, "p99": None, "max": None}


@pytest.mark.parametrize("order", "<>")
def test_stamps_are_read_from_the_bytes_of_a_message(order):
    cdr = bytes([0, order == "<", 0, 0]) + struct.pack(f"{order}iI", 1_700_000_000, 123_456_789) + b"rest"
    assert header_stamp_ns(cdr) == 1_700_000_000_123_456_789


def test_a_message_gets_another_stamp_and_is_otherwise_the_same():
    cdr = b"\0\1\0\0" + struct.pack("<iI", 5, 6) + b"frame and data"
    changed = with_stamp(around_stamp(cdr), 7_000_000_008)
    assert header_stamp_ns(changed) == 7_000_000_008
    assert (changed[:4], changed[12:], len(changed)) == (cdr[:4], cdr[12:], len(cdr))
