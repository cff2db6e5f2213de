"""The flow node's parameters: one table, from which they are declared, checked, read and documented. No ROS in here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.geometry import SE3

# When a changed value takes effect.
WHEN = {
    "fixed": "Read-only: set it when starting the node.",
    "configure": "Read when the node is configured; to change it later, clean the node up first.",
    "live": "May be changed at any time, for the next cloud.",
}
OUTPUT_FIELDS = ("intensity", "ring", "t", "vx", "vy", "vz", "speed", "rgb", "status")
_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "a text",
    tuple: "a list of texts",
}


def _entry(
    default: Any,
    when: str,
    group: str,
    description: str,
    *,
    choices: tuple[str, ...] = (),
    low: float | None = None,
    high: float | None = None,
) -> Any:
    about = {"when": when, "group": group, "description": description, "choices": choices, "low": low, "high": high}
    return field(default=default, metadata=about)


_START, _STUDENT, _PAIRS, _EGO_MOTION = "Start", "Student", "Pairs of clouds", "Ego motion"
_GROUND, _FLOW, _OBJECTS, _MAP, _DIAGNOSTICS = "Ground", "Flow", "Moving objects", "Map", "Diagnostics"


@dataclass(frozen=True)
class Settings:
    """What the node was told; `table` has the same with descriptions and ranges. `checked` makes valid ones."""

    autostart: bool = _entry(
        True,
        "fixed",
        _START,
        "Whether the node configures and activates itself. With false it waits for its lifecycle transitions.",
    )

    checkpoint: str = _entry(
        "default",
        "configure",
        _STUDENT,
        "Weights of the student: a .ckpt or .safetensors file, 'default' for those that come along, or the name of "
        "published ones, once `zeroflow download` has brought them here.",
    )
    device: str = _entry(
        "auto",
        "configure",
        _STUDENT,
        "Where the student runs: auto (CUDA where there is a GPU), cpu, cuda or cuda:n.",
    )
    cpu_fallback: bool = _entry(
        True,
        "live",
        _STUDENT,
        "Whether the CPU takes over when CUDA runs out of memory or the device is lost.",
    )
    engine: str = _entry(
        "fast",
        "configure",
        _STUDENT,
        "What computes the student's flow, with the same weights: the inference engine (fast), or the plain modules "
        "that train (reference).",
        choices=("fast", "reference"),
    )
    precision: str = _entry(
        "auto",
        "configure",
        _STUDENT,
        "Numbers the student multiplies: fp32, bf16, or what the checkpoint names, else bf16 on GPUs and x86 CPUs that "
        "multiply it and else fp32 (auto; fp32 with the reference engine). Other CPUs do bf16 as well, but slowly.",
        choices=("auto", "fp32", "bf16"),
    )
    streaming: str = _entry(
        "none",
        "configure",
        _STUDENT,
        "What is kept of the cloud before: nothing (none), or what the fast engine on a CPU computed of it, for which "
        "the grid stands still in the world until the vehicle has moved some metres (anchored). The reference engine "
        "and a GPU keep nothing: there, anchored only moves the grid. So it does where clouds are closer than "
        "pair_interval, as pairs that follow one another then share none.",
        choices=("none", "anchored"),
    )
    verify: str = _entry(
        "auto",
        "configure",
        _STUDENT,
        "Whether what the student says moves must be borne out by the other cloud, with points where it is said to be "
        "and none where it was, and else stands; takes some milliseconds. As the checkpoint was made for (auto: "
        "default is, published ones are not), always or never.",
        choices=("auto", "always", "never"),
    )

    flow_target: str = _entry(
        "current",
        "configure",
        _PAIRS,
        "Whose points get a velocity: those of the newest cloud (current), or of its partner (previous), which is how "
        "the published weights were trained.",
        choices=("current", "previous"),
    )
    pair_interval: float = _entry(
        0.1,
        "live",
        _PAIRS,
        "Seconds between the two clouds of a pair, as the student was trained: the newest cloud's partner is the one "
        "nearest to that age.",
        low=0.01,
        high=2.0,
    )
    max_gap: float = _entry(
        0.5,
        "live",
        _PAIRS,
        "Seconds between two clouds above which they are no pair and the node starts anew.",
        low=0.01,
        high=10.0,
    )

    ego_motion: str = _entry(
        "auto",
        "configure",
        _EGO_MOTION,
        "Where the vehicle's motion comes from: the odom topic (odom), transforms (tf), the clouds themselves "
        "(kiss_icp), nowhere as it stands still (none), or the first of odom, tf and kiss_icp that there is (auto).",
        choices=("auto", "odom", "tf", "kiss_icp", "none"),
    )
    ego_motion_timeout: float = _entry(
        0.2,
        "live",
        _EGO_MOTION,
        "Seconds a cloud waits for the pose of its moment, which may arrive after it.",
        low=0.0,
        high=5.0,
    )
    odom_frame: str = _entry("odom", "configure", _EGO_MOTION, "The fixed frame, when poses come from transforms.")
    base_frame: str = _entry(
        "base_link",
        "configure",
        _EGO_MOTION,
        "The vehicle frame, unless odometry names it as its child frame: x forward, y left, z up.",
    )
    mounting: str = _entry(
        "tf",
        "configure",
        _EGO_MOTION,
        "Where the clouds' frame is mounted on the vehicle: as the transforms say (tf), or six numbers 'x y z roll "
        "pitch yaw' in metres and radians, in the vehicle frame, as static_transform_publisher takes them.",
    )
    deskew: str = _entry(
        "auto",
        "configure",
        _EGO_MOTION,
        "Whether clouds are compensated here for the vehicle's motion during a sweep, by the points' times (a field t, "
        "time or timestamp): always, never (as the driver does it), or where the clouds tell the ego motion, as no "
        "driver can have done it then (auto).",
        choices=("auto", "always", "never"),
    )
    kiss_icp_range: float = _entry(
        100.0,
        "configure",
        _EGO_MOTION,
        "Metres up to which KISS-ICP uses points.",
        low=5.0,
        high=300.0,
    )

    ground: str = _entry(
        "auto",
        "configure",
        _GROUND,
        "How ground points are found and left out: by Patchwork++ (patchwork), not at all (none), or as the student "
        "was trained (auto).",
        choices=("auto", "patchwork", "none"),
    )
    z_offset: float = _entry(
        0.0,
        "live",
        _GROUND,
        "Metres added to z before the network and undone after it, so that the ground lies where it lay in training.",
        low=-10.0,
        high=10.0,
    )
    estimate_z_offset: bool = _entry(
        True,
        "live",
        _GROUND,
        "Whether, with z_offset 0, clouds are raised by what the ground in them says, where it lies elsewhere than the "
        "student knows it.",
    )

    output_fields: tuple[str, ...] = _entry(
        ("intensity", "vx", "vy", "vz", "speed", "rgb", "status"),
        "live",
        _FLOW,
        "What each row of flow has besides x, y and z.",
        choices=OUTPUT_FIELDS,
    )

    min_speed: float = _entry(
        0.5,
        "live",
        _OBJECTS,
        "Metres per second from which a point counts as moving.",
        low=0.05,
        high=50.0,
    )
    min_points: int = _entry(10, "live", _OBJECTS, "Moving points that make an object.", low=3, high=10000)
    min_extent: float = _entry(
        0.3,
        "live",
        _OBJECTS,
        "Metres an object measures at least, along its longest side.",
        low=0.0,
        high=10.0,
    )
    object_confirmations: int = _entry(
        3, "live", _OBJECTS, "Clouds in which an object must be found before it is shown.", low=1, high=20
    )
    object_timeout: float = _entry(
        0.5,
        "live",
        _OBJECTS,
        "Seconds an object is moved on by its velocity after it was last found, before it vanishes.",
        low=0.0,
        high=5.0,
    )

    map_seconds: float = _entry(
        20.0,
        "live",
        _MAP,
        "Seconds for which the topic ~/map keeps what stands still.",
        low=0.1,
        high=600.0,
    )

    max_latency_ms: float = _entry(
        500.0,
        "live",
        _DIAGNOSTICS,
        "Milliseconds from a cloud's arrival to its flow (p99 of the last ten seconds) above which the node warns.",
        low=1.0,
        high=60_000.0,
    )
    max_latency_error_ms: float = _entry(
        2000.0,
        "live",
        _DIAGNOSTICS,
        "Milliseconds of max_latency_ms above which the node reports an error.",
        low=1.0,
        high=60_000.0,
    )
    max_cloud_age: float = _entry(
        1.0,
        "live",
        _DIAGNOSTICS,
        "Seconds since the last cloud arrived above which the node warns.",
        low=0.05,
        high=3600.0,
    )
    max_cloud_age_error: float = _entry(
        5.0,
        "live",
        _DIAGNOSTICS,
        "Seconds since the last cloud arrived above which the node reports an error.",
        low=0.05,
        high=3600.0,
    )
    max_ego_motion_age: float = _entry(
        0.5,
        "live",
        _DIAGNOSTICS,
        "Seconds since a cloud's pose was last known above which the node warns.",
        low=0.05,
        high=3600.0,
    )
    max_dropped_share: float = _entry(
        0.2,
        "live",
        _DIAGNOSTICS,
        "Share of the clouds of the last ten seconds that may be dropped before the node warns.",
        low=0.0,
        high=1.0,
    )
    max_dropped_share_error: float = _entry(
        0.9, "live", _DIAGNOSTICS, "Share of dropped clouds above which the node reports an error.", low=0.0, high=1.0
    )


@dataclass(frozen=True)
class Entry:
    """A row of the table.

    kind:      bool, int, float, str or tuple (of str)
    when:      a key of WHEN
    group:     heading it stands below in documents
    choices:   the only values (of a tuple: its only members); empty for any
    low, high: bounds of a number, both included
    """

    name: str
    default: Any
    when: str
    group: str
    description: str
    choices: tuple[str, ...]
    low: float | None
    high: float | None

    @property
    def kind(self) -> type:
        return type(self.default)


def table() -> list[Entry]:
    """Every parameter, in the order in which documents list them."""
    return [Entry(entry.name, entry.default, **entry.metadata) for entry in fields(Settings)]


def checked(values: Mapping[str, Any]) -> Settings:
    """The settings with these values and defaults for the rest; whole numbers serve for numbers, lists for tuples.

    Raises:
        ZeroFlowError: an unknown name, a wrong type, out of range, none of the choices, or values that do not fit
            together.
    """
    entries = {entry.name: entry for entry in table()}
    for name in values:
        if name not in entries:
            raise ZeroFlowError(f"parameter {name} is unknown")
    settings = Settings(**{name: entry_value(entries[name], value) for name, value in values.items()})
    _check_together(settings)
    return settings


def mounting_pose(settings: Settings) -> SE3 | None:
    """``vehicle_SE3_cloud`` as the parameter mounting gives it; None where transforms tell.

    Raises:
        ZeroFlowError: it is neither 'tf' nor six numbers.
    """
    if settings.mounting == "tf":
        return None
    try:
        x, y, z, roll, pitch, yaw = (float(number) for number in settings.mounting.split())
        return _about("x", 0.0, (x, y, z)) @ _about("z", yaw) @ _about("y", pitch) @ _about("x", roll)
    except ValueError as error:
        raise ZeroFlowError(
            f"parameter mounting is '{settings.mounting}', but must be tf, or six finite numbers 'x y z roll pitch "
            "yaw' in metres and radians, such as '1.2 0 1.8 0 0 1.5708'"
        ) from error


def _about(axis: str, angle: float, translation: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> SE3:
    """A turn by `angle` radians about one axis, then a shift."""
    first, second = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    rotation = np.eye(3)
    rotation[[first, second], [first, second]] = math.cos(angle)
    rotation[second, first], rotation[first, second] = math.sin(angle), -math.sin(angle)
    return SE3(rotation, np.array(translation))


def entry_value(entry: Entry, value: Any) -> Any:
    """The value as the settings keep it: whole numbers serve for numbers, lists for tuples.

    Raises:
        ZeroFlowError: a wrong type, out of range, or none of the choices.
    """
    if entry.kind is float and type(value) is int:
        value = float(value)
    if entry.kind is tuple and isinstance(value, list):
        value = tuple(value)
    if type(value) is not entry.kind or (entry.kind is float and not math.isfinite(value)):
        expected = f"one of: {', '.join(entry.choices)}" if entry.kind is str and entry.choices else _KINDS[entry.kind]
        raise ZeroFlowError(f"parameter {entry.name} is {value!r}, but must be {expected}")
    for member in value if entry.kind is tuple else (value,):
        if entry.choices and member not in entry.choices:
            raise ZeroFlowError(
                f"parameter {entry.name} {'has' if entry.kind is tuple else 'is'} {member!r}, but must be "
                f"{'made of' if entry.kind is tuple else 'one of'}: {', '.join(entry.choices)}"
            )
    if entry.kind is tuple and len(set(value)) < len(value):
        raise ZeroFlowError(f"parameter {entry.name} has a name twice: {', '.join(value)}")
    if entry.low is not None and not entry.low <= value <= entry.high:
        raise ZeroFlowError(f"parameter {entry.name} is {value}, but must be {entry.low} to {entry.high}")
    if entry.kind is str and not value:
        raise ZeroFlowError(f"parameter {entry.name} is empty; its default is '{entry.default}'")
    return value


def _check_together(settings: Settings) -> None:
    in_order = (
        ("pair_interval", "max_gap"),
        ("max_latency_ms", "max_latency_error_ms"),
        ("max_cloud_age", "max_cloud_age_error"),
        ("max_dropped_share", "max_dropped_share_error"),
    )
    for lower, upper in in_order:
        low, high = getattr(settings, lower), getattr(settings, upper)
        if low > high:
            raise ZeroFlowError(f"parameter {lower} is {low}, but must not be above {upper}, which is {high}")
    mounting_pose(settings)
