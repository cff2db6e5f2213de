"""Folders that appear complete or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zeroflow_core.errors import ZeroFlowError


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A path to create a folder at, which becomes `path` when the block ends well and vanishes when it fails.

    The path yielded does not exist yet and has the name of `path`. It lies in a hidden folder beside `path`,
    on the same file system, so that the last step is one rename.

    Raises:
        ZeroFlowError: `path` exists already, or the file system refuses (no permission, disk full).
    """
    if path.exists() or path.is_symlink():
        raise ZeroFlowError(f"{path} exists already; remove it or choose another name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            yield hidden / path.name
            os.rename(hidden / path.name, path)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
    except OSError as error:
        raise ZeroFlowError(f"cannot write {path}: {error.strerror or error}") from error
