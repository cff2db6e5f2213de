"""Weights from a recipe file: all stages, stopping in each of them, parts, truth, seeds, and what goes wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from label_cases import QUICK, inline, make_logs
from safetensors import safe_open
from training_cases import TINY

from zeroflow_core import load_student
from zeroflow_core.datasets.av2 import Log, find_logs
from zeroflow_core.datasets.pseudo_labels import find_pseudo_labels
from zeroflow_core.distillation import make_weights
from zeroflow_core.distillation.making import make as makings
from zeroflow_core.distillation.making import parts as parting
from zeroflow_core.distillation.making import teaching, telling
from zeroflow_core.distillation.making.make import Made, make, pack
from zeroflow_core.distillation.making.parts import join_parts, read_parts, write_parts
from zeroflow_core.distillation.making.plan import read_plan
from zeroflow_core.distillation.making.settings import MakeSettings
from zeroflow_core.distillation.making.telling import Stage
from zeroflow_core.distillation.training import fitting
from zeroflow_core.distillation.training.state import Progress, save_state, step_of
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.fastflow3d import config as sizes
from zeroflow_core.fastflow3d.config import ONE_X
from zeroflow_core.fastflow3d.model import FastFlow3D
from zeroflow_core.files import locked
from zeroflow_core.nsfp import config as teachers
from zeroflow_core.simulation.log import read_velocity
from zeroflow_core.simulation.logs import simulate_logs

SIMULATED = {"scanners": ["small"], "chunks": 2, "logs": 1, "sweeps": 3, "seed": 70}
RECIPE = {
    "student": "tiny",
    "seed": 1,
    "held_back": 0.3,
    "simulated": [SIMULATED],
    "training": {"from": "fast", "epochs": 3, "batch": 1, "visits": 1, "bf16": False},
}


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """A student and a teacher that take no time, and the teacher in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sizes.SIZES, "tiny", TINY)
        patch.setitem(teachers._NAMED, ("nsfp", "fast"), QUICK)
        patch.setattr("zeroflow_core.distillation.labelling.label.run_in_workers", inline)
        patch.setattr(fitting, "open_board", lambda folder, step: None)
        yield


def _file(folder: Path, **changes) -> Path:
    path = folder / "tried.json"
    path.write_text(json.dumps({**RECIPE, **changes}))
    return path


def _settings(folder: Path, out: Path, seed: int = 1, **others) -> MakeSettings:
    return MakeSettings(read_plan(_file(folder)).with_seed(seed), out, device="cpu", jobs=1, **others)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The folder of a whole run by the command, seed 1."""
    folder = tmp_path_factory.mktemp("whole")
    assert make_weights.main([str(_file(folder)), "--out", str(folder / "out"), "--device", "cpu", "--jobs", "1"]) == 0
    return folder / "out"


def _metadata(student: Path) -> dict:
    with safe_open(student, framework="pt") as file:
        return json.loads(file.metadata()["zeroflow"])


def _take_data(whole: Path, out: Path) -> None:
    """Let a run in `out` find the logs and labels of the whole run."""
    (out / "data").mkdir(parents=True)
    for name in ("001-small", "002-small"):
        (out / "data" / name).symlink_to(whole / "data" / name)


def _stop(settings: MakeSettings, stage: str, monkeypatch, *, at: int = 1) -> Made:
    """Make, with time being over when so much of the stage is done."""
    clock = [0.0]
    monkeypatch.setattr(telling, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def watch(now: Stage) -> None:
        if now.name == stage and now.done >= at:
            clock[0] = 100.0

    made = make(MakeSettings(**{**vars(settings), "minutes": 1.0}), watch)
    monkeypatch.undo()
    return made


# The whole way ------------------------------------------------------------------------------------------------------


def test_a_student_and_its_card_come_out(whole):
    run = whole / "tried-seed-1"
    student = load_student(run / "student.safetensors", "cpu")
    assert student.metadata["name"] == "tried" and student.metadata["labels"] == "pseudo"
    assert student.metadata["seeds"] == {"training": 1, "teacher": 0, "simulation": [[70, 71]]}
    assert student.metadata["pairs"] == {"small": 4} and student.metadata["recipe"]["epochs"] == 3
    assert student.metadata["teacher"].startswith("NSFP") and student.metadata["ground"] == "map"
    with safe_open(run / "student.safetensors", framework="pt") as file:
        kinds = {file.get_tensor(key).dtype for key in file.keys()}  # noqa: SIM118
    assert kinds == {torch.float16, torch.int64}
    card = (run / "card.md").read_text()
    assert card.startswith("# tried\n") and "2 simulated logs of 3 sweeps" in card and "seeds 70 to 71" in card
    assert "4 pairs of sweeps with labels: small 4" in card and "both directions of time, seed 1" in card
    assert "| student |" in card and "None" not in card and "nan" not in card
    assert json.loads((run / "recipe.json").read_text())["plan"]["student"] == "tiny"


def test_the_same_command_again_does_nothing_and_writes_the_same(whole, tmp_path):
    student = whole / "tried-seed-1" / "student.safetensors"
    before, lines = student.read_bytes(), []
    made = make(_settings(tmp_path, whole), on_line=lines.append)
    assert made.student == student and made.stopped == "" and student.read_bytes() == before
    assert lines[0].startswith("simulated 2 logs, 0 of them now") and "4 pairs" in lines[1]


def test_the_logs_are_those_of_the_simulate_command(whole, tmp_path):
    alone = simulate_logs(tmp_path, "train", 1, 3, seed=71, scanner="small", scene="mixed", randomise=True, jobs=1)
    there = find_logs(whole / "data" / "002-small")
    assert [log.name for log in there] == [log.name for log in alone.logs]
    for one, other in zip(Log(there[0]).sweeps(), Log(alone.logs[0]).sweeps(), strict=True):
        np.testing.assert_array_equal(one.points, other.points)


def test_another_seed_learns_from_the_same_data_and_becomes_another_student(whole, tmp_path):
    lines = []
    made = make(_settings(tmp_path, whole, seed=2), on_line=lines.append)
    assert "0 of them now" in lines[0] and made.student == whole / "tried-seed-2" / "student.safetensors"
    one, other = (_metadata(whole / f"tried-seed-{seed}" / "student.safetensors") for seed in (1, 2))
    assert (one["seeds"]["training"], other["seeds"]["training"]) == (1, 2)
    assert not _same(whole / "tried-seed-1" / "student.safetensors", made.student)


def test_another_recipe_with_the_same_data_and_teacher_does_not_make_them_again(whole, tmp_path):
    plan, lines = read_plan(_file(tmp_path, name="shorter", training={**RECIPE["training"], "epochs": 1})), []
    kept = sorted((whole / "data").rglob("*"))
    made = make(MakeSettings(plan, whole, device="cpu", jobs=1), on_line=lines.append)
    assert "0 of them now" in lines[0] and made.student == whole / "shorter-seed-1" / "student.safetensors"
    assert _metadata(made.student)["name"] == "shorter"
    assert sorted((whole / "data").rglob("*")) == kept


def _same(one: Path, other: Path) -> bool:
    with safe_open(one, framework="pt") as first, safe_open(other, framework="pt") as second:
        keys = first.keys()
        assert keys == second.keys()
        return all(torch.equal(first.get_tensor(key), second.get_tensor(key)) for key in keys)


def test_the_upper_bound_learns_from_truth(whole, tmp_path):
    made = make(_settings(tmp_path, whole, truth=True))
    assert made.student == whole / "tried-truth-seed-1" / "student.safetensors"
    metadata = _metadata(made.student)
    assert metadata["labels"] == "truth" and metadata["name"] == "tried-truth"
    assert metadata["teacher"] == "none: the simulation's truth" and metadata["recipe"]["refine"] is False
    assert "not to ship" in made.card.read_text()
    path = find_logs(whole / "data" / "001-small")[0]
    log, labels = Log(path), find_pseudo_labels(whole / "data" / "001-small" / "truth")
    forward, backward = labels.read(log, 0)
    for label, k, dt in ((forward, 0, 0.1), (backward, 1, -0.1)):
        velocity = read_velocity(path, int(log.stamps_ns[k]))
        moving = np.linalg.norm(velocity, axis=1) > 2
        assert moving.sum() > 10 and label.shape == velocity.shape
        assert np.median(np.linalg.norm(label - dt * velocity, axis=1)[moving]) < 0.05
        assert np.nanmax(np.abs(label[np.linalg.norm(velocity, axis=1) == 0])) < 1e-3


def test_recorded_sweeps_are_learned_from_too(whole, tmp_path):
    root = whole / "data" / "002-small"
    command = [str(_file(tmp_path)), "--out", str(tmp_path / "out"), "--device", "cpu", "--jobs", "1"]
    _take_data(whole, tmp_path / "out")
    (tmp_path / "table.md").write_text("**Everything**\n\nis well\n")
    more = ["--data", str(root), "--table", str(tmp_path / "table.md")]
    assert make_weights.main([*command, *more]) == 0
    metadata = _metadata(tmp_path / "out" / "tried-seed-1" / "student.safetensors")
    assert metadata["pairs"] == {"small": 4, "recorded": 2}
    card = (tmp_path / "out" / "tried-seed-1" / "card.md").read_text()
    assert "recorded sweeps, 002-small: 2 pairs; the recipe does not say under which licence" in card
    assert "**Everything**\n\nis well" in card
    assert "has not learned from recorded" not in card
    assert make_weights.main([*command, "--data", str(root)]) == 0
    assert (tmp_path / "out" / "tried-seed-1" / "card.md").read_text() == card, "the table was given before"


# Stopping and going on ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """The folder of a run that was stopped once in each stage and then went on to its end."""
    folder = tmp_path_factory.mktemp("stopped")
    settings = _settings(folder, folder / "out")
    for stage, at in (("simulate", 1), ("label", 1), ("train", 1), ("train", 6)):
        with pytest.MonkeyPatch.context() as patch:
            made = _stop(settings, stage, patch, at=at)
        assert made == Made(None, None, stage)
    make(settings)
    return folder / "out"


def test_a_run_stopped_in_every_stage_ends_with_the_same_bytes(whole, stopped):
    for name in ("student.safetensors", "recipe.json"):
        assert (stopped / "tried-seed-1" / name).read_bytes() == (whole / "tried-seed-1" / name).read_bytes()


def test_out_of_time_is_no_mistake(whole, tmp_path, capsys):
    out = tmp_path / "out"
    assert make_weights.main([str(_file(tmp_path)), "--out", str(out), "--device", "cpu", "--minutes", "1e-9"]) == 0
    assert "in the stage simulate; the same command goes on there" in capsys.readouterr().out
    assert not list((out / "data").glob("*/sensor/train/*"))


def test_a_folder_of_another_recipe_is_refused_before_any_work(whole, tmp_path):
    before = (whole / "tried-seed-1" / "recipe.json").read_bytes()
    others = {"simulated": [{**SIMULATED, "seed": 90}]}, {"training": {**RECIPE["training"], "epochs": 4}}
    for changes, told in zip(others, ("simulated", "plan.training.epochs is 3, not 4"), strict=True):
        settings = MakeSettings(read_plan(_file(tmp_path, **changes)), whole, device="cpu", jobs=1)
        with pytest.raises(ZeroFlowError, match=f"tried-seed-1 is of another recipe .*{told}.*choose another --out"):
            make(settings, lambda now: pytest.fail("it began"))
    assert (whole / "tried-seed-1" / "recipe.json").read_bytes() == before


# Parts --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def half_done(whole, tmp_path, monkeypatch) -> MakeSettings:
    """A training of seed 3 that was stopped in its second epoch, in the folder of the whole run's data."""
    settings = _settings(tmp_path, whole, seed=3)
    if not (settings.run / "training" / "last.ckpt").exists():
        assert _stop(settings, "train", monkeypatch, at=6).stopped == "train"
    return settings


def test_a_training_goes_on_elsewhere_from_parts(half_done, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(parting, "MOST_BYTES", 10_000)
    written = pack(half_done, tmp_path / "parts")
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == sorted(path.name for path in written)
    assert len(written) >= 4 and max(path.stat().st_size for path in written if "state" in path.name) == 10_000
    load_student(tmp_path / "parts" / "student.safetensors", "cpu")
    lines, steps = [], []
    _take_data(whole, tmp_path / "elsewhere")
    there = _settings(tmp_path, tmp_path / "elsewhere", seed=3, from_parts=tmp_path / "parts")
    make(there, lambda now: steps.append(now.done) if now.name == "train" else None, lines.append)
    done = json.loads((tmp_path / "parts" / "manifest.json").read_text())["step"]
    assert f"{done} steps are done" in " ".join(lines) and done == 6 and min(steps) >= done
    assert max(steps) == 12 and (there.run / "card.md").is_file()
    lines.clear()
    make(there, on_line=lines.append)
    assert any("the parts are not needed" in line for line in lines)


def test_parts_joined_are_what_they_were_to_the_bit(half_done, tmp_path):
    pack(half_done, tmp_path / "parts")
    last = torch.load(half_done.run / "training" / "last.ckpt", weights_only=True)
    before = last["zeroflow_training"]
    pairs = json.loads(before["identity"])["pairs"]
    join_parts(read_parts(tmp_path / "parts", half_done.identity), tmp_path / "joined", pairs)
    joined = torch.load(tmp_path / "joined" / "last.ckpt", weights_only=True)
    after = joined["zeroflow_training"]
    assert json.loads(after["identity"]) == json.loads(before["identity"])
    assert joined["global_step"] == last["global_step"] and joined["zeroflow"] == last["zeroflow"]
    for name, value in before["average"].items():
        assert torch.equal(after["average"][name], value.half().float() if value.is_floating_point() else value)
    for name, value in before["student"].items():
        assert torch.equal(after["student"][name], value.half().float() if value.ndim > 1 else value)
        assert after["student"][name].dtype == value.dtype
    moments, there = (one["optimizer_states"][0] for one in (last, joined))
    assert moments["param_groups"] == there["param_groups"] and moments["state"].keys() == there["state"].keys()
    for number, state in moments["state"].items():
        for name, value in state.items():
            expected = value.bfloat16().float() if value.ndim > 1 else value
            assert torch.equal(there["state"][number][name], expected)
    again = pack(half_done, tmp_path / "again")
    assert [path.read_bytes() for path in again] == [(tmp_path / "parts" / path.name).read_bytes() for path in again]


def test_labels_that_differ_by_a_bit_are_no_other_training(half_done, tmp_path):
    """As a GPU makes them; what changes is what tells the pairs apart."""
    pack(half_done, tmp_path / "parts")
    parts = read_parts(tmp_path / "parts", half_done.identity)
    there = torch.load(half_done.run / "training/last.ckpt", weights_only=True)["zeroflow_training"]
    others = [f"{one.partition(' ')[0]} (0123456789ab)" for one in json.loads(there["identity"])["pairs"]]
    join_parts(parts, tmp_path / "joined", others)
    joined = torch.load(tmp_path / "joined/last.ckpt", weights_only=True)["zeroflow_training"]
    assert json.loads(joined["identity"])["pairs"] == others
    with pytest.raises(ZeroFlowError, match=r"learned from .* pairs, and here are 9"):
        join_parts(parts, tmp_path / "other", ["9 (0123456789ab)", *others[1:]])


def test_parts_that_are_not_whole_are_refused_before_any_work(half_done, tmp_path):
    files = pack(half_done, tmp_path / "parts")
    elsewhere = tmp_path / "elsewhere"

    def refused(what: str, **others) -> None:
        with pytest.raises(ZeroFlowError, match=what):
            make(_settings(tmp_path, elsewhere, **{"seed": 3, "from_parts": tmp_path / "parts", **others}))
        assert not elsewhere.exists()

    refused("of another training .*seed is 3, not 4", seed=4)
    refused("of another training .*labels is pseudo, not truth", truth=True)
    for path in files:
        if path.name == "manifest.json":
            continue
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        refused(f"{path.name} is not what it was")
        path.unlink()
        refused(f"{path.name} can't be read")
        path.write_bytes(content)
    (tmp_path / "parts" / "manifest.json").write_text("{")
    refused("manifest.json is damaged")
    (tmp_path / "parts" / "manifest.json").unlink()
    refused("give the folder of --parts")


def test_parts_by_the_command(whole, tmp_path, capsys):
    command = [str(_file(tmp_path)), "--out", str(whole), "--device", "cpu", "--jobs", "1"]
    assert make_weights.main([*command, "--parts", str(tmp_path / "parts")]) == 0
    assert "no parts were written" in capsys.readouterr().out
    assert not list((tmp_path / "parts").iterdir())
    command[2] = str(tmp_path / "new")
    assert make_weights.main([*command, "--parts", str(tmp_path / "parts"), "--minutes", "1e-9"]) == 0
    assert "no training yet to take along" in capsys.readouterr().out
    assert not list((tmp_path / "parts").iterdir())
    assert make_weights.main([*command, "--parts", str(_file(tmp_path))]) == 1
    assert "cannot write to" in capsys.readouterr().err


def test_a_student_that_is_larger_than_a_part_is_refused_before_any_work(tmp_path, capsys):
    command = [str(_file(tmp_path, student="xl")), "--out", str(tmp_path / "new"), "--parts", str(tmp_path / "parts")]
    assert make_weights.main(command) == 1
    assert "a student of size xl takes" in capsys.readouterr().err
    assert not (tmp_path / "new").exists() and not (tmp_path / "parts").exists()
    for size in ("small", "half", "1x"):
        parting.check_size(size)


def test_parts_that_are_further_along_are_not_passed_over(half_done, tmp_path, monkeypatch):
    pack(half_done, tmp_path / "parts")
    ahead = replace(half_done, from_parts=tmp_path / "parts")
    there = torch.load(half_done.checkpoint, weights_only=True)["global_step"]
    monkeypatch.setattr(makings, "step_of", lambda path: there - 1)
    with pytest.raises(ZeroFlowError, match=rf"further along \({there} steps?\) than .*remove that folder"):
        make(ahead)
    monkeypatch.undo()
    assert step_of(half_done.checkpoint) == there


def test_a_pair_that_failed_is_not_tried_again_once_the_training_has_begun(whole, tmp_path, monkeypatch):
    """Its label would be news to the training, which could not go on."""
    asked, label = [], teaching.label

    def look(settings, on_progress):
        asked.append(settings.retry)
        return label(settings, on_progress)

    monkeypatch.setattr(teaching, "label", look)
    _take_data(whole, tmp_path / "out")
    _stop(_settings(tmp_path, tmp_path / "out"), "train", monkeypatch)
    monkeypatch.setattr(teaching, "label", look)
    before = len(asked)
    assert before and all(asked)
    settings = _settings(tmp_path, tmp_path / "out")
    another = replace(settings, plan=replace(settings.plan, seed=settings.plan.seed + 1))
    for one in (another, settings):  # of another seed, the first one's labels are its own as well
        make(one)
    assert len(asked) == 3 * before and not any(asked[before:])


def test_the_largest_student_of_parts_fits_into_few_files(tmp_path):
    """1x with Adam's moments: what a machine that is lent gives back is limited."""
    model = FastFlow3D(ONE_X)
    optimiser = torch.optim.Adam(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimiser.step()
    weights = {f"model.{key}": value for key, value in model.state_dict().items()}
    going = {"student": weights, "average": weights, "optimiser": optimiser.state_dict(), "identity": {}}
    metadata = {"name": "x", "grid": ONE_X.to_dict()}
    save_state(tmp_path / "training" / "last.ckpt", weights, metadata, Progress(), going)
    files = write_parts(tmp_path / "training", tmp_path / "parts", {})
    assert len(files) <= 6 and max(path.stat().st_size for path in files) <= 16 << 20
    assert sum(path.stat().st_size for path in files) <= 53 << 20
    assert (tmp_path / "parts" / "student.safetensors").stat().st_size <= 16_000_000


# What goes wrong ----------------------------------------------------------------------------------------------------


def _simulated(**changes) -> dict:
    return {"simulated": [{**SIMULATED, **changes}]}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sudent": "1x"}, "the file has no 'sudent'; it has: name, student"),
        ({"student": "2x"}, "student '2x' is none of the sizes: small, half, 1x, xl"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"held_back": 2}, "held_back must be a number from 0 to 0.9"),
        ({"ground": "auto"}, "ground 'auto' is unknown; choose one of: map, patchwork, none"),
        ({"name": ""}, "name must be a word"),
        ({"name": "../other"}, "name must be a word, not '../other'"),
        ({"simulated": []}, "nothing to learn from"),
        ({"simulated": {}}, "simulated must be a list"),
        ({"simulated": ["av2"]}, "simulated must be a JSON object, not 'av2'"),
        ({"simulated": [{"scanners": ["av2"]}]}, "simulated lacks 'chunks'"),
        (_simulated(scanners=["av9"]), "simulated: scanner 'av9' is unknown; choose one of: av2"),
        (_simulated(scanners="av2"), r"simulated: scanners must be a list of names"),
        (_simulated(sweeps=1), "simulated: sweeps must be a whole number from 2"),
        (_simulated(scene="beach"), "simulated: scene 'beach' is unknown"),
        (_simulated(randomise=1), "simulated: randomise must be true or false"),
        (_simulated(beams=4), "simulated has no 'beams'"),
        ({"recorded": [{"data": "a", "bag": "b"}]}, "recorded: both logs and a bag"),
        ({"recorded": [{"data": "a", "license": "MIT"}]}, "recorded has no 'license'"),
        ({"recorded": [{"data": "a", "split": 3}]}, "recorded: split must be a word, not 3"),
        ({"recorded": [{"bag": "a", "height": "1 m"}]}, "recorded.height must be a number from -100"),
        ({"teacher": {"method": "icp"}}, "teacher: teacher 'icp' is unknown"),
        ({"teacher": {"ground": "lawn"}}, "teacher: ground 'lawn' is unknown"),
        ({"training": {"from": "slow"}}, "recipe 'slow' is unknown"),
        ({"training": {"epoch": 3}}, "a recipe has no 'epoch'"),
        ({"training": 3}, "training must be a JSON object"),
    ],
)
def test_mistakes_in_a_recipe_are_told_in_a_sentence(changes, told, tmp_path):
    with pytest.raises(ZeroFlowError, match=told) as caught:
        read_plan(_file(tmp_path, **changes))
    assert str(caught.value).startswith(f"{tmp_path / 'tried.json'}: ")


def test_files_that_are_no_recipes(tmp_path, capsys):
    (tmp_path / "no.json").write_text("{'student': 1}")
    for name, told in (("no.json", "is no JSON"), ("none.json", "cannot read")):
        assert make_weights.main([str(tmp_path / name), "--out", str(tmp_path / "out")]) == 1
        assert told in capsys.readouterr().err.replace("\n", "")
    assert not (tmp_path / "out").exists()


def test_settings_that_cannot_be(whole, tmp_path):
    with pytest.raises(ZeroFlowError, match="0 minutes are no time"):
        _settings(tmp_path, tmp_path / "out", minutes=0)
    (tmp_path / "out").write_text("")
    with pytest.raises(ZeroFlowError, match="out is a file"):
        make(_settings(tmp_path, tmp_path / "out"))
    with pytest.raises(ZeroFlowError, match="cannot write to .*out/below: Not a directory"):
        make(_settings(tmp_path, tmp_path / "out" / "below"))
    recorded = read_plan(_file(tmp_path, simulated=[], recorded=[{"data": str(tmp_path)}]))
    with pytest.raises(ZeroFlowError, match="no truth to learn from"):
        MakeSettings(recorded, tmp_path / "out", truth=True)


def test_logs_with_and_without_maps_are_told_before_they_are_labelled(whole, tmp_path):
    make_logs(tmp_path, 1, 3)
    recorded = [{"data": str(tmp_path)}]
    plan = read_plan(_file(tmp_path, recorded=recorded))
    with pytest.raises(ZeroFlowError, match='recorded-001 has logs without a map .* "ground": "patchwork"'):
        make(MakeSettings(plan, whole, device="cpu", jobs=1))
    assert not (whole / "data" / "recorded-001").exists()
    with pytest.raises(ZeroFlowError, match="nothing"):
        make(MakeSettings(read_plan(_file(tmp_path, recorded=[{"data": "nothing"}])), tmp_path / "out", device="cpu"))
    assert not (tmp_path / "out" / "data").exists()


def test_two_at_a_time_are_one_too_many(whole, tmp_path, monkeypatch):
    monkeypatch.setattr("zeroflow_core.distillation.making.make._PATIENCE_S", 0.1)
    settings = _settings(tmp_path, whole)
    with locked(settings.run), pytest.raises(ZeroFlowError, match="another process is making weights in .*seed-1"):
        make(settings)
    with locked(whole), pytest.raises(ZeroFlowError, match=f"another process is simulating or labelling in {whole}"):
        make(settings)


def test_another_seed_trains_beside_one_that_is_training(whole, tmp_path):
    """Both learn from what is prepared in the same folder."""
    others = []

    def begin_another(stage: Stage) -> None:
        if stage.name == makings.TRAIN and not others:
            others.append(None)
            others[:] = [make(_settings(tmp_path, out, seed=4))]

    out = tmp_path / "out"
    _take_data(whole, out)
    made = make(_settings(tmp_path, out, seed=3), begin_another)
    for one, seed in ((made, 3), (others[0], 4)):
        assert one.student == out / f"tried-seed-{seed}" / "student.safetensors"
        assert _metadata(one.student)["seeds"]["training"] == seed


def test_ctrl_c_ends_with_130(tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(make_weights, "make", interrupted)
    assert make_weights.main([str(_file(tmp_path)), "--out", str(tmp_path / "out")]) == 130
    assert "the same command goes on from here" in capsys.readouterr().err


# The recipes that come along ----------------------------------------------------------------------------------------


def test_the_recipes_that_come_along_can_be_read(repository):
    plans = {path.stem: read_plan(path) for path in (repository / "config" / "distill").glob("*.json")}
    assert {name: plan.student for name, plan in plans.items()} == {
        "default": "half", "default-1x": "1x", "small": "small",
    }  # fmt: skip
    assert all(name == plan.name for name, plan in plans.items())
    shared = [(list(plan.chunks()), plan.teacher, plan.ground) for plan in (plans["default"], plans["small"])]
    assert shared[0] == shared[1], "they learn from the same labels"
    assert all(plan.training.reverse and not plan.recorded for plan in plans.values())
    chunks = list(plans["default"].chunks())
    assert [chunk.name for chunk in chunks[:7]] == [
        "001-av2", "002-hdl64", "003-av2", "004-os1-128", "005-av2", "006-vlp32", "007-av2",
    ]  # fmt: skip
    assert [chunk.seed for chunk in chunks] == list(range(9001, 9001 + len(chunks)))
    assert {chunk[2:4] + chunk[5:] for chunk in chunks} == {(10, 3, "mixed", True, 1.0)}
    assert sum(chunk.logs * (chunk.sweeps - 1) for chunk in plans["default-1x"].chunks()) >= 2000
