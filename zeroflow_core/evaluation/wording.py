"""How numbers and names are written, in a report above all. What is not known is a dash."""

from __future__ import annotations

from collections.abc import Sequence

NOTHING = "–"
PART_NAMES = {"fd": "Foreground, dynamic", "fs": "Foreground, static", "bs": "Background, static"}


def metres(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4f}"


def ratio(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"


def share(value: float | None) -> str:
    return NOTHING if value is None else f"{100 * value:.1f}%"


def count(value: int | None) -> str:
    return NOTHING if value is None else f"{value:,}"


def between(values: Sequence[int]) -> str:
    """A count, or the smallest and the largest where they differ."""
    low, high = min(values), max(values)
    return count(low) if low == high else f"{count(low)}–{count(high)}"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return NOTHING
    if seconds < 0.9995:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.2f} s" if seconds < 100 else f"{seconds:,.0f} s"


def time_taken(seconds: float) -> str:
    """Such as "59 s" or "2 min 5 s"."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def beside_others(jobs: int) -> str:
    """What to add to a time per pair that was taken while other processes were at work, too."""
    return f", with {jobs} processes at once" if jobs > 1 else ""


def several(number: int, what: str) -> str:
    """Such as "1 log" or "1,500 pairs"."""
    return f"{count(number)} {what}{'' if number == 1 else 's'}"


def interval(low: float, high: float | None, unit: str) -> str:
    return f"over {low:g} {unit}" if high is None else f"{low:g}–{high:g} {unit}"


def readable(category: str) -> str:
    """A name in capitals and underscores as a word."""
    return "Background" if category == "NONE" else category.replace("_", " ").capitalize().replace("vru", "VRU")


def short_names(names: Sequence[str], at_least: int = 8) -> list[str]:
    """The names, cut where they still differ from each other, and not before `at_least` letters."""
    longest = max(map(len, names), default=0)
    different = len(set(names))
    length = next((k for k in range(at_least, longest) if len({name[:k] for name in names}) == different), longest)
    return [name if len(name) <= length + 2 else f"{name[:length]}…" for name in names]


def fitted(names: Sequence[str], width: int) -> list[str]:
    """The names in at most `width` letters each: the long ones cut, where that is possible around what tells them
    apart."""

    def cut(name: str, start: int) -> str:
        if len(name) <= width:
            return name
        text = f"…{name[start + 1 :]}" if start else name
        return text if len(text) <= width else f"{text[: width - 1]}…"

    longest = max(map(len, names), default=0)
    candidates = ([cut(name, start) for name in names] for start in range(longest + 1))
    different = len(set(names))
    return next((shown for shown in candidates if len(set(shown)) == different), [cut(name, 0) for name in names])
