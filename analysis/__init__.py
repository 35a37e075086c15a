"""From run records to numbers: `python -m analysis NAME`. Needs the records alone, neither weights nor torch."""

import sys
from pathlib import Path

# From a bare checkout, and ahead of another checkout's installed library.
_scripts = Path(__file__).resolve().parents[1] / "imdb_scripts"
if (_scripts / "ulmfit").is_dir():
    sys.path.insert(0, str(_scripts))
