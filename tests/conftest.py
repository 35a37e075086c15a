"""The checkout's own packages come first, installed or not."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "imdb_scripts")]
