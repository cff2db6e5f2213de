"""``zeroflow export``: what it writes, what it says, and mistakes told in a sentence."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from engine_cases import grid, random_network
from typer.testing import CliRunner

from zeroflow_core.cli import main
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.fastflow3d.checkpoint import save_model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    metadata = {"name": "tiny", "ground": "none", "interval_s": 0.1}
    save_model(path, random_network(grid(4, 4, (1,)), seed=1), metadata)
    return path


def _run(*arguments: object):
    environment = {"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}
    return CliRunner().invoke(main.app, ["export", *map(str, arguments)], env=environment)


def test_onnx_is_what_it_writes_and_one_line_is_what_it_says(checkpoint, tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    out = tmp_path / "tiny.onnx"
    program = "import sys; from zeroflow_core.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "export", checkpoint, "--out", out, "--points", "90"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    expected = r"tiny as ONNX, 0\.\d MB, clouds of 90 rows, within \de-\d\d m of the reference\n"
    assert re.fullmatch(re.escape(f"{out}: ") + expected, done.stdout)
    inputs = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in onnx.load(out).graph.input
    }
    assert inputs == {"pc0": [90, 3], "pc1": [90, 3]}
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.onnx"]


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torchscript(checkpoint, tmp_path):
    out = tmp_path / "tiny.pt"
    result = _run(checkpoint, "--format", "torch", "--out", out)
    assert result.exit_code == 0, result.output
    expected = r": tiny as TorchScript, 0\.\d MB, clouds of any size, within \de-\d\d m of the reference\n"
    assert re.fullmatch(re.escape(str(out)) + expected, result.output)
    assert torch.jit.load(out)(torch.zeros(5, 3), torch.zeros(2, 3)).shape == (5, 3)

    assert _run(checkpoint, "--format", "torch", "--out", out, "--no-check").output.endswith(", not checked\n")


@pytest.mark.parametrize(
    "arguments, problem",
    [
        (("--out", "{}/x", "--format", "tensorrt"), "--format tensorrt is unknown; choose one of: onnx, torch"),
        (("--out", "{}/x", "--format", "torch", "--points", "9"), "--points is for --format onnx"),
        (("--out", "{}"), "is a folder; give a file, such as .*/student.onnx"),
        (("--out", "{}", "--format", "torch"), "is a folder; give a file, such as .*/student.pt"),
        (("--out", "{}/there/is/none/x"), "the folder .* does not exist; create it first"),
    ],
)
def test_mistakes_are_told_before_anything_is_done(checkpoint, tmp_path, arguments, problem):
    result = _run(checkpoint, *(argument.format(tmp_path) for argument in arguments))
    assert isinstance(result.exception, ZeroFlowError)
    assert re.search(problem, str(result.exception))
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_is_not_there(tmp_path):
    result = _run(tmp_path / "none.ckpt", "--out", tmp_path / "x.onnx")
    assert isinstance(result.exception, ZeroFlowError)
    assert "none.ckpt: no such file" in str(result.exception)
