"""Finds the rows of the paper's Tables 4 to 7 among the results, by the flags that they were made with."""

from dataclasses import dataclass, field

from .comparison import Block, counted, entry_of
from .outcomes import Outcomes
from .published import DROPOUT_FACTORS, VARIED, Row, Table, dataset_order
from .rendering import dataset_title
from .settings import Result

_ABSENT = object()
# How often a run was validated; it makes no row, but runs that differ in it are not averaged.
_PACE = ("val_every", "lm.val_every", "pre.val_every")
# Looked at apart: see `_choose`.
_LOOSE = ("early_stopping", "cl")


def is_row(row: Row, setting: dict) -> bool:
    """Whether a setting differs from full ULMFiT in just what makes this row."""
    for flag in (*VARIED, *(name for name in ("lr", "cl") if name in row.flags)):
        if flag not in row.flags and (_covered(flag, row.without) or _is_chosen_factor(flag, setting)):
            continue
        if setting.get(flag, _ABSENT) != row.flags.get(flag, _ABSENT):
            return False
    return True


def _is_chosen_factor(flag: str, setting: dict) -> bool:
    return flag in DROPOUT_FACTORS and setting.get(flag, 0) != 0


@dataclass
class Profile:
    """What a run has in common with the other rows: its flags but those that make its row.

    flags: (name, value) pairs. blind: names and beginnings (`lm.*`) of flags that its row says nothing about.
    """

    flags: frozenset[tuple[str, str]]
    blind: tuple[str, ...]
    _seen_by: dict[tuple[str, ...], frozenset] = field(default_factory=dict, repr=False, compare=False)

    def but(self, blind: tuple[str, ...]) -> frozenset:
        """The flags without the blind ones."""
        if blind not in self._seen_by:
            self._seen_by[blind] = frozenset(pair for pair in self.flags if not _covered(pair[0], blind))
        return self._seen_by[blind]


def _covered(name: str, blind: tuple[str, ...]) -> bool:
    return any(name.startswith(each[:-1]) if each.endswith("*") else name == each for each in blind)


def _without_meaning(flags: dict) -> tuple[str, ...]:
    """Flags that a row's own make meaningless: the ratio of an STLR that it does not have."""
    found = []
    if any(flags.get(name) for name in ("startat", "last", "chain_thaw", "from_scratch")):
        found.append("unfreezing")
    if flags.get("last") or flags.get("chain_thaw") or flags.get("use_discriminative") is False:
        found.append("divisor")
    for prefix in ("", "lm."):
        if (flags.get(f"{prefix}use_regular_schedule") or flags.get(f"{prefix}use_clr") is False
                or (prefix == "" and flags.get("from_scratch"))):
            found += [f"{prefix}cut_frac", f"{prefix}ratio"]
    if flags.get("lm.use_discriminative") is False:
        found.append("lm.divisor")
    return tuple(found)


def profile_of(row: Row, setting: dict) -> Profile:
    own = (name for name in row.flags if name not in VARIED or name in DROPOUT_FACTORS)
    blind = (*row.without, *_without_meaning(row.flags), *own)
    return Profile(frozenset((name, repr(value)) for name, value in _common(setting, blind).items()
                             if name not in _LOOSE), blind)


def _common(setting: dict, blind: tuple[str, ...]) -> dict:
    return {name: value for name, value in setting.items()
            if (name not in VARIED or _is_chosen_factor(name, setting)) and name not in ("early_stopping", *_PACE)
            and not _covered(name, blind)}


@dataclass
class _Group:
    """Results of one dataset, row by row, whose profiles are alike in every flag that they speak of."""

    dataset: str
    corpus: str | None
    profile: Profile
    cl: object
    epochs: int | None
    constant: dict
    rows: dict[str, list[Result]] = field(default_factory=dict)
    broken: dict[str, list[str]] = field(default_factory=dict)

    def takes(self, row: Row, result: Result) -> bool:
        """Whether the epochs fit, of a result whose profile does."""
        return ("cl" in row.flags or self.cl == result.setting.get("cl")
                or (result.epochs is not None and result.epochs == self.epochs))


class _Groups(list):
    """Groups in the order made, found by dataset and profile without looking at each."""

    def __init__(self):
        super().__init__()
        # By (what the group is blind to, what the profile is blind to), then by dataset and what both speak of.
        self._index: dict[tuple, dict[tuple, list[_Group]]] = {}

    def add(self, group: _Group) -> None:
        self.append(group)
        for (own, theirs), table in self._index.items():
            if own == group.profile.blind:
                table.setdefault((group.dataset, group.profile.but(theirs)), []).append(group)

    def fitting(self, dataset: str, profile: Profile) -> list[_Group]:
        found = []
        for blind in dict.fromkeys(group.profile.blind for group in self):
            if (blind, profile.blind) not in self._index:
                table = self._index[blind, profile.blind] = {}
                for group in self:
                    if group.profile.blind == blind:
                        table.setdefault((group.dataset, group.profile.but(profile.blind)), []).append(group)
            found += self._index[blind, profile.blind].get((dataset, profile.but(blind)), [])
        return found


def blocks(table: Table, results: list[Result], broken: list[tuple[Result, str]], outcomes: Outcomes,
           backwards: bool = False, bpe: bool = False) -> tuple[list[Block], list[str]]:
    """A block for each dataset and profile, its rows in the paper's order, missing ones included.

    Profiles with runs of half of the rows or fewer are left out, but for the fullest of each dataset. Returns the
    blocks and a line for what was left out.
    """
    def of_kind(result: Result) -> bool:
        return (result.run.stage == "train_clas" and bool(result.setting.get("backwards")) == backwards
                and bool(result.setting.get("bpe")) == bpe)

    groups = _Groups()
    profiles: dict[tuple, Profile] = {}  # runs that differ in seeds alone share one

    def place(row: Row, result: Result) -> tuple[Profile, list[_Group]]:
        key = row.name, result.key
        if key not in profiles:
            profiles[key] = profile_of(row, result.setting)
        profile = profiles[key]
        return profile, [group for group in groups.fitting(result.dataset, profile) if group.takes(row, result)]

    for row in reversed(table.rows):
        for result in results:
            if not of_kind(result) or result.unknown or not is_row(row, result.setting):
                continue
            profile, fitting = place(row, result)
            if row is table.reference:
                fitting = [group for group in fitting if group.profile == profile
                           and group.cl == result.setting.get("cl")]
            if not fitting:
                groups.add(_Group(result.dataset, result.corpus, profile, result.setting.get("cl"), result.epochs,
                                  _common(result.setting, profile.blind)))
                fitting = groups[-1:]
            for group in fitting:
                group.rows.setdefault(row.name, []).append(result)
        for result, problem in broken:
            if of_kind(result) and is_row(row, result.setting):
                for group in place(row, result)[1]:
                    group.broken.setdefault(row.name, []).append(problem.split(":")[0])
    shown, left_out = [], []
    corpora = {group.dataset: group.corpus for group in groups}
    for dataset in sorted(corpora, key=lambda name: dataset_order(name, corpora[name])):
        own = sorted((group for group in groups if group.dataset == dataset),
                     key=lambda group: (-sum(map(len, group.rows.values())), "n_labels" in group.constant))
        # Of sets of few rows one is shown: the paper's tables are of all labels, and a subset of them with full ULMFiT
        # alone is a point of Figure 3 and no table.
        few = sorted((group for group in own if "n_labels" not in group.constant or len(group.rows) > 1),
                     key=lambda group: "n_labels" in group.constant)
        full = [group for group in own if len(group.rows) > len(table.rows) / 2] or few[:1]
        shown += full
        if len(own) > len(full):
            sets = len(own) - len(full)
            left_out.append(f"{dataset_title(dataset, corpora[dataset])}: not shown are the runs of few rows with "
                            f"other flags in common ({sets} such set{'s' * (sets > 1)}); --where chooses among them.")
    outcomes.prefetch(run.folder for group in shown for members in group.rows.values() for result in members
                      for run in (result.val, result.test) if run is not None)
    # The paper's tables are of words, forward, and of all labels.
    return [_block(table, group, outcomes, not (backwards or bpe or "n_labels" in group.constant))
            for group in shown], left_out


def _block(table: Table, group: _Group, outcomes: Outcomes, as_in_paper: bool) -> Block:
    entries = []
    for row in table.rows:
        chosen, note = _choose(row, group, row is table.reference)
        paper = row.errors.get(group.corpus) if as_in_paper else None
        bad = group.broken.get(row.name, [])
        entries.append(entry_of(row.name, chosen, outcomes, paper=paper, note="; ".join(filter(None, (note, counted(bad)))),
                                reference=row is table.reference))
    return Block(table.name, group.dataset, entries, group.constant, candidates=group.rows, corpus=group.corpus)


def alike(results: list[Result]) -> list[list[Result]]:
    """Results in groups that differ in seeds alone."""
    by_setting: dict[tuple, list[Result]] = {}
    for result in results:
        by_setting.setdefault(result.key, []).append(result)
    return list(by_setting.values())


def _choose(row: Row, group: _Group, reference: bool) -> tuple[list[Result], str]:
    """The runs of a row that are alike in all but seeds, those nearest to the paper, and in what they are not.

    The paper's own: early stopping in every row but full ULMFiT, and the same number of epochs everywhere, which may be
    meant as the same `cl` or as the same sum of epochs, those of the gradual steps included. A row with a pretraining
    of its own is taken with the one nearest to the others'.
    """
    pretraining = {name: value for name, value in group.constant.items() if name.startswith("pre.")}

    def otherwise(results: list[Result]) -> list[str]:
        own = {name: value for name, value in results[0].setting.items()
               if name.startswith("pre.") and name not in row.flags}
        return [name for name in {**pretraining, **own} if name not in row.flags
                and own.get(name) != pretraining.get(name)] if own else []

    def distance(results: list[Result]) -> tuple:
        setting = results[0].setting
        return (bool(setting.get("early_stopping")) != bool(row.flags.get("early_stopping")),
                "cl" not in row.flags and setting.get("cl") != group.cl, len(otherwise(results)), -len(results))

    chosen = min(alike(group.rows.get(row.name, [])), key=distance, default=[])
    if not chosen:
        return [], ""
    stops, other_epochs, *_ = distance(chosen)
    notes = [f"{'without' if row.flags.get('early_stopping') else 'with'} early stopping"] if stops else []
    notes += [f"cl={chosen[0].value('cl')}"] if other_epochs and not reference else []
    if pretraining and (other := otherwise(chosen)):
        notes.append("pretrained otherwise: " + ", ".join(other))
    return chosen, ", ".join(notes)
