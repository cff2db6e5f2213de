"""The Fast DDS profile, and when the node says that it is missing."""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ElementTree
from collections import namedtuple

import pytest

from zeroflow_ros.processes import dds

NEW, OLD = "FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    for name in (NEW, OLD, "RMW_IMPLEMENTATION", "ROS_DISTRO"):
        monkeypatch.delenv(name, raising=False)
    _shared_memory(monkeypatch, free=10**9)


def _shared_memory(monkeypatch, free: int) -> None:
    usage = namedtuple("usage", "total used free")(2 * free, free, free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)


def test_the_profile_is_the_default_of_every_participant_with_a_large_segment():
    root = ElementTree.parse(dds.profile_path()).getroot()
    ns = {"d": root.tag[1:].partition("}")[0]}
    participant = root.find(".//d:participant", ns)
    assert participant.get("is_default_profile") == "true"
    assert participant.find(".//d:useBuiltinTransports", ns).text == "false"
    used = {node.text for node in participant.findall(".//d:userTransports/d:transport_id", ns)}
    described = {}
    for transport in root.findall(".//d:transport_descriptor", ns):
        described[transport.find("d:transport_id", ns).text] = transport
    assert used == set(described)
    assert {transport.find("d:type", ns).text for transport in described.values()} == {"SHM", "UDPv4"}
    (segment,) = root.findall(".//d:segment_size", ns)
    assert int(segment.text) == 64 * 2**20 <= dds._SEGMENT_MB * 1e6


@pytest.mark.parametrize(
    "distribution, names",
    [("humble", {NEW, OLD}), ("jazzy", {NEW, OLD}), ("kilted", {NEW}), (None, {NEW})],
)
def test_children_get_the_variables_that_their_fast_dds_reads(monkeypatch, distribution, names):
    if distribution is not None:
        monkeypatch.setenv("ROS_DISTRO", distribution)
    assert dds.environment() == dict.fromkeys(names, str(dds.profile_path()))


@pytest.mark.parametrize("name", [NEW, OLD])
def test_a_profile_that_is_chosen_stays(monkeypatch, tmp_path, name):
    own = tmp_path / "own.xml"
    own.touch()
    monkeypatch.setenv(name, str(own))
    assert set(dds.environment().values()) == {str(own)}
    assert dds.missing_profile() is None


def test_no_profile_is_told_with_what_to_do():
    told = dds.missing_profile()
    assert "no Fast DDS profile" in told and f"{NEW}={dds.profile_path()}" in told


def test_a_profile_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setenv(NEW, "/nowhere/profile.xml")
    assert "/nowhere/profile.xml does not exist" in dds.missing_profile()


def test_other_middlewares_need_none(monkeypatch):
    monkeypatch.setenv("RMW_IMPLEMENTATION", "rmw_cyclonedds_cpp")
    assert dds.missing_profile() is None


def test_a_container_with_little_shared_memory_is_told(monkeypatch):
    monkeypatch.setenv(NEW, str(dds.profile_path()))
    _shared_memory(monkeypatch, free=64_000_000)
    assert "--shm-size" in dds.missing_profile()
