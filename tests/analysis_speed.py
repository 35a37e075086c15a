"""How long the analysis takes of many runs: `python tests/analysis_speed.py`, or with their number, `... 2000`.

Makes 10,000 runs with invented predictions of 500 documents each in a temporary folder: on six datasets a sweep of two
learning rates with five seeds, each a language model, a classifier and its evaluation on test. That takes a minute or
two. What is measured are `collect` and the sweep's table, `ablation`, each from the records on; goal: below 10 seconds
for both. The figures, one a dataset here, come by themselves. It prints the seconds of the clock, and those of
processor time, which say more beside other work.
"""

import multiprocessing
import shutil
import sys
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import Callable

import conftest  # noqa: F401  it finds the modules below
import numpy as np
from analysis import study, tables
from analysis.collect import collect
from analysis.commands import draw_blocks
from analysis.comparison import Block
from analysis.study import Product
from made_records import Made

RUNS = 10_000
DOCUMENTS = 500
SEEDS = 5
DATASETS = ("imdb", "trec6", "ag", "dbpedia", "yelp_bi", "yelp_full")
CLASSES = ["a", "b", "c", "d", "e", "f"]
BY = "lr,lm.lr"


class Sweep(Made):
    """Predictions are drawn once for each dataset, split and error, and copied: to draw them takes the longest."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.drawn: dict[tuple, tuple[Path, dict]] = {}

    def predict(self, run: str, dataset: str, split: str, error: float) -> dict:
        path = self.folder / "runs" / run / "predictions.csv"
        if (dataset, split, error) not in self.drawn:
            self.drawn[dataset, split, error] = path, super().predict(run, dataset, split, error)
        else:
            shutil.copyfile(self.drawn[dataset, split, error][0], path)
        return dict(self.drawn[dataset, split, error][1])


def make(folder: Path, runs: int, documents: int = DOCUMENTS) -> Made:
    """`runs` runs at least, until every dataset has the last setting."""
    made = Sweep(folder, documents, CLASSES)
    for dataset in DATASETS:
        made.corpus(dataset)
    pretrained = made.pretrained()
    for setting in count():
        if len(made.records) >= runs:
            return made
        name, lr, lm_lr = f"sweep{setting}", (1 + setting // 10) / 1000, (1 + setting % 10) / 1000
        for dataset in DATASETS:
            for seed in range(SEEDS):
                tuned = made.language_model(dataset, pretrained, name, {"lr": lm_lr}, seed)
                made.classifier(dataset, tuned, 5 + (7 * setting + 3 * seed) % 20 / 2, name, {"lr": lr}, seed)


def timed(what: str, work: Callable) -> tuple[object, np.ndarray]:
    """What `work` returns, and the seconds that it took, of the clock and of processor time; printed."""
    before = time.monotonic(), time.process_time()
    found = work()
    taken = np.subtract((time.monotonic(), time.process_time()), before)
    shown(what, taken)
    return found, taken


def shown(what: str, taken: np.ndarray) -> None:
    print(f"{what}: {taken[0]:.1f} s, {taken[1]:.1f} s of processor time", flush=True)


def table(folder: Path) -> tuple[Product, list[Block]]:
    """Reads the runs and writes the table of the sweep."""
    found = study.load(folder)
    made, blocks = tables.ablation(found, BY)
    made.write(found.tables)
    return made, blocks


def main(runs: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # In a process of its own, whose memory does not slow down what is measured.
        maker = multiprocessing.get_context("spawn").Process(target=make, args=(folder, runs))
        maker.start()
        maker.join()
        if maker.exitcode:
            sys.exit("analysis_speed: the runs could not be made")
        print(f"{sum(1 for _ in (folder / 'runs').iterdir()):,} runs", flush=True)
        _, collecting = timed("collect", lambda: collect(str(folder), quiet=True))
        made, tabling = timed("table", lambda: table(folder))
        shown("both", collecting + tabling)
        timed("figures", lambda: draw_blocks(*made, folder / "figures"))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS)
