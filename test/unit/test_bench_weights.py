"""The benchmark of weights: its sets, its scores by hand and by known figures, its files, mistakes in sentences."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from zeroflow_core.bench import weights_methods, weights_sets
from zeroflow_core.bench.__main__ import app
from zeroflow_core.bench.weights_methods import Contender, Stored, contenders
from zeroflow_core.bench.weights_picture import draw_weights
from zeroflow_core.bench.weights_run import DIRECTIONS, ego_metres, score_set
from zeroflow_core.bench.weights_sets import (
    REAL,
    STATIC,
    WORLDS,
    WeightSet,
    Worlds,
    chooser,
    real_sets,
    simulated_sets,
    simulated_sweeps,
)
from zeroflow_core.bench.weights_tables import markdown
from zeroflow_core.datasets.av2 import Log
from zeroflow_core.datasets.pseudo_labels import PseudoLabels
from zeroflow_core.datasets.stored_flow import write_stored_flow
from zeroflow_core.distillation.labelling.errors import reverse_truth
from zeroflow_core.drawing.curves import COLOURS
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.av2_2023 import scored_points
from zeroflow_core.evaluation.truth import read_truth
from zeroflow_core.fastflow3d.checkpoint import save_model
from zeroflow_core.fastflow3d.config import FastFlow3DConfig
from zeroflow_core.fastflow3d.model import FastFlow3D
from zeroflow_core.simulation.log import simulate_log

TINY = FastFlow3DConfig(pillar_size=0.8, channels=8, blocks=(1, 1, 1))


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The worlds are those of the benchmark, but for the scanner."""
    monkeypatch.setattr(weights_sets, "SCANNERS", ("small",))
    monkeypatch.delenv("ZEROFLOW_TEST_DATA", raising=False)


@pytest.fixture
def sets(cache: Path) -> list[WeightSet]:
    """Three worlds with traffic and the static ones."""
    return simulated_sets(cache / "logs", Worlds(3, 3), jobs=1)


@pytest.fixture
def data(sets: list[WeightSet], tmp_path: Path) -> Path:
    """Two sources: one with a labelled log, one with two and another whose motion is unknown; and a folder of notes."""
    log = sets[0].logs[1]
    for place in ("one/sensor/val/a", "two/sensor/val/aaaaaaaa-1", "two/sensor/val/bbbbbbbb-2", "two/sensor/val/c"):
        shutil.copytree(log, tmp_path / "data" / place)
    unknown = tmp_path / "data" / "two" / "sensor" / "val" / "c"
    shutil.rmtree(unknown / "flow_labels")
    for name in ("flow_labels.feather", "annotations.feather"):
        (unknown / name).unlink()
    (tmp_path / "data" / "notes").mkdir()
    return tmp_path / "data"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_model(path, FastFlow3D(TINY), {"name": "tiny", "ground": "patchwork", "interval_s": 0.1})
    return path


def stored(one: WeightSet, folder: Path, answer, *, reverse: bool = True) -> Contender:
    """A method that says of every pair's points, in both directions, what `answer` says of their truth."""
    for direction in DIRECTIONS[: 1 + reverse]:
        (folder / direction).mkdir(parents=True, exist_ok=True)
    for pair in one.pairs:
        log = Log(pair.log)
        truths = read_truth(log, pair.index), reverse_truth(log, pair.index)
        for k, direction in enumerate(DIRECTIONS[: 1 + reverse]):
            residual, is_valid = answer(truths[k])
            path = folder / direction / log.log_id / f"{log.stamps_ns[pair.index + k]}.feather"
            path.parent.mkdir(exist_ok=True)
            write_stored_flow(path, residual, is_valid)
    labels = PseudoLabels(*(folder / direction for direction in DIRECTIONS[: 1 + reverse]))
    return Contender("stored", {one.name: Stored(labels)})


def _bench(*arguments: object):
    environment = {"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}
    return CliRunner().invoke(app, ["weights", *map(str, arguments)], env=environment)


# --- sets -------------------------------------------------------------------------------------------------------------


def test_every_labelled_log_is_a_set_and_the_others_are_told(data: Path):
    found, left_out = real_sets(data)
    assert [one.name for one in found] == ["one", "two-aaaaaaaa", "two-bbbbbbbb"]
    assert all(one.kind == REAL and len(one.logs) == len(one.pairs) == 1 for one in found)
    assert left_out == ["two: 1 of 3 logs, whose motion is unknown"]
    assert real_sets(None) == ([], ["recorded sweeps: no --data was given"])


def test_the_worlds_move_and_in_static_ones_only_the_ego_does(sets: list[WeightSet]):
    assert [(one.name, one.kind, len(one.pairs)) for one in sets] == [
        ("worlds-small", WORLDS, 3),
        ("static-small", STATIC, 3),
    ]
    moving = {
        one.kind: [int(read_truth(Log(pair.log), pair.index).av2.dynamic.sum()) for pair in one.pairs] for one in sets
    }
    assert sum(moving[WORLDS]) > 200 and moving[STATIC] == [0, 0, 0]
    for log in sets[1].logs:  # each: on a ride that stands, nothing could go wrong
        assert ego_metres(WeightSet("", STATIC, (log,))) > 0.3
    assert all(log.parent.name == "test" for one in sets for log in one.logs)  # no recipe simulates that split


def test_worlds_are_made_once_and_more_of_them_keep_the_first(sets: list[WeightSet], cache: Path):
    stamps = {log: log.stat().st_mtime_ns for log in sets[1].logs}
    told = []
    again = simulated_sets(cache / "logs", Worlds(3, 3), chooser(["static"]), 1, lambda: told.append(1))
    assert [one.logs for one in again] == [sets[1].logs]
    assert len(told) == simulated_sweeps(Worlds(3, 3), chooser(["static"])) == 6
    assert {log: log.stat().st_mtime_ns for log in sets[1].logs} == stamps
    fewer = simulated_sets(cache / "logs", Worlds(3, 2), chooser(["static-small"]), 1)
    assert fewer[0].logs == sets[1].logs[:2]


def test_sets_are_chosen_by_name_or_its_beginning():
    names = ("av2", "worlds-av2", "worlds-vlp32", "worldsome")
    assert [list(filter(chooser(asked), names)) for asked in ([], ["av2"], ["worlds"], ["worlds-vlp32", "av2"])] == [
        list(names),
        ["av2"],
        ["worlds-av2", "worlds-vlp32"],
        ["av2", "worlds-vlp32"],
    ]


# --- scores -----------------------------------------------------------------------------------------------------------


def test_the_truth_scores_nothing_and_zero_flow_what_moves(sets: list[WeightSet], tmp_path: Path):
    one = sets[0]
    exact = stored(one, tmp_path, lambda truth: (truth.scene_flow.residual, truth.scene_flow.is_valid))
    scores = score_set(one, {**contenders([], [one], "cpu"), "truth": exact})
    truths = [read_truth(Log(pair.log), pair.index) for pair in one.pairs]
    scored = np.concatenate([truth.scene_flow.residual[scored_points(truth)] for truth in truths]).astype(float)
    motion = np.linalg.norm(scored, axis=1)
    for direction in DIRECTIONS:
        zero, best = (scores[name][direction] for name in ("zero", "truth"))
        assert best["three_way_epe"] < 1e-5 and best["moving_epe"] < 1e-5 and best["mean_dynamic"] < 1e-5
        assert zero["mean_dynamic"] == pytest.approx(1, abs=1e-4) and zero["coverage"] == 1
        assert zero["moving_epe"] == pytest.approx(zero["moving_epe_zero"]) and zero["moving_epe"] > 0.3
        assert zero["too_fast"] == best["too_fast"] == zero["too_fast_of_all"] == 0
    forward = scores["zero"]["forward"]
    assert forward["moving_epe"] == pytest.approx(motion[motion >= 0.05].mean(), rel=1e-5)
    assert forward["standing"] == (motion < 0.05).sum() < forward["standing_of_all"]
    assert scores["zero"]["seconds"] > 0 and scores["truth"]["seconds"] is None


def test_students_that_are_verified_can_be_judged_without_it(tmp_path: Path):
    names = list(contenders(["default"], [], "cpu", unverified=True))
    assert names == ["zero", "default", "default unverified"]
    plain = tmp_path / "plain.safetensors"
    save_model(plain, FastFlow3D(FastFlow3DConfig(pillar_size=0.8, channels=8, blocks=(1, 1, 1))), {"ground": "map"})
    assert list(contenders([str(plain)], [], "cpu", unverified=True)) == ["zero", "plain"]


def test_weights_in_a_folder_with_an_equals_sign(checkpoint: Path, tmp_path: Path):
    odd = tmp_path / "lr=0.1" / "mine.safetensors"
    odd.parent.mkdir()
    shutil.copy(checkpoint, odd)
    assert list(contenders([str(odd), f"other={odd}"], [], "cpu")) == ["zero", "mine", "other"]


def test_what_a_teacher_has_no_label_for_counts_as_standing(sets: list[WeightSet], tmp_path: Path):
    one = sets[0]
    contender = stored(one, tmp_path, lambda truth: (truth.scene_flow.residual, truth.scene_flow.is_valid))
    for path in tmp_path.rglob("*.feather"):
        path.unlink()
    scores = score_set(one, {**contenders([], [one], "cpu"), "silent": contender})
    for direction in DIRECTIONS:
        zero, silent = scores["zero"][direction], scores["silent"][direction]
        assert silent["three_way_epe"] == zero["three_way_epe"] > 0 and silent["coverage"] == 0


def test_sweeps_that_are_too_far_apart_are_no_pair_of_a_set(sets: list[WeightSet], tmp_path: Path):
    log = tmp_path / "gap"
    simulate_log(log, seed=1, sweeps=5, scanner="small", scene="street")
    everything = WeightSet("gap", "real", (log,)).pairs
    (log / "sensors" / "lidar" / f"{Log(log).stamps_ns[1]}.feather").unlink()
    assert [pair.index for pair in everything] == [0, 1, 2, 3]
    assert [pair.index for pair in WeightSet("gap", "real", (log,)).pairs] == [1, 2]


def test_what_seems_to_move_is_counted_with_and_without_the_ground(sets: list[WeightSet], tmp_path: Path):
    one = sets[1]

    def creeping(truth):
        """0.06 m to the left of all that is not ground, of every second of those points no word."""
        residual = np.where(truth.av2.is_ground[:, None], 0, [0, 0.06, 0])
        return residual, np.arange(len(residual)) % 2 == 0

    scores = score_set(one, {"creeping": stored(one, tmp_path, creeping, reverse=False)})["creeping"]
    forward = scores["forward"]
    assert scores["reverse"] is None
    assert forward["three_way_epe"] is None and forward["moving_epe"] is None and forward["num_fd"] == 0
    assert forward["bs"] == pytest.approx(0.03, abs=0.001)
    assert forward["too_fast"] == pytest.approx(0.5, abs=0.01)
    shares = []
    for pair in one.pairs:
        truth = read_truth(Log(pair.log), pair.index)
        fast = ~truth.av2.is_ground & (np.arange(len(truth.points0)) % 2 == 0)
        shares.append((fast.sum(), len(fast)))
    fast, every = np.sum(shares, axis=0)
    assert forward["too_fast_of_all"] == pytest.approx(fast / every, abs=0.005)
    assert forward["too_fast_of_all"] < 0.8 * forward["too_fast"]


def test_known_figures_of_zero_flow_on_real_sweeps(test_data: Path):
    found = {one.name: one for one in real_sets(test_data)[0]}
    names = ("av2", "tri-b0157d97", "tri-9d33fbf2")
    scores = {
        name: score_set(found[name], contenders([], [found[name]], "cpu"))["zero"]["forward"] for name in names
    }
    parts = [scores["av2"][part] for part in ("three_way_epe", "fd", "fs", "bs")]
    assert parts == pytest.approx([0.2267, 0.6737, 0.0062, 0.0], abs=1e-4)
    assert [scores["av2"][f"num_{part}"] for part in ("fd", "fs", "bs")] == [1819, 6775, 69912]
    assert [scores[name]["three_way_epe"] for name in names[1:]] == pytest.approx([0.420, 0.475], abs=1e-3)
    assert not any(name.startswith("kitti") for name in found)  # its motion is unknown


# --- the command ------------------------------------------------------------------------------------------------------


def _teach(monkeypatch, folder: Path) -> list:
    """A teacher that knows, and what it is asked."""
    asked = []

    def label(settings, on_progress):
        asked.append(settings)
        on_progress(SimpleNamespace(done=len(settings.logs)))
        one = WeightSet(settings.out.name, REAL, settings.logs)
        known = stored(
            one, folder / one.name, lambda truth: (truth.scene_flow.residual, np.ones(len(truth.points0), dtype=bool))
        )
        return SimpleNamespace(labels=known.answers[one.name].labels, manifest={"teacher": "a sage"}, failed=[])

    monkeypatch.setattr(weights_methods, "label", label)
    return asked


def test_all_that_is_found_goes_to_the_files(data: Path, checkpoint: Path, cache: Path, tmp_path: Path, monkeypatch):
    asked = _teach(monkeypatch, tmp_path / "known")
    files = [tmp_path / name for name in ("w.json", "w.md", "w.png")]
    arguments = ["--checkpoint", f"mine={checkpoint}", "--teacher", "published", "--cache", cache]
    arguments += ["--logs", 1, "--static-logs", 1]
    arguments += ["--data", data, "--set", "one", "--set", "worlds", "--set", "static", "--jobs", 1, "--device", "cpu"]
    for option, file in zip(("--json", "--markdown", "--picture"), files, strict=True):
        arguments += [option, file]
    result = _bench(*arguments)
    assert result.exit_code == 0, result.output
    content = json.loads(files[0].read_text())
    assert content["bench"] == "weights" and content["machine"] and "commit" not in content
    assert list(content["methods"]) == ["zero", "mine", "teacher"] and content["methods"]["teacher"] == "a sage"
    assert [(one["name"], one["kind"]) for one in content["sets"]] == [
        ("one", REAL),
        ("worlds-small", WORLDS),
        ("static-small", STATIC),
    ]
    folder = cache / "teacher" / "published"
    assert [settings.out for settings in asked] == [folder / one["name"] for one in content["sets"]]
    assert {settings.teacher_config for settings in asked} == {"published"}
    for one in content["sets"]:
        assert list(one["scores"]) == list(content["methods"])
        assert one["scores"]["mine"]["reverse"]["num_bs"] > 1000 and one["pairs"] == 1
    assert content["sets"][0]["scores"]["teacher"]["forward"]["three_way_epe"] < 1e-5
    text = files[1].read_text()
    assert text == markdown(content)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert sum(line.startswith(("| one", "| worlds", "| static")) for line in rows) == 3 + 3 + 2
    zero = content["sets"][0]["scores"]["zero"]["forward"]
    assert f"| one | zero | 1 | {zero['three_way_epe']:.3f} | 1.000 | {zero['fd']:.3f} |" in text
    assert "| one | teacher | 1 | 0.000 | 0.000 | 0.000 |" in text
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert all(len({line.count("|") for line in block}) == 1 for block in blocks) and len(blocks) == 3
    assert "Left out: two: 1 of 3 logs, whose motion is unknown." in text
    for word in ("three-way", "worlds-small", "The ego drives, nothing else moves", "a sage"):
        assert word in result.stdout
    assert "…" not in result.stdout  # no number is cut off
    with Image.open(files[2]) as image:
        assert image.format == "PNG" and image.size == draw_weights(content).size


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--set", "mars"], "--set mars: there is no such set; choose among: worlds-small, static-small"),
        (["--checkpoint", "nowhere.ckpt"], "nowhere.ckpt"),
        (["--checkpoint", "zero=default"], "the name 'zero' is taken or empty; give it another, as NAME=default"),
        (["--checkpoint", "{tiny}", "--checkpoint", "tiny={tiny}"], "the name 'tiny' is taken"),
        (["--data", "{tmp}/none"], "there is no such folder; give the one that holds folders of logs"),
        (["--data", "{tmp}"], "no folder in it holds logs in AV2's layout"),
        (["--checkpoint", "{tiny}", "--json", "{tmp}/file/w.json"], "cannot write"),
    ],
)
def test_mistakes_are_told_in_a_sentence_before_the_work(arguments, says, checkpoint: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    cache = tmp_path / "cache"
    result = _bench(*(word.format(tmp=tmp_path, tiny=checkpoint) for word in arguments), "--cache", cache)
    assert isinstance(result.exception, ZeroFlowError) and says in str(result.exception)
    assert not cache.exists()


def test_a_teacher_that_failed_is_no_answer(sets: list[WeightSet], tmp_path: Path, monkeypatch):
    failed = SimpleNamespace(labels=None, manifest={}, failed=[{"log": "a", "index": 0, "error": "no memory"}])
    monkeypatch.setattr(weights_methods, "label", lambda settings, on_progress: failed)
    with pytest.raises(ZeroFlowError, match="failed on pair 0 of worlds-small: no memory; the same command tries"):
        weights_methods.teacher(sets, "fast", tmp_path, 1, "cpu")


# --- the picture ------------------------------------------------------------------------------------------------------


def _results(*values: tuple[float | None, float]) -> dict:
    """A set for each: its three-way error, and its share of standing points that seem to move; zero flow has 0.4."""
    return {
        "methods": {"zero": "", "mine": ""},
        "sets": [
            {
                "name": f"set{k}",
                "scores": {
                    "zero": {"forward": {"three_way_epe": error and 0.4, "too_fast": 0.0}},
                    "mine": {"forward": {"three_way_epe": error, "too_fast": share}},
                },
            }
            for k, (error, share) in enumerate(values)
        ],
    }


def test_bars_are_as_long_as_their_numbers_say():
    image = np.asarray(draw_weights(_results((0.2, 0.03), (0.1, 0.01), (None, 0.02))))
    mine = (image == COLOURS[0]).all(axis=2)
    halves = mine[100:, :650], mine[100:, 650:]
    lengths = []
    for half in halves:
        rows = np.flatnonzero(half.sum(axis=1) > 5)
        bars = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
        lengths.append([int(half[bar[len(bar) // 2]].sum()) for bar in bars])
    errors, shares = lengths
    assert len(errors) == 2 and len(shares) == 3  # where nothing moves there is no three-way error
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.05)
    assert shares[0] / shares[1] == pytest.approx(3, abs=0.1) and shares[2] / shares[1] == pytest.approx(2, abs=0.1)


def test_sets_without_motion_have_one_panel():
    assert draw_weights(_results((None, 0.1))).width < 700 < draw_weights(_results((0.1, 0.1))).width
