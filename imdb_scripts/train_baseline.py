"""Trains a linear baseline over n-grams: tf-idf with logistic regression, or NB-SVM."""

from ulmfit import cli, names, records, subsets, vocab
from ulmfit.lineage import Lineage
from ulmfit.names import DataFolder

NGRAMS = {"tfidf": 2, "nbsvm": 3}


def train_baseline(dir_path=None, model="tfidf", train_file_id="", split="val", ngrams=None, seed=0, results_dir=None,
                   overwrite=False, quiet=False):
    """Trains on the labelled training split with every C of a fixed grid, and keeps the C with the lowest val error.

    Reads   dir_path/word/tokens (create_toks), dir_path/word/ids (tok2id) and, with --train_file_id, that subset.
    Writes  a run record: error, loss, macro-F1, the confusion matrix, the val error of each C, and predictions.csv
            with the class probabilities of every document of the split. No weights are kept.

        python imdb_scripts/train_baseline.py --dir_path=data/imdb --model=nbsvm

    --split=test is a run of its own: it trains the same model again, C by val, and reads the test split only then.
    C being chosen on val, the error there is a little too low. Training is on one CPU core; --seed is that of the
    order in which it visits the documents, and changes hardly a digit. Expect seconds for TREC-6.
    """
    flags = dict(locals())
    asked = lineage(flags)
    ngrams = asked.resolved["ngrams"]
    folder = DataFolder(dir_path or names.project_root() / "data" / "imdb")
    ids = vocab.check_current(folder)
    # The ids serve for labels and documents' ids, which are the tokens' own: another vocabulary is the same baseline.
    inputs = {"tokens": records.artefact_input(folder.tokens(), vocab.create_toks_command(folder))}
    train, rows, source = vocab.load_ids(folder.ids(), "train"), None, folder.path
    if train_file_id:
        source = folder.subset(train_file_id)
        inputs["subset"] = records.subset_input(source)
        rows = vocab.read_subset(source, train)
    documents = vocab.load_ids(folder.ids(), split)
    subsets.check_every_class(train.labels if rows is None else train.labels[rows], ids["classes"], source)
    run = records.open_run(train_baseline, asked.run_id, flags, inputs, resolved=asked.resolved, dataset=folder.name)
    if run.reused:
        return
    with run:
        from ulmfit import baseline, metrics, predictions

        trained = baseline.train(run, folder, rows, model=model, ngrams=ngrams, seed=seed)
        probabilities = trained.probabilities if split == "val" else baseline.predict(trained, folder, split)
        predictions.write(run.folder / "predictions.csv", documents.document_ids,
                          [ids["classes"][label] for label in documents.labels], probabilities, ids["classes"])
        scores = metrics.classification(documents.labels, probabilities)
        run.finish({"best": scores, "last": scores}, split=split, classes=ids["classes"], C=trained.c,
                   grid=trained.grid, n_features=len(trained.vectorizer.vocabulary_),
                   confusion=metrics.confusion(documents.labels, probabilities).tolist())
        run.say(f"{split} error {scores['error']:.2f}% of {scores['n']:,} documents, C {trained.c:g}: "
                f"{names.portable(run.folder)}", important=True)


def lineage(flags: dict) -> Lineage:
    """What a run of these flags reads and writes; see `ulmfit.lineage`."""
    folder = DataFolder(flags["dir_path"] or names.project_root() / "data" / "imdb")
    ngrams = NGRAMS[flags["model"]] if flags["ngrams"] is None else flags["ngrams"]
    name = names.baseline_name(flags["model"], ngrams, flags["train_file_id"], flags["seed"])
    reads = {"tokens": (folder.tokens(),)}
    if flags["train_file_id"]:
        reads["subset"] = (folder.subset(flags["train_file_id"]),)
    return Lineage(train_baseline, names.run_id(folder.name, "train_baseline", *name.split(names.SEPARATOR)[1:],
                                                flags["split"]),
                   folder.name, flags, reads, also=(folder.ids(),), resolved={"ngrams": ngrams})


if __name__ == "__main__":
    cli.main(train_baseline)
