"""Shows what a model will see."""

import json
import sys
from itertools import islice

from ulmfit import cli, names, records, vocab
from ulmfit.errors import UsageError, UserError
from ulmfit.names import DataFolder

# Of a batch; --tokens prints the whole split.
SHOWN = 5


def show_batch(dir_path=None, kind="clas", split="train", n=None, backwards=False, bpe=False, tokens=False, bs=64,
               bptt=70, train_file_id="", seed=0, trunc_at=100):
    """Prints the first batch that train_clas or finetune_lm reads, or a split's tokens.

    Reads   dir_path/word/ids, or dir_path/word/tokens for --tokens; with --bpe those in dir_path/bpe.
    Writes  to standard output only; it leaves no record.

        python imdb_scripts/show_batch.py --dir_path=data/imdb
        python imdb_scripts/show_batch.py --dir_path=data/imdb --kind=lm --backwards
        python imdb_scripts/show_batch.py --dir_path=data/imdb --tokens --split=test | head -1

    --kind=clas: documents of the batch with their labels, longest first; padding is left out and counted.
    --kind=lm: rows of the batch, each over its targets, which are one token on. The batch is the one that training
    draws first with the same --seed, --bs and --bptt; for another split than train, the first in its fixed order.
    --tokens: each document as a JSON list of its tokens, a line each, in the order of the csv.
    Tokens stand in the order in which the model reads them, the last one first with --backwards.
    """
    flags = dict(locals())
    if train_file_id and split != "train":
        raise UsageError(f"--train_file_id is a subset of the training documents, not of {split}; leave one of the "
                         f"two out")
    folder = DataFolder(dir_path or names.project_root() / "data" / "imdb")
    if tokens:
        of_batches = cli.typed_or_changed(show_batch, flags) & {"kind", "bs", "bptt", "train_file_id", "seed",
                                                                "trunc_at"}
        if of_batches:
            raise UsageError(f"--tokens prints the documents of a split whole and as they come; it takes no "
                             f"{', '.join(f'--{name}' for name in flags if name in of_batches)}")
        _print_tokens(folder, split, backwards, bpe, n)
        return
    ids = vocab.check_current(folder, bpe)
    if kind == "clas" and split == "unsup":
        raise UsageError("--split=unsup has no labels and no classifier reads it; add --kind=lm or --tokens")
    rows = None
    if train_file_id:
        records.subset_input(folder.subset(train_file_id))
        rows = vocab.read_subset(folder.subset(train_file_id), vocab.load_ids(folder.ids(bpe), "train"))

    from ulmfit import batches

    asked = {"n": n or SHOWN, "backwards": backwards, "bpe": bpe, "bs": bs, "bptt": bptt, "seed": seed,
             "trunc_at": trunc_at}
    if kind == "clas":
        lines = batches.classifier_lines(folder, split, rows, ids["classes"], **asked)
    else:
        lines = batches.language_model_lines(folder, split, rows, **asked)
    for line in lines:
        print(line)


def _print_tokens(folder: DataFolder, split: str, backwards: bool, bpe: bool, n: int | None) -> None:
    """The documents of a token file as JSON lines; nothing heavy is imported for it."""
    from ulmfit.tokens import read_tokens

    made = folder.tokens(bpe)
    manifest = records.read_manifest(made, vocab.create_toks_command(folder, bpe))
    vocab.check_sources(folder, manifest["sources"], bpe)
    if split not in manifest["splits"]:
        raise UserError(f"{made} has no {split} documents (it has {', '.join(manifest['splits'])}); "
                        f"add {split}.csv and run create_toks.py{' --bpe' * bpe} again with --overwrite")
    # JSON is UTF-8; where the output is not, its own escapes keep it readable for a program.
    ascii_only = sys.stdout.encoding.lower() not in ("utf-8", "utf8")
    for document in islice(read_tokens(made / f"{split}.txt"), n):
        print(json.dumps(document[::-1] if backwards else document, ensure_ascii=ascii_only))


if __name__ == "__main__":
    # A terminal that cannot show a character gets its number, not a traceback.
    sys.stdout.reconfigure(errors="backslashreplace")
    cli.main(show_batch)
