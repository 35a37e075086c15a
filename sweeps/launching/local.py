"""Runs a plan on this machine, several commands at once, and carries on past what fails."""

import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ulmfit import files, names
from ulmfit.errors import Interrupted

from . import estimates, states
from .machine import Slot
from .plan import Step
from .states import Kind, State
from .view import View

SECONDS_BETWEEN_LOOKS = 1.0
LINES_OF_A_FAILURE = 15
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class Running:
    """A command that this launch has started. locks: the run's and the slot's."""

    step: Step
    process: subprocess.Popen
    locks: list[IO]
    log: Path
    slot: Slot
    began: float
    pidfd: int

    def close(self) -> None:
        os.close(self.pidfd)
        for lock in self.locks:
            lock.close()


class Launch:
    """One call of launch. `run()` returns how every step ended.

    slots: where commands run, one at a time in each.
    """

    def __init__(self, steps: list[Step], results: Path, slots: list[Slot], view: View, retry_failed: bool):
        self.steps, self.results, self.free, self.view = steps, results, list(slots), view
        self.retry_failed = retry_failed
        past, device = estimates.known_past(results), "cpu" if slots[0].gpu is None else "cuda"
        self.expected = {step: estimates.seconds(step.run, past, device) for step in steps if step.run}
        self.running: dict[Step, Running] = {}
        self.ended: dict[Step, State] = {}
        self.elsewhere: set[Step] = set()
        self.signals: list[int] = []
        self.told_of_slots = False

    def run(self) -> dict[Step, State]:
        """Runs what is missing. Raises Interrupted when a signal asked for the end and every run has stopped."""
        # nohup ignores the hang-up, and so must we.
        handlers = {number: signal.signal(number, self._on_signal) for number in SIGNALS
                    if signal.getsignal(number) is not signal.SIG_IGN}
        try:
            self._begin()
            while not self._over():
                if not self.signals:
                    self._start_what_is_ready()
                self._show()
                if not self._over():
                    self._wait()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        if self.signals:
            raise Interrupted(self.signals[0])
        return self.ended

    # -- the loop ----------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        for step, state in states.survey(self.steps, retry_failed=self.retry_failed).items():
            if state.finished or state.kind in (Kind.FAILED, Kind.REFUSED, Kind.BLOCKED):
                self._end(step, state)

    def _over(self) -> bool:
        if self.signals:
            return not self.running
        return len(self.ended) == len(self.steps)

    def _start_what_is_ready(self) -> None:
        for step in self.steps:
            if self.signals:
                return
            if step in self.ended or step in self.running or any(need not in self.ended for need in step.needs):
                continue
            if step.run is None:
                # A table shows what there is, and what is missing as missing.
                self._start(step, None)
                continue
            bad = next((need for need in step.needs if not self.ended[need].finished), None)
            if bad is not None:
                self._end(step, State(Kind.BLOCKED, states.blocked_by(bad, self.ended[bad])))
            elif self.free or step in self.elsewhere:
                self._claim_and_start(step)

    def _claim_and_start(self, step: Step) -> None:
        """Starts a step unless another launch is at it, or has finished it in the meantime."""
        claim = states.claim(step.run)
        if claim is None or states.made_elsewhere(step.run):
            if claim is not None:
                claim.close()
            if step not in self.elsewhere:
                self.view.event(f"{step.name}: is being made by another process, waiting for it")
                self.elsewhere.add(step)
            return
        state = states.judge(step.run, lambda run, record: None)
        if state.kind is Kind.DONE or state.kind is Kind.REFUSED:
            claim.close()
            self._end(step, state)
        elif state.kind is Kind.FAILED and step in self.elsewhere:
            claim.close()
            self._end(step, state)
        else:
            self._start(step, claim)
        if step in self.ended or step in self.running:
            self.elsewhere.discard(step)

    def _start(self, step: Step, claim: IO | None) -> None:
        """Starts a step in a free slot; where there is none it stays as it is, its claim given back."""
        slot, lock = self._free_slot()
        locks = [held for held in (claim, lock) if held is not None]
        if slot is None:
            for held in locks:
                held.close()
            return
        log = names.launch_log(self.results, step.name.replace(" ", "-"))
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": slot.gpu or "", "PYTHONUNBUFFERED": "1"}
        if step.threads is not None:
            environment["OMP_NUM_THREADS"] = str(step.threads)
        with open(log, "wb") as output:
            # In a session of its own: Ctrl-C in the terminal reaches launch alone, which stops each run once.
            process = subprocess.Popen([sys.executable, *step.words], cwd=names.project_root(), env=environment,
                                       stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                                       start_new_session=True, pass_fds=[held.fileno() for held in locks])
        self.running[step] = Running(step, process, locks, log, slot, time.monotonic(), os.pidfd_open(process.pid))
        self.view.started(step, slot.gpu)
        if self.signals:
            # One that came while the process was being made has not reached it; more of them only hasten its end.
            process.send_signal(signal.SIGTERM)

    def _free_slot(self) -> tuple[Slot | None, IO | None]:
        """A slot that no launch uses, and its lock."""
        for slot in self.free:
            lock = slot.acquire()
            if lock is not None:
                self.free.remove(slot)
                return slot, lock
        if self.free and not self.running and not self.told_of_slots:
            self.told_of_slots = True
            self.view.event("another launch uses this machine, waiting for its runs to end")
        return None, None

    def _wait(self) -> None:
        """Until a run ends, or for a moment; then takes up what has ended."""
        pidfds = [running.pidfd for running in self.running.values()]
        select.select(pidfds, [], [], SECONDS_BETWEEN_LOOKS)
        for running in list(self.running.values()):
            status = running.process.poll()
            if status is not None:
                self._take(running, status)

    def _take(self, running: Running, status: int) -> None:
        step = running.step
        del self.running[step]
        running.close()
        self.free.insert(0, running.slot)
        seconds = time.monotonic() - running.began
        if step.run is None:
            state = State(Kind.DONE) if status == 0 else State(Kind.FAILED, states.last_line(running.log))
        else:
            state = states.judge(step.run, lambda run, record: None)
        if status == 0 and state.finished:
            self._end(step, state, seconds)
            return
        if self.signals and status != 0 and state.kind in (Kind.STOPPED, Kind.MISSING):
            self._end(step, State(Kind.STOPPED, state.why or "before it began"), seconds)
            return
        why = state.why if state.kind is Kind.FAILED and state.why else states.last_line(running.log)
        if status < 0:
            why = f"ended by signal {-status} ({signal.Signals(-status).name})"
        elif state.kind is Kind.STOPPED and status > 128:
            why = f"stopped by signal {status - 128} from outside; called again, it goes on"
        self._end(step, State(Kind.FAILED, why), seconds, running.log)

    def _end(self, step: Step, state: State, seconds: float | None = None, log: Path | None = None) -> None:
        self.ended[step] = state
        self.view.ended(step, state, seconds)
        if log is not None:
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            self.view.log([f"the end of {names.shown(log)}:", *(f"    {line}" for line in lines[-LINES_OF_A_FAILURE:])])

    def _on_signal(self, number: int, frame) -> None:
        """The first signal lets every run write its checkpoint, the second lets it go without, the third kills."""
        self.signals.append(number)
        for running in list(self.running.values()):
            running.process.send_signal(signal.SIGTERM if len(self.signals) < 3 else signal.SIGKILL)
        if len(self.signals) == 1:
            self.view.event(f"{signal.Signals(number).name}: stopping, each run writes its checkpoint")

    # -- what is shown -----------------------------------------------------------------------------------------------

    def _show(self) -> None:
        self.view.update(len(self.steps), self.ended, self.elsewhere, self._rows, self._left)

    def _rows(self) -> list[tuple[Step, str, float, str]]:
        """(step, GPU, seconds so far, epoch) of what runs."""
        return [(running.step, running.slot.gpu or "", time.monotonic() - running.began, _epoch(running.step))
                for running in self.running.values()]

    def _left(self) -> float | None:
        """Seconds until the end; None while no earlier run tells."""
        left, now = {}, time.monotonic()
        for step in self.steps:
            if step in self.ended or step.run is None:
                continue
            if self.expected[step] is None:
                return None
            running = self.running.get(step)
            left[step] = max(0.0, self.expected[step] - (now - running.began if running else 0.0))
        return estimates.until_the_end(self.steps, left, len(self.free) + len(self.running))


def _epoch(step: Step) -> str:
    if step.run is None or not (step.run.folder / "run.json").exists():
        return ""
    progress = files.read_json(step.run.folder / "run.json").get("progress")
    return f"{progress['epochs']}/{progress['of']}" if progress else ""
