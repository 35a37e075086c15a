"""Submits a plan to a Slurm cluster: a job for each run that is neither finished nor in the queue.

What is finished or failed is read from the run records, what waits or runs from the queue; accounting is not needed.
"""

import configparser
import fcntl
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ulmfit import names
from ulmfit.errors import UserError
from ulmfit.lineage import Lineage

from . import states, view
from .plan import Step
from .states import Kind, State

OPTIONS_FILE = "sweeps/slurm.ini"
SECTIONS = ("all", "gpu", "cpu")
OURS = {"parsable", "dependency", "job-name", "comment", "output", "chdir", "requeue", "kill-on-invalid-dep",
        "open-mode", "signal"}
# A checkpoint takes seconds; two minutes leave room for one that waits for a long batch to end.
CHECKPOINT_SIGNAL = "B:USR1@120"
_STATES = "PENDING,CONFIGURING,RUNNING,SUSPENDED,REQUEUED,REQUEUE_HOLD,STOPPED,PREEMPTED,RESIZING,SPECIAL_EXIT"


@dataclass(frozen=True)
class Job:
    """A job in the queue. subject: what it makes, its comment."""

    number: str
    state: str
    subject: str


def read_options(path: str | None) -> dict[str, list[str]]:
    """The sbatch options of jobs that use a GPU and of those that do not: {"gpu": [...], "cpu": [...]}.

    path: an ini file with sections `all`, `gpu` and `cpu`, whose keys are sbatch's long options; None: sweeps/slurm.ini
    if it is there. Raises UserError for another section, and for an option that is launch's own.
    """
    file = Path(path or names.project_root() / OPTIONS_FILE)
    if not file.is_file():
        if path is not None:
            raise UserError(f"--slurm_file: there is no file {path}")
        return {"gpu": [], "cpu": []}
    parser = configparser.ConfigParser(interpolation=None, allow_no_value=True)
    try:
        parser.read_string(file.read_text(encoding="utf-8"))
    except configparser.Error as error:
        raise UserError(f"{file}: {str(error).splitlines()[0]}") from None
    options: dict[str, list[str]] = {}
    for section in parser.sections():
        if section not in SECTIONS:
            raise UserError(f"{file}: [{section}] is no section; there are {', '.join(f'[{one}]' for one in SECTIONS)}")
        options[section] = []
        for name, value in parser.items(section):
            if name in OURS or not re.fullmatch(r"[a-z][a-z-]+", name):
                raise UserError(f"{file}: {name} is set by launch itself or no long option of sbatch; leave it out")
            options[section].append(f"--{name}" if value is None else f"--{name}={value}")
    both = options.get("all", [])
    return {kind: both + options.get(kind, []) for kind in ("gpu", "cpu")}


def _slurm(*command: str, script: str | None = None) -> str:
    """What a command of Slurm prints. Raises UserError with its last line when it fails."""
    if shutil.which(command[0]) is None:
        raise UserError(f"{command[0]} is not on this machine; BACKEND=slurm needs a host that submits to a cluster")
    done = subprocess.run(command, input=script, capture_output=True, text=True)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["no reason given"]
        raise UserError(f"{command[0]} failed: {said[-1]}")
    return done.stdout


class Cluster:
    """The queue as it stood when this was made, and how to add to it.

    slurm_file: as `read_options` takes it. Raises UserError when the cluster does not answer.
    """

    def __init__(self, slurm_file: str | None):
        self.options = read_options(slurm_file)
        self.jobs = self._queue()

    def _queue(self) -> dict[str, Job]:
        """The user's jobs that wait or run, by what they make."""
        listed = _slurm("squeue", "--me", "--noheader", f"--states={_STATES}", "--format=%i|%T|%k")
        jobs = [Job(*line.split("|", 2)) for line in listed.splitlines() if line.count("|") >= 2]
        return {job.subject: job for job in jobs}

    def alive(self, run: Lineage, record: dict | None) -> State | None:
        """RUNNING or QUEUED when a job of the queue makes the run, RUNNING when a launch on this machine does; FAILED
        when its job began and has left the queue without a record."""
        job = self.jobs.get(subject_of(run))
        if job is None:
            living, begun = states.alive_here(run, record), names.launch_begun(run.results, run.run_id)
            if living is None and record is None and begun.exists():
                said = states.last_line(names.launch_log(run.results, run.run_id))
                return State(Kind.FAILED, f"job {begun.read_text(encoding='ascii').strip()} left no record: {said}")
            return living
        if job.state == "PENDING":
            return State(Kind.QUEUED, f"job {job.number}")
        return State(Kind.RUNNING, f"job {job.number}, {job.state.lower()}")

    def submit(self, steps: list[Step], results: Path, retry_failed: bool) -> None:
        """Submits what is missing and prints what was done; a table is made at once when nothing is left to wait for.

        Raises UserError when a run has failed, is refused or blocked: it is named, and what is possible is submitted.
        """
        lock = results / "launch" / "submit.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with open(lock, "w", encoding="ascii") as file:
            # Of two launches at once the second one sees the first one's jobs.
            fcntl.flock(file, fcntl.LOCK_EX)
            self.jobs = self._queue()
            self._submit(steps, results, retry_failed)

    def _submit(self, steps: list[Step], results: Path, retry_failed: bool) -> None:
        found = states.survey(steps, self.alive, retry_failed)
        waiting_for: dict[Step, str] = {step: self.jobs[subject_of(step.run)].number for step in found
                                        if subject_of(step.run) in self.jobs}
        for step in found:
            if (step.run.folder / "run.json").exists():
                # Whoever deletes a record wants the run again.
                names.launch_begun(results, step.name).unlink(missing_ok=True)
        # No job can wait for a process that is none, nor for what must itself be submitted later.
        outside = {step for step in found if found[step].kind is Kind.RUNNING and step not in waiting_for}
        later = []
        submitted = 0
        for step in steps:
            if step.run and found[step].kind in (Kind.MISSING, Kind.STOPPED):
                if not outside.isdisjoint(step.needs):
                    outside.add(step)
                    later.append(step)
                    continue
                parents = [waiting_for[need] for need in step.needs if need in waiting_for]
                waiting_for[step] = self._sbatch(step, results, subject_of(step.run), "afterok", parents)
                submitted += 1
                print(f"job {waiting_for[step]}: {step.name}", flush=True)
        for step in steps:
            if step.run is None:
                self._table(step, results, [waiting_for[need] for need in step.needs if need in waiting_for],
                            bool(submitted))
        print(f"{submitted} jobs submitted; {len(found)} runs: {view.counts(found.values())}")
        for step in later:
            print(f"not submitted: {step.name}: waits for {next(need.name for need in step.needs if need in outside)}")
        bad = [step for step in found if found[step].kind in (Kind.FAILED, Kind.REFUSED, Kind.BLOCKED)]
        for step in bad:
            print(f"{found[step].kind.value}: {step.name}: {found[step].why}")
        if bad:
            raise UserError(f"{len(bad)} of {len(found)} runs cannot be made, see above; --retry_failed submits the "
                            f"failed ones again")
        if later:
            raise UserError(f"{len(later)} of {len(found)} runs wait for what is running outside the queue; call again "
                            f"when it has ended")

    def _table(self, step: Step, results: Path, jobs: list[str], changed: bool) -> None:
        """A table waits for every job of the plan, whether it fails or not; without one it is made here and now."""
        subject = f"{results.resolve()}: {step.command}"
        if not jobs:
            status = subprocess.run([sys.executable, *step.words], cwd=names.project_root()).returncode
            if status:
                raise UserError(f"{step.command} ended with status {status}")
            return
        if subject in self.jobs:
            if not changed:
                return
            _slurm("scancel", self.jobs[subject].number)
        number = self._sbatch(step, results, subject, "afterany", jobs)
        print(f"job {number}: {step.name}, when the others have ended", flush=True)

    def _sbatch(self, step: Step, results: Path, subject: str, after: str, parents: list[str]) -> str:
        """Submits a command; returns the job's number."""
        log = names.launch_log(results, step.name.replace(" ", "-")).resolve()
        log.parent.mkdir(parents=True, exist_ok=True)
        threads = step.threads or 1
        exports = ["PYTHONUNBUFFERED=1", *([f"OMP_NUM_THREADS={step.threads}"] if step.threads else [])]
        options = [f"--job-name={step.name}", f"--comment={subject}", f"--chdir={names.project_root()}", "--ntasks=1",
                   f"--cpus-per-task={threads}", f"--signal={CHECKPOINT_SIGNAL}", "--requeue", "--open-mode=append",
                   "--kill-on-invalid-dep=yes", "--output=" + str(log).replace("%", "%%")]
        if parents:
            options.append(f"--dependency={after}:{':'.join(parents)}")
        begins = ""
        if step.run:
            # Tells a run that never had a record from one that is still to be submitted.
            begun = names.launch_begun(results, step.name).resolve()
            begun.parent.mkdir(parents=True, exist_ok=True)
            begun.unlink(missing_ok=True)
            begins = f"echo $SLURM_JOB_ID >{shlex.quote(str(begun))}\n"
        # exec: the signals of the batch step reach the stage itself. The one that asks for a checkpoint would end a
        # stage that is still loading and has nothing to save.
        script = (f"#!/bin/bash\nexport {' '.join(exports)}\ntrap '' USR1\n{begins}"
                  f"exec {shlex.join([sys.executable, *step.words])}\n")
        chosen = self.options["gpu" if step.uses_gpu else "cpu"]
        return _slurm("sbatch", "--parsable", *options, *chosen, script=script).strip().partition(";")[0]


def subject_of(run: Lineage) -> str:
    """What a job says of itself: the folder of the record that it makes."""
    return str(run.folder.resolve())
