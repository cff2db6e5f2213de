"""What a folder of labels holds: the record of every pair, and manifest.json made from them.

Records lie in ``<out>/journal/<shard>/<log>.jsonl``, and each shard writes only its own, so that several processes, on
several machines, may share `out`. The manifest is made anew from all of them by each shard that ends.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from zeroflow_core.datasets.pseudo_labels import PseudoLabels
from zeroflow_core.errors import ZeroFlowError, differences
from zeroflow_core.evaluation import zeroflow_paper
from zeroflow_core.evaluation.journal import Journal, Record
from zeroflow_core.evaluation.tally import Tally, add, mean
from zeroflow_core.files import locked, new_file, remove_unfinished, writing_to
from zeroflow_core.version import VERSION

MANIFEST = "manifest.json"
_JOURNAL = "journal"
_EDITION = 1  # to be raised whenever the same configuration gives other labels
_PATIENCE_S = 120.0  # for another shard that writes the manifest


class LabelFolder:
    """`out` as seen by one shard.

    Raises:
        ZeroFlowError: here and from every method: a file is damaged or in the way, or the file system refuses.
    """

    def __init__(self, out: Path, labels: PseudoLabels, shard: tuple[int, int]) -> None:
        self.out, self.labels = out, labels
        self._journals = out / _JOURNAL
        self._shards = shard[1]
        self._own = self._journals / f"{shard[0]}-of-{shard[1]}"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold this shard against other processes meanwhile. Its folders are made where they are missing.

        Raises:
            ZeroFlowError: another process does this shard now, or one of another number of shards: it would have some
                of the same pairs.
        """
        if self.out.exists() and not self.out.is_dir():
            raise ZeroFlowError(f"{self.out} is a file; give the folder to write to")
        with writing_to(self.out):
            for folder in (self._own, self.labels.forward, self.labels.reverse):
                if folder is not None:
                    folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            with self._alone():  # nobody else looks whether this shard is held, or another, meanwhile
                self._check_others()
                try:
                    stack.enter_context(locked(self._own))
                except BlockingIOError as error:
                    raise ZeroFlowError(
                        f"another process is labelling into {self.out}; wait for it, choose another --out, or give "
                        "each process a --shard of its own"
                    ) from error
            yield

    def _check_others(self) -> None:
        for folder in self._journals.iterdir():
            number = folder.name.partition("-of-")[2]
            if number == str(self._shards):
                continue
            try:
                with locked(folder):
                    pass
            except BlockingIOError as error:
                raise ZeroFlowError(
                    f"another process is labelling into {self.out} as one of {number}, not of {self._shards}; wait "
                    f"for it, or give --shard i/{number}"
                ) from error

    def claim(self, configuration: dict[str, Any], logs: dict[str, dict[str, Any]]) -> None:
        """Say in the manifest what `out` holds labels of, or compare with what it says.

        configuration: plain data that tells these labels from any others
        logs:          by their id: path, number of sweeps, and of pairs to label

        Raises:
            ZeroFlowError: `out` holds other labels.
        """
        here = _plain({"edition": _EDITION, **configuration})
        with self._alone():
            there = self._read()
            if there is None:
                if any(self.labels.forward.iterdir()):
                    raise ZeroFlowError(
                        f"{self.labels.forward} holds labels, but {self.out} has no {MANIFEST} that says which; choose "
                        "another --out"
                    )
                there = {"configuration": here, "logs": {}}
            if there["configuration"] != here:
                why = differences(there["configuration"], here)
                raise ZeroFlowError(f"{self.out} holds other labels ({why}); choose another --out, or remove it")
            for name, log in logs.items():
                before = there["logs"].get(name, log)["sweeps"]
                if before != log["sweeps"]:
                    raise ZeroFlowError(
                        f"{self.out} holds labels of another log {name}, of {before} sweeps, not {log['sweeps']} as in "
                        f"{log['path']}; choose another --out, or remove it"
                    )
                log["pairs"] = max(log["pairs"], there["logs"].get(name, log)["pairs"])
            there["logs"] |= {name: there["logs"].get(name, {}) | log for name, log in logs.items()}
            self._write(there)

    def append(self, record: Record) -> None:
        Journal(self._own / f"{record['log']}.jsonl").append(record)

    def finished(self, log_id: str, stamps_ns: np.ndarray) -> set[int]:
        """Indices of the log's pairs that are done: their files are there, or nothing can be said of them."""
        folders = [self.labels.forward, *filter(None, [self.labels.reverse])]
        there = [{file.name for file in (folder / log_id).glob("*.feather")} for folder in folders]

        def is_there(record: Record) -> bool:
            i = record["index"]
            return all(f"{stamps_ns[i + k]}.feather" in names for k, names in enumerate(there))

        return {
            record["index"]
            for record in self._records(log_id).values()
            if "error" not in record and ("problem" in record or is_there(record))
        }

    def failed(self, log_id: str) -> set[int]:
        """Indices of the log's pairs that have only ever failed."""
        return {record["index"] for record in self._records(log_id).values() if "error" in record}

    def remove_unfinished(self, log_id: str, stamps_ns: list[tuple[int, int]]) -> None:
        """Remove what killed writers left of the files of a log's pairs; `stamps_ns` has those of both sweeps."""
        for k, folder in enumerate(filter(None, (self.labels.forward, self.labels.reverse))):
            if any((folder / log_id).glob(".*")):
                remove_unfinished(folder / log_id, [f"{stamps[k]}.feather" for stamps in stamps_ns])

    def summarise(self, teacher: str) -> dict[str, Any]:
        """Write the manifest from all records that are there; returned as it is in the file.

        teacher: in one line
        """
        with self._alone():
            manifest = self._read() or {"configuration": {}, "logs": {}}
            manifest |= {"teacher": teacher, **self._summary(manifest["logs"])}
            self._write(manifest)
        return manifest

    def _summary(self, logs: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """Also fills in how many pairs of each of `logs` have labels."""
        sums = {"loss": 0.0, "iterations": 0.0, "points": 0.0}
        seconds = 0.0
        failed, without = [], []
        errors: dict[str, Tally] = {}
        for name, log in logs.items():
            log["labelled"], records = 0, self._records(name).values()
            log["pairs"] = max(log["pairs"], len(records))
            for record in records:
                seconds += record["seconds"]
                pair = {key: record[key] for key in ("log", "index")}
                if "error" in record:
                    failed.append(pair | {"error": record["error"]})
                elif "problem" in record:
                    without.append(pair | {"problem": record["problem"]})
                else:
                    log["labelled"] += 1
                    for key in sums:
                        sums[key] += record[key] or 0.0
                    for direction, tally in record["errors"].items():
                        add(errors.setdefault(direction, {}), tally)
        pairs, labelled = (sum(log[key] for log in logs.values()) for key in ("pairs", "labelled"))
        return {
            "counts": {"pairs": pairs, "labelled": labelled, "without_estimate": len(without), "failed": len(failed)},
            "complete": labelled + len(without) == pairs,
            "mean": {key: mean(total, labelled) for key, total in sums.items()},
            "seconds_per_pair": mean(seconds, labelled),
            "device_hours": seconds / 3600,
            "errors": {direction: zeroflow_paper.figures(tally) for direction, tally in errors.items()},
            "failed": failed,
            "without_estimate": without,
            "versions": _versions(),
        }

    def _records(self, log_id: str) -> dict[int, Record]:
        """The record of each pair, of whatever shard; one that did not fail, where there is one."""
        records: dict[int, Record] = {}
        for shard in sorted(self._journals.iterdir()):
            for record in Journal(shard / f"{log_id}.jsonl").records():
                if record["index"] not in records or "error" in records[record["index"]]:
                    records[record["index"]] = record
        return dict(sorted(records.items()))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the manifest against other shards meanwhile."""
        deadline = time.monotonic() + _PATIENCE_S
        with ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(locked(self._journals))
                    break
                except BlockingIOError as error:
                    if time.monotonic() > deadline:
                        raise ZeroFlowError(f"another process holds {self.out}; wait for it or stop it") from error
                    time.sleep(0.05)
            remove_unfinished(self.out, [MANIFEST])
            yield

    def _read(self) -> dict[str, Any] | None:
        path = self.out / MANIFEST
        if not path.exists():
            return None
        try:
            manifest = dict(json.loads(path.read_text()))
            _ = dict(manifest["configuration"]), [log["sweeps"] + log["pairs"] for log in manifest["logs"].values()]
            return manifest
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ZeroFlowError(f"{path} is damaged; choose another --out, or remove {self.out}") from error

    def _write(self, manifest: dict[str, Any]) -> None:
        with new_file(self.out / MANIFEST, "w") as file:
            file.write(json.dumps(manifest, indent=1) + "\n")


def _versions() -> dict[str, str]:
    import torch

    return {"zeroflow": VERSION, "torch": torch.__version__, "numpy": np.__version__}


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    """As a file gives it back, where no tuples are."""
    return json.loads(json.dumps(data))
