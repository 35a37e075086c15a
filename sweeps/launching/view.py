"""What launch shows: lines as things happen, in a terminal a live table below them, and the tables of a plan."""

import sys
import time
from collections import Counter
from typing import Callable, Mapping

from .estimates import until_the_end
from .plan import Step
from .states import Kind, State

SECONDS_BETWEEN_TABLES = 1.0
SECONDS_BETWEEN_LINES = 60.0


def duration(seconds: float) -> str:
    """`8 s`, `12 min`, `3 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def aligned(rows: list[tuple[str, ...]], right: tuple[int, ...] = ()) -> list[str]:
    """Lines of a table whose columns are two spaces apart; `right` are the columns flush right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.rjust(width) if column in right else cell.ljust(width)
                      for column, (cell, width) in enumerate(zip(row, widths))).rstrip() for row in rows]


def plan_table(steps: list[Step], found: Mapping[Step, State], expected: Mapping[Step, float | None] | None = None,
               slots: int = 1) -> list[str]:
    """How each run stands, a line each, and their counts.

    expected: seconds that each run would take, for a further column and the sum; None: no estimates.
    """
    rows = [("run", "state", *(("about",) if expected is not None else ()), "")]
    for step in steps:
        if step.run is None:
            continue
        cells = (step.name, found[step].kind.value)
        if expected is not None:
            will_run = found[step].kind in (Kind.MISSING, Kind.STOPPED)
            guess = expected.get(step)
            cells += (("?" if guess is None else duration(guess)) if will_run else "",)
        rows.append((*cells, found[step].why))
    lines = aligned(rows, right=(2,) if expected is not None else ())
    lines.append(f"{len(rows) - 1} runs: {counts(found.values())}")
    if expected is not None:
        to_run = [step for step in steps if step.run and found[step].kind in (Kind.MISSING, Kind.STOPPED)]
        known = {step: expected[step] for step in to_run if expected.get(step) is not None}
        if to_run and known:
            unknown = len(to_run) - len(known)
            lines.append(f"about {duration(until_the_end(steps, known, slots))} with {slots} at once, by earlier "
                         f"records" + (f"; of {unknown} to run they tell nothing" if unknown else ""))
    return lines


def counts(found) -> str:
    """`3 done, 1 failed`, in the order of `Kind`."""
    number = Counter(state.kind for state in found)
    return ", ".join(f"{number[kind]} {kind.value}" for kind in Kind if number[kind])


class View:
    """Lines as things happen; one a minute on how far it is."""

    def __init__(self) -> None:
        self.shown = time.monotonic()

    def __enter__(self) -> "View":
        return self

    def __exit__(self, *error) -> None:
        pass

    def line(self, text: str) -> None:
        print(text, flush=True)

    def event(self, text: str) -> None:
        self.line(f"{time.strftime('%H:%M:%S')}  {text}")

    def log(self, lines: list[str]) -> None:
        for line in lines:
            self.line(line)

    def started(self, step: Step, gpu: str | None) -> None:
        self.event(f"{step.name}: begins" + (f" on GPU {gpu}" if gpu is not None else ""))

    def ended(self, step: Step, state: State, seconds: float | None) -> None:
        if seconds is not None:
            took = f" after {duration(seconds)}"
            self.event(f"{step.name}: {state.kind.value}{took}" + (f": {state.why}" if state.why else ""))
        elif not state.finished:
            self.event(f"{step.name}: {state.kind.value}: {state.why}")

    def update(self, total: int, ended: Mapping[Step, State], elsewhere: set[Step],
               rows: Callable[[], list[tuple[Step, str, float, str]]], left: Callable[[], float | None]) -> None:
        """Called at every turn of the loop; `rows` and `left` are asked only when something is to be shown."""
        if time.monotonic() - self.shown > SECONDS_BETWEEN_LINES:
            self.shown = time.monotonic()
            running = "; ".join(step.name + (f" epoch {epoch}" if epoch else "") for step, _, _, epoch in rows())
            self.event(f"{self.summary(total, ended, left())}; running: {running or 'nothing'}")

    @staticmethod
    def summary(total: int, ended: Mapping[Step, State], left: float | None) -> str:
        when = "" if left is None else f", about {duration(left)} left, until " + time.strftime(
            "%H:%M" if left < 72000 else "%d %b %H:%M", time.localtime(time.time() + left))
        return f"{len(ended)} of {total} ended ({counts(ended.values())}){when}" if ended else f"0 of {total} ended"


class LiveView(View):
    """As `View`, with a table below the lines that is drawn anew every second."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        super().__init__()
        self.console = Console()
        self.live = Live(console=self.console, auto_refresh=False, transient=True)

    def __enter__(self) -> "LiveView":
        self.live.start()
        return self

    def __exit__(self, *error) -> None:
        self.live.stop()

    def line(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def update(self, total, ended, elsewhere, rows, left) -> None:
        if time.monotonic() - self.shown < SECONDS_BETWEEN_TABLES:
            return
        from rich.table import Table

        self.shown = time.monotonic()
        table = Table(title=self.summary(total, ended, left()), title_justify="left", title_style="")
        for column in ("running", "GPU", "epoch", "for"):
            table.add_column(column, overflow="fold")
        for step, gpu, seconds, epoch in rows():
            table.add_row(step.name, gpu, epoch, duration(seconds))
        for step in sorted(elsewhere, key=lambda step: step.line):
            table.add_row(step.name, "", "", "elsewhere")
        self.live.update(table, refresh=True)


def make() -> View:
    """A live view in a terminal, else plain lines."""
    return LiveView() if sys.stdout.isatty() else View()
