"""Figures of the runs that one names: what they lost, at which rates they were trained, which classes they confuse.

Each command writes NAME.pdf and NAME.png into results/figures, named after the run.
"""

import hashlib
from typing import TYPE_CHECKING, Callable

from ulmfit.errors import UsageError, UserError

from . import archive

if TYPE_CHECKING:
    from pathlib import Path

    from .archive import Archive, Run

_TRAINED = "a run of pretrain_lm, finetune_lm or train_clas has"


def _named(command: str, runs: tuple[str, ...], results_dir: str | None) -> "tuple[Archive, list[Run]]":
    """The archive and the runs that were typed, each once. Raises UsageError without any, UserError for an unknown
    one."""
    if not runs:
        raise UsageError(f"{command} draws one run or more, none is given; `python -m analysis runs` lists what there "
                         f"is")
    every = archive.load(results_dir)
    return every, list({found.id: found for found in map(every.get, runs)}.values())


def _deliver(command: str, every: "Archive", found: "list[Run]", draw: "Callable[[Path, str], list[Path]]") -> None:
    """Draws under the run's name, of several under a digest of their names, and says what does not stand."""
    from . import study

    name = found[0].id
    if len(found) > 1:
        digest = hashlib.sha256("\n".join(run.id for run in found).encode()).hexdigest()[:8]
        name = f"{len(found)}runs-{digest}"
    print(study.said(draw(every.folder / "figures", f"{command}-{name}")))
    for run in found:
        if problem := every.problem(run):
            print(f"{run.id}: its numbers do not stand: {problem}")


def curves(*runs: str, results_dir: str | None = None) -> None:
    """Draws training and validation loss after each epoch, a panel a run.

    Example: python -m analysis curves trec6--finetune_lm--fwd--word--default--all--s0 \\
                 trec6--train_clas--fwd--word--default--all--s0

    Reads metrics.jsonl of runs of pretrain_lm, finetune_lm and train_clas, also while they train. Writes
    results/figures/curves-RUN.pdf and .png.
    """
    from . import figures

    every, found = _named("curves", runs, results_dir)
    for run in found:
        if not run.epochs():
            raise UserError(f"{run.id} has no epoch in metrics.jsonl; {_TRAINED}")
    _deliver("curves", every, found, lambda folder, name: figures.training_curves({run.id: run for run in found},
                                                                                  folder, name))


def schedule(*runs: str, results_dir: str | None = None) -> None:
    """Draws the learning rate of each layer group at each update, as it was run, a panel a run.

    Example: python -m analysis schedule trec6--train_clas--fwd--word--default--all--s0

    Reads steps.csv.gz of runs of pretrain_lm, finetune_lm and train_clas; a group has no line while it is frozen.
    Writes results/figures/schedule-RUN.pdf and .png.
    """
    from . import figures

    every, found = _named("schedule", runs, results_dir)
    read = {run.id: figures.learning_rates(run) for run in found}
    _deliver("schedule", every, found, lambda folder, name: figures.schedules(read, folder, name))


def confusion(run: str, results_dir: str | None = None) -> None:
    """Draws which classes a run takes for which others, in % of the true class.

    Example: python -m analysis confusion trec6--eval_clas--fwd--word--default--all--s0--test

    Reads predictions.csv of a run of train_clas (val), eval_clas, train_baseline or ensemble. Writes
    results/figures/confusion-RUN.pdf and .png.
    """
    from . import figures
    from .outcomes import Outcomes

    every, [found] = _named("confusion", (run,), results_dir)
    if not (found.folder / "predictions.csv").is_file():
        raise UserError(f"{found.id} has no predictions.csv; a run of train_clas, eval_clas, train_baseline or "
                        f"ensemble has")
    counts, classes = Outcomes().confusion(found.folder)
    _deliver("confusion", every, [found], lambda folder, name: figures.confusion(
        counts, classes, folder, name, f"{found.id}, {found.record.get('split')}"))
