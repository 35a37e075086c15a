"""Balanced subsets: their definition on small lists, the stage on folders of tokens and ids."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import flow
from ulmfit import files, names, subsets, vocab
from ulmfit.errors import UsageError, UserError
from ulmfit.names import DataFolder

N_CLASSES = 3


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> tuple[Path, Path]:
    """(folder of the tiny corpus with tokens and ids, folder of the records)."""
    base = tmp_path_factory.mktemp("sample")
    data, results = flow.write_corpus(base / "imdb"), base / "results"
    for stage, flags in (("create_toks", {"workers": 1}), ("tok2id", {})):
        flow.call(stage, dir_path=str(data), results_dir=str(results), quiet=True, **flags)
    return data, results


def call(world: tuple[Path, Path], **flags) -> None:
    data, results = world
    flow.call("sample_train", **{"dir_path": str(data), "results_dir": str(results), **flags})


def lines(world: tuple[Path, Path], name: str) -> list[int]:
    return [int(line) for line in (world[0] / "subsets" / f"{name}.txt").read_text(encoding="utf-8").splitlines()]


def refusal(world: tuple[Path, Path], kind=UserError, **flags) -> str:
    with pytest.raises(kind) as error:
        call(world, **flags)
    assert "\n" not in str(error.value)
    return str(error.value)


# -- the order of drawing ----------------------------------------------------------------------------------------------

def test_every_beginning_is_balanced_and_it_ends_where_a_class_does():
    labels = [0] * 9 + [1] * 4 + [2] * 6
    order = subsets.balanced_order(range(19), labels, N_CLASSES, seed=0)
    # Four turns of three, then one more of class 0; it is class 1's turn, which has none left.
    assert len(order) == 4 * 3 + 1 and len(set(order)) == len(order)
    assert [labels[row] for row in order] == [0, 1, 2] * 4 + [0]
    everything = subsets.balanced_order(range(6), [2, 1, 0, 0, 1, 2], N_CLASSES, seed=0)
    assert sorted(everything) == list(range(6))


def test_a_row_keeps_its_place_when_others_are_set_aside():
    labels = {row: row % N_CLASSES for row in range(300)}
    order = subsets.balanced_order(list(labels), list(labels.values()), N_CLASSES, seed=5)
    kept = [row for row in labels if row % 7]
    of_kept = subsets.balanced_order(kept, [labels[row] for row in kept], N_CLASSES, seed=5)
    for label in range(N_CLASSES):
        mine = [row for row in of_kept if labels[row] == label]
        assert mine == [row for row in order if labels[row] == label and row % 7][:len(mine)]


def test_each_row_of_a_class_is_as_likely_as_another():
    drawn = Counter(row for seed in range(2000)
                    for row in subsets.balanced_order(range(10), [0] * 5 + [1] * 5, 2, seed)[:4])
    # 2 of 5 a class: 800 times each, standard deviation 22.
    assert set(drawn) == set(range(10)) and all(abs(count - 800) < 110 for count in drawn.values())


def test_the_rows_are_these_for_ever():
    # random.Random(0) begins .844 .757 .420 .258 .511 .404 .783 .303 .476 .583: even rows and odd ones in turn, by key.
    assert subsets.balanced_order(range(10), [0, 1] * 5, 2, seed=0) == [2, 3, 8, 7, 4, 5, 6, 9, 0, 1]


# -- the stage ---------------------------------------------------------------------------------------------------------

def test_subsets_are_nested_balanced_and_leave_val_alone(world):
    data, results = world
    for n in (10, 30, 80):
        call(world, n=n)
    rows = {n: lines(world, str(n)) for n in (10, 30, 80)}
    assert rows[80][:30] == rows[30] and rows[30][:10] == rows[10]
    val = {int(name.split(":")[1]) for name in vocab.load_ids(data / "word/ids", "val").document_ids}
    assert len(val) == 12 and not val & set(rows[80])
    labels = [label for label, _ in flow.labelled_rows(flow.N_TRAIN, 0)]
    for n, drawn in rows.items():
        assert len(set(drawn)) == n
        record = flow.record(results, f"imdb--sample_train--{n}")
        assert record["status"] == "finished" and record["parents"] == ["imdb--tok2id--word"]
        assert record["rows_per_class"] == Counter(labels[row] for row in drawn)
        # The first classes, in the classes' own order, have the remainder.
        assert [record["rows_per_class"][name] for name in sorted(flow.CLASSES)] == [
            n // 3 + (place < n % 3) for place in range(3)]
        assert record["sha256"] == files.sha256(data / "subsets" / f"{n}.txt")
    read = vocab.read_subset(data / "subsets/30.txt", vocab.load_ids(data / "word/ids", "train"))
    assert len(read) == 30


def test_seeds_differ_and_the_same_command_is_reused(world, capsys):
    call(world, n=30, seed=1)
    assert set(lines(world, "30-s1")) != set(lines(world, "30"))
    first = lines(world, "30-s1")
    capsys.readouterr()
    call(world, n=30, seed=1)
    assert "reused" in capsys.readouterr().out
    (world[0] / "subsets/30-s1.txt").unlink()
    call(world, n=30, seed=1)
    assert lines(world, "30-s1") == first and "written again" in capsys.readouterr().out


def test_another_vocabulary_gives_the_same_rows(world, capsys):
    call(world, n=45)
    flow.call("tok2id", dir_path=str(world[0]), results_dir=str(world[1]), max_vocab=20, overwrite=True, quiet=True)
    capsys.readouterr()
    call(world, n=45)
    assert "reused" in capsys.readouterr().out
    before = lines(world, "45")
    call(world, n=45, overwrite=True)
    assert lines(world, "45") == before


def test_what_cannot_be_balanced_is_refused(world):
    documents = vocab.load_ids(world[0] / "word/ids", "train")
    counts = np.bincount(documents.labels).tolist()
    assert counts == [36, 36, 36]
    assert "the largest balanced subset has 108" in refusal(world, n=109)
    call(world, n=108)
    assert "some of the 3 classes" in refusal(world, n=2)
    assert "the name of the whole training split" in refusal(world, UsageError, n=9, train_file_id="all")
    assert not (world[0] / "subsets/109.txt").exists()


def test_a_file_of_the_users_is_not_replaced(world):
    path = world[0] / "subsets/mine.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_text("1\n2\n", encoding="utf-8")
    assert "mine.txt exists and holds other rows" in refusal(world, n=9, train_file_id="mine")
    assert path.read_text(encoding="utf-8") == "1\n2\n" and not (world[1] / "runs/imdb--sample_train--mine").exists()
    call(world, n=9, train_file_id="mine", overwrite=True)
    assert len(lines(world, "mine")) == 9
    # Another size under the name: the record knows what differs. Edited afterwards: the user's again.
    assert "n: 9 there, 12 asked" in refusal(world, n=12, train_file_id="mine")
    path.write_text("1\n", encoding="utf-8")
    assert "holds other rows" in refusal(world, n=9, train_file_id="mine")
    assert path.read_text(encoding="utf-8") == "1\n"


def test_a_corpus_without_labels_is_refused(tmp_path):
    data = flow.write_general_corpus(tmp_path / "wiki")
    flow.call("create_toks", dir_path=str(data), results_dir=str(tmp_path / "results"), n_lbls=0, workers=1, quiet=True)
    flow.call("tok2id", dir_path=str(data), results_dir=str(tmp_path / "results"), quiet=True)
    for stage in ("sample_train", "train_baseline"):
        with pytest.raises(UserError, match="have 0 classes, at least 2 are needed"):
            flow.call(stage, dir_path=str(data), results_dir=str(tmp_path / "results"))


def test_the_command_line(world):
    data, results = world
    done = flow.run_stage("sample_train", dir_path=data, results_dir=results, n=7, train_file_id="1e5")
    assert done.returncode == 0, done.stderr
    assert "7 of 108 training documents, 2 or 3 of each of the 3 classes" in done.stdout
    assert len(lines(world, "1e5")) == 7
    record = json.loads((names.run_folder(results, "imdb--sample_train--1e5") / "run.json").read_text())
    assert "--n=7 --train_file_id=1e5" in record["command"]
    wrong = flow.run_here("sample_train", dir_path=data, results_dir=results, n=1000)
    assert wrong.returncode == 1 and wrong.stderr.count("\n") == 1 and "the largest balanced" in wrong.stderr
    assert DataFolder(data).subset("1000").exists() is False
