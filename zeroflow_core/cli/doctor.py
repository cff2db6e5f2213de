"""`zeroflow doctor`."""
def doctor() -> None:
    """What this machine has."""
