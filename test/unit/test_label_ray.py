"""Labelling on a Ray cluster of this machine's own: the same labels, whoever dies meanwhile."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
from label_cases import QUICK, dying, inline, label_files, make_logs, settings

from zeroflow_core.distillation.labelling import label as stage
from zeroflow_core.distillation.labelling import ray_cluster as label_ray
from zeroflow_core.distillation.labelling.label import label
from zeroflow_core.errors import ZeroFlowError

ray = pytest.importorskip("ray", reason="Ray is not installed: it comes with the extra 'ray'")


@pytest.fixture(scope="module")
def cluster():
    """Two workers, which find the modules of the tests."""
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def logs(tmp_path_factory) -> tuple[Path, ...]:
    """Two logs with nine pairs each."""
    return make_logs(tmp_path_factory.mktemp("data"), 2, 10)


def test_a_worker_killed_midway_changes_nothing(cluster, logs, tmp_path, monkeypatch):
    killed: list[int] = []

    def kill_one(now):
        if now.done >= 4 and not killed:
            killed.extend(_kill_a_worker())

    made = label(settings(logs, tmp_path / "ray", ray="auto"), kill_one)
    assert killed and made.failed == [] and made.manifest["counts"]["labelled"] == 18
    monkeypatch.setattr(stage, "run_in_workers", inline)
    label(settings(logs, tmp_path / "plain"))
    assert len(label_files(tmp_path / "ray")) == 36
    assert label_files(tmp_path / "ray") == label_files(tmp_path / "plain")
    assert label(settings(logs, tmp_path / "ray")).manifest["counts"] == made.manifest["counts"]


def _kill_a_worker() -> list[int]:
    """The id of the process that was killed: of those below this one, the first that is at work."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                at_work = b"_label_chunk" in (process / "cmdline").read_bytes()
                if at_work and os.getpid() in _ancestors(int(process.name)):
                    os.kill(int(process.name), signal.SIGKILL)
                    return [int(process.name)]
            except OSError:
                continue  # it ended
        time.sleep(0.001)
    return []


def _ancestors(process: int) -> list[int]:
    found = []
    while process > 1:
        stat = Path(f"/proc/{process}/stat").read_text()
        process = int(stat.rpartition(")")[2].split()[1])
        found.append(process)
    return found


def test_a_pair_that_no_worker_survives_has_failed(cluster, logs, tmp_path, monkeypatch):
    monkeypatch.setattr(label_ray, "_label_chunk", dying)
    made = label(settings(logs, tmp_path, ray="auto"))
    assert [(record["log"], record["index"]) for record in made.failed] == [("log1", 3)]
    assert "worker died" in made.failed[0]["error"] and made.manifest["counts"]["without_estimate"] == 17


def test_what_a_worker_says_is_told(cluster, logs, tmp_path):
    (tmp_path / "train_nsfp_flow_feather").mkdir()
    for log in logs:
        (tmp_path / "train_nsfp_flow_feather_reverse" / log.name).parent.mkdir(exist_ok=True)
        (tmp_path / "train_nsfp_flow_feather_reverse" / log.name).write_text("in the way")
    with pytest.raises(ZeroFlowError, match=r"^cannot write .*feather: \w[\w ]+$"):
        label(settings(logs, tmp_path, ray="auto"))


def test_a_gpu_that_the_cluster_has_not(cluster, logs, tmp_path):
    with pytest.raises(ZeroFlowError, match="'cuda' was asked for, but the Ray cluster has no GPU"):
        label(settings(logs, tmp_path / "out", ray="auto", device="cuda"))
    assert not (tmp_path / "out").exists()


def test_without_ray_it_says_what_to_install(logs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ZeroFlowError, match=r"pip install 'zeroflow_ros\[ray\]'"):
        label(settings(logs, tmp_path / "out", ray="auto", teacher_config=QUICK))


def test_a_cluster_that_is_not_there(logs, tmp_path, monkeypatch):
    def init(**how):
        raise ConnectionError(f"nothing at {how['address']}\nand much more")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ZeroFlowError, match=r"^there is no Ray cluster at 'auto' \(nothing at auto\); start it, or"):
        label(settings(logs, tmp_path / "out", ray="auto"))


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.mark.parametrize("prefix", ["", "ray://"])
def test_where_nobody_answers_ray_is_not_asked(logs, tmp_path, monkeypatch, prefix: str):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **how: pytest.fail("it would try for minutes"))
    address = f"{prefix}127.0.0.1:{_free_port()}"
    with pytest.raises(ZeroFlowError, match=rf"^there is no Ray cluster at '{address}' \(Connection refused\); start"):
        label(settings(logs, tmp_path / "out", ray=address))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("address", ["somewhere", "host:", ":6379", "host:99999", "ray://host"])
def test_what_is_no_address(logs, tmp_path, monkeypatch, address: str):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **how: pytest.fail("it would try for minutes"))
    with pytest.raises(ZeroFlowError, match=f"^'{address}' is no address of a Ray cluster; give host:port, auto or"):
        label(settings(logs, tmp_path / "out", ray=address))
