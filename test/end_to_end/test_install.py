"""Installed for real, as a user would: sdist and wheel with pip, plain and symlinked with colcon.

Nothing is downloaded. What the package depends on is lent from the environment that runs the tests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import zeroflow_core

SHARED = ("launch", "config", "rosbags")
MARKERS = "share/ament_index/resource_index/packages"
COMMANDS = {
    "zeroflow_core": {
        *("infer", "flow", "convert", "simulate", "distill", "evaluate", "compare"),
        *("render", "view", "export", "download", "doctor"),
    },
    "zeroflow_ros": {"flow_node", "replay", "live_view", "demo"},
}


def _run(command: list, cwd: Path, **environment: str) -> str:
    """The output of a command that must succeed, away from this process's own ROS and Python paths."""
    unset = ("PYTHONPATH", "AMENT_PREFIX_PATH", "COLCON_PREFIX_PATH", "_ROS_WHEELS_BOOTSTRAP_COMPLETE")
    clean = {name: value for name, value in os.environ.items() if name not in unset}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=clean | {"COLUMNS": "120"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory, repository: Path) -> Path:
    """A copy of what git tracks or would track, links kept as links."""
    target = tmp_path_factory.mktemp("source") / "zeroflow_ros"
    listed = _run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], repository)
    for name in filter(None, listed.split("\0")):
        if os.path.lexists(repository / name):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(repository / name, target / name, follow_symlinks=False)
    return target


def _shared_files(source: Path) -> set[str]:
    return {
        str(path.relative_to(source))
        for folder in SHARED
        for path in (source / folder).rglob("*")
        if path.is_file() and path.parent.name != "__pycache__"
    }


def _check_tree(prefix: Path, source: Path) -> None:
    """Both names are in the ament index, with their commands and with every file of launch/, config/, rosbags/."""
    for package, names in COMMANDS.items():
        assert (prefix / MARKERS / package).is_file()
        assert (prefix / "share" / package).is_dir()
        commands = prefix / "lib" / package
        assert {path.name for path in commands.iterdir()} == names
        assert all(os.access(commands / name, os.X_OK) for name in names)
    share = prefix / "share" / "zeroflow_ros"
    assert (share / "package.xml").is_file()
    assert _shared_files(share) == _shared_files(source)


@pytest.fixture(scope="module")
def environment(tmp_path_factory, source: Path) -> Path:
    """A virtual environment with this package from a wheel that was built from the sdist."""
    folder = tmp_path_factory.mktemp("pip")
    backend = "import sys, setuptools.build_meta as build; build.build_sdist(sys.argv[1])"
    _run([sys.executable, "-c", backend, folder], source)
    (sdist,) = folder.glob("*.tar.gz")
    offline = ["--no-deps", "--no-build-isolation", "--no-index"]
    _run([sys.executable, "-m", "pip", "wheel", *offline, "-w", folder, sdist], folder)
    (wheel,) = folder.glob("*.whl")

    _run([sys.executable, "-m", "venv", "--without-pip", "venv"], folder)
    python = folder / "venv" / "bin" / "python"
    site = Path(_run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder).strip())
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    _run([python, "-m", "pip", "install", *offline, "--ignore-installed", wheel], folder)
    return folder / "venv"


def test_pip_installs_everything_ros_looks_for(environment: Path, source: Path):
    _check_tree(environment, source)


def test_pip_installs_the_weights(environment: Path, source: Path):
    (installed,) = environment.glob("lib/python*/site-packages/zeroflow_core")
    weights = {path.name for path in (source / "zeroflow_core" / "weights").iterdir()}
    assert {path.name for path in (installed / "weights").iterdir()} == weights


def test_the_console_command_of_a_pip_install(environment: Path, tmp_path: Path):
    version = _run([environment / "bin" / "zeroflow", "--version"], tmp_path)
    assert version == f"zeroflow {zeroflow_core.__version__}\n"


def test_ros2_run_and_the_console_command_are_the_same_code(environment: Path, tmp_path: Path):
    path = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
    console = _run([environment / "bin" / "zeroflow", "infer", "--help"], tmp_path, PATH=path)
    ros = _run([environment / "lib" / "zeroflow_core" / "infer", "--help"], tmp_path, PATH=path)
    assert "--checkpoint" in console
    assert ros == console


def test_a_pip_install_finds_its_own_files(environment: Path, tmp_path: Path):
    program = """
from importlib.metadata import version
from zeroflow_core.resources import share_file
print(version("zeroflow_ros"), share_file("config/fastdds.xml"))
"""
    found = _run([environment / "bin" / "python", "-c", program], tmp_path)
    share = environment.resolve() / "share" / "zeroflow_ros"
    assert found.split() == [zeroflow_core.__version__, str(share / "config" / "fastdds.xml")]


@pytest.fixture(scope="module", params=["plain", "symlink"])
def workspace(request, tmp_path_factory, source: Path) -> Path:
    """A colcon workspace after `colcon build`, plain and with --symlink-install."""
    folder = tmp_path_factory.mktemp(request.param)
    shutil.copytree(source, folder / "src" / "zeroflow_ros", symlinks=True)
    options = ["--symlink-install"] if request.param == "symlink" else []
    colcon = Path(sys.executable).with_name("colcon")
    said = _run([colcon, "build", "--event-handlers", "console_direct+", *options], folder)
    assert "explicitly install" not in said, said  # colcon-ros warns so when a file has two destinations
    return folder


def test_colcon_installs_everything_ros_looks_for(workspace: Path, source: Path):
    prefix = workspace / "install" / "zeroflow_ros"
    _check_tree(prefix, source)
    config = prefix / "share" / "zeroflow_ros" / "config" / "fastdds.xml"
    linked = workspace.name.startswith("symlink")
    assert (config.resolve() == (workspace / "src/zeroflow_ros/config/fastdds.xml").resolve()) == linked


def test_a_sourced_workspace_runs_its_own_commands(workspace: Path):
    script = """
. install/local_setup.bash
python3 -c 'import zeroflow_core, zeroflow_ros; print(zeroflow_core.__file__, zeroflow_ros.__file__)'
"$(dirname "$(command -v zeroflow)")"/../lib/zeroflow_core/infer --help
"""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    lines = _run(["bash", "-ec", script], workspace, PATH=path).splitlines()
    for file in lines[0].split():
        assert Path(file).is_relative_to(workspace)
    assert "Usage: zeroflow infer" in "\n".join(lines)
