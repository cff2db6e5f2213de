"""Where this installation keeps the files of launch/, config/ and rosbags/, however it was installed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from zeroflow_core.errors import ZeroFlowError

_SHARE = "share/zeroflow_ros"


def share_file(relative: str) -> Path:
    """The absolute path of a file or folder that is installed under share/zeroflow_ros.

    Args:
        relative: such as "config/fastdds.xml" or "rosbags/small_scanner"

    Raises:
        ZeroFlowError: if no known place has it.
    """
    looked = []
    for folder in _share_folders():
        if (folder / relative).exists():
            return folder / relative
        looked.append(str(folder))
    raise ZeroFlowError(
        f"'{relative}' of zeroflow_ros is in none of: {', '.join(looked)}. "
        "Install the package again with colcon build or pip install ."
    )


def _share_folders() -> Iterator[Path]:
    repository = Path(__file__).resolve().parents[1]
    if (repository / "package.xml").exists():  # a checkout, used in place or through an editable install
        yield repository
    for prefix in filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)):
        if Path(prefix, "share/ament_index/resource_index/packages/zeroflow_ros").exists():
            yield Path(prefix, _SHARE)
    try:
        files = metadata.distribution("zeroflow_ros").files or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:  # knows virtual environments, --user and --prefix alike
        if file.as_posix().endswith(f"{_SHARE}/package.xml"):
            yield Path(str(file.locate())).resolve().parent
    yield Path(sys.prefix, _SHARE)
