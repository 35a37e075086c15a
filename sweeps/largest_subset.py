"""Prints how many documents the largest class-balanced subset of a dataset's training split has.

    python sweeps/largest_subset.py data/trec6
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "imdb_scripts"))

from ulmfit import cli, names, subsets, vocab  # noqa: E402  (from this checkout)


def largest_subset(dir_path):
    """Prints the size of the largest subset that sample_train can draw."""
    folder = names.DataFolder(dir_path)
    ids, bpe = vocab.of_either_unit(folder)
    documents = vocab.load_ids(folder.ids(bpe), "train")
    subsets.check_classes(ids["classes"], folder.path)
    print(len(subsets.balanced_order(subsets.csv_rows(documents), documents.labels.tolist(), len(ids["classes"]), 0)))


if __name__ == "__main__":
    cli.main(largest_subset)
