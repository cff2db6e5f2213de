"""Publisher and node are killed, with no chance to say goodbye, and started again in any order: flows come again."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

from processes import Peer, Process, nanoseconds, soak_minutes, tiny_checkpoint

from zeroflow_core.datasets.bags import write_bag
from zeroflow_core.geometry import SE3
from zeroflow_core.simulation.to_and_fro import to_and_fro
from zeroflow_ros.processes.shared_memory import remove_leftovers

NODE, PROBE = "zeroflow_ros.flow_node", "zeroflow_ros.probe"
# Who is killed, and who is started again first.
TURNS = 5 if soak_minutes() is not None else 1
ROUNDS = [("node",), ("publisher",), ("node", "publisher"), ("publisher", "node"), ("publisher",), ("node",)] * TURNS
SEED = 8


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    """Four seconds of small clouds, as a bag: quick to load for each new publisher."""
    path = tmp_path_factory.mktemp("bags") / "drive"
    write_bag(path, to_and_fro(3000, 10.0)[:20], {"lidar": SE3.identity()})
    return path


@pytest.mark.timeout(900)
def test_after_any_kill_flows_come_again(tmp_path, drive):
    checkpoint = tiny_checkpoint(tmp_path / "tiny.safetensors")
    commands = {
        "node": (NODE, "--ros-args", "-p", f"checkpoint:={checkpoint}", "-p", "device:=cpu"),
        "publisher": (PROBE, "--play", drive, "--seconds", 3600),
    }
    chance = random.Random(SEED)
    running = {name: Process(tmp_path, *command) for name, command in commands.items()}
    peer = Peer(cloud_topic="unused", odom_topic="unused_odom")
    waits: list[float] = []
    left: set[Path] = set()
    try:
        _flows_come(peer, running)
        for victims in ROUNDS:
            time.sleep(chance.uniform(0.0, 1.0))
            for name in chance.sample(victims, len(victims)):
                left |= _segments(running[name])
                running[name].kill()
                assert running[name].wait() == -signal.SIGKILL
            for name in victims:
                time.sleep(chance.uniform(0.0, 0.5))
                running[name] = Process(tmp_path, *commands[name])
            waits.append(round(_flows_come(peer, running), 2))
            _remove_leftovers(left, running)
        print("seconds from the last start to two flows:", list(zip(ROUNDS, waits, strict=True)))
        # Those who were not killed have noticed nothing that would end them badly.
        for name in ("publisher", "node"):
            running[name].signal(signal.SIGINT)
            assert running[name].wait() == 0, running[name].log
            assert "Traceback" not in running[name].log
    finally:
        peer.close()
        for process in running.values():
            process.kill()


def _flows_come(peer: Peer, running: dict[str, Process]) -> float:
    """Two flows of clouds that were published from now on; returns how many seconds that took."""
    began, began_ns = time.monotonic(), time.time_ns()

    def come() -> bool:
        for name, process in running.items():
            assert process.running, f"the {name} ended:\n{process.log}"
        return sum(nanoseconds(flow.header.stamp) > began_ns for flow in peer.flows[-5:]) >= 2

    peer.wait(come, "\n".join(["flows to come again", *(process.log for process in running.values())]))
    return time.monotonic() - began


def _segments(process: Process) -> set[Path]:
    """What it has of its own in /dev/shm: that whose lock files it holds."""
    # 1: FLOCK  ADVISORY  READ <process> <device>:<inode> 0 EOF
    locks = [line.split() for line in Path("/proc/locks").read_text().splitlines() if "FLOCK" in line]
    held = {int(words[-3].rpartition(":")[2]) for words in locks if words[-4] == str(process.pid)}
    with os.scandir("/dev/shm") as files:
        return {
            Path(file.path.removesuffix("_el"))
            for file in files
            if file.inode() in held and file.name.endswith("_el") and "port" not in file.name
        }


def _remove_leftovers(left: set[Path], running: dict[str, Process]) -> None:
    """Whoever was killed has left some; they go, and those of the living stay."""
    living = set().union(*map(_segments, running.values()))
    assert left and living and not left & living
    remove_leftovers(young_s=1.0)
    assert not [path for path in left if path.exists()]
    assert all(path.exists() for path in living)
    left.clear()
