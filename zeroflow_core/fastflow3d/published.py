"""The checkpoints that ZeroFlow's authors publish: what they are called here, where they are, where copies are kept.

https://github.com/kylevedder/zeroflow_weights, whose README says which are the official ones; what each learned from
is in the configurations of https://github.com/kylevedder/zeroflow. Left out: those of parts of the data (0.01x to
0.5x), of fewer epochs, and DeFlow's, which is another network. No XL checkpoint is published.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from zeroflow_core.errors import ZeroFlowError

COMMIT = "ed7b241bd2e33249de329f5c304c105fc17955db"
REPOSITORY = "https://github.com/kylevedder/zeroflow_weights"
_CACHE = "ZEROFLOW_CACHE"
_BLOCK = 1 << 20  # bytes read at a time


@dataclass(frozen=True)
class Published:
    """A published FastFlow3D 1x checkpoint.

    name:    what it is called here
    path:    in the repository, at COMMIT
    git_id:  of the file's content there (see `git_object_id`), by which any copy of it is recognised
    dataset: whose sweeps it learned from
    about:   what it learned, in some words
    """

    name: str
    path: str
    git_id: str
    dataset: str
    about: str

    @property
    def url(self) -> str:
        return f"{REPOSITORY}/raw/{COMMIT}/{self.path}"

    @property
    def file_name(self) -> str:
        return f"{self.name}.ckpt"


def _argo(name: str, path: str, git_id: str, about: str) -> Published:
    return Published(name, f"argo/{path}.ckpt", git_id, "Argoverse 2", about)


def _waymo(name: str, path: str, git_id: str, about: str) -> Published:
    return Published(name, f"waymo/{path}.ckpt", git_id, "Waymo Open", about)


_SCALED = "nsfp_distilatation_speed_scaled_updated"
_TABLE = (
    _argo(
        "zeroflow-1x",
        f"{_SCALED}/{_SCALED}",
        "e6c5a8cc45d95736bb06337971948212339a58c8",
        "ZeroFlow 1x, the paper's: NSFP's flow on Sensor",
    ),
    _argo(
        "zeroflow-1x-run2",
        f"{_SCALED}_run2/{_SCALED}_run2",
        "9a3b0f9b00fee7b4b5526dd8a642049e1e061960",
        "ZeroFlow 1x, trained a second time",
    ),
    _argo(
        "zeroflow-1x-run3",
        f"{_SCALED}_run3/{_SCALED}_run3",
        "d5df65485df744eb84878fb9f086b16ead56f0b4",
        "ZeroFlow 1x, trained a third time",
    ),
    _argo(
        "zeroflow-3x",
        "nsfp_distilatation_3x/nsfp_distilatation_3x_49_epochs",
        "47904caa0b1437a1e3ad911ea08bee9bd7f67220",
        "ZeroFlow 3x: NSFP's flow on Sensor and a subset of Lidar",
    ),
    _argo(
        "zeroflow-3x-100-epochs",
        "nsfp_distilatation_3x_100_epochs/nsfp_distilatation_3x_100_epochs",
        "713ab8f1488b92a2b6ba3e7c7ae7b380b23a809a",
        "ZeroFlow 3x, trained twice as long",
    ),
    _argo(
        "zeroflow-5x",
        "nsfp_distilatation_5x/nsfp_distilatation_5x",
        "851b8b34339dafa8387219e65eaccd49af5be794",
        "ZeroFlow 5x: Sensor and two subsets of Lidar",
    ),
    _argo(
        "zeroflow-1x-diverse",
        "nsfp_distillation_diverse_1x/nsfp_distillation_diverse_1x",
        "f0aed5e7ce502d656af3b27d63fadd51ce70aa61",
        "NSFP's flow on half a subset of Lidar, without Sensor",
    ),
    _argo(
        "zeroflow-2x-diverse",
        "nsfp_distillation_diverse_2x/nsfp_distillation_diverse_2x",
        "cabee2af2252d731cbeefe54e26fc60bba59cb14",
        "NSFP's flow on a subset of Lidar, without Sensor",
    ),
    _argo(
        "zeroflow-1x-chodosh",
        "chodosh_distilatation/chodosh_distilatation",
        "9be2d702a0e944bb3245c48aafefdc6483cb47e1",
        "Chodosh's flow in place of NSFP's, on Sensor",
    ),
    _argo(
        "chamfer-1x",
        "chamfer/checkpoint_epoch=049_step=0000078750_epoch_end",
        "9b9bc48d1bfc9c14fa03a158c99e94bdf1c6ed7d",
        "no teacher: the distance between the clouds, on Sensor",
    ),
    _argo(
        "fastflow3d-1x",
        "supervised/supervised",
        "00dfe871ec2083b18d8fc687168c3302f04983b7",
        "FastFlow3D, the paper's: human labels of Sensor",
    ),
    _argo(
        "fastflow3d-1x-run2",
        "supervised_run2/supervised_run2",
        "df4990006c140de7552f7077a2cf9a3aed421494",
        "FastFlow3D, trained a second time",
    ),
    _argo(
        "fastflow3d-1x-run3",
        "supervised_run3/supervised_run3",
        "70c0bc8942aea2245ab89795e6ae1a3e7077009f",
        "FastFlow3D, trained a third time",
    ),
    _waymo(
        "zeroflow-waymo",
        "nsfp_distilatation_scaled/nsfp_distilatation_scaled",
        "a974a24386b126b35ea46f1a2da30ac105a2b774",
        "ZeroFlow, the paper's: NSFP's flow",
    ),
    _waymo(
        "fastflow3d-waymo",
        "supervised/supervised",
        "b95221adcc6b1e7c7dd366779208aa759ed98cc7",
        "FastFlow3D, the paper's: human labels",
    ),
)
PUBLISHED = {published.name: published for published in _TABLE}


def published_named(name: str) -> Published:
    """
    Raises:
        ZeroFlowError: there is none of that name.
    """
    if name not in PUBLISHED:
        raise ZeroFlowError(f"no published checkpoint is called '{name}'; there are: {', '.join(PUBLISHED)}")
    return PUBLISHED[name]


def cache_folder() -> Path:
    """Where downloaded checkpoints are kept: $ZEROFLOW_CACHE, else $XDG_CACHE_HOME/zeroflow, else ~/.cache/zeroflow.

    Raises:
        ZeroFlowError: there is no home folder.
    """
    try:
        if own := os.environ.get(_CACHE):
            return Path(own).expanduser().absolute()
        shared = os.environ.get("XDG_CACHE_HOME", "")
        # By the XDG specification a relative path there is invalid and to be ignored.
        return (Path(shared) if os.path.isabs(shared) else Path("~/.cache").expanduser()) / "zeroflow"
    except RuntimeError as error:
        raise ZeroFlowError(f"there is no home folder to keep checkpoints in; set {_CACHE} to a folder") from error


def downloaded_file(name: str) -> Path:
    """The published checkpoint of that name where `zeroflow download` has put it, found to be unaltered.

    Raises:
        ZeroFlowError: no such name, not downloaded yet, or not the published file.
    """
    published = published_named(name)
    path = cache_folder() / published.file_name
    if not path.is_file():
        raise ZeroFlowError(f"checkpoint {name}: not in {path.parent} yet; run: zeroflow download {name}")
    check_content(path, published)
    return path


def check_content(path: Path, published: Published) -> None:
    """
    Raises:
        ZeroFlowError: the file is not the published one, to the last bit, or cannot be read.
    """
    try:
        found = git_object_id(path)
    except OSError as error:
        raise ZeroFlowError(f"cannot read {path}: {error.strerror or error}") from error
    if found != published.git_id:
        raise ZeroFlowError(
            f"{path} is not the published {published.name}: its content was altered (git object {found[:12]}, "
            f"not {published.git_id[:12]}); run: zeroflow download {published.name} --force"
        )


def git_object_id(path: Path) -> str:
    """What git calls a file of that content: 40 hexadecimal digits that depend on its length and on every bit.

    A commit of a repository says this id of each of its files, so that it is known without having the file.
    """
    with open(path, "rb") as file:
        digest = hashlib.sha1(b"blob %d\0" % os.fstat(file.fileno()).st_size, usedforsecurity=False)
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
