"""`python -m analysis runs` and `python -m analysis ensemble RUN RUN ...`; `--help` after either says more."""

from ulmfit.cli import main_group

from .ensemble import ensemble
from .runs import runs

if __name__ == "__main__":
    main_group({"runs": runs, "ensemble": ensemble}, prog="python -m analysis")
