"""Tables of the user's own sweeps: what varies is named, what stays constant is shown, nothing else may vary."""

from collections import defaultdict
from typing import Sequence

from ulmfit.corpus import shortened
from ulmfit.errors import UsageError, UserError

from .comparison import Block, counted, entry_of
from .selection import check_names
from .settings import Result
from .study import Study, shown_value


def blocks(study: Study, results: list[Result], by: list[str], broken: Sequence[tuple[Result, str]] = ()) \
        -> list[Block]:
    """A block a dataset, a row for each combination of the flags `by`; the one at the defaults is the reference.

    broken: results that do not stand, with why; their rows say so, and are there without any other.

    Raises UserError when results that would stand in one row differ in a flag that is not in `by`.
    """
    if not by:
        raise UsageError("--by=FLAG[,FLAG] names the flags that make the rows, as --by=lr,use_clr")
    check_names(by, results, "by")
    by_dataset: dict[str, dict[tuple, list[Result]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        by_dataset[result.dataset][_row(result, by)].append(result)
    problems: dict[str, dict[tuple, list[str]]] = defaultdict(lambda: defaultdict(list))
    for result, problem in broken:
        problems[result.dataset][_row(result, by)].append(problem.split(":")[0])
    study.outcomes.prefetch(run.folder for result in results for run in (result.val, result.test) if run is not None)
    found = []
    for dataset in sorted({*by_dataset, *problems}):
        rows = by_dataset[dataset]
        for members in rows.values():
            _check_seeds_alone(members, by)
        every = [result for members in rows.values() for result in members] or \
            [result for result, _ in broken if result.dataset == dataset]
        flags = list(dict.fromkeys(flag for result in every for flag in result.setting if flag not in by))
        varying = [flag for flag in flags if len({repr(result.setting.get(flag)) for result in every}) > 1]
        constant = {flag: every[0].setting[flag] for flag in flags if flag not in varying}
        there = {**{row: [] for row in problems[dataset]}, **rows}
        ordered = sorted(there.items(), key=lambda item: [_sortable(value) for _, value in item[0]])
        default = next((row for row, members in ordered if members and not set(by) & set(members[0].setting)),
                       next((row for row, members in ordered if members), None))
        entries = [entry_of(", ".join(f"{flag}={value}" for flag, value in row), members, study.outcomes,
                            reference=row == default, note=counted(problems[dataset].get(row, ())))
                   for row, members in ordered]
        notes = [f"From row to row these differ too: {', '.join(varying)}."] if varying else []
        found.append(Block("ablation", dataset, entries, constant, notes, corpus=every[0].corpus))
    return found


def _row(result: Result, by: list[str]) -> tuple[tuple[str, str], ...]:
    """The row that a result stands in: each of the flags with its value as it is shown."""
    return tuple((flag, shown_value(result.value(flag))) for flag in by)


def _sortable(value: str) -> tuple:
    try:
        return 0, float(value), ""
    except ValueError:
        return 1, 0.0, value


def _check_seeds_alone(results: list[Result], by: list[str]) -> None:
    stages = sorted({result.run.stage for result in results})
    if len(stages) > 1:
        raise UserError(f"classifiers and linear baselines ({', '.join(stages)}) would stand in one row; choose with "
                        f"--stage")
    flags = dict.fromkeys(flag for result in results for flag in result.setting if flag not in by)
    apart = {flag: values for flag in flags
             if len(values := {repr(result.setting.get(flag)): result for result in results}) > 1}
    if apart:
        said = {flag: sorted((shown_value(result.value(flag)) for result in values.values()), key=_sortable)
                for flag, values in apart.items()}
        first, (one, other, *_) = next(iter(said)), next(iter(apart.values())).values()
        raise UserError(f"runs that --by={','.join(by)} puts into one row differ in "
                        + shortened([f"{flag} ({', '.join(values)})" for flag, values in said.items()])
                        + f", as {one.run.id} and {other.run.id}; add {first if len(said) == 1 else 'each'} to --by, "
                        f"or choose by --where={first}={said[first][0]}")
