"""What every table starts from, and what a table is before it is written."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Sequence

import pandas as pd
from ulmfit import files, names

from . import archive, rendering, settings
from .archive import Archive, Run
from .comparison import Block, correct_together, frame_of
from .outcomes import Outcomes
from .rendering import Grid
from .settings import Result


@dataclass
class Study:
    """The runs of a results folder, the results that stand, those that do not with why, and what they predicted.

    dataset, match: the dataset, and a part of the id, of the runs that a report was asked for; None: all of them.
    """

    archive: Archive
    results: list[Result]
    broken: list[tuple[Result, str]]
    outcomes: Outcomes = field(default_factory=Outcomes)
    dataset: str | None = None
    match: str | None = None

    def concerns(self, run: Run) -> bool:
        """Whether a run is one of those chosen."""
        return self.dataset in (None, run.dataset) and (self.match is None or self.match in run.id)

    def left_out(self) -> list[str]:
        """What stands in no table, though it is there: records that cannot be read, classifiers of which nobody knows
        what they were made from."""
        unknown = [result for result in self.results if result.unknown]
        said = [f"in no row of the paper's tables, as there is no record of what they were made from: {len(unknown)} "
                f"classifiers, as {unknown[0].run.id} from {unknown[0].unknown[0]}"] if unknown else []
        return [*self.archive.unreadable, *said]

    @property
    def tables(self) -> Path:
        return self.archive.folder / "tables"

    @property
    def figures(self) -> Path:
        return self.archive.folder / "figures"


def load(results_dir: str | Path | None) -> Study:
    """Raises UserError when the folder is not there, or two runs cannot be told apart."""
    runs = archive.load(results_dir)
    return Study(runs, *settings.results(runs))


@dataclass
class Product:
    """A table in every form. frame: a line a row and split. notes: below all of it. frames: of each block its lines."""

    name: str
    title: str
    frame: pd.DataFrame
    grids: list[Grid]
    notes: list[str] = field(default_factory=list)
    frames: list[pd.DataFrame] = field(default_factory=list)

    def markdown(self, level: int = 1) -> str:
        parts = [f"{'#' * level} {rendering.markdown_escape(self.title)}\n",
                 *(rendering.markdown(shown, level + 1) for shown in self.grids),
                 *(rendering.markdown_escape(note) + "\n" for note in self.notes)]
        return "\n".join(parts)

    def plain(self) -> str:
        """For a terminal: without what stays constant, which the files have."""
        return "\n".join([self.title, *map(rendering.plain, self.grids), *self.notes])

    def write(self, folder: Path, dataset: str | None = None) -> list[Path]:
        """Writes NAME.md, NAME.csv and NAME.tex, of one dataset alone NAME-DATASET.*. Returns their paths."""
        stem = self.name + (f"-{dataset}" if dataset else "")
        texts = {"md": self.markdown(), "csv": self.frame.to_csv(index=False, float_format="%.6g", lineterminator="\n"),
                 "tex": rendering.latex(self.grids, self.title, self.notes)}
        paths = [folder / f"{stem}.{ending}" for ending in texts]
        for path, text in zip(paths, texts.values()):
            files.write_text(path, text)
        return paths


def product(name: str, title: str, blocks: Sequence[Block], titles: Sequence[str] | None = None,
            notes: Sequence[str] = (), empty: str = "no run of it is there", together: str | None = None) -> Product:
    """The table of some blocks. titles: one a block; without them `block_titles`. together: what the blocks of a
    dataset are, whose p-values are then corrected together."""
    frames = [frame_of(block) for block in blocks]
    if together:
        for dataset in dict.fromkeys(block.dataset for block in blocks):
            correct_together([frame for frame, block in zip(frames, blocks) if block.dataset == dataset])
    titles = titles or block_titles(blocks)
    grids = [rendering.grid(frame, title, [*block.notes, *_constant(block)], block.main_split)
             for frame, block, title in zip(frames, blocks, titles)]
    if not frames:
        return Product(name, title, pd.DataFrame(columns=frame_of(Block(name, "", [])).columns), [],
                       [f"Missing: {empty}.", *notes])
    frame = pd.concat(frames, ignore_index=True)
    family = f"rows and {together}" if together else "rows"
    return Product(name, title, frame, grids, [*rendering.legend(frame, family), *notes], frames)


def block_titles(blocks: Sequence[Block]) -> list[str]:
    """What each block of a table is of: the dataset, which labels, and what tells it from the others.

    Where several would have one title, flags that tell them apart follow, as few as that takes: `TREC-6, cl=15` and
    `TREC-6, default cl`.
    """
    alike: dict[str, list[Block]] = {}
    for block in blocks:
        alike.setdefault(_title(block), []).append(block)
    named = {title: _telling_apart(group) for title, group in alike.items()}
    return [", ".join([_title(block), *(f"{flag}={shown_value(block.constant[flag])}" if flag in block.constant
                                        else f"default {flag}" for flag in named[_title(block)])])
            for block in blocks]


def _title(block: Block) -> str:
    labels = block.constant.get("n_labels")
    said = "" if labels is None else f", {labels:,} labels" if isinstance(labels, int) else f", subset {labels}"
    said += ", from scratch" * bool(block.constant.get("from_scratch")) + ", subwords" * bool(block.constant.get("bpe"))
    return rendering.dataset_title(block.dataset, block.corpus) + said


def _telling_apart(blocks: Sequence[Block]) -> list[str]:
    """Flags by which blocks differ, each time the one that tells most of them apart, as long as one tells more."""
    flags = dict.fromkeys(flag for block in blocks for flag in block.constant)
    named: list[str] = []

    def told(flag: str) -> int:
        return len({tuple(repr(block.constant.get(each)) for each in (*named, flag)) for block in blocks})

    apart = 1
    while flags and told(best := max(flags, key=told)) > apart:
        apart = told(best)
        named.append(best)
    return named


def _constant(block: Block) -> list[str]:
    if not block.constant:
        return []
    return [f"{rendering.CONSTANT}{block.constant_in}: " + ", ".join(f"{name}={shown_value(value)}"
                                                                     for name, value in block.constant.items())
            + "; any other flag is what makes a row, or has its default."]


def shown_value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) and math.isfinite(value) else str(value)


def said(paths: Sequence[Path]) -> str:
    """The files that were written, in a line."""
    folder = names.shown(paths[0].parent)
    return f"written: {folder}/" + ", ".join(path.name for path in paths)
