"""How a node's process begins and ends: DDS profile, signals, exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

import rclpy
from rclpy.signals import SignalHandlerOptions

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.memory import keep_memory
from zeroflow_core.workers.parent import end_with_parent
from zeroflow_ros.processes import dds
from zeroflow_ros.processes.shared_memory import remove_leftovers

_Node = TypeVar("_Node")


class StopSignal:
    """Takes over SIGINT, SIGTERM and, unless it is ignored as under nohup, SIGHUP (the terminal is gone) when made.

    Until `wait_for_it` is called, the first signal raises KeyboardInterrupt in the main thread, which ends a
    start-up that takes seconds. After it, signals only set `requested`, for a loop of spin_once to see. Further
    signals change nothing: ``ros2 launch`` and a terminal together deliver two.
    """

    def __init__(self) -> None:
        self.requested = False
        self._raise = True
        self._patience: float | None = None
        signal.signal(signal.SIGINT, self._receive)
        signal.signal(signal.SIGTERM, self._receive)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self._receive)

    def wait_for_it(self, patience: float | None = None) -> None:
        """patience: seconds after a signal in which the process must have ended by itself, or is ended"""
        self._raise, self._patience = False, patience

    def _receive(self, number: int, frame: object) -> None:
        first, self.requested = not self.requested, True
        if first and self._raise:
            raise KeyboardInterrupt
        if first and self._patience is not None:
            timer = threading.Timer(self._patience, os._exit, [0])
            timer.daemon = True
            timer.start()


_nodes: list[Any] = []


def destroyed_at_end(node: _Node) -> _Node:
    """The node itself. In Humble and Jazzy rclpy's shutdown destroys none: 70 MB of shared memory would be left behind,
    and for others its publishers and subscribers would seem to be there for some more seconds."""
    _nodes.append(node)
    return node


def run(name: str, body: Callable[[StopSignal], int], args: list[str] | None = None) -> NoReturn:
    """Run `body` between rclpy's init and shutdown, and end the process: with the exit code `body` returns, 0 after
    a signal during start-up, 1 after a ZeroFlowError, which is logged.

    name: who complains in the log
    args: command line for rclpy, sys.argv when None
    """
    keep_memory()
    stop = StopSignal()
    end_with_parent()
    logger = rclpy.logging.get_logger(name)
    try:
        dds.use_profile()
        remove_leftovers()  # or each process that is killed takes 70 MB of memory with it
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        code = body(stop)
    except ZeroFlowError as error:
        logger.fatal(str(error))
        code = 1
    except KeyboardInterrupt:
        code = 0
    stop.wait_for_it()
    for node in _nodes:
        with suppress(Exception):  # it has ended, however untidily
            node.destroy_node()
    rclpy.try_shutdown()
    # What is left is to take down torch and open3d, which takes a second, and crashes where one of their threads
    # is at work.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
