"""Run records: what a stage was asked, what it read, what came out.

A run is a folder `results/runs/ID/` that can be read without the weights:

    run.json         flags, fingerprint, inputs, parents, versions, device, times, status, metrics
    metrics.jsonl    one line an epoch
    predictions*.csv document, label, one probability a class
    log.txt          what was printed

What a stage makes beside the data (tokens, ids, weights) is an *artefact*: a folder whose `manifest.json`, written
last, carries the fingerprint of the run that made it. The next stage reads its parents' manifests, so that the chain
from csv to number holds even where the records have been moved away.
"""

import fcntl
import hashlib
import inspect
import json
import os
import platform
import resource
import shlex
import socket
import subprocess
import time
import traceback
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import IO, Any, Callable, Mapping, Sequence

from . import files, names, replacement
from .errors import Interrupted, UserError
from .flags import FLAGS, result_flags

SCHEMA = 1
MANIFEST = "manifest.json"
# What only a run that is not finished needs: to go on, and to go back to its best epoch.
CHECKPOINTS, BEST = "checkpoint*", "best.*"

# Raised when a stage's results change for the same flags and inputs: its older runs then count as stale.
STAGE_VERSIONS = {"get_data": 1, "prepare_wiki": 1, "create_toks": 1, "tok2id": 1, "pretrain_lm": 1, "finetune_lm": 1,
                  "train_clas": 1, "eval_clas": 1, "ensemble": 1, "sample_train": 1, "train_baseline": 1,
                  "lr_find": 1}

# Flags whose default is another than in the first version of a stage. A config leaves out what has its first default, so
# that a record keeps its meaning when a default changes.
FIRST_DEFAULTS = {("pretrain_lm", "sampled"): True}

_PACKAGES = ("torch", "fastai", "spacy", "numpy", "pandas", "scikit-learn", "safetensors", "sentencepiece")


@dataclass(frozen=True)
class Input:
    """Something a run read: `fingerprint` tells whether it is still the same.

    path: as records show it. run: id of the run that made it, None for a file of the user's. content: see
    `content_of`; of what a run is only a reading of, so that it ends with what was read.
    """

    path: str
    fingerprint: str
    run: str | None = None
    content: str | None = None

    def as_json(self) -> dict:
        content = {"content": self.content} if self.content else {}
        return {"path": self.path, "fingerprint": self.fingerprint, "run": self.run, **content}


def fingerprint(stage: str, config: dict, inputs: dict[str, Input]) -> str:
    """16 hex digits over the stage, its version, the flags that change its result and the inputs' fingerprints."""
    content = {"stage": stage, "version": STAGE_VERSIONS[stage], "config": config,
               "inputs": {name: inputs[name].fingerprint for name in sorted(inputs)}}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def file_input(path: Path) -> Input:
    """A file of the user's, known by its sha256."""
    return Input(names.portable(path), files.sha256(path)[:16])


def read_manifest(folder: Path, made_by: str) -> dict:
    """The manifest of an artefact; raises UserError that names the command which makes it, also where a file is lost."""
    if not (folder / MANIFEST).exists():
        raise UserError(f"{folder} is missing or unfinished; run first: {made_by}")
    manifest = files.read_json(folder / MANIFEST)
    if lost := lost_file(folder, manifest):
        raise UserError(f"{lost}; run first: {made_by}")
    return manifest


def last_manifest(folder: Path) -> dict:
    """The manifest of what a folder holds, also where a run that was to replace it was killed, and has left it aside;
    empty without one."""
    places = (place / MANIFEST for place in (folder, folder / replacement.ASIDE, folder / replacement.MOVING))
    return next((files.read_json(place) for place in places if place.exists()), {})


def lost_file(folder: Path, manifest: dict) -> str | None:
    """What is wrong with an artefact's files, by name and size: the first that was deleted, or cut off by a copy that
    broke; None when all are there. Manifests of earlier versions do not say which files they are of."""
    for name, size in manifest.get("files", {}).items():
        path = folder / name
        if not path.is_file():
            return f"{path} is missing"
        if path.stat().st_size != size:
            return f"{path} has {path.stat().st_size:,} bytes, where {size:,} were written"
    return None


def whole(place: Path) -> bool:
    """Whether a file is there, or a folder as its manifest says."""
    manifest = _said(place / MANIFEST)
    return place.is_file() if manifest is None else lost_file(place, manifest) is None


def complete(mark: str, artefact: Path | None, writes: Sequence[Path]) -> bool:
    """Whether all is there that the run of a fingerprint made beside its record. writes: besides the artefact."""
    if not all(map(whole, writes)):
        return False
    return artefact is None or (whole(artefact) and files.read_json(artefact / MANIFEST)["fingerprint"] == mark)


def artefact_files(folder: Path) -> dict[str, int]:
    """The sizes by name of what a run has made in a folder of its own."""
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir())
            if path.is_file() and path.name != MANIFEST and not path.name.startswith(".")
            and not path.match(CHECKPOINTS) and not path.match(BEST)}


def artefact_input(folder: Path, made_by: str, content: bool = False) -> Input:
    """content: whether other digits under the same fingerprint count as another input."""
    manifest = read_manifest(folder, made_by)
    return Input(names.portable(folder), manifest["fingerprint"], manifest["run"],
                 content_of(folder) if content else None)


def content_of(folder: Path) -> str:
    """A digest of a model's weights, or of the predictions in a run's folder.

    A fingerprint says what a run was asked; made again on another kind of machine, it may have other digits.
    """
    if (folder / "run.json").exists():
        return f"predictions:{files.sha256(folder / 'predictions.csv')[:16]}"
    return weights_content(files.read_json(folder / MANIFEST))


def weights_content(model: dict) -> str:
    """`content_of` a model, from its manifest or its record."""
    return f"weights:{model['weights_sha256'][:16]}"


def mark_as(role: str, made: dict) -> str | None:
    """The fingerprint that what a run made has as an input of a role, from its record or manifest.

    Its own, but of a sentencepiece model that of the file; None where that is not known, as while it is being made.
    """
    if role != "sp_model":
        return made["fingerprint"]
    digest = made.get("sp_model_sha256")
    return digest and digest[:16]


def subset_input(path: Path) -> Input:
    """A training subset's file. Raises UserError that says what it should hold."""
    if not path.exists():
        raise UserError(f"{path} is missing: --train_file_id names a file with one row number of train.csv (from 0) "
                        f"a line; sample_train.py makes balanced ones")
    return file_input(path)


def loaded_sizes(folder: Path, made_by: str, sizes: dict[str, int], typed: set[str]) -> dict[str, int]:
    """The sizes of the weights in `folder`; raises UserError when one that was typed is another."""
    return fitting_sizes(folder, read_manifest(folder, made_by)["sizes"], sizes, typed)


def fitting_sizes(path: Path, found: dict[str, int], sizes: dict[str, int], typed: set[str]) -> dict[str, int]:
    """`found`, the sizes of the weights in `path`; raises UserError when one that was typed is another."""
    for name, size in sizes.items():
        if name in typed and size != found[name]:
            raise UserError(f"--{name}={size} does not fit {path}, which has {name}={found[name]}; leave the flag "
                            f"out to take the sizes from the weights")
    return dict(found)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _git() -> dict:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(names.project_root()), *arguments], capture_output=True, text=True,
                              timeout=10, check=True).stdout.strip()

    try:
        # Records land in results/ while a sweep runs; they do not make the code another code.
        changed = git("status", "--porcelain", "--", ".", ":(exclude)results")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}


def _versions() -> dict:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def peak_memory_mb() -> float:
    """Largest resident set of this process or of one of its children so far, in MB (10^6 bytes)."""
    kilobytes = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return round(kilobytes * 1024 / 1e6, 1)


def non_default(stage: Callable, flags: dict) -> dict:
    """Of `flags`, those whose value is not the default in the stage's signature."""
    parameters = _parameters(stage)
    return {name: value for name, value in flags.items() if value != parameters[name].default}


@lru_cache
def _parameters(stage: Callable) -> Mapping[str, inspect.Parameter]:
    """Of a stage; to find them anew for each flag would be most of the work of telling runs apart."""
    return inspect.signature(stage).parameters


def config_of(stage: Callable, flags: dict) -> dict:
    """Of the flags that change the result, those that enter a fingerprint: whose value is not the first default."""
    return {name: value for name, value in result_flags(flags).items() if value != first_default(stage, name)}


def first_default(stage: Callable, name: str) -> Any:
    """What a record without this flag was made with: the default in the stage's first version, None without such a
    flag."""
    parameter = _parameters(stage).get(name)
    return FIRST_DEFAULTS.get((stage.__name__, name), parameter.default if parameter is not None else None)


def command_line(stage: Callable, flags: dict, program: tuple[str, ...] = ()) -> str:
    """The command that asks for this run again, paths as records show them.

    program: what comes before the flags, for a stage that is not called as `python imdb_scripts/STAGE.py`.
    """
    words = [*program] or ["python", f"imdb_scripts/{stage.__name__}.py"]
    for name, value in non_default(stage, flags).items():
        if name != "overwrite":
            words.append(f"--{name}={names.portable(value) if FLAGS[name].kind == 'path' else value}")
    return shlex.join(words)


def differences(stage: Callable, old: dict, new: dict) -> str:
    """`lr: 0.01 there, 0.001 asked` for each key in which two configs differ; what they leave out has its default."""
    keys = [key for key in [*new, *(k for k in old if k not in new)] if old.get(key) != new.get(key)]
    return "; ".join(f"{key}: {old.get(key, default)} there, {new.get(key, default)} asked"
                     for key, default in ((key, first_default(stage, key)) for key in keys))


@dataclass
class Run:
    """A run being made. Used as a context manager; see `open_run`."""

    id: str
    folder: Path
    record: dict
    artefact: Path | None = None
    writes: tuple[Path, ...] = ()
    shared: bool = False
    quiet: bool = False
    resumed: bool = False
    reused: bool = False
    _locks: list[IO] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)
    _seconds_before: float = 0.0

    # -- printing --------------------------------------------------------------------------------------------------

    def say(self, line: str, important: bool = False) -> None:
        """Prints a line and keeps it in log.txt; `quiet` leaves only the important ones on the screen."""
        if important or not self.quiet:
            print(line, flush=True)
        self._log(line)

    def _log(self, text: str) -> None:
        with open(self.folder / "log.txt", "a", encoding="utf-8") as log:
            log.write(f"{_now()}  {names.portable_text(text)}\n")

    def use_machine(self, cuda_id: int | None, threads: int | None) -> tuple[Any, int]:
        """Picks the device, sets torch's threads and records both. Returns (torch.device, threads)."""
        from . import machine

        device, threads = machine.pick_device(cuda_id), machine.set_threads(threads)
        for place in (self.record, self.record["sessions"][-1]):
            place.update(device=str(device), threads=threads)
        self.save()
        return device, threads

    def use_precision(self, precision: str, device: Any) -> str:
        """The precision that `auto` means on this device (`machine.quick_precision`), or the one asked for; recorded,
        as the device is.

        A run that goes on keeps the one it began with, so that it ends as it would have ended there.
        """
        from . import machine

        before = [session.get("precision") for session in self.record["sessions"][:-1]]
        if precision == "auto":
            precision = next((known for known in before if known), None) or machine.quick_precision(device)
        machine.check_precision(precision, device)
        for place in (self.record, self.record["sessions"][-1]):
            place["precision"] = precision
        self.save()
        return precision

    # -- life ------------------------------------------------------------------------------------------------------

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind, error, trace) -> bool:
        if error is not None and self.record["status"] == "running":
            interrupted = isinstance(error, (Interrupted, KeyboardInterrupt))
            self.record["status"] = "interrupted" if interrupted else "failed"
            self.record["error"] = names.portable_text(f"{type(error).__name__}: {error}".splitlines()[0])
            self._log(f"{self.record['status']}: {self.record['error']}")
            if not interrupted and not isinstance(error, UserError):
                self._log("".join(traceback.format_exception(kind, error, trace)).rstrip())
            self.save()
            self._keep_replaced()
        for lock in self._locks:
            lock.close()
        return False

    def whereabouts(self, path: Path) -> Path:
        """Where a file lies now that this run reads: what it replaces has been set aside."""
        if not path.exists() and self.artefact is not None and path.parent.resolve() == self.artefact.resolve():
            return self.artefact / replacement.ASIDE / path.name
        return path

    def _keep_replaced(self) -> None:
        """After a failure: what this run was to replace gets its place back, unless this one has come so far that it
        can go on."""
        folders = _folders(self.folder, self.artefact, self.writes)
        aside = [folder / replacement.ASIDE for folder in folders if (folder / replacement.ASIDE).exists()]
        if not aside:
            return
        if can_go_on(self.artefact):
            print(f"{self.id}: the earlier run stays in {' and '.join(map(names.shown, aside))} until this one is "
                  f"finished; asked for as it was made, it is put back", flush=True)
        else:
            _put_back(self.folder, self.artefact, self.writes, self.shared)

    def save(self) -> None:
        """Writes run.json with the time and memory spent so far."""
        seconds = time.monotonic() - self._began
        self.record["sessions"][-1].update(ended=_now(), seconds=round(seconds, 1))
        self.record["wall_seconds"] = round(self._seconds_before + seconds, 1)
        self.record["peak_memory_mb"] = max(self.record.get("peak_memory_mb") or 0, peak_memory_mb())
        files.write_json(self.folder / "run.json", self.record)

    def finish(self, metrics: dict | None = None, **facts: Any) -> None:
        """Marks the run finished. `metrics` are the numbers that tables read; `facts` describe what was made.

        The artefact's manifest is written first, the record last: a record that says "finished" has all its files.
        """
        self.record["metrics"] = metrics or {}
        self.record.update(facts)
        if self.artefact is not None:
            made = {} if self.shared else {"files": artefact_files(self.artefact)}
            files.write_json(self.artefact / MANIFEST, self.manifest(**facts, **made))
        self.record["status"] = "finished"
        self.record["error"] = None
        self.save()
        for folder in _folders(self.folder, self.artefact, self.writes):
            replacement.forget(folder)

    def manifest(self, **facts: Any) -> dict:
        """What the artefact says of itself to the stages that read it."""
        keep = ("stage", "stage_version", "fingerprint", "config", "inputs")
        return {"run": self.id, **{key: self.record[key] for key in keep}, **facts}

    # -- files -----------------------------------------------------------------------------------------------------

    def write_epochs(self, epochs: list[dict]) -> None:
        """Rewrites metrics.jsonl: after a resume it must hold just the epochs that the checkpoint knows."""
        files.write_text(self.folder / "metrics.jsonl", "".join(json.dumps(epoch) + "\n" for epoch in epochs))

    def append_epoch(self, epoch: dict) -> None:
        with open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as lines:
            lines.write(json.dumps(epoch) + "\n")

    def epochs(self) -> list[dict]:
        path = self.folder / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def open_run(stage: Callable, run_id: str, flags: dict, inputs: dict[str, Input], *, artefact: Path | None = None,
             writes: tuple[Path, ...] = (), shared: bool = False, resolved: dict | None = None,
             dataset: str | None = None, program: tuple[str, ...] = ()) -> Run:
    """Decides what asking for a run means, before any work: new, reused, resumed or refused.

    stage: the script's function; its name is the stage's and its signature holds the defaults.
    flags: every flag of it with its value, among them `results_dir`, `overwrite` and `quiet`.
    resolved: values that a default left open (sizes read from weights); they take the flags' place in the fingerprint.
    inputs: by role, e.g. {"ids": ..., "language_model": ...}.
    artefact: folder of what the run makes beside its record. shared: others' files lie there too (a dataset's folder);
        of what it makes there a run then replaces only the manifest beforehand.
    writes: further folders of its own that it makes, each with a manifest.
    program: see `command_line`.

    Only flags that differ from their default enter the fingerprint, so that a flag added to a stage later leaves
    the runs made before it as they were.

    Returns a Run; `reused` says that it is finished already and nothing is to be done, `resumed` that a checkpoint
    of it may lie in the artefact's folder. A command with `overwrite` goes on from a checkpoint only if it was begun
    with it, as a cluster sends it again after its machine went down. A run that failed before it made anything stands
    in nobody's way. What is replaced is set aside (`replacement`) until the new run is finished. Raises UserError when
    the name is taken by a run with other flags or other inputs, or while another process makes it.
    """
    overwrite, quiet, name = flags["overwrite"], flags["quiet"], stage.__name__
    folder = names.run_folder(names.results_folder(flags["results_dir"]), run_id)
    config = {**config_of(stage, flags), **(resolved or {})}
    mark = fingerprint(name, config, inputs)
    locks = [_locked(folder, run_id)]
    try:
        _mend(folder, artefact, writes, shared, run_id, None if overwrite else mark)
    except UserError:
        locks[0].close()
        raise
    old = _said(folder / "run.json")
    beside = artefact / MANIFEST if artefact is not None else None
    made = _said(beside) if beside is not None else None
    lost = lost_file(artefact, made) if made is not None else None
    if lost is None and made is not None:
        lost = next((f"{place} is missing or unfinished" for place in writes if not whole(place)), None)
    if overwrite:
        replaced = not (old is not None and old["fingerprint"] == mark and _replacing(old) and can_go_on(artefact))
    else:
        replaced = old is not None and old["fingerprint"] != mark and left_nothing(old, folder, artefact)
    if not replaced and old is not None and old["fingerprint"] == mark:
        others = [given.path for role, given in inputs.items()
                  if given.content and old["inputs"][role].get("content", given.content) != given.content]
        if others:
            print(f"{run_id}: made again, as {', '.join(others)} was, with other digits", flush=True)
            replaced = True

    if not replaced:
        finished = old is not None and old["fingerprint"] == mark and old["status"] == "finished"
        if finished and complete(mark, artefact, writes):
            run = Run(run_id, folder, old, artefact, writes, shared, quiet, reused=True, _locks=locks)
            print(f"{run_id}: already done, reused ({names.shown(folder)})", flush=True)
            return run
        # The artefact may be another run's although the record is this one's: made with another --results_dir.
        for known, place in ((old, folder), (made, artefact)):
            if known is not None and known["fingerprint"] != mark:
                locks[0].close()
                raise UserError(refusal(stage, run_id, place, known, config, inputs, artefact is not None))
        if lost is not None:
            print(f"{run_id}: made again, as {lost}", flush=True)

    precision = flags.get("precision", "auto")
    if flags.get("cuda_id") not in (None, -1) or precision not in ("auto", "full"):
        # Before anything is replaced: a GPU that is not there must not cost an earlier run.
        from . import machine

        machine.pick_device(flags["cuda_id"], precision)
    if artefact is not None:
        # Another record of the same artefact, in another --results_dir, has another lock.
        locks.append(_locked(artefact, run_id))
    if old is not None and old["status"] != "finished" and not replaced:
        # Goes on, beside what it has made so far; a manifest would say that all of it is there.
        if beside is not None:
            beside.unlink(missing_ok=True)
    elif old is not None and left_nothing(old, folder, artefact):
        replacement.clear(folder)
    else:
        aside = replacement.set_aside(folder)
        if artefact is not None:
            aside |= replacement.set_aside(artefact, _alone(shared))
        for place in writes:
            replacement.set_aside(place, empty=aside)

    resumed = old is not None and old["fingerprint"] == mark and old["status"] != "finished" and not replaced
    git = _git()
    session = {"started": _now(), "ended": None, "seconds": 0.0, "host": socket.gethostname(), "pid": os.getpid(),
               "device": None, "threads": None, "git": git}
    record = {
        "schema": SCHEMA, "id": run_id, "stage": name, "stage_version": STAGE_VERSIONS[name], "dataset": dataset,
        "status": "running", "error": None, "fingerprint": mark,
        "command": command_line(stage, flags, program),
        "seed": flags.get("seed"), "device": None, "threads": None,
        "flags": {name: names.portable(value) if FLAGS[name].kind == "path" and value not in (None, "") else value
                  for name, value in flags.items()},
        "config": config,
        "inputs": {name: given.as_json() for name, given in inputs.items()},
        "parents": sorted({given.run for given in inputs.values() if given.run}),
        "git": git, "versions": _versions(), "started": _now(), "wall_seconds": 0.0, "peak_memory_mb": 0.0,
        "sessions": [session], "metrics": {},
    }
    run = Run(run_id, folder, record, artefact, writes, shared, quiet, resumed=resumed, _locks=locks)
    if resumed:
        record["started"] = old["started"]
        record["sessions"] = old["sessions"] + [session]
        record["peak_memory_mb"] = old.get("peak_memory_mb", 0.0)
        run._seconds_before = sum(earlier["seconds"] or 0.0 for earlier in old["sessions"])
    else:
        (folder / "metrics.jsonl").unlink(missing_ok=True)
    run.save()
    return run


def left_nothing(old: dict, folder: Path, artefact: Path | None) -> bool:
    """Whether a run failed so early that nothing is lost with it: no epoch, no result, no checkpoint."""
    if old["status"] != "failed" or old["metrics"]:
        return False
    epochs = folder / "metrics.jsonl"
    kept = can_go_on(artefact) or (artefact is not None and (artefact / MANIFEST).exists())
    return not kept and not (epochs.exists() and epochs.stat().st_size)


def _replacing(old: dict) -> bool:
    """Whether a run was begun to replace another, and was stopped or killed."""
    return old["flags"]["overwrite"] and old["status"] in ("running", "interrupted")


def can_go_on(artefact: Path | None) -> bool:
    """Whether a run that was not finished left a checkpoint."""
    return artefact is not None and any(artefact.glob(CHECKPOINTS))


def _folders(folder: Path, artefact: Path | None, writes: Sequence[Path]) -> list[Path]:
    return [folder, *([] if artefact is None else [artefact]), *writes]


def _alone(shared: bool) -> str | None:
    return MANIFEST if shared else None


def _put_back(folder: Path, artefact: Path | None, writes: Sequence[Path], shared: bool) -> None:
    """What was set aside, a run's record and what it made, takes its place again."""
    back = [replacement.put_back(place) for place in writes]
    if artefact is not None:
        back.append(replacement.put_back(artefact, _alone(shared)))
    if any([*back, replacement.put_back(folder)]):
        print(f"{folder.name}: the earlier run is kept as it was", flush=True)


def _mend(folder: Path, artefact: Path | None, writes: Sequence[Path], shared: bool, run_id: str,
          asked: str | None) -> None:
    """Puts back what a process that was killed had set aside: when its own run cannot go on, or the earlier one is asked
    for. asked: the fingerprint of what is asked for; None to replace what is there."""
    folders = _folders(folder, artefact, writes)
    if not any((place / name).exists() for place in folders for name in (replacement.ASIDE, replacement.MOVING)):
        return
    lock = _locked(artefact, run_id) if artefact is not None else None
    for place in folders:
        replacement.mend(place)
    begun = _said(folder / "run.json")
    finished = begun is not None and begun["status"] == "finished"
    earlier = record_aside(folder)
    if earlier is None and artefact is not None:
        earlier = _said(artefact / replacement.ASIDE / MANIFEST)
    goes_on = begun is not None and not finished and begun["fingerprint"] == asked
    if finished and (artefact is None or (artefact / MANIFEST).exists()):
        for place in folders:
            replacement.forget(place)
    elif not can_go_on(artefact) or (earlier is not None and earlier["fingerprint"] == asked and not goes_on):
        _put_back(folder, artefact, writes, shared)
    if lock is not None:
        lock.close()


def record_aside(folder: Path) -> dict | None:
    """The record of a run that another one was to replace and has not yet, or never; None without one."""
    return _said(folder / replacement.ASIDE / "run.json")


def _said(path: Path) -> dict | None:
    return files.read_json(path) if path.exists() else None


def _locked(folder: Path, run_id: str) -> IO:
    """Locks a folder, made if need be, for as long as the file is open: a lock dies with its process.

    Raises UserError when another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = open(folder / replacement.LOCK, "w", encoding="ascii")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise UserError(f"{run_id} is being made by another process now; wait for it, or stop it first") from None
    return lock


def refusal(stage: Callable, run_id: str, place: Path, known: dict, config: dict, inputs: dict[str, Input],
            beside: bool) -> str:
    """One line: what is different about the run that has this name. beside: it makes more than its record."""
    where = f"{run_id} exists in {names.shown(place)}"
    if known["stage_version"] != STAGE_VERSIONS[known["stage"]]:
        return f"{where}, made by an older version of {known['stage']}; --overwrite makes it again"
    if known["config"] != config:
        return (f"{where} with other flags ({differences(stage, known['config'], config)}); give this run a name of "
                f"its own or replace that one with --overwrite")
    before = {name: given["fingerprint"] for name, given in known["inputs"].items()}
    now = {name: given.fingerprint for name, given in inputs.items()}
    changed = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    others = [_told_apart(known["inputs"][name], inputs[name]) for name in changed if name in before and name in now]
    if others := [both for both in others if both is not None]:
        made_from, asked = (", ".join(called) for called in zip(*others))
        return (f"{where}, made from {made_from}, where {asked} is asked for; give this run a name of its own or "
                f"replace that one with --overwrite")
    paths = ", ".join(inputs[name].path if name in inputs else known["inputs"][name]["path"] for name in changed)
    both = "a copy of the dataset's folder under another name" if beside else "--results_dir=DIR"
    return f"{where}, but is stale: {paths} changed since; --overwrite makes it again, {both} keeps both"


def _told_apart(before: dict, now: Input) -> tuple[str, str] | None:
    """How an input of a record and the present one are called where they are two, and not one that changed since: by
    path, or by run where both lie outside the project under one name."""
    if before["path"] != now.path:
        return before["path"], now.path
    return (before["run"], now.run) if before["run"] and now.run not in (None, before["run"]) else None


def read_run(folder: Path) -> dict:
    """A run's record. Raises UserError when `folder` holds none."""
    try:
        return files.read_json(Path(folder) / "run.json")
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder} holds no run.json; expected a folder below results/runs") from None
