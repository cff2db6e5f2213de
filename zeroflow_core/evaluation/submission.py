"""Archives for the servers of the AV2 scene flow challenges: every fifth pair of a split, one file each.

2023: ``<log>/<stamp>.feather`` with flow_tx_m, flow_ty_m, flow_tz_m (float16: total flow, ego motion included) and
is_dynamic (bool), rows for the points of the mask only: |x|, |y| ≤ 50 m and not ground by av2's rule. The fifths are
counted through the whole split, as av2's data loader goes (package av2.evaluation.scene_flow).

2024: ``metadata.json`` and ``<log>/<number of the pair>.feather`` in the layout of datasets/stored_flow.py. The
fifths are counted in each log anew (SceneFlowZoo's av2_scene_flow_competition_submit.py).
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable
from contextlib import redirect_stdout
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np

from zeroflow_core.datasets.av2 import FLOW, Log
from zeroflow_core.datasets.stored_flow import read_stored_flow, write_stored_flow, write_whole_table
from zeroflow_core.errors import ZeroFlowError, some
from zeroflow_core.evaluation.av2_2023 import RANGE_M
from zeroflow_core.evaluation.truth import Estimate, is_dynamic, total_flow
from zeroflow_core.files import new_file
from zeroflow_core.geometry import SE3
from zeroflow_core.pairs import Sweep

YEARS = (2023, 2024)
EVERY = 5  # pairs

_Names = dict[tuple[str, int], str]  # log and number of the pair → its file in the folder and in the archive


class Submission:
    """A folder of flow files that becomes an archive when all are there.

    Files are written one by one, each complete or not at all, so that a run can go on where one was killed.

    year:       2023 or 2024
    folder:     where the files go
    logs:       the folders of all logs of the split
    masks:      2023: the official archive of masks, ``<log>/<stamp>.feather`` with one bool a point, which says what
                pairs and points are wanted. Without it both follow from the rule, and the masks so made go beside the
                folder. The server needs the official ones: av2 computes in float32, and a point on the border of
                the rule can be in by one and out by the other (1 of 99,229 points of a real sweep).
    supervised: 2024: the method learned from AV2's labels; is said in the archive

    Raises:
        ZeroFlowError: another year; masks that are damaged or not of these logs; a folder that is no log; no pair.
    """

    def __init__(
        self, year: int, folder: Path, logs: list[Path], *, masks: Path | None = None, supervised: bool = False
    ) -> None:
        if year not in YEARS:
            raise ZeroFlowError(f"there is no submission of {year}; choose one of: {', '.join(map(str, YEARS))}")
        if masks is not None and year != 2023:
            raise ZeroFlowError(f"a submission of {year} has no masks: leave {masks} out, or make that of 2023")
        self._year = year
        self._folder = folder
        self._masks = masks
        self._supervised = supervised
        in_order = sorted((Log(path) for path in logs), key=lambda log: log.log_id)  # as av2's loader has them
        self._logs = {log.log_id: log.path for log in in_order}
        if year == 2024:
            self._names = _every_fifth_of_each_log(in_order)
        elif masks is None:
            self._names = _every_fifth_of_the_split(in_order)
        else:
            self._names = _pairs_of_masks(masks, in_order)
        if not self._names:
            raise ZeroFlowError(f"there is nothing to submit: {len(logs)} logs, and no pair of sweeps that is wanted")

    def wants(self, log_id: str, i: int) -> bool:
        """Whether the pair of sweeps `i` and `i` + 1 is in the submission."""
        return (log_id, i) in self._names

    def has(self, log: Log, i: int) -> bool:
        """Whether a wanted pair is written already."""
        return self._is_there(self._names[log.log_id, i])

    def add(self, log: Log, i: int, sweep: Sweep, ego0_SE3_ego1: SE3, estimate: Estimate) -> None:
        """Write a wanted pair.

        sweep:         sweep `i` of the log, with its pose
        ego0_SE3_ego1: maps the second sweep's vehicle frame into the first's
        estimate:      for all points of the sweep

        Raises:
            ZeroFlowError: 2023: a log without a map to tell the ground by, or a mask for another number of points;
                or the file system refuses.
        """
        name = self._names[log.log_id, i]
        if self._year == 2024:
            write_stored_flow(self._folder / name, estimate.residual, estimate.covered)
            return
        if self._masks is None:
            mask = _mask_by_rule(log, sweep)
            write_whole_table(self._mask_folder / name, {"mask": mask})
        else:
            mask = _mask_of_archive(self._masks, name, len(sweep))
        flow = total_flow(sweep.points, estimate.residual, ego0_SE3_ego1)[mask].astype(np.float16)
        columns = {column: flow[:, axis] for axis, column in enumerate(FLOW)}
        write_whole_table(self._folder / name, {**columns, "is_dynamic": is_dynamic(estimate.residual)[mask]})

    def finish(self, archive: Path) -> Path:
        """Check all files and pack them into `archive`, over one that is there. Returns its path.

        Raises:
            ZeroFlowError: files are missing, damaged, or not for their sweep; or the file system refuses.
        """
        missing = [name for name in self._names.values() if not self._is_there(name)]
        if missing:
            raise ZeroFlowError(
                f"the submission in {self._folder} is not complete, {len(missing)} of {len(self._names)} files are "
                f"missing: {some(missing)}; run the evaluation of the whole split again, it goes on where it stopped"
            )
        unusable = [name for key, name in self._names.items() if not self._is_usable(*key, name)]
        if unusable:
            raise ZeroFlowError(
                f"{len(unusable)} of {len(self._names)} files of the submission in {self._folder} are damaged, or not "
                f"for their sweep: {some(unusable)}; remove them and run the evaluation again"
            )
        if self._year == 2024:
            self._pack_2024(archive)
        else:
            self._pack_2023(archive)
        return archive

    @property
    def _mask_folder(self) -> Path | None:
        """Where masks made by the rule go, one file a pair; None where there is no need of them."""
        by_rule = self._year == 2023 and self._masks is None
        return self._folder.with_name(self._folder.name + "-masks") if by_rule else None

    def _files(self, name: str) -> list[Path]:
        return [folder / name for folder in (self._folder, self._mask_folder) if folder is not None]

    def _is_there(self, name: str) -> bool:
        return all(file.is_file() for file in self._files(name))

    def _is_usable(self, log_id: str, i: int, name: str) -> bool:
        """Whether the files of a pair can be read and, in 2024, are for its sweep; in 2023 av2 checks that."""
        num_points = len(Log(self._logs[log_id]).sweep(i)) if self._year == 2024 else None
        try:
            for file in self._files(name):
                if num_points is None:
                    _read_feather(file)
                else:
                    read_stored_flow(file, num_points)
        except (ZeroFlowError, *_unreadable()):
            return False
        return True

    def _pack_2024(self, archive: Path) -> None:
        metadata = json.dumps({"Is Supervised?": self._supervised}, indent=4)
        with new_file(archive, "wb") as file:
            _pack(file, self._folder, self._names.values(), {"metadata.json": metadata})

    def _pack_2023(self, archive: Path) -> None:
        """With av2's own check and packer."""
        from av2.evaluation.scene_flow import make_submission_archive as av2

        masks = self._masks
        if self._mask_folder is not None:
            masks = self._mask_folder.with_name(self._mask_folder.name + ".zip")
            with new_file(masks, "wb") as file:
                _pack(file, self._mask_folder, self._names.values())
        with redirect_stdout(io.StringIO()):  # both draw a progress bar
            try:
                av2.validate(self._folder, masks)
            except (OSError, ValueError, zipfile.BadZipFile) as error:
                raise ZeroFlowError(
                    f"av2's check refuses the submission in {self._folder}: {error}; remove what it names and run the "
                    "evaluation again"
                ) from error
            with new_file(archive, "wb") as file:
                av2.zip(self._folder, masks, file)


def _every_fifth_of_each_log(logs: list[Log]) -> _Names:
    return {(log.log_id, i): f"{log.log_id}/{i:010d}.feather" for log in logs for i in range(0, len(log) - 1, EVERY)}


def _every_fifth_of_the_split(logs: list[Log]) -> _Names:
    return dict(islice(_pairs_by_stamp(logs).items(), 0, None, EVERY))


def _pairs_of_masks(masks: Path, logs: list[Log]) -> _Names:
    """In the order of the archive, which is that of av2's packer."""
    try:
        with zipfile.ZipFile(masks) as packed:
            names = [name for name in packed.namelist() if name.endswith(".feather")]
    except (OSError, zipfile.BadZipFile) as error:
        raise ZeroFlowError(f"{masks} is no archive of masks ({error}); get it again") from error
    keys = {name: key for key, name in _pairs_by_stamp(logs).items()}
    unknown = [name for name in names if name not in keys]
    if unknown:
        raise ZeroFlowError(
            f"{len(unknown)} of {len(names)} masks in {masks} are of no pair of these logs: {some(unknown)}; they are "
            "of another split, or logs are missing here"
        )
    return {keys[name]: name for name in names}


def _pairs_by_stamp(logs: list[Log]) -> _Names:
    """All pairs of all logs, in their order."""
    return {
        (log.log_id, i): f"{log.log_id}/{stamp}.feather" for log in logs for i, stamp in enumerate(log.stamps_ns[:-1])
    }


def _mask_by_rule(log: Log, sweep: Sweep) -> np.ndarray:
    """(N,) bool"""
    raster = log.map_ground()
    if raster is None:
        raise ZeroFlowError(
            f"the log {log.path} has no map/ with ground heights, by which a submission of 2023 leaves the ground "
            "out; get the log's map, or give the official masks"
        )
    return (np.abs(sweep.points[:, :2]) <= RANGE_M).all(axis=1) & ~raster.as_av2()(sweep)


def _mask_of_archive(masks: Path, name: str, num_points: int) -> np.ndarray:
    """(N,) bool"""
    try:
        with zipfile.ZipFile(masks) as packed:
            table = _read_feather(io.BytesIO(packed.read(name)))
    except (KeyError, zipfile.BadZipFile, *_unreadable()) as error:
        raise ZeroFlowError(f"the mask {name} in {masks} is damaged ({error}); get the archive again") from error
    if table.num_columns != 1 or str(table.schema.types[0]) != "bool" or table.num_rows != num_points:
        columns = ", ".join(f"{field.name} {field.type}" for field in table.schema)
        raise ZeroFlowError(
            f"the mask {name} in {masks} should be one column of bool for {num_points} points, and has {columns} "
            f"for {table.num_rows}; it was made for another sweep: get the masks of this split"
        )
    return table.column(0).to_numpy()


def _read_feather(file: Path | io.BytesIO):
    """The pyarrow table, whole and valid; raises one of _unreadable."""
    from pyarrow import feather

    table = feather.read_table(file, memory_map=False)
    table.validate(full=True)
    return table


def _unreadable() -> tuple[type[Exception], ...]:
    import pyarrow as pa

    return OSError, pa.ArrowException


def _pack(archive: IO[bytes], folder: Path, names: Iterable[str], texts: dict[str, str] | None = None) -> None:
    """A zip of `texts` and of the files `names` in `folder`: equal contents give equal bytes."""
    with zipfile.ZipFile(archive, "w") as packed:
        for name, text in (texts or {}).items():
            packed.writestr(_entry(name), text)
        for name in names:
            packed.writestr(_entry(name), (folder / name).read_bytes())


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)  # dated 1980, whenever the file was written
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry
