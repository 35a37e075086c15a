"""Predicts texts of one's own with a trained classifier."""

import sys
from pathlib import Path

from ulmfit import cli, names, records
from ulmfit.errors import UsageError
from ulmfit.names import DataFolder


def predict_with_classifier(text=None, dir_path=None, cuda_id=None, lm_id="", clas_id=None, bs=64, backwards=False,
                            bpe=False, csv=None, column=None, train_file_id="", seed=0, header="auto", output=None,
                            probabilities=True, overwrite=False, ensemble=False, models=None, itos_filename=None,
                            trained_classifier_filename=None, num_classes=None, threads=None):
    """Prints the class of a text and the probability of every class.

    Reads   dir_path/models/clas--.../ (train_clas), and the text: the argument, a column of --csv, or standard input
            with a text a line. In a terminal it asks for texts and answers each at once.
    Writes  a csv to standard output: class, then p:CLASS for every class; one line a text, in their order.
            With --output the whole csv file, its rows and columns untouched, and as further columns predicted and
            p:CLASS for every class.

        python imdb_scripts/predict_with_classifier.py "A fine film." --dir_path=data/imdb --lm_id=small
        python imdb_scripts/predict_with_classifier.py --csv=new.csv --column=review --output=answered.csv --ensemble
        python imdb_scripts/predict_with_classifier.py itos.pkl clas_1.h5

    Texts go the way of create_toks: same rules, same vocabulary, same direction as in training. Of a csv with a
    header --column is the name, of one without the number (from 0); several, separated by commas, where the
    classifier was trained on several text columns. --ensemble averages the probabilities of the forward and the
    backward classifier, --models those of any that have the same classes, as words and subwords.

    The last example is the call of 2018: ITOS CLASSIFIER [NUM_CLASSES] by position, or --itos_filename,
    --trained_classifier_filename and --num_classes. The files are of fastai 0.7, whose classes are 0, 1, ..., or
    vocab.json and weights.safetensors of a classifier of ours.
    """
    flags = dict(locals())
    from ulmfit import corpus, prediction

    if itos_filename is None and trained_classifier_filename is None and prediction.is_2018_call(text, dir_path):
        itos_filename, trained_classifier_filename, text, dir_path = text, dir_path, None, None
        flags.update(dir_path=None)
        # By position 2018's third value was the number of classes.
        if cuda_id is not None and num_classes is None and not cli.by_name("cuda_id"):
            num_classes, cuda_id = cuda_id, None
    _check(flags, text, itos_filename, trained_classifier_filename, num_classes)

    if output is not None:
        prediction.check_output(Path(output), csv, overwrite)

    if itos_filename is not None:
        sources = [prediction.by_file_names(Path(itos_filename), Path(trained_classifier_filename), num_classes,
                                            backwards)]
    else:
        folder = DataFolder(dir_path or names.project_root() / "data" / "imdb")
        if models is not None:
            sources = prediction.listed(folder, models)
        else:
            sources = [prediction.trained(folder, names.clas_name(way, bpe, lm_id, clas_id, train_file_id, seed),
                                          names.command("train_clas", dir_path=folder.path, lm_id=lm_id,
                                                        clas_id=clas_id, backwards=way, bpe=bpe,
                                                        train_file_id=train_file_id, seed=seed))
                       for way in ((False, True) if ensemble else (backwards,))]
    prediction.check_alike(sources)
    table = prediction.Table(csv, column.split(","), header) if csv is not None else None
    prediction.check_columns(sources, len(table.columns) if table else 1)

    in_terminal = text is None and table is None and sys.stdin.isatty()
    texts = total = None
    if output is not None:
        total = table.check(prediction.answer_columns(prediction.PREDICTED, sources[0].classes, probabilities))
    elif table is not None:
        table.check(())
        texts = prediction.first_taken(table.texts())
    elif text is not None:
        texts = iter([[text]])
    elif not in_terminal:
        texts = prediction.first_taken([line] for line in corpus.read_lines(sys.stdin.buffer, "standard input"))

    from ulmfit import machine

    machine.set_threads(threads)
    answers = prediction.Ensemble(sources, bs=bs, device=machine.pick_device(cuda_id))
    if output is not None:
        counts = prediction.write_table(answers, table, Path(output), total, probabilities)
        print(f"{output}: {counts.total():,} texts, "
              + corpus.shortened([f"{name}: {counts[name]:,}" for name in answers.classes]))
    elif in_terminal and sys.stdout.isatty():
        prediction.converse(answers)
    else:
        if in_terminal:
            print("a text a line; end with Ctrl-D", file=sys.stderr)
            texts = ([line] for line in corpus.read_lines(sys.stdin.buffer, "standard input"))
        prediction.print_answers(answers, texts, probabilities, at_once=in_terminal)


def _check(flags: dict, text: str | None, itos: str | None, trained_classifier: str | None,
           num_classes: int | None) -> None:
    """Raises UsageError for flags that contradict each other or come alone."""
    asked = records.non_default(predict_with_classifier, flags)
    if text is not None and "csv" in asked:
        raise UsageError("a text and --csv exclude each other; give one of them")
    if ("column" in asked) != ("csv" in asked):
        raise UsageError("--csv and --column go together: the file, and which column of it holds the text")
    if "csv" not in asked and (alone := [name for name in ("output", "header") if name in asked]):
        raise UsageError(f"--{alone[0]} goes with --csv; standard output can be sent to a file by > FILE")
    if "overwrite" in asked and "output" not in asked:
        raise UsageError("--overwrite replaces the file of --output; name one, or leave it out")
    if "header" in asked and flags["header"] == "no" and not all(place.isdecimal() for place in
                                                                 flags["column"].split(",")):
        raise UsageError("--header=no: --column is a number then, from 0")
    if (itos is None) != (trained_classifier is None):
        raise UsageError("--itos_filename and --trained_classifier_filename go together: vocabulary and weights")
    if itos is None and num_classes is not None:
        raise UsageError("--num_classes goes with --itos_filename and --trained_classifier_filename")
    if "ensemble" in asked and "backwards" in asked:
        raise UsageError("--ensemble takes the forward and the backward classifier; leave out --backwards")
    naming = ["lm_id", "clas_id", "train_file_id", "seed", "bpe", "ensemble"]
    if "models" in asked and (more := [name for name in [*naming, "backwards"] if name in asked]):
        raise UsageError(f"--models names the classifiers in full; leave out --{more[0]}")
    if "models" in asked and not flags["models"].split():
        raise UsageError("--models names no classifier")
    if itos is not None and (more := [name for name in [*naming, "models", "dir_path"] if name in asked]):
        raise UsageError(f"the classifier is given by its files; leave out --{more[0]}")


if __name__ == "__main__":
    # A terminal that cannot show a character gets its number, not a traceback.
    sys.stdout.reconfigure(errors="backslashreplace")
    cli.main(predict_with_classifier)
