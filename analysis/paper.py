"""Everything at once: every table and figure of the paper, and the report."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from . import commands, figures, tables
from .archive import Run
from .comparison import Block, Entry
from .paper_rows import alike
from .published import DATASETS, TABLES
from .rendering import dataset_title
from .study import Product, Study, block_title

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
    made.append(Section(tables.agreement(found, dataset)))
    return made


def _images(paths: list[Path], what: str) -> list[tuple[Path, str]]:
    return [(path, f"{what}, {path.stem}") for path in paths if path.suffix == ".png"]


def _training_figures(found: Study, blocks: list[Block], folder: Path) -> list[tuple[Path, str]]:
    """For the first table of each dataset: errors by epoch, learning rates, losses and the confusion matrix."""
    images, seen = [], set()
    for block in blocks:
        if block.dataset in seen:
            continue
        seen.add(block.dataset)
        rows = {entry.name: _runs(found, entry) for entry in block.entries}
        reference = TABLES["table7"].reference.name
        if not rows.get(reference):
            continue
        title, name = block_title(block), block.dataset

        def chosen(wanted: tuple[str, ...]) -> dict[str, list[Run]]:
            return {row: rows[row] for row in (reference, *wanted) if rows[row]}

        first = rows[reference][0]
        behind = found.archive.parent(first, "language_model")
        losses = {f"{title}, classifier": first} | ({f"{title}, language model": behind} if behind else {})
        rates = {f"{title}, {row}": figures.learning_rates(runs[0]) for row, runs in chosen(_SCHEDULES).items()
                 if (runs[0].folder / "steps.csv.gz").is_file()}
        for what, paths in (
                ("validation error by epoch", draw_epochs(block, folder)),
                ("learning rates as they were run", figures.schedules(rates, folder, f"schedules-{name}")),
                ("training and validation loss", figures.training_curves(losses, folder, f"losses-{name}")),
                ("confusion matrix of full ULMFiT", _confusion(found, block, folder, f"confusion-{name}", title))):
            images += [(path, f"{title}: {what}") for path in paths if path.suffix == ".png"]
    return images


def draw_epochs(block: Block, folder: Path) -> list[Path]:
    """Figure 4: full fine-tuning and ULMFiT epoch by epoch, those runs that were not stopped early where there are."""
    rows = {}
    for name in (TABLES["table7"].reference.name, *_EPOCHS):
        groups = alike(block.candidates.get(name, []))
        if groups:
            chosen = min(groups, key=lambda results: (bool(results[0].setting.get("early_stopping")), -len(results)))
            stopped = " (early stopping)" if chosen[0].setting.get("early_stopping") else ""
            rows[name + stopped] = [result.run for result in chosen]
    return figures.errors_by_epoch(rows, folder, f"epochs-{block.dataset}", block_title(block))


def _runs(found: Study, entry: Entry) -> list[Run]:
    return [found.archive.get(run) for run in entry.runs["val"].values()]


def _confusion(found: Study, block: Block, folder: Path, name: str, title: str) -> list[Path]:
    """Of the reference row, summed over its seeds, on test where it was run."""
    entry = next(entry for entry in block.entries if entry.reference)
    split = "test" if entry.runs["test"] else "val"
    counts, classes = None, []
    for run in entry.runs[split].values():
        _, probabilities, classes = found.outcomes.probabilities(found.archive.get(run).folder)
        labels = found.outcomes.label_indices(entry.documents[split], classes, found.archive.get(run).folder)
        own = np.zeros((len(classes), len(classes)), dtype=int)
        np.add.at(own, (labels, probabilities.argmax(axis=1)), 1)
        counts = own if counts is None else counts + own
    return figures.confusion(counts, classes, folder, name, f"{title}, {split}")


def missing_rows(found: Section, only: str | None) -> list[str]:
    """`IMDb: full, last` for the rows of a table without runs, `AG: no run` for the paper's datasets without, of all
    datasets or one alone."""
    frame, lines = found.product.frame, []
    name = found.product.name
    if name not in TABLES:
        return lines
    for (dataset, constant), part in frame[frame["split"] == "val"].groupby(["dataset", "constant"], sort=False):
        rows = list(part.loc[part["n_seeds"] == 0, "row"])
        if rows:
            lines.append(f"{dataset_title(dataset)}: {', '.join(rows)}")
    without = [dataset for dataset in TABLES[name].reference.errors
               if only in (None, dataset) and dataset not in set(frame["dataset"])]
    return lines + [f"{DATASETS[dataset]}: no run" for dataset in without]
