"""The runs in a results folder, each with what it descends from and whether it still stands."""

import json
import os
import socket
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Iterator

from ulmfit import names, records
from ulmfit.errors import UserError

_KEYS = ("id", "stage", "stage_version", "status", "error", "fingerprint", "config", "inputs", "parents", "metrics",
         "started", "wall_seconds", "sessions")


def results_folder(results_dir: str | None) -> Path:
    """The folder typed, which must exist, or that of `names.results_folder`."""
    if results_dir is None:
        return names.results_folder(None)
    return names.existing_dir(results_dir, "results_dir", "expected the folder that holds `runs`")


def state(record: dict) -> str:
    """The record's status, but `stopped` for a run whose process ended without a word (killed, power cut).

    Of a run on another machine only its record is known.
    """
    if record["status"] != "running":
        return record["status"]
    session = record["sessions"][-1]
    if session["host"] != socket.gethostname():
        return "running"
    try:
        os.kill(session["pid"], 0)
    except ProcessLookupError:
        return "stopped"
    except PermissionError:
        pass
    return "running"


@dataclass(eq=False)
class Run:
    """A run's folder and its record, as JSON gives it."""

    folder: Path
    record: dict

    @property
    def id(self) -> str:
        return self.record["id"]

    @property
    def stage(self) -> str:
        return self.record["stage"]

    @property
    def dataset(self) -> str | None:
        return self.record.get("dataset")

    @property
    def config(self) -> dict:
        """The flags that change the result and differ from their default, sizes as the weights have them."""
        return self.record["config"]

    @cached_property
    def state(self) -> str:
        return state(self.record)

    def metric(self, name: str, which: str = "last") -> float | None:
        """A number of the record at the last or the best epoch, None when it has none."""
        return (self.record["metrics"].get(which) or {}).get(name)

    def epochs(self) -> list[dict]:
        """The rows of metrics.jsonl; a line cut off by a power cut is left out."""
        path, rows = self.folder / "metrics.jsonl", []
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return rows


@dataclass
class Archive:
    """All runs below `folder`/runs by id, and a line for each folder that could not be read."""

    folder: Path
    runs: dict[str, Run] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    _stale: dict[str, str | None] = field(default_factory=dict)

    @cached_property
    def _sentencepiece(self) -> dict[str, list[Run]]:
        """The runs that trained a sentencepiece model, by its fingerprint as an input."""
        found: dict[str, list[Run]] = {}
        for run in self:
            mark = records.mark_as("sp_model", run.record)
            if run.stage == "create_toks" and mark and "sp_model" not in run.record["inputs"]:
                found.setdefault(mark, []).append(run)
        return found

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs.values())

    def get(self, run: str) -> Run:
        """A run by its id or the path of its folder. Raises UserError when there is none."""
        name = run.rstrip("/")
        if found := self.runs.get(name) or self.runs.get(Path(name).name if "/" in name else ""):
            return found
        raise UserError(f"there is no run {run} in {self.folder / 'runs'}; `python -m analysis runs` lists what there "
                        f"is")

    def source(self, run: Run, role: str) -> Run | None:
        """The run that made one of its inputs, as it is by now; None for a file of the user's, or without its record.

        create_toks once recorded a sentencepiece model without its run: that is then the one which trained just this
        model, of several the one whose dataset it was taken from.
        """
        given = run.record["inputs"][role]
        if given["run"] is not None or role != "sp_model":
            return self.runs.get(given["run"])
        makers = [maker for maker in self._sentencepiece.get(given["fingerprint"], ()) if maker is not run]
        near = [maker for maker in makers if given["path"].startswith(f"{maker.record['flags'].get('dir_path')}/")]
        return next(iter(near or makers), None)

    def parent(self, run: Run, role: str) -> Run | None:
        """The run that made one of its inputs: None without such an input, without its record, or when the run of that
        name has been made anew since."""
        parent = self.source(run, role) if role in run.record["inputs"] else None
        if parent is None or not _is_of(role, run.record["inputs"][role], parent):
            return None
        return parent

    def corpus(self, dataset: str) -> str:
        """The name that get_data knows a dataset by, which is another than its folder's where --dir_path says so."""
        made = self.runs.get(names.run_id(dataset, "get_data"))
        return made.record["flags"].get("name") or dataset if made else dataset

    def stale(self, run: Run) -> str | None:
        """Why a run no longer stands: something it read has been made anew since, or its stage's results changed."""
        if run.id not in self._stale:
            self._stale[run.id] = None  # ends a circle, which only a hand-edited record can have
            self._stale[run.id] = self._why_stale(run)
        return self._stale[run.id]

    def _why_stale(self, run: Run) -> str | None:
        if run.record["stage_version"] != records.STAGE_VERSIONS.get(run.stage):
            return f"made by another version of {run.stage}"
        for role, given in run.record["inputs"].items():
            parent = self.source(run, role)
            # `labels` has a fingerprint of its own; a language model that goes on under its own name reads its former
            # self, whose record is gone.
            if parent is None or parent is run or role == "labels":
                continue
            if not _is_of(role, given, parent):
                return f"{parent.id} was made anew since"
            if given.get("content", "") != _content(parent, given.get("content", "")):
                return f"{parent.id} was made anew since, with other digits"
            if why := self.stale(parent):
                return f"{parent.id} is stale ({why})" if "stale" not in why else why
        return None

    def problem(self, run: Run) -> str | None:
        """Why a run's numbers cannot be used, None when they can."""
        if run.state != "finished":
            return f"{run.state}: {run.record['error']}" if run.record.get("error") else run.state
        why = self.stale(run)
        return f"stale: {why}" if why else None

    def parents(self, run: Run) -> list[Run]:
        """The runs that made its inputs, in the order of their ids, without those whose record is not there."""
        found = {source.id: source for role in run.record["inputs"] if (source := self.source(run, role)) is not None}
        return [found[name] for name in sorted(found)]

    def ancestors(self, run: Run) -> list[Run]:
        """The runs it descends from whose records are there, parents before children."""
        found: dict[str, Run] = {}

        def visit(child: Run) -> None:
            for parent in self.parents(child):
                if parent is not run and parent.id not in found:
                    found[parent.id] = parent
                    visit(parent)
                    found[parent.id] = found.pop(parent.id)  # behind its own parents

        visit(run)
        return list(found.values())


def _content(parent: Run, read: str) -> str:
    """What the parent has now of what a run read of it (see `records.content_of`); while it is being made again, what
    was read."""
    if read.startswith("weights:") and "weights_sha256" in parent.record:
        return records.weights_content(parent.record)
    if read.startswith("predictions:") and (parent.folder / "predictions.csv").exists():
        return records.content_of(parent.folder)
    return read


def _is_of(role: str, given: dict, parent: Run) -> bool:
    """Whether an input is what its run has made by now; an intermediate classifier is its run's own.

    Of a sentencepiece model that is just being made again it is what was read.
    """
    return records.mark_as(role, parent.record) in (None, given["fingerprint"].removesuffix("-intermediate"))


def load(results_dir: str | Path | None) -> Archive:
    """Reads every run.json below results_dir/runs; what is none is named in `unreadable`."""
    archive = Archive(results_folder(None if results_dir is None else str(results_dir)))
    elsewhere: list[Run] = []
    top = archive.folder / "runs"
    # Names and not paths are sorted: thousands of paths take longer to compare than to read.
    for name in sorted(entry.name for entry in os.scandir(top) if entry.is_dir()) if top.is_dir() else ():
        if name.startswith("."):
            continue
        folder = top / name
        try:
            record = records.read_run(folder)
            missing = [key for key in _KEYS if key not in record]
            if missing or not record["sessions"]:
                raise KeyError(missing[0] if missing else "sessions")
        except UserError as error:
            archive.unreadable.append(f"unreadable: {error}")
            continue
        except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
            # run.json is JSON, yet no record: cut by hand, or of a version to come.
            archive.unreadable.append(f"unreadable: {folder} holds no record that this version knows "
                                      f"({type(error).__name__}: {error})")
            continue
        if name == record["id"]:
            archive.runs[name] = Run(folder, record)
        else:
            elsewhere.append(Run(folder, record))
    # A copy that someone kept beside a run must not stand for it, whatever it is called.
    for run in elsewhere:
        if archive.runs.setdefault(run.id, run) is not run:
            archive.unreadable.append(f"unreadable: {run.folder} holds the record of {run.id}, which has a folder of "
                                      f"its own")
    archive.runs = dict(sorted(archive.runs.items()))
    return archive
