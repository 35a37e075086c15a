"""The vocabulary and the numericalized documents: flat arrays of ids, opened without reading them.

A folder of ids stands by itself:

    vocab.json              the words in the order of their ids
    {split}.ids.npy         every document's ids, one after the other; uint16, uint32 when the vocabulary is larger
    {split}.offsets.npy     int64, n + 1: document i is ids[offsets[i]:offsets[i + 1]]
    {split}.labels.npy      the label's place in the manifest's `classes`, -1 without one
    {split}.documents.txt   one document id a line: the csv file it is from and its row, `train:17`
    manifest.json           the run that made it, sizes, classes, fingerprint of the vocabulary
    spm.model               of subwords: the sentencepiece model that cut them
"""

import csv
import hashlib
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Iterable, Iterator, NamedTuple, Sequence

import numpy as np

from . import files, records
from .errors import UserError
from .names import SENTENCEPIECE, SPLITS, DataFolder, command
from .tokens import PAD, SPECIAL_TOKENS, UNK, read_tokens

UNK_ID, PAD_ID = SPECIAL_TOKENS.index(UNK), SPECIAL_TOKENS.index(PAD)
VOCAB = "vocab.json"
DOCUMENT_COLUMNS = ("document", "label", "tokens", "text_hash")


# -- the vocabulary ----------------------------------------------------------------------------------------------------

def make_vocab(counts: Counter, max_vocab: int, min_freq: int) -> list[str]:
    """The special tokens, then the `max_vocab` most frequent words among those with a count above `min_freq`.

    Words of equal count are in the order of their code points, so that the vocabulary depends on the counts alone.
    """
    words = [(-count, word) for word, count in counts.items() if count > min_freq and word not in SPECIAL_TOKENS]
    return [*SPECIAL_TOKENS, *(word for _, word in sorted(words)[:max_vocab])]


def vocab_fingerprint(vocab: Sequence[str]) -> str:
    """16 hex digits of the words and their order."""
    # No token holds a space, so that no two vocabularies join to the same text.
    return hashlib.sha256(" ".join(vocab).encode()).hexdigest()[:16]


def load_vocab(folder: Path, fingerprint: str | None = None) -> list[str]:
    """The words of a folder of ids, or of a model's, in the order of their ids.

    fingerprint: what the ids' manifest or the header of the weights says of them. Raises UserError when the words are
    others.
    """
    path = Path(folder) / VOCAB
    words = files.read_json(path)
    if fingerprint not in (None, vocab_fingerprint(words)):
        raise UserError(f"{path} is not the vocabulary that {folder} was made with; put that one back, or run the "
                        f"stage that made it again with --overwrite")
    return words


def ids_by_word(vocab: Sequence[str]) -> dict[str, int]:
    return {word: number for number, word in enumerate(vocab)}


def id_type(vocab_size: int) -> np.dtype:
    return np.dtype(np.uint16 if vocab_size <= 2**16 else np.uint32)


def numericalize(tokens: Sequence[str], stoi: dict[str, int]) -> np.ndarray:
    """The ids of tokens (in the type that fits the vocabulary); a word outside it is `xxunk`.

    stoi: what `ids_by_word` gives.
    """
    get = stoi.get
    return np.fromiter((get(token, UNK_ID) for token in tokens), id_type(len(stoi)), len(tokens))


# -- the documents -----------------------------------------------------------------------------------------------------

class DocumentRow(NamedTuple):
    """A row of `{split}.documents.csv`, which create_toks writes beside the tokens."""

    document: str
    label: str
    tokens: int
    text_hash: str


def read_document_rows(path: Path) -> Iterator[DocumentRow]:
    with open(path, encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        next(rows, None)
        for document, label, tokens, text_hash in rows:
            yield DocumentRow(document, label, int(tokens), text_hash)


@dataclass(frozen=True)
class Documents:
    """The documents of a split, in the order of the csv file.

    ids: (tokens,) memory-mapped. offsets: (n + 1,). labels: (n,), -1 for a document without one. document_ids: (n,),
    `train:17`, the csv file that a document is from and its row; empty for texts that are no dataset's.
    `documents[i]` is the ids of document i, a view.
    """

    folder: Path
    split: str
    ids: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    document_ids: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> np.ndarray:
        if not 0 <= i < len(self):
            raise IndexError(f"document {i} of {len(self)} in {self.split}")
        return self.ids[self.offsets[i]:self.offsets[i + 1]]


def in_memory(documents: Sequence[np.ndarray]) -> Documents:
    """Numericalized texts that are not a dataset's, without labels."""
    offsets = np.concatenate([[0], np.cumsum([len(document) for document in documents], dtype=np.int64)])
    return Documents(Path(), "", np.concatenate(documents), offsets, np.full(len(documents), -1))


def has_split(folder: Path, split: str) -> bool:
    return (Path(folder) / f"{split}.ids.npy").exists()


def load_ids(folder: Path, split: str) -> Documents:
    """Opens a split, as it is now: tok2id may replace its files later. Raises UserError when the folder has none or its
    files do not fit together."""
    folder = Path(folder)
    path = folder / f"{split}.ids.npy"
    if not path.exists():
        there = [name for name in SPLITS if (folder / f"{name}.ids.npy").exists()]
        raise UserError(f"{folder} has no {split} documents (it has {', '.join(there) or 'none'}); "
                        f"add {split}.csv and run create_toks.py and tok2id.py again with --overwrite")
    try:
        documents = Documents(folder, split, np.load(path, mmap_mode="r"), np.load(folder / f"{split}.offsets.npy"),
                              np.load(folder / f"{split}.labels.npy"),
                              (folder / f"{split}.documents.txt").read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} or its companions cannot be read ({error}); run tok2id.py --overwrite") from error
    if (documents.offsets[-1] != len(documents.ids)
            or not len(documents.labels) == len(documents.document_ids) == len(documents)):
        raise UserError(f"{path} does not fit its offsets, labels and documents; run tok2id.py --overwrite")
    return documents


def read_subset(path: Path, documents: Documents) -> np.ndarray:
    """Numbers, within the train split, of the documents that a subset file names: one row number of train.csv a line.

    Raises UserError with the line for a number that is none, repeated, out of range or set aside for validation.
    """
    place = {document: number for number, document in enumerate(documents.document_ids)}
    rows: dict[int, None] = {}
    # A byte that is no UTF-8 makes its line one that is no number, and the error names it.
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        document = f"train:{line.strip()}"
        if not line.strip().isdecimal() or document not in place:
            raise UserError(f"{path}, line {number}: {line[:40]!r} is not a row of train.csv that training may use "
                            f"(rows count from 0; those set aside for validation are left out)")
        if place[document] in rows:
            raise UserError(f"{path}, line {number}: row {line.strip()} stands there twice")
        rows[place[document]] = None
    if not rows:
        raise UserError(f"{path} names no document")
    return np.array(sorted(rows), dtype=np.int64)


def write_ids(tokens_folder: Path, folder: Path, split: str, stoi: dict[str, int], classes: Sequence[str]) -> dict:
    """Numericalizes a split in a stream; memory is bounded by one document and the list of documents.

    Returns {"documents", "tokens", "unk_rate"} (unk_rate: the share of tokens outside the vocabulary). Raises UserError
    when the token file does not hold what its documents.csv says.
    """
    path = tokens_folder / f"{split}.txt"
    rows = list(read_document_rows(tokens_folder / f"{split}.documents.csv"))
    total = sum(row.tokens for row in rows)
    place = {name: number for number, name in enumerate(classes)}
    unknown = 0
    with files.replacing(folder / f"{split}.ids.npy") as temporary, open(temporary, "wb") as file:
        # The size is known beforehand, so the array is written as it is made instead of being held.
        _write_header(file, id_type(len(stoi)), total)
        read = 0
        for read, tokens in enumerate(read_tokens(path), 1):
            if read > len(rows) or len(tokens) != rows[read - 1].tokens:
                raise UserError(f"{path}: line {read} is not the document that {split}.documents.csv lists there; "
                                f"run create_toks.py --overwrite")
            ids = numericalize(tokens, stoi)
            unknown += int(np.count_nonzero(ids == UNK_ID))
            file.write(ids)
        if read != len(rows):
            raise UserError(f"{path} holds {read} documents and {split}.documents.csv {len(rows)}; "
                            f"run create_toks.py --overwrite")
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([row.tokens for row in rows], out=offsets[1:])
    labels = np.array([place.get(row.label, -1) for row in rows], np.int16 if len(classes) < 2**15 else np.int32)
    for name, array in (("offsets", offsets), ("labels", labels)):
        with files.replacing(folder / f"{split}.{name}.npy") as temporary, open(temporary, "wb") as file:
            _write_header(file, array.dtype, len(array))
            file.write(array)
    files.write_text(folder / f"{split}.documents.txt", "".join(f"{row.document}\n" for row in rows))
    return {"documents": len(rows), "tokens": total, "unk_rate": unknown / total if total else 0.0}


def _write_header(file: BinaryIO, dtype: np.dtype, size: int) -> None:
    """The head of an .npy file of shape (size,). np.save and tofile do not say of a write that fails that the disk is
    full, the file's own `write` does."""
    np.lib.format.write_array_header_1_0(file, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False,
                                                "shape": (size,)})


def count_words(paths: Iterable[Path]) -> Counter:
    """How often each token occurs in token files."""
    counts = Counter()
    for path in paths:
        for tokens in read_tokens(path):
            counts.update(tokens)
    return counts


# -- are they still those of the csv files? ----------------------------------------------------------------------------

def source_inputs(paths: dict[str, Path]) -> tuple[dict[str, records.Input], dict[str, dict]]:
    """The csv files as a run's inputs, and what `check_sources` compares later; both by split."""
    inputs, sources = {}, {}
    for split, path in paths.items():
        stat = path.stat()  # before reading: a file that changes meanwhile is then seen to have changed
        inputs[split] = records.file_input(path)
        sources[split] = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "fingerprint": inputs[split].fingerprint}
    return inputs, sources


def create_toks_command(folder: DataFolder, bpe: bool = False, labelled: bool = True) -> str:
    return command("create_toks", dir_path=folder.path, n_lbls="" if labelled else "0", bpe=bpe)


def tok2id_command(folder: DataFolder, bpe: bool = False) -> str:
    return command("tok2id", dir_path=folder.path, bpe=bpe)


def check_sources(folder: DataFolder, sources: dict[str, dict], bpe: bool = False) -> None:
    """Raises UserError when a csv file is not the one that create_toks read, or has come since.

    sources: the `sources` of the manifest: {split: {"size", "mtime_ns", "fingerprint"}}. A file is read only if its
    size is the same and its time is not. A csv file that is gone is no fault: the ids do not need it.
    """
    again = f"run create_toks.py{' --bpe' * bpe} --overwrite and tok2id.py{' --bpe' * bpe} --overwrite"
    for split in SPLITS:
        path = folder.csv(split)
        if not path.exists():
            continue
        if split not in sources:
            raise UserError(f"{path} has come since create_toks; {again}")
        known, now = sources[split], path.stat()
        if now.st_size == known["size"] and now.st_mtime_ns == known["mtime_ns"]:
            continue
        if now.st_size != known["size"] or records.file_input(path).fingerprint != known["fingerprint"]:
            raise UserError(f"{path} changed since create_toks; {again}")


def check_current(folder: DataFolder, bpe: bool = False, then: Sequence[str] = (), labelled: bool = True) -> dict:
    """The manifest of the ids, after making sure that they are those of the tokens and csv files that are there.

    then: commands that the caller needs after tok2id, for the message. labelled: False where the caller takes a corpus
        without labels, for the message too.

    Raises UserError when the ids are missing or unfinished (it names every command that is missing), or when tokens or
    a csv file changed since.
    """
    ids, tokens = folder.ids(bpe), folder.tokens(bpe)
    if not (ids / records.MANIFEST).exists():
        missing = [tok2id_command(folder, bpe), *then]
        if not (tokens / records.MANIFEST).exists():
            missing.insert(0, create_toks_command(folder, bpe, labelled))
            if not folder.csv("train").exists():
                # wt103 is fastai's weights, of the text wikitext103.
                name = "wikitext103" if folder.name == "wt103" else folder.name
                missing.insert(0, command("get_data", name=name, dir_path=folder.path))
        raise UserError(f"{ids} is missing or unfinished; run first: {'; '.join(missing)}")
    manifest = records.read_manifest(ids, tok2id_command(folder, bpe))
    check_sources(folder, manifest["sources"], bpe)
    if tokens.exists():
        now = records.read_manifest(tokens, create_toks_command(folder, bpe, labelled))
        if now["fingerprint"] != manifest["inputs"]["tokens"]["fingerprint"]:
            raise UserError(f"{tokens} changed since tok2id; run tok2id.py{' --bpe' * bpe} --overwrite")
    sentencepiece_of(ids, manifest)
    return manifest


def of_either_unit(folder: DataFolder) -> tuple[dict, bool]:
    """The manifest of the ids of words, or of subwords where there are no words, and whether it is the latter.

    For what takes only labels and documents' ids, which are the same in both. Raises UserError as `check_current`.
    """
    bpe = not (folder.ids() / records.MANIFEST).exists() and (folder.ids(bpe=True) / records.MANIFEST).exists()
    return check_current(folder, bpe), bpe


def identity(ids: dict) -> dict:
    """Of the manifest of ids, what a model says of the vocabulary it was trained with."""
    return {"bpe": False} | {key: ids[key] for key in ("bpe", "vocab_size", "vocab_fingerprint", "sp_model_sha256")
                             if key in ids}


def check_same_pieces(folder: DataFolder, ids: dict, source: Path) -> None:
    """Raises UserError when the subwords of a dataset are not those that a pretrained language model learned.

    ids: the manifest of the dataset's ids. source: the language model's folder.
    """
    theirs = records.read_manifest(source, "").get("sp_model_sha256")
    if ids.get("sp_model_sha256") != theirs:
        again = command("create_toks", dir_path=folder.path, bpe=True, sp_model=source / SENTENCEPIECE, overwrite=True)
        raise UserError(f"{folder.path} was cut into subwords by another sentencepiece model than {source} was trained "
                        f"with; cut it again by that one: {again}; then tok2id.py --bpe --overwrite")


def check_same_language(folder: DataFolder, ids: dict, source: Path) -> None:
    """Raises UserError when a dataset's words were cut by the rules of another language than those that a pretrained
    language model learned. Models of earlier versions do not say which.

    ids: the manifest of the dataset's ids. source: the language model's folder.
    """
    theirs = records.read_manifest(source, "").get("lang")
    if theirs is not None and ids["lang"] != theirs:
        raise UserError(f"{folder.path} was tokenized with --lang={ids['lang']}, the text that {source} learned with "
                        f"--lang={theirs}; run create_toks.py --overwrite with the right --lang on the one that lacks "
                        f"it, and the stages after it")


def copy_vocabulary(ids: Path, artefact: Path, facts: dict) -> None:
    """Gives a model's folder the vocabulary of a folder of ids, and its sentencepiece model where it has one.

    Called once the ids are open and before training, in the hours of which tok2id may make others.

    facts: what the model says of itself, as `identity` among others. Raises UserError as `load_vocab` and
    `sentencepiece_of`.
    """
    files.write_json(artefact / VOCAB, load_vocab(ids, facts["vocab_fingerprint"]))
    if (sp_model := sentencepiece_of(ids, facts)) is not None:
        with files.replacing(artefact / sp_model.name) as temporary:
            shutil.copyfile(sp_model, temporary)


def sentencepiece_of(folder: Path, facts: dict) -> Path | None:
    """The sentencepiece model of a folder of ids or of a model; None where the tokens are words.

    facts: the folder's manifest or the header of its weights. Raises UserError when the file is gone or another.
    """
    if not facts.get("bpe"):
        return None
    path = Path(folder) / SENTENCEPIECE
    if not path.exists():
        raise UserError(f"{path} is missing: the sentencepiece model that {folder} goes with; run the stage that made "
                        f"it again with --overwrite")
    if files.sha256(path) != facts["sp_model_sha256"]:
        raise UserError(f"{path} is not the sentencepiece model that {folder} was made with; put that one back, or run "
                        f"the stage that made it again with --overwrite")
    return path
