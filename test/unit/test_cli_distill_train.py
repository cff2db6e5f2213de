"""``zeroflow distill train``: options, what it says, and mistakes told in a sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from training_cases import TINY, make_source, tiny_student
from typer.testing import CliRunner

from zeroflow_core import load_student
from zeroflow_core.cli import main
from zeroflow_core.distillation.training import fitting
from zeroflow_core.distillation.training import train as training
from zeroflow_core.distillation.training.label_sources import source_of, split_at
from zeroflow_core.distillation.training.train import TrainSettings
from zeroflow_core.errors import ZeroFlowError


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """logs/ and labels/, whose manifest says where the logs are."""
    root = tmp_path_factory.mktemp("root")
    source = make_source(root, (4, 3))
    _write_manifest(root / "labels", source.logs)
    return root


def _write_manifest(folder: Path, logs, ground: str = "none") -> None:
    manifest = {"configuration": {"ground": ground}, "logs": {log.name: {"path": str(log)} for log in logs}}
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture
def asked(monkeypatch) -> list[TrainSettings]:
    """The settings that the command would train with; nothing is trained."""
    found: list[TrainSettings] = []

    def train(settings, on_progress=None):
        found.append(settings)
        figures = {"heldback/moving_epe": 0.123456}
        return training.Trained(settings.out / "student.safetensors", {}, [], figures, 7, 1.0, 0.5)

    monkeypatch.setattr(training, "train", train)
    return found


def _run(*arguments: object):
    environment = {"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}
    return CliRunner().invoke(main.app, ["distill", "train", *map(str, arguments)], env=environment)


def _train(root: Path, out: Path, *arguments: object):
    return _run("--labels", root / "labels", "--out", out, *arguments)


def _refused(result) -> str:
    assert isinstance(result.exception, ZeroFlowError), result.output
    assert "\n" not in str(result.exception)
    return str(result.exception)


def test_labels_become_a_student(root, tmp_path, monkeypatch):
    student = tiny_student(monkeypatch)
    monkeypatch.setattr(fitting, "open_board", lambda folder, step: None)
    arguments = ("--student", student, "--device", "cpu", "--epochs", 1, "--batch", 2, "--workers", 0)
    result = _train(root, tmp_path / "mine", *arguments)
    assert result.exit_code == 0, result.output
    assert "8 steps" in result.output and "heldback/moving_epe 0." in result.output
    assert str(tmp_path / "mine" / "student.safetensors") in result.output.replace("\n", "")
    loaded = load_student(tmp_path / "mine" / "student.safetensors", "cpu", "reference")
    assert loaded.metadata["name"] == "mine" and loaded.metadata["ground"] == "none" and loaded.model.config == TINY
    again = _train(root, tmp_path / "mine", *arguments)
    assert again.exit_code == 0 and "8 steps" in again.output
    other = _refused(_train(root, tmp_path / "mine", *arguments, "--seed", 1))
    assert "belongs to another training (its seed is 0, not 1)" in other


def test_what_is_asked_for_is_what_is_trained(root, tmp_path, asked):
    result = _train(
        root, tmp_path / "out", "--student", "xl", "--recipe", "published", "--epochs", 3, "--batch", 16,
        "--learning-rate", 1e-4, "--loss", "speed-scaled", "--micro-batch", 4, "--workers", 2, "--held-back", 0.25,
        "--prepared", tmp_path / "kept", "--name", "mine", "--device", "cpu", "--seed", 9, "--ground", "patchwork",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (settings,) = asked
    recipe = settings.recipe
    assert (recipe.name, recipe.epochs, recipe.batch, recipe.learning_rate) == ("published", 3, 16, 1e-4)
    assert (recipe.loss, recipe.batch_sum) == ("speed-scaled", True)
    assert (settings.student, settings.micro_batch, settings.workers, settings.seed) == ("xl", 4, 2, 9)
    assert (settings.held_back, settings.prepared, settings.name) == (0.25, tmp_path / "kept", "mine")
    assert (settings.out, settings.device, settings.validation) == (tmp_path / "out", "cpu", ())
    assert settings.sources[0].ground == "patchwork" and settings.sources[0].weight == 1.0
    assert "heldback/moving_epe 0.1235" in result.output and "50% of the time" in result.output


def test_what_it_does_unasked(root, tmp_path, asked):
    assert _train(root, tmp_path / "drive").exit_code == 0
    (settings,) = asked
    assert (settings.recipe.name, settings.student, settings.name, settings.held_back) == ("fast", "1x", "drive", 0.1)
    (source,) = settings.sources
    assert [log.name for log in source.logs] == ["log0", "log1"] and source.ground == "none"
    assert source.labels.forward == root / "labels" / "train_nsfp_flow_feather"
    assert source.labels.reverse == root / "labels" / "train_nsfp_flow_feather_reverse"


def test_several_sources_with_weights(root, tmp_path, asked):
    result = _run("--labels", f"{root / 'labels'}=2.5", "--labels", root / "labels", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert [source.weight for source in asked[0].sources] == [2.5, 1.0]


def test_a_folder_with_an_equals_sign_is_a_folder(root, tmp_path, asked):
    odd = tmp_path / "lr=0.1"
    odd.symlink_to(root / "labels")
    assert _run("--labels", odd, "--labels", f"{odd}=2", "--out", tmp_path / "out").exit_code == 0
    assert [source.weight for source in asked[0].sources] == [1.0, 2.0]
    assert asked[0].sources[0].labels.forward.parent == odd


@pytest.mark.parametrize("weight", ["0", "-1", "x", "", "nan", "inf"])
def test_a_weight_that_is_none(root, tmp_path, asked, weight):
    said = _refused(_run("--labels", f"{root / 'labels'}={weight}", "--out", tmp_path / "out"))
    assert f"'{weight}' is no weight; give a number above 0" in said and not asked


def test_labels_that_do_not_say_where_their_logs_are(root, tmp_path, asked):
    published = shutil.copytree(root / "labels", tmp_path / "labels")
    (published / "manifest.json").unlink()
    said = _refused(_run("--labels", published, "--out", tmp_path / "out"))
    assert "does not say which logs its labels are of; give their root as --data" in said
    result = _run("--labels", published, "--data", root / "logs", "--split", "train", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert [log.name for log in asked[0].sources[0].logs] == ["log0", "log1"]
    assert asked[0].sources[0].ground == "map", "as the published labels were made"


def test_logs_that_are_gone(root, tmp_path, asked):
    labels = shutil.copytree(root / "labels", tmp_path / "labels")
    _write_manifest(labels, [tmp_path / "gone"])
    said = _refused(_run("--labels", labels, "--out", tmp_path / "out"))
    assert "is not there any more; give the logs' root as --data" in said
    assert _run("--labels", labels, "--data", root / "logs", "--out", tmp_path / "out").exit_code == 0


@pytest.mark.parametrize("content", ["{", "[]", '{"logs": {}}', '{"configuration": {"ground": 3}, "logs": {}}'])
def test_a_damaged_manifest(root, tmp_path, asked, content):
    labels = shutil.copytree(root / "labels", tmp_path / "labels")
    (labels / "manifest.json").write_text(content)
    said = _refused(_run("--labels", labels, "--out", tmp_path / "out"))
    assert "manifest.json is damaged" in said and not asked


def test_the_ground_is_that_of_the_labels(root, tmp_path):
    labels = shutil.copytree(root / "labels", tmp_path / "labels")
    logs = sorted((root / "logs" / "sensor" / "train").iterdir())
    for told, ground in (("auto", "patchwork"), ("map", "map"), ("patchwork", "patchwork"), ("none", "none")):
        _write_manifest(labels, logs, told)
        assert source_of(labels).ground == ground
        assert source_of(labels, ground="none").ground == "none"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--recipe", "slow"), "recipe 'slow' is unknown"),
        (("--loss", "huber"), "loss 'huber' is unknown"),
        (("--learning-rate", "-1"), "learning_rate must be a number from"),
        (("--val", "nowhere"), "there is no folder nowhere"),
    ],
)
def test_mistakes_are_told_before_anything_is_done(root, tmp_path, asked, arguments, words):
    assert words in _refused(_train(root, tmp_path / "out", *arguments))
    assert not asked


def test_mistakes_of_the_training_are_told(root, tmp_path):
    assert "student '2x' is neither a size" in _refused(_train(root, tmp_path / "out", "--student", "2x"))
    assert "device 'tpu'" in _refused(_train(root, tmp_path / "out", "--device", "tpu"))


def test_folders_that_are_none(root, tmp_path, asked):
    (tmp_path / "file").touch()
    assert "is a file; give the folder" in _refused(_train(root, tmp_path / "file"))
    assert "there is no folder" in _refused(_run("--labels", tmp_path / "none", "--out", tmp_path / "out"))
    (tmp_path / "empty").mkdir()
    assert "holds no labels" in _refused(_run("--labels", tmp_path / "empty", "--out", tmp_path / "out"))
    assert not asked


@pytest.mark.parametrize(
    "arguments",
    [("--epochs", "0"), ("--batch", "0"), ("--micro-batch", "0"), ("--workers", "-1"), ("--held-back", "0.95"),
     ("--seed", "-1")],
)  # fmt: skip
def test_numbers_out_of_range_are_misuse(root, tmp_path, asked, arguments):
    result = _train(root, tmp_path / "out", *arguments)
    assert result.exit_code == 2 and arguments[0] in result.output and not asked


def test_labels_and_out_must_be_given(root, tmp_path):
    assert "--labels" in _run("--out", tmp_path).output and "--out" in _run("--labels", root / "labels").output


def test_a_split_to_validate_by(root, tmp_path):
    assert split_at(None) == ()
    logs = tuple(sorted((root / "logs" / "sensor" / "train").iterdir()))
    assert split_at(f"{root / 'logs'}:train") == logs
    with pytest.raises(ZeroFlowError, match="no split 'val'"):
        split_at(str(root / "logs"))
    odd = tmp_path / "a:b"
    shutil.copytree(root / "logs", odd)
    assert [log.name for log in split_at(str(odd), "train")] == ["log0", "log1"]
