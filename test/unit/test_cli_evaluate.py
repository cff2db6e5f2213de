"""``zeroflow evaluate`` and ``zeroflow compare``: what they print, where they stop, and mistakes told in a sentence."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fake_teacher import stand_in
from typer.testing import CliRunner

from zeroflow_core.cli import evaluate as command
from zeroflow_core.cli import main, progress
from zeroflow_core.cli.compare import names_of
from zeroflow_core.cli.progress import progress_bar
from zeroflow_core.datasets.av2 import Log
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation import methods
from zeroflow_core.evaluation.run import Progress
from zeroflow_core.simulation.log import simulate_log

NAMES = ["av2-2023", "av2-2024", "zeroflow"]


def _run(*arguments: object):
    environment = {"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"}
    return CliRunner().invoke(main.app, [*map(str, arguments)], env=environment)


def _evaluate(root: Path, out: Path, *arguments: object):
    return _run("evaluate", "--data", root, "--out", out, "--pictures", 1, *arguments)


def _metrics(out: Path) -> dict:
    return json.loads((out / "metrics.json").read_text())


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Two simulated logs of four sweeps and three, where things move."""
    root = tmp_path_factory.mktemp("data")
    for name, seed, sweeps in (("a", 21, 4), ("b", 22, 3)):
        simulate_log(root / "sensor" / "val" / name, seed=seed, sweeps=sweeps, scanner="small", scene="junction")
    return root


@pytest.fixture(scope="module")
def runs(root, tmp_path_factory) -> Path:
    """zero/ and labels/, with what the commands printed in zero.txt and labels.txt."""
    folder = tmp_path_factory.mktemp("runs")
    for method in ("zero", "labels"):
        result = _evaluate(root, folder / method, "--method", method)
        assert result.exit_code == 0, result.output
        (folder / f"{method}.txt").write_text(result.output)
    return folder


# --- evaluate ----------------------------------------------------------------------------------------------


def test_the_table_has_the_figures_and_the_files_are_named(runs):
    text, metrics = (runs / "zero.txt").read_text(), _metrics(runs / "zero")
    assert "\x1b" not in text and text.startswith("zero flow (ego motion alone) on val of ")
    for name in NAMES:
        parts = [f"{metrics[name][part]:.4f}" for part in ("three_way_epe", "fd", "fs", "bs")]
        line = next(line.split() for line in text.splitlines() if line.split()[:1] == [name])
        assert line == [name, *parts, f"{metrics[name]['num_points']:,}", "100.0"]
        assert metrics[name]["fd"] > 0.1 and metrics[name]["num_fd"] > 100
    last = text.splitlines()[-1]
    assert last == f"{runs / 'zero' / 'report.html'}, with metrics.json and pairs.csv beside it"
    assert all((runs / "zero" / name).is_file() for name in ("report.html", "metrics.json", "pairs.csv"))
    with open(runs / "zero" / "pairs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["log"], row["index"]) for row in rows] == [("a", "0"), ("a", "1"), ("a", "2"), ("b", "0"), ("b", "1")]


def test_the_logs_own_labels_have_no_error(runs):
    metrics = _metrics(runs / "labels")
    assert all(metrics[name][part] < 1e-6 for name in NAMES for part in ("three_way_epe", "fd", "fs", "bs"))
    assert metrics["av2-2023"]["dynamic_iou"] == 1.0


def test_the_same_command_again_does_nothing_twice(root, runs, tmp_path):
    out = tmp_path / "zero"
    shutil.copytree(runs / "zero", out)
    journals = {path: path.stat().st_mtime_ns for path in (out / "pairs").iterdir()}
    before = _metrics(out)
    result = _evaluate(root, out, "--method", "zero")
    assert result.exit_code == 0 and result.output.endswith("(5 pairs were there already)\n")
    assert {path: path.stat().st_mtime_ns for path in journals} == journals and len(journals) == 2
    assert _metrics(out) == before


def test_one_log_of_several(root, tmp_path):
    result = _evaluate(root, tmp_path / "out", "--method", "zero", "--log", "b")
    assert result.exit_code == 0 and "1 log, 2 pairs" in result.output
    assert list(_metrics(tmp_path / "out")["per_log"]) == ["b"]


def test_failed_pairs_are_listed_and_the_others_scored(root, tmp_path, monkeypatch):
    flow = methods.ZeroMethod.flow

    def failing(self, log, i, pair):
        if log.log_id == "a":
            raise ZeroFlowError(f"the pair [{i}] is cursed")
        return flow(self, log, i, pair)

    monkeypatch.setattr(methods.ZeroMethod, "flow", failing)
    monkeypatch.setattr(command, "_TOLD", 2)
    result = _evaluate(root, tmp_path / "out", "--method", "zero")
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert result.stderr == (
        "3 pairs failed:\n  a, pair 0: the pair [0] is cursed\n  a, pair 1: the pair [1] is cursed\n"
        "  … and 1 more, see 'failed' in metrics.json\n"
    )
    assert "1 log, 2 pairs, 3 failed" in result.stdout and "av2-2023 FD" in result.stdout
    assert [pair["index"] for pair in _metrics(tmp_path / "out")["failed"]] == [0, 1, 2]


def test_an_archive_that_failed_pairs_prevent_is_missed(root, tmp_path, monkeypatch):
    def failing(self, log, i, pair):
        raise ZeroFlowError("cursed")

    with monkeypatch.context() as cursed:
        cursed.setattr(methods.ZeroMethod, "flow", failing)
        arguments = (root, tmp_path / "out", "--method", "zero", "--submission", 2024)
        result = _evaluate(*arguments)
    assert result.exit_code == 1
    assert result.stderr.endswith("\nno archive: some of its pairs failed; run the same command again\n")
    result = _evaluate(*arguments)
    assert result.exit_code == 0 and "no archive" not in result.output and "submission-2024.zip" in result.output


def test_ctrl_c_says_that_the_same_command_goes_on(root, tmp_path, monkeypatch):
    flow = methods.ZeroMethod.flow

    def interrupted(self, log, i, pair):
        if (log.log_id, i) == ("b", 0):
            raise KeyboardInterrupt
        return flow(self, log, i, pair)

    with monkeypatch.context() as hasty:
        hasty.setattr(methods.ZeroMethod, "flow", interrupted)
        result = _evaluate(root, tmp_path / "out", "--method", "zero")
    assert result.exit_code == 130 and result.stdout == ""
    assert result.stderr == "Stopped; the same command goes on from here.\n"
    result = _evaluate(root, tmp_path / "out", "--method", "zero")
    assert result.exit_code == 0 and result.output.endswith("(3 pairs were there already)\n")


def test_a_damaged_sweep_is_named(root, tmp_path):
    shutil.copytree(root, tmp_path / "data")
    log = Log(tmp_path / "data" / "sensor" / "val" / "b")
    sweep = log.path / "sensors" / "lidar" / f"{log.stamps_ns[2]}.feather"
    sweep.write_bytes(b"damaged")
    result = _evaluate(tmp_path / "data", tmp_path / "out", "--method", "zero")
    assert result.exit_code == 1 and "1 pair failed:\n  b, pair 1: " in result.stderr and sweep.name in result.stderr


def test_a_submission_is_named(root, tmp_path):
    result = _evaluate(root, tmp_path / "out", "--method", "zero", "--submission", 2024, "--supervised")
    archive = tmp_path / "out" / "submission-2024.zip"
    assert result.exit_code == 0 and archive.is_file()
    assert result.output.endswith(f"{archive}: for the server of the 2024 challenge\n")


def test_logs_without_labels_can_only_be_submitted(root, tmp_path):
    shutil.copytree(root, tmp_path / "data")
    for log in (tmp_path / "data" / "sensor" / "val").iterdir():
        shutil.rmtree(log / "flow_labels")
        (log / "annotations.feather").unlink()
    result = _evaluate(tmp_path / "data", tmp_path / "out", "--method", "zero")
    assert result.exit_code == 1 and re.search("no log of .*val has labels", str(result.exception))
    result = _evaluate(tmp_path / "data", tmp_path / "out", "--method", "zero", "--submission", 2023)
    assert result.output == f"{tmp_path / 'out' / 'submission-2023.zip'}: for the server of the 2023 challenge\n"


@pytest.mark.parametrize("method", ["zero", "labels", "nsfp"])
def test_one_command_line_serves_all_methods(root, tmp_path, monkeypatch, method):
    fake = stand_in(monkeypatch)
    students = ("--checkpoint", "default", "--device", "cpu", "--engine", "reference", "--precision", "fp32")
    teachers = ("--teacher-config", "published", "--seed", 4)
    assert _evaluate(root, tmp_path / "out", "--method", method, *students, "--ground", "map", *teachers).exit_code == 0
    assert fake.asked == ([("nsfp", "published", "cpu", 4)] if method == "nsfp" else [])


@pytest.mark.parametrize(
    "arguments, says",
    [
        (("--method", "magic"), "method 'magic' is unknown; choose one of: student, nsfp, fastnsf, zero, labels"),
        (("--method", "nsfp", "--teacher-config", "slow"), "'slow' is unknown; choose one of: fast, published"),
        (("--split", "train"), r"no split 'train' in .*; it has: val"),
        (("--log", "c"), "there is no log c in"),
        (("--data", "nowhere"), "there is no folder nowhere"),
        (("--data", "{empty}"), r"empty"),
        (("--checkpoint", "gone.ckpt"), "gone.ckpt: no such file"),
        (("--ground", "sea"), "ground rule 'sea' is unknown"),
        (("--device", "tpu"), "device 'tpu' is unknown"),
        (("--engine", "steam"), "engine 'steam' is unknown; choose one of: fast, reference"),
        (("--streaming", "off"), "streaming 'off' is unknown; choose one of: none, anchored"),
        (("--precision", "fp8"), "precision 'fp8' is unknown; choose one of: auto, fp32, bf16"),
        (("--verify", "maybe"), "verify 'maybe' is unknown; choose one of: auto, always, never"),
        (("--method", "zero", "--engine", "steam"), "engine 'steam' is unknown; choose one of: fast, reference"),
        (("--method", "labels", "--streaming", "off"), "streaming 'off' is unknown; choose one of: none, anchored"),
        (("--method", "nsfp", "--precision", "fp8"), "precision 'fp8' is unknown; choose one of: auto, fp32, bf16"),
        (("--submission", "2025", "--method", "zero"), "there is no submission of 2025"),
        (("--labels", "flows"), "--labels flows is for --method labels; --method student does not read it"),
        (("--labels", "nowhere", "--method", "labels"), "there is no folder nowhere"),
        (("--masks", "masks.zip"), "--masks masks.zip is for --submission 2023"),
        (("--supervised",), "--supervised is said in a submission of 2024 only"),
    ],
)
def test_mistakes_are_told_in_a_sentence(root, tmp_path, arguments, says):
    empty = tmp_path / "empty"
    (empty / "sensor" / "val").mkdir(parents=True)
    result = _evaluate(root, tmp_path / "out", *(argument.format(empty=empty) for argument in arguments))
    assert result.exit_code == 1 and isinstance(result.exception, ZeroFlowError)
    assert re.search(says, str(result.exception))
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_a_file_in_place_of_the_folder_is_told(root, tmp_path):
    (tmp_path / "out").write_text("mine")
    result = _evaluate(root, tmp_path / "out", "--method", "zero")
    assert isinstance(result.exception, ZeroFlowError) and str(tmp_path / "out") in str(result.exception)
    assert (tmp_path / "out").read_text() == "mine"


def test_another_run_in_the_folder_is_told(root, runs):
    result = _evaluate(root, runs / "zero", "--method", "labels")
    assert isinstance(result.exception, ZeroFlowError)
    assert "holds another run (its method is zero, not labels); choose another --out" in str(result.exception)


def test_the_bar_shows_pairs_speed_and_error_and_what_was_there_already(monkeypatch):
    clock = iter([100.0, 104.0, 105.0, 106.0])
    monkeypatch.setattr(command, "monotonic", lambda: next(clock))
    with progress_bar() as bars:
        bar = command._Bar(bars, "Evaluating zero")
        bar.show(Progress(4, 10, 0, 0.2))
        bar.show(Progress(6, 10, 1, 0.25))
        task = bars.tasks[0]
        assert (bar.kept, task.completed, task.total) == (4, 6, 10)
        assert task.fields["note"] == "0.5 pairs/s, three-way 0.2500 m, 1 failed"
        bar.show(Progress(7, 10, 0, None))
        assert task.fields["note"] == "0.6 pairs/s"
        bar.show(Progress(10, 10, 1, 0.25))
        assert task.fields["note"] == "writing the report"


def test_a_log_gets_a_line_a_minute(monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: clock[0])
    with progress_bar() as bar:
        task = bar.add_task("Evaluating zero", total=2000, note="")
        for clock[0] in (1.0, 59.0):
            bar.update(task, advance=1)
        assert capsys.readouterr().err == "", "none for short runs"
        for clock[0] in (61.0, 62.0, 100.0, 120.0):
            bar.update(task, advance=500, note="8.2 pairs/s")
        assert capsys.readouterr().err == "Evaluating zero: 502 of 2,000, 8.2 pairs/s\n"
        clock[0] = 121.5
        bar.update(task, completed=2000, note="")
    assert capsys.readouterr() == ("", "Evaluating zero: 2,000 of 2,000\n")


def test_the_bar_is_on_the_terminal_and_nowhere_else(root, tmp_path):
    program = "import sys; from zeroflow_core.cli.main import main; sys.exit(main())"
    arguments = ["evaluate", "--data", root, "--method", "zero", "--log", "b", "--out", tmp_path / "out"]
    terminal, its_end = pty.openpty()
    environment = os.environ | {"COLUMNS": "100", "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, stderr=its_end, env=environment, text=True
    )
    os.close(its_end)
    seen = b""
    with contextlib.suppress(OSError):  # EIO: the other end is closed
        while more := os.read(terminal, 4096):
            seen += more
    os.close(terminal)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, seen.decode()
    assert all(text in seen.decode() for text in ("Evaluating zero", "0/2", "2/2", "writing the report"))
    assert "\x1b" not in said and said.startswith("zero flow") and "Evaluating" not in said


# --- compare -----------------------------------------------------------------------------------------------


def test_two_runs_side_by_side(runs, tmp_path):
    page = tmp_path / "compare.html"
    result = _run("compare", runs / "zero", runs / "labels", "--out", page)
    assert result.exit_code == 0, result.output
    assert "Not comparable" not in result.output and "\x1b" not in result.output
    epe = _metrics(runs / "zero")["av2-2023"]["three_way_epe"]
    line = next(line for line in result.output.splitlines() if "three-way" in line)
    assert line.split() == ["av2-2023", "three-way", f"{epe:.4f}", f"{-epe:+.4f}", "0.0000*"]
    assert result.output.endswith(f"{page}: the same as a page\n")
    assert page.read_text().lstrip().lower().startswith("<!doctype html") and "labels" in page.read_text()


def test_runs_over_other_logs_are_not_comparable(root, runs, tmp_path):
    _evaluate(root, tmp_path / "fewer", "--method", "zero", "--log", "b")
    result = _run("compare", runs / "zero", tmp_path / "fewer")
    assert result.exit_code == 0
    told = " ".join(result.output.split())
    assert "Not comparable: the runs scored other logs (zero: 2 logs, 5 pairs; fewer: 1 log, 2 pairs)." in told


def test_runs_of_one_name_are_told_apart():
    assert names_of([Path("/r/zero"), Path("/r/student")]) == ["zero", "student"]
    assert names_of([Path("/r/x/out"), Path("/s/x/out"), Path("/r/y")]) == ["r/x/out", "s/x/out", "r/y"]
    assert names_of([Path("/out"), Path("/r/out")]) == ["out", "r/out"]
    with pytest.raises(ZeroFlowError, match=r"/r/\.\./r/zero is given twice"):
        names_of([Path("/r/student"), Path("/r/../r/zero"), Path("/r/zero")])


@pytest.mark.parametrize(
    "arguments, says",
    [
        (("{runs}/zero",), "zero is one run; give two or more to compare"),
        (("{runs}/zero", "{runs}/zero"), "zero is given twice"),
        (("{runs}/zero", "{runs}/gone"), "gone does not exist; give the folder that zeroflow evaluate wrote"),
        (("{runs}/zero", "{runs}/zero.txt"), "zero.txt is a file; give the folder"),
        (("{runs}/zero", "{runs}/zero/pairs"), "pairs has no metrics.json; run zeroflow evaluate --out .* first"),
        (("{runs}/zero", "{damaged}"), "metrics.json is damaged or not of zeroflow evaluate"),
        (("{runs}/zero", "{runs}/labels", "--out", "{runs}"), "is a folder; give a file, such as .*compare.html"),
        (("{runs}/zero", "{runs}/labels", "--out", "{runs}/gone/x.html"), "gone does not exist; create it first"),
    ],
)
def test_mistakes_in_comparing_are_told_in_a_sentence(runs, tmp_path, arguments, says):
    (tmp_path / "metrics.json").write_bytes((runs / "zero" / "metrics.json").read_bytes()[:-100])
    result = _run("compare", *(argument.format(runs=runs, damaged=tmp_path) for argument in arguments))
    assert result.exit_code == 1 and isinstance(result.exception, ZeroFlowError)
    assert re.search(says, str(result.exception)) and result.stdout == ""
