"""What is generated from the table of parameters is what is committed, and says what the node says. It needs no ROS."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from zeroflow_core.errors import ZeroFlowError
from zeroflow_ros.parameters import files as parameter_files
from zeroflow_ros.parameters.files import generated, main, readme_text, schema
from zeroflow_ros.parameters.settings import Settings, checked, table

PLAIN_DEFAULTS = json.loads(json.dumps(asdict(Settings())))  # lists for tuples


def test_the_committed_files_are_what_the_table_says(repository: Path):
    outdated = [path.name for path, text in generated(repository).items() if path.read_text() != text]
    assert outdated == [], "run python -m zeroflow_ros.parameters.files and commit what it writes"
    assert main(["--check"]) == 0


def test_the_yaml_holds_every_parameter_with_its_default(repository: Path):
    content = yaml.safe_load((repository / "config" / "flow.yaml").read_text())
    assert list(content) == ["/**"]
    values = content["/**"]["ros__parameters"]
    assert values == PLAIN_DEFAULTS and checked(values) == Settings()
    assert {name: type(value) for name, value in values.items()} == {
        name: type(value) for name, value in PLAIN_DEFAULTS.items()
    }


def test_the_yaml_explains_every_parameter_within_120_columns(repository: Path):
    text = (repository / "config" / "flow.yaml").read_text()
    assert max(map(len, text.splitlines())) <= 120
    said = re.sub(r"\s*#\s*", " ", text)
    for entry in table():
        assert entry.description in said, entry.name


def test_schema_table_and_readme_name_the_same_parameters():
    names = [entry.name for entry in table()]
    node = schema()["definitions"]["flow_node"]
    assert [name for name in node["properties"] if name not in ("use_sim_time", "qos_overrides")] == names
    assert re.findall(r"^\| `(\w+)` \|", readme_text(), re.MULTILINE) == names
    for entry in table():
        about = node["properties"][entry.name]
        assert about["default"] == PLAIN_DEFAULTS[entry.name]
        assert (about.get("minimum"), about.get("maximum")) == (entry.low, entry.high)
        assert about.get("enum", about.get("items", {}).get("enum", [])) == list(entry.choices)


@pytest.fixture(scope="module")
def validator(repository: Path) -> Any:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    committed = json.loads((repository / "config" / "flow.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(committed)
    return jsonschema.Draft7Validator(committed)


def _file(**values: Any) -> dict:
    return {"/**": {"ros__parameters": values}}


def test_the_schema_takes_the_yaml_and_changed_copies_of_it(validator, repository: Path):
    content = yaml.safe_load((repository / "config" / "flow.yaml").read_text())
    assert list(validator.iter_errors(content)) == []
    depth = {"/points": {"subscription": {"depth": 9}}}
    changed = _file(max_gap=1, output_fields=[], use_sim_time=True, qos_overrides=depth)
    assert list(validator.iter_errors(changed)) == []


@pytest.mark.parametrize(
    "values",
    [
        {"max_gapp": 0.5},
        {"max_gap": 11.0},
        {"max_gap": "soon"},
        {"min_points": 2.5},
        {"autostart": "yes"},
        {"deskew": True},
        {"ego_motion": "gps"},
        {"base_frame": ""},
        {"output_fields": ["vx", "colour"]},
        {"output_fields": ["vx", "vx"]},
    ],
)
def test_the_schema_refuses_what_the_node_refuses(validator, values: dict):
    assert list(validator.iter_errors(_file(**values)))
    with pytest.raises(ZeroFlowError):
        checked(values)


def test_a_file_that_has_been_edited_by_hand_is_found_and_written_anew(repository: Path, tmp_path: Path, monkeypatch):
    for name in ("config/flow.yaml", "config/flow.schema.json", "config/README.md", "package.xml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(repository / name, tmp_path / name)
    monkeypatch.setattr(parameter_files, "__file__", str(tmp_path / "zeroflow_ros" / "parameters" / "files.py"))
    edited = tmp_path / "config" / "flow.yaml"
    edited.write_text(edited.read_text().replace("max_gap: 0.5", "max_gap: 0.7"))
    assert main(["--check"]) == 1 and "0.7" in edited.read_text()
    assert main([]) == 0 and "0.7" not in edited.read_text()
    assert main(["--check"]) == 0


def test_the_files_are_written_without_ros():
    program = "import sys, zeroflow_ros.parameters.files; print(any(name.startswith('rcl') for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "False", done.stderr
