"""Which of the paper's orderings hold in these runs."""

import math
from itertools import combinations

import pandas as pd

from . import statistics
from .comparison import Block, Entry, compared, replicates_of, significant

HOLDS, REVERSED, UNDECIDED, NO_RUNS = "holds", "reversed", "undecided", "missing"
COLUMNS = ("table", "dataset", "corpus", "constant", "lower", "higher", "paper", "difference", "low", "high", "n_pairs",
           "p", "p_holm", "verdict", "runs")


def orderings(blocks: list[Block]) -> pd.DataFrame:
    """A line for each pair of rows that the paper orders, on the block's main split.

    `lower` is the row with the lower error in the paper, `paper` by how many points; `difference` is `higher` - `lower`
    here, positive where the ordering is the paper's, with its 95% interval over documents and seeds, the exact test
    over documents and Holm's correction over the pairs of the block. verdict: `holds` and `reversed` where the
    difference is significant, else `undecided`; `missing` without runs of both with a seed in common. runs: of `lower`,
    then of `higher`.
    """
    lines = []
    for block in blocks:
        entries = [entry for entry in block.entries if entry.paper is not None]
        replicates = replicates_of(entries, block.main_split)
        own = [_line(block, *sorted(pair, key=lambda entry: entry.paper), replicates)
               for pair in combinations(entries, 2) if pair[0].paper != pair[1].paper]
        for line, adjusted in zip(own, statistics.holm([line.get("p", math.nan) for line in own])):
            line["p_holm"] = adjusted
            if line["n_pairs"] and significant(line["low"], line["high"], adjusted):
                line["verdict"] = HOLDS if line["low"] > 0 else REVERSED
        lines += own
    return pd.DataFrame(lines, columns=COLUMNS)


def _line(block: Block, lower: Entry, higher: Entry, replicates: dict) -> dict:
    found = compared(higher, lower, block.main_split, replicates)
    line = {"table": block.table, "dataset": block.dataset, "corpus": block.corpus or block.dataset,
            "lower": lower.name, "higher": higher.name, "paper": higher.paper - lower.paper,
            "constant": " ".join(f"{k}={v}" for k, v in block.constant.items()),
            "n_pairs": int(found["n_pairs"]), "verdict": NO_RUNS,
            "runs": " ".join(run for entry in (lower, higher) for run in entry.runs[block.main_split].values())}
    if found["n_pairs"]:
        low, high = found["difference_low"], found["difference_high"]
        line.update(difference=found["difference"], low=low, high=high, p=found["p"], verdict=UNDECIDED)
    return line


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Counts of the verdicts by table, dataset and setting."""
    blocks = frame.groupby(["table", "dataset", "corpus", "constant"], sort=False)
    counts = blocks["verdict"].value_counts().unstack(fill_value=0)
    return counts.reindex(columns=[HOLDS, REVERSED, UNDECIDED, NO_RUNS], fill_value=0).reset_index()
