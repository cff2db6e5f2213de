"""Clouds that were published and never came, by their numbers and by their stamps."""

from __future__ import annotations

import random

import pytest

from zeroflow_ros.live.wire import WireCounter

MS = 1_000_000
SECOND = 1000 * MS


class Wire:
    """A counter, all that it counted, and what it said."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.lost = 0
        self._counter = WireCounter(self.said.append)

    def hear(self, numbers, stamps_ns) -> int:
        """Lost among these clouds."""
        before = self.lost
        for number, stamp_ns in zip(numbers, stamps_ns, strict=True):
            self.lost += self._counter.received(number, stamp_ns)
        return self.lost - before


@pytest.fixture
def wire() -> Wire:
    return Wire()


def _stamps(numbers, period: int = 100 * MS, start: int = 1_700_000_000 * SECOND) -> list[int]:
    return [start + number * period for number in numbers]


def test_what_comes_before_the_first_cloud_is_not_lost(wire):
    numbers = range(57, 80)
    assert wire.hear(numbers, _stamps(numbers)) == 0


def test_gaps_between_numbers_are_counted_exactly(wire):
    rng = random.Random(3)
    numbers = [1, *sorted(rng.sample(range(2, 500), 350)), 500]
    assert wire.hear(numbers, _stamps(numbers)) == 500 - len(numbers)
    assert wire.said == []


def test_losses_among_the_very_first_clouds_count(wire):
    assert wire.hear([1, 3, 4, 8], _stamps([1, 3, 4, 8])) == 4


def test_stamps_need_not_be_steady_where_there_are_numbers(wire):
    rng = random.Random(4)
    numbers = [number for number in range(300) if number % 7]
    stamps = [number * 100 * MS + rng.randrange(30 * MS) for number in numbers]
    assert wire.hear(numbers, stamps) == 42
    assert wire.hear(range(300, 320), [stamps[-1]] * 20) == 0  # a broken clock alone loses nothing


def test_a_long_outage_counts_by_numbers(wire):
    numbers = [*range(20), *range(620, 640)]
    assert wire.hear(numbers, _stamps(numbers)) == 600


def test_a_publisher_that_starts_anew_is_no_loss(wire):
    for start in range(5):
        assert wire.hear(range(1, 30), _stamps(range(1, 30), start=start * 1000 * SECOND)) == 0
    assert wire.hear([30, 32], _stamps([30, 32], start=4000 * SECOND)) == 1
    assert wire.said == []


def test_losses_after_a_start_anew_count_even_across_the_number_where_it_ended(wire):
    wire.hear(range(1, 11), _stamps(range(1, 11)))
    assert wire.hear([2, 3, 14, 15], _stamps([102, 103, 114, 115])) == 10
    assert wire.said == []


@pytest.mark.parametrize("ahead", [-1000, -2, -1, 0, 1, 2, 1000])
@pytest.mark.parametrize("alone", [0, 100])
def test_two_publishers_are_noticed_and_taken_for_no_loss(wire, ahead: int, alone: int):
    start = 2000
    wire.hear(range(start - alone, start), _stamps(range(start - alone, start)))
    numbers = [number for k in range(start, start + 100) for number in (k, k + ahead)]
    stamps = [stamp for k in range(start, start + 100) for stamp in _stamps([k, k + 0.4])]
    assert wire.hear(numbers, map(int, stamps)) <= 2  # what one could not know before it learnt the pace
    assert len(wire.said) == 1 and "several publishers" in wire.said[0]


def test_once_the_other_publisher_is_gone_losses_count_again(wire):
    both = [number for k in range(100, 150) for number in (k, k + 900)]
    wire.hear(both, [100 * k * MS + 40 * (k % 2) * MS for k in range(100)])
    numbers = [number for number in range(150, 250) if number % 10]
    # The step back from the other one's numbers comes first.
    assert wire.hear(numbers, _stamps(numbers)) == 9


def test_by_stamps_each_missing_step_is_a_cloud(wire):
    rng = random.Random(5)
    numbers = [number for number in range(1000) if number % 9 not in (4, 5) or number < 10]
    stamps = [number * 100 * MS + rng.randrange(-15 * MS, 15 * MS) for number in numbers]
    assert wire.hear([None] * len(numbers), stamps) == 1000 - len(numbers)


def test_clocks_set_back_now_and_then_are_no_second_publisher(wire):
    numbers = [number for number in range(600) if number % 100]
    stamps = [stamp - number // 100 * SECOND for number, stamp in zip(numbers, _stamps(numbers), strict=True)]
    wire.hear(numbers, stamps)  # each time a cloud is lost, too
    assert wire.said == []


def test_by_stamps_a_cloud_that_is_late_is_no_loss(wire):
    stamps = [stamp + (55 * MS if number % 5 == 0 else 0) for number, stamp in enumerate(_stamps(range(100)))]
    assert wire.hear([None] * 100, stamps) == 0


def test_by_stamps_a_pause_is_no_loss(wire):
    assert wire.hear([None] * 20, _stamps(range(20))) == 0
    assert wire.hear([None] * 20, _stamps(range(600, 620))) == 0
    assert wire.hear([None] * 2, _stamps([620, 622])) == 1


def test_by_stamps_a_log_that_starts_over_is_no_loss(wire):
    for _ in range(3):
        assert wire.hear([None] * 20, _stamps(range(20))) == 0
    assert wire.hear([None] * 3, _stamps([20, 23, 24])) == 2


def test_by_stamps_a_sensor_of_another_rate_is_learnt(wire):
    wire.hear([None] * 30, _stamps(range(30), 50 * MS))
    lost = wire.hear([None] * 30, _stamps(range(30), 100 * MS, start=1_800_000_000 * SECOND))
    assert lost == 0
    assert wire.hear([None] * 30, _stamps(range(40, 70), 100 * MS, start=1_800_000_000 * SECOND)) == 10


def test_stamps_that_stand_still_lose_nothing(wire):
    assert wire.hear([None] * 50, [SECOND] * 50) == 0
    assert wire.hear(range(50), [SECOND] * 50) == 0
    assert wire.said == []
