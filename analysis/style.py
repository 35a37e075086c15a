"""How figures look: one column of a paper wide, readable without colour, fonts embedded."""

from pathlib import Path
from typing import Iterator
from contextlib import contextmanager

import matplotlib
from ulmfit import files

matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402  (after the backend is chosen)
from matplotlib.figure import Figure  # noqa: E402

WIDTH = 3.4  # inches: a column of a two-column page
DPI = 300

# Indigo, purple, green, rose and cyan of Tol's muted scheme (SRON/EPS/TN/09-002), orange and black of Okabe & Ito 2008:
# chosen so that colour-blind readers tell every two apart, and that on grey paper every two differ by at least 0.09 of
# the way from black to white, the first four, which most figures make do with, by 0.19. (Okabe & Ito's own blue,
# pink and orange are one grey.) Each has a marker and a line of its own as well.
COLOURS = ("#332288", "#E69F00", "#AA4499", "#000000", "#117733", "#CC6677", "#88CCEE")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
REFERENCE, OTHER, MISSING_GREY = "#0072B2", "#9ecae1", "#888888"

_SETTINGS = {
    "font.family": "DejaVu Sans", "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "xtick.labelsize": 7,
    "ytick.labelsize": 7, "legend.fontsize": 7, "legend.frameon": False, "axes.spines.top": False,
    "axes.spines.right": False, "axes.linewidth": 0.6, "lines.linewidth": 1.2, "lines.markersize": 4,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "axes.axisbelow": True, "grid.linewidth": 0.4,
    "grid.color": "#dddddd", "hatch.linewidth": 0.4, "figure.dpi": 100,
    # TrueType, which journals take; type 3 fonts they do not.
    "pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "path", "text.usetex": False, "text.parse_math": False}


@contextmanager
def figure(height: float, rows: int = 1, columns: int = 1, **kinds) -> Iterator[tuple[Figure, list]]:
    """A figure one column wide and `height` inches high, with its axes in a flat list; closed at the end."""
    with matplotlib.rc_context(_SETTINGS):
        made, axes = plt.subplots(rows, columns, figsize=(WIDTH, height), layout="constrained", squeeze=False, **kinds)
        try:
            yield made, list(axes.flat)
        finally:
            plt.close(made)


def save(made: Figure, folder: Path, name: str) -> list[Path]:
    """Writes NAME.pdf and NAME.png, without a date, so that the same figure is the same file."""
    paths = [folder / f"{name}.{ending}" for ending in ("pdf", "png")]
    for path in paths:
        metadata = {"CreationDate": None} if path.suffix == ".pdf" else {}
        with files.replacing(path) as temporary:
            made.savefig(temporary, format=path.suffix[1:], dpi=DPI, metadata=metadata)
    return paths
