"""`python -m analysis NAME`; `--help` alone lists the commands, after a name its flags."""

from ulmfit.cli import main_group

from . import commands
from .ensemble import ensemble
from .runs import runs

COMMANDS = {name: getattr(commands, name) for name in (
    "table4", "table5", "table6", "table7", "tables2_3", "bidirectional", "subword", "low_shot", "ablation",
    "agreement")}
COMMANDS |= {"ensemble": ensemble, "runs": runs}

if __name__ == "__main__":
    main_group(COMMANDS, prog="python -m analysis")
