#!/usr/bin/env python
"""Makes the vocabulary and numericalizes: `word/tokens/{split}.txt` to `word/ids/{split}.ids.npy`."""

import shutil
import time
from pathlib import Path

from ulmfit import cli, files, names, records
from ulmfit.errors import UsageError
from ulmfit.lineage import Lineage


def tok2id(dir_path=None, max_vocab=30000, min_freq=1, bpe=False, results_dir=None, overwrite=False, quiet=False):
    """Makes the vocabulary and turns tokens into ids.

    Reads DIR/word/tokens/, which create_toks.py makes. The vocabulary is fastai's special tokens, then the most
    frequent words of what the language model reads (train less val, and unsup) with a count above --min_freq; words
    of equal count are in the order of their code points. With --bpe it reads DIR/bpe/tokens/, and the vocabulary is
    fastai's special tokens, then the pieces of the sentencepiece model.

    Writes DIR/word/ids/ or DIR/bpe/ids/: vocab.json, and for each split flat arrays of ids, offsets and labels, and the
    documents' ids; for subwords also the sentencepiece model.

    Example: python tok2id.py --dir_path=data/imdb

    Expect half a minute for IMDb's 100,000 reviews, and less than 1 GB of memory.
    """
    flags = dict(locals())
    from ulmfit import vocab as vocabulary

    if bpe and (typed := cli.typed_or_changed(tok2id, flags) & {"max_vocab", "min_freq"}):
        raise UsageError(f"--{min(typed)} is of words; the vocabulary of --bpe is that of the sentencepiece model, "
                         f"whose size create_toks --bpe --sp_vocab sets")
    folder = names.DataFolder(names.existing_dir(dir_path or names.project_root() / "data" / "imdb", "dir_path",
                                                 "make it with get_data.py and create_toks.py"))
    flags["dir_path"] = str(folder.path)
    tokens = folder.tokens(bpe)
    made_by = vocabulary.create_toks_command(folder, bpe)
    inputs = {"tokens": records.artefact_input(tokens, made_by)}
    parent = records.read_manifest(tokens, made_by)
    vocabulary.check_sources(folder, parent["sources"], bpe)
    asked = lineage(flags)
    run = records.open_run(tok2id, asked.run_id, flags, inputs, artefact=asked.artefact, dataset=folder.name)
    if run.reused:
        return
    with run:
        began = time.monotonic()
        for pattern in ("*.npy", "*.documents.txt", vocabulary.VOCAB, names.SENTENCEPIECE, ".*.tmp"):
            for leftover in run.artefact.glob(pattern):
                leftover.unlink()
        facts = {}
        if bpe:
            words, facts = _pieces(run, tokens, parent)
        else:
            words = _most_frequent(run, tokens, parent, max_vocab, min_freq)
        files.write_json(run.artefact / vocabulary.VOCAB, words)
        stoi, splits = vocabulary.ids_by_word(words), {}
        for split in parent["splits"]:
            splits[split] = vocabulary.write_ids(tokens, run.artefact, split, stoi, parent["classes"])
            run.say(f"{split}: {splits[split]['documents']:,} documents, {splits[split]['tokens']:,} tokens, "
                    f"{splits[split]['unk_rate']:.2%} outside the vocabulary")
        seconds = time.monotonic() - began
        total = sum(split["tokens"] for split in splits.values())
        run.say(f"{total:,} tokens in {seconds:.1f} s: {total / seconds:,.0f} tokens/s; peak memory "
                f"{records.peak_memory_mb():,.0f} MB; {names.portable(run.artefact)}")
        run.finish({"tokens_per_second": round(total / seconds)},
                   vocab_size=len(words), vocab_fingerprint=vocabulary.vocab_fingerprint(words),
                   classes=parent["classes"], lang=parent["lang"], text_columns=parent["text_columns"], splits=splits,
                   sources=parent["sources"], **facts)


def _most_frequent(run: records.Run, tokens: Path, parent: dict, max_vocab: int, min_freq: int) -> list[str]:
    """The vocabulary of words."""
    from ulmfit import vocab as vocabulary

    language_model_splits = [split for split in ("train", "unsup") if split in parent["splits"]]
    counts = vocabulary.count_words(tokens / f"{split}.txt" for split in language_model_splits)
    words = vocabulary.make_vocab(counts, max_vocab, min_freq)
    run.say(f"vocabulary of {len(words):,}, the special tokens included, from the {len(counts):,} different tokens "
            f"of {' and '.join(language_model_splits)}")
    return words


def _pieces(run: records.Run, tokens: Path, parent: dict) -> tuple[list[str], dict]:
    """The vocabulary of a sentencepiece model, which is copied beside it, and what the manifest says of the model."""
    from ulmfit import subwords
    from ulmfit import vocab as vocabulary

    model = vocabulary.sentencepiece_of(tokens, parent)
    with files.replacing(run.artefact / names.SENTENCEPIECE) as temporary:
        shutil.copyfile(model, temporary)
    words = subwords.vocabulary(model)
    run.say(f"vocabulary of {len(words):,}, the special tokens included, of {names.portable(model)}")
    return words, {"bpe": True, "sp_model_sha256": parent["sp_model_sha256"]}


def lineage(flags: dict) -> Lineage:
    """What a run of these flags reads and writes; see `ulmfit.lineage`."""
    folder, bpe = names.DataFolder(flags["dir_path"] or names.project_root() / "data" / "imdb"), flags["bpe"]
    return Lineage(tok2id, names.run_id(folder.name, "tok2id", names.unit(bpe)), folder.name, flags,
                   {"tokens": (folder.tokens(bpe),)}, artefact=folder.ids(bpe))


if __name__ == "__main__":
    cli.main(tok2id)
