"""The tables: each function makes one `Product` of a study, each command of the same name writes and prints it."""

import math

import pandas as pd
from ulmfit import names
from ulmfit.errors import UsageError

from . import ablations, averages, low_shot_curves, orderings, paper_rows, rendering
from .archive import Run
from .comparison import ALPHA, SPLITS, Block
from .published import TABLES
from .rendering import Cell, Grid
from .selection import conditions, matches, select
from .study import Product, Study, product

PAPER_TABLES = tuple(TABLES)


def paper_table(study: Study, name: str, *, dataset: str | None = None, where: str | None = None,
                backwards: bool = False, bpe: bool = False) -> tuple[Product, list[Block]]:
    """Table 4, 5, 6 or 7 on val, test beside it."""
    table = TABLES[name]
    chosen = select(study, dataset, where)
    broken = [(result, why) for result, why in study.broken if dataset in (None, result.dataset)]
    blocks, left_out = paper_rows.blocks(table, chosen, broken, study.outcomes, backwards, bpe)
    notes = ["Note: the paper's numbers are validation errors of one run with larger models and more pretraining.",
             *left_out]
    title = table.title + (", backward" if backwards else "") + (", subwords" if bpe else "")
    return product(name, title, blocks, notes=notes, empty="no run matches one of its rows"), blocks


def bidirectional(study: Study, dataset: str | None = None, where: str | None = None) -> tuple[Product, list[Block]]:
    blocks = averages.bidirectional_blocks(study, select(study, dataset, where))
    return product("bidirectional", "Forward, backward, and the average of their probabilities", blocks,
                   notes=["The paper's numbers are test errors on IMDb."],
                   empty="no classifier was trained in both directions with the same flags"), blocks


def subword(study: Study, dataset: str | None = None, where: str | None = None) -> tuple[Product, list[Block]]:
    blocks = averages.subword_blocks(study, select(study, dataset, where))
    return product("subword", "Words, subwords, and averages of their probabilities", blocks,
                   empty="no classifier was trained on words and subwords with the same flags"), blocks


def tables2_3(study: Study, dataset: str | None = None, where: str | None = None) -> tuple[Product, list[Block]]:
    blocks = averages.tables2_3_blocks(study, select(study, dataset, where))
    return product("tables2_3", "Tables 2 and 3: test error", blocks,
                   notes=["The paper's ULMFiT averages forward and backward."],
                   empty="no full ULMFiT on all labels"), blocks


def low_shot(study: Study, dataset: str | None = None, where: str | None = None) \
        -> tuple[Product, list[low_shot_curves.Curves]]:
    """Figure 3 as a table: a block for each number of labels."""
    shown = low_shot_curves.curves(study, select(study, dataset, where))
    blocks = [block for curves in shown for block in low_shot_curves.blocks(study, curves)]
    made = product("low_shot", "Few labels: error against the number of labelled documents", blocks,
                   notes=[note for curves in shown for note in curves.notes],
                   empty="no classifier was trained on a subset of sample_train", together="numbers of labels")
    made.grids[:0] = [_overview(made.frame, curves, split) for curves in shown for split in SPLITS
                      if ((made.frame["dataset"] == curves.dataset) & (made.frame["split"] == split)).any()]
    return made, shown


def _overview(frame: pd.DataFrame, shown: low_shot_curves.Curves, split: str) -> Grid:
    """A row a curve, a column a number of labels."""
    lines = frame[(frame["dataset"] == shown.dataset) & (frame["split"] == split)]
    cells = {(line["row"], line["n_labels"]): line for _, line in lines.iterrows()}
    lowest = lines.groupby("n_labels")["error"].min()

    def cell(name: str, labels: int) -> Cell:
        line = cells.get((name, labels))
        if line is None or not line["n_seeds"]:
            return Cell(rendering.MISSING)
        return Cell(f"{rendering.percent(line['error'], line['sd'])} (n={line['n_seeds']})",
                    bool(line["error"] == lowest[labels]), rendering.run_ids(line["runs"]))

    return Grid(f"{rendering.dataset_title(shown.dataset, shown.corpus)}, {split} error in % by labels",
                ("", *(f"{labels:,}" for labels in shown.sizes())),
                tuple((Cell(name), *(cell(name, labels) for labels in shown.sizes())) for name in shown.points))


def ablation(study: Study, by: str, dataset: str | None = None, where: str | None = None,
             stage: str = "train_clas") -> tuple[Product, list[Block]]:
    """The user's own sweep: a row for each combination of the flags named in `by`, separated by commas."""
    if stage not in ("train_clas", "train_baseline"):
        raise UsageError(f"--stage={stage!r}: ablation tables errors of train_clas or train_baseline")
    flags = [flag.strip() for flag in by.split(",") if flag.strip()]
    pairs = conditions(where)
    broken = [(result, why) for result, why in study.broken
              if dataset in (None, result.dataset) and result.run.stage == stage and matches(result, pairs)]
    blocks = ablations.blocks(study, select(study, dataset, where, (stage,)), flags, broken)
    return product("ablation", f"Ablation by {', '.join(flags)}", blocks, empty="no run is left"), blocks


def agreement(study: Study, dataset: str | None = None, where: str | None = None) -> Product:
    """Which orderings of the paper's Tables 4 to 7 and of its bidirectional result hold in these runs."""
    blocks = [block for name in PAPER_TABLES for block in paper_table(study, name, dataset=dataset, where=where)[1]]
    blocks += bidirectional(study, dataset, where)[1]
    frame = orderings.orderings(blocks)
    grids = []
    if len(frame):
        counts = orderings.summary(frame)
        heads = ("", "dataset", orderings.HOLDS, orderings.REVERSED, orderings.UNDECIDED, orderings.NO_RUNS, "setting")
        settings = {}
        for constant in counts["constant"]:
            settings.setdefault(constant, len(settings) + 1)
        grids.append(Grid("Orderings of two rows in the paper", heads, tuple(
            tuple(map(Cell, (_title(line["table"]), rendering.dataset_title(line["dataset"], line["corpus"]),
                             *(str(line[verdict]) for verdict in heads[2:6]), str(settings[line["constant"]]))))
            for _, line in counts.iterrows()), tuple(f"Setting {number}: {said or 'defaults'}"
                                                     for said, number in settings.items())))
    measured = frame[frame["verdict"] != orderings.NO_RUNS]
    for (table, dataset_name, corpus, constant), part in measured.groupby(["table", "dataset", "corpus", "constant"],
                                                                          sort=False):
        title = f"{_title(table)}, {rendering.dataset_title(dataset_name, corpus)}"
        grids.append(_ordering_grid(title, part, constant))
    notes = [f"An ordering holds, or is reversed, where the 95% interval of the difference over documents and seeds "
             f"leaves out 0 and p Holm is below {ALPHA}; else it is undecided. p: exact permutation test over "
             f"documents; Holm's correction over the pairs of a table. Rows that are equal in the paper are no "
             f"ordering."]
    if not len(measured):
        notes.insert(0, "Missing: no two rows that the paper orders have runs with a seed in common.")
    return Product("agreement", "The paper's orderings in these runs", frame, grids, notes)


def ensembles(study: Study, dataset: str | None = None) -> Product:
    """The averages that `ensemble` made, beside their members."""
    rows: dict[tuple[str, str], list[tuple[Run, dict]]] = {}
    for run in study.archive:
        if run.stage == "ensemble" and study.concerns(run) and study.archive.problem(run) is None \
                and dataset in (None, run.dataset):
            rows.setdefault((run.dataset, run.record["split"]), []).append((run, _ensemble_line(run)))
    heads = ("members", "error %", "n", "gain over their mean", "its interval", "gain over the best", "p", "weights")
    grids = [Grid(f"{rendering.dataset_title(name, study.archive.corpus(name))}, {split}", heads, tuple(
        tuple(map(_cell, (line["kind"], Cell(rendering.percent(line["error"]), runs=(run.id,)), str(line["n_members"]),
                          f"{line['gain']:+.2f}", rendering.between(line["gain_low"], line["gain_high"], "+"),
                          f"{line['gain_over_best']:+.2f}", rendering.p_value(line["p_over_best"]), line["weights"])))
        for run, line in part)) for (name, split), part in sorted(rows.items())]
    frame = pd.DataFrame([line for part in rows.values() for _, line in part], columns=_ENSEMBLE_COLUMNS)
    notes = ["Gains in points of error, positive where the average is better; 95% bootstrap interval over documents. "
             "p: McNemar's exact test against the best member."]
    if not grids:
        notes.insert(0, "Missing: no average was made by `python -m analysis ensemble`.")
    return Product("ensembles", "Averages of predictions", frame, grids, notes)


_ENSEMBLE_COLUMNS = ("run", "dataset", "split", "n_members", "kind", "error", "gain", "gain_low", "gain_high",
                     "gain_over_best", "p_over_best", "weights", "members")


def _ensemble_line(run: Run) -> dict:
    record = run.record
    low, high = record.get("gain_interval") or (math.nan, math.nan)
    weights = record.get("weights") or []
    return {"run": run.id, "dataset": run.dataset, "split": record["split"], "n_members": len(record["members"]),
            "kind": ", ".join(run.id.split(names.SEPARATOR)[2:-2]), "error": run.metric("error"),
            "gain": record["gain"], "gain_low": low, "gain_high": high, "gain_over_best": record["gain_over_best"],
            "p_over_best": record.get("p_over_best", math.nan),
            "weights": " ".join(f"{weight:.4f}" for weight in weights), "members": " ".join(record["members"])}


def _title(table: str) -> str:
    return TABLES[table].title if table in TABLES else table.capitalize()


def _ordering_grid(title: str, part: pd.DataFrame, constant: str) -> Grid:
    rows = tuple(tuple(map(_cell, (
        f"{line['lower']} below {line['higher']}", f"{line['paper']:+.2f}",
        Cell(f"{line['difference']:+.2f}", runs=rendering.run_ids(line["runs"])),
        rendering.between(line["low"], line["high"], "+"), str(line["n_pairs"]), rendering.p_value(line["p_holm"]),
        line["verdict"]))) for _, line in part.iterrows())
    return Grid(title, ("in the paper", "points there", "points here", "95% interval", "n", "p Holm", "verdict"), rows,
                (f"{rendering.CONSTANT}row: {constant}",))


def _cell(value: str | Cell) -> Cell:
    return value if isinstance(value, Cell) else Cell(value)
