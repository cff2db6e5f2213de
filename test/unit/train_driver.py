"""Trainings in processes of their own, on what training_cases wrote: python train_driver.py PLAN ROOT FOLDER.

PLAN is `whole`: one training into FOLDER, alone or as one of torchrun's; `killed`: one into FOLDER/whole, and one into
FOLDER/killed that is killed five times; or `halved`: two processes train into FOLDER, are killed together and start
again, and then one tries to go on alone. Each training is a fork, as it takes seconds to start Python anew.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from training_cases import TINY, quick

from zeroflow_core.datasets.pseudo_labels import label_folders
from zeroflow_core.distillation.training import fitting
from zeroflow_core.distillation.training.prepared import Source
from zeroflow_core.distillation.training.train import TrainSettings, train
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.fastflow3d.config import SIZES

KILLS = 5
Tell = Callable[[int], None]


def learn(root: Path, out: Path, saved_every_s: float, workers: int, on_step: Tell) -> None:
    """48 steps in eight epochs. Prints every validation, and at the end a digest of what the student has learned."""
    fitting._SAVED_EVERY_S = saved_every_s
    fitting.open_board = lambda folder, step: None
    SIZES["tiny"] = TINY
    logs = tuple(sorted((root / "logs" / "sensor" / "train").iterdir()))
    source = Source(logs, label_folders(root / "labels", "train", "nsfp"), "none")
    recipe = quick(epochs=8, batch=2, patience=None)
    settings = TrainSettings((source,), out, "tiny", recipe, "cpu", seed=4, workers=workers, held_back=0.2)
    run = fitting.Fit.run

    def run_and_tell(self: fitting.Fit) -> None:
        run(self)
        content = b"".join(weight.detach().numpy().tobytes() for weight in self._task.student.parameters())
        say(f"digest {self._team.rank} {hashlib.sha256(content).hexdigest()}")

    def tell(now: fitting.TrainProgress) -> None:
        if now.note:
            say(f"{now.note} {now.step}")
        on_step(now.step)

    fitting.Fit.run = run_and_tell
    train(settings, tell)


def say(line: str) -> None:
    print(f"{line}\n", end="", flush=True)  # in one piece, whoever else says something


def start(*arguments: object, **environment: object) -> tuple[int, int]:
    """A training in a fork: its process id, and a pipe with a byte for each step."""
    there, here = os.pipe()
    process = os.fork()
    if process:
        os.close(here)
        return process, there
    os.environ.update({name: str(value) for name, value in environment.items()})
    try:
        learn(*arguments, lambda step: os.write(here, b"."))
        os._exit(0)
    except ZeroFlowError as error:
        say(f"refused: {error}")
        os._exit(1)
    finally:
        os._exit(2)


def wait(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def killed(root: Path, folder: Path) -> None:
    assert wait(start(root, folder / "whole", 60, 0)[0]) == 0
    chance = random.Random(7)
    for _ in range(KILLS):
        process, steps = start(root, folder / "killed", 0.02, 1)
        for _ in range(chance.randint(1, 6)):
            assert os.read(steps, 1), "it ended before it was killed"
        time.sleep(chance.uniform(0, 0.05))
        os.kill(process, signal.SIGKILL)
        assert wait(process) == -signal.SIGKILL
        os.close(steps)
    assert wait(start(root, folder / "killed", 60, 0)[0]) == 0


def halved(root: Path, out: Path) -> None:
    first = team(root, out)
    for _ in range(20):
        assert os.read(first[0][1], 1), "it ended before it was killed"
    for process, _ in first:
        os.kill(process, signal.SIGKILL)
    assert [wait(process) for process, _ in first] == [-signal.SIGKILL] * 2
    assert [wait(process) for process, _ in team(root, out)] == [0, 0]
    assert wait(start(root, out, 60, 0)[0]) == 1


def team(root: Path, out: Path) -> list[tuple[int, int]]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    where = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "WORLD_SIZE": 2}
    return [start(root, out, 0.0, 0, RANK=rank, LOCAL_RANK=rank, **where) for rank in range(2)]


if __name__ == "__main__":
    plan, *paths = sys.argv[1:]
    if plan == "whole":
        learn(*map(Path, paths), 60, 0, lambda step: None)
    else:
        {"killed": killed, "halved": halved}[plan](*map(Path, paths))
