"""The training loop, for any task: steps, moving average, curves, validation, checkpoints, several processes.

What it does depends on the task, the recipe and the seed alone, so that a run which was killed goes on from its last
checkpoint and makes the losses it would have made.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from zeroflow_core.devices import is_out_of_memory
from zeroflow_core.distillation.training.batches import Batches
from zeroflow_core.distillation.training.curves import (
    CURVE,
    CURVES,
    TENSORBOARD,
    VALIDATION,
    append_row,
    cut_rows,
    open_board,
)
from zeroflow_core.distillation.training.interrupts import interrupted_later
from zeroflow_core.distillation.training.processes import Processes
from zeroflow_core.distillation.training.recipes import Recipe
from zeroflow_core.distillation.training.state import Progress, load_state, save_state
from zeroflow_core.distillation.training.task import Task, Weights
from zeroflow_core.errors import ZeroFlowError

LAST, BEST = "last.ckpt", "best.ckpt"
_ROWS = 400  # of the curves, about, however long a training is
_SAVED_EVERY_S = 60.0


@dataclass(frozen=True)
class TrainProgress:
    """epoch, step: made so far, of `epochs` and `steps` at most; loss: lately; wait_share: of the time, spent waiting
    for data; note: what is being done, if it is no step"""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float | None
    wait_share: float
    note: str = ""


class Average:
    """The moving average of a student's weights, which is steadier than the student."""

    def __init__(self, student: nn.Module, decay: float | None) -> None:
        self._student, self._decay = student, decay
        self.weights: Weights = {name: value.detach().clone() for name, value in student.state_dict().items()}

    def update(self, step: int) -> None:
        """After step number `step`, from 1. Early averages look back less far."""
        decay = 0.0 if self._decay is None else min(self._decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in self._student.state_dict().items():
                if value.is_floating_point() and decay:
                    self.weights[name].lerp_(value, 1 - decay)
                else:
                    self.weights[name].copy_(value)


class Fit:
    """One training, in a folder.

    micro_batch: samples that a process takes at a time, where a whole batch does not fit into its memory; None for all
    workers:     processes that load samples; 0 loads them in this one
    """

    def __init__(
        self,
        task: Task,
        recipe: Recipe,
        metadata: dict[str, Any],
        out: Path,
        team: Processes,
        *,
        workers: int,
        micro_batch: int | None,
        on_progress: Callable[[TrainProgress], None],
    ) -> None:
        self._task, self._recipe, self._metadata, self._out, self._team = task, recipe, metadata, out, team
        self._batches = Batches(task.order, recipe.batch, team.rank, team.world)
        if len(self._batches) == 0:
            raise ZeroFlowError(f"{len(task.order)} samples are too few for {team.world} processes; take fewer")
        self._steps = len(self._batches) * recipe.epochs
        self._row_every = max(self._steps // _ROWS, 1)
        self._workers = workers
        self._micro_batch = micro_batch or self._batches.batch
        self._show = on_progress
        self._module = self._as_team(task.student)
        self._optimiser = torch.optim.Adam(task.parameter_groups(), lr=recipe.learning_rate)
        self._average = Average(task.student, recipe.ema)
        self.progress = Progress()
        self._shown: deque[float] = deque(maxlen=50)
        self._saved, self._saved_step = time.monotonic(), 0
        self._whole = True  # student, optimiser, average and progress belong together
        self._board: Any = None

    def _as_team(self, student: nn.Module) -> nn.Module:
        if self._team.world == 1:
            return student
        on_gpu = torch.device(self._team.device).type == "cuda"
        if on_gpu:  # on a CPU there is no batch norm over several processes: each has statistics of its own
            student = nn.SyncBatchNorm.convert_sync_batchnorm(student)
        return DistributedDataParallel(student, device_ids=[self._team.device] if on_gpu else None)

    def run(self) -> None:
        """Train until the recipe's end, or until it stops getting better; from where the folder's last checkpoint is.

        What ends it before, such as Ctrl-C or whoever is told of the progress, loses no step that was made.

        Raises:
            ZeroFlowError: the folder holds another training, memory ran out, the loss is no number any more, or the
                file system refuses.
        """
        self._resume()
        self._board = open_board(self._out / TENSORBOARD, self.progress.step) if self._team.first else None
        try:
            with self._kept(), self._loader() as batches_of:
                while not self._is_over():
                    with self._advice():
                        self._epoch(batches_of(self.progress.epoch, self.progress.batch))
                        self._end_epoch()
        finally:
            if self._board is not None:
                with suppress(OSError):  # of a full disk, which has been told of where it matters
                    self._board.close()

    def _is_over(self) -> bool:
        patience = self._recipe.patience
        stopped = patience is not None and self.progress.unimproved >= patience
        return stopped or self.progress.epoch >= self._recipe.epochs

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """What was learned inside, however the block ends, unless in the middle of a step."""
        try:
            yield
        except BaseException:
            if self._whole and self.progress.step > self._saved_step:
                self._save()
            raise

    @contextmanager
    def _at_once(self) -> Iterator[None]:
        """Around changes that are kept together or not at all."""
        with interrupted_later():
            self._whole = False
            yield
            self._whole = True

    @contextmanager
    def _loader(self) -> Iterator[Callable[[int, int], Iterable]]:
        """Gives the batches of an epoch from a number on, the next ones being loaded meanwhile."""
        how: dict[str, Any] = {}
        if self._workers:
            how = {"prefetch_factor": 4, "persistent_workers": True, "worker_init_fn": _one_thread}
        loader = DataLoader(
            self._task.samples,
            batch_sampler=self._batches,
            num_workers=self._workers,
            collate_fn=_Collate(self._task),
            **how,
        )

        def batches_of(epoch: int, start: int) -> Iterable:
            self._batches.epoch, self._batches.start = epoch, start
            return loader

        yield batches_of

    def _epoch(self, batches: Iterable) -> None:
        progress, mark = self.progress, time.perf_counter()
        self._module.train()
        for batch in batches:
            if isinstance(batch, ZeroFlowError):  # of a process that loads, where raising it would tell a traceback
                raise batch
            waited = time.perf_counter() - mark
            with self._at_once():
                loss = self._step(batch)
                progress.step += 1
                progress.batch += 1
                progress.recent.append(loss)
                self._shown.append(loss)
                now = time.perf_counter()
                progress.seconds += now - mark
                progress.waited += waited
                mark = now
                if progress.step % self._row_every == 0:
                    self._add_row()
            self._tell()
            if time.monotonic() - self._saved > _SAVED_EVERY_S:
                self._save()
                mark = time.perf_counter()

    def _step(self, batch: list) -> float:
        """One step of the optimiser; gives the loss of a sample of this process's part of the batch, on average."""
        recipe, done = self._recipe, self.progress.step / self._steps
        for group in self._optimiser.param_groups:
            group["lr"] = recipe.learning_rate * group["rate"] * recipe.rate(done + 0.5 / self._steps)
        self._optimiser.zero_grad(set_to_none=True)
        total = 0.0
        parts = [batch[k : k + self._micro_batch] for k in range(0, len(batch), self._micro_batch)]
        for number, part in enumerate(parts, start=1):
            alone = self._team.world > 1 and number < len(parts)
            with self._module.no_sync() if alone else nullcontext():
                loss = self._task.loss(self._module(part), part, done)
                (loss if recipe.batch_sum else loss / len(batch)).backward()
            total += float(loss.detach())
        most = math.inf if recipe.clip is None else recipe.clip
        norm = float(torch.nn.utils.clip_grad_norm_(self._task.student.parameters(), most))
        if not math.isfinite(total + norm):
            what = f"loss is {total}" if not math.isfinite(total) else f"norm of the gradients is {norm}"
            raise ZeroFlowError(
                f"the {what} at step {self.progress.step + 1}; take a smaller learning rate than "
                f"{recipe.learning_rate} (--learning-rate), and remove {self._out / LAST} if it goes on like that"
            )
        self._optimiser.step()
        self._task.after_step()
        self._average.update(self.progress.step + 1)
        return total / len(batch)

    @contextmanager
    def _advice(self) -> Iterator[None]:
        """In place of what torch says when memory runs out, here or in a process that loads."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if "DataLoader worker" in str(error):
                raise ZeroFlowError(
                    f"a process that loads samples ended ({_first_line(error)}), perhaps because memory ran out; run "
                    "the same again with fewer --workers (0 loads in this process)"
                ) from error
            if not is_out_of_memory(error):
                raise
            each = min(self._micro_batch, self._batches.batch // self._team.world)
            smaller = f"--micro-batch {max(each // 2, 1)}: a batch is then learned in parts"
            raise ZeroFlowError(
                f"memory ran out on {self._team.device} with {each} samples at a time; try "
                f"{smaller if each > 1 else 'a smaller student'}"
            ) from error

    def _add_row(self) -> None:
        progress = self.progress
        row = {
            "step": progress.step,
            "epoch": progress.epoch,
            "loss": sum(progress.recent) / len(progress.recent),
            "learning_rate": self._optimiser.param_groups[0]["lr"],
            "wait_share": self._wait_share(),
            "seconds": progress.seconds,
        }
        progress.recent = []
        if self._team.first:
            append_row(self._out / CURVES, CURVE, row)
            self._write_board({name: row[name] for name in ("loss", "learning_rate", "wait_share")})

    def _wait_share(self) -> float:
        return self.progress.waited / self.progress.seconds if self.progress.seconds else 0.0

    def _tell(self, note: str = "") -> None:
        progress, recipe = self.progress, self._recipe
        if self._team.first:
            loss = sum(self._shown) / len(self._shown) if self._shown else None
            share = self._wait_share()
            self._show(TrainProgress(progress.epoch, recipe.epochs, progress.step, self._steps, loss, share, note))

    def _end_epoch(self) -> None:
        """Validate, and keep the student if it is the best so far. Only the first process does; the others wait."""
        figures: dict[str, float | None] = {}
        if self._team.first:
            self._tell("validating")
            figures = self._task.validate(self._average.weights)
        with self._at_once():
            if self._team.first:
                self._judge(figures)
            if self._team.world > 1:
                shared = [vars(self.progress)]
                torch.distributed.broadcast_object_list(shared, src=0)
                self.progress = Progress(**shared[0])
        self._save()

    def _judge(self, figures: dict[str, float | None]) -> None:
        progress, score = self.progress, self._task.score(figures)
        progress.epoch, progress.batch = progress.epoch + 1, 0
        if score < progress.best or not math.isfinite(progress.best):  # without any score the last one is the best
            progress.best, progress.figures, progress.unimproved = score, figures, 0
            save_state(self._out / BEST, self._average.weights, self._metadata, progress)
        else:
            progress.unimproved += 1
        row = {"epoch": progress.epoch, "step": progress.step, **figures}
        append_row(self._out / VALIDATION, tuple(row), row)
        self._write_board({name: value for name, value in figures.items() if value is not None})

    def _save(self) -> None:
        self._saved, self._saved_step = time.monotonic(), self.progress.step
        if not self._team.first:
            return
        training = {
            "student": self._task.student.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "average": self._average.weights,
            "identity": self._identity(),
        }
        save_state(self._out / LAST, self._average.weights, self._metadata, self.progress, training)

    def _identity(self) -> dict[str, Any]:
        return {**self._task.identity, "processes": self._team.world}

    def _resume(self) -> None:
        path = self._out / LAST
        if path.exists():
            states, self.progress = load_state(path, self._identity())
            self._task.student.load_state_dict(states["student"])
            self._optimiser.load_state_dict(states["optimiser"])
            for name, value in self._average.weights.items():
                value.copy_(states["average"][name])
            self._saved_step = self.progress.step
        if self._team.first:
            cut_rows(self._out / CURVES, "step", self.progress.step)
            cut_rows(self._out / VALIDATION, "epoch", self.progress.epoch)

    def _write_board(self, figures: dict[str, float]) -> None:
        if self._board is None:
            return
        try:
            for name, value in figures.items():
                self._board.add_scalar(name, value, self.progress.step)
        except OSError as error:
            raise ZeroFlowError(f"cannot write {self._out / TENSORBOARD}: {error.strerror or error}") from error


class _Collate:
    """A batch from samples; or the mistake, where one of them is one."""

    def __init__(self, task: Task) -> None:
        self._collate = task.collate

    def __call__(self, samples: list) -> Any:
        mistake = next((sample for sample in samples if isinstance(sample, ZeroFlowError)), None)
        return self._collate(samples) if mistake is None else mistake


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)  # of a process that loads; the others have the other cores

