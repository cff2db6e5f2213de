"""The `zeroflow` command: what it offers, how it fails, and what `zeroflow doctor` reports."""

from __future__ import annotations

import re

import pytest
import torch
from typer.testing import CliRunner

import zeroflow_core
from zeroflow_core.cli import doctor, main
from zeroflow_core.errors import ZeroFlowError

COMMANDS = ["infer", "flow", "convert", "simulate", "evaluate", "compare", "render", "view", "export", "download"]
COMMANDS += ["doctor"]
COMMANDS += ["distill"]  # of several


def _run(*arguments: str):
    return CliRunner().invoke(main.app, arguments, env={"COLUMNS": "120", "TERM": "dumb", "NO_COLOR": "1"})


def test_help_lists_exactly_the_commands():
    result = _run("--help")
    assert result.exit_code == 0
    registered = [command.name or command.callback.__name__ for command in main.app.registered_commands]
    registered += [group.typer_instance.info.name for group in main.app.registered_groups]
    assert registered == COMMANDS
    assert all(re.search(rf"\b{name}\b", result.output) for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_shows_an_example(command: str):
    result = _run(command, "--help")
    assert result.exit_code == 0
    assert f"zeroflow {command} " in result.output.split("Example")[1] + " "


def test_version():
    assert _run("--version").output == f"zeroflow {zeroflow_core.__version__}\n"


def test_a_users_mistake_is_one_sentence_and_exit_code_1(monkeypatch, capsys, tmp_path):
    missing = tmp_path / "missing.npy"
    out = tmp_path / "flow.npz"
    arguments = ["infer", "--pc0", str(missing), "--pc1", str(missing), "--out", str(out)]
    monkeypatch.setattr("sys.argv", ["zeroflow", *arguments])
    assert main.main() == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "".join(said.err.split()) == "".join(f"--pc0{missing}:nosuchfile".split())
    assert not out.exists()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nMore of it."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
)
def test_memory_that_ran_out_is_one_sentence_and_exit_code_1(monkeypatch, capsys, error):
    def greedy(**_):
        raise error

    monkeypatch.setattr(main, "app", greedy)
    assert main.main() == 1
    said = capsys.readouterr().err
    assert said.startswith("memory ran out (") and "--device cpu" in said and said.count("\n") == 1


def test_a_bug_keeps_its_traceback(monkeypatch):
    def broken(**_):
        raise KeyError("a bug")

    monkeypatch.setattr(main, "app", broken)
    with pytest.raises(KeyError, match="a bug"):
        main.main()


def _finding(name: str) -> doctor.Finding:
    return next(finding for finding in doctor.findings() if finding.name == name)


@pytest.mark.parametrize(("needed", "exit_code"), [(True, 1), (False, 0)])
def test_doctor_fails_for_what_infer_needs_only(monkeypatch, needed: bool, exit_code: int):
    finding = doctor.Finding("thing", "missing", "install [thing]", needed)
    monkeypatch.setattr(doctor, "findings", lambda: [finding, doctor.Finding("other", "there")])
    result = _run("doctor")
    assert result.exit_code == exit_code
    assert "thing: install [thing]" in result.output
    assert "other:" not in result.output


def test_doctor_without_torch(monkeypatch):
    is_installed = doctor._is_installed
    monkeypatch.setattr(doctor, "_is_installed", lambda module: module != "torch" and is_installed(module))
    assert _finding("torch").advice == "pip install torch"
    assert _finding("default weights").needed


@pytest.mark.parametrize("gpu", [False, True])
def test_doctor_without_numba(monkeypatch, gpu: bool):
    def refuses(_):
        raise SystemError("initialization failed")

    monkeypatch.setattr(doctor, "import_module", refuses)
    monkeypatch.setattr(doctor, "_has_gpu", lambda: gpu)
    finding = _finding("numba")
    assert "initialization failed" in finding.found and "--engine reference" in finding.advice
    assert finding.needed != gpu, "the engine of a GPU does without"


def test_doctor_without_what_writes_onnx(monkeypatch):
    is_installed = doctor._is_installed
    monkeypatch.setattr(doctor, "_is_installed", lambda module: module != "onnxscript" and is_installed(module))
    finding = _finding("onnx")
    assert "onnxscript" in finding.found and finding.advice == "pip install 'zeroflow_ros[onnx]'"
    assert not finding.needed, "infer does without"


@pytest.mark.parametrize("precision, says", [("bf16", "fp32 and bf16"), ("fp32", "fp32 (no bf16)")])
def test_doctor_tells_what_the_device_multiplies(monkeypatch, precision: str, says: str):
    monkeypatch.setattr("zeroflow_core.devices.choose_precision", lambda asked, device: precision)
    assert _finding("torch").found.endswith(f", {says}")


def test_doctor_without_ros(monkeypatch):
    monkeypatch.setattr(doctor, "_is_installed", lambda module: module == "torch")
    assert "ROS 2" in _finding("ROS 2").advice or "setup.bash" in _finding("ROS 2").advice
    assert "ros-" in _finding("messages").advice
    assert not _finding("ROS 2").needed


def test_doctor_reads_the_environment(monkeypatch, tmp_path):
    profile = tmp_path / "fastdds.xml"
    monkeypatch.setenv("FASTDDS_DEFAULT_PROFILES_FILE", str(profile))
    monkeypatch.setenv("ZEROFLOW_TEST_DATA", str(tmp_path))
    assert "does not exist" in _finding("Fast DDS profile").found
    assert _finding("test data") == doctor.Finding("test data", str(tmp_path))

    profile.touch()
    assert _finding("Fast DDS profile") == doctor.Finding("Fast DDS profile", str(profile))


def test_doctor_tells_a_broken_checkpoint_from_a_missing_one(monkeypatch):
    def broken(_):
        raise ZeroFlowError("keys are missing")

    monkeypatch.setattr("zeroflow_core.fastflow3d.checkpoint.load_model", broken)
    finding = _finding("default weights")
    assert (finding.advice, finding.needed) == ("keys are missing", True)
