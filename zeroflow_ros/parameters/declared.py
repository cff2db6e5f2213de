"""The table of settings.py as parameters of a node: declared with descriptors, and changed only as a whole that fits
together."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from difflib import get_close_matches

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter

from zeroflow_core.errors import ZeroFlowError
from zeroflow_ros.parameters.settings import WHEN, Entry, Settings, checked, table


class Parameters:
    """Declares every parameter of the table, and keeps the settings that they make.

    node:      takes the parameters; it must not have an attribute of its own named ``_parameters`` for this object,
               as rclpy keeps its own there
    on_change: called with the new settings after parameters were changed; in the thread that changed them

    configured: to be set by the node; while it is, what is read when it is configured cannot be changed

    Raises:
        ZeroFlowError: a value given at the start is of the wrong type, out of its range, none of the choices, or does
            not fit the others.
    """

    def __init__(self, node: Node, on_change: Callable[[Settings], None] = lambda settings: None) -> None:
        self._node = node
        self._on_change = on_change
        self._entries = {entry.name: entry for entry in table()}
        self.configured = False
        self._settings = checked({name: self._declare(entry) for name, entry in self._entries.items()})
        self._warn_of_misspelt_names()
        # Only the later callback knows that no other callback has refused the change; Humble lacks it.
        self._applies_later = hasattr(node, "add_post_set_parameters_callback")
        if self._applies_later:
            node.add_post_set_parameters_callback(self._apply)
        node.add_on_set_parameters_callback(self._check)

    @property
    def settings(self) -> Settings:
        """What the node is told now; any thread may ask."""
        return self._settings

    def _declare(self, entry: Entry) -> object:
        default = list(entry.default) if entry.kind is tuple else entry.default
        try:
            value = self._node.declare_parameter(entry.name, default, _descriptor(entry)).value
        except ParameterException as error:
            raise ZeroFlowError(f"parameter {entry.name}: {error}") from error
        if value is None and entry.kind is tuple:  # which is how an empty list of a file or command line arrives
            value = []
            self._node.set_parameters([Parameter(entry.name, Parameter.Type.STRING_ARRAY, value)])
        return _plain(value)

    def _warn_of_misspelt_names(self) -> None:
        """ROS ignores values of parameters that nobody declares, and so a typing error too."""
        given = getattr(self._node, "_parameter_overrides", {})
        for name in given:
            alike = [] if self._node.has_parameter(name) else get_close_matches(name, self._entries, 1, cutoff=0.8)
            if alike:
                self._node.get_logger().warning(f"parameter {name} is unknown and ignored: is {alike[0]} meant?")

    def _check(self, changes: list[Parameter]) -> SetParametersResult:
        try:
            self._changed(changes)
        except ZeroFlowError as error:
            return SetParametersResult(successful=False, reason=str(error))
        if not self._applies_later:
            self._apply(changes)
        return SetParametersResult(successful=True)

    def _apply(self, changes: list[Parameter]) -> None:
        settings = self._changed(changes)
        if settings != self._settings:
            self._settings = settings
            self._on_change(settings)

    def _changed(self, changes: list[Parameter]) -> Settings:
        """The settings with the changes that are ours.

        Raises:
            ZeroFlowError: they can't be made, and why.
        """
        ours = {change.name: _plain(change.value) for change in changes if change.name in self._entries}
        now = self._settings
        settings = checked({**vars(now), **ours})
        for name in ours:
            entry = self._entries[name]
            if self.configured and entry.when == "configure" and getattr(settings, name) != getattr(now, name):
                raise ZeroFlowError(
                    f"parameter {name} is read when the node is configured: deactivate the node and clean it up first, "
                    "then configure and activate it again (ros2 lifecycle set)"
                )
        return settings


def _plain(value: object) -> object:
    """Lists as they stand in the table."""
    return tuple(value) if isinstance(value, list | tuple | array) else value


def _descriptor(entry: Entry) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(
        description=f"{entry.description} {WHEN[entry.when]}", read_only=entry.when == "fixed"
    )
    # An integer for a number with a point (max_gap:=1) is no mistake, nor is an empty list, which has no type; rclpy
    # alone would refuse both.
    descriptor.dynamic_typing = entry.kind in (float, tuple)
    if entry.choices:
        made_of = "any of: " if entry.kind is tuple else "one of: "
        descriptor.additional_constraints = made_of + ", ".join(entry.choices)
    if entry.kind is float:
        descriptor.floating_point_range = [FloatingPointRange(from_value=entry.low, to_value=entry.high)]
    if entry.kind is int:
        descriptor.integer_range = [IntegerRange(from_value=entry.low, to_value=entry.high)]
    return descriptor
