"""How each run of a plan stands, read from its record: the one truth that launch, its next call and a cluster share."""

import socket
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import IO, Callable, Iterable

from ulmfit import files, names, records
from ulmfit.errors import UserError
from ulmfit.lineage import Lineage

from . import locks
from .plan import Step


class Kind(Enum):
    """The states, in the words that are shown."""

    DONE = "done"
    GONE = "done, files gone"  # finished by its record, but what it made beside it is no longer there
    MISSING = "to run"
    STOPPED = "to resume"
    RUNNING = "running"
    QUEUED = "queued"
    FAILED = "failed"
    REFUSED = "refused"
    BLOCKED = "blocked"


@dataclass(frozen=True)
class State:
    """kind: see `Kind`. why: the reason or the place, for a person."""

    kind: Kind
    why: str = ""

    @property
    def finished(self) -> bool:
        return self.kind in (Kind.DONE, Kind.GONE)


# RUNNING or QUEUED, with the place, of a run that is being made somewhere; else None, or how it is known to have ended.
Alive = Callable[[Lineage, dict | None], State | None]


# -- one run ---------------------------------------------------------------------------------------------------------

def judge(run: Lineage, alive: Alive, gone: dict[Path, dict] | None = None) -> State:
    """How a run stands.

    alive: see `Alive`; gets the run and its record.
    gone: records of finished runs by the places whose content is gone, which its own record may still vouch for.
    """
    try:
        record = records.read_run(run.folder) if (run.folder / "run.json").exists() else None
        living = alive(run, record)
        if living is not None:
            return living
        return _unrecorded(run) if record is None else _recorded(run, record, gone or {})
    except UserError as error:
        return State(Kind.REFUSED, str(error))


def _unrecorded(run: Lineage) -> State:
    """Without a record what it makes may still be there, of a run whose record lies in another folder of results."""
    manifest = run.artefact / records.MANIFEST if run.artefact is not None else None
    if manifest is None or not manifest.exists():
        return State(Kind.MISSING)
    made, inputs = files.read_json(manifest), None if run.missing() else run.inputs()
    same = _same_flags(run, made) if inputs is None else run.fingerprint(made, inputs) == made["fingerprint"]
    return State(Kind.MISSING) if same else _in_the_way(run, run.artefact, made, inputs)


def _same_flags(run: Lineage, known: dict) -> bool:
    return (known["config"] == run.config(known)
            and known["stage_version"] == records.STAGE_VERSIONS[known["stage"]])


def _in_the_way(run: Lineage, place: Path, known: dict, inputs: dict[str, records.Input] | None) -> State:
    """known: the record or the manifest of the other run that lies in this one's place."""
    if run.flags.get("overwrite"):
        return State(Kind.MISSING, "replaces another run")
    return State(Kind.REFUSED, records.refusal(run.stage, run.run_id, place, known, run.config(known), inputs or {},
                                               run.artefact is not None))


def _recorded(run: Lineage, record: dict, gone: dict[Path, dict]) -> State:
    inputs = _inputs(run, record, gone)
    if inputs is not None and run.fingerprint(record, inputs) == record["fingerprint"]:
        match record["status"]:
            case "finished" if other := run.other_content(record):
                return State(Kind.MISSING, f"{other} was made again, with other digits")
            case "finished":
                return State(Kind.DONE if records.complete(record["fingerprint"], run.artefact, run.writes)
                             else Kind.GONE)
            case "failed":
                return State(Kind.FAILED, record["error"] or "")
            case "running":
                return State(Kind.STOPPED, "its process died without a word" + _progress(record))
        return State(Kind.STOPPED, record["status"] + _progress(record))
    if records.left_nothing(record, run.folder, run.artefact):
        return State(Kind.MISSING)
    earlier = records.record_aside(run.folder)
    if inputs is not None and earlier is not None and run.fingerprint(earlier, inputs) == earlier["fingerprint"]:
        return State(Kind.MISSING, "was to be replaced, and is put back")
    if inputs is None and _same_flags(run, record):
        return State(Kind.MISSING, "" if record["status"] != "finished" else "reused if its inputs come out the same")
    return _in_the_way(run, run.folder, record, inputs)


def _inputs(run: Lineage, record: dict, gone: dict[Path, dict]) -> dict[str, records.Input] | None:
    """The inputs as they are, or, where what a finished run made is gone, as the record says; None: not there yet."""
    missing = run.missing()
    if not missing:
        return run.inputs()
    said = {role: records.Input(given["path"], given["fingerprint"], given["run"])
            for role, given in record["inputs"].items()}
    for role, places in missing.items():
        maker = next((gone[place.resolve()] for place in places if place.resolve() in gone), None)
        if maker is None or role not in said:
            return None
        if said[role].run == maker["id"] and not said[role].fingerprint.startswith(records.mark_as(role, maker) or ""):
            return None
    return said


def _progress(record: dict) -> str:
    progress = record.get("progress")
    return f" after epoch {progress['epochs']} of {progress['of']}" if progress else ""


def last_line(log: Path) -> str:
    """What a command said last."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "it ended without a word"


# -- is it being made now? -------------------------------------------------------------------------------------------

def claim(run: Lineage) -> IO | None:
    """Locks a run for a launch; None when another one has it."""
    return locks.acquire(names.launch_claim(run.results, run.run_id))


def made_elsewhere(run: Lineage) -> bool:
    """Whether a process that no launch started makes the run; to be asked by who has claimed it.

    Otherwise the question could get in the way of a run that is just starting.
    """
    return locks.is_taken(run.folder / ".lock")


def alive_here(run: Lineage, record: dict | None) -> State | None:
    """RUNNING when a launch has claimed the run, or when its record's process lives on this machine."""
    if locks.is_taken(names.launch_claim(run.results, run.run_id)):
        return State(Kind.RUNNING, _progress(record).strip() if record else "")
    if record is None or record["status"] != "running":
        return None
    session = record["sessions"][-1]
    here = session["host"] == socket.gethostname()
    if here and not Path(f"/proc/{session['pid']}").exists():
        return None
    # Of another machine's process only the lock tells, on a file system that both share.
    place = "" if here else f" on {session['host']}"
    return State(Kind.RUNNING, f"process {session['pid']}{place}{_progress(record)}") if made_elsewhere(run) else None


# -- the whole plan --------------------------------------------------------------------------------------------------

def survey(steps: Iterable[Step], alive: Alive = alive_here, retry_failed: bool = False) -> dict[Step, State]:
    """How every run of a plan stands and what a launch would do about it; steps that leave no record are left out.

    A finished run whose files are gone is made again only where a run that is still to be made reads them. What needs
    a failed or refused run is BLOCKED by it.
    """
    found: dict[Step, State] = {}
    gone: dict[Path, dict] = {}
    runs = [step for step in steps if step.run]
    for step in runs:
        state = judge(step.run, alive, gone)
        if state.kind is Kind.FAILED and retry_failed:
            state = State(Kind.MISSING, "failed before")
        if state.kind is Kind.GONE:
            gone |= dict.fromkeys((place.resolve() for place in step.run.outputs()), records.read_run(step.run.folder))
        found[step] = state
    wanted: set[Step] = set()
    for step in reversed(runs):
        if found[step].kind is Kind.GONE and step in wanted:
            found[step] = State(Kind.MISSING, "finished, but its files are gone")
        if not found[step].finished:
            wanted |= set(step.needs)
    for step in runs:
        if found[step].kind in (Kind.MISSING, Kind.STOPPED):
            bad = next((need for need in step.needs
                        if found[need].kind in (Kind.FAILED, Kind.REFUSED, Kind.BLOCKED)), None)
            if bad is not None:
                found[step] = State(Kind.BLOCKED, blocked_by(bad, found[bad]))
    return found


def blocked_by(need: Step, state: State) -> str:
    """Why what needs a step cannot run; the first cause, however far up."""
    return state.why if state.kind is Kind.BLOCKED else f"{need.name} {state.kind.value}"
