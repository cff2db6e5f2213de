"""``zeroflow distill``: all stages on a few simulated sweeps, interrupted and again, and what the command says."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from zeroflow_core.cli import main
from zeroflow_core.datasets.av2 import Log
from zeroflow_core.distillation import run
from zeroflow_core.distillation.run import Distilled, DistillSettings, distill
from zeroflow_core.distillation.sources import LogSource
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.results import read_metrics
from zeroflow_core.fastflow3d.student import load_student
from zeroflow_core.files import locked
from zeroflow_core.nsfp.config import TeacherConfig
from zeroflow_core.simulation.log import simulate_log

QUICK = TeacherConfig("nsfp", "fast", iterations=8, samples=256)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A root with two logs to learn from, and a labelled one to judge by."""
    root = tmp_path_factory.mktemp("data")
    for split, name, seed, sweeps in (("train", "a", 3, 3), ("train", "b", 4, 3), ("val", "c", 5, 2)):
        simulate_log(root / "sensor" / split / name, seed=seed, sweeps=sweeps, scanner="small", scene="junction")
    return root


@dataclass
class Run:
    """settings, and what the last of two calls gave; stages: what each call told, in order"""

    settings: DistillSettings
    done: Distilled
    stages: list[list[str]]
    kept: int

    @property
    def out(self) -> Path:
        return self.settings.out


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data: Path) -> Run:
    """A run that was stopped when its labels were there, and went on."""
    settings = DistillSettings(
        LogSource(data), tmp_path_factory.mktemp("runs") / "mine", epochs=1, teacher_config=QUICK, device="cpu"
    )
    stages: list[list[str]] = [[], []]
    labels = []

    def tell(call: int, stage: str, progress) -> None:
        if stage not in stages[call]:
            stages[call].append(stage)
        if stage == "label":
            labels.append(progress)

    def stop(*_) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "train", stop)
        with pytest.raises(KeyboardInterrupt):
            distill(settings, lambda *now: tell(0, *now))
    done = distill(settings, lambda *now: tell(1, *now))
    return Run(settings, done, stages, labels[-1].kept)


def test_a_run_goes_on_where_it_was_stopped(finished: Run):
    assert finished.stages == [["label"], ["label", "train", "evaluate", "report"]]
    assert finished.kept == 4
    log = (finished.out / "log.txt").read_text()
    assert log.index("stopped: KeyboardInterrupt") < log.index("training: ") < log.index("student.safetensors is done")


def test_everything_is_in_the_folder(finished: Run):
    names = {path.name for path in finished.out.iterdir()}
    assert names == {
        "config.json", "log.txt", "labels", "prepared", "training", "evaluation", "student.safetensors", "curves.png",
        "before_after.png", "report.md",
    }  # fmt: skip
    student = load_student(finished.out / "student.safetensors", "cpu", engine="reference")
    assert student.metadata["name"] == "mine" and student.metadata["teacher"].startswith("NSFP")
    clouds = (np.random.default_rng(seed).uniform(-1, 1, (50, 3)).astype(np.float32) for seed in (0, 1))
    assert np.isfinite(student.flow(*clouds)).all()
    for method in ("student", "zero"):
        assert read_metrics(finished.out / "evaluation" / method)["run"]["num_pairs"] == 1
    for name, least in (("curves.png", (1400, 300)), ("before_after.png", (1800, 600))):
        with Image.open(finished.out / name) as image:
            assert image.width >= least[0] and image.height >= least[1]
            assert len(image.convert("RGB").getcolors(1 << 24)) > 100


def test_the_page_tells_it_all(finished: Run):
    page = (finished.out / "report.md").read_text()
    for heading in ("How good it is", "What it learned from", "Teacher", "Training", "Next"):
        assert f"\n## {heading}\n" in page
    for picture in re.findall(r"\]\((\S+)\)", page):
        assert (finished.out / picture).is_file()
    assert "2 logs, 6 sweeps" in page and "4 of 4 pairs labelled" in page
    assert finished.done.launch in page and str(finished.out / "student.safetensors") in finished.done.launch
    tables = [block.splitlines() for block in page.split("\n\n") if block.startswith("|")]
    assert [[row.split("|")[1].strip() for row in table[2:]] for table in tables] == [
        ["zero flow", "student"],
        ["zero flow", "student", "teacher"],
        ["zero flow", "student"],
    ]
    assert all(len({row.count("|") for row in table}) == 1 for table in tables)
    metrics = read_metrics(finished.out / "evaluation" / "zero")["av2-2023"]
    assert f"| zero flow | {metrics['three_way_epe']:.4f} | {metrics['fd']:.4f} |" in page


def test_a_complete_run_is_left_as_it_is(finished: Run):
    def content() -> dict[str, bytes]:
        files = [path for path in finished.out.rglob("*") if path.suffix in (".feather", ".safetensors", ".png", ".md")]
        return {str(path): path.read_bytes() for path in files}

    before = content()
    again = distill(finished.settings)
    assert again == finished.done
    assert content() == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"epochs": 2}, r"its epochs is 1, not 2.*its labels can be trained on: zeroflow distill train --labels /"),
        ({"seed": 7}, "its seed is"),
        ({"learning_rate": 0.1}, "its learning_rate is None, not 0.1"),
        ({"held_back": 0.3}, "its held_back is 0.1, not 0.3"),
        ({"ground": "none"}, "its ground is auto, not none"),
    ],
)
def test_a_folder_holds_one_run(finished: Run, change: dict, says: str):
    with pytest.raises(ZeroFlowError, match=f"holds another run .*{says}"):
        distill(replace(finished.settings, **change))


def test_how_memory_is_shared_makes_no_other_run(finished: Run):
    assert distill(replace(finished.settings, micro_batch=1, workers=0)) == finished.done


def test_a_run_goes_on_where_its_device_is(finished: Run, monkeypatch):
    monkeypatch.setattr(run, "choose_device", lambda device: "cuda")
    with pytest.raises(ZeroFlowError, match="was begun on cpu, .* than on cuda; go on with --device cpu, or choose"):
        distill(replace(finished.settings, device="auto"))  # the student would be another one as well


def test_two_processes_do_not_share_a_folder(finished: Run, monkeypatch):
    monkeypatch.setattr(run, "_PATIENCE_S", 0.0)
    with locked(finished.out), pytest.raises(ZeroFlowError, match="another process is distilling into"):
        distill(finished.settings)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"source": LogSource(Path("missing"))}, "there is no folder missing"),
        ({"source": LogSource(bag=Path("missing"))}, "missing"),
        ({"student": "huge"}, "student 'huge' is neither a size"),
        ({"recipe": "slow"}, "recipe 'slow' is unknown"),
        ({"method": "magic", "teacher_config": "fast"}, "teacher 'magic' is unknown"),
        ({"teacher_config": "slow"}, "teacher configuration 'slow' is unknown"),
        ({"ground": "grass"}, "ground rule 'grass' is unknown"),
        ({"held_back": 1.0}, "a share from 0 to below 1"),
        ({"epochs": 0}, "epochs must be"),
    ],
)
def test_a_mistake_leaves_nothing(data: Path, tmp_path: Path, change: dict, says: str):
    settings = DistillSettings(LogSource(data), tmp_path / "run", device="cpu")
    with pytest.raises(ZeroFlowError, match=says):
        distill(replace(settings, **change))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["training", "evaluation"])
def test_folders_that_no_run_made_stay(data: Path, tmp_path: Path, name: str):
    kept = tmp_path / "run" / name / "student.safetensors"
    kept.parent.mkdir(parents=True)
    kept.write_text("weeks of work")
    with pytest.raises(ZeroFlowError, match=f"run holds {name} but no config.json.*choose another --out"):
        distill(DistillSettings(LogSource(data), tmp_path / "run", device="cpu"))
    assert kept.read_text() == "weeks of work" and [path.name for path in (tmp_path / "run").iterdir()] == [name]


def test_a_mistake_leaves_the_log_that_was_there(data: Path, tmp_path: Path):
    (tmp_path / "log.txt").write_text("mine\n")
    with pytest.raises(ZeroFlowError):
        distill(DistillSettings(LogSource(Path("missing")), tmp_path, device="cpu"))
    assert (tmp_path / "log.txt").read_text().startswith("mine\n")


def test_logs_that_don_t_tell_the_truth_do_not_end_a_run(data: Path, tmp_path: Path, caplog):
    """Labels without a map: of what was learned from, and of the split that is judged by unasked."""
    root = shutil.copytree(data, tmp_path / "data")
    shutil.rmtree(root / "sensor" / "train" / "b")
    for log in (root / "sensor" / "train" / "a", root / "sensor" / "val" / "c"):
        shutil.rmtree(log / "map")
        shutil.rmtree(log / "flow_labels")
        (log / "flow_labels.feather").unlink(missing_ok=True)
    settings = DistillSettings(
        LogSource(root), tmp_path / "run", epochs=1, teacher_config=QUICK, device="cpu", held_back=0.5
    )
    done = distill(settings)
    assert done.report.is_file() and done.metrics == {} and not (tmp_path / "run" / "evaluation").exists()
    assert "c is not judged by: " in caplog.text


def test_a_damaged_log_to_judge_by_is_told_before_the_work(data: Path, tmp_path: Path):
    root = shutil.copytree(data, tmp_path / "data")
    for sweep in (root / "sensor" / "val" / "c" / "sensors" / "lidar").iterdir():
        sweep.unlink()
    with pytest.raises(ZeroFlowError, match="c"):
        distill(DistillSettings(LogSource(root), tmp_path / "run", device="cpu"))
    assert not (tmp_path / "run").exists()


def test_a_map_that_is_not_there_is_missed_before_the_run_begins(data: Path, tmp_path: Path):
    log = tmp_path / "data" / "sensor" / "train" / "a"
    shutil.copytree(data / "sensor" / "train" / "a", log, ignore=shutil.ignore_patterns("map"))
    with pytest.raises(ZeroFlowError, match="has no map with ground heights; choose --ground patchwork"):
        distill(DistillSettings(LogSource(tmp_path / "data"), tmp_path / "run", ground="map", device="cpu"))
    assert not (tmp_path / "run").exists()


def test_judging_by_logs_without_labels_is_a_mistake(data: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(run, "has_labels", lambda log: False)
    settings = DistillSettings(LogSource(data), tmp_path / "run", val=(data / "sensor" / "val" / "c",), device="cpu")
    with pytest.raises(ZeroFlowError, match="no log in .*val has labels to judge by"):
        distill(settings)


def _run(*arguments: object):
    environment = {"COLUMNS": "120", "TERM": "dumb", "NO_COLOR": "1"}
    return CliRunner().invoke(main.app, ["distill", *map(str, arguments)], env=environment)


@pytest.fixture
def asked(monkeypatch, tmp_path: Path) -> list[DistillSettings]:
    """Settings that the command asks for, of a run that ends at once with a failed pair."""
    settings: list[DistillSettings] = []

    def stand_in(given: DistillSettings, on_progress) -> Distilled:
        settings.append(given)
        failed = [{"log": "a", "index": k, "error": "the optimisation diverged"} for k in range(7)]
        return Distilled(given.out / "student.safetensors", given.out / "report.md", "ros2 launch it", failed, {}, [])

    monkeypatch.setattr(run, "distill", stand_in)
    return settings


def test_the_command_passes_on_what_it_is_told(asked: list[DistillSettings], data: Path, tmp_path: Path):
    words = ["--data", data, "--log", "a", "--log", "b", "--out", tmp_path / "run", "--student", "xl", "--epochs", 3]
    words += ["--recipe", "published", "--method", "fastnsf", "--val", f"{data}:train", "--pairs-per-log", 2]
    words += ["--batch", 4, "--learning-rate", 0.0005, "--micro-batch", 2, "--held-back", 0.2, "--workers", 1]
    result = _run(*words, "--ground", "none", "--device", "cpu", "--seed", 9)
    assert asked == [
        DistillSettings(
            LogSource(data, "train", ("a", "b")), tmp_path / "run", student="xl", recipe="published", epochs=3,
            batch=4, learning_rate=0.0005, method="fastnsf", teacher_config="fast", ground="none", pairs_per_log=2,
            val=tuple(data / "sensor" / "train" / name for name in ("a", "b")), device="cpu", seed=9, held_back=0.2,
            workers=1, micro_batch=2,
        )
    ]  # fmt: skip
    assert result.exit_code == 1 and "ros2 launch it" in result.output
    assert "7 pairs could not be labelled" in result.output and "a, pair 4: the optimisation diverged" in result.output
    assert "pair 5" not in result.output and "2 more" in result.output


def test_the_student_of_a_cpu_is_small_and_that_is_said(asked: list[DistillSettings], data: Path, tmp_path: Path):
    result = _run("--bag", "drive", "--topic", "/points", "--out", tmp_path / "run", "--device", "cpu")
    assert "On cpu the student is small" in result.output
    assert asked[0].source == LogSource(bag=Path("drive"), topic="/points")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--data", "x"], "no folder to write to; give --out"),
        (["--out", "x", "label", "--data", "y", "--out", "z"], "--out stands before label"),
        (["--data", "x", "--bag", "y", "--out", "z"], "both logs and a bag"),
        (["--bag", "y", "--split", "mine", "--out", "z"], "--split is of --data; labels of a bag are called train"),
        (["--data", "x", "--split", "a/b", "--out", "z"], "a split can't be called 'a/b'"),
        (["--bag", "y", "--ground", "grass", "--out", "z"], "ground rule 'grass' is unknown"),
        (["--bag", "y", "--ground", "map", "--out", "z"], "a bag has no map"),
        (["--bag", "y", "--teacher-config", "slow", "--out", "z"], "teacher configuration 'slow' is unknown"),
        (["--bag", "y", "--student", "huge", "--out", "z"], "student 'huge' is neither"),
        (["--bag", "y", "--ego-motion", "guess", "--out", "z"], "ego motion 'guess' is unknown"),
    ],
)
def test_misused_options_are_told_in_a_sentence(words: list[str], says: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = _run(*words)
    assert isinstance(result.exception, ZeroFlowError) and says in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_the_settings_are_kept_as_plain_data(finished: Run, data: Path):
    kept = json.loads((finished.out / "config.json").read_text())["settings"]
    assert kept["data"] == str(data) and kept["student"] == "small" and kept["epochs"] == 1
    assert kept["device"] == "cpu" and not {"out", "workers", "micro_batch"} & set(kept)


def test_pairs_that_failed_at_first_are_learned_from_when_they_succeed(data: Path, tmp_path: Path, caplog):
    shutil.copytree(data / "sensor" / "train" / "a", tmp_path / "data" / "sensor" / "train" / "a")
    log = Log(tmp_path / "data" / "sensor" / "train" / "a")
    damaged = log.path / "sensors" / "lidar" / f"{log.stamps_ns[2]}.feather"
    sweep = damaged.read_bytes()
    damaged.write_bytes(b"")
    settings = DistillSettings(
        LogSource(tmp_path / "data"), tmp_path / "run", epochs=1, teacher_config=QUICK, device="cpu", held_back=0.0
    )
    assert [pair["index"] for pair in distill(settings).failed] == [1]
    before = (tmp_path / "run" / "student.safetensors").read_bytes()
    assert "begins afresh" not in caplog.text
    damaged.write_bytes(sweep)
    done = distill(settings)
    assert done.failed == [] and done.student.read_bytes() != before
    told = "there are other labels now than when the training began; it begins afresh"
    assert caplog.text.count(told) == 1 and told in (tmp_path / "run" / "log.txt").read_text()
    trained = (tmp_path / "run" / "training" / "last.ckpt").stat().st_mtime_ns
    distill(settings)
    assert (tmp_path / "run" / "training" / "last.ckpt").stat().st_mtime_ns == trained
    assert caplog.text.count("begins afresh") == 1
