"""Predicts texts of one's own with a trained classifier."""

import sys

from ulmfit import cli, names, records
from ulmfit.errors import UsageError, UserError
from ulmfit.names import DataFolder


def predict_with_classifier(text=None, dir_path=None, cuda_id=None, lm_id="", clas_id=None, bs=64, backwards=False,
                            bpe=False, csv=None, column=None, train_file_id="", seed=0, threads=None):
    """Prints the class of a text and the probability of every class.

    Reads   dir_path/models/clas--.../ (train_clas), and the text: the argument, a column of --csv, or standard input
            with a text a line.
    Writes  a csv to standard output: class, then p:CLASS for every class; one line a text, in their order.

        python imdb_scripts/predict_with_classifier.py "A fine film." --dir_path=data/imdb --lm_id=small

    Texts go the way of create_toks: same rules, same vocabulary, same direction as in training. Of a csv with a
    header --column is the name, of one without the number (from 0); several, separated by commas, where the
    classifier was trained on several text columns.
    """
    if text is not None and csv is not None:
        raise UsageError("a text and --csv exclude each other; give one of them")
    if (column is None) != (csv is None):
        raise UsageError("--csv and --column go together: the file, and which column of it holds the text")
    folder = DataFolder(dir_path or names.project_root() / "data" / "imdb")
    source = folder.model(names.clas_name(backwards, bpe, lm_id, clas_id, train_file_id, seed))
    facts = records.read_manifest(source, names.command("train_clas", dir_path=folder.path, lm_id=lm_id,
                                                        clas_id=clas_id, backwards=backwards,
                                                        bpe=bpe, train_file_id=train_file_id, seed=seed))
    from ulmfit import corpus

    if text is not None:
        rows = [[text]]
    elif csv is not None:
        rows = corpus.read_columns(csv, column.split(","))
    else:
        if sys.stdin.isatty():
            print("a text a line; end with Ctrl-D", file=sys.stderr)
        rows = [[line] for line in corpus.read_lines(sys.stdin.buffer, "standard input")]
    if not rows:
        raise UserError("there is no text to predict; give one as an argument, by --csv, or on standard input")
    if len(rows[0]) != facts["text_columns"]:
        raise UserError(f"this classifier was trained on {facts['text_columns']} text columns and got {len(rows[0])}; "
                        f"name them as --csv=FILE --column=A,B")

    from ulmfit import classifier, machine

    machine.set_threads(threads)
    probabilities = classifier.predict_texts(source, rows, bs=bs, device=machine.pick_device(cuda_id))
    classifier.print_predictions(probabilities, facts["classes"])


if __name__ == "__main__":
    cli.main(predict_with_classifier)
