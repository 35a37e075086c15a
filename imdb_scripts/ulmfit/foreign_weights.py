"""Pretrained language models of fastai 0.7, v1 and v2, read by name and without running anything they hold.

    generation     files
    fastai 0.7     fwd_ID.h5 (torch.save, not HDF5) and itos_ID.pkl
    fastai v1/v2   ID-fwd.tgz, which holds one *.pth and one *.pkl; or the two by themselves

Weights go through torch's `weights_only` loader, vocabularies through an unpickler that knows lists of strings alone.
"""

import io
import pickle
import re
import tarfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from . import names, records
from .errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

# What the tokenizer of 0.7 called the special tokens: under these names their rows are found, not the mean's.
OLD_SPECIAL_TOKENS = {"_unk_": "xxunk", "_pad_": "xxpad", "xbos": "xxbos", "xfld": "xxfld", "t_up": "xxup",
                      "tk_rep": "xxrep", "tk_wrep": "xxwrep"}
FILLER = "xxfake"  # v2 pads a vocabulary with it to a multiple of 8
HDF5 = b"\x89HDF\r\n\x1a\n"
LARGEST_MEMBER = 8 * 2**30  # bytes; the largest known model has half a gigabyte, and a member is read into memory


@dataclass(frozen=True)
class ForeignFiles:
    """Where a model lies. vocab: None when the weights are an archive, which holds it."""

    generation: str
    weights: Path
    vocab: Path | None

    def inputs(self) -> dict[str, records.Input]:
        """The files as inputs of a run, each known by its sha256."""
        inputs = {"pretrained": records.file_input(self.weights)}
        return inputs if self.vocab is None else {**inputs, "pretrained_vocab": records.file_input(self.vocab)}

    def read(self) -> "ForeignModel":
        """Reads it all. Raises UserError, with the file and what is wrong, for what is no such model."""
        if self.vocab is None:
            (weights, weights_file), (vocab, vocab_file) = _members(self.weights)
            tensors, words = _load_weights(weights_file, weights), _load_words(vocab_file, vocab)
        else:
            weights, vocab = str(self.weights), str(self.vocab)
            with _opened(self.weights) as weights_file, _opened(self.vocab) as vocab_file:
                tensors, words = _load_weights(weights_file, weights), _load_words(vocab_file, vocab)
        tensors, sizes = _language_model(tensors, weights)
        rows = len(tensors["0.encoder.weight"])
        if len(words) != rows:
            raise UserError(f"{vocab} has {len(words):,} words, and {weights} has {rows:,} rows; they do not belong "
                            f"together")
        return ForeignModel(self.generation, tensors, sizes, words)


@dataclass(frozen=True)
class ForeignModel:
    """A language model under `models.language_model`'s names, all three of the embedding's among them.

    sizes: emb_sz, n_hid, n_layers, read from the tensors. words: the vocabulary, one a row.
    """

    generation: str
    tensors: dict[str, "Tensor"]
    sizes: dict[str, int]
    words: list[str]

    def arranged(self, vocab: list[str]) -> tuple[dict[str, "Tensor"], dict[str, int]]:
        """The tensors for another vocabulary, by word; a word that has no row gets the mean vector and mean bias.

        Returns them and the counts {"matched", "filled", "aliased"}; the aliased, special tokens found by their old
        name, are among the matched.
        """
        from . import weights

        there = set(self.words)
        aliases = {old: new for old, new in OLD_SPECIAL_TOKENS.items() if new not in there}
        # The empty string is no token, so that no word of the dataset takes the row of a filler.
        words = ["" if word == FILLER else aliases.get(word, word) for word in self.words]
        tensors, counts = weights.match_vocabulary(self.tensors, words, vocab)
        aliased = {aliases[word] for word in there & aliases.keys()} & set(vocab)
        return tensors, {**counts, "aliased": len(aliased)}


@dataclass(frozen=True)
class ForeignClassifier:
    """A classifier of fastai 0.7.

    encoder: tensors under `models.language_model`'s names. head: of each of its blocks the tensors of the batch
    normalisation ("bn.weight", ...) and of the linear layer ("lin.weight", "lin.bias"). words: one a row.
    """

    encoder: dict[str, "Tensor"]
    head: list[dict[str, "Tensor"]]
    sizes: dict[str, int]
    words: list[str]

    @property
    def n_classes(self) -> int:
        return len(self.head[-1]["lin.bias"])


def read_classifier(weights: Path, vocab: Path) -> ForeignClassifier:
    """What train_clas of 2018 saved, and its vocabulary. Raises UserError for what is no such classifier."""
    with _opened(weights) as weights_file, _opened(vocab) as vocab_file:
        state, words = _load_weights(weights_file, str(weights)), _load_words(vocab_file, str(vocab))
    blocks: dict[int, dict[str, Any]] = {}
    rest = {}
    for name, tensor in state.items():
        if found := re.fullmatch(r"1\.layers\.([0-9])\.((?:bn|lin)\.\w+)", str(name)):
            blocks.setdefault(int(found[1]), {})[found[2]] = tensor
        else:
            rest[name] = tensor
    if not blocks:
        raise UserError(f"{weights} holds no 1.layers.0.lin.weight; expected a classifier of fastai 0.7, as clas_1.h5")
    tensors, sizes = _language_model(rest, str(weights))
    if len(words) != len(tensors["0.encoder.weight"]):
        raise UserError(f"{vocab} has {len(words):,} words, and {weights} has {len(tensors['0.encoder.weight']):,} "
                        f"rows; they do not belong together")
    head = _head(blocks, 3 * sizes["emb_sz"], str(weights))
    return ForeignClassifier({name: tensor for name, tensor in tensors.items() if name.startswith("0.")}, head, sizes,
                             words)


# -- finding -----------------------------------------------------------------------------------------------------------

def find(folder: Path, backwards: bool, pretrain_id: str) -> ForeignFiles | None:
    """The model of this name and direction in a folder, None when there is none.

    Raises UserError when there are several (nothing says which is meant), or weights without their vocabulary.
    """
    found, alone = [], []
    for generation, weights, places in names.foreign_files(folder, backwards, pretrain_id):
        if weights.is_file():
            vocab = next((place for place in places if place.is_file()), None)
            if places and vocab is None:
                alone.append((weights, places))
            else:
                found.append(ForeignFiles(generation, weights, vocab))
    if len(found) > 1:
        listed = " and ".join(f"{files.weights.relative_to(folder)} ({files.generation})" for files in found)
        raise UserError(f"{folder} holds {listed}; leave one of them there, or name another folder by --pretrain_path")
    if not found and alone:
        weights, places = alone[0]
        raise UserError(f"{weights} has no vocabulary beside it; expected {' or '.join(map(str, places))}")
    return found[0] if found else None


def looked_for(folder: Path, backwards: bool, pretrain_id: str) -> str:
    """The names that `find` looks for, for messages."""
    weights = [path.name for _, path, _ in names.foreign_files(folder, backwards, pretrain_id) if path.parent == folder]
    return f"{', '.join(weights[:-1])} or {weights[-1]} in {folder} or its models folder"


# -- reading -----------------------------------------------------------------------------------------------------------

def _opened(path: Path) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error


def _members(archive: Path) -> list[tuple[str, BinaryIO]]:
    """An archive's one *.pth and one *.pkl, by a name for messages; read into memory, nothing is written."""
    contents: dict[str, tuple[Path, BinaryIO]] = {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                path = Path(member.name)
                # Names that begin with a dot are what macOS adds to an archive.
                if not member.isfile() or path.suffix not in (".pth", ".pkl") or path.name.startswith("."):
                    continue
                if path.suffix in contents:
                    raise UserError(f"{archive} holds {contents[path.suffix][0].name} and {path.name}; expected one "
                                    f"*.pth and one *.pkl")
                if member.size > LARGEST_MEMBER:
                    raise UserError(f"{path.name} in {archive} has {member.size:,} bytes, more than any language model "
                                    f"of this kind")
                contents[path.suffix] = path, io.BytesIO(tar.extractfile(member).read())
    except UserError:
        raise
    except Exception as error:  # a damaged archive may raise what its compression's library raises
        raise UserError(f"{archive} cannot be read as an archive ({_reason(error)}); get it again") from error
    for suffix in (".pth", ".pkl"):
        if suffix not in contents:
            raise UserError(f"{archive} holds no *{suffix}; expected one *.pth and one *.pkl")
    weights = contents[".pth"][0]
    ways = set(re.split("[^a-z]+", weights.stem.lower())) & {"fwd", "bwd"}
    if ways and not archive.stem.endswith(tuple(ways)):
        raise UserError(f"{archive} holds {weights.name}, of the other direction than its own name says; get it again")
    return [(f"{path.name} in {archive}", file) for path, file in (contents[".pth"], contents[".pkl"])]


def _load_weights(file: BinaryIO, shown: str) -> dict[str, Any]:
    """What torch.save wrote; of a model saved with its optimizer, the model."""
    import torch

    if file.read(len(HDF5)) == HDF5:
        raise UserError(f"{shown} is an HDF5 file; fastai 0.7's .h5 files are written by torch.save")
    file.seek(0)
    try:
        # An optimizer's state holds these; it is thrown away, and they with it.
        ignored = [(_Ignored, name) for name in ("fastcore.foundation.L", "numpy.core.multiarray.scalar",
                                                 "numpy._core.multiarray.scalar", "numpy.dtype")]
        with warnings.catch_warnings(), torch.serialization.safe_globals(ignored):
            warnings.simplefilter("ignore")
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file leads torch into
        if unsafe := re.search(r"GLOBAL ([\w.]+)", str(error)):
            _refuse_class(shown, unsafe[1], error)
        raise UserError(f"{shown} cannot be read as weights ({_reason(error)}); it is damaged, or not from "
                        f"torch.save") from error
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        state = state["model"]
    if not isinstance(state, dict):
        raise UserError(f"{shown} holds a {type(state).__name__}; expected the weights of a language model by name")
    return state


class _Ignored:
    """Stands for a class of an optimizer's state: takes any arguments and keeps nothing."""

    def __new__(cls, *_: Any) -> "_Ignored":
        return super().__new__(cls)

    def __init__(self, *_: Any):
        pass

    def __setstate__(self, _: Any) -> None:
        pass


class _FastcoreList:
    """Stands for fastcore's L, as which v2 may have saved a vocabulary: its state is {"items": [...]}."""

    items: Any = None


class _WordsUnpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, shown: str):
        super().__init__(file)
        self.shown = shown

    def find_class(self, module: str, name: str) -> type:
        if (module, name) == ("fastcore.foundation", "L"):
            return _FastcoreList
        _refuse_class(self.shown, f"{module}.{name}")


def _refuse_class(shown: str, name: str, cause: Exception | None = None) -> NoReturn:
    raise UserError(f"{shown} asks for {name}, which could run code, and was not read; expected plain weights (.pth, "
                    f".h5) or a list of words (.pkl)") from cause


def _load_words(file: BinaryIO, shown: str) -> list[str]:
    try:
        words = _WordsUnpickler(file, shown).load()
    except UserError:
        raise
    except Exception as error:  # a damaged pickle may raise anything
        raise UserError(f"{shown} cannot be read as a pickle ({_reason(error)}); get it again") from error
    if isinstance(words, _FastcoreList):
        words = words.items
    if not isinstance(words, (list, tuple)):
        raise UserError(f"{shown} holds a {type(words).__name__}; expected the list of words in the order of the rows")
    for row, word in enumerate(words):
        if not isinstance(word, str):
            raise UserError(f"{shown}: entry {row} (from 0) is a {type(word).__name__}; expected words")
    return list(words)


def _reason(error: Exception) -> str:
    """The beginning of another library's message, up to its first full stop or colon."""
    return re.split(r"[.:](?= |$)", " ".join(str(error).split()))[0][:120] or type(error).__name__


# -- by name -----------------------------------------------------------------------------------------------------------

def _our_name(name: str) -> str:
    name = name.replace("0.encoder_with_dropout.embed.", "0.encoder_dp.emb.")
    return re.sub(r"^(0\.rnns\.\d+)\.module(\.weight_hh_l0_raw)$", r"\1\2", name)


def _language_model(state: dict[str, Any], shown: str) -> tuple[dict[str, "Tensor"], dict[str, int]]:
    """The tensors under our names, and the sizes they have.

    Without a decoder bias (0.7 had none) it is zero. Raises UserError when one is missing, unknown, of another shape,
    or when the decoder is not tied to the embedding.
    """
    import torch

    from . import weights

    # v1 also saved the recurrent weights as dropout had left them at the last step, beside the raw ones.
    state = {_our_name(str(name)): tensor for name, tensor in state.items()
             if f"{str(name).replace('.module.', '.')}_raw" not in state and f"{name}_raw" not in state}
    for name, tensor in state.items():
        if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided or not tensor.is_floating_point():
            raise UserError(f"{shown}: {name} is not a dense tensor of floats; expected weights of a language model")
    embedding, recurrent = weights.EMBEDDING[0], "0.rnns.0.weight_hh_l0_raw"
    for name in (embedding, recurrent):
        if name not in state:
            raise UserError(f"{shown} lacks {name}; expected an AWD-LSTM language model of fastai")
        if state[name].dim() != 2:
            raise UserError(f"{shown}: {name} has {state[name].dim()} dimensions; expected 2")
    (rows, emb_sz), n_hid = state[embedding].shape, state[recurrent].shape[1]
    n_layers = len({name.split(".")[2] for name in state if name.startswith("0.rnns.")})

    shapes = {**{name: (rows, emb_sz) for name in weights.EMBEDDING}, "1.decoder.bias": (rows,)}
    for layer in range(n_layers):
        inputs, outputs = emb_sz if layer == 0 else n_hid, emb_sz if layer == n_layers - 1 else n_hid
        shapes |= {f"0.rnns.{layer}.weight_hh_l0_raw": (4 * outputs, outputs),
                   f"0.rnns.{layer}.module.weight_ih_l0": (4 * outputs, inputs),
                   f"0.rnns.{layer}.module.bias_ih_l0": (4 * outputs,),
                   f"0.rnns.{layer}.module.bias_hh_l0": (4 * outputs,)}
    if more := sorted(state.keys() - shapes.keys()):
        raise UserError(f"{shown} holds {more[0]}, which an AWD-LSTM language model lacks")
    for name, shape in shapes.items():
        if name not in state and name not in (*weights.EMBEDDING, "1.decoder.bias"):
            raise UserError(f"{shown} lacks {name}; expected an AWD-LSTM language model of {n_layers} layers")
        if name in state and state[name].shape != shape:
            raise UserError(f"{shown}: {name} is {tuple(state[name].shape)}; expected {shape}")
    for name in weights.EMBEDDING[1:]:
        if name in state and not torch.equal(state[name], state[embedding]):
            raise UserError(f"{shown}: {name} differs from {embedding}; only models with tied weights can be read")

    tensors = {name: state[name].detach().float().contiguous() for name in shapes
               if name in state and name not in weights.EMBEDDING[1:]}
    tensors.setdefault("1.decoder.bias", torch.zeros(rows))
    return weights.tied(tensors), {"emb_sz": emb_sz, "n_hid": n_hid, "n_layers": n_layers}


def _head(blocks: dict[int, dict[str, Any]], width: int, shown: str) -> list[dict[str, "Tensor"]]:
    """The blocks of a classifier's head in their order; each must take what the one before it gives.

    width: what the first one takes.
    """
    import torch

    head = []
    for number in range(max(blocks) + 1):
        block = blocks.get(number, {})
        bias = block.get("lin.bias")
        outputs = len(bias) if isinstance(bias, torch.Tensor) and bias.dim() == 1 else 0
        shapes = {**{f"bn.{name}": (width,) for name in ("weight", "bias", "running_mean", "running_var")},
                  "lin.weight": (outputs, width), "lin.bias": (outputs,)}
        for name, shape in shapes.items():
            tensor = block.get(name)
            if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point() or tensor.shape != shape:
                found = tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else "missing"
                raise UserError(f"{shown}: 1.layers.{number}.{name} is {found}; expected {shape}, of floats")
        head.append({name: block[name].detach().float() for name in shapes})
        width = outputs
    return head
