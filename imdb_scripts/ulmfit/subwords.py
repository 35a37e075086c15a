"""Subword tokens by sentencepiece, on the text as fastai's rules leave it and with fastai's special tokens.

A sentencepiece model is one file, `spm.model`. It lies with the tokens it made, and a copy with the ids and with every
language model and classifier trained on them, so that each can tokenize text by itself.
"""

import io
from collections import Counter
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Iterable, Iterator, Sequence

from . import files, records, tokens
from .errors import UserError
from .names import SENTENCEPIECE, DataFolder

# sentencepiece writes the space before a word as this character.
SPACE = "\u2581"
_WHOLE = tuple(SPACE + token for token in tokens.SPECIAL_TOKENS)

# Distinct words counted are kept within this many characters (some 100 MB here, 400 MB in training bpe); the rarest go
# first. IMDb's 72,500 reviews of train and unsup have 3.5 million.
CAPACITY = 6_000_000
# What unigram is trained on at most: sentencepiece writes every occurrence out, at some 20 bytes a character.
UNIGRAM_CHARACTERS = 20_000_000
# Text without spaces (Chinese, a broken file) comes as one enormous word; sentencepiece would skip it.
LONGEST_WORD = 200
WORDS_A_LINE = 100
# The sums of sentencepiece's training depend on the number of threads; one number gives one result on every machine.
_THREADS = 4


# -- training ----------------------------------------------------------------------------------------------------------

def count_words(rows: Sequence[Sequence[str]]) -> Counter:
    """How often each run without white space occurs in documents (lists of text columns), after fastai's rules.

    Special tokens are left out: sentencepiece gets them as symbols. Longer runs than LONGEST_WORD are cut.
    """
    rules, special, counts = tokens.text_rules(), frozenset(tokens.SPECIAL_TOKENS), Counter()
    for fields in rows:
        for word in tokens.prepared(fields, rules).split():
            if len(word) > LONGEST_WORD:
                counts.update(word[start:start + LONGEST_WORD] for start in range(0, len(word), LONGEST_WORD))
            elif word not in special:
                counts[word] += 1
    return counts


def total_counts(parts: Iterable[Counter], capacity: int = CAPACITY) -> Counter:
    """The sum of counters in bounded memory.

    When the distinct words amount to more than `capacity` characters, those with the lowest counts are dropped until
    half is left, so that what is lost are rare words; words of equal count are dropped in the order of their code
    points, so that the sum depends on nothing but the counters in their order.
    """
    total, characters = Counter(), 0
    for counts in parts:
        for word, count in counts.items():
            if word not in total:
                characters += len(word)
            total[word] += count
        if characters > capacity:
            kept, characters = Counter(), 0
            for word, count in sorted(total.items(), key=lambda item: (-item[1], item[0])):
                if characters + len(word) > capacity // 2:
                    break
                kept[word] = count
                characters += len(word)
            total = kept
    return total


def scaled(counts: Counter, characters: int = UNIGRAM_CHARACTERS) -> Counter:
    """The counts divided by one number, so that all occurrences amount to `characters` at most.

    What rounding takes from a word goes to the next ones in the order of their code points: rare words stay as many as
    they are together, and each is there or not. On IMDb (91 million characters) pieces of the scaled counts cut reviews
    into 0.1% more tokens than those of all.
    """
    share = min(1.0, characters / sum((len(word) + 1) * count for word, count in counts.items()))
    result, rest = Counter(), 0.0
    for word, count in sorted(counts.items()):
        rest += count * share
        whole = int(rest)
        rest -= whole
        if whole:
            result[word] = whole
    return result


def _lines(counts: Counter) -> Iterator[str]:
    """Words as sentencepiece's tsv, `text <tab> count`, in a fixed order.

    unigram takes as candidates the strings that go on in two ways. So a word that occurs twice stands in two places,
    alone and among others: at the end of a line in both, it would be no candidate unless longer words begin with it.
    """
    line = []
    for word, count in sorted(counts.items()):
        if count > 1:
            yield f"{word}\t{count - 1}"
        line.append(word)
        if len(line) == WORDS_A_LINE:
            yield " ".join(line) + "\t1"
            line = []
    if line:
        yield " ".join(line) + "\t1"


def train(counts: Counter, *, sp_type: str, sp_vocab: int, lang: str) -> bytes:
    """Trains a sentencepiece model on words and their counts; returns the content of `spm.model`.

    sentencepiece itself cuts sentences at their spaces and counts the words before it trains; given the counts it
    needs neither the text in memory nor a limit on the length of a line (by default it skips lines of more than 4,192
    bytes). On 4,000 reviews the pieces of bpe are the same as from the sentences, but for ties, and those of unigram
    cut the text into 2% fewer. Settings are those of fastai's SentencePieceTokenizer. A corpus too small for `sp_vocab`
    pieces gives fewer.

    Raises UserError when the text has more different characters than `sp_vocab` has room for, or no words.
    """
    import sentencepiece
    from fastai.text.core import eu_langs

    if not counts:
        raise UserError("train and unsup hold no words to train sentencepiece on; give a model by --sp_model")
    model = io.BytesIO()
    read = scaled(counts) if sp_type == "unigram" else counts
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_lines(read), input_format="tsv", model_writer=model, model_type=sp_type,
            vocab_size=sp_vocab, hard_vocab_limit=False, character_coverage=0.99999 if lang in eu_langs else 0.9998,
            user_defined_symbols=list(_WHOLE), unk_id=len(_WHOLE), pad_id=-1, bos_id=-1, eos_id=-1,
            max_sentence_length=2**30, num_threads=_THREADS, minloglevel=2)
    except (RuntimeError, OSError) as error:
        said = " ".join(str(error).split())
        if "smaller than required_chars" in said:
            needed = said.partition(" vs ")[2].partition(".")[0]
            raise UserError(f"--sp_vocab={sp_vocab} has no room for the {needed} characters and special tokens of this "
                            f"text; take a larger one") from error
        raise UserError(f"sentencepiece cannot be trained on this text: {said[:300]}") from error
    return model.getvalue()


# -- using a model -----------------------------------------------------------------------------------------------------

def _folders(path: Path) -> tuple[Path, ...]:
    """Where --sp_model=FOLDER looks first."""
    folder = DataFolder(path)
    return (path, folder.tokens(bpe=True), folder.ids(bpe=True))


def model_places(path: Path | str) -> tuple[Path, ...]:
    """Every place in which `find_model` may find one: files, and the folders of tokens and ids that hold one."""
    path = Path(path)
    if path.is_file():
        return (path,)
    return (path / SENTENCEPIECE, *_folders(path)[1:], *sorted(path.glob("models/pretrained--*--bpe--*")))


def find_model(path: Path) -> Path:
    """The sentencepiece model that --sp_model names: a file, or a folder that holds one.

    A folder may be a dataset's (its tokens, its ids, or else its one pretrained language model's) or a model's own.
    Raises UserError when there is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    for place in _folders(path):
        if (place / SENTENCEPIECE).is_file():
            return place / SENTENCEPIECE
    brought = sorted(path.glob(f"models/pretrained--*--bpe--*/{SENTENCEPIECE}"))
    if len({model.read_bytes() for model in brought}) == 1:
        return brought[0]
    if brought:
        raise UserError(f"--sp_model={path}: its pretrained language models have different sentencepiece models; name "
                        f"one of {', '.join(str(model) for model in brought)}")
    raise UserError(f"--sp_model={path}: there is no sentencepiece model; expected a file, or a folder in which "
                    f"create_toks --bpe or pretrain_lm --bpe has left {SENTENCEPIECE}")


def model_input(path: Path) -> records.Input:
    """A sentencepiece model as a run's input: known by its bytes, with the run in whose folder it lies.

    Without a run where the folder is no run's, or another model has been put in the place of the run's own.
    """
    given, manifest = records.file_input(path), Path(path).parent / records.MANIFEST
    made = files.read_json(manifest) if manifest.exists() else {}
    return replace(given, run=made["run"]) if records.mark_as("sp_model", made) == given.fingerprint else given


def load(path: Path):
    """A SentencePieceProcessor. Raises UserError for a file that is none, or that cuts fastai's special tokens up."""
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor()
    try:
        # The constructor would take an empty file for no file.
        processor.LoadFromSerializedProto(Path(path).read_bytes())
    except (RuntimeError, OSError) as error:
        raise UserError(f"{path} cannot be read as a sentencepiece model; expected one of create_toks --bpe or of "
                        f"fastai") from error
    for token, whole in zip(tokens.SPECIAL_TOKENS, _WHOLE):
        if processor.encode(token, out_type=str) != [whole]:
            raise UserError(f"{path} does not keep the special token {token} whole; expected a sentencepiece model of "
                            f"create_toks --bpe or of fastai, with {whole} among its user-defined symbols")
    return processor


def vocabulary(path: Path) -> list[str]:
    """fastai's special tokens, then a model's pieces in their own order; `xxunk` stands for what is no piece."""
    processor = load(path)
    pieces = (processor.id_to_piece(number) for number in range(processor.get_piece_size())
              if not processor.is_unknown(number) and not processor.is_control(number))
    special = frozenset((*_WHOLE, *tokens.SPECIAL_TOKENS))
    return [*tokens.SPECIAL_TOKENS, *(piece for piece in pieces if piece not in special)]


class SubwordTokenizer:
    """Text columns of a document to pieces: those of fastai's SentencePieceTokenizer with the same model, but that
    special tokens are written as in word tokens (`xxmaj`, not `\u2581xxmaj`). A character that is no piece comes as
    itself.

    Raises UserError when the model cannot be used.
    """

    def __init__(self, path: Path):
        self._processor, self._rules = load(path), tokens.text_rules()
        self._special = dict(zip(_WHOLE, tokens.SPECIAL_TOKENS))

    def __call__(self, fields: Sequence[str]) -> list[str]:
        special = self._special
        pieces = self._processor.encode(tokens.prepared(fields, self._rules), out_type=str)
        # A model that does not write spaces as its own character may leave some in a piece.
        return [special.get(piece) or piece.replace(" ", SPACE) for piece in pieces]

    def lines(self, rows: Iterable[Sequence[str]]) -> Iterator[str]:
        """The pieces of documents, each as a line of a token file. rows: one list of text columns a document."""
        return (tokens.encode_line(self(fields)) for fields in rows)


def words_of(pieces: Sequence[str]) -> list[str]:
    """Pieces put together to the words they were cut from; special tokens stand alone."""
    special = frozenset(tokens.SPECIAL_TOKENS)
    # A special token ends a word, whatever follows it.
    text = "".join(chain.from_iterable((SPACE, piece, SPACE) if piece in special else (piece,) for piece in pieces))
    return text.replace(SPACE, " ").split()
