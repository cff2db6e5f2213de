"""The flow node's parameters: one table, from which they are declared, checked and read."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import ParameterException
from rclpy.node import Node

from zeroflow_core.errors import ZeroFlowError


def _parameter(
    default: Any,
    description: str,
    *,
    choices: tuple[str, ...] = (),
    low: float | None = None,
    high: float | None = None,
) -> Any:
    metadata = {"description": description, "choices": choices, "low": low, "high": high}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """What the node was told. All of it is fixed once the node runs."""

    checkpoint: str = _parameter(
        "default", "Weights of the student: a .ckpt or .safetensors file, or 'default' for those that come along."
    )
    device: str = _parameter("auto", "Where the student runs: auto (CUDA where there is a GPU), cpu, cuda or cuda:n.")
    engine: str = _parameter(
        "fast",
        "What computes the student's flow, with the same weights: the inference engine (fast), or the plain modules "
        "that train (reference).",
        choices=("fast", "reference"),
    )
    precision: str = _parameter(
        "auto",
        "Numbers the student multiplies: fp32, bf16, or what the checkpoint names, else bf16 on GPUs and x86 CPUs that "
        "multiply it and else fp32 (auto; fp32 with the reference engine). Other CPUs do bf16 as well, but slowly.",
        choices=("auto", "fp32", "bf16"),
    )
    streaming: str = _parameter(
        "none",
        "What is kept of the cloud before: nothing (none), or what the fast engine on a CPU computed of it, for which "
        "the grid stands still in the world until the vehicle has moved some metres (anchored). The reference engine "
        "and a GPU keep nothing: there, anchored only moves the grid.",
        choices=("none", "anchored"),
    )
    flow_target: str = _parameter(
        "current",
        "Whose points get a velocity: those of the newest cloud (current), or of the one before (previous), "
        "which is how the published weights were trained.",
        choices=("current", "previous"),
    )
    max_gap: float = _parameter(
        0.5, "Seconds between two clouds above which they are no pair and the node starts anew.", low=0.01, high=10.0
    )
    ego_motion: str = _parameter(
        "auto",
        "Where the vehicle's motion comes from: the odom topic (odom), transforms (tf), the clouds themselves "
        "(kiss_icp), nowhere as it stands still (none), or the odom topic where it is published and transforms "
        "elsewhere (auto).",
        choices=("auto", "odom", "tf", "kiss_icp", "none"),
    )
    ego_motion_timeout: float = _parameter(
        0.2, "Seconds a cloud waits for the pose of its moment, which may arrive after it.", low=0.0, high=5.0
    )
    odom_frame: str = _parameter("odom", "The fixed frame, when poses come from transforms.")
    base_frame: str = _parameter(
        "base_link", "The vehicle frame, unless odometry names it as its child frame: x forward, y left, z up."
    )
    deskew: bool = _parameter(
        False,
        "Whether clouds are not yet compensated for the vehicle's motion during a sweep, which is then done here, by "
        "the points' times.",
    )
    ground: str = _parameter(
        "auto",
        "How ground points are found and left out: by Patchwork++ (patchwork), not at all (none), or as the student "
        "was trained (auto).",
        choices=("auto", "patchwork", "none"),
    )
    z_offset: float = _parameter(
        0.0,
        "Metres added to z before the network and undone after it, so that the ground lies where it lay in training.",
        low=-10.0,
        high=10.0,
    )
    min_speed: float = _parameter(
        0.5, "Metres per second from which a point counts as moving, for the markers.", low=0.05, high=50.0
    )
    min_points: int = _parameter(10, "Moving points that make an object, for the markers.", low=3, high=10000)


def declare(node: Node) -> Settings:
    """Declare every parameter on `node`, with description, range and read-only mark, and read them.

    Raises:
        ZeroFlowError: a value of the wrong type, out of its range, or not among the choices.
    """
    values = {}
    for entry in fields(Settings):
        kind = type(entry.default)
        try:
            value = node.declare_parameter(entry.name, entry.default, _descriptor(entry)).value
        except ParameterException as error:
            raise ZeroFlowError(f"parameter {entry.name}: {error}") from error
        values[entry.name] = _checked(entry, float(value) if kind is float and type(value) is int else value)
    return Settings(**values)


def _descriptor(entry: Any) -> ParameterDescriptor:
    about = entry.metadata
    descriptor = ParameterDescriptor(description=about["description"], read_only=True)
    # An integer for a number with a point (max_gap:=1) is no mistake; rclpy alone would refuse it.
    descriptor.dynamic_typing = isinstance(entry.default, float)
    if about["choices"]:
        descriptor.additional_constraints = "one of: " + ", ".join(about["choices"])
    if about["low"] is not None:
        if isinstance(entry.default, float):
            descriptor.floating_point_range = [FloatingPointRange(from_value=about["low"], to_value=about["high"])]
        else:
            descriptor.integer_range = [IntegerRange(from_value=about["low"], to_value=about["high"])]
    return descriptor


def _checked(entry: Any, value: Any) -> Any:
    about = entry.metadata
    if type(value) is not type(entry.default):
        expected = {float: "a number", int: "an integer", str: "a text", bool: "true or false"}[type(entry.default)]
        raise ZeroFlowError(f"parameter {entry.name} is {value!r}, but must be {expected}")
    if about["choices"] and value not in about["choices"]:
        raise ZeroFlowError(f"parameter {entry.name} is '{value}', but must be one of: {', '.join(about['choices'])}")
    if about["low"] is not None and not about["low"] <= value <= about["high"]:
        raise ZeroFlowError(f"parameter {entry.name} is {value}, but must be {about['low']} to {about['high']}")
    return value
