"""The teacher's benchmark: arithmetic by hand, turns taken, a file after every run, mistakes in sentences."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from importlib import import_module
from mmap import mmap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from zeroflow_core.bench import machine, teacher_cost, teacher_pair, teacher_run, teacher_tables
from zeroflow_core.bench.__main__ import app
from zeroflow_core.bench.memory import PeakMemory
from zeroflow_core.bench.teacher_run import Batch, Run, Task
from zeroflow_core.bench.teacher_summary import summarise, verdict
from zeroflow_core.datasets.av2 import Log
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.figures import figures_of, figures_of_zero_flow
from zeroflow_core.evaluation.truth import as_estimate, read_truth
from zeroflow_core.nsfp.config import teacher_config
from zeroflow_core.nsfp.network import make_field
from zeroflow_core.pairs import Flow, Status
from zeroflow_core.simulation.log import simulate_log

command = import_module("zeroflow_core.bench.teacher")
FAST = teacher_config("nsfp", "fast")
FIGURES = ("three_way_epe", "fd", "fs", "bs")


@pytest.fixture(scope="module")
def logs(tmp_path_factory) -> Path:
    """A folder with one labelled log of three sweeps of the small scanner, in split val."""
    root = tmp_path_factory.mktemp("logs")
    simulate_log(root / "sensor" / "val" / "drive", seed=7, sweeps=3, scanner="small", scene="street")
    return root


def run_of(name: str, seed: int = 0, **values) -> Run:
    """A run of 100 iterations on 1,000 points in 10 s, with an error of 0.1 m wherever there is one."""
    figures = dict.fromkeys(FIGURES, values.pop("epe", 0.1))
    usual = {
        "teacher": "a teacher",
        "threads": 2,
        "seconds": 10.0,
        "cpu_seconds": 15.0,
        "iterations": 100,
        "points": 1000,
        "loss": 0.01,
        "problem": None,
        "memory_bytes": 3 << 20,
        "precision": "fp32",
        "matmul_rate": 1e11,
        "errors": {"zeroflow": figures, "av2-2023": {"three_way_epe": 0.2}},
    }
    return Run(name, seed, **(usual | values))


# --- arithmetic ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["nsfp", "fastnsf"])
def test_operations_are_those_torch_counts_forward_and_backward(method: str):
    from torch.utils.flop_counter import FlopCounterMode

    there, back = (make_field(torch.Generator().manual_seed(k), "torch") for k in range(2))
    points = torch.rand(32, 3)
    with FlopCounterMode(display=False) as counter:
        moved = points + there(points)
        loss = (moved - back(moved)).square().sum() if method == "nsfp" else moved.square().sum()
        loss.backward()
    assert teacher_cost.flops_per_iteration(method, 32) == counter.get_total_flops()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_matmul_is_timed_at_its_precision(monkeypatch, precision: str):
    sizes, allowed = [], torch.backends.cuda.matmul.allow_tf32
    monkeypatch.setattr(teacher_cost, "_SIZE", 64)
    monkeypatch.setattr(teacher_cost, "_LEAST_S", 0.0)

    def seconds(work, times, device):
        product = work()
        sizes.append((product.dtype, product.shape))
        return {1: 9.0, 2: 0.5, 3: 0.25}.get(len(sizes), 0.75)  # the first one, which warms up, and the best

    monkeypatch.setattr(teacher_cost, "_seconds", seconds)
    assert teacher_cost.matmul_rate(precision, "cpu") == 2 * 64**3 / 0.25
    assert set(sizes) == {({"fp32": torch.float32, "bf16": torch.bfloat16}[precision], (64, 64))} and len(sizes) == 4
    assert torch.backends.cuda.matmul.allow_tf32 == allowed


def test_a_dataset_takes_its_pairs_at_the_rate_of_one():
    assert teacher_cost.hours(teacher_cost.AV2_TRAIN_PAIRS, 0.1) == pytest.approx(109_371 * 10 / 3600)
    one = summarise([run_of("nsfp:fast", seconds=3.6)])[0]
    assert (one.av2_train_hours, one.paper_recipe_hours) == pytest.approx((109.371, 100.8))
    assert one.paper_speed_ratio == pytest.approx(1 / 3.6 / 0.028)


def test_a_summary_compares_with_what_was_published_of_the_same_method():
    times = {"nsfp:published": (100, 120, 80), "nsfp:fast": (10, 10, 10), "fastnsf:published": (1, 1, 1)}
    errors = {"nsfp:published": (0.09, 0.10, 0.11), "nsfp:fast": (0.09, 0.09, 0.12), "fastnsf:published": (1, 1, 1)}
    runs = [
        run_of(name, seed, seconds=float(times[name][seed]), epe=errors[name][seed], memory_bytes=(seed + 1) << 20)
        for seed in range(3)
        for name in times
    ]
    published, fast, other = summarise(runs)
    assert [one.name for one in (published, fast, other)] == list(times)
    assert published.speed_ratio is None and published.epe_ratio is None and other.epe_ratio is None
    assert fast.speed_ratio == 10 and fast.epe_ratio == pytest.approx(0.1 / 0.1)
    assert published.seconds == 100 and published.each_seconds == [100, 120, 80]
    assert published.each_three_way_epe == [0.09, 0.10, 0.11] and published.memory_bytes == 3 << 20
    assert fast.ms_per_iteration == 100 and fast.av2_2023 == pytest.approx(0.2)
    flops = teacher_cost.flops_per_iteration("nsfp", 1000)
    assert (fast.flops_per_iteration, fast.flops, fast.flops_per_s) == (flops, 100 * flops, 10 * flops)
    assert fast.matmul_share == pytest.approx(10 * flops / 1e11)


def test_ratios_are_of_runs_of_one_seed():
    """The median of ratios, not the ratio of medians: a slow spell strikes both of a turn."""
    runs = [run_of("nsfp:published", k, seconds=s) for k, s in enumerate((100.0, 400.0, 90.0))]
    runs += [run_of("nsfp:fast", k, seconds=s) for k, s in enumerate((10.0, 50.0, 10.0, 1.0))]
    assert summarise(runs)[1].speed_ratio == 9.0
    assert summarise(runs[:1] + runs[4:5])[1].speed_ratio is None  # seeds 0 and 1: nothing side by side


def test_the_bound_in_a_sentence():
    def told(epe: float) -> str | None:
        return verdict(summarise([run_of("nsfp:published", epe=0.1), run_of("nsfp:fast", epe=epe, seconds=0.5)])[1])

    assert told(0.1049) == (
        "nsfp:fast: mean three-way EPE +4.9 % against nsfp:published, within the bound of +5 %; 20× as fast"
    )
    assert "+5.1 % against nsfp:published, NOT within the bound" in told(0.1051)
    assert "-9.0 % against nsfp:published, within the bound" in told(0.091)
    assert verdict(summarise([run_of("nsfp:published")])[0]) is None
    nobody_moves = [run_of("nsfp:published", epe=None), run_of("nsfp:fast", epe=None)]
    assert summarise(nobody_moves)[1].three_way_epe is None and verdict(summarise(nobody_moves)[1]) is None


def test_memory_is_the_most_that_was_held_meanwhile():
    held = np.ones(64 << 20, np.uint8)  # what was there before does not count
    memory = PeakMemory("cpu")
    fresh = mmap(-1, 128 << 20)  # from the system: the allocator may have as much left of what it was given before
    np.frombuffer(fresh, np.uint8)[:] = 1
    fresh.close()
    taken = memory.taken()
    assert 120 << 20 < taken < 180 << 20 and held.all()


def test_the_machine_is_told():
    told = machine.described("cpu")
    assert told["machine"] and told["cpus"] and told["torch"] == torch.__version__ and told["version"]
    json.dumps(told)


# --- one run ------------------------------------------------------------------------------------------------------


class FakeTeacher:
    """Says of every point that it moves by 0.1 m; keeps what it was asked."""

    asked: list[tuple] = []
    precision = "bf16"

    def __init__(self, method, config, *, device, seed, pairs_in_flight=None):
        self._asked = (method, config.iterations, seed, pairs_in_flight)
        self.name = f"fake {method}"

    def label(self, pairs):
        for pair in pairs:
            self.asked.append((*self._asked, len(pair.pc0)))
            flow = self.said(pair.pc0, pair.dt)
            yield SimpleNamespace(flow=flow, iterations=12, loss=float("nan"), problem=None, points=34)

    @staticmethod
    def said(points, dt=0.1):
        return Flow(np.full(points.shape, 0.1 / 3**0.5, np.float32), np.full(len(points), Status.OK, np.uint8), dt)

    def label_one(self, pair):
        return next(self.label([pair]))


@pytest.fixture
def fake(monkeypatch):
    fake = type("Fake", (FakeTeacher,), {"asked": []})
    monkeypatch.setattr("zeroflow_core.nsfp.teacher.Teacher", fake)
    monkeypatch.setattr(teacher_run, "matmul_rate", lambda precision, device: {"bf16": 5e10}[precision])
    threads = torch.get_num_threads()
    yield fake
    torch.set_num_threads(threads)


def test_a_run_times_the_label_of_the_pair_after_a_small_warm_up(logs: Path, fake):
    log, reported = logs / "sensor/val/drive", []
    task = Task("nsfp:fast", FAST, log, 1, 3, "cpu")
    teacher_run.measure_run(task, reported.append)
    points = len(Log(log).sweep(1))
    warm_up, real = fake.asked
    assert real == ("nsfp", FAST.iterations, 3, None, points)
    assert warm_up[1] == 10 and warm_up[4] < 1001 < points
    (run,) = reported
    assert (run.name, run.seed, run.iterations, run.points, run.loss) == ("nsfp:fast", 3, 12, 34, None)
    assert run.precision == "bf16" and run.matmul_rate == 5e10 and run.threads == torch.get_num_threads()
    assert 0 < run.seconds < 5 and 0 <= run.cpu_seconds < 20
    assert run.errors["zeroflow"]["bs"] == pytest.approx(0.1, rel=1e-4)
    json.dumps(asdict(run), allow_nan=False)


def test_a_batch_goes_round_the_pairs_of_the_log(logs: Path, fake):
    reported = []
    task = Task("nsfp:fast", FAST, logs / "sensor/val/drive", 1, 0, "cpu")
    teacher_run.measure_batch(task, 3, reported.append)
    (batch,) = reported
    assert (batch.in_flight, batch.pairs, batch.different, batch.iterations, batch.problems) == (3, 9, 2, 12.0, 0)
    truth = read_truth(Log(task.log), 1)
    assert batch.three_way_epe == figures_of(truth, as_estimate(fake.said(truth.points0)))["zeroflow"]["three_way_epe"]
    assert batch.pairs_per_s == pytest.approx(9 / batch.seconds)
    points = [len(Log(task.log).sweep(i)) for i in (1, 0)]
    assert fake.asked[3:] == [("nsfp", FAST.iterations, 0, 3, points[k % 2]) for k in range(9)]


# --- the command --------------------------------------------------------------------------------------------------


def bench(*arguments):
    return CliRunner().invoke(app, ["teacher", *map(str, arguments)])


@pytest.fixture
def measured(monkeypatch) -> SimpleNamespace:
    """What is measured, in its `order`; the measurements themselves are made up, and number `fails` fails."""
    told = SimpleNamespace(order=[], fails=None, file=None, found=[])

    def measure(function, task, *more):
        told.order.append((task.name, task.seed, *more))
        if told.file is not None:
            told.found.append(json.loads(told.file.read_text()))
        if len(told.order) == told.fails:
            raise ZeroFlowError("out of luck")
        if more:
            return Batch(task.name, more[0], 3 * more[0], 2, 6.0, more[0] / 2, 100.0, 0, 0.104, None)
        fast = task.name.endswith("fast")
        return run_of(task.name, task.seed, seconds=3.0 if fast else 36.0, epe=0.104 if fast else 0.1)

    monkeypatch.setattr(command, "in_own_process", measure)
    return told


def test_configurations_take_turns_and_the_file_has_every_run(logs: Path, tmp_path: Path, measured):
    measured.file = tmp_path / "new" / "teacher.json"
    done = bench("--data", logs, "--seeds", 2, "--json", measured.file)
    assert done.exit_code == 0, done.output
    names = ["nsfp:published", "nsfp:fast"]
    assert measured.order == [(name, seed) for seed in (0, 1) for name in names]
    assert [len(found["runs"]) for found in measured.found] == [0, 1, 2, 3]
    assert not any(found["finished"] for found in measured.found)

    stored = json.loads(measured.file.read_text())
    assert stored["finished"] and [(run["name"], run["seed"]) for run in stored["runs"]] == measured.order
    assert stored["pair"]["log"] == "drive" and stored["pair"]["index"] == 0 and stored["pair"]["points0"] > 1000
    assert stored["zero"]["zeroflow"]["three_way_epe"] > 0.01
    assert stored["configurations"]["nsfp:fast"]["engine"] == "fast" and stored["torch"] and stored["machine"]
    fast = stored["summaries"][1]
    assert fast["speed_ratio"] == 12 and fast["epe_ratio"] == pytest.approx(1.04) and fast["av2_train_hours"] > 91


def test_tables_have_the_floor_and_a_line_for_each(logs: Path, measured):
    done = bench("--data", logs, "--seeds", 2, "--run", "nsfp:published", "--run", "nsfp:fast", "--batch", 4)
    assert measured.order[4:] == [("nsfp:fast", 0, 4)]  # the plain engine takes one pair at a time
    rows = [line.split() for line in done.stdout.splitlines()]
    zero = f"{figures_of_zero_flow(read_truth(Log(logs / 'sensor/val/drive'), 0))['zeroflow']['fd']:.4f}"
    assert any(row[:2] == ["zero", "flow"] and zero in row for row in rows)
    assert ["nsfp:fast", "0.1040", "1.040", "0.1040", "0.1040", "0.1040", "0.1040", "0.1040", "0.2000"] in rows
    assert ["nsfp:fast", "3.00", "3.00", "3.00", "15.0", "12.0", "11.9", "100", "30.0", "3", "MiB"] in rows
    assert ["nsfp:fast", "4", "12", "0.1040", "2.00", "71.4", "–", "15.2", "h", "14.0", "h"] in rows
    assert "nsfp:fast: mean three-way EPE +4.0 % against nsfp:published, within the bound" in done.stdout
    assert "753 hours of a T4" in done.stdout
    assert "nsfp:published, seed 1: 36.0 s, 100 iterations, three-way EPE 0.1000" in done.stderr


def test_other_work_on_the_machine_is_told(logs: Path, measured, monkeypatch):
    for load, told in ((1.5, True), (0.1, False)):
        monkeypatch.setattr("os.getloadavg", lambda load=load: (load, 0.0, 0.0))
        monkeypatch.setattr("os.cpu_count", lambda: 2)
        done = bench("--data", logs, "--seeds", 1)
        assert ("busy (load 1.5 on 2 cores)" in done.stderr) == told, done.stderr


def test_a_run_that_fails_leaves_what_there_is(logs: Path, tmp_path: Path, measured):
    measured.fails, file = 3, tmp_path / "teacher.json"
    done = bench("--data", logs, "--json", file)
    assert "out of luck" in str(done.exception)
    stored = json.loads(file.read_text())
    assert len(stored["runs"]) == 2 and not stored["finished"]
    assert "+4.0 % against nsfp:published" in done.stdout


def test_without_data_a_pair_is_simulated(tmp_path: Path, measured, monkeypatch):
    monkeypatch.setitem(teacher_pair._SIMULATED, "scanner", "small")
    file = tmp_path / "teacher.json"
    assert bench("--seeds", 1, "--json", file).exit_code == 0
    stored = json.loads(file.read_text())
    assert stored["pair"]["simulated"] == {"seed": 7, "scanner": "small", "scene": "street"}
    assert stored["zero"]["zeroflow"]["num_fd"] > 10


def test_the_pair_is_the_one_that_was_asked_for(logs: Path):
    for asked, index in ((None, 0), ("1", 1), ("drive:1", 1)):
        with teacher_pair.choose_pair(logs, "val", asked, 1) as source:
            assert (source.log, source.index) == (logs / "sensor" / "val" / "drive", index)


def test_mistakes_are_told_before_any_work(logs: Path, tmp_path: Path, measured):
    (tmp_path / "file").write_text("")
    for arguments, sentence in [
        (["--run", "nsfp"], "--run 'nsfp' names no configuration"),
        (["--run", "nsfp:slow"], "teacher configuration 'slow' is unknown"),
        (["--run", "sfp:fast"], "teacher 'sfp' is unknown"),
        (["--device", "abacus"], "device 'abacus' is unknown"),
        (["--pair", "0"], "--pair 0 chooses among the pairs of --data"),
        (["--data", tmp_path / "nowhere"], "there is no folder"),
        (["--data", logs, "--split", "train"], "there is no split 'train'"),
        (["--data", logs, "--pair", "first"], "--pair 'first' is no pair of a log"),
        (["--data", logs, "--pair", "walk:0"], "there is no log walk in"),
        (["--data", logs, "--pair", "2"], "has 2 pairs, the first with index 0; there is none with index 2"),
        (["--data", logs, "--json", tmp_path / "file" / "a.json"], "cannot write"),
    ]:
        done = bench(*arguments)
        assert isinstance(done.exception, ZeroFlowError) and sentence in str(done.exception), done.output
    assert measured.order == []


def test_a_log_without_labels_is_refused(logs: Path, tmp_path: Path):
    log = tmp_path / "val" / "bare"
    shutil.copytree(logs / "sensor" / "val" / "drive", log)
    for path in (log / "annotations.feather", log / "flow_labels.feather", *log.glob("flow_labels/*")):
        path.unlink(missing_ok=True)
    for pair, sentence in (("0", "no log of split val in"), ("bare:0", "bare has no labels")):
        with pytest.raises(ZeroFlowError, match=sentence), teacher_pair.choose_pair(tmp_path, "val", pair, 1):
            pass


def test_long_numbers_have_three_digits_that_count():
    values = [12345.6, 100.4, 99.96, 99.94, 9.876, 0.01234]
    assert [teacher_tables._digits(value) for value in values] == ["12,346", "100", "100", "99.9", "9.88", "0.0123"]
    values = [8.42e10, 3.2e13, 5e6, 12]
    assert [teacher_tables._prefixed(value) for value in values] == ["84.2 G", "32.0 T", "5.00 M", "12.0"]


def test_the_teacher_itself_in_a_process_of_its_own(logs: Path, tmp_path: Path, monkeypatch):
    """Cut down to a few points and iterations, so that it takes no longer than starting it."""

    def tiny(method, name):
        corner = (15.0, 15.0, 3.0)
        config = teacher_config(method, name)
        return replace(config, iterations=3, minimum=tuple(-x for x in corner), maximum=corner)

    monkeypatch.setattr(command, "teacher_config", tiny)
    file = tmp_path / "teacher.json"
    done = bench("--data", logs, "--run", "nsfp:published", "--seeds", 1, "--json", file)
    assert done.exit_code == 0, done.output
    (run,) = json.loads(file.read_text())["runs"]
    assert run["iterations"] == 3 and run["problem"] is None and 0 < run["seconds"] < 60 and run["points"] > 100
    assert run["matmul_rate"] > 1e8 and run["threads"] == teacher_run.cores()
    assert run["errors"]["zeroflow"]["three_way_epe"] is not None
