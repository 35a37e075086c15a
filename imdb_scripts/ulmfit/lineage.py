"""What a run reads and writes, told from its flags alone, before any of it is there.

Each stage has a function `lineage(flags)` beside it: names and places of what one of its runs reads and makes. The
stage takes its own names from there, and so does whoever has to know them beforehand (`sweeps/launch.py`).
"""

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

from . import cli, files, names, records
from .errors import UsageError

SIZES = ("emb_sz", "n_hid", "n_layers")


@dataclass(frozen=True)
class Lineage:
    """A run that is asked for.

    stage: its function. run_id: name of its record. dataset: as its record has it.
    flags: every flag with its value, as `records.open_run` takes them.
    reads: by role, the places in which an input may lie, best first: an artefact's folder, a run's folder or a file.
        The roles are those of the record's inputs.
    also: what is read and changes nothing in the result, so that its fingerprint does not count.
    artefact: the folder of what it makes beside its record. writes: further things that other stages read.
    resolved: values that a default leaves open. from_weights: flags whose value is that of loaded weights.
    special: gives the inputs by role that are not simply an artefact or a file.
    """

    stage: Callable
    run_id: str
    dataset: str
    flags: dict[str, Any]
    reads: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    also: tuple[Path, ...] = ()
    artefact: Path | None = None
    writes: tuple[Path, ...] = ()
    resolved: dict[str, Any] = field(default_factory=dict)
    from_weights: tuple[str, ...] = ()
    special: Callable[[], dict[str, records.Input]] | None = None

    @property
    def folder(self) -> Path:
        """The folder of the record."""
        return names.run_folder(self.results, self.run_id)

    @property
    def results(self) -> Path:
        """The folder that holds the records."""
        return names.results_folder(self.flags["results_dir"])

    def outputs(self) -> tuple[Path, ...]:
        """Every place that this run fills and another may read."""
        return (self.folder, *((self.artefact,) if self.artefact else ()), *self.writes)

    def missing(self) -> dict[str, tuple[Path, ...]]:
        """Of what it reads, by role, what is not there yet."""
        return {role: places for role, places in self.reads.items() if not any(there(place) for place in places)}

    def inputs(self) -> dict[str, records.Input]:
        """The inputs as its record would have them; call it when nothing is missing."""
        special = self.special() if self.special else {}
        found = {role: next(place for place in places if there(place)) for role, places in self.reads.items()
                 if role not in special}
        return special | {role: records.Input(names.portable(place), _fingerprint(place))
                          for role, place in found.items()}

    def other_content(self, record: dict) -> str | None:
        """The path of an input that has been made again since the record was, with other digits."""
        for role, given in record["inputs"].items():
            place = next((place for place in self.reads.get(role, ()) if there(place)), None)
            if place is not None and "content" in given and given["content"] != records.content_of(place):
                return given["path"]
        return None

    def config(self, record: dict) -> dict[str, Any]:
        """The flags that enter the fingerprint.

        record: an earlier run's, or its artefact's manifest: sizes of loaded weights are taken from it, as they follow
        from the weights, whose fingerprint is among the inputs.
        """
        weights = {name: record["config"].get(name) for name in self.from_weights if name in record["config"]}
        return {**records.config_of(self.stage, self.flags), **weights, **self.resolved}

    def fingerprint(self, record: dict, inputs: dict[str, records.Input]) -> str:
        """The fingerprint of this very run; `record` as in `config`."""
        return records.fingerprint(self.stage.__name__, self.config(record), inputs)


def ids_and_subset(folder: names.DataFolder, bpe: bool, train_file_id: str) -> dict[str, tuple[Path, ...]]:
    """What every training reads of its dataset, by role."""
    subset = {"subset": (folder.subset(train_file_id),)} if train_file_id else {}
    return {"ids": (folder.ids(bpe),), **subset}


def there(place: Path) -> bool:
    """Whether an artefact is whole, a run finished, or a file is there."""
    if (place / "run.json").exists():
        return records.read_run(place)["status"] == "finished"
    return records.whole(place)


def _fingerprint(place: Path) -> str:
    for name in ("run.json", records.MANIFEST):
        if (place / name).exists():
            return files.read_json(place / name)["fingerprint"]
    return records.file_input(place).fingerprint


def of_command(module: str, arguments: list[str]) -> Lineage:
    """The run that a command line asks for.

    module: where the stage is, `train_clas` or `analysis.ensemble`; the stage has its last name. Raises UsageError for
    arguments that the stage would refuse, and for a module that is no stage.
    """
    name = module.rpartition(".")[2]
    try:
        script = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in (module, module.partition(".")[0]):
            raise
        raise UsageError(f"there is no {module}") from None
    if not hasattr(script, "lineage"):
        raise UsageError(f"{name} is no stage of a sweep: it leaves no run record")
    argument_list = cli.ArgumentList(getattr(script, name))
    return script.lineage(argument_list.converted(argument_list.parse(arguments)))
