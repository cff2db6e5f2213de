"""The package description: package.xml, setup.cfg, setup.py and the launcher agree with each other and the code."""

from __future__ import annotations

import ast
import configparser
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from catkin_pkg.package import parse_package

import zeroflow_core
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.resources import share_file

COMMANDS = {
    "zeroflow_core": {
        *("infer", "flow", "convert", "simulate", "distill", "evaluate", "compare"),
        *("render", "view", "export", "download", "doctor"),
    },
    "zeroflow_ros": {"flow_node", "replay", "live_view", "demo"},
}
BROUGHT_ALONG = {"triton"}  # by CUDA builds of torch; only loaded where there is a GPU
# Where a distribution and its module differ in name.
MODULE_OF = {"kiss-icp": "kiss_icp", "pillow": "PIL", "pyyaml": "yaml", "rerun-sdk": "rerun", "tf2_ros_py": "tf2_ros"}


@pytest.fixture(scope="module")
def manifest(repository: Path):
    """package.xml, parsed; not one warning of the ROS validator is tolerated."""
    warnings: list[str] = []
    package = parse_package(str(repository / "package.xml"), warnings=warnings)
    package.validate(warnings=warnings)
    assert warnings == []
    return package


def test_package_xml_is_what_rep_149_asks_for(manifest):
    assert manifest.package_format == 3
    assert [str(licence) for licence in manifest.licenses] == ["Apache-2.0"]
    assert {url.type for url in manifest.urls} == {"website", "repository", "bugtracker"}
    assert manifest.get_build_type() == "ament_python"


def test_there_is_one_version(manifest):
    assert manifest.version == zeroflow_core.__version__


def test_every_foreign_import_is_declared(manifest, repository: Path):
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(repository / "setup.cfg")
    required = setup["options"]["install_requires"]
    required += "".join(setup["options.extras_require"][extra] for extra in ("onnx", "train", "ray", "viz"))
    distributions = re.findall(r"^[\w-]+", required, re.MULTILINE)
    declared = {MODULE_OF.get(name, name) for name in distributions}
    declared |= {MODULE_OF.get(dependency.name, dependency.name) for dependency in manifest.exec_depends}
    declared |= BROUGHT_ALONG | {"zeroflow_core", "zeroflow_ros", *sys.stdlib_module_names}

    undeclared = {
        f"{path.relative_to(repository)} imports {module}"
        for folder in ("zeroflow_core", "zeroflow_ros", "launch")
        for path in (repository / folder).rglob("*.py")
        for module in _imported_packages(path)
        if module not in declared
    }
    assert undeclared == set()


def _imported_packages(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


@pytest.fixture(scope="module")
def data_files(repository: Path) -> list[tuple[str, str]]:
    """What setup.py installs beside the Python packages, as (source, destination folder)."""
    program = """
import json, setuptools
from distutils.core import run_setup
files = run_setup("setup.py", stop_after="init").data_files
print(json.dumps([(source, folder) for folder, sources in files for source in sources]))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [tuple(pair) for pair in json.loads(done.stdout)]


def test_each_file_is_installed_once(data_files):
    sources = [source for source, _ in data_files]
    assert len(sources) == len(set(sources)), "colcon keeps one destination per source file"


def test_every_command_is_an_installed_link_to_the_launcher(data_files, repository: Path):
    for package, names in COMMANDS.items():
        assert {path.name for path in (repository / "scripts" / package).iterdir()} == names
        for name in names:
            path = repository / "scripts" / package / name
            assert (f"scripts/{package}/{name}", f"lib/{package}") in data_files
            assert os.readlink(path) == "../command"
            assert os.access(path, os.X_OK)


def test_the_launcher_names_modules_with_a_main(repository: Path):
    source = (repository / "scripts" / "command").read_text()
    modules = set(re.findall(r'"(zeroflow_\w+(?:\.\w+)+)"', source))
    assert len(modules) == len(COMMANDS["zeroflow_ros"]) + 1
    for module in modules:
        tree = ast.parse((repository / (module.replace(".", "/") + ".py")).read_text())
        assert "main" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, module


@pytest.fixture
def launcher(tmp_path: Path, repository: Path) -> Path:
    """lib/zeroflow_core/infer of an installation prefix that holds nothing else."""
    path = tmp_path / "lib" / "zeroflow_core" / "infer"
    path.parent.mkdir(parents=True)
    path.write_text((repository / "scripts" / "command").read_text())
    return path


def _launch_without_packages(launcher: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", launcher, "--pc0", "a b"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_the_launcher_turns_to_the_python_of_its_prefix(launcher: Path):
    python = launcher.parents[2] / "bin" / "python3"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\nfor word; do echo "$word"; done; echo "[$LD_LIBRARY_PATH]"\n')
    python.chmod(0o755)

    plain = _launch_without_packages(launcher, LD_LIBRARY_PATH="kept")
    assert plain.stdout.splitlines() == [str(launcher), "--pc0", "a b", "[kept]"], plain.stderr

    environment = {"LD_LIBRARY_PATH": "another environment's", "_ROS_WHEELS_BOOTSTRAP_COMPLETE": "1"}
    inherited = _launch_without_packages(launcher, **environment)
    assert inherited.stdout.splitlines()[-1] == "[]", inherited.stderr


def test_the_launcher_says_what_is_missing_when_no_python_has_it(launcher: Path):
    done = _launch_without_packages(launcher)
    assert done.returncode == 1
    assert "No module named 'zeroflow_core'" in done.stderr


def test_share_files_are_found_through_the_ament_index(tmp_path: Path, monkeypatch):
    installed = tmp_path / "share" / "zeroflow_ros" / "config" / "only_here.yaml"
    installed.parent.mkdir(parents=True)
    installed.touch()
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path / 'other'}{os.pathsep}{tmp_path}")
    with pytest.raises(ZeroFlowError, match="only_here.yaml"):
        share_file("config/only_here.yaml")  # no marker yet: this prefix does not have the package

    marker = tmp_path / "share" / "ament_index" / "resource_index" / "packages" / "zeroflow_ros"
    marker.parent.mkdir(parents=True)
    marker.touch()
    assert share_file("config/only_here.yaml") == installed
