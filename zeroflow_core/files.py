"""Files and folders that appear complete or not at all."""

from __future__ import annotations

import fcntl
import glob
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, Any, Literal

from zeroflow_core.errors import ZeroFlowError

_TOKEN = 16  # characters that tell hidden files apart


@contextmanager
def new_file(path: Path, mode: Literal["w", "wb"]) -> Iterator[IO[Any]]:
    """A file to write, which takes the place of `path` when the block ends well and vanishes when it fails.

    Until then it lies hidden beside `path` under a name of its own, so that several processes may write the same file:
    the last one stands. Its folder is made where it is missing.

    mode: as of `open`; text is UTF-8

    Raises:
        ZeroFlowError: the file system refuses (no permission, disk full).
    """
    hidden = path.with_name(f".{secrets.token_hex(_TOKEN // 2)}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(hidden, mode, encoding="utf-8" if mode == "w" else None) as file:
                yield file
            os.replace(hidden, path)
        finally:
            hidden.unlink(missing_ok=True)
    except OSError as error:
        raise ZeroFlowError(f"cannot write {path}: {error.strerror or error}") from error


def remove_unfinished(folder: Path, names: Iterable[str] | None = None) -> None:
    """Remove what writers of files in `folder` and below left behind that were killed. Nobody may be writing there.

    names: only what is left of these files, which are right in `folder`
    """
    hidden = f".{'[0-9a-f]' * _TOKEN}."
    patterns = [f"**/{hidden}*"] if names is None else [f"{hidden}{glob.escape(name)}" for name in names]
    for path in chain.from_iterable(map(folder.glob, patterns)):
        path.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A path to create a folder at, which becomes `path` when the block ends well and vanishes when it fails.

    The path yielded does not exist yet and has the name of `path`. It lies in a hidden folder beside `path`,
    on the same file system, so that the last step is one rename. The hidden folder is locked meanwhile, which
    tells `remove_leftovers` that somebody is at work.

    Raises:
        ZeroFlowError: `path` exists already, or the file system refuses (no permission, disk full).
    """
    if path.exists() or path.is_symlink():
        raise ZeroFlowError(f"{path} exists already; remove it or choose another name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            with locked(hidden):
                yield hidden / path.name
            os.rename(hidden / path.name, path)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
    except OSError as error:
        raise ZeroFlowError(f"cannot write {path}: {error.strerror or error}") from error


def remove_leftovers(path: Path, patience: float = 0.0) -> None:
    """Remove what writers of `path` left behind that were killed.

    patience: seconds to wait for one that is still at work

    Raises:
        ZeroFlowError: somebody is writing `path` now, or the file system refuses.
    """
    deadline = time.monotonic() + patience
    try:
        for hidden in path.parent.glob(f".{glob.escape(path.name)}.*"):
            while True:
                try:
                    with locked(hidden):
                        shutil.rmtree(hidden)
                    break
                except FileNotFoundError:
                    break
                except BlockingIOError as error:
                    if time.monotonic() > deadline:
                        raise ZeroFlowError(f"another process is writing {path}; wait for it or stop it") from error
                    time.sleep(0.1)
    except OSError as error:
        raise ZeroFlowError(f"cannot remove what an earlier run left of {path}: {error.strerror or error}") from error


@contextmanager
def locked(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Hold the folder's lock meanwhile. The kernel drops it when the process ends, however it ends, and with it all
    that it has forked.

    patience: seconds to wait for a lock that another process has. The forked processes of one that was killed, such as
              those that load samples, need some to notice

    Raises:
        BlockingIOError: another process has the lock.
    """
    descriptor, deadline = os.open(folder, os.O_RDONLY), time.monotonic() + patience
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.1)
            except OSError:
                break  # a file system without locks
        yield
    finally:
        os.close(descriptor)


@contextmanager
def held(out: Path, doing: str, patience: float = 0.0) -> Iterator[None]:
    """A command's folder, made where it is missing and held against other processes meanwhile.

    doing:    what one that has it does there, such as "training into", for the message
    patience: as of `locked`

    Raises:
        ZeroFlowError: another process has it, it is a file, or the file system refuses.
    """
    with ExitStack() as stack:
        with writing_to(out):
            if out.exists() and not out.is_dir():
                raise ZeroFlowError(f"{out} is a file; give the folder to write to")
            out.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(locked(out, patience))
            except BlockingIOError as error:
                raise ZeroFlowError(
                    f"another process is {doing} {out}; wait for it, or choose another --out"
                ) from error
        yield


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """What the file system refuses meanwhile is told as a mistake.

    Raises:
        ZeroFlowError: something could not be written.
    """
    try:
        yield
    except OSError as error:
        raise ZeroFlowError(f"cannot write to {folder}: {error.strerror or error}") from error
