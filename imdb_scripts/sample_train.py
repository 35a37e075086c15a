"""Draws a class-balanced subset of the training split, to train on few labels."""

from collections import Counter
from pathlib import Path

from ulmfit import cli, files, names, records, subsets, vocab
from ulmfit.errors import UserError
from ulmfit.lineage import Lineage
from ulmfit.names import DataFolder


def sample_train(dir_path=None, n=100, seed=0, train_file_id="", results_dir=None, overwrite=False, quiet=False):
    """Draws n training documents, as many of each class; --train_file_id=ID of the other stages then trains on them.

    Reads   dir_path/word/ids (tok2id): which rows of train.csv may be trained on, and their labels. The documents set
            aside for validation are never drawn.
    Writes  dir_path/subsets/ID.txt, a row number of train.csv (from 0) a line, and a run record with the rows of
            each class. Without --train_file_id, ID is n, and n-sSEED for another seed than 0: `100`, `100-s1`.

        python imdb_scripts/sample_train.py --dir_path=data/imdb --n=200 --seed=1

    Subsets of one seed are nested: the first 100 lines of 200.txt are 100.txt. Where n is no multiple of the number of
    classes, the first classes have one document more. The same labels and seed give the same rows, whatever the
    tokens and the vocabulary. Expect a second.
    """
    flags = dict(locals())
    train_file_id = names.sample_name(n, seed, train_file_id)
    folder = DataFolder(dir_path or names.project_root() / "data" / "imdb")
    ids, bpe = vocab.of_either_unit(folder)
    documents = vocab.load_ids(folder.ids(bpe), "train")
    rows = subsets.sample(documents, ids["classes"], n, seed)
    text = "".join(f"{row}\n" for row in rows)
    asked = lineage(flags)
    path, = asked.writes
    # A run of this name is compared by its record, which can say what differs.
    if not overwrite and not (asked.folder / "run.json").exists():
        _check_free(path, text)
    run = records.open_run(sample_train, asked.run_id, flags,
                           {"labels": subsets.labels_input(documents, ids["classes"], ids["run"])},
                           dataset=folder.name)
    with run:
        if run.reused or run.resumed:
            _check_free(path, text)
            if run.reused and path.exists():
                return
        files.write_text(path, text)
        if run.reused:
            run.say(f"{names.shown(path)} was missing and is written again", important=True)
            return
        class_of = dict(zip(subsets.csv_rows(documents), documents.labels.tolist()))
        counts = Counter(ids["classes"][class_of[row]] for row in rows)
        run.finish(train_file_id=train_file_id, documents=n, classes=ids["classes"],
                   rows_per_class={name: counts[name] for name in ids["classes"]}, sha256=files.sha256(path))
        each = " or ".join(f"{count:,}" for count in sorted(set(counts.values())))
        run.say(f"{names.shown(path)}: {n:,} of {len(documents):,} training documents, {each} of each of the "
                f"{len(counts)} classes", important=True)


def lineage(flags: dict) -> Lineage:
    """What a run of these flags reads and writes; see `ulmfit.lineage`."""
    folder = DataFolder(flags["dir_path"] or names.project_root() / "data" / "imdb")
    train_file_id = names.sample_name(flags["n"], flags["seed"], flags["train_file_id"])

    def labels() -> dict[str, records.Input]:
        ids, bpe = vocab.of_either_unit(folder)
        documents = vocab.load_ids(folder.ids(bpe), "train")
        return {"labels": subsets.labels_input(documents, ids["classes"], ids["run"])}

    return Lineage(sample_train, names.run_id(folder.name, "sample_train", train_file_id), folder.name, flags,
                   {"labels": (folder.ids(), folder.ids(bpe=True))}, writes=(folder.subset(train_file_id),),
                   special=labels)


def _check_free(path: Path, text: str) -> None:
    """Raises UserError when the subset's file holds anything but `text`: it may be the user's own."""
    if path.exists() and path.read_bytes() != text.encode():
        raise UserError(f"{path} exists and holds other rows than these flags draw; give this subset a name of its own "
                        f"by --train_file_id, or replace that one with --overwrite")


if __name__ == "__main__":
    cli.main(sample_train)
