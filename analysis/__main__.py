"""`python -m analysis NAME`; `--help` alone lists the commands, after a name its flags."""

from ulmfit.cli import main_group

from . import commands
from .checks import check
from .collect import collect
from .difference import diff
from .ensemble import ensemble
from .provenance import show
from .run_figures import confusion, curves, schedule
from .runs import runs

COMMANDS = {"runs": runs, "show": show, "diff": diff, "check": check, "collect": collect, "ensemble": ensemble}
COMMANDS |= {name: getattr(commands, name) for name in (
    "tables2_3", "table4", "table5", "table6", "table7", "bidirectional", "subword", "low_shot", "figure4", "ablation",
    "agreement", "ensembles", "report", "paper")}
COMMANDS |= {"curves": curves, "schedule": schedule, "confusion": confusion}

if __name__ == "__main__":
    main_group(COMMANDS, prog="python -m analysis")
