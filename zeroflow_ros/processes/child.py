"""A node in a process of its own, started and stopped by another process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.workers.parent import ending_with_me


@contextmanager
def child(module: str, log: Path, arguments: list[str]) -> Iterator[Child]:
    """``python -m zeroflow_ros.<module> <arguments>``, which has ended when the block has, and ends when this
    process is killed. For the main thread.

    log: file that its output goes to
    """
    with ExitStack() as cleanup:
        with _signals_held():  # one that ends this process must find somebody who stops the new one
            process = Child(module, log, arguments)
            cleanup.callback(process.stop)
        yield process


@contextmanager
def _signals_held() -> Iterator[None]:
    """SIGINT and SIGTERM are received when the block has ended."""
    received: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, _: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in received:
            signal.raise_signal(number)


class Child:
    """See `child`."""

    def __init__(self, module: str, log: Path, arguments: list[str]) -> None:
        self.module, self.log = module, log
        self._output = log.open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"zeroflow_ros.{module}", *arguments],
            env={**os.environ, **ending_with_me()},
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the terminal is for the parent, which then stops it in order
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def running(self) -> bool:
        """True until it has ended well.

        Raises:
            ZeroFlowError: it failed; with the last lines it wrote.
        """
        code = self._process.poll()
        if code:
            lines = self.log.read_text(errors="replace").strip().splitlines()[-8:]
            raise ZeroFlowError("\n  ".join([f"{self.module} failed with exit code {code}:", *lines]))
        return code is None

    def check(self) -> None:
        """For a node that has no reason to end: as `running`, but to have ended well is a failure too."""
        if not self.running():
            raise ZeroFlowError(f"{self.module} ended before its time; see {self.log}")

    def stop(self) -> None:
        """Ask politely, then less so."""
        for request, patience in ((signal.SIGINT, 5.0), (signal.SIGTERM, 3.0), (signal.SIGKILL, None)):
            if self._process.poll() is None:
                self._process.send_signal(request)
                try:
                    self._process.wait(patience)
                except subprocess.TimeoutExpired:
                    continue
        self._output.close()
