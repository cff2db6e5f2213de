"""Make weights from a recipe: simulate, label, train, and tell of them on a model card.

    python -m zeroflow_core.distillation.make_weights config/distill/default.json --out out/default

The same command again goes on where it was stopped. OUT/default-seed-1/ gets student.safetensors (fp16),
card.md and recipe.json; OUT/data/ the simulated logs with their labels, which all seeds share, and all recipes that
differ in the student or the training alone.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from zeroflow_core.distillation.making.make import make, pack
from zeroflow_core.distillation.making.parts import check_size
from zeroflow_core.distillation.making.plan import Recorded, read_plan
from zeroflow_core.distillation.making.settings import MakeSettings
from zeroflow_core.distillation.making.telling import Stage
from zeroflow_core.distillation.sources import LogSource
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.files import writing_to

_LINE_EVERY_S = 60.0  # where there is no terminal


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 1 after a user's mistake, told in one sentence on stderr, 130 after Ctrl-C."""
    options = _options(arguments)
    console = Console(stderr=True)
    try:
        _run(options, console)
    except ZeroFlowError as error:
        console.print(Text(str(error), style="red"), soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("Stopped; the same command goes on from here.")
        return 130
    return 0


def _run(options: argparse.Namespace, console: Console) -> None:
    plan = read_plan(options.recipe)
    if options.seed is not None:
        plan = plan.with_seed(options.seed)
    plan = plan.with_recorded(tuple(map(_recorded, options.data)))
    settings = MakeSettings(
        plan,
        options.out,
        truth=options.truth,
        table=_text(options.table),
        device=options.device,
        jobs=options.jobs,
        minutes=options.minutes,
        from_parts=options.from_parts,
    )
    if options.parts is not None:  # before the work, not after
        check_size(plan.student)
        _check_folder(options.parts)
    columns = TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(), TextColumn("{task.fields[note]}")
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        made = make(settings, _Shown(bar), lambda line: bar.console.print(line, soft_wrap=True, highlight=False))
    if made.stopped:
        print(f"{options.minutes:g} minutes are over, in the stage {made.stopped}; the same command goes on there.")
    else:
        print(f"{made.student}, with {made.card.name} beside it")
    if options.parts is not None:
        if made.stopped and not settings.checkpoint.exists():
            print("There is no training yet to take along, so no parts were written.")
        elif made.student is not None:
            print(f"The training is complete: {made.student} is all there is to take along, so no parts were written.")
        else:
            paths = pack(settings, options.parts)
            megabytes = sum(path.stat().st_size for path in paths) / 1e6
            print(f"{options.parts}: {len(paths)} files, {megabytes:.1f} MB; elsewhere, go on with --from-parts.")


class _Shown:
    """Stages on a bar, one after the other; where there is no terminal, a line a minute at most."""

    def __init__(self, bar: Progress) -> None:
        self._bar, self._task = bar, bar.add_task("", total=None, note="")
        self._name, self._last_line = "", monotonic()

    def __call__(self, stage: Stage) -> None:
        if stage.name != self._name:
            self._name = stage.name
            self._bar.reset(self._task, total=stage.total, completed=stage.done, description=stage.name)
        self._bar.update(self._task, total=stage.total, completed=stage.done, note=stage.note)
        if self._bar.disable and monotonic() - self._last_line > _LINE_EVERY_S:
            self._last_line = monotonic()
            of = "" if stage.total is None else f" of {stage.total:,}"
            print(f"{stage.name}: {stage.done:,}{of}, {stage.note}", file=sys.stderr, flush=True)


def _recorded(text: str) -> Recorded:
    root, _, split = text.rpartition(":") if ":" in text and not Path(text).is_dir() else (text, "", "train")
    return Recorded(LogSource(data=Path(root), split=split))


def _check_folder(path: Path) -> None:
    with writing_to(path):
        path.mkdir(parents=True, exist_ok=True)


def _text(path: Path | None) -> str | None:
    try:
        return None if path is None else path.read_text(encoding="utf-8")
    except OSError as error:
        raise ZeroFlowError(f"cannot read {path}: {error.strerror or error}") from error


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m zeroflow_core.distillation.make_weights",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("recipe", type=Path, help="a file such as config/distill/default.json")
    add("--out", type=Path, required=True, help="folder for everything")
    add("--seed", type=int, help="of the training, in place of the recipe's: the same data, another student")
    add("--truth", action="store_true", help="learn from the simulation's truth: the upper bound, not to ship")
    add("--data", metavar="ROOT[:SPLIT]", action="append", default=[], help="learn from these sweeps, too, unlabelled")
    add("--table", type=Path, help="Markdown of `python -m zeroflow_core.bench weights`, for the card")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:n")
    add("--jobs", type=int, help="processes that simulate and label; else one a core or a GPU")
    add("--minutes", type=float, help="stop then, whatever is being done; the same command goes on")
    add("--parts", type=Path, help="folder for what it takes to go on elsewhere, in files of at most 16 MiB")
    add("--from-parts", type=Path, help="go on from there")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
