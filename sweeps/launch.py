"""Runs the plan of a sweep: what is missing of it, several runs at once, on this machine or on a Slurm cluster."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "imdb_scripts")]

from ulmfit import cli, names  # noqa: E402  (from this checkout)
from ulmfit.errors import UserError  # noqa: E402

from launching import estimates, local, machine, plan, slurm, states, view  # noqa: E402


def launch(plan_file="-", gpus=None, slots=None, backend="local", slurm_file=None, dry_run=False, status=False,
           retry_failed=False):
    """Runs a plan: a file of plain commands, one a line, `-` for standard input.

    What each command reads and writes is asked of its stage. A command whose run is finished is not run again, one that
    was cut off goes on from its checkpoint, each distinct one runs once, as soon as what it needs is there. A failed
    run stops nothing but what depends on it. A plan that lacks the maker of an input, or makes one thing in two ways,
    is refused before anything runs.

        bash sweeps/table7_clas_finetuning.sh --print | python sweeps/launch.py --dry_run

    --dry_run shows what would be run, with the time that it takes by earlier records; --status how the runs stand, also
    while a launch works on them. Two launches of one plan share its runs. The exit status is 0 when every run is
    finished.

    On this machine a command runs on each GPU (--gpus="0 1"), or without one on as many groups of CPU cores as the
    plan's --threads allow. --backend=slurm submits a job for each run that is neither finished nor in the queue, and
    returns; partition, account and time come from --slurm_file (sweeps/slurm.ini).
    """
    os.chdir(names.project_root())
    steps = plan.read(_text(plan_file))
    results = _results(steps)
    cluster = slurm.Cluster(slurm_file) if backend == "slurm" else None
    alive = cluster.alive if cluster else states.alive_here
    chosen = machine.gpu_slots(gpus)
    places = machine.slots_of(chosen, machine.cpu_slots(slots, [step.threads for step in steps if step.run]))
    if dry_run or status:
        found = states.survey(steps, alive, retry_failed)
        expected = None
        if dry_run:
            past, device = estimates.known_past(results), "cuda" if chosen else "cpu"
            expected = {step: estimates.seconds(step.run, past, device) for step in steps if step.run}
        print("\n".join(view.plan_table(steps, found, expected, len(places))))
        return
    if cluster:
        cluster.submit(steps, results, retry_failed)
        return
    with view.make() as shown:
        ended = local.Launch(steps, results, places, shown, retry_failed).run()
    _report(steps, ended)


def _text(plan_file: str) -> str:
    if plan_file == "-":
        return sys.stdin.read()
    path = Path(plan_file)
    if not path.is_file():
        raise UserError(f"--plan_file: there is no file {plan_file}")
    return path.read_text(encoding="utf-8")


def _results(steps: list) -> Path:
    """The folder of the plan's records. Raises UserError when its commands name several."""
    folders = {step.run.results.resolve() for step in steps if step.run}
    if len(folders) > 1:
        raise UserError("the plan's commands write their records to different folders, "
                        f"{' and '.join(sorted(map(names.shown, folders)))}; give all of them the same --results_dir")
    return folders.pop() if folders else names.results_folder(None)


def _report(steps: list, ended: dict) -> None:
    """What was made, what failed and why. Raises UserError unless every step is finished."""
    bad = [step for step in steps if not ended[step].finished]
    print(f"{len(steps)} commands: {view.counts(ended.values())}")
    for step in bad:
        print(f"{ended[step].kind.value}: {step.name}: {ended[step].why}")
    if bad:
        failed = any(ended[step].kind is states.Kind.FAILED for step in bad)
        refused = any(ended[step].kind is states.Kind.REFUSED for step in bad)
        raise UserError(f"{len(bad)} of {len(steps)} commands are not finished"
                        + "; --retry_failed runs the failed ones again" * failed
                        + "; to keep a sweep apart from what is in its way, give its records a folder of their own by "
                          "RESULTS and, where models are in its way too, a copy of the csv files by DATA, in a folder "
                          "of another name" * refused)


if __name__ == "__main__":
    cli.main(launch)
