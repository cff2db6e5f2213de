"""A run of an evaluation: resuming after a kill, failing pairs, several processes, worst pairs, what can be scored."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from fake_teacher import FLOW, REACH, stand_in
from pyarrow import feather

from zeroflow_core.datasets.av2 import Log
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation import av2_2023, methods, run, worst
from zeroflow_core.evaluation.journal import Journal
from zeroflow_core.evaluation.methods import Settings, make_method
from zeroflow_core.evaluation.results import DEFINITIONS
from zeroflow_core.evaluation.run import evaluate
from zeroflow_core.files import locked
from zeroflow_core.pairs import Flow, Status
from zeroflow_core.playback.runs import read_run
from zeroflow_core.simulation.log import simulate_log

SLOW = """
import sys, time
from pathlib import Path
from zeroflow_core.evaluation import methods
from zeroflow_core.evaluation.run import Settings, evaluate
flow = methods.ZeroMethod.flow
methods.ZeroMethod.flow = lambda *arguments: (time.sleep(0.3), flow(*arguments))[1]
evaluate(Settings(Path(sys.argv[1]), "val", "zero"), Path(sys.argv[2]), jobs=int(sys.argv[3]))
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Two simulated logs of three and five sweeps, where things move."""
    root = tmp_path_factory.mktemp("data")
    for name, seed, sweeps in (("a", 21, 3), ("b", 22, 5)):
        simulate_log(root / "sensor" / "val" / name, seed=seed, sweeps=sweeps, scanner="small", scene="junction")
    return root


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory) -> Path:
    """The folder of a complete run of zero flow."""
    out = tmp_path_factory.mktemp("finished") / "zero"
    outcome = evaluate(Settings(root, "val", "zero"), out)
    assert outcome.failed == [] and outcome.metrics["run"]["num_pairs"] == 6
    return out


@pytest.fixture(autouse=True)
def _no_method_remembered():
    run._method.cache_clear()
    yield
    run._method.cache_clear()


def figures(out: Path) -> dict:
    """metrics.json without what may differ between two runs of the same."""
    metrics = json.loads((out / "metrics.json").read_text())
    del metrics["run"]
    return metrics


def count_flows(monkeypatch, fail: set[tuple[str, int]] = frozenset(), exception: type = ValueError) -> list:
    """Record the (log, pair) of every call of the method zero; raise at some."""
    calls, flow = [], methods.ZeroMethod.flow

    def counted(self, log, i, pair):
        calls.append((log.log_id, i))
        if (log.log_id, i) in fail:
            raise exception("out of luck")
        return flow(self, log, i, pair)

    monkeypatch.setattr(methods.ZeroMethod, "flow", counted)
    return calls


# --- resume -------------------------------------------------------------------------------------------------


def test_a_finished_run_is_not_done_again(root, finished, monkeypatch):
    calls = count_flows(monkeypatch)
    before = figures(finished)
    told = []
    evaluate(Settings(root, "val", "zero"), finished, on_progress=told.append)
    assert calls == [] and figures(finished) == before
    assert len(told) == 1 and (told[0].done, told[0].total, told[0].failed) == (6, 6, 0)
    assert told[0].three_way_epe == pytest.approx(before["av2-2023"]["three_way_epe"])


def test_an_interrupted_run_goes_on_and_ends_the_same(root, finished, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        calls = count_flows(patch, {("b", 1)}, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            evaluate(Settings(root, "val", "zero"), tmp_path / "out")
        assert calls == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert not (tmp_path / "out" / "metrics.json").exists()
    calls = count_flows(monkeypatch)
    told = []
    evaluate(Settings(root, "val", "zero"), tmp_path / "out", pictures=0, on_progress=told.append)
    assert calls == [("b", 1), ("b", 2), ("b", 3)]
    assert [progress.done for progress in told] == [3, 4, 5, 6]
    assert figures(tmp_path / "out") == figures(finished)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_killed_run_goes_on_and_ends_the_same(root, finished, tmp_path, jobs):
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(root), str(out), str(jobs)], start_new_session=True)
    deadline = time.monotonic() + 60
    while not any(journal.read_bytes() for journal in out.glob("pairs/*.jsonl")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 30
    while True:  # with several processes, the others end by themselves
        try:
            evaluate(Settings(root, "val", "zero"), out)
            break
        except ZeroFlowError as error:
            assert "another process" in str(error) and time.monotonic() < deadline
            time.sleep(0.1)
    assert figures(out) == figures(finished)
    assert not list(out.rglob(".*"))


def test_several_processes_give_the_same(root, finished, tmp_path):
    told = []
    evaluate(Settings(root, "val", "zero"), tmp_path / "out", jobs=2, on_progress=told.append)
    assert [progress.done for progress in told] == list(range(7))
    assert figures(tmp_path / "out") == figures(finished)
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000


def test_logs_may_be_links_to_elsewhere(root, finished, tmp_path):
    (tmp_path / "data" / "val").mkdir(parents=True)
    for name in "ab":
        (tmp_path / "data" / "val" / f"link-{name}").symlink_to(root / "sensor" / "val" / name)
    evaluate(Settings(tmp_path / "data", "val", "zero"), tmp_path / "out", submission=2024)
    ours, theirs = figures(tmp_path / "out"), figures(finished)
    assert list(ours.pop("per_log")) == ["link-a", "link-b"] and list(theirs.pop("per_log")) == ["a", "b"]
    assert ours == theirs


def test_links_to_logs_of_one_name_are_different_logs(root, finished, tmp_path):
    (tmp_path / "data" / "val").mkdir(parents=True)
    for name in "ab":
        shutil.copytree(root / "sensor" / "val" / name, tmp_path / "drives" / name / "log")
        (tmp_path / "data" / "val" / name).symlink_to(tmp_path / "drives" / name / "log")
    evaluate(Settings(tmp_path / "data", "val", "zero"), tmp_path / "out")
    assert figures(tmp_path / "out") == figures(finished)


def test_a_journal_cut_at_any_byte_loses_only_the_last_line(tmp_path):
    whole = Journal(tmp_path / "whole.jsonl")
    for i in range(3):
        whole.append({"index": i, "text": "ä" * i})
    content = whole.path.read_bytes()
    for end in range(len(content) + 1):
        cut = Journal(tmp_path / "cut.jsonl")
        cut.path.write_bytes(content[:end])
        kept = content[:end].count(b"\n")
        assert [record["index"] for record in cut.records()] == list(range(kept))
        cut.append({"index": 7})
        assert [record["index"] for record in cut.records()] == [*range(kept), 7]


def test_the_last_record_of_a_pair_counts(tmp_path):
    journal = Journal(tmp_path / "pairs" / "log.jsonl")
    assert list(journal.records()) == []
    for record in ({"index": 1, "error": "no"}, {"index": 0}, {"index": 1}, {"index": 0, "error": "later"}):
        journal.append(record)
    assert list(journal.records()) == [{"index": 0, "error": "later"}, {"index": 1}]
    assert journal.finished() == {1}


@pytest.mark.parametrize("content", [b"not json\n", b"[1, 2]\n", b'{"no": "index"}\n', b"\xff\xfe\n"])
def test_a_foreign_file_in_place_of_a_journal_is_named(tmp_path, content):
    (tmp_path / "log.jsonl").write_bytes(content)
    with pytest.raises(ZeroFlowError, match=r"log\.jsonl is not a journal.*remove it"):
        list(Journal(tmp_path / "log.jsonl").records())


# --- failures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exception", [ValueError, ZeroFlowError, MemoryError])
def test_a_failing_pair_is_told_and_tried_again(root, finished, monkeypatch, tmp_path, exception):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        count_flows(patch, {("b", 2)}, exception)
        told = []
        outcome = evaluate(Settings(root, "val", "zero"), out, on_progress=told.append)
    assert [(record["log"], record["index"]) for record in outcome.failed] == [("b", 2)]
    assert "out of luck" in outcome.failed[0]["error"] and told[-1].failed == 1 and told[-1].done == 6
    assert outcome.metrics["run"]["num_pairs"] == 5 and outcome.metrics["failed"] == outcome.failed
    calls = count_flows(monkeypatch)
    outcome = evaluate(Settings(root, "val", "zero"), out)
    assert calls == [("b", 2)] and outcome.failed == [] and figures(out) == figures(finished)


def test_a_damaged_sweep_fails_its_pairs_only(root, tmp_path):
    shutil.copytree(root, tmp_path / "data")
    log = Log(tmp_path / "data" / "sensor" / "val" / "b")
    sweep = log.path / "sensors" / "lidar" / f"{log.stamps_ns[2]}.feather"
    sweep.write_bytes(sweep.read_bytes()[:1000])
    outcome = evaluate(Settings(tmp_path / "data", "val", "zero"), tmp_path / "out")
    assert [(record["log"], record["index"]) for record in outcome.failed] == [("b", 1), ("b", 2)]
    assert all(sweep.name in record["error"] for record in outcome.failed)
    assert outcome.metrics["run"]["num_pairs"] == 4


def test_a_flow_beyond_all_measure_is_scored(root, monkeypatch, tmp_path):
    flow = methods.ZeroMethod.flow

    def huge(self, log, i, pair):
        answer = flow(self, log, i, pair)
        size = {("a", 0): 1e25, ("a", 1): 3e38}.get((log.log_id, i), 0.0)  # whose squares are no float32
        return replace(answer, vectors=answer.vectors + np.float32(size))

    monkeypatch.setattr(methods.ZeroMethod, "flow", huge)
    outcome = evaluate(Settings(root, "val", "zero"), tmp_path / "out")
    assert outcome.failed == [] and outcome.metrics["av2-2023"]["fd"] > 1e20


@pytest.mark.parametrize(
    "damage, says",
    [
        ({"classes": 31}, "hold classes that AV2 does not have, such as 31"),
        ({"flow_tx_m": np.nan}, "hold a flow that is not finite or above 1000 m for 1 points"),
        ({"flow_tz_m": -1e30}, "hold a flow that is not finite or above 1000 m for 1 points"),
    ],
)
def test_labels_that_cannot_be_are_named(root, tmp_path, damage, says):
    shutil.copytree(root, tmp_path / "data")
    log = Log(tmp_path / "data" / "sensor" / "val" / "a")
    path = log.path / "flow_labels" / f"{log.stamps_ns[1]}.feather"
    table = feather.read_table(path)
    for name, value in damage.items():
        column = table[name].to_numpy().copy()
        column[7] = value
        table = table.set_column(table.column_names.index(name), name, pa.array(column))
    feather.write_feather(table, str(path))
    failed = evaluate(Settings(tmp_path / "data", "val", "zero"), tmp_path / "out").failed
    assert [(record["log"], record["index"]) for record in failed] == [("a", 1)] and says in failed[0]["error"]


def test_an_unknown_category_is_named(root, tmp_path):
    shutil.copytree(root, tmp_path / "data")
    log = tmp_path / "data" / "sensor" / "val" / "a"
    shutil.rmtree(log / "flow_labels")
    table = feather.read_table(log / "annotations.feather")
    names = ["UNICORN"] + table["category"].to_pylist()[1:]
    table = table.set_column(table.column_names.index("category"), "category", pa.array(names))
    feather.write_feather(table, str(log / "annotations.feather"))
    failed = evaluate(Settings(tmp_path / "data", "val", "zero"), tmp_path / "out").failed
    assert len(failed) == 1 and "category UNICORN of track" in failed[0]["error"]


def test_labels_for_some_pairs_are_enough_to_begin(root, tmp_path):
    shutil.copytree(root, tmp_path / "data")
    for name in "ab":
        log = Log(tmp_path / "data" / "sensor" / "val" / name)
        (log.path / "flow_labels" / f"{log.stamps_ns[0]}.feather").unlink()
        (log.path / "annotations.feather").unlink()
    outcome = evaluate(Settings(tmp_path / "data", "val", "zero"), tmp_path / "out")
    assert [(record["log"], record["index"]) for record in outcome.failed] == [("a", 0), ("b", 0)]
    assert outcome.metrics["run"]["num_pairs"] == 4


def test_logs_of_one_sweep_have_nothing_to_evaluate(root, tmp_path):
    shutil.copytree(root, tmp_path / "data")
    for name in "ab":
        for sweep in sorted((tmp_path / "data" / "sensor" / "val" / name / "sensors" / "lidar").iterdir())[1:]:
            sweep.unlink()
    with pytest.raises(ZeroFlowError, match="no pair of sweeps to evaluate: one sweep each"):
        evaluate(Settings(tmp_path / "data", "val", "zero"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_log_without_labels_among_others_fails(root, tmp_path):
    shutil.copytree(root, tmp_path / "data")
    log = tmp_path / "data" / "sensor" / "val" / "a"
    shutil.rmtree(log / "flow_labels")
    (log / "annotations.feather").unlink()
    outcome = evaluate(Settings(tmp_path / "data", "val", "zero"), tmp_path / "out")
    assert [record["log"] for record in outcome.failed] == ["a", "a"]
    assert "has no labels" in outcome.failed[0]["error"] and list(outcome.metrics["per_log"]) == ["b"]


def test_a_log_without_a_map_fails_where_labels_do_not_tell_the_ground(root, tmp_path):
    shutil.copytree(root, tmp_path / "data")
    for name in "ab":
        shutil.rmtree(tmp_path / "data" / "sensor" / "val" / name / "map")
    outcome = evaluate(Settings(tmp_path / "data", "val", "zero"), tmp_path / "one")
    assert outcome.failed == [] and "2 of 2 logs have no map" in outcome.metrics["run"]["notes"][0]
    shutil.rmtree(tmp_path / "data" / "sensor" / "val" / "a" / "flow_labels")
    failed = evaluate(Settings(tmp_path / "data", "val", "zero"), tmp_path / "two").failed
    assert [record["log"] for record in failed] == ["a", "a"] and "no map/" in failed[0]["error"]


# --- settings and places ------------------------------------------------------------------------------------


def test_a_folder_holds_one_run(root, finished, tmp_path):
    with pytest.raises(ZeroFlowError, match="holds another run .its method is zero, not labels"):
        evaluate(Settings(root, "val", "labels"), finished)
    shutil.copytree(root, tmp_path / "elsewhere")
    with pytest.raises(ZeroFlowError, match="its data is .*, not .*elsewhere"):
        evaluate(Settings(tmp_path / "elsewhere", "val", "zero"), finished)
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "run.json").write_text("{")
    with pytest.raises(ZeroFlowError, match=r"run\.json is damaged"):
        evaluate(Settings(root, "val", "zero"), tmp_path / "odd")
    with locked(finished), pytest.raises(ZeroFlowError, match="another process is evaluating"):
        evaluate(Settings(root, "val", "zero"), finished)
    (tmp_path / "file").write_text("")
    with pytest.raises(ZeroFlowError, match="file is a file; give the folder"):
        evaluate(Settings(root, "val", "zero"), tmp_path / "file")


def test_another_checkpoint_is_another_run(root, tmp_path):
    from zeroflow_core.fastflow3d.checkpoint import DEFAULT_CHECKPOINT, load_model, save_model

    checkpoint = tmp_path / "student.safetensors"
    shutil.copy(DEFAULT_CHECKPOINT, checkpoint)
    settings = Settings(root, "val", "student", str(checkpoint), logs=("a",), device="cpu", engine="reference")
    outcome = evaluate(settings, tmp_path / "out")
    assert "student default (reference, fp32, cpu, ground: patchwork, verified)" in outcome.metrics["run"]["name"]
    assert outcome.metrics["run"]["checkpoint"] == str(checkpoint)
    again = replace(settings, checkpoint=os.path.relpath(checkpoint))  # the same file by another name
    metrics = evaluate(again, tmp_path / "out").metrics
    assert metrics["run"]["num_pairs"] == 2 and metrics["run"]["checkpoint"] == str(checkpoint.resolve())
    assert read_run(tmp_path / "out").method["checkpoint"] == str(checkpoint.resolve())
    model, metadata = load_model(checkpoint)
    save_model(checkpoint, model, metadata | {"note": "trained longer"}, half=True)
    run._method.cache_clear()
    with pytest.raises(ZeroFlowError, match="another run .its checkpoint's sha256 is"):
        evaluate(settings, tmp_path / "out")
    with pytest.raises(ZeroFlowError, match="student.safetensors has changed since the evaluation in .*out"):
        read_run(tmp_path / "out")


@pytest.mark.parametrize("streaming", ["none", "anchored"])
def test_streaming_shows_the_student_each_sweep_once_and_is_another_run(root, tmp_path, monkeypatch, streaming):
    seen, run_of = [], {"none": "anchored", "anchored": "none"}

    class Student:
        metadata = {"name": "witness", "ground": "none"}
        engine, precision, device = "fast", "fp32", "cpu"

        def flow(self, pc0, pc1):
            seen.append((pc0, pc1))
            return np.zeros_like(pc0)

    monkeypatch.setattr("zeroflow_core.fastflow3d.student.load_student", lambda *_, **__: Student())
    settings = Settings(root, "val", "student", logs=("b",), streaming=streaming)
    outcome = evaluate(settings, tmp_path / "out", pictures=0)
    assert outcome.failed == [] and len(seen) == 4
    same = [np.array_equal(last[1], now[0]) for last, now in zip(seen, seen[1:], strict=False)]
    assert same == [streaming == "anchored"] * 3
    assert ("streaming: anchored" in outcome.metrics["run"]["name"]) == (streaming == "anchored")
    with pytest.raises(ZeroFlowError, match=f"another run .its streaming is {streaming}, not {run_of[streaming]}"):
        evaluate(replace(settings, streaming=run_of[streaming]), tmp_path / "out")


@pytest.mark.parametrize(
    "change, says",
    [
        ({"method": "magic"}, "method 'magic' is unknown; choose one of: student, nsfp, fastnsf, zero, labels"),
        ({"method": "nsfp", "teacher_config": "slow"}, "'slow' is unknown; choose one of: fast, published"),
        ({"method": "fastnsf", "device": "tpu"}, "device 'tpu' is unknown"),
        ({"ground": "sea"}, "ground rule 'sea' is unknown; choose one of: auto, map"),
        ({"split": "train"}, "no split 'train' in .*; it has: val"),
        ({"logs": ("a", "c")}, "there is no log c in"),
        ({"data": Path("/nowhere")}, "there is no folder /nowhere"),
        ({"method": "student", "checkpoint": "gone.ckpt"}, "gone.ckpt: no such file"),
        ({"method": "labels", "labels": Path("/nowhere")}, "/nowhere"),
    ],
)
def test_mistakes_leave_nothing_behind(root, tmp_path, change, says):
    with pytest.raises(ZeroFlowError, match=says):
        evaluate(replace(Settings(root, "val", "zero"), **change), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_submission_of_a_year_that_had_none_leaves_nothing_behind(root, tmp_path):
    with pytest.raises(ZeroFlowError, match="no submission of 2025; choose one of: 2023, 2024"):
        evaluate(Settings(root, "val", "zero"), tmp_path / "out", submission=2025)
    assert not (tmp_path / "out").exists()


def test_logs_without_any_label_are_refused_at_once(root, tmp_path):
    shutil.copytree(root, tmp_path / "data")
    for name in "ab":
        log = tmp_path / "data" / "sensor" / "val" / name
        shutil.rmtree(log / "flow_labels")
        (log / "annotations.feather").unlink()
    with pytest.raises(ZeroFlowError, match="no log of .*val has labels.*--submission"):
        evaluate(Settings(tmp_path / "data", "val", "zero"), tmp_path / "out")
    outcome = evaluate(Settings(tmp_path / "data", "val", "zero"), tmp_path / "out", submission=2024)
    assert outcome.metrics is None and outcome.failed == [] and outcome.archive.is_file()
    assert [len(list(Journal(path).records())) for path in sorted((tmp_path / "out" / "pairs").iterdir())] == [1, 1]


def test_a_submission_beside_the_scores_and_added_later(root, finished, monkeypatch, tmp_path):
    shutil.copytree(finished, tmp_path / "out")
    calls = count_flows(monkeypatch)
    outcome = evaluate(Settings(root, "val", "zero"), tmp_path / "out", submission=2023)
    assert calls == [("a", 0), ("b", 3)]  # every fifth of the split: pairs 0 and 5 of 6
    assert outcome.archive == tmp_path / "out" / "submission-2023.zip" and outcome.archive.is_file()
    assert figures(tmp_path / "out") == figures(finished)
    with pytest.raises(ZeroFlowError, match="every log of the split"):
        evaluate(Settings(root, "val", "zero", logs=("a",)), tmp_path / "out", submission=2023)


def test_only_pairs_of_a_submission_hold_it_back(root, monkeypatch, tmp_path):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        count_flows(patch, {("b", 1)})
        outcome = evaluate(Settings(root, "val", "zero"), out, submission=2023)
    assert len(outcome.failed) == 1 and outcome.archive == out / "submission-2023.zip" and outcome.archive.is_file()
    shutil.rmtree(out / "pairs")
    count_flows(monkeypatch, {("b", 3)})
    outcome = evaluate(Settings(root, "val", "zero"), out, submission=2023)
    assert len(outcome.failed) == 1 and outcome.archive is None
    assert not (out / "submission-2023.zip").exists()  # the old one would pass for that of this run


def test_other_masks_make_other_files(root, tmp_path):
    first = evaluate(Settings(root, "val", "zero"), tmp_path / "out", submission=2023).archive.read_bytes()
    masks = tmp_path / "masks.zip"
    made = tmp_path / "out" / "submission-2023-masks.zip"
    shutil.copy(made, masks)
    assert evaluate(Settings(root, "val", "zero"), tmp_path / "out", submission=2023, masks=masks).archive.read_bytes()
    with zipfile.ZipFile(made) as old, zipfile.ZipFile(masks, "w") as new:
        for name in old.namelist():
            table = feather.read_table(io.BytesIO(old.read(name))).to_pandas()
            content = io.BytesIO()
            table[::-1].reset_index(drop=True).to_feather(content)  # as many points, and others
            new.writestr(name, content.getvalue())
    archive = evaluate(Settings(root, "val", "zero"), tmp_path / "out", submission=2023, masks=masks).archive
    assert archive.read_bytes() != first


# --- methods ------------------------------------------------------------------------------------------------


def test_labels_have_no_error_and_zero_flow_has_the_motion(root, finished, tmp_path):
    labels = evaluate(Settings(root, "val", "labels"), tmp_path / "labels").metrics
    zero = figures(finished)
    for module in DEFINITIONS:
        assert labels[module.NAME]["three_way_epe"] < 1e-6 < 0.05 < zero[module.NAME]["three_way_epe"]
        for name in ("num_points", "num_fd", "num_fs", "num_bs"):
            assert labels[module.NAME][name] == zero[module.NAME][name] > 0
    assert labels["av2-2023"]["dynamic_iou"] == 1 and zero["av2-2023"]["dynamic_iou"] == 0


def test_stored_flows_are_scored_and_their_gaps_count_as_zero(root, finished, tmp_path):
    from zeroflow_core.datasets.stored_flow import write_stored_flow

    for path in sorted((root / "sensor" / "val").iterdir()):
        log = Log(path)
        for i in range(len(log) - 1):
            points = len(log.sweep(i))
            target = tmp_path / "flows" / path.name / f"{log.stamps_ns[i]}.feather"
            write_stored_flow(target, np.full((points, 3), 9.0), np.zeros(points, dtype=bool))
    outcome = evaluate(Settings(root, "val", "labels", labels=tmp_path / "flows"), tmp_path / "out")
    zero = figures(finished)
    for module in DEFINITIONS:
        ours, theirs = outcome.metrics[module.NAME], zero[module.NAME]
        assert ours["coverage"] == 0 and theirs["coverage"] == 1
        assert {k: v for k, v in ours.items() if "coverage" not in k} == {
            k: v for k, v in theirs.items() if "coverage" not in k
        }


def test_the_student_gets_the_ground_it_was_trained_with(root, tmp_path):
    log = Log(root / "sensor" / "val" / "a")
    sweep = log.sweep(0)
    masks = {}
    for ground in ("auto", "patchwork", "map", "none"):
        rule = make_method(Settings(root, ground=ground, device="cpu")).ground_rule(log)
        masks[ground] = rule(sweep)
    np.testing.assert_array_equal(masks["auto"], masks["patchwork"])
    np.testing.assert_array_equal(masks["map"], log.map_ground()(sweep))
    assert not masks["none"].any() and (masks["map"] != masks["patchwork"]).any()
    shutil.copytree(log.path, tmp_path / "a")
    shutil.rmtree(tmp_path / "a" / "map")
    with pytest.raises(ZeroFlowError, match="no map with ground heights; choose --ground patchwork"):
        make_method(Settings(root, ground="map", device="cpu")).ground_rule(Log(tmp_path / "a"))


@pytest.mark.parametrize("method", ["nsfp", "fastnsf"])
def test_a_teacher_is_scored(root, finished, monkeypatch, tmp_path, method):
    fake = stand_in(monkeypatch)
    settings = Settings(root, "val", method, device="cpu", teacher_config="published", seed=5)
    metrics = evaluate(settings, tmp_path / "out", pictures=0).metrics
    assert fake.asked == [(method, "published", "cpu", 5)] and len(fake.seen) == 6
    log = Log(root / "sensor" / "val" / "a")
    np.testing.assert_array_equal(fake.seen[0].is_ground0, log.map_ground()(log.sweep(0)))
    zero, name = figures(finished), metrics["run"]["name"]
    assert name == f"fake {method}, published, seed 5, ground: map, else patchwork"
    standing = metrics["zeroflow"]["bs"]
    assert standing == pytest.approx(metrics["zeroflow"]["coverage_bs"] * np.linalg.norm(np.float32(FLOW)), rel=1e-6)
    for module in DEFINITIONS:
        assert metrics[module.NAME]["num_points"] == zero[module.NAME]["num_points"]
        assert 0.5 < metrics[module.NAME]["coverage"] < 1, f"within {REACH} m alone"


def test_a_pair_that_gives_a_teacher_nothing_has_not_failed(root, finished, monkeypatch, tmp_path):
    stand_in(monkeypatch, problem="pc1 holds nothing but ground")
    outcome = evaluate(Settings(root, "val", "nsfp"), tmp_path / "out")
    zero = figures(finished)
    assert outcome.failed == [] and outcome.metrics["run"]["num_pairs"] == 6
    for module in DEFINITIONS:
        assert outcome.metrics[module.NAME]["coverage"] == 0
        assert outcome.metrics[module.NAME]["three_way_epe"] == zero[module.NAME]["three_way_epe"]


@pytest.mark.parametrize(
    "change, says",
    [
        ({"seed": 1}, "its seed is 0, not 1"),
        ({"teacher_config": "published"}, "its config is fast, not published"),
        ({"ground": "patchwork"}, "its ground is auto, not patchwork"),
        ({"method": "fastnsf"}, "its method is nsfp, not fastnsf"),
    ],
)
def test_labels_of_different_teachers_are_not_mixed(root, monkeypatch, tmp_path, change, says):
    fake = stand_in(monkeypatch)
    settings = Settings(root, "val", "nsfp", logs=("a",))
    evaluate(settings, tmp_path / "out", pictures=0)
    run._method.cache_clear()
    outcome = evaluate(settings, tmp_path / "out", pictures=0)
    assert outcome.failed == [] and len(fake.seen) == 2, "gone on with, nothing done twice"
    with pytest.raises(ZeroFlowError, match=f"holds another run .{says}"):
        evaluate(replace(settings, **change), tmp_path / "out")


def test_what_tells_real_teachers_apart_survives_a_file(root):
    settings = Settings(root, "val", "nsfp", device="cpu")
    identity = make_method(settings).identity
    assert identity == json.loads(json.dumps(identity)) and identity["ground"] == "auto"
    for change in ({"seed": 1}, {"teacher_config": "published"}, {"method": "fastnsf"}, {"ground": "none"}):
        assert make_method(replace(settings, **change)).identity != identity, change


def test_a_flow_counts_where_its_status_says_so():
    from zeroflow_core.evaluation.truth import as_estimate

    nothing = [np.nan] * 3
    vectors = np.array([[1, 2, 3], [0, 0, 0], nothing, nothing, nothing, [1, np.nan, 0]], dtype=np.float32)
    status = [Status.OK, Status.GROUND, Status.OUT_OF_RANGE, Status.NOT_FINITE, Status.NO_ESTIMATE, Status.OK]
    estimate = as_estimate(Flow(vectors, np.array(status, dtype=np.uint8), 0.1))
    np.testing.assert_array_equal(estimate.covered, [True, *[False] * 5])
    np.testing.assert_array_equal(estimate.residual, [[1, 2, 3], *[[0, 0, 0]] * 5])
    assert estimate.residual.dtype == np.float32


# --- worst pairs --------------------------------------------------------------------------------------------


def record(log: str, index: int, error: float, points: int = 100) -> dict:
    sums = [points, points, error * points, 0, 0, 0, 0, 0, 0]
    return {"log": log, "index": index, "tallies": {av2_2023.NAME: {"Foreground/Dynamic/Close": sums}}}


def test_the_worst_pairs_are_of_different_logs_first():
    records = [record("a", 0, 3.0), record("a", 1, 4.0), record("b", 0, 1.0), record("c", 0, 2.0)]
    records += [record("c", 1, 9.0, points=19), record("d", 0, 0.5)]  # 19 points say nothing

    def chosen(count: int) -> list[tuple[str, int]]:
        return [(entry["log"], entry["index"]) for entry in worst.choose(iter(records), count)]

    assert chosen(0) == []
    assert chosen(2) == [("a", 1), ("c", 0)]
    assert chosen(4) == [("a", 1), ("c", 0), ("b", 0), ("d", 0)]
    assert chosen(9) == [("a", 1), ("a", 0), ("c", 0), ("b", 0), ("d", 0)]


@pytest.mark.parametrize("pictures", [0, 1, 3, 4, 9])
def test_no_pair_is_estimated_twice(root, monkeypatch, tmp_path, pictures):
    calls = count_flows(monkeypatch)
    evaluate(Settings(root, "val", "zero"), tmp_path / "out", pictures=pictures)
    assert len(calls) == len(set(calls)) == 6
    assert len(list((tmp_path / "out" / "worst").glob("*/*.npz"))) == min(pictures, 6)


def test_the_report_shows_what_was_kept_or_makes_it_again(root, finished, monkeypatch, tmp_path):
    from zeroflow_core.evaluation import report

    shutil.copytree(finished, tmp_path / "out")
    shown = []
    monkeypatch.setattr(report, "write_report", lambda path, metrics, pairs, worst: shown.append((pairs, worst)))
    kept = sorted((tmp_path / "out" / "worst").glob("*/*.npz"))
    assert len(kept) == 4 and {path.parent.name for path in kept} == {"a", "b"}
    calls = count_flows(monkeypatch)
    evaluate(Settings(root, "val", "zero"), tmp_path / "out", pictures=2)
    assert calls == []
    kept = sorted((tmp_path / "out" / "worst").glob("*/*.npz"))
    assert [path.parent.name for path in kept] == ["a", "b"]
    kept[0].write_bytes(b"damaged")
    evaluate(Settings(root, "val", "zero"), tmp_path / "out", pictures=2)
    assert len(calls) == 1 and calls[0][0] == "a"
    evaluate(Settings(root, "val", "zero"), tmp_path / "out", pictures=1)
    assert len(list((tmp_path / "out" / "worst").glob("*/*.npz"))) == 1
    (pairs, first), (_, second), (_, third) = shown
    assert len(pairs) == 6 and len(first) == len(second) == 2 and len(third) == 1
    for one, other in zip(first, second, strict=True):
        assert (one.log_id, one.index) == (other.log_id, other.index)
        np.testing.assert_array_equal(one.estimate, other.estimate)
        assert one.points.shape == one.truth.shape == one.estimate.shape and one.scored.any() and one.covered.all()
    assert first[0].epe >= first[1].epe >= 0.05 and first[0].num_points >= 20
    error = np.linalg.norm(first[0].truth, axis=1)
    assert error[first[0].scored].max() >= first[0].epe
