"""Which results a table takes: those of the dataset and the flags that the user names."""

from typing import Iterable

from ulmfit.corpus import shortened
from ulmfit.errors import UsageError, UserError

from .settings import Result
from .study import Study


def conditions(where: str | None) -> list[tuple[str, str]]:
    """`lm.cl=15,lr=0.01` as pairs. Raises UsageError."""
    pairs = []
    for part in where.split(",") if where else ():
        name, equals, value = part.strip().partition("=")
        if not equals or not name:
            raise UsageError(f"--where={where!r}: FLAG=VALUE is expected, several by commas, as lm.cl=15,lr=0.01")
        pairs.append((name, value))
    return pairs


def flag_names(results: Iterable[Result]) -> set[str]:
    """Every name that `value` knows for one of the results."""
    known = {"dataset", "backwards", "bpe", "n_labels", "lm.n_labels"}
    flags = set()
    for result in results:
        known |= result.setting.keys()
        flags |= {(prefix, *run.record.get("flags", {})) for prefix, run in result.behind.items()}
    # Of thousands of runs the stages have but a few lists of flags.
    return known | {prefix + name for prefix, *names in flags for name in names}


def check_names(wanted: Iterable[str], results: list[Result], flag: str) -> None:
    """Raises UserError for a name that no result knows."""
    known = flag_names(results)
    for name in wanted:
        if results and name not in known:
            raise UserError(f"--{flag}: {name} is a flag of none of these runs; a classifier's own have their name, "
                            f"those of its language model the prefix lm., of the pretrained one pre., of tok2id ids., "
                            f"of create_toks toks.")


def select(study: Study, dataset: str | None = None, where: str | None = None,
           stages: tuple[str, ...] = ("train_clas", "train_baseline")) -> list[Result]:
    """The results on a dataset whose flags have the values in `where`, defaults included.

    Raises UserError for a dataset without a run, and for values that no result has.
    """
    pairs = conditions(where)
    check_dataset(study, dataset)
    chosen = [result for result in study.results if dataset in (None, result.dataset) and result.run.stage in stages]
    check_names([name for name, _ in pairs], chosen, "where")
    found = [result for result in chosen if matches(result, pairs)]
    # Those without the stage alone are none that have the value.
    if chosen and not all(any(result.has_stage(name) for result in found) for name, _ in pairs):
        there = (f"{name} is " + shortened(sorted({str(result.value(name)) for result in chosen})) for name, _ in pairs)
        raise UserError(f"--where={where}: no run has these values; {'; '.join(there)} here")
    return found


def matches(result: Result, pairs: list[tuple[str, str]]) -> bool:
    """Whether each flag has its value. A flag of a stage that is not behind a result, as `lm.cl` of a classifier from
    scratch, leaves it in: its row belongs to the table of the others."""
    return all(not result.has_stage(name) or _is(result.value(name), value) for name, value in pairs)


def check_dataset(study: Study, dataset: str | None) -> None:
    """Raises UserError for a dataset of which there is no run, where there are runs."""
    known = {run.dataset for run in study.archive if run.dataset}
    if dataset is not None and known and dataset not in known:
        raise UserError(f"--dataset={dataset}: no run is of it; there are runs of {shortened(sorted(known))}")


def _is(value: object, typed: str) -> bool:
    if isinstance(value, bool):
        return str(value).lower() == typed.lower()
    if isinstance(value, (float, int)):
        try:
            return float(typed) == value
        except ValueError:
            return False
    return str(value) == typed
