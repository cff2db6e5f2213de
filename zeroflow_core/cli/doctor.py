"""`zeroflow doctor`: what this machine has for ZeroFlow, and what to do about what is missing."""

from __future__ import annotations

import ctypes.util
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from zeroflow_core.errors import ZeroFlowError

_NODE_MESSAGES = ("diagnostic_msgs", "geometry_msgs", "nav_msgs", "sensor_msgs", "visualization_msgs")
_ROS_ONLY = ("launch_ros", "sensor_msgs_py", "tf2_msgs", "tf2_ros")  # not on PyPI
_PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
_ONNX = ("onnx", "onnxscript", "onnxruntime")
_LITTLE_DISK_GB = 5


@dataclass(frozen=True)
class Finding:
    """One line of the report. `advice` is empty where all is well; `needed`: infer fails without it."""

    name: str
    found: str
    advice: str = ""
    needed: bool = False


def doctor() -> None:
    """Show what this machine has for ZeroFlow, and what to do about what is missing.

    Exits with 0 when everything is there that `zeroflow infer` needs, else with 1. What the ROS 2 node,
    datasets or tests need besides is shown, but does not count.

    Example: zeroflow doctor
    """
    found = findings()
    _print(found)
    if any(finding.needed and finding.advice for finding in found):
        raise typer.Exit(1)


def findings() -> list[Finding]:
    """Everything looked at, in the order of the report."""
    checks: list[Callable[[], Finding]] = [_python, _torch, _numba, _checkpoint]
    checks += [_patchwork, _scipy, _open3d, _av2, _rosbags, _kiss_icp, _tensorboard, _ray, _onnx, _av, _rerun]
    checks += [_ros, _messages, _ros_only, _dds_profile, _disk, _test_data]
    return [check() for check in checks]


def _print(found: list[Finding]) -> None:
    console = Console()
    table = Table(box=None, show_header=False, padding=(0, 1))
    for finding in found:
        table.add_row(_mark(finding), Text(finding.name, "bold"), Text(finding.found))
    console.print(table)
    for finding in (f for f in found if f.advice):
        console.print(Text.assemble("\n", (finding.name, "bold"), ": ", finding.advice), end="")
    console.print()


def _mark(finding: Finding) -> Text:
    if not finding.advice:
        return Text("✓", "green")
    return Text("✗", "red") if finding.needed else Text("–", "yellow")


def _python() -> Finding:
    found = f"{platform.python_version()}, {platform.machine()}, {sys.prefix}"
    return Finding("Python", found)


def _torch() -> Finding:
    if not _is_installed("torch"):
        return Finding("torch", "missing", "pip install torch", needed=True)
    import torch

    if torch.cuda.is_available():
        found = f"{torch.__version__}, CUDA on {torch.cuda.get_device_name(0)}, {_multiplies('cuda')}"
        return Finding("torch", found)
    if shutil.which("nvidia-smi"):
        advice = "there is an NVIDIA driver, but this build does not use it: install a CUDA build of torch"
        return Finding("torch", f"{torch.__version__}, CPU only, {_multiplies('cpu')}", advice)
    return Finding("torch", f"{torch.__version__}, CPU with {torch.get_num_threads()} threads, {_multiplies('cpu')}")


def _multiplies(device: str) -> str:
    from zeroflow_core.devices import choose_precision

    return "fp32 and bf16" if choose_precision("auto", device) == "bf16" else "fp32 (no bf16)"


def _numba() -> Finding:
    """It may be there and not know the numpy beside it: only an import shows that."""
    use = "compiles the student's CPU kernels at first use"
    try:
        return Finding("numba", f"{import_module('numba').__version__}, {use}")
    except Exception as error:  # SystemError, for one, beside a numpy that is much too new
        advice = "pip install -U numba; on a CPU the student needs it unless --engine reference, which is slower"
        return Finding("numba", f"cannot be imported ({error}); {use}", advice, needed=not _has_gpu())


def _has_gpu() -> bool:
    if not _is_installed("torch"):
        return False
    import torch

    return torch.cuda.is_available()


def _checkpoint() -> Finding:
    name = "default weights"
    if not _is_installed("torch"):
        return Finding(name, "can't be read without torch", "install torch first", needed=True)
    from zeroflow_core.fastflow3d.checkpoint import load_model

    try:
        _, described = load_model("default")
    except ZeroFlowError as error:
        return Finding(name, "missing", str(error), needed=True)
    return Finding(name, described["name"])


def _patchwork() -> Finding:
    return _package("pypatchworkpp", "finds ground points")


def _scipy() -> Finding:
    return _package("scipy", "the teachers' nearest neighbours")


def _open3d() -> Finding:
    finding = _package("open3d", "groups points into objects")
    if finding.found.startswith("0.20.") and not ctypes.util.find_library("usb-1.0"):
        return Finding("open3d", finding.found, "0.20 needs libusb: sudo apt install libusb-1.0-0")
    return finding


def _av2() -> Finding:
    return _package("av2", "Argoverse 2's own tools")


def _rosbags() -> Finding:
    return _package("rosbags", "reads and writes bags without ROS")


def _kiss_icp() -> Finding:
    return _package("kiss-icp", "ego motion for bags without odometry and TF")


def _tensorboard() -> Finding:
    return _package("tensorboard", "curves of zeroflow distill train", extra="train")


def _ray() -> Finding:
    return _package("ray", "zeroflow distill label over several machines", extra="ray")


def _onnx() -> Finding:
    missing = [name for name in _ONNX if not _is_installed(name)]
    if not missing:
        return Finding("onnx", f"{metadata.version('onnx')}, writes and checks zeroflow export's files")
    found = f"missing: {', '.join(missing)}; only zeroflow export needs them"
    return Finding("onnx", found, "pip install 'zeroflow_ros[onnx]'")


def _av() -> Finding:
    return _package("av", "films of zeroflow render as .mp4")


def _rerun() -> Finding:
    return _package("rerun-sdk", "the viewer of zeroflow view", extra="viz")


def _package(name: str, use: str, extra: str = "") -> Finding:
    try:
        return Finding(name, f"{metadata.version(name)}, {use}")
    except metadata.PackageNotFoundError:
        what = f"'zeroflow_ros[{extra}]'" if extra else name
        return Finding(name, f"missing; {use}", f"pip install {what}")


def _ros() -> Finding:
    middleware = os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp by default")
    if _is_installed("rclpy"):
        return Finding("ROS 2", f"{_ros_origin()}; {middleware}")
    sourceable = sorted(Path("/opt/ros").glob("*/setup.bash"))
    if sourceable:
        return Finding("ROS 2", f"in {sourceable[-1].parent}, but not sourced", f". {sourceable[-1]}")
    advice = "install ROS 2 Humble or later"
    if platform.machine() == "x86_64":
        advice += ", or the wheels: pip install '.[ros]' in a checkout"
    return Finding("ROS 2", "missing; only the node needs it", advice)


def _ros_origin() -> str:
    try:
        return f"wheels from PyPI, rclpy {metadata.version('ros-rclpy')}"
    except metadata.PackageNotFoundError:
        distribution = os.environ.get("ROS_DISTRO", "unknown distribution")
        return f"{distribution}, rclpy in {Path(_origin('rclpy')).parents[1]}"


def _messages() -> Finding:
    missing = [name for name in _NODE_MESSAGES if not _is_installed(name)]
    if not missing:
        return Finding("messages", ", ".join(_NODE_MESSAGES))
    prefix = f"ros-{os.environ.get('ROS_DISTRO', '<distro>')}-"
    packages = " ".join(prefix + name.replace("_", "-") for name in missing)
    advice = f"sudo apt install {packages}, or the wheels: pip install '.[ros]' in a checkout"
    return Finding("messages", f"missing: {', '.join(missing)}; only the node needs them", advice)


def _ros_only() -> Finding:
    missing = [name for name in _ROS_ONLY if not _is_installed(name)]
    if not missing:
        return Finding("tf, launch", ", ".join(_ROS_ONLY))
    advice = (
        "only a ROS 2 installation has these; without them ego motion comes from odometry or the clouds, not from /tf, "
        "and the node starts with python3 -m zeroflow_ros.flow_node instead of ros2 launch"
    )
    return Finding("tf, launch", f"missing: {', '.join(missing)}", advice)


def _dds_profile() -> Finding:
    name = "Fast DDS profile"
    chosen = next((os.environ[v] for v in _PROFILE_VARIABLES if os.environ.get(v)), "")
    if chosen and Path(chosen).is_file():
        return Finding(name, chosen)
    from zeroflow_core.resources import share_file

    found = f"{chosen} does not exist" if chosen else "not set"
    settings = " ".join(f"{variable}={share_file('config/fastdds.xml')}" for variable in _PROFILE_VARIABLES)
    advice = f"without it clouds above 0.5 MB get lost between processes: export {settings}"
    return Finding(name, f"{found}; launch file and demo bring their own", advice)


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    advice = "logs and labels take gigabytes: make room, or work on another disk"
    return Finding("free disk", f"{free:.0f} GB in {Path.cwd()}", advice if free < _LITTLE_DISK_GB else "")


def _test_data() -> Finding:
    folder = os.environ.get("ZEROFLOW_TEST_DATA", "")
    if folder and Path(folder).is_dir():
        return Finding("test data", folder)
    found = f"{folder} is not a folder" if folder else "ZEROFLOW_TEST_DATA is not set"
    advice = "set it to a folder of Argoverse 2 logs; the tests on real sweeps are skipped without it"
    return Finding("test data", found, advice)


def _is_installed(module: str) -> bool:
    return _origin(module) is not None


def _origin(module: str) -> str | None:
    spec = find_spec(module)
    return spec.origin if spec else None  # None, too, for a mere folder of that name: launch/ of a checkout
