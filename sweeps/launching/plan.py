"""A plan: plain commands, one a line, and which of them needs which."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path

from ulmfit import lineage, names
from ulmfit.errors import UsageError, UserError
from ulmfit.lineage import Lineage

_FORMS = "a plan holds lines like `python imdb_scripts/train_clas.py ...` and `python -m analysis ...`"
# These change nothing in what a command makes: two commands that differ in them alone are one.
_SAME = ("quiet", "overwrite")


@dataclass(eq=False)
class Step:
    """One command of a plan.

    line: its number in the plan. words: the command after `python`. run: what it asks for; None for a command that
    leaves no record, as a table, which is made anew each time. needs: the steps whose outputs it reads; of a table all
    that come before it.
    """

    line: int
    words: list[str]
    run: Lineage | None
    needs: list["Step"] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.run.run_id if self.run else " ".join(self.words[1:3])

    @property
    def command(self) -> str:
        return shlex.join(["python", *self.words])

    @property
    def uses_gpu(self) -> bool:
        return self.run is not None and "cuda_id" in self.run.flags

    @property
    def threads(self) -> int | None:
        """The CPU threads that its command takes; None: every core."""
        flags = self.run.flags if self.run else {}
        return next((flags[name] for name in ("threads", "workers") if name in flags), 1)


def read(text: str) -> list[Step]:
    """The steps of a plan in its order, each distinct one once.

    Raises UsageError for a line that is no command of this project, and UserError, before anything runs, where two
    different commands make the same thing or nothing makes what a command reads.
    """
    steps: list[Step] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            steps.append(_step(number, line))
        except UserError as error:
            raise type(error)(f"line {number} of the plan: {error}") from None
    if not steps:
        raise UsageError("the plan is empty")
    return _joined(_distinct(steps))


def _step(number: int, line: str) -> Step:
    try:
        words = shlex.split(line, comments=True)
    except ValueError as error:
        raise UsageError(f"{line.strip()[:60]!r}: {error}") from None
    if len(words) < 2 or words[0] not in ("python", "python3"):
        raise UsageError(f"{line.strip()[:60]!r} is none; {_FORMS}")
    if words[1:3] == ["-m", "analysis"] and len(words) > 3:
        run = lineage.of_command("analysis.ensemble", words[4:]) if words[3] == "ensemble" else None
        return Step(number, words[1:], run)
    script = Path(words[1])
    if script.parent.as_posix() != "imdb_scripts" or script.suffix != ".py":
        raise UsageError(f"{line.strip()[:60]!r} is none; {_FORMS}")
    return Step(number, words[1:], lineage.of_command(script.stem, words[2:]))


def _distinct(steps: list[Step]) -> list[Step]:
    """Each command once. Raises UserError when two different ones make the same thing."""
    kept: list[Step] = []
    makers: dict[Path, Step] = {}
    for step in steps:
        outputs = _outputs(step)
        other = next((makers[place] for place in outputs if place in makers), None)
        if other is None:
            kept.append(step)
            makers |= dict.fromkeys(outputs, step)
        elif _asked(step) != _asked(other):
            raise UserError(f"lines {other.line} and {step.line} of the plan make {step.name} by different commands: "
                            f"{other.command}; {step.command}")
    return kept


def _outputs(step: Step) -> list[Path]:
    return [place.resolve() for place in step.run.outputs()] if step.run else []


def _asked(step: Step) -> dict:
    return {name: value for name, value in step.run.flags.items() if name not in _SAME}


def _joined(steps: list[Step]) -> list[Step]:
    """Fills in what each step needs. Raises UserError for what nothing makes, or makes too late."""
    makers = {place: step for step in steps for place in _outputs(step)}
    for position, step in enumerate(steps):
        if step.run is None:
            step.needs = steps[:position]
            continue
        for places in (*step.run.reads.values(), *((place,) for place in step.run.also)):
            maker = _maker(step, places, makers)
            if maker is not None and maker not in step.needs:
                step.needs.append(maker)
    return steps


def _maker(step: Step, places: tuple[Path, ...], makers: dict[Path, Step]) -> Step | None:
    """The step that makes what lies in one of these places; None when it is there and none makes it."""
    late = None
    for place in places:
        maker = makers.get(place.resolve())
        if maker is not None and maker.line < step.line:
            return maker
        if lineage.there(place):
            return None
        late = late or (maker if maker is not step else None)
    wanted = f"line {step.line} of the plan: {step.name} reads {names.shown(places[0])}, which "
    if late is not None:
        raise UserError(f"{wanted}line {late.line} makes; put that one first")
    raise UserError(f"{wanted}is not there and no command before it makes; add that command, or run it")
