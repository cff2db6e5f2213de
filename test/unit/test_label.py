"""The teacher's stage: what it writes, resuming, shards, failures, dead workers, bad settings."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from label_cases import QUICK, QUICK_FAST_NSF, dies, dies_at_three, inline, label_files, make_logs, settings
from typer.testing import CliRunner

from zeroflow_core.cli.main import app
from zeroflow_core.datasets.av2 import Log
from zeroflow_core.datasets.pseudo_labels import PseudoLabels, find_pseudo_labels
from zeroflow_core.distillation import sources
from zeroflow_core.distillation.labelling import label as stage
from zeroflow_core.distillation.labelling import work as label_work
from zeroflow_core.distillation.labelling.chunks import Deaths
from zeroflow_core.distillation.labelling.errors import reverse_truth
from zeroflow_core.distillation.labelling.label import label
from zeroflow_core.distillation.pairs import LogPairs, PairRef, choose_pairs
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.truth import read_truth
from zeroflow_core.nsfp.teacher import Teacher
from zeroflow_core.simulation.log import simulate_log
from zeroflow_core.workers import process

KILLS = 24


@pytest.fixture(scope="module")
def logs(tmp_path_factory) -> tuple[Path, ...]:
    """Two logs with five pairs each."""
    return make_logs(tmp_path_factory.mktemp("data"), 2, 6)


@pytest.fixture(scope="module")
def finished(logs, tmp_path_factory) -> Path:
    """The folder of a complete run, by worker processes."""
    out = tmp_path_factory.mktemp("finished") / "labels"
    assert label(settings(logs, out)).failed == []
    return out


@pytest.fixture
def in_this_process(monkeypatch) -> None:
    monkeypatch.setattr(stage, "run_in_workers", inline)


def records(out: Path) -> list[tuple[str, int]]:
    """(log, index) of every line of every journal that is no failure."""
    lines = [json.loads(line) for file in out.glob("journal/*/*.jsonl") for line in file.read_text().splitlines()]
    return sorted((line["log"], line["index"]) for line in lines if "error" not in line)


def manifest_of(out: Path) -> dict:
    return json.loads((out / "manifest.json").read_text())


# --- what is written ----------------------------------------------------------------------------------------


def test_labels_are_the_teachers(logs, finished):
    labels = find_pseudo_labels(finished)
    assert labels == PseudoLabels(finished / "train_nsfp_flow_feather", finished / "train_nsfp_flow_feather_reverse")
    log, teacher = Log(logs[1]), Teacher("nsfp", QUICK, device="cpu")
    for i in (0, 4):
        pair = LogPairs(logs[1], "none").pair(i)
        said = teacher.label_one(pair)
        forward, reverse = labels.read(log, i)
        assert (len(forward), len(reverse)) == (60 + i, 61 + i)
        np.testing.assert_array_equal(forward, said.flow.vectors)
        # Into the second sweep's frame: there, with the rotation of the log's poses.
        turned = said.backward.vectors.astype(np.float64) @ pair.ego0_SE3_ego1.rotation
        np.testing.assert_allclose(reverse, turned, atol=1e-6)
        assert not np.allclose(reverse, said.backward.vectors, atol=1e-3)


def test_ground_and_far_points_are_not_valid(tmp_path, in_this_process):
    path = tmp_path / "log"
    simulate_log(path, seed=5, sweeps=2, scanner="small", scene="street")
    labels = label(settings((path,), tmp_path / "out", ground="auto", jobs=1)).labels
    pair = LogPairs(path).pair(0)
    far = (np.abs(pair.pc0) >= 51.2).any(axis=1)
    expected = ~pair.is_ground0 & ~far & (pair.pc0[:, 2] < 3) & (pair.pc0[:, 2] >= -3)
    assert pair.is_ground0.sum() > 100 and far.sum() > 10
    np.testing.assert_array_equal(~np.isnan(labels.read(Log(path), 0)[0][:, 0]), expected)


def test_reading_and_writing_beside_a_gpu_change_nothing(logs, finished, tmp_path, in_this_process, monkeypatch):
    teacher = Teacher("nsfp", QUICK, device="cpu", pairs_in_flight=3)
    stand_in = SimpleNamespace(device="cuda", name="", label=teacher.label, label_one=teacher.label_one)
    monkeypatch.setattr(label_work, "_teacher", lambda work: stand_in)
    monkeypatch.setattr(label_work, "_IN_A_ROW", 2)
    monkeypatch.setattr(stage, "chunks_of", lambda refs, processes, most: [tuple(refs)])
    label(settings(logs, tmp_path))
    assert label_files(tmp_path) == label_files(finished) and len(records(tmp_path)) == 10


def test_the_manifest_says_what_the_labels_are(logs, finished):
    manifest = manifest_of(finished)
    assert manifest["counts"] == {"pairs": 10, "labelled": 10, "without_estimate": 0, "failed": 0}
    assert manifest["complete"] and manifest["teacher"] == "NSFP, fast engine (fp32, cpu)"
    assert manifest["logs"]["log1"] == {"path": str(logs[1]), "sweeps": 6, "pairs": 5, "labelled": 5}
    configuration = manifest["configuration"]
    assert (configuration["iterations"], configuration["ground"], configuration["device"]) == (2, "none", "cpu")
    assert manifest["mean"]["iterations"] == 2 and manifest["mean"]["loss"] > 0
    assert manifest["device_hours"] > 0 and manifest["errors"] == {}


def test_labels_of_labelled_logs_are_judged_in_both_directions(tmp_path, in_this_process):
    path = tmp_path / "log"
    simulate_log(path, seed=3, sweeps=3, scanner="small", scene="junction")
    errors = label(settings((path,), tmp_path / "out", ground="auto", jobs=1)).manifest["errors"]
    assert set(errors) == {"forward", "reverse"}
    for figures in errors.values():
        assert figures["num_fd"] > 50 and figures["fd"] > 0 and figures["coverage"] > 0.9
    assert errors["forward"] != errors["reverse"]


def test_the_reverse_truth_is_the_forward_one_of_the_same_motion(tmp_path):
    """Things keep their speed from one sweep to the next, so the truth backwards is about the negative one, in the
    later vehicle frame."""
    path = tmp_path / "log"
    simulate_log(path, seed=3, sweeps=3, scanner="small", scene="highway")
    log = Log(path)
    reverse, forward = reverse_truth(log, 0), read_truth(log, 1)  # both of the points of sweep 1
    np.testing.assert_array_equal(reverse.points0, forward.points0)
    moving = np.linalg.norm(forward.scene_flow.residual, axis=1) > 0.5
    assert moving.sum() > 50
    both = moving & reverse.scene_flow.is_valid & forward.scene_flow.is_valid
    np.testing.assert_allclose(reverse.scene_flow.residual[both], -forward.scene_flow.residual[both], atol=0.15)


def test_fast_nsf_has_no_labels_backwards(logs, tmp_path, in_this_process):
    made = label(settings(logs[:1], tmp_path, teacher_config=QUICK_FAST_NSF, per_log=1))
    assert made.labels == PseudoLabels(tmp_path / "train_fastnsf_flow_feather", None)
    assert find_pseudo_labels(tmp_path) == made.labels
    assert made.labels.read(Log(logs[0]), 0)[1] is None


# --- resume -------------------------------------------------------------------------------------------------


def test_nothing_is_done_twice(logs, finished, monkeypatch):
    monkeypatch.setattr(stage, "run_in_workers", None)
    told = []
    before = manifest_of(finished)
    again = label(settings(logs, finished), told.append)
    assert [(now.done, now.kept, now.total) for now in told] == [(10, 10, 10)]
    assert again.manifest == before == manifest_of(finished)


def test_a_file_that_is_gone_is_made_again(logs, finished, tmp_path, in_this_process):
    label(settings(logs, tmp_path))
    for folder, sweep in (("train_nsfp_flow_feather", 2), ("train_nsfp_flow_feather_reverse", 1)):
        (tmp_path / folder / "log0" / f"{Log(logs[0]).stamps_ns[sweep]}.feather").unlink()
    label(settings(logs, tmp_path))
    assert label_files(tmp_path) == label_files(finished)
    assert sorted(set(records(tmp_path))) == records(finished) and len(records(tmp_path)) == 12


def test_killed_at_any_moment_it_ends_the_same(tmp_path, in_this_process):
    logs = make_logs(tmp_path / "data", 3, 21)
    label(settings(logs, tmp_path / "whole"))
    rng, kills, out = random.Random(0), 0, tmp_path / "out"
    while not _run_and_kill(settings(logs, out), after=rng.randint(0, 3), pause=rng.uniform(0, 0.03)):
        kills += 1
        assert kills < 200
    assert kills >= KILLS
    assert label_files(out) == label_files(tmp_path / "whole")
    assert records(out) == records(tmp_path / "whole"), "a pair that was finished was done again, or forgotten"
    counts = manifest_of(out)["counts"]
    assert counts == {"pairs": 60, "labelled": 60, "without_estimate": 0, "failed": 0}


def _run_and_kill(asked, after: int, pause: float) -> bool:
    """Label in a process of its own, which dies `pause` seconds after so many pairs; whether it was finished first.

    A fork, as a new interpreter would take seconds for torch each time.
    """
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            label(asked, lambda now: os.write(theirs, b"."))
            os._exit(0)
        finally:
            os._exit(1)
    os.close(theirs)
    with os.fdopen(ours, "rb", buffering=0) as told:
        for _ in range(1 + after):
            if not told.read(1):
                break
        time.sleep(pause)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return not os.WIFSIGNALED(status)


DRIVER = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from label_cases import settings
from zeroflow_core.distillation.labelling.label import label
label(settings(tuple(map(Path, sys.argv[3:])), Path(sys.argv[2])), lambda now: print(now.done, flush=True))
"""


def test_killed_with_its_workers_at_work_it_ends_the_same(logs, finished, tmp_path, in_this_process):
    command = [sys.executable, "-c", DRIVER, str(Path(__file__).parent), str(tmp_path), *map(str, logs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as driver:
        assert driver.stdout.readline() and driver.stdout.readline()  # the start, and one pair
        os.kill(driver.pid, signal.SIGKILL)
    label(settings(logs, tmp_path))  # at once: the orphans end by themselves, and may still be writing
    deadline = time.monotonic() + 30
    while label_files(tmp_path) != label_files(finished):
        assert time.monotonic() < deadline
        time.sleep(0.1)


# --- workers that die ---------------------------------------------------------------------------------------


def test_a_worker_that_dies_is_replaced(logs, finished, tmp_path, monkeypatch):
    started, start = [], process.start

    def remember(environment):
        started.append(start(environment))
        return started[-1]

    def kill_the_first(now):
        if now.done == 1:
            started[0][1].kill()

    monkeypatch.setattr(process, "start", remember)
    made = label(settings(logs, tmp_path), kill_the_first)
    assert made.failed == [] and len(started) == 3
    assert label_files(tmp_path) == label_files(finished) and len(records(tmp_path)) == 10


def test_a_pair_that_no_worker_survives_has_failed(logs, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "label_chunk", dies_at_three)
    made = label(settings(logs, tmp_path, jobs=1))
    assert [(record["log"], record["index"]) for record in made.failed] == [("log1", 3)]
    assert "killed" in made.failed[0]["error"]
    assert made.manifest["counts"] == {"pairs": 10, "labelled": 0, "without_estimate": 9, "failed": 1}


def test_the_fatal_pair_of_a_chunk_is_found():
    refs = tuple(PairRef(Path("log"), i) for i in range(1000))
    deaths, chunks, done, lost = Deaths(), [refs], [], []
    while chunks:
        chunk = chunks.pop(0)
        if refs[700] not in chunk:
            done += chunk
            deaths.pair_is_done()
            continue
        instead = deaths.chunks_after(chunk, "killed")
        chunks = instead + chunks
        lost += [] if instead else chunk
    assert lost == [refs[700]] and sorted(done) == sorted({*refs} - {refs[700]})


def test_workers_that_all_die_end_the_run(logs, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "label_chunk", dies)
    monkeypatch.setattr("zeroflow_core.distillation.labelling.chunks._DEATHS_IN_A_ROW", 2)
    with pytest.raises(ZeroFlowError, match="3 processes ended .*exit code 7"):
        label(settings(logs, tmp_path))
    assert label_files(tmp_path) == {}


# --- shards -------------------------------------------------------------------------------------------------


def test_shards_together_are_the_whole(logs, finished, tmp_path, in_this_process):
    for i in (2, 0, 1):
        made = label(settings(logs, tmp_path, shard=(i, 3)))
    assert label_files(tmp_path) == label_files(finished) and records(tmp_path) == records(finished)
    assert made.manifest["counts"]["labelled"] == 10 and made.manifest["complete"]
    assert label(settings(logs, tmp_path)).manifest["counts"] == made.manifest["counts"]
    assert len(records(tmp_path)) == 10  # the whole run found the shards' work


def test_a_shard_waits_for_nobody_but_itself(logs, tmp_path, in_this_process):
    folder = stage.LabelFolder(tmp_path, stage.label_folders(tmp_path, "train", "nsfp"), (0, 2))
    with folder.held():
        with pytest.raises(ZeroFlowError, match="another process is labelling"):
            label(settings(logs, tmp_path, shard=(0, 2)))
        done = label(settings(logs, tmp_path, shard=(1, 2))).manifest
    assert done["counts"]["labelled"] == 5 and not done["complete"]


def test_parts_that_overlap_are_not_done_at_once(logs, tmp_path, in_this_process):
    """One would take the files that the other is writing for leftovers."""
    folder = stage.LabelFolder(tmp_path, stage.label_folders(tmp_path, "train", "nsfp"), (0, 2))
    with folder.held():
        for others in ((1, 3), (0, 1)):
            with pytest.raises(ZeroFlowError, match=rf"as one of 2, not of {others[1]}; wait .* --shard i/2"):
                label(settings(logs, tmp_path, shard=others))
    assert label(settings(logs, tmp_path, shard=(1, 3))).failed == []


# --- failures -----------------------------------------------------------------------------------------------


def test_failures_are_listed_and_tried_again(tmp_path, finished, in_this_process):
    logs = make_logs(tmp_path / "data", 2, 6)  # as those of `finished`
    damaged = logs[0] / "sensors" / "lidar" / f"{Log(logs[0]).stamps_ns[2]}.feather"
    content = damaged.read_bytes()
    damaged.write_bytes(content[:100])
    made = label(settings(logs, tmp_path / "out"))
    assert [(record["log"], record["index"]) for record in made.failed] == [("log0", 1), ("log0", 2)]
    assert all("is damaged" in record["error"] for record in made.failed)
    assert made.manifest["counts"] == {"pairs": 10, "labelled": 8, "without_estimate": 0, "failed": 2}
    assert [pair["index"] for pair in made.manifest["failed"]] == [1, 2] and not made.manifest["complete"]
    assert not made.labels.has(Log(logs[0]), 1) and made.labels.has(Log(logs[0]), 0)
    damaged.write_bytes(content)
    left = label(settings(logs, tmp_path / "out", retry=False))
    assert left.manifest["failed"] == made.manifest["failed"] and not left.labels.has(Log(logs[0]), 1)
    again = label(settings(logs, tmp_path / "out"))
    assert again.failed == again.manifest["failed"] == [] and label_files(tmp_path / "out") == label_files(finished)
    assert len(records(tmp_path / "out")) == 10


def test_one_pair_of_a_batch_does_not_spoil_the_others(logs, finished, tmp_path, in_this_process, monkeypatch):
    optimise, points = Teacher._optimise_at_once, Log(logs[0]).sweep(3).points
    batches = []

    def fails_at_three(self, clouds, on_iteration):
        batches.append(len(clouds))
        if any((points == pc0[0].numpy()).all(axis=1).any() for pc0, _ in clouds):
            raise ValueError("out of luck")
        return optimise(self, clouds, on_iteration)

    monkeypatch.setattr(Teacher, "_optimise_at_once", fails_at_three)
    monkeypatch.setattr("zeroflow_core.nsfp.teacher.pairs_that_fit", lambda config, device: 4)
    monkeypatch.setattr(stage, "chunks_of", lambda refs, processes, most: [tuple(refs)])
    label_work._teacher.cache_clear()
    made = label(settings(logs, tmp_path))
    label_work._teacher.cache_clear()
    assert batches == [4, 1, 1, 1, 1, 4, 2]
    assert [(record["index"], record["error"]) for record in made.failed] == [(3, "ValueError: out of luck")]
    whole, files = label_files(finished), label_files(tmp_path)
    assert len(files) == 18 and all(whole[name] == content for name, content in files.items())


def test_a_pair_with_nothing_to_go_by_has_not_failed(tmp_path, in_this_process):
    logs = make_logs(tmp_path / "data", 1, 3)
    asked = replace(QUICK, minimum=(-6.0, -6.0, 100.0), maximum=(6.0, 6.0, 200.0))
    made = label(settings(logs, tmp_path / "out", teacher_config=asked))
    assert made.failed == [] and label_files(tmp_path / "out") == {}
    assert made.manifest["counts"] == {"pairs": 2, "labelled": 0, "without_estimate": 2, "failed": 0}
    assert "no point in range" in made.manifest["without_estimate"][0]["problem"] and made.manifest["complete"]
    assert len(records(tmp_path / "out")) == 2
    label(settings(logs, tmp_path / "out", teacher_config=asked))
    assert len(records(tmp_path / "out")) == 2


def test_a_full_disk_is_one_sentence(logs, finished, tmp_path, in_this_process, monkeypatch):
    move, moved = os.replace, []

    def full(source, target):
        if str(target).endswith(".feather"):
            moved.append(target)
            if len(moved) > 5:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        move(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(ZeroFlowError, match="cannot write .*: No space left on device$"):
            label(settings(logs, tmp_path))
    assert len(label_files(tmp_path)) == 5 and not list(tmp_path.rglob(".*"))
    assert label(settings(logs, tmp_path)).failed == []
    assert label_files(tmp_path) == label_files(finished)


# --- settings -----------------------------------------------------------------------------------------------


def test_other_labels_are_not_mixed_with_these(logs, finished, tmp_path):
    for changes, says in (
        ({"seed": 1}, "its seed is 0, not 1"),
        ({"ground": "patchwork"}, "its ground is none, not patchwork"),
        ({"teacher_config": replace(QUICK, iterations=3)}, "its iterations is 2, not 3"),
    ):
        with pytest.raises(ZeroFlowError, match=f"holds other labels .*{says}"):
            label(settings(logs, finished, **changes))
    (longer,) = make_logs(tmp_path, 1, 3)
    with pytest.raises(ZeroFlowError, match="another log log0, of 6 sweeps, not 3"):
        label(settings((longer,), finished))


def test_labels_from_elsewhere_are_left_alone(logs, tmp_path):
    (tmp_path / "train_nsfp_flow_feather" / "log").mkdir(parents=True)
    with pytest.raises(ZeroFlowError, match="holds labels, but .* has no manifest.json"):
        label(settings(logs, tmp_path))


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"logs": ()}, "no log was given"),
        ({"shard": (2, 2)}, "no shard 2/2; with 2 shards they are 0/2 to 1/2"),
        ({"jobs": 0}, "0 jobs cannot label"),
        ({"ground": "grass"}, "ground rule 'grass' is unknown"),
        ({"ground": "map"}, "has no map with ground heights"),
        ({"per_log": 0}, "pairs per log can't be 0"),
        ({"device": "tpu"}, "device 'tpu' is unknown"),
        ({"teacher_config": "slow"}, "teacher configuration 'slow' is unknown"),
        ({"split": "a/b"}, "split can't be called 'a/b'"),
        ({"split": ".."}, "split can't be called '..'"),
        ({"shard": (0, 0)}, "no shard 0/0"),
        ({"method": "magic", "teacher_config": "fast"}, "teacher 'magic' is unknown"),
    ],
)
def test_settings_that_cannot_be_used(logs, tmp_path, changes, says):
    with pytest.raises(ZeroFlowError, match=says):
        label(replace(settings(logs, tmp_path / "out"), **changes))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--split", "a/b"], "split can't be called"),
        (["--split", "mine"], "--split is of --data; labels of a bag are called train"),
        (["--shard", "3/2"], "no shard 3/2"),
        (["--ground", "grass"], "ground rule 'grass' is unknown"),
        (["--method", "magic"], "teacher 'magic' is unknown"),
        (["--teacher-config", "slow"], "teacher configuration 'slow' is unknown"),
        (["--device", "tpu"], "device 'tpu' is unknown"),
        (["--ego-motion", "guess"], "ego motion 'guess' is unknown"),
        (["--height", "-1"], "height of -1.0 m"),
    ],
)
def test_mistakes_are_told_before_a_bag_is_imported(tmp_path, monkeypatch, arguments, says):
    monkeypatch.setattr(sources, "find_bags", lambda path: pytest.fail("it is looked at"))
    result = run("--bag", tmp_path / "bag", "--out", tmp_path / "out", *arguments)
    assert isinstance(result.exception, ZeroFlowError) and says in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_logs_of_one_name_are_refused(logs, tmp_path):
    others = make_logs(tmp_path, 1, 2)
    with pytest.raises(ZeroFlowError, match="have the same name"):
        label(settings((*logs, *others), tmp_path / "out"))


def test_which_pairs_are_chosen(logs, tmp_path):
    assert choose_pairs(logs[:1]) == [PairRef(logs[0], i) for i in range(5)]
    assert [ref.index for ref in choose_pairs(logs, per_log=2)] == [0, 2, 0, 2]
    single = make_logs(tmp_path, 1, 1)
    assert choose_pairs((*single, *logs)) == choose_pairs(logs)
    with pytest.raises(ZeroFlowError, match="no pair of sweeps: .* has one sweep"):
        choose_pairs(single)
    (gap,) = make_logs(tmp_path / "gap", 1, 5)
    sorted((gap / "sensors" / "lidar").iterdir())[2].unlink()
    assert [ref.index for ref in choose_pairs([gap])] == [0, 2], "the sweeps beside a missing one are no pair"


# --- the command --------------------------------------------------------------------------------------------


def run(*arguments):
    return CliRunner().invoke(app, ["distill", "label", *map(str, arguments)])


@pytest.fixture
def quick(monkeypatch, in_this_process) -> None:
    monkeypatch.setattr(stage, "teacher_config", lambda method, name: QUICK)


def test_the_command_labels_what_it_is_told(logs, tmp_path, quick):
    root, out = logs[0].parents[2], tmp_path / "out"
    (tmp_path / "list").write_text("log1\n")
    result = run("--data", root, "--logs", tmp_path / "list", "--ground", "none", "--device", "cpu", "--out", out)
    assert result.exit_code == 0, result.output
    assert "5 of 5 pairs labelled by NSFP" in result.output and "core-hours" in result.output
    assert {Path(name).parent.name for name in label_files(out)} == {"log1"}
    result = run("--data", root, "--log", "log1", "--ground", "none", "--device", "cpu", "--shard", "0/2", "--out", out)
    assert "5 of 5 pairs labelled (2 of 2 of this shard)" in result.output


def test_the_command_exits_with_1_after_failures(tmp_path, quick):
    (log,) = make_logs(tmp_path, 1, 9)
    for stamp in Log(log).stamps_ns[2:]:
        (log / "sensors" / "lidar" / f"{stamp}.feather").write_bytes(b"")
    result = run("--data", tmp_path, "--ground", "none", "--device", "cpu", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "7 pairs failed" in result.output and "2 more, see 'failed' in" in result.output
    assert result.output.count("is damaged") == 5


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--data", "nowhere"], "there is no folder nowhere"),
        ([], "nothing to learn from: give --data with a --split, or else --bag"),
        (["--data", ".", "--topic", "/points"], "--topic is for --bag"),
        (["--data", ".", "--shard", "1"], "--shard 1 is no shard; give i/n"),
        (["--data", ".", "--logs", "nowhere"], "--logs nowhere cannot be read"),
    ],
)
def test_mistakes_in_the_command(tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments, "--out", tmp_path / "out")
    assert result.exit_code == 1 and says in str(result.exception)
