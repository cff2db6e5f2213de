"""Trains on what training_cases wrote, in a process of its own: python train_driver.py ROOT OUT SECONDS WORKERS.

Prints a line for every step, and at the end a digest of what the student has learned."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from training_cases import TINY, quick

from zeroflow_core.datasets.pseudo_labels import label_folders
from zeroflow_core.distillation import fitting
from zeroflow_core.distillation.prepared import Source
from zeroflow_core.distillation.training import TrainSettings, train
from zeroflow_core.fastflow3d.config import SIZES


def main(root: Path, out: Path, saved_every_s: float, workers: int) -> None:
    fitting._SAVED_EVERY_S = saved_every_s
    fitting._tensorboard = lambda folder, step: None
    SIZES["tiny"] = TINY
    logs = tuple(sorted((root / "logs" / "sensor" / "train").iterdir()))
    source = Source(logs, label_folders(root / "labels", "train", "nsfp"), "none")
    recipe = quick(epochs=8, batch=2, patience=None)
    settings = TrainSettings((source,), out, "tiny", recipe, "cpu", seed=4, workers=workers, held_back=0.2)
    run = fitting.Fit.run

    def run_and_tell(self: fitting.Fit) -> None:
        run(self)
        content = b"".join(weight.detach().numpy().tobytes() for weight in self._task.student.parameters())
        print(f"digest {self._team.rank} {hashlib.sha256(content).hexdigest()}\n", end="", flush=True)

    fitting.Fit.run = run_and_tell
    train(settings, lambda now: print(f"{now.step} {now.note}\n", end="", flush=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
