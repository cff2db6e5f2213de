"""The one exception whose message is meant for people."""


class ZeroFlowError(Exception):
    """What was wrong, where, and what to do about it, in a sentence or two.

    Commands print the message and exit with 1; nobody needs to see a traceback for it.
    """
