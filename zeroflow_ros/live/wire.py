"""Counts clouds that were published and never came to the callback. No ROS in here."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from statistics import median

_STEPS = 20  # steps between stamps that tell the usual one
_FEWEST_STEPS = 3
_GAP = 1.6  # usual steps from which one cloud must be missing
_PAUSE = 20  # usual steps from which the source was silent rather than its clouds lost
_FAR = 10  # numbers missing at once that nobody believes before the usual step is known
_ODD = 3  # times that numbers fit no single publisher until that is said
_CALM = 50  # numbers in order after which that is forgotten


class WireCounter:
    """Clouds lost between the publisher and the callback: on the network, or pushed out of the subscription's queue.

    By the gaps between publication sequence numbers where there are any, which is exact, and by those between
    stamps elsewhere, which takes a steady sensor. A publisher that starts anew, at its first number, is not taken
    for a loss. Neither is a second publisher on the topic, whose numbers run beside the other's; then some losses
    remain uncounted.

    warn: told, in a sentence, that there must be several publishers
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._number: int | None = None
        self._stamp_ns: int | None = None
        self._steps: deque[int] = deque(maxlen=_STEPS)
        self._overtaken: int | None = None  # the number from which it last went back
        self._odd = self._calm = 0

    def received(self, number: int | None, stamp_ns: int) -> int:
        """How many clouds were lost between the one before and this one.

        number:   the cloud's publication sequence number, where the middleware tells it
        stamp_ns: of its header
        """
        before, self._number = self._number, number
        passed_ns = None if self._stamp_ns is None else stamp_ns - self._stamp_ns
        self._stamp_ns = stamp_ns
        if passed_ns is None:
            return 0
        if number is None:
            return self._by_stamp(passed_ns)
        return 0 if before is None else self._by_number(before, number, passed_ns)

    @property
    def _usual_step(self) -> float | None:
        return median(self._steps) if len(self._steps) >= _FEWEST_STEPS else None

    def _by_stamp(self, passed_ns: int) -> int:
        usual = self._usual_step
        if passed_ns <= 0:  # a clock that was set back, a log that starts over
            return 0
        if usual is not None and passed_ns > _PAUSE * usual:
            self._steps.clear()  # what comes after a pause may be another sensor's
            return 0
        self._steps.append(passed_ns)
        if usual is None or passed_ns < _GAP * usual:
            return 0
        return round(passed_ns / usual) - 1

    def _by_number(self, before: int, number: int, passed_ns: int) -> int:
        lost = number - before - 1
        if lost < 0:
            self._overtaken = before
            if number == before:
                self._fits_no_single_publisher()
            return 0
        if lost > 0 and not self._plausible(number, lost, passed_ns):
            self._fits_no_single_publisher()
            return 0
        if lost == 0 and passed_ns > 0:
            self._steps.append(passed_ns)
        self._calm += 1
        if self._calm == _CALM:
            self._odd = 0
        return lost

    def _plausible(self, number: int, lost: int, passed_ns: int) -> bool:
        """Whether the publisher of the cloud before can have published that many in between."""
        usual = self._usual_step
        if usual is not None:
            return passed_ns >= 0.5 * (lost + 1) * usual
        return lost <= _FAR and (self._overtaken is None or number <= self._overtaken)

    def _fits_no_single_publisher(self) -> None:
        self._odd, self._calm = self._odd + 1, 0
        if self._odd == _ODD:
            self._warn(
                "several publishers send clouds on this topic: all are taken for one sensor's, and losses on the way "
                "are not counted reliably"
            )
