"""`loader`: how many samples one process loads for a training, from logs and labels and from prepared pairs."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from zeroflow_core.bench.machine import described
from zeroflow_core.errors import ZeroFlowError

if TYPE_CHECKING:
    from zeroflow_core.datasets.pseudo_labels import PseudoLabels
    from zeroflow_core.distillation.pairs import PairRef


def loader(
    data: Annotated[Path, typer.Option(help="Logs in AV2's layout; the first pairs of each are taken.")],
    pairs: Annotated[int, typer.Option(min=1, help="Pairs, at most.")] = 20,
    repeats: Annotated[int, typer.Option(min=1, help="Times that each is loaded.")] = 5,
    ground: Annotated[str, typer.Option(help="map (Patchwork++ where there is none), patchwork or none.")] = "map",
) -> None:
    """Measure how fast one process loads samples for a training, in one thread.

    "logs and labels" is what a pair costs that was never prepared: two sweeps, their ground, two files of labels. The
    other rows read prepared pairs. Labels of zero flow are made for the purpose.

    Example: python -m zeroflow_core.bench loader --data logs
    """
    import torch

    from zeroflow_core.datasets.av2 import find_logs
    from zeroflow_core.distillation.pairs import choose_pairs
    from zeroflow_core.distillation.training.batches import Samples, Visit
    from zeroflow_core.distillation.training.prepared import PreparedPairs, Source
    from zeroflow_core.distillation.training.recipes import RECIPES, recipe
    from zeroflow_core.fastflow3d.config import ONE_X

    torch.set_num_threads(1)
    logs = find_logs(data)
    refs = choose_pairs(logs)[:pairs]
    with tempfile.TemporaryDirectory() as scratch:
        labels = _labels_of_zero(refs, Path(scratch) / "labels")
        source = Source(tuple(logs), labels, ground)
        fresh = PreparedPairs(source, refs, ONE_X, None)
        kept = PreparedPairs(source, refs, ONE_X, Path(scratch) / "prepared")
        for k in range(len(kept)):
            _ = kept[k]
        ways: dict[str, Callable[[int], object]] = {
            "logs and labels": fresh.__getitem__,
            "prepared pairs": kept.__getitem__,
        }
        for name in RECIPES:
            samples = Samples([kept], recipe(name), ONE_X, seed=0)
            ways[f"prepared, recipe {name}"] = lambda k, samples=samples: samples[Visit(0, k, False, 0, k)]
        milliseconds = {name: [] for name in ways}
        for _ in range(repeats):  # in turns, so that all meet the same machine
            for name, load in ways.items():
                milliseconds[name] += _timed(load, len(refs))
        size = sum(file.stat().st_size for file in (Path(scratch) / "prepared").rglob("*.safetensors")) / len(refs)
        label_size = sum(file.stat().st_size for file in (Path(scratch) / "labels").rglob("*.feather")) / len(refs)
    _show(milliseconds, len(refs), size, label_size)


def _timed(load: Callable[[int], object], count: int) -> Iterator[float]:
    for k in range(count):
        start = time.perf_counter()
        load(k)
        yield (time.perf_counter() - start) * 1e3


def _labels_of_zero(refs: list[PairRef], folder: Path) -> PseudoLabels:
    from zeroflow_core.datasets.av2 import Log
    from zeroflow_core.datasets.pseudo_labels import label_folders
    from zeroflow_core.datasets.stored_flow import write_stored_flow

    labels = label_folders(folder, "bench", "nsfp")
    for ref in refs:
        log = Log(ref.log)
        for k, where in ((ref.index, labels.forward), (ref.index + 1, labels.reverse)):
            points = log.sweep(k).points
            valid = np.isfinite(points).all(axis=1)
            write_stored_flow(where / log.log_id / f"{log.stamps_ns[k]}.feather", np.zeros_like(points), valid)
    return labels


def _show(milliseconds: dict[str, list[float]], pairs: int, size: float, label_size: float) -> None:
    if not pairs:
        raise ZeroFlowError("there are no pairs to load")
    table = Table(title=f"one process, one thread, {pairs} pairs; a prepared pair has {size / 1e6:.2f} MB")
    for heading in ("from", "ms, median", "ms, p90", "samples/s"):
        table.add_column(heading, justify="left" if heading == "from" else "right")
    sizes = {"bytes": round(size), "label_bytes": round(label_size)}
    line = {"bench": "loader", **described("cpu"), "pairs": pairs, **sizes}
    for name, values in milliseconds.items():
        median, p90 = float(np.median(values)), float(np.percentile(values, 90))
        table.add_row(name, f"{median:.1f}", f"{p90:.1f}", f"{1e3 / median:.0f}")
        line[name] = {"ms": round(median, 2), "p90_ms": round(p90, 2)}
    console = Console()
    console.print(table)
    console.print(json.dumps(line), soft_wrap=True, highlight=False, markup=False)
