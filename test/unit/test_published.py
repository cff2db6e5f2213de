"""Published checkpoints by name: which there are, where they are kept, and that only the published ones are loaded."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.fastflow3d import published as module
from zeroflow_core.fastflow3d.checkpoint import DEFAULT_CHECKPOINT, NAMES, checkpoint_file, load_model
from zeroflow_core.fastflow3d.config import FastFlow3DConfig
from zeroflow_core.fastflow3d.model import FastFlow3D
from zeroflow_core.fastflow3d.published import PUBLISHED, cache_folder, downloaded_file, git_object_id

SMALL = FastFlow3DConfig(minimum=(-8, -8, -3), maximum=(8, 8, 3), pillar_size=0.5, channels=4, blocks=(1, 1))
NAME = "zeroflow-3x"


@pytest.fixture
def downloaded(tmp_path, monkeypatch) -> Path:
    """A checkpoint in the cache that passes for the published one."""
    monkeypatch.setenv("ZEROFLOW_CACHE", str(tmp_path))
    path = tmp_path / f"{NAME}.ckpt"
    torch.save({"state_dict": FastFlow3D(SMALL).state_dict(), "zeroflow": {"grid": SMALL.to_dict()}}, path)
    monkeypatch.setitem(PUBLISHED, NAME, replace(PUBLISHED[NAME], git_id=git_object_id(path)))
    return path


def test_every_entry_is_one_file_of_the_repository():
    assert {"zeroflow-1x", "zeroflow-5x", "zeroflow-waymo", "fastflow3d-1x"} <= PUBLISHED.keys()
    assert all(re.fullmatch("[0-9a-f]{40}", one.git_id) for one in PUBLISHED.values())
    assert len({one.git_id for one in PUBLISHED.values()}) == len({one.url for one in PUBLISHED.values()})
    assert len({one.url for one in PUBLISHED.values()}) == len(PUBLISHED)
    assert PUBLISHED["fastflow3d-1x"].url == (
        "https://github.com/kylevedder/zeroflow_weights/raw/ed7b241bd2e33249de329f5c304c105fc17955db"
        "/argo/supervised/supervised.ckpt"
    )
    for name, one in PUBLISHED.items():
        assert name == one.name and one.path.startswith("waymo/" if "waymo" in name else "argo/")
        assert name.startswith("fastflow3d") == ("supervised" in one.path)


@pytest.mark.parametrize("size", [0, 9, 1 << 20, 2_345_678])
def test_a_git_object_id_is_what_git_says(tmp_path, size):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(250)) * (size // 250) + b"\r\n" * (size % 250 // 2))
    said = subprocess.run(
        ["git", "hash-object", "--no-filters", path], capture_output=True, text=True, check=True, timeout=60
    )
    assert git_object_id(path) == said.stdout.strip()


@pytest.mark.parametrize(
    "variables, folder",
    [
        ({"ZEROFLOW_CACHE": "/own", "XDG_CACHE_HOME": "/shared"}, "/own"),
        ({"ZEROFLOW_CACHE": "~/own"}, "/someone/own"),
        ({"ZEROFLOW_CACHE": "", "XDG_CACHE_HOME": "/shared"}, "/shared/zeroflow"),
        ({"XDG_CACHE_HOME": "relative"}, "/someone/.cache/zeroflow"),
        ({}, "/someone/.cache/zeroflow"),
    ],
)
def test_where_downloaded_ones_are_kept(monkeypatch, variables, folder):
    for name in ("ZEROFLOW_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/someone", **variables}.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(folder)


def test_nobody_without_a_home_folder_gets_a_traceback(monkeypatch):
    def homeless(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    for name in ("ZEROFLOW_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ZeroFlowError, match="set ZEROFLOW_CACHE to a folder"):
        cache_folder()


def test_a_downloaded_one_loads_by_its_name(downloaded):
    model, metadata = load_model(NAME)
    assert model.config == SMALL
    assert (metadata["name"], metadata["ground"], metadata["interval_s"]) == (NAME, "map", 0.1)
    assert checkpoint_file(NAME) == downloaded


@pytest.mark.parametrize(
    "alter",
    [
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: content[:5000] + bytes([content[5000] ^ 1]) + content[5001:],
        lambda content: b"",
    ],
    ids=["cut", "longer", "one bit", "empty"],
)
def test_one_that_was_altered_is_not_loaded(downloaded, alter):
    downloaded.write_bytes(alter(downloaded.read_bytes()))
    sentence = f"{downloaded} is not the published {NAME}: .* run: zeroflow download {NAME} --force"
    with pytest.raises(ZeroFlowError, match=sentence):
        load_model(NAME)


def test_one_that_is_not_here_says_which_command_gets_it(downloaded):
    downloaded.unlink()
    with pytest.raises(ZeroFlowError, match=f"not in {downloaded.parent} yet; run: zeroflow download {NAME}$"):
        load_model(NAME)


def test_one_that_cannot_be_read(downloaded, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "git_object_id", refuse)
    with pytest.raises(ZeroFlowError, match=f"cannot read {downloaded}: Permission denied"):
        downloaded_file(NAME)


def test_the_name_of_the_weights_that_come_along():
    assert checkpoint_file("default") == DEFAULT_CHECKPOINT and "default" in NAMES


def test_a_name_that_does_not_exist_is_answered_with_those_that_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ZeroFlowError, match="zeroflow-xl: no such file; .* one of: default, .*zeroflow-1x, .*waymo"):
        load_model("zeroflow-xl")
    with pytest.raises(ZeroFlowError, match="'zeroflow-xl'; there are: zeroflow-1x, "):
        downloaded_file("zeroflow-xl")
    with pytest.raises(ZeroFlowError, match=r"a\.ckpt: no such file; give the path of a .ckpt or .safetensors file$"):
        load_model("a.ckpt")


def test_a_path_is_told_from_a_name_by_its_folder(downloaded, monkeypatch):
    monkeypatch.chdir(downloaded.parent)
    assert checkpoint_file(f"./{NAME}.ckpt") == Path(f"{NAME}.ckpt")
    assert checkpoint_file(Path(NAME)) == downloaded
