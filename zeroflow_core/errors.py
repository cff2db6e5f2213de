"""The one exception whose message is meant for people, and lists in its messages."""


class ZeroFlowError(Exception):
    """What was wrong, where, and what to do about it, in a sentence or two.

    Commands print the message and exit with 1; nobody needs to see a traceback for it.
    """


def some(names: list[str], most: int = 3) -> str:
    """The first of `names`, for a message that should not list all."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
