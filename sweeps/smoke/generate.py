"""Writes the corpus of the `smoke` profile: invented sentences, three classes, and text to pretrain on.

    python sweeps/smoke/generate.py FOLDER

The files lie beside this script; a test keeps them what it writes.
"""

import csv
import random
import sys
from pathlib import Path

CLASSES = {"praise": "superb moving clever warm gem".split(), "blame": "dull clumsy hollow grim mess".split(),
           "neither": "plain average usual fair middling".split()}
COMMON = "the film is a story of people in town and it has music with scenes that run on for an hour".split()


def sentence(words: random.Random, label: str) -> str:
    """Two words in five are the class's own."""
    return " ".join(words.choice(CLASSES[label] if words.random() < 0.4 else COMMON)
                    for _ in range(words.randint(8, 20))) + " ."


def write(folder: Path) -> None:
    def table(path: str, rows: int, seed: int, labelled: bool) -> None:
        words, names = random.Random(seed), list(CLASSES)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        with open(folder / path, "w", encoding="utf-8", newline="") as file:
            for row in range(rows):
                label = names[row % 3]
                csv.writer(file, lineterminator="\n").writerow([label] * labelled + [sentence(words, label)])

    table("corpus/train.csv", 90, 0, labelled=True)
    table("corpus/test.csv", 30, 1, labelled=True)
    table("corpus/unsup.csv", 45, 2, labelled=False)
    table("wiki/train.csv", 60, 3, labelled=False)
    table("wiki/val.csv", 12, 4, labelled=False)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
