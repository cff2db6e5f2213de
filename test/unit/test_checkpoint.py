"""Checkpoints: what loads, what is refused with which sentence, and that a file's code never runs."""

import pickle
from argparse import Namespace

import numpy as np
import pytest
import torch

from zeroflow_core import load_student
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.fastflow3d.checkpoint import load_model, save_model
from zeroflow_core.fastflow3d.config import ONE_X, FastFlow3DConfig
from zeroflow_core.fastflow3d.model import FastFlow3D

SMALL = FastFlow3DConfig(minimum=(-8, -8, -3), maximum=(8, 8, 3), pillar_size=0.5, channels=4, blocks=(1, 1))


@pytest.fixture(scope="module")
def published():
    """A 1x state dict in the published layout: the network's keys behind 'model.'."""
    torch.manual_seed(0)
    return {f"model.{key}": value for key, value in FastFlow3D(ONE_X).state_dict().items()}


def write(path, state, **more):
    torch.save({"epoch": 0, "pytorch-lightning_version": "1.9.4", "state_dict": state, **more}, path)
    return path


def test_published_layout_loads_strictly(tmp_path, published):
    model, metadata = load_model(write(tmp_path / "a.ckpt", published))
    assert model.config == ONE_X
    assert metadata == {"name": "a", "ground": "map", "interval_s": 0.1}
    key = "head.decoder.0.weight"
    torch.testing.assert_close(model.state_dict()[key], published["model." + key])


def test_own_layout_round_trip(tmp_path):
    torch.manual_seed(1)
    model = FastFlow3D(SMALL)
    entry = {"name": "tiny", "ground": "patchwork", "interval_s": 0.1}
    save_model(tmp_path / "a.safetensors", model, entry)
    loaded, metadata = load_model(tmp_path / "a.safetensors")
    assert loaded.config == SMALL and metadata["name"] == "tiny" and metadata["format"] == 1
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def test_half_precision_halves_the_file_and_loads_as_fp32(tmp_path):
    model = FastFlow3D(SMALL)
    save_model(tmp_path / "full.safetensors", model, {})
    save_model(tmp_path / "half.safetensors", model, {}, half=True)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.7 * (tmp_path / "full.safetensors").stat().st_size
    loaded, _ = load_model(tmp_path / "half.safetensors")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


def test_a_file_with_foreign_classes_still_loads(tmp_path, published):
    hyper_parameters = Namespace(lr=2e-6, callbacks=[np.float64(3.0)])
    path = write(tmp_path / "a.ckpt", published, hyper_parameters=hyper_parameters)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    assert load_model(path)[0].config == ONE_X


def test_code_in_the_file_never_runs(tmp_path, published):
    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "was_here"), "w"))

    path = write(tmp_path / "a.ckpt", published, callbacks=Attack())
    load_model(path)
    assert not (tmp_path / "was_here").exists()
    torch.load(path, weights_only=False)["callbacks"].close()
    assert (tmp_path / "was_here").exists(), "the attack of this test does not work"


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda s: s.pop("model.head.decoder.2.bias"), r"1 keys are missing \(head.decoder.2.bias\)"),
        (lambda s: s.update({"model.extra": torch.zeros(1)}), r"1 keys are unknown \(extra\)"),
        (
            lambda s: s.update({"model.head.decoder.0.weight": torch.zeros(32, 256)}),
            r"head.decoder.0.weight is \(32, 256\), not \(32, 131\)",
        ),
        (lambda s: s.clear(), "not FastFlow3D 1x or XL.*is missing"),
        (lambda s: s.update({"model.embedder.feature_net.pfn_layers.0.0.weight": torch.zeros(8, 9)}), r"\(8, 9\)"),
    ],
)
def test_keys_that_do_not_fit_are_named(tmp_path, published, change, sentence):
    state = dict(published)
    change(state)
    with pytest.raises(ZeroFlowError, match=sentence):
        load_model(write(tmp_path / "a.ckpt", state))


def test_truncated_foreign_and_missing_files(tmp_path, published):
    whole = write(tmp_path / "whole.ckpt", published).read_bytes()
    save_model(tmp_path / "whole.safetensors", FastFlow3D(SMALL), {})
    content = {
        "truncated.ckpt": whole[: len(whole) // 2],
        "empty.ckpt": b"",
        "text.ckpt": b"these are not weights",
        "truncated.safetensors": (tmp_path / "whole.safetensors").read_bytes()[:-100],
        "text.safetensors": b"these are not weights",
    }
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ZeroFlowError, match=f"{name}: cannot be read, it is truncated or not a checkpoint"):
            load_model(tmp_path / name)
    with pytest.raises(ZeroFlowError, match="no such file"):
        load_model(tmp_path / "nowhere.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(ZeroFlowError, match="no 'state_dict'"):
        load_model(tmp_path / "list.ckpt")
    torch.save({"state_dict": {"a": 1}}, tmp_path / "numbers.ckpt")
    with pytest.raises(ZeroFlowError, match="does not map names to tensors"):
        load_model(tmp_path / "numbers.ckpt")


def test_a_newer_format_is_refused(tmp_path):
    save_model(tmp_path / "a.safetensors", FastFlow3D(SMALL), {"format": 99})
    with pytest.raises(ZeroFlowError, match="format 99"):
        load_model(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ({"device": "tpu"}, "device 'tpu'"),
        ({"device": "cuda:77"}, "sees . CUDA"),
        ({"engine": "steam"}, "engine 'steam' is unknown; choose one of: fast, reference"),
        ({"precision": "fp8"}, "precision 'fp8' is unknown"),
    ],
)
def test_options_that_do_not_exist(arguments, sentence):
    with pytest.raises(ZeroFlowError, match=sentence):
        load_student("default", **arguments)
