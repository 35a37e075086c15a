"""The commands that write a table with its figure into results/tables and results/figures.

What they need is imported when they run: scipy and matplotlib take a second each, which `--help` need not wait for.
"""

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Sequence

from ulmfit.errors import UserError

if TYPE_CHECKING:
    from .comparison import Block
    from .study import Product, Study


_FIGURES = 6  # of one table and dataset; a sweep may have hundreds of blocks
# Twice in the name of a table of --by and --where; with the dataset's and the temporary file's it stays below 255.
_LONGEST_PART = 80


def _part(where: str | None, backwards: bool = False, bpe: bool = False) -> str:
    """What the files of a table of some runs have behind its name, so that they do not replace the whole one."""
    chosen = "-" + _in_file_name(where, r"[^A-Za-z0-9_.]+") if where else ""
    return "-bwd" * backwards + "-bpe" * bpe + chosen


def _in_file_name(flags: str, others: str) -> str:
    """Flags as a part of a file's name, what matches `others` replaced; long ones end in a digest of all of them."""
    text = re.sub(others, "-", flags).strip("-")
    if len(text) <= _LONGEST_PART:
        return text
    return f"{text[:_LONGEST_PART - 9]}-{hashlib.sha256(flags.encode()).hexdigest()[:8]}"


def _deliver(found: "Study", made: "Product", drawn: Sequence[Path], quiet: bool, dataset: str | None) -> None:
    """Writes and prints a table; the figures are written already."""
    from . import study

    paths = made.write(found.tables, dataset)
    if not quiet:
        print(made.plain() + "\n")
    for line in found.left_out():
        print(line)
    for group in (paths, drawn):
        if group:
            print(study.said(group))


def draw_blocks(made: "Product", blocks: Sequence["Block"], folder: Path) -> list[Path]:
    """Bars of the fullest blocks of each dataset, named after the table and, from the second on, numbered."""
    from . import figures, study

    paths, count = [], {}
    for block, lines, title in zip(blocks, made.frames, study.block_titles(blocks)):
        number = count[block.dataset] = count.get(block.dataset, 0) + 1
        if number > _FIGURES:
            continue
        name = f"{made.name}-{block.dataset}" + (f"-{number}" if number > 1 else "")
        paths += figures.bars(lines[lines["split"] == block.main_split], folder, name, title)
    return paths


def _paper_table(name: str, results_dir: str | None, dataset: str | None, where: str | None, backwards: bool,
                 bpe: bool, quiet: bool) -> None:
    from . import study, tables

    found = study.load(results_dir)
    made, blocks = tables.paper_table(found, name, dataset=dataset, where=where, backwards=backwards, bpe=bpe)
    made.name += _part(where, backwards, bpe)
    _deliver(found, made, draw_blocks(made, blocks, found.figures), quiet, dataset)


def _table_of_averages(name: str, results_dir: str | None, dataset: str | None, where: str | None, quiet: bool) -> None:
    from . import study, tables

    found = study.load(results_dir)
    made, blocks = getattr(tables, name)(found, dataset, where)
    made.name += _part(where)
    _deliver(found, made, draw_blocks(made, blocks, found.figures), quiet, dataset)


def table4(results_dir: str | None = None, dataset: str | None = None, where: str | None = None,
           backwards: bool = False, bpe: bool = False, quiet: bool = False) -> None:
    """Table 4: with and without a pretrained language model.

    Example: python -m analysis table4 --dataset=imdb

    Finds the rows among the runs by the flags that they were made with. Shows error in % with spread and interval,
    the paired difference to full ULMFiT with its tests, the last and the best epoch, test beside val, and the paper's
    numbers; writes results/tables/table4.md, .csv, .tex (with --dataset table4-DATASET.*) and bars in results/figures.
    Runs that differ in more than seeds are never averaged: they make tables of their own.
    """
    _paper_table("table4", results_dir, dataset, where, backwards, bpe, quiet)


def table5(results_dir: str | None = None, dataset: str | None = None, where: str | None = None,
           backwards: bool = False, bpe: bool = False, quiet: bool = False) -> None:
    """Table 5: a vanilla language model without dropout against the AWD-LSTM.

    Example: python -m analysis table5

    Reads and writes as table4.
    """
    _paper_table("table5", results_dir, dataset, where, backwards, bpe, quiet)


def table6(results_dir: str | None = None, dataset: str | None = None, where: str | None = None,
           backwards: bool = False, bpe: bool = False, quiet: bool = False) -> None:
    """Table 6: how the language model is fine-tuned.

    Example: python -m analysis table6 --dataset=trec6

    Reads and writes as table4.
    """
    _paper_table("table6", results_dir, dataset, where, backwards, bpe, quiet)


def table7(results_dir: str | None = None, dataset: str | None = None, where: str | None = None,
           backwards: bool = False, bpe: bool = False, quiet: bool = False) -> None:
    """Table 7: how the classifier is fine-tuned.

    Example: python -m analysis table7 --dataset=trec6 --where=lm.cl=15

    Reads and writes as table4.
    """
    _paper_table("table7", results_dir, dataset, where, backwards, bpe, quiet)


def tables2_3(results_dir: str | None = None, dataset: str | None = None, where: str | None = None,
              quiet: bool = False) -> None:
    """Tables 2 and 3: test error of full ULMFiT, forward, backward and averaged, beside baselines and other methods.

    Example: python -m analysis tables2_3

    Forward and backward are averaged seed by seed, joined on the documents' ids.
    """
    _table_of_averages("tables2_3", results_dir, dataset, where, quiet)


def bidirectional(results_dir: str | None = None, dataset: str | None = None, where: str | None = None,
                  quiet: bool = False) -> None:
    """Forward, backward and averaged, wherever both were trained with the same flags.

    Example: python -m analysis bidirectional --dataset=trec6
    """
    _table_of_averages("bidirectional", results_dir, dataset, where, quiet)


def subword(results_dir: str | None = None, dataset: str | None = None, where: str | None = None,
            quiet: bool = False) -> None:
    """Words beside subwords, and their averages, wherever both were trained with the same flags.

    Example: python -m analysis subword
    """
    _table_of_averages("subword", results_dir, dataset, where, quiet)


def low_shot(results_dir: str | None = None, dataset: str | None = None, where: str | None = None,
             quiet: bool = False) -> None:
    """Figure 3: error against the number of labels, on subsets that sample_train drew.

    Example: python -m analysis low_shot --dataset=imdb

    Supervised: the language model read the labelled documents alone; semi-supervised: all text. Beside them from
    scratch and the linear baselines.
    """
    from . import study, tables

    found = study.load(results_dir)
    made, shown = tables.low_shot(found, dataset, where)
    made.name += _part(where)
    drawn = [path for curves in shown for path in draw_low_shot(made, curves.dataset, found.figures)]
    _deliver(found, made, drawn, quiet, dataset)


def draw_low_shot(made: "Product", dataset: str, folder: Path) -> list[Path]:
    from . import figures

    return figures.low_shot(made.frame, folder, f"{made.name}-{dataset}", dataset)


def figure4(results_dir: str | None = None, dataset: str | None = None, where: str | None = None) -> None:
    """Figure 4: validation error after each epoch, full fine-tuning against ULMFiT.

    Example: python -m analysis figure4 --dataset=trec6

    Takes runs without --early_stopping where there are; a line ends where one of its runs does.
    """
    from . import paper as everything
    from . import study, tables

    found = study.load(results_dir)
    drawn, seen = [], set()
    blocks = tables.paper_table(found, "table7", dataset=dataset, where=where)[1]
    for block, title in zip(blocks, study.block_titles(blocks)):
        if block.dataset not in seen:
            drawn += everything.draw_epochs(block, title, found.figures, _part(where))
            seen.add(block.dataset)
    print(study.said(drawn) if drawn else "missing: no classifier of Table 7 was validated after its epochs")


def ablation(by: str, results_dir: str | None = None, dataset: str | None = None, where: str | None = None,
             stage: str = "train_clas", quiet: bool = False) -> None:
    """A table of your own sweep: a row for each combination of the flags in --by.

    Example: python -m analysis ablation --by=lr,use_clr --dataset=trec6

    A flag of the language model has the prefix lm., of the pretrained model pre., of tok2id ids., of create_toks toks.
    Says what varies and what stays constant; refuses where runs of one row differ in a flag that is not named.
    """
    from . import study, tables

    found = study.load(results_dir)
    made, blocks = tables.ablation(found, by, dataset, where, stage)
    made.name = "ablation-" + _in_file_name(by, r"[^A-Za-z0-9_]+") + _part(where)
    _deliver(found, made, draw_blocks(made, blocks, found.figures), quiet, dataset)


def agreement(results_dir: str | None = None, dataset: str | None = None, where: str | None = None,
              quiet: bool = False) -> None:
    """Which of the paper's orderings hold in these runs, with intervals.

    Example: python -m analysis agreement

    Looks at every pair of rows of Tables 4 to 7 and of the bidirectional result that the paper has numbers of.
    """
    from . import study, tables

    found = study.load(results_dir)
    made = tables.agreement(found, dataset, where)
    made.name += _part(where)
    _deliver(found, made, (), quiet, dataset)


def ensembles(results_dir: str | None = None, dataset: str | None = None, quiet: bool = False) -> None:
    """The averages that `ensemble` made: errors, gains over the members, tests.

    Example: python -m analysis ensembles
    """
    from . import selection, study, tables

    found = study.load(results_dir)
    selection.check_dataset(found, dataset)
    _deliver(found, tables.ensembles(found, dataset), (), quiet, dataset)


def _study(results_dir: str | None, dataset: str | None, match: str | None = None) -> "Study":
    """The study, with the results of the runs that `match` alone."""
    from . import selection, study

    found = study.load(results_dir)
    selection.check_dataset(found, dataset)
    found.dataset = dataset
    if match is not None:
        found.results = [result for result in found.results if match in result.run.id]
        found.match = match
        if len(found.archive.runs) and not any(match in run.id for run in found.archive):
            raise UserError(f"--match={match}: it is part of no run's name; `python -m analysis runs` lists them")
        found.broken = [(result, why) for result, why in found.broken if match in result.run.id]
    return found


def report(results_dir: str | None = None, dataset: str | None = None, match: str | None = None,
           output: str | None = None, by: str | None = None, where: str | None = None) -> None:
    """One HTML page with all tables and figures, a card for every run behind a number, and what failed or is missing.

    Example: python -m analysis report --dataset=imdb --by=lr --output=sweep.html

    Self-contained: it opens offline, on a phone too, and prints. Without --output, results/report.html; --dataset and
    --match (a part of the runs' names) make the page of a sweep, --where chooses by flags; --by adds the table of your
    own, as `ablation`.
    """
    from . import report as page
    from . import selection

    if output and Path(output).is_dir():
        raise UserError(f"--output={output} is a folder; name a file, as {Path(output) / 'report.html'}")
    found = _study(results_dir, dataset, match)
    if where is not None:
        found.results = selection.select(found, dataset, where)
    print(page.said(page.make(found, Path(output) if output else found.archive.folder / "report.html", by)))


def paper(results_dir: str | None = None, dataset: str | None = None, quiet: bool = False) -> None:
    """Every table, every figure and the report, from the records: results/tables, results/figures, results/report.html.

    Example: python -m analysis paper

    Expect half a minute for a hundred runs.
    """
    from . import paper as everything
    from . import report as page

    found = _study(results_dir, dataset)
    made = everything.sections(found, found.figures)
    for section in made:
        paths = section.product.write(found.tables, dataset)
        if not quiet:
            from . import study

            print(study.said(paths))
    drawn = sum(len(section.images) for section in made)
    print(f"{len(made)} tables in {_shown(found.tables)}, {drawn} figures in {_shown(found.figures)}")
    print(page.said(page.write(found, made, found.archive.folder / "report.html", "ULMFiT ablations")))


def _shown(path: Path) -> str:
    from ulmfit import names

    return names.shown(path)
