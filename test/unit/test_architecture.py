"""Who may import whom, what a start must not load, and nothing that is true of one machine only."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

# From the ground up. A part of zeroflow_core imports only parts of lower layers, or itself. "" is
# zeroflow_core/__init__.py, whose public names come from the layers below it.
LAYERS = [
    {"errors", "version"},
    {"devices", "files", "geometry", "memory", "resources", "workers"},
    {"pairs"},
    {"ego_motion", "ground", "objects", "verification"},
    {"datasets", "fastflow3d", "nsfp", "still_map", "tracking"},
    {"moments"},
    {"drawing"},
    {"evaluation", "viewing"},
    {"simulation"},
    {""},
    {"distillation"},
    {"playback"},
    {"bench"},
    {"cli"},
]
LAYER_OF = {part: number for number, parts in enumerate(LAYERS) for part in parts}
ROS = re.compile(r"(rclpy|launch\w*|tf2_\w+|\w+_msgs|\w+_msgs_py|ament_\w+|rosidl_\w+|zeroflow_ros)(\.|$)")
HEAVY = {"av2", "kornia", "matplotlib", "numba", "open3d", "pandas", "polars", "scipy", "sklearn"}


def _imports(path: Path) -> set[str]:
    """Every module a file imports anywhere in it; ``from a import b`` counts as a and as a.b."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute here"
            names |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _core_files(repository: Path) -> list[Path]:
    files = sorted((repository / "zeroflow_core").rglob("*.py"))
    assert files
    return files


def test_the_core_knows_no_ros(repository: Path):
    found = [f"{path}: {name}" for path in _core_files(repository) for name in _imports(path) if ROS.match(name)]
    assert found == []


def test_imports_point_downwards(repository: Path):
    upwards = []
    for path in _core_files(repository):
        part = _part(".".join(path.relative_to(repository).with_suffix("").parts), repository)
        assert part in LAYER_OF, f"{path}: say in LAYERS where '{part}' belongs"
        for name in _imports(path):
            if name.partition(".")[0] != "zeroflow_core":
                continue
            target = _part(name, repository)
            if target != part and LAYER_OF[target] >= LAYER_OF[part]:
                upwards.append(f"{path.relative_to(repository)} imports {name}")
    assert upwards == []


def _part(module: str, repository: Path) -> str:
    """The first name below zeroflow_core, or "" where that is no module but a name of the package itself."""
    name = [*module.removesuffix(".__init__").split("."), ""][1]
    core = repository / "zeroflow_core"
    return name if (core / name).is_dir() or (core / f"{name}.py").exists() else ""


def _loaded_by(module: str, unwanted: set[str]) -> set[str]:
    program = f"import sys, {module}; print(*sorted(set(sys.modules) & {unwanted!r}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["zeroflow_core", "zeroflow_core.cli.main"])
def test_starting_a_command_loads_nothing_heavy(module: str):
    assert _loaded_by(module, HEAVY | {"torch", "pypatchworkpp", "rclpy"}) == set()


def test_starting_the_node_loads_nothing_it_may_not_need():
    if importlib.util.find_spec("rclpy") is None:
        pytest.skip("rclpy is not installed: no ROS 2 here")
    assert _loaded_by("zeroflow_ros.flow_node", HEAVY) == set()


def test_no_file_names_a_place_of_one_machine(repository: Path):
    places = re.compile(r"(?<![\w.$}>])/(home|root|Users)/|/tmp/[a-z]")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=repository, capture_output=True, text=True, check=True, timeout=60
    )
    found = []
    for name in filter(None, listed.stdout.split("\0")):
        path = repository / name
        if path.is_file() and path != Path(__file__).resolve():
            text = path.read_bytes()[:200_000].decode("utf-8", errors="ignore")
            found += [f"{name}: {line.strip()}" for line in text.splitlines() if places.search(line)]
    assert found == []
