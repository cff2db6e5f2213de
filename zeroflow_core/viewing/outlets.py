"""Where a recording goes: the viewer on this machine's screen, browsers, or a file."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path

import rerun as rr

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.files import new_file, remove_unfinished

SUFFIX = ".rrd"

SERVED = "(from another machine with this one's name for both localhosts; Ctrl-C ends it)"  # what to say of `address`

_ROOM = 256 << 20  # bytes that stay free beside a file: on a full disk Rerun's writer waits for ever
_PATIENCE_S = 60.0  # for what was logged to arrive
_VIEWER_PORT = 9876  # Rerun's own choice, at which a viewer that is open already is found
_LOOK_EVERY_S = 2.0
_LIVE_MEMORY = "2GB"  # of the viewer: what is older is forgotten
_Check = Callable[[], None]


class NoRoom(ZeroFlowError):
    """The disk is all but full. What has been recorded until then can still be written."""


def outlet(
    stream: rr.RecordingStream, save: Path | None, port: int | None, *, live: bool = False
) -> AbstractContextManager[_Check]:
    """A file where `save` names one, browsers where there is a `port`, and else the screen.

    Yields what is to be called before each moment.
    """
    if save is not None:
        return to_file(stream, save)
    return to_screen(stream, live=live) if port is None else to_browsers(stream, port)


@contextmanager
def to_screen(stream: rr.RecordingStream, *, live: bool) -> Iterator[_Check]:
    """The viewer, which stays open. Where one is open already, the recording is added to it.

    live: it forgets what is old, so that it can stay open for days

    Raises:
        ZeroFlowError: there is no screen, or the viewer does not start.
    """
    if sys.platform == "linux" and not any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY"))):
        raise ZeroFlowError(
            "there is no screen to show it on (neither DISPLAY nor WAYLAND_DISPLAY is set): save it with "
            "--save scene.rrd, or show it in a browser with --serve"
        )
    try:
        rr.spawn(
            port=_VIEWER_PORT,
            executable_path=_executable(),
            hide_welcome_screen=True,
            memory_limit=_LIVE_MEMORY if live else "75%",
            recording=stream,
        )
    except RuntimeError as error:
        raise ZeroFlowError(f"the Rerun viewer did not start: {str(error).splitlines()[0]}") from error
    watch = _Watch()
    yield watch.check
    deadline = time.monotonic() + _PATIENCE_S
    while True:  # in steps: a viewer that is gone is not waited for
        try:
            _flush(stream, _LOOK_EVERY_S)
            return
        except ZeroFlowError:
            watch.check()
            if time.monotonic() > deadline:
                raise


class _Watch:
    """Notices when the viewer is closed."""

    def __init__(self) -> None:
        self._looked = time.monotonic()

    def check(self) -> None:
        if time.monotonic() - self._looked < _LOOK_EVERY_S:
            return
        self._looked = time.monotonic()
        try:
            socket.create_connection(("127.0.0.1", _VIEWER_PORT), timeout=1.0).close()
        except ConnectionRefusedError:
            raise ZeroFlowError(
                "the viewer was closed, or did not start, of which it said the cause; --save writes a file instead"
            ) from None
        except OSError:  # too busy to answer
            return


@contextmanager
def to_browsers(stream: rr.RecordingStream, port: int) -> Iterator[_Check]:
    """A web page at `port`, which takes the recording from the port after it, until the block ends.

    Raises:
        ZeroFlowError: one of the ports is taken.
    """
    for wanted in (port, port + 1):
        _check_free(wanted)
    # Pages from here, under whatever name this machine has elsewhere.
    stream.serve_grpc(grpc_port=port + 1, cors_allow_origin=[f"http://*:{port}"])
    try:
        rr.serve_web_viewer(web_port=port, open_browser=False)
    except RuntimeError as error:
        raise ZeroFlowError(f"cannot serve at port {port}: {str(error).splitlines()[0]}") from error
    yield lambda: None


def address(port: int) -> str:
    """Of the page that `to_browsers` serves, on this machine."""
    return f"http://localhost:{port}/?url=rerun%2Bhttp%3A%2F%2Flocalhost%3A{port + 1}%2Fproxy"


@contextmanager
def to_file(stream: rr.RecordingStream, path: Path) -> Iterator[_Check]:
    """A file, which is there once the block has ended well.

    Raises:
        NoRoom: the disk is all but full.
        ZeroFlowError: the file system refuses.
    """

    def check() -> None:
        free = shutil.disk_usage(path.parent).free
        if free < _ROOM:
            raise NoRoom(f"cannot write {path}: {free / 1e6:.0f} MB are left on that disk; make room")

    remove_unfinished(path.parent, [path.name])
    with new_file(path, "wb") as file:
        check()
        try:
            stream.save(file.name)
        except RuntimeError as error:
            raise ZeroFlowError(f"cannot write {path}: {error}") from error
        try:
            yield check
            _flush(stream, _PATIENCE_S)
        finally:
            stream.disconnect()


def check_wishes(save: Path | None, serve: bool, port: int) -> None:
    """Raise ZeroFlowError unless --save, --serve and --port make sense."""
    if save is not None and serve:
        raise ZeroFlowError("--save writes a file and --serve shows it to browsers; give one of them")
    if not 1024 <= port < 65535:
        raise ZeroFlowError(f"--port {port} cannot be; give one from 1024 to 65534")
    if save is None:
        return
    if save.suffix.lower() != SUFFIX or os.path.isdir(save):  # a Path raises where the name is too long
        raise ZeroFlowError(f"--save {save} is no name of a Rerun recording; give a file that ends in {SUFFIX}")
    if not os.path.isdir(save.parent):
        raise ZeroFlowError(f"--save {save}: the folder {save.parent} does not exist; create it first")


def _flush(stream: rr.RecordingStream, seconds: float) -> None:
    try:
        stream.flush(timeout_sec=seconds)
    except Exception as error:
        raise ZeroFlowError(f"not all of the recording arrived: {error}") from error


def _executable() -> str | None:
    """The viewer that comes with the SDK, wherever PATH leads; None: the one that PATH leads to."""
    spec = find_spec("rerun_cli")
    places = [] if spec is None else [Path(place) / "rerun" for place in spec.submodule_search_locations or ()]
    return next((str(place) for place in places if place.is_file()), None)


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # not held up by connections that have just closed
        try:
            probe.bind(("", port))
        except OSError as error:
            raise ZeroFlowError(f"port {port} is taken ({error.strerror}); choose another with --port") from error
