"""Everything at once: every table and figure of the paper, and the report."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from ulmfit import names

from . import commands, figures, tables
from .archive import Run
from .comparison import Block, Entry, entry_of
from .paper_rows import alike
from .published import DATASETS, TABLES
from .rendering import PAPER_ONLY, dataset_title
from .settings import Result
from .study import Product, Study, block_titles

_ULMFIT = TABLES["table7"].reference.name
# Rows of Table 7 that a figure shows, as far as there are runs of them; ULMFiT itself comes first.
_EPOCHS = ("full", "from scratch")
_SCHEDULES = ("full", "chain-thaw", "freez + cos", "from scratch")


@dataclass
class Section:
    """A table with its figures: (path of the png, what it shows)."""

    product: Product
    images: list[tuple[Path, str]] = field(default_factory=list)


def sections(found: Study, folder: Path, by: str | None = None) -> list[Section]:
    """Makes every table, and every figure in `folder`; first that of the user's own sweep, by the flags in `by`."""
    made, dataset = [], found.dataset
    if by is not None:
        product, blocks = tables.ablation(found, by, dataset)
        drawn = commands.draw_blocks(product, blocks, folder)
        made.append(Section(product, _images(drawn, f"{product.title}: bars")))
    for make in (tables.tables2_3, *(lambda study, of, name=name: tables.paper_table(study, name, dataset=of)
                                     for name in TABLES), tables.bidirectional, tables.subword):
        product, blocks = make(found, dataset)
        drawn = commands.draw_blocks(product, blocks, folder)
        made.append(Section(product, _images(drawn, f"{product.title}: bars")))
        if product.name == "table7":
            made[-1].images += _training_figures(found, blocks, folder)
    product, curves = tables.low_shot(found, dataset)
    drawn = [path for each in curves for path in commands.draw_low_shot(product, each.dataset, folder)]
    made.append(Section(product, _images(drawn, product.title)))
    made.append(Section(tables.ensembles(found, dataset)))
    made.append(Section(tables.agreement(found, dataset)))
    return made


def _images(paths: list[Path], what: str) -> list[tuple[Path, str]]:
    return [(path, f"{what}, {path.stem}") for path in paths if path.suffix == ".png"]


def _training_figures(found: Study, blocks: list[Block], folder: Path) -> list[tuple[Path, str]]:
    """For each dataset: errors by epoch, learning rates, losses and the confusion matrix.

    Of full ULMFiT in the first table that has it, other rows beside it; of a dataset without, the best classifier.
    """
    images, seen = [], set()
    alone = _best_classifiers(found)
    for block, title in [*zip(blocks, block_titles(blocks)), *zip(alone, block_titles(alone))]:
        reference = _reference(block)
        if block.dataset in seen or not reference.wrong["val"]:
            continue
        seen.add(block.dataset)
        rows = {entry.name: _runs(found, entry, "val") for entry in block.entries}
        name, [first, *_] = block.dataset, rows[reference.name]
        behind = found.archive.parent(first, "language_model")
        losses = {f"{title}, classifier": first} | ({f"{title}, language model": behind} if behind else {})
        rates = {f"{title}, {row}": figures.learning_rates(runs[0])
                 for row, runs in {reference.name: [first], **rows}.items()
                 if row in (reference.name, *_SCHEDULES) and runs and (runs[0].folder / "steps.csv.gz").is_file()}
        of = "full ULMFiT" if reference.name == _ULMFIT else first.id
        for what, paths in (
                ("validation error by epoch, mean and range over seeds", draw_epochs(block, title, folder)),
                ("learning rates as they were run", figures.schedules(rates, folder, f"schedules-{name}")),
                (f"training and validation loss of {of}", figures.training_curves(losses, folder, f"losses-{name}")),
                (f"confusion matrix of {of}", _confusion(found, reference, folder, f"confusion-{name}", title))):
            images += [(path, f"{title}: {what}") for path in paths if path.suffix == ".png"]
    return images


def _best_classifiers(found: Study) -> list[Block]:
    """A table of one row for each dataset: of the classifiers on all labels the one with the lowest validation error,
    all seeds of it, one that reads words forward where there is one."""
    by_dataset: dict[str, list[Result]] = {}
    for result in found.results:
        if (result.run.stage == "train_clas" and "n_labels" not in result.setting
                and found.dataset in (None, result.dataset) and result.run.metric("error") is not None):
            by_dataset.setdefault(result.dataset, []).append(result)

    def rank(results: list[Result]) -> tuple:
        setting = results[0].setting
        return (bool(setting.get("backwards")), bool(setting.get("bpe")),
                np.mean([result.run.metric("error") for result in results]))

    made = []
    for dataset, results in sorted(by_dataset.items()):
        best = min(alike(results), key=rank)
        name = best[0].run.id.split(names.SEPARATOR)[4]  # DATASET--train_clas--fwd--word--NAME--...
        made.append(Block("best", dataset, [entry_of(name, best, found.outcomes, reference=True)],
                          candidates={name: best}, corpus=best[0].corpus))
    return made


def _reference(block: Block) -> Entry:
    return next(entry for entry in block.entries if entry.reference)


def draw_epochs(block: Block, title: str, folder: Path, part: str = "") -> list[Path]:
    """Figure 4: full fine-tuning and ULMFiT epoch by epoch, those runs that were not stopped early where there are.

    part: what a file of some of the runs has behind its name.
    """
    rows = {}
    for name in (_reference(block).name, *_EPOCHS):
        groups = alike(block.candidates.get(name, []))
        if groups:
            chosen = min(groups, key=lambda results: (bool(results[0].setting.get("early_stopping")), -len(results)))
            stopped = " (early stopping)" if chosen[0].setting.get("early_stopping") else ""
            rows[name + stopped] = [result.run for result in chosen]
    return figures.errors_by_epoch(rows, folder, f"epochs{part}-{block.dataset}", title)


def _runs(found: Study, entry: Entry, split: str) -> list[Run]:
    return [found.archive.get(run) for run in entry.runs[split].values()]


def _confusion(found: Study, entry: Entry, folder: Path, name: str, title: str) -> list[Path]:
    """Summed over the row's seeds, on test where it was run."""
    split = "test" if entry.runs["test"] else "val"
    read = [found.outcomes.confusion(run.folder) for run in _runs(found, entry, split)]
    return figures.confusion(sum(counts for counts, _ in read), read[0][1], folder, name, f"{title}, {split}")


def missing_rows(found: Section, only: str | None) -> list[str]:
    """`IMDb: full, last` for the rows of a table without runs, `AG: no run` for datasets of the paper's Tables 4 to 7
    without, of all corpora or one alone."""
    frame, lines = found.product.frame, []
    name = found.product.name
    if "n_seeds" not in frame:
        return lines
    # Those that were measured on one split alone are not missing.
    row = ["dataset", "corpus", "constant", "row"]
    measured = frame.groupby(row, sort=False)["n_seeds"].transform("sum")
    absent = frame[(measured == 0) & (frame["note"] != PAPER_ONLY)].drop_duplicates(row)
    for (dataset, corpus, constant), part in absent.groupby(["dataset", "corpus", "constant"], sort=False):
        labels = part["n_labels"].iloc[0]
        of_subset = ("" if pd.isna(labels) else f", {int(labels):,} labels" if pd.api.types.is_number(labels)
                     else f", subset {labels}")
        lines.append(f"{dataset_title(dataset, corpus)}{of_subset}: {', '.join(part['row'])}")
    if name not in TABLES:
        return lines
    without = [dataset for dataset in TABLES[name].reference.errors
               if only in (None, dataset) and dataset not in set(frame["corpus"])]
    return lines + [f"{DATASETS[dataset]}: no run" for dataset in without]
