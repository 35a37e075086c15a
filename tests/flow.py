"""A tiny corpus and the ways to call the stages on it; shared by the tests of the command-line flow."""

import contextlib
import csv
import gzip
import importlib
import io
import json
import os
import random
import resource
import subprocess
import sys
from pathlib import Path
from typing import Iterator
from unittest import mock

from conftest import ROOT
from ulmfit import cli

SCRIPTS = ROOT / "imdb_scripts"
SIZES = {"emb_sz": 16, "n_hid": 24, "n_layers": 2}
SMALL = {"bs": 8, "bptt": 20, "threads": 1, "cuda_id": -1}
N_TRAIN, N_TEST, N_UNSUP = 120, 60, 40

# The labels are text that a csv reader may take for something else, and in no order of their own.
CLASSES = ("1e5", "NA", "poor")
CLASS_WORDS = {"NA": "brilliant superb delightful moving gem".split(),
               "poor": "dreadful tedious clumsy hollow mess".split(),
               "1e5": "average passable ordinary lukewarm shrug".split()}
COMMON = "the film was a story of people in town and it had music with scenes that run on for an hour".split()
# In no other text of this project, so that a search of the records for it is a search for document text.
MARK = "zyxomma"

# Rows of train.csv and test.csv whose text is not this generator's usual one.
AWKWARD = {5: 'first line\nsecond "line", with a comma\r\nand a third', 9: "NA", 14: "null", 20: "", 21: '""'}
LONG_ROW, LONG_WORDS = 33, 400


def sentence(random_words: random.Random, label: str, words: int) -> str:
    """A document of which two words in five are its class's own."""
    chosen = [random_words.choice(CLASS_WORDS[label] if random_words.random() < 0.4 else COMMON) for _ in range(words)]
    return " ".join([MARK, *chosen])


def labelled_rows(count: int, seed: int) -> list[list[str]]:
    random_words = random.Random(seed)
    rows = []
    for row in range(count):
        label = CLASSES[row % 3]
        words = LONG_WORDS if row == LONG_ROW else random_words.randint(8, 24)
        rows.append([label, AWKWARD.get(row, sentence(random_words, label, words))])
    return rows


def write_csv(path: Path, rows: list[list[str]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(rows)


def write_corpus(folder: Path) -> Path:
    """train.csv, test.csv and unsup.csv; create_toks sets 12 of train's 120 documents aside for validation."""
    folder.mkdir(parents=True)
    write_csv(folder / "train.csv", labelled_rows(N_TRAIN, 0))
    write_csv(folder / "test.csv", labelled_rows(N_TEST, 1))
    write_csv(folder / "unsup.csv", [[text] for _, text in labelled_rows(N_UNSUP, 2)])
    return folder


def make_ids(base: Path) -> tuple[Path, dict[str, str]]:
    """The tiny corpus in `base`, tokenized and numericalized. Returns its folder, and the flags that every stage on it
    takes: dir_path and results_dir."""
    data = write_corpus(base / "imdb")
    where = {"dir_path": str(data), "results_dir": str(base / "results")}
    call("create_toks", **where, workers=1)
    call("tok2id", **where)
    return data, where


def write_general_corpus(folder: Path) -> Path:
    """Unlabelled text to pretrain on: the words of two classes of three, and one word of its own."""
    folder.mkdir(parents=True)
    random_words = random.Random(3)
    write_csv(folder / "train.csv", [[sentence(random_words, CLASSES[row % 2], 20) + " encyclopedia"]
                                     for row in range(100)])
    return folder


def command(name: str, *positional: str, cwd: Path = ROOT, **flags) -> list[str]:
    """The command line of a stage, or of `python -m analysis NAME`, as typed in the folder `cwd`."""
    script = SCRIPTS / f"{name}.py"
    program = [os.path.relpath(script, cwd)] if script.exists() else ["-m", "analysis", name]
    return [*program, *positional, *(f"--{flag}={value}" for flag, value in flags.items())]


def environment() -> dict[str, str]:
    """That of a bare checkout on a machine without a GPU."""
    return {**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, "CUDA_VISIBLE_DEVICES": ""}


def run_stage(name: str, *positional: str, cwd: Path = ROOT, stdin: str | None = None,
              python: tuple[str, ...] = (sys.executable,), **flags) -> subprocess.CompletedProcess:
    """Calls a stage as a user does, in a process of its own."""
    return subprocess.run([*python, *command(name, *positional, cwd=cwd, **flags)], cwd=cwd, env=environment(),
                          input=stdin, capture_output=True, text=True, timeout=600)


def run_here(name: str, *positional: str, cwd: Path = ROOT, stdin: str = "", **flags) -> subprocess.CompletedProcess:
    """As `run_stage`, by the same command line, in this process: importing torch in one of its own takes seconds."""
    return interpret(command(name, *positional, cwd=cwd, **flags), cwd, stdin)


def interpret(words: list[str], cwd: Path = ROOT, stdin: str = "") -> subprocess.CompletedProcess:
    """What `python WORDS` does, a stage or `-m analysis`, in this process. The words need not be strings."""
    words = list(map(str, words))
    out, errors = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    status = 0
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors), \
            mock.patch("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8")):
        try:
            if words[0] == "-m":
                commands = importlib.import_module("analysis.__main__").COMMANDS
                cli.main_group(commands, prog="python -m analysis", argv=words[2:])
            else:
                name = Path(words[0]).stem
                cli.main(getattr(importlib.import_module(name), name), words[1:])
        except SystemExit as stopped:
            status = stopped.code
    return subprocess.CompletedProcess(words, status, *(file.buffer.getvalue().decode() for file in (out, errors)))


def call(name: str, **flags) -> None:
    """Calls a stage's function in this process."""
    getattr(importlib.import_module(name), name)(**flags)


@contextlib.contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Lets no file of this process grow beyond so many bytes; the system's error is EFBIG, "File too large"."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def files_of(folder: Path) -> list[str]:
    """What lies in a model's folder, the file that only locks it left out."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def record(results: Path, run: str) -> dict:
    return json.loads((results / "runs" / run / "run.json").read_text(encoding="utf-8"))


def epochs(results: Path, run: str) -> list[dict]:
    """The lines of metrics.jsonl without the wall time, the one thing in them that is never the same."""
    lines = (results / "runs" / run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]


def steps(results: Path, run: str) -> list[tuple[int, tuple[int, ...], tuple[float, ...]]]:
    """(phase, groups that trained, rate of every group) of each update."""
    table = gzip.decompress((results / "runs" / run / "steps.csv.gz").read_bytes()).decode().splitlines()
    rows = [line.split(",") for line in table[1:]]
    assert [int(row[0]) for row in rows] == list(range(len(rows)))
    return [(int(phase), tuple(int(group) for group in groups.split("+")), tuple(float(rate) for rate in rates))
            for _, phase, groups, *rates in rows]
