"""The one exception whose message is meant for people, and what its messages are made of."""

from __future__ import annotations

from typing import Any


class ZeroFlowError(Exception):
    """What was wrong, where, and what to do about it, in a sentence or two.

    Commands print the message and exit with 1; nobody needs to see a traceback for it.
    """


def differences(there: dict[str, Any], here: dict[str, Any], prefix: str = "") -> str:
    """In what plain data found somewhere differs from what was expected, for a message; empty when it does not."""
    found = []
    for key in {**there, **here}:
        old, new = there.get(key), here.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found.append(differences(old, new, f"{prefix}{key}."))
        elif old != new:
            found.append(f"its {prefix}{key} is {old}, not {new}")
    return "; ".join(filter(None, found))


def some(names: list[str], most: int = 3) -> str:
    """The first of `names`, for a message that should not list all."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
