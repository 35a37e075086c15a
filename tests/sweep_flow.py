"""Ways to call sweeps and launch on the smoke corpus; shared by their tests."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from conftest import ROOT

from flow import environment, interpret

sys.path.insert(0, str(ROOT / "sweeps"))

PATIENCE = 900


class Place:
    """A folder with data and records of its own.

    variables: of the sweep, beside those that say where things lie. REPORT: every sweep ends with the table of runs.
    """

    def __init__(self, folder: Path, **variables: str):
        self.folder, self.results = folder, folder / "results"
        self.variables = {"PROFILE": "smoke", "DATA": str(folder / "smoke"), "WIKI_DATA": str(folder / "smoke_wiki"),
                          "RESULTS": str(self.results), "REPORT": "runs", **variables}

    def copy(self, folder: Path, **variables: str) -> "Place":
        """The same with what has been made so far; no name in a record depends on the folder."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        return Place(folder, **{**{name: value for name, value in self.variables.items()
                                   if str(self.folder) not in value}, **variables})

    def environment(self, **variables: str) -> dict[str, str]:
        # The tests' own Python, which has all that is needed.
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {**environment(), "PATH": path, "COLUMNS": "200", **self.variables, **variables}

    def start(self, name: str, *flags: str, **variables: str) -> subprocess.Popen:
        return subprocess.Popen(["bash", f"sweeps/{name}.sh", *flags], cwd=ROOT, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True, start_new_session=True,
                                env=self.environment(**variables))

    def sweep(self, name: str, *flags: str, **variables: str) -> subprocess.CompletedProcess:
        process = self.start(name, *flags, **variables)
        output, _ = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(process.args, process.returncode, output)

    def plan(self, name: str, **variables: str) -> list[str]:
        done = self.sweep(name, "--print", **variables)
        assert done.returncode == 0, done.stdout
        return done.stdout.splitlines()

    def make(self, plan: list[str]) -> None:
        """Runs the commands of a plan one after the other in this process, without launch."""
        for line in plan:
            done = interpret(shlex.split(line)[1:])
            assert done.returncode == 0, (line, done.stdout, done.stderr)

    def command(self, stage: str, **flags) -> str:
        """A line of a plan on this data."""
        flags = {"dir_path": self.variables["DATA"], **flags, "results_dir": self.results}
        return f"python imdb_scripts/{stage}.py " + " ".join(f"--{name}={value}" for name, value in flags.items())

    def launch(self, plan: str, *flags: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, "sweeps/launch.py", *flags], cwd=ROOT, input=plan, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE,
                              env=self.environment())

    def records(self) -> dict[str, dict]:
        return {path.parent.name: json.loads(path.read_text(encoding="utf-8"))
                for path in sorted(self.results.glob("runs/*/run.json"))}

    def wait_for(self, condition, what: str) -> None:
        """Until the records meet a condition."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                if condition(self.records()):
                    return
            except json.JSONDecodeError:
                pass
            assert time.monotonic() < end, f"waited in vain for {what}"
            time.sleep(0.05)


def table(output: str) -> dict[str, str]:
    """The state of each run, of `--status` and `--dry_run`."""
    rows = [line.split("  ", 1) for line in output.splitlines() if "--" in line and "  " in line]
    return {name: rest.strip().split("  ")[0] for name, rest in rows}


def essence(place: Place) -> dict[str, dict]:
    """What the same plan must give wherever and however it ran: records without times, hosts and machines."""
    kept = ("stage", "status", "fingerprint", "config", "inputs", "parents", "flags", "metrics", "seed", "dataset",
            "command")
    found = {}
    for name, record in place.records().items():
        found[name] = {key: _without_times(record[key]) for key in kept}
        folder = place.results / "runs" / name
        found[name]["files"] = {path.name: path.read_bytes() for path in sorted(folder.iterdir())
                                if path.name in ("predictions.csv", "steps.csv.gz")}
    return found


def _without_times(value):
    if not isinstance(value, dict):
        return value
    return {key: _without_times(part) for key, part in value.items() if "second" not in key}
