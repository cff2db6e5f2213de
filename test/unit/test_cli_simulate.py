"""``zeroflow simulate``: several logs at once, gone on with after any interruption, and mistakes told in a sentence."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from zeroflow_core.cli import main
from zeroflow_core.datasets.av2 import Log, find_logs
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.files import new_folder, remove_leftovers
from zeroflow_core.simulation.logs import simulate_logs
from zeroflow_core.workers import run_in_workers

SMALL = ("--sensor", "small", "--scene", "street", "--seed", "7")


def _run(*arguments: object):
    environment = {"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}
    return CliRunner().invoke(main.app, ["simulate", *map(str, arguments)], env=environment)


def _start(*arguments: object) -> subprocess.Popen:
    """The command as a process of its own."""
    program = "import sys; from zeroflow_core.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "simulate", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _hidden(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*")]


def _wait_for(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def complete(tmp_path_factory) -> Path:
    """What two workers write: three logs of three sweeps."""
    folder = tmp_path_factory.mktemp("complete")
    process = _start("--out", folder, "--logs", 3, "--sweeps", 3, "--jobs", 2, *SMALL)
    said, complaints = process.communicate(timeout=120)
    assert process.returncode == 0, complaints
    numbers = r"9 sweeps of [\d,]+ points in [\d.]+ s, [\d.]+ sweeps/s, [\d.]+ MB"
    assert re.search(rf"^3 logs written: {numbers}$", said, re.M)
    return folder


def test_logs_are_where_av2s_are_and_the_same_whoever_writes_them(complete, tmp_path):
    logs = find_logs(complete)
    assert len(logs) == 3 and all(log.parent == complete / "sensor" / "val" for log in logs)
    assert [len(Log(log)) for log in logs] == [3, 3, 3]
    result = _run("--out", tmp_path, "--logs", 2, "--sweeps", 3, "--jobs", 1, *SMALL)
    assert result.exit_code == 0, result.output
    written = _files(tmp_path)
    assert len({Path(name).parts[2] for name in written}) == 2
    assert written.items() <= _files(complete).items()
    (example,) = re.findall(r"zeroflow convert (\S+) ", result.output)
    assert (Path(example) / "sensors" / "lidar").is_dir()


def test_no_split_has_a_log_of_another(tmp_path):
    made = [simulate_logs(tmp_path, split, 1, 1, 7, "small", jobs=1).logs[0] for split in ("train", "val", "test")]
    assert len({log.name for log in made}) == 3
    assert len({_files(log / "sensors").popitem()[1] for log in made}) == 3


def test_complete_logs_are_kept(complete):
    before = {path: path.stat().st_mtime_ns for path in complete.rglob("*")}
    result = _run("--out", complete, "--logs", 3, "--sweeps", 3, *SMALL)
    assert result.exit_code == 0 and "0 logs written; 3 were there already" in result.output
    assert {path: path.stat().st_mtime_ns for path in complete.rglob("*")} == before


def test_after_being_killed_the_same_command_goes_on(complete, tmp_path):
    arguments = ("--out", tmp_path, "--logs", 3, "--sweeps", 3, "--jobs", 1, *SMALL)
    process = _start(*arguments)
    _wait_for(lambda: list(tmp_path.rglob("velocity/*.feather")))
    process.kill()
    process.wait()
    assert _hidden(tmp_path), "killed too late to leave something behind"
    result = _run(*arguments)
    assert result.exit_code == 0, result.output
    assert _files(tmp_path) == _files(complete)


def test_workers_end_and_tidy_up_when_their_parent_is_killed(complete, tmp_path):
    arguments = ("--out", tmp_path, "--logs", 2, "--sweeps", 40, "--jobs", 2, *SMALL)
    process = _start(*arguments)
    _wait_for(lambda: len(list(tmp_path.rglob("velocity"))) == 2)
    process.kill()
    process.communicate()
    _wait_for(lambda: not _hidden(tmp_path), 20)
    assert _files(tmp_path) == {}


def test_ctrl_c_leaves_nothing_half_written(tmp_path):
    process = _start("--out", tmp_path, "--logs", 2, "--sweeps", 40, "--jobs", 2, *SMALL)
    _wait_for(lambda: len(list(tmp_path.rglob("velocity"))) == 2)
    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate(timeout=30)
    assert process.returncode != 0 and "Traceback" not in complaints
    assert _files(tmp_path) == {} and not _hidden(tmp_path)


def test_a_worker_that_is_killed_ends_the_run_with_a_sentence(tmp_path):
    process = _start("--out", tmp_path, "--logs", 2, "--sweeps", 40, "--jobs", 2, *SMALL)
    _wait_for(lambda: len(list(tmp_path.rglob("velocity"))) == 2)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    _, complaints = process.communicate(timeout=60)
    assert process.returncode == 1 and "Traceback" not in complaints
    assert "a worker process was killed" in " ".join(complaints.split())
    assert _files(tmp_path) == {} and not _hidden(tmp_path)


def test_another_run_that_writes_the_same_log_is_not_disturbed(tmp_path):
    path = tmp_path / "log"
    with new_folder(path) as folder:
        folder.mkdir()
        with pytest.raises(ZeroFlowError, match=f"another process is writing {path}"):
            remove_leftovers(path, patience=0.2)
    assert path.is_dir() and not _hidden(tmp_path)
    (tmp_path / ".log.killed").mkdir()
    remove_leftovers(path)
    assert list(tmp_path.iterdir()) == [path]


# --- mistakes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, says",
    [
        (("--sensor", "sonar"), "scanner 'sonar' is unknown; choose one of: av2, "),
        (("--scene", "desert"), "scene 'desert' is unknown"),
        (("--split", "dev"), "split 'dev' is unknown; choose one of: train, val, test"),
        (("--density", "-1"), "density -1 cannot"),
        (("--beams", "500"), "500 beams"),
        (("--height", "40"), "40.0 m above the ground"),
        (("--device", "tpu"), "device 'tpu' is unknown"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(tmp_path, arguments, says):
    result = _run("--out", tmp_path / "out", "--logs", 1, "--sweeps", 2, *SMALL, *arguments)
    assert result.exit_code == 1 and isinstance(result.exception, ZeroFlowError)
    assert says in str(result.exception)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--logs", "--sweeps", "--jobs"])
def test_none_at_all_is_refused(tmp_path, option):
    result = _run("--out", tmp_path, option, 0)
    assert result.exit_code == 2 and f"Invalid value for '{option}'" in result.output
    assert not list(tmp_path.iterdir())


def test_what_is_in_the_way_is_named(tmp_path, complete):
    (tmp_path / "sensor").write_text("")
    result = _run("--out", tmp_path, "--logs", 1, "--sweeps", 1, *SMALL)
    assert isinstance(result.exception, ZeroFlowError) and "cannot make the folder" in str(result.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["sensor"]

    (tmp_path / "sensor").unlink()
    name = min(log.name for log in find_logs(complete))
    for other in find_logs(complete):  # whichever comes first
        (tmp_path / "sensor" / "val").mkdir(parents=True, exist_ok=True)
        (tmp_path / "sensor" / "val" / other.name).write_text("")
    result = _run("--out", tmp_path, "--logs", 3, "--sweeps", 3, *SMALL)
    assert isinstance(result.exception, ZeroFlowError) and "is in the way" in str(result.exception)
    assert (tmp_path / "sensor" / "val" / name).read_text() == "" and len(_files(tmp_path)) == 3


def test_an_unwritable_folder_is_named(tmp_path):
    if os.geteuid() == 0:
        out = Path("/proc/sys/zeroflow")  # where even root makes no folders
    else:
        out = tmp_path / "locked" / "out"
        out.parent.mkdir(mode=0o555)
    result = _run("--out", out, "--logs", 1, "--sweeps", 1, *SMALL)
    assert isinstance(result.exception, ZeroFlowError)
    assert f"cannot make the folder {out}" in str(result.exception)


@pytest.fixture
def full_disk(tmp_path, monkeypatch):
    """A folder on a disk of 1 MB; where this process may not mount one, one that claims to be full after 1 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, timeout=20).returncode == 0:
        yield disk
        subprocess.run(["umount", str(disk)], check=True, timeout=20)
        return
    write, left = Path.write_bytes, [1_000_000]

    def write_bytes(self: Path, data) -> int:
        left[0] -= len(data)
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    yield disk


def test_a_full_disk_is_told_and_leaves_nothing_behind(full_disk):
    result = _run("--out", full_disk, "--logs", 1, "--sweeps", 40, *SMALL)
    assert isinstance(result.exception, ZeroFlowError)
    assert re.search(rf"cannot write {full_disk}/sensor/val/\S+: No space left on device", str(result.exception))
    assert _files(full_disk) == {} and not _hidden(full_disk)


# --- variety -----------------------------------------------------------------------------------------------


def test_logs_of_a_randomised_run_differ_in_their_scanner(tmp_path):
    written = simulate_logs(tmp_path, "train", 2, 1, seed=3, scanner="small", randomise=True, jobs=1)
    mountings = [Log(log).calibration()["lidar"].translation.tolist() for log in written.logs]
    assert mountings[0] != mountings[1]
    assert all(log.parent == tmp_path / "sensor" / "train" for log in written.new)


def test_scenes_take_turns_and_traffic_varies(tmp_path, monkeypatch):
    drives = []
    monkeypatch.setattr("zeroflow_core.simulation.logs.write_afresh", lambda path, drive, *_: drives.append(drive))
    for randomise in (False, True):
        simulate_logs(tmp_path, "val", 4, 2, seed=3, scanner="small", scene="mixed", randomise=randomise, jobs=1)
    assert [drive.scene for drive in drives] == ["street", "junction", "highway", "street"] * 2
    assert [drive.density for drive in drives[:4]] == [1.0] * 4
    assert len({drive.density for drive in drives[4:]}) == 4 and len({drive.id for drive in drives}) == 8
    assert [drive.seed for drive in drives[:4]] == [drive.seed for drive in drives[4:]]


def test_a_scanner_is_mounted_as_asked(tmp_path):
    result = _run("--out", tmp_path, "--logs", 1, "--sweeps", 1, "--height", 3.2, "--beams", 8, "--noise", 0, *SMALL)
    assert result.exit_code == 0, result.output
    log = Log(find_logs(tmp_path)[0])
    assert log.calibration()["lidar"].translation[2] == pytest.approx(3.2 - 0.33)
    assert len(set(log.sweep(0).ring.tolist())) == 8


# --- workers -----------------------------------------------------------------------------------------------


def _task(number: int, report) -> None:
    """What the workers of the tests below do."""
    report(number)
    if number == 13:
        raise ZeroFlowError("13 brings bad luck")
    if number == 14:
        raise KeyError("a bug")
    if number == 15:
        os.kill(os.getpid(), signal.SIGKILL)


def test_every_task_is_done_once():
    seen = []
    run_in_workers(_task, [(k,) for k in range(7)], 1, seen.append)
    assert sorted(seen) == list(range(7))


@pytest.mark.parametrize("number, error, says", [(13, ZeroFlowError, "bad luck"), (14, RuntimeError, "a bug")])
def test_what_a_task_raises_is_raised(number, error, says):
    with pytest.raises(error, match=says):
        run_in_workers(_task, [(number,), (1,)], 1, lambda _: None)


@pytest.mark.parametrize("processes, advice", [(1, "when more of it is free"), (2, "with fewer --jobs")])
def test_the_advice_when_memory_runs_out_can_be_taken(processes, advice):
    with pytest.raises(ZeroFlowError, match=f"killed, perhaps because memory ran out; run the same again {advice}$"):
        run_in_workers(_task, [(15,), (15,)], processes, lambda _: None)
