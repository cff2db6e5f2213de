"""Published checkpoints from their repository to a file here: resumed, checked, and under its name only when whole."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, build_opener

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.fastflow3d.published import Published, check_content, git_object_id
from zeroflow_core.files import locked
from zeroflow_core.version import VERSION

MOST_BYTES = 1 << 28  # more than twice what a file may have in a repository there
_PART = ".part"
_TIMEOUT_S = 30.0  # without a byte
_BLOCK = 1 << 18


def download(
    published: Published,
    folder: Path,
    force: bool = False,
    on_progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> tuple[Path, bool]:
    """Put a checkpoint into `folder` (made where it is missing), unless it is there.

    What arrives is written to a file beside it that ends in ``.part``, where an interrupted download goes on, and takes
    its name when it is the published content to the last bit. Whoever downloads into the same folder at the same time
    waits. Proxies are taken from the environment.

    force:       fetch it again in any case
    on_progress: called with the bytes that are there and with all there will be, None where the server does not say

    Returns:
        The file, and whether it is new.

    Raises:
        ZeroFlowError: no connection, another answer than the file, or the folder cannot be written; also, without
            `force`, a file of that name that is not the published one.
    """
    path = folder / published.file_name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder, patience=math.inf):
            if path.exists() and not force:
                check_content(path, published)
                return path, False
            part = path.with_name(path.name + _PART)
            if not _is_whole(part, published):
                _fetch(published, path, part, on_progress)
                _check(part, published)
            os.replace(part, path)
    except OSError as error:
        raise ZeroFlowError(
            f"cannot write {path}: {error.strerror or error}; give another folder with --to or $ZEROFLOW_CACHE"
        ) from error
    return path, True


def _is_whole(part: Path, published: Published) -> bool:
    return part.is_file() and git_object_id(part) == published.git_id


def _check(part: Path, published: Published) -> None:
    if _is_whole(part, published):
        return
    size = part.stat().st_size
    part.unlink()
    raise ZeroFlowError(
        f"what came from {published.url} is not {published.name} ({size:,} bytes of other content) and was thrown "
        "away; a proxy or a login page may have answered: try again, or open that address in a browser"
    )


def _fetch(published: Published, path: Path, part: Path, on_progress: Callable[[int, int | None], None]) -> None:
    """All of the file's bytes, or what is missing of them, into `part`."""
    done = part.stat().st_size if part.is_file() else 0
    headers = {"User-Agent": f"zeroflow/{VERSION}"}
    if done:
        headers["Range"] = f"bytes={done}-"
    try:
        answer = build_opener().open(Request(published.url, headers=headers), timeout=_TIMEOUT_S)
    except HTTPError as error:
        if error.code == 416 and done:  # the part is longer than the file: not a part of it
            part.unlink()
            return _fetch(published, path, part, on_progress)
        raise _failed(published, path, f"the server answered {error.code} {error.reason}") from error
    except (OSError, HTTPException, ValueError) as error:
        host = urlsplit(published.url).hostname
        raise _failed(published, path, f"there is no connection to {host} ({_reason(error)})") from error
    with answer:
        if not _goes_on(answer, done):
            done = 0
        _receive(answer, published, part, done, on_progress)
    return None


def _goes_on(answer: HTTPResponse, done: int) -> bool:
    """Whether it is what was asked for, from byte `done` on, and not the file from its beginning."""
    return answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {done}-")


def _receive(
    answer: HTTPResponse,
    published: Published,
    part: Path,
    done: int,
    on_progress: Callable[[int, int | None], None],
) -> None:
    length = answer.headers.get("Content-Length", "")
    total = done + int(length) if length.isdecimal() else None
    broken = ""
    on_progress(done, total)
    with open(part, "ab" if done else "wb") as file:
        while done <= MOST_BYTES:
            try:
                block = answer.read1(_BLOCK)  # what has come: all of it is kept if no more does
            except (OSError, HTTPException) as error:
                broken = _reason(error)
                break
            if not block:
                break
            file.write(block)
            done += len(block)
            on_progress(done, total)
    if done > MOST_BYTES:
        part.unlink()
        raise ZeroFlowError(f"{published.url} has more than {MOST_BYTES >> 20} MiB, or never ends: it is no checkpoint")
    if total is not None and done < total:
        broken = broken or "it ended early"
    if broken:
        of_all = "" if total is None else f" of {total / 1e6:.1f}"
        raise ZeroFlowError(
            f"the connection broke off after {done / 1e6:.1f}{of_all} MB of {published.name} ({broken}); "
            "the same command goes on from there"
        )


def _failed(published: Published, path: Path, why: str) -> ZeroFlowError:
    return ZeroFlowError(
        f"{published.name} cannot be downloaded: {why}. Download {published.url} where there is a network and put the "
        f"file here: {path}"
    )


def _reason(error: Exception) -> str:
    """Of an URLError it is another exception, or a text."""
    cause = getattr(error, "reason", error)
    return str(getattr(cause, "strerror", None) or cause or type(cause).__name__)
