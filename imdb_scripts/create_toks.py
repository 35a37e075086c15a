#!/usr/bin/env python
"""Tokenizes a dataset: `{split}.csv` to `word/tokens/{split}.txt`, or to subwords in `bpe/tokens/`."""

import csv
import shutil
import time
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Iterator, NamedTuple

from ulmfit import cli, files, names, records
from ulmfit.errors import UsageError, UserError
from ulmfit.lineage import Lineage

SECONDS_BETWEEN_LINES = 5


class Survey(NamedTuple):
    """What has to be known of the csv files before a document is tokenized; `held_out` are rows of train.csv."""

    classes: list[str]
    held_out: set[int]
    n_texts: int
    documents: int


def create_toks(dir_path=None, chunksize=24000, n_lbls=1, lang="en", val_seed=0, bpe=False, sp_type="unigram",
                sp_vocab=30000, sp_model=None, workers=None, results_dir=None, overwrite=False, quiet=False):
    """Tokenizes train.csv, and test.csv, val.csv and unsup.csv where they exist, as fastai's default pipeline does.

    Reads DIR/{split}.csv: UTF-8, no header, a label and one or more text columns; with --n_lbls=0, and in unsup.csv,
    text columns only. Without val.csv, 10% of train.csv is set aside, the same share of every class.

    Writes DIR/word/tokens/: {split}.txt with one document a line, its tokens joined by spaces (a backslash, newline or
    carriage return in a token is written with a backslash), and {split}.documents.csv with each document's id, label,
    number of tokens and a hash of its text. tok2id.py comes next.

    --bpe cuts into subwords instead, in DIR/bpe/tokens/, by a sentencepiece model (spm.model there) trained on the text
    of train (less val) and unsup, or by --sp_model: what a pretrained subword language model was trained with must be
    used again, and --sp_model=data/wiki takes it from the folder of its corpus.

    Example: python create_toks.py --dir_path=data/imdb
             python create_toks.py --dir_path=data/imdb --bpe --sp_model=data/wiki

    Expect a minute or less for IMDb's 100,000 reviews on 2 cores, and less than 1 GB of memory in each process.
    """
    flags = dict(locals())
    from ulmfit import subwords, tokenization, vocab, words

    _check_flags(flags)
    words.check_lang(lang)
    folder = names.DataFolder(names.existing_dir(dir_path or names.project_root() / "data" / "imdb", "dir_path",
                                                 "make it with get_data.py, or put train.csv into it"))
    flags["dir_path"] = str(folder.path)
    paths = {split: folder.csv(split) for split in names.SPLITS if folder.csv(split).exists()}
    if "train" not in paths:
        raise UserError(f"{folder.path} holds no train.csv; make it with get_data.py, or put it there")
    inputs, sources = vocab.source_inputs(paths)
    if sp_model is not None:
        sp_model = subwords.find_model(sp_model)
        subwords.load(sp_model)
        inputs["sp_model"] = subwords.model_input(sp_model)
    asked = lineage(flags)
    run = records.open_run(create_toks, asked.run_id, flags, inputs, artefact=asked.artefact, dataset=folder.name)
    if run.reused:
        return
    with run:
        began = time.monotonic()
        if sp_model is not None:
            sp_model = run.whereabouts(sp_model)
        # They end before memory is asked for, which is known of processes that have ended.
        with tokenization.Processes(workers) as processes:
            processes.prepare(subwords.count_words if bpe and sp_model is None else tokenization.work(lang, sp_model))
            n_lbls_of = {split: 0 if split == "unsup" else n_lbls for split in paths}
            survey = _survey(paths, n_lbls_of, chunksize, val_seed)
            for pattern in ("*.txt", "*.documents.csv", ".*.tmp"):
                for leftover in run.artefact.glob(pattern):
                    leftover.unlink()
            own_model, facts = None, {}
            if bpe:
                own_model, facts = _sentencepiece(run, sp_model, _batches(paths, n_lbls_of, chunksize, survey), survey,
                                                  processes, sp_type=sp_type, sp_vocab=sp_vocab, lang=lang)
            batches = _batches(paths, n_lbls_of, chunksize, survey)
            written, duplicates = _write(run, processes.run(batches, tokenization.work(lang, own_model)), survey)
        seconds = time.monotonic() - began
        documents, total = (sum(split[count] for split in written.values()) for count in ("documents", "tokens"))
        for pair, count in duplicates.items():
            if count:
                later, earlier = pair.split(" in ")
                run.say(f"{count:,} texts of {later} are also in {earlier}", important=True)
        run.say(f"{documents:,} documents, {total:,} tokens in {seconds:.1f} s: "
                f"{documents / seconds:,.0f} documents/s, {total / seconds:,.0f} tokens/s; "
                f"largest process {records.peak_memory_mb():,.0f} MB; {names.portable(run.artefact)}")
        run.finish({"documents_per_second": round(documents / seconds, 1), "tokens_per_second": round(total / seconds)},
                   classes=survey.classes, lang=lang, text_columns=survey.n_texts, splits=written,
                   duplicates=duplicates, sources=sources, **facts)


def _check_flags(flags: dict) -> None:
    """Raises UsageError for flags of subwords that contradict the others."""
    typed = cli.typed_or_changed(create_toks, flags)
    if not flags["bpe"] and (unread := sorted(typed & {"sp_type", "sp_vocab", "sp_model"})):
        raise UsageError(f"--{unread[0]} is of subwords; add --bpe or leave it out")
    if flags["sp_model"] is not None and (unread := sorted(typed & {"lang", "sp_type", "sp_vocab"})):
        raise UsageError(f"--sp_model is a trained model, --{unread[0]} is read to train one; leave one of the two out")


def _sentencepiece(run: records.Run, given: Path | None, batches: Iterator[tuple], survey: Survey,
                   processes: "tokenization.Processes", *, sp_type: str, sp_vocab: int, lang: str) \
        -> tuple[Path, dict]:
    """Puts a sentencepiece model into the run's folder, the given one or one trained on train and unsup.

    Returns its path and what the manifest says of it.
    """
    from ulmfit import subwords, tokenization

    path = run.artefact / names.SENTENCEPIECE
    with files.replacing(path) as temporary:
        if given is not None:
            shutil.copyfile(given, temporary)
        else:
            held_out = {("train", row) for row in survey.held_out}
            documents = (fields for (split, first, _, _), texts in batches if split in ("train", "unsup")
                         for row, fields in enumerate(texts, first) if (split, row) not in held_out)
            # In groups of one size, whatever the chunks of the csv: where words must be dropped, it is between groups.
            groups = ((None, group)
                      for group in iter(lambda: list(islice(documents, tokenization.BATCH_DOCUMENTS)), []))
            counts = subwords.total_counts(part for _, part in processes.run(groups, subwords.count_words))
            run.say(f"training sentencepiece ({sp_type}) on {sum(counts.values()):,} words of train and unsup, "
                    f"{len(counts):,} of them different")
            temporary.write_bytes(subwords.train(counts, sp_type=sp_type, sp_vocab=sp_vocab, lang=lang))
    size = subwords.load(path).get_piece_size()
    if given is not None:
        run.say(f"{size:,} pieces of {names.portable(given)}")
    elif size < sp_vocab:
        run.say(f"this text is too small for --sp_vocab={sp_vocab:,}: {size:,} pieces", important=True)
    return path, {"bpe": True, "sp_vocab_realised": size, "sp_model_sha256": files.sha256(path)}


def _survey(paths: dict[str, Path], n_lbls_of: dict[str, int], chunksize: int, val_seed: int) -> Survey:
    """Reads every csv file once, so that a bad row or label is known before the long part."""
    from ulmfit.corpus import check_no_header, classes_of, encode_labels, read_chunks, validation_rows

    classes, held_out, n_texts, documents = [], set(), None, 0
    for split, path in paths.items():
        labels, first_texts, n_lbls = [], None, n_lbls_of[split]
        for chunk in read_chunks(path, n_lbls, chunksize, n_texts):
            n_texts = n_texts or len(chunk.texts[0])
            first_texts = first_texts or chunk.texts[0]
            labels += chunk.labels
        check_no_header(path, first_texts, labels)
        documents += len(labels)
        if split == "train":
            classes = classes_of(labels) if n_lbls else []
            if "val" not in paths:
                held_out = set(validation_rows(labels, val_seed).tolist())
        elif n_lbls:
            encode_labels(labels, classes, path)
    return Survey(classes, held_out, n_texts, documents)


def _batches(paths: dict[str, Path], n_lbls_of: dict[str, int], chunksize: int, survey: Survey) -> Iterator[tuple]:
    """((split of the csv, first row, labels, text columns), text columns) of some documents at a time."""
    from ulmfit.corpus import read_chunks
    from ulmfit.tokenization import BATCH_DOCUMENTS

    for split, path in paths.items():
        for chunk in read_chunks(path, n_lbls_of[split], chunksize, survey.n_texts):
            for start in range(0, len(chunk.texts), BATCH_DOCUMENTS):
                part = slice(start, start + BATCH_DOCUMENTS)
                yield (split, chunk.first + start, chunk.labels[part], chunk.texts[part]), chunk.texts[part]


def _write(run: records.Run, tokenized: Iterator[tuple], survey: Survey) -> tuple[dict[str, dict], dict[str, int]]:
    """Writes what `tokenize` makes of `_batches`.

    Returns {split: {"documents", "tokens"}} and {"test in train": documents whose text is}.
    """
    from ulmfit import text_hashes
    from ulmfit.corpus import text_hash
    from ulmfit.vocab import DOCUMENT_COLUMNS, DocumentRow

    written: dict[str, dict] = {}
    hashes: dict[str, list[str]] = {}
    began = said = time.monotonic()
    done = 0
    with ExitStack() as stack:
        outputs = {}
        recorded = stack.enter_context(text_hashes.writing(run.folder / text_hashes.FILE))

        def open_split(split: str) -> tuple:
            text, table = (stack.enter_context(files.replacing(run.artefact / f"{split}{suffix}"))
                           for suffix in (".txt", ".documents.csv"))
            rows = csv.writer(stack.enter_context(open(table, "w", encoding="utf-8", newline="")), lineterminator="\n")
            rows.writerow(DOCUMENT_COLUMNS)
            written[split], hashes[split] = {"documents": 0, "tokens": 0}, []
            return stack.enter_context(open(text, "w", encoding="utf-8", newline="\n")), rows

        for (source, first_row, labels, texts), lines in tokenized:
            for row, (label, fields, (line, length)) in enumerate(zip(labels, texts, lines), first_row):
                split = "val" if source == "train" and row in survey.held_out else source
                if split not in outputs:
                    outputs[split] = open_split(split)
                text_file, table = outputs[split]
                mark = text_hash(fields)
                text_file.write(line + "\n")
                table.writerow(DocumentRow(f"{source}:{row}", label, length, mark))
                written[split]["documents"] += 1
                written[split]["tokens"] += length
                hashes[split].append(mark)
                recorded(split, f"{source}:{row}", mark)
            done += len(lines)
            now = time.monotonic()
            if now - said >= SECONDS_BETWEEN_LINES:
                run.say(f"{source}: {done:,} of {survey.documents:,} documents, "
                        f"{done / (now - began):,.0f} documents/s")
                said = now
    splits = [split for split in names.SPLITS if split in written]
    known = {split: set(marks) for split, marks in hashes.items()}
    duplicates = {f"{later} in {earlier}": sum(mark in known[earlier] for mark in hashes[later])
                  for number, later in enumerate(splits) for earlier in splits[:number]}
    return {split: written[split] for split in splits}, duplicates


def lineage(flags: dict) -> Lineage:
    """What a run of these flags reads and writes; see `ulmfit.lineage`."""
    folder = names.DataFolder(flags["dir_path"] or names.project_root() / "data" / "imdb")
    from ulmfit import subwords

    reads = {"train": (folder.csv("train"),)}
    if flags["sp_model"] is not None:
        reads["sp_model"] = subwords.model_places(flags["sp_model"])

    def special() -> dict[str, records.Input]:
        # Besides train.csv whatever there is.
        inputs = {split: records.file_input(folder.csv(split)) for split in names.SPLITS if folder.csv(split).exists()}
        if flags["sp_model"] is not None:
            inputs["sp_model"] = subwords.model_input(subwords.find_model(flags["sp_model"]))
        return inputs

    return Lineage(create_toks, names.run_id(folder.name, "create_toks", names.unit(flags["bpe"])), folder.name, flags,
                   reads, artefact=folder.tokens(flags["bpe"]), special=special)


if __name__ == "__main__":
    cli.main(create_toks)
