"""Whatever lists the flow node's parameters, written from the table in settings.py: config/flow.yaml, its JSON schema
and config/README.md.

    python -m zeroflow_ros.parameters.files            # write them
    python -m zeroflow_ros.parameters.files --check    # exit with 1 where one is not what it would write
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from itertools import groupby
from pathlib import Path
from typing import Any

from zeroflow_ros.parameters.settings import Entry, table

_WIDTH = 120
_YAML_HEAD = """\
# yaml-language-server: $schema=flow.schema.json
# Parameters of the flow node, each with its default. Give a changed copy to the launch file:
#
#     ros2 launch zeroflow_ros flow.launch.py params_file:=/path/to/flow.yaml
#
# Launch arguments win over this file; what it leaves out has its default.
#
# [live]       may be changed at any time (ros2 param set), for the next cloud
# [configure]  is read when the node is configured; to change it later, deactivate the node and clean it up first
# [fixed]      is read when the node starts, and never changes
/**:
  ros__parameters:
"""
_JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", tuple: "array"}
_NODE_SCHEMA = "#/definitions/flow_node"


def generated(repository: Path) -> dict[Path, str]:
    """What the files in `repository` should hold, by path."""
    return {
        repository / "config" / "flow.yaml": yaml_text(),
        repository / "config" / "flow.schema.json": json.dumps(schema(), indent=2, ensure_ascii=False) + "\n",
        repository / "config" / "README.md": readme_text(),
    }


def yaml_text() -> str:
    """config/flow.yaml: every parameter with its default, below its group's heading, after what it means."""
    lines = [_YAML_HEAD.rstrip()]
    for group, entries in groupby(table(), key=lambda entry: entry.group):
        lines += ["", f"    # ---- {group} ----"]
        for entry in entries:
            notes = "; ".join(filter(None, (entry.when, _values(entry))))
            lines += textwrap.wrap(
                f"{entry.description} [{notes}]", _WIDTH, initial_indent="    # ", subsequent_indent="    # "
            )
            lines.append(f"    {entry.name}: {_yaml_value(entry.default)}")
    return "\n".join(lines) + "\n"


def schema() -> dict[str, Any]:
    """The JSON schema (draft 7) of such a file."""
    others = {"use_sim_time": {"type": "boolean"}, "qos_overrides": {"type": "object"}}
    node = {
        "type": "object",
        "properties": {entry.name: _property(entry) for entry in table()} | others,
        "additionalProperties": False,
    }
    section = {
        "type": "object",
        "properties": {"ros__parameters": {"$ref": _NODE_SCHEMA}},
        "required": ["ros__parameters"],
        "additionalProperties": False,
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Parameters of the flow node of zeroflow_ros",
        "type": "object",
        "definitions": {"flow_node": node},
        "properties": {"/**": section},
        "required": ["/**"],
        "additionalProperties": False,
    }


def readme_text() -> str:
    """config/README.md: what lies in the folder, and a table of the parameters with a line for each group."""
    lines = [
        "# Configuration",
        "",
        "- `flow.yaml`: the flow node's parameters, each with its default, to copy and change; `flow.schema.json` is",
        "  its JSON schema, with which editors check and explain it",
        "- `fastdds.xml`: the Fast DDS profile that lets big clouds through",
        "- `flow.rviz`: what RViz shows with `rviz:=true`; `foxglove_layout.json`: likewise, for Foxglove",
        "- `distill/`: recipes that weights are made by, such as those that come along",
        "",
        "## Parameters of the flow node",
        "",
        "`live` parameters may be changed at any time, for the next cloud; `configure` ones are read when the node is",
        "configured (to change them later, deactivate the node and clean it up first), `fixed` ones when it starts.",
        "",
        "| parameter | default | changes | |",
        "|---|---|---|---|",
    ]
    for group, entries in groupby(table(), key=lambda entry: entry.group):
        lines.append(f"| **{group}** | | | |")
        for entry in entries:
            notes = f" ({_values(entry)})" if _values(entry) else ""
            default = f"`{_yaml_value(entry.default)}`"
            lines.append(f"| `{entry.name}` | {default} | {entry.when} | {entry.description}{notes} |")
    return "\n".join(lines) + "\n"


def _property(entry: Entry) -> dict[str, Any]:
    about: dict[str, Any] = {"type": _JSON_TYPES[entry.kind], "description": entry.description}
    if entry.kind is tuple:
        about["items"] = {"type": "string", "enum": list(entry.choices)}
        about["uniqueItems"] = True
    elif entry.choices:
        about["enum"] = list(entry.choices)
    elif entry.kind is str:
        about["minLength"] = 1
    if entry.low is not None:
        about["minimum"], about["maximum"] = entry.low, entry.high
    about["default"] = list(entry.default) if entry.kind is tuple else entry.default
    return about


def _values(entry: Entry) -> str:
    """The values it may have, where its description can't say them; empty elsewhere."""
    if entry.kind is tuple:
        return f"any of {', '.join(entry.choices)}"
    return "" if entry.low is None else f"{entry.low:g} to {entry.high:g}"


def _yaml_value(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(value)}]"
    return value if isinstance(value, str) and re.fullmatch(r"[A-Za-z][\w/.-]*", value) else json.dumps(value)


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description="Write what lists the flow node's parameters.")
    parser.add_argument("--check", action="store_true", help="change nothing, exit with 1 where something would change")
    check = parser.parse_args(arguments).check
    repository = Path(__file__).resolve().parents[2]
    if not (repository / "package.xml").exists():
        print(f"{repository} is no checkout of this project: nothing to write there", file=sys.stderr)
        return 1
    changed = 0
    for path, text in generated(repository).items():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        changed += 1
        if not check:
            path.write_text(text, encoding="utf-8")
        print(f"{path.relative_to(repository)} {'is out of date' if check else 'written'}")
    return 1 if check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
