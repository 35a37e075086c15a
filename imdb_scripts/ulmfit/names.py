"""The one module in which names and paths are made.

    data/downloads/                                          get_data: what it downloaded
    data/imdb/train.csv ...                                  the corpus
    data/imdb/word/tokens/{split}.txt  {split}.documents.csv  create_toks
    data/imdb/word/ids/{split}.ids.npy ... vocab.json         tok2id
    data/imdb/bpe/tokens/ ids/ spm.model                      the same of subwords, and the sentencepiece model
    data/imdb/subsets/{train_file_id}.txt                     a training subset: one row number of train.csv a line
    data/imdb/models/lm--fwd--word--ID--all--s0/              a language model's weights and checkpoint
    data/imdb/models/clas--fwd--word--ID--all--s0/            a classifier's
    results/runs/imdb--train_clas--fwd--word--ID--all--s0/    a run's record
    results/launch/logs/ claims/ slots/                       what sweeps/launch.py keeps: output of runs, locks
    results/tracking/imdb--train_clas--.../  mlflow.db        what --track leaves on this machine

A name is its fields joined by `--`, which no field may contain, so that two runs that differ in direction, unit,
id, training subset or seed never share a file.
"""

import os
import re
import shlex
import tempfile
from pathlib import Path

from .errors import UsageError, UserError

SPLITS = ("train", "val", "test", "unsup")
SEPARATOR = "--"
DEFAULT_ID = "default"
WHOLE_TRAIN = "all"
SENTENCEPIECE = "spm.model"
_ID = re.compile(r"[A-Za-z0-9_.#+=@,%-]+")


def project_root() -> Path:
    """The checkout that holds `imdb_scripts`; the working folder when the library is installed elsewhere."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "imdb_scripts" / "train_clas.py").exists() else Path.cwd()


def check_id(value: str, flag: str) -> str:
    """Returns `value` when it can stand in a file name; raises UsageError otherwise."""
    if value == "":
        return value
    problem = None
    if "/" in value or "\\" in value or value in (".", ".."):
        problem = "an id names a file inside the data folder and cannot hold a path"
    elif not _ID.fullmatch(value):
        problem = "use letters, digits and _ . # + = @ , % -"
    elif SEPARATOR in value or value.startswith(("-", ".")) or value.endswith("-"):
        problem = "it may not begin with '-' or '.', end with '-', or hold '--'"
    elif len(value) > 60:
        problem = "60 characters at most"
    if problem:
        raise UsageError(f"--{flag}={value!r}: {problem}")
    return value


def direction(backwards: bool) -> str:
    return "bwd" if backwards else "fwd"


def unit(bpe: bool) -> str:
    return "bpe" if bpe else "word"


def portable(path: Path | str) -> str:
    """A path as records show it: relative to the project, or the bare name of what lies outside it.

    An address stays one, without the password or the query (which may hold a key).
    """
    if re.match(r"https?://", str(path), re.IGNORECASE):
        return re.sub(r"^([^/]*//)[^/]*@", r"\1", str(path).partition("?")[0])
    path = Path(path).resolve()
    root = project_root().resolve()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def portable_text(text: str) -> str:
    """A message as records keep it: every absolute path in it as `portable` shows it."""
    # The project's own folder may have a space in its path; any other path ends at the first one.
    root = re.escape(project_root().resolve().as_posix())
    return re.sub(rf"(?<![\w.~:/-])(?:{root})?/[^\s'\":,;()]+", lambda found: portable(found[0]), text)


def shown(path: Path | str) -> str:
    """A path as messages show it: relative to the working folder where it lies below it."""
    path = Path(path).resolve()
    return path.relative_to(Path.cwd()).as_posix() if path.is_relative_to(Path.cwd()) else path.as_posix()


def command(stage: str, **flags: object) -> str:
    """The command that calls a stage, for messages; leaves out the flags whose value is empty, False or 0."""
    words = ["python", shown(project_root() / "imdb_scripts" / f"{stage}.py")]
    words += [f"--{name}" if value is True else f"--{name}={value}" for name, value in flags.items() if value]
    return shlex.join(words)


class DataFolder:
    """The files of one dataset."""

    def __init__(self, path: Path | str):
        self.path = Path(path)

    @property
    def name(self) -> str:
        """The folder's name as it stands in run ids; that of a link, not of what it leads to, as the sweeps say it."""
        name = re.sub(r"[^A-Za-z0-9_.+=@,%-]+", "_", Path(os.path.abspath(self.path)).name)
        return re.sub(r"-{2,}", "-", name).lstrip("-.")[:60].rstrip("-.") or "data"

    @property
    def downloads(self) -> Path:
        """Where get_data keeps what it downloaded, shared by the datasets beside this one."""
        return self.path.resolve().parent / "downloads"

    def csv(self, split: str) -> Path:
        return self.path / f"{split}.csv"

    def tokens(self, bpe: bool = False) -> Path:
        return self.path / unit(bpe) / "tokens"

    def ids(self, bpe: bool = False) -> Path:
        return self.path / unit(bpe) / "ids"

    def subset(self, train_file_id: str) -> Path:
        return self.path / "subsets" / f"{check_id(train_file_id, 'train_file_id')}.txt"

    def model(self, name: str) -> Path:
        return self.path / "models" / name

    def export(self) -> Path:
        return self.path / "export"


def _subset_field(train_file_id: str) -> str:
    """What a name says of the training subset."""
    if check_id(train_file_id, "train_file_id") == WHOLE_TRAIN:
        raise UsageError(f"--train_file_id={WHOLE_TRAIN!r} is the name of the whole training split; leave the flag out")
    return train_file_id or WHOLE_TRAIN


def _fields(kind: str, backwards: bool, bpe: bool, model_id: str, train_file_id: str, seed: int) -> str:
    check_id(model_id, "lm_id")
    return SEPARATOR.join((kind, direction(backwards), unit(bpe), model_id or DEFAULT_ID,
                           _subset_field(train_file_id), f"s{seed}"))


def lm_name(backwards: bool, bpe: bool, lm_id: str, train_file_id: str, seed: int) -> str:
    """A fine-tuned language model; its folder is `DataFolder.model(name)`."""
    return _fields("lm", backwards, bpe, lm_id, train_file_id, seed)


def pretrained_name(backwards: bool, bpe: bool, pretrain_id: str, seed: int) -> str:
    """A language model of pretrain_lm, in the folder of the corpus that it was trained on."""
    return _fields("pretrained", backwards, bpe, check_id(pretrain_id, "pretrain_id"), "", seed)


def clas_name(backwards: bool, bpe: bool, lm_id: str, clas_id: str | None, train_file_id: str, seed: int) -> str:
    """A classifier; without a `clas_id` of its own it takes the language model's id."""
    if clas_id is not None:
        check_id(clas_id, "clas_id")
    return _fields("clas", backwards, bpe, lm_id if clas_id is None else clas_id, train_file_id, seed)


def baseline_name(model: str, ngrams: int, train_file_id: str, seed: int) -> str:
    """A linear baseline; it has no direction, for n-grams are counted alike from either end."""
    return SEPARATOR.join(("baseline", unit(False), f"{model}-{ngrams}grams", _subset_field(train_file_id),
                           f"s{seed}"))


def sample_name(n: int, seed: int, train_file_id: str) -> str:
    """The `train_file_id` of a balanced subset: `100`, `100-s1` with another seed than 0, unless it is typed."""
    return _subset_field(train_file_id or (str(n) if seed == 0 else f"{n}-s{seed}"))


def intermediate_name(clas: str) -> str:
    """The classifier as it stood after the gradual steps, kept for `startat=1`."""
    return clas + SEPARATOR + "intermediate"


def is_intermediate(name: str) -> bool:
    return name.endswith(intermediate_name(""))


def start_name(lm: str) -> str:
    """A language model set aside because `startat=1` goes on from it under the same name."""
    return lm + SEPARATOR + "start"


def run_id(dataset: str, stage: str, *fields: str) -> str:
    """The name of a run's folder: dataset, stage, then what tells it from its siblings."""
    return SEPARATOR.join((dataset, stage, *fields))


def results_folder(results_dir: Path | str | None) -> Path:
    """The folder typed; without one what the variable RESULTS holds, which the sweeps read too (relative to the
    project), else the project's `results`."""
    return Path(results_dir) if results_dir else project_root() / (os.environ.get("RESULTS") or "results")


def run_folder(results_dir: Path | str, run: str) -> Path:
    return Path(results_dir) / "runs" / run


def launch_log(results_dir: Path, run: str) -> Path:
    """Where sweeps/launch.py keeps what a run printed."""
    return results_dir / "launch" / "logs" / f"{run}.log"


def launch_slot(slot: str) -> Path:
    """The file that a launch locks for as long as it uses a GPU, or one of the groups of CPU cores, of this machine;
    the same for all of a user's checkouts and results folders."""
    folder = os.environ.get("XDG_RUNTIME_DIR", "")
    # A batch job keeps the variable of the shell that sent it, without the folder.
    if not os.access(folder, os.W_OK | os.X_OK):
        folder = tempfile.gettempdir()
    return Path(folder) / f"ulmfit-ablations-{os.getuid()}" / slot


def launch_claim(results_dir: Path, run: str) -> Path:
    """The file that a launch locks for as long as a run of its lives."""
    return results_dir / "launch" / "claims" / run


def launch_begun(results_dir: Path, run: str) -> Path:
    """The file in which a run's job on a cluster writes its number when it begins."""
    return results_dir / "launch" / "begun" / run


def tracking_folder(run_folder: Path) -> Path:
    """Where a tracker keeps what it has of a run: beside the records, which stay small."""
    return run_folder.parents[1] / "tracking" / run_folder.name


def export_files(folder: Path, export_id: str, backwards: bool, bpe: bool = False) -> tuple[Path, ...]:
    """The files of a language model in fastai's form: weights, vocabulary, encoder; for subwords sentencepiece's."""
    name = f"{check_id(export_id, 'export_id')}-{direction(backwards)}" + "-bpe" * bpe
    return (folder / f"{name}.pth", folder / f"{name}.pkl", folder / f"{name}_encoder.pth",
            *([folder / f"{name}.model"] if bpe else []))


def foreign_files(folder: Path, backwards: bool, pretrain_id: str) -> list[tuple[str, Path, tuple[Path, ...]]]:
    """Where a pretrained language model of fastai would lie in a folder.

    Returns (generation, weights, the places its vocabulary may have); an archive holds its vocabulary itself.
    """
    way, words = direction(backwards), f"itos_{check_id(pretrain_id, 'pretrain_id')}.pkl"
    files = []
    for place in (folder, folder / "models"):
        files += [("fastai v1/v2 archive", place / f"{pretrain_id}-{way}.tgz", ()),
                  ("fastai v1/v2 pair", place / f"{pretrain_id}-{way}.pth", (place / f"{pretrain_id}-{way}.pkl",)),
                  ("fastai v1/v2 pair", place / f"lstm_{way}.pth", (place / words,)),
                  # The 2018 scripts kept weights in models and vocabularies in tmp.
                  ("fastai 0.7", place / f"{way}_{pretrain_id}.h5", (place / words, folder / "tmp" / words))]
        if not backwards and pretrain_id not in ("fwd", "bwd"):
            # v1 began with one model, which reads forward, and no direction in its name.
            files.append(("fastai v1/v2 pair", place / f"lstm_{pretrain_id}.pth", (place / words,)))
    return files


def existing_dir(path: Path | str, flag: str, hint: str) -> Path:
    """Returns the folder; raises UserError that names the flag and what would make it."""
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"--{flag}: there is no folder {path}; {hint}")
    return path
