"""Predicts a split with a trained classifier."""

from ulmfit import cli, names, records, vocab
from ulmfit.lineage import Lineage
from ulmfit.names import DataFolder


def eval_clas(dir_path=None, cuda_id=None, lm_id="", clas_id=None, bs=64, backwards=False, bpe=False, split="val",
              train_file_id="", seed=0, precision="auto", threads=None, results_dir=None, overwrite=False, quiet=False):
    """Evaluates a classifier on val, or on test when one asks for it.

    Reads   dir_path/models/clas--.../ (train_clas) and dir_path/word/ids (bpe/ids with --bpe).
    Writes  a run record: error, loss, macro-F1, the confusion matrix, and predictions.csv with the class
            probabilities of every document in the split's own order.

        python imdb_scripts/eval_clas.py --dir_path=data/imdb --lm_id=small --split=test

    The sizes, bptt and max_len are those that the classifier was trained with.
    """
    flags = dict(locals())
    folder = DataFolder(dir_path or names.project_root() / "data" / "imdb")
    made_by = names.command("train_clas", dir_path=folder.path, lm_id=lm_id, clas_id=clas_id, backwards=backwards,
                            bpe=bpe, train_file_id=train_file_id, seed=seed)
    ids = vocab.check_current(folder, bpe, then=(made_by,))
    asked = lineage(flags)
    source, = asked.reads["classifier"]
    classifier_facts = records.read_manifest(source, made_by)
    inputs = {"classifier": records.artefact_input(source, made_by, content=True),
              "ids": records.artefact_input(folder.ids(bpe), vocab.tok2id_command(folder, bpe))}
    run = records.open_run(eval_clas, asked.run_id, flags, inputs, dataset=folder.name)
    if run.reused:
        return
    with run:
        from ulmfit import classifier

        device, _ = run.use_machine(cuda_id, threads)
        model = classifier.load(source, ids["vocab_fingerprint"])
        scores = classifier.evaluate(run, model, folder, classifier_facts, split=split, bs=bs, device=device,
                                     precision=run.use_precision(precision, device))
        confusion = scores.pop("confusion")
        run.finish({"best": scores, "last": scores}, split=split, classes=classifier_facts["classes"],
                   confusion=confusion)
        run.say(f"{split} error {scores['error']:.2f}% of {scores['n']:,} documents: {names.portable(run.folder)}",
                important=True)


def lineage(flags: dict) -> Lineage:
    """What a run of these flags reads and writes; see `ulmfit.lineage`."""
    folder = DataFolder(flags["dir_path"] or names.project_root() / "data" / "imdb")
    name = names.clas_name(*(flags[part] for part in ("backwards", "bpe", "lm_id", "clas_id", "train_file_id", "seed")))
    return Lineage(eval_clas, names.run_id(folder.name, "eval_clas", *name.split(names.SEPARATOR)[1:], flags["split"]),
                   folder.name, flags,
                   {"classifier": (folder.model(name),), "ids": (folder.ids(flags["bpe"]),)})


if __name__ == "__main__":
    cli.main(eval_clas)
