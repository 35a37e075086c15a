"""One frame of results as text: Markdown, csv, LaTeX and HTML show the same cells."""

import html
import math
import re
from dataclasses import dataclass
from typing import Sequence

import pandas as pd

from .aligned import align
from .comparison import ALPHA
from .published import DATASETS

MISSING = "missing"
CONSTANT = "The same in every "
PAPER_ONLY = "paper only"  # the note of a row that no run is expected of


@dataclass(frozen=True)
class Cell:
    """A cell of a table. runs: ids of the runs behind the number."""

    text: str
    bold: bool = False
    runs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grid:
    """A table as it is shown: a title, the columns' heads, rows of cells, and lines below."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()


def run_ids(runs: str) -> tuple[str, ...]:
    """The ids in a frame's `runs`: `A B` are two seeds, `A&B` is the average of two runs."""
    return tuple(re.split(r"[ &]", runs)) if runs else ()


def percent(value: float, sd: float = math.nan) -> str:
    """`5.23 ± 0.41`; without the spread where there is one value alone."""
    if math.isnan(value):
        return ""
    return f"{value:.2f}" if math.isnan(sd) else f"{value:.2f} ± {sd:.2f}"


def between(low: float, high: float, sign: str = "") -> str:
    return "" if math.isnan(low) else f"[{low:{sign}.2f}, {high:{sign}.2f}]"


def p_value(p: float) -> str:
    return "" if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def grid(frame: pd.DataFrame, title: str, notes: Sequence[str] = (), main_split: str = "val") -> Grid:
    """What a reader sees of one block of `comparison.frame_of`.

    The lowest error is bold, a significant difference has a star. Columns in which no row has anything are left out.
    """
    other = "test" if main_split == "val" else "val"
    lines = frame.to_dict("records")
    main, beside = ({line["row"]: line for line in lines if line["split"] == split} for split in (main_split, other))
    heads = ["", f"{main_split} error %", "paper", "95% interval", "n", "epochs", "best epoch", "difference",
             "its interval", "p", "p Holm", "p seeds", f"{other} error %", f"{other} interval", f"{other} difference",
             f"{other} difference's interval", f"{other} p Holm", "note"]
    lowest, lowest_beside = (min((line["error"] for line in part.values() if line["n_seeds"]), default=math.nan)
                             for part in (main, beside))
    # Seeds of the reference, as a difference may be of fewer.
    most, most_beside = (max((line["n_seeds"] for line in part.values() if line["reference"]), default=0)
                         for part in (main, beside))
    rows = []
    for name, line in main.items():
        next_to = beside.get(name)
        error, spread = _error(line, lowest)
        rows.append((
            Cell(name), error, Cell(percent(line["paper"])), spread,
            Cell("" if line["note"] == PAPER_ONLY else str(line["n_seeds"])), Cell(line["epochs"]),
            Cell(percent(line["best"], line["best_sd"])), *_difference(line, most),
            *map(Cell, (p_value(line["p"]), p_value(line["p_holm"]),
                        p_value(line["p_seeds"]) if line["n_pairs"] > 1 else "")),
            *(_error(next_to, lowest_beside, missing="", beside=line["n_seeds"]) if next_to is not None
              else (Cell(""), Cell(""))),
            *((*_difference(next_to, most_beside), Cell(p_value(next_to["p_holm"]))) if next_to is not None
              else (Cell(""),) * 3),
            Cell(line["note"])))
    kept = [column for column in range(len(heads)) if column < 2 or any(row[column].text for row in rows)]
    return Grid(title, tuple(heads[column] for column in kept),
                tuple(tuple(row[column] for column in kept) for row in rows), tuple(notes))


def _error(line: dict, lowest: float, missing: str = MISSING, beside: int | None = None) -> tuple[Cell, Cell]:
    """The error and its interval. beside: the seeds that the row's n says, where this is of another split."""
    if not line["n_seeds"]:
        return Cell("" if line["note"] == PAPER_ONLY else missing), Cell("")
    seeds = f" (n={line['n_seeds']})" if beside not in (None, line["n_seeds"]) else ""
    return (Cell(percent(line["error"], line["sd"]) + seeds, bool(line["error"] == lowest), run_ids(line["runs"])),
            Cell(between(line["low"], line["high"])))


def _difference(line: dict, of_reference: int) -> tuple[Cell, Cell]:
    if math.isnan(line["difference"]):
        return Cell("no seed in common" if line["n_pairs"] == 0 else ""), Cell("")
    star = "*" if line["significant"] else ""
    pairs = f" (n={line['n_pairs']:.0f})" if line["n_pairs"] < max(line["n_seeds"], of_reference) else ""
    return (Cell(f"{line['difference']:+.2f}{star}{pairs}"),
            Cell(between(line["difference_low"], line["difference_high"], "+")))


def legend(frame: pd.DataFrame, family: str = "rows") -> list[str]:
    """What the columns mean, for below the tables. family: over what p-values were corrected."""
    lines = ["Error in %: mean ± sample standard deviation over n seeds, the lowest in bold; 95% bootstrap interval "
             "over documents and seeds (of one seed: over documents alone). Best epoch: the error where the validation "
             "loss was lowest, which is chosen on val; with early stopping it is the one whose weights are kept."]
    if (frame["n_pairs"] > 0).any():
        seeds = sorted({int(n) for n in frame.loc[frame["n_pairs"] > 0, "n_pairs"]})
        smallest = ", ".join(f"{min(1.0, 2.0 ** (1 - n)):.2g} with {n} seed{'s' * (n > 1)}" for n in seeds)
        lines.append(f"Difference to the reference, the row without one, paired over documents and seeds. p: exact "
                     f"permutation test over documents, the seeds combined (McNemar's test for one seed), which speaks "
                     f"of these very runs; p Holm: after Holm's correction over the {family}. * p Holm < {ALPHA}, and "
                     f"the interval, which speaks of other documents and seeds too, leaves out 0. p seeds: exact "
                     f"permutation test over seeds; the smallest p attainable is {smallest}.")
    return lines


def dataset_title(dataset: str, corpus: str | None = None) -> str:
    """The corpus as papers write it, with the folder's name where that is another: `IMDb (imdb30k)`."""
    corpus = corpus or dataset
    return DATASETS.get(corpus, corpus) + (f" ({dataset})" if corpus != dataset else "")


# -- a terminal --------------------------------------------------------------------------------------------------------

def plain(shown: Grid) -> str:
    rows = [shown.heads, *([cell.text for cell in row] for row in shown.rows)]
    return "\n".join([shown.title, "", *align(rows, range(1, len(shown.heads)))]) + "\n"


# -- Markdown ----------------------------------------------------------------------------------------------------------

def markdown_escape(text: str) -> str:
    # An underscore inside a word is no emphasis.
    return re.sub(r"([\\`*|<>\[\]]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))", r"\\\1", text).replace("\n", " ")


def markdown(shown: Grid, level: int = 2) -> str:
    def cell(value: Cell) -> str:
        text = value.text if _is_numeric(value.text) else markdown_escape(value.text)
        return f"**{text}**" if value.bold else text

    lines = [f"{'#' * level} {markdown_escape(shown.title)}", "",
             "| " + " | ".join(map(markdown_escape, shown.heads)) + " |",
             "|---" + "|---:" * (len(shown.heads) - 1) + "|",
             *("| " + " | ".join(map(cell, row)) + " |" for row in shown.rows)]
    return "\n".join([*lines, *(line for note in shown.notes for line in ("", markdown_escape(note)))]) + "\n"


def _is_numeric(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9.,±+\-\[\] ]*", text))


# -- LaTeX -------------------------------------------------------------------------------------------------------------

_LATEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
          "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": r"$-$", "×": r"$\times$",
          "<": r"$<$", ">": r"$>$", "|": r"\textbar{}", "…": r"\dots{}", "–": "--", "→": r"$\to$", "[": "{[}",
          "]": "{]}", "'": "'", '"': r"\textquotedbl{}", "`": r"\textasciigrave{}", "\n": " ", "\u200b": "{}"}


def latex_escape(text: str) -> str:
    """Text for pdflatex with T1 fonts; letters beyond Latin-1 by their code point, which it has no glyphs for."""
    # A minus before a number, and two hyphens that stay two.
    text = re.sub(r"(?<![\w.-])-(?=\d)", "−", text).replace("--", "-\u200b-")
    return "".join(_LATEX.get(letter, letter if ord(letter) < 256 else f"U+{ord(letter):04X}") for letter in text)


LATEX_HEAD = r"""\documentclass[varwidth=60cm,border=4pt]{standalone}
% Compiles as it stands; with \usepackage{standalone,booktabs,graphicx} and T1 fonts a paper can \input it: what is
% wider than its lines is made to fit.
\usepackage[T1]{fontenc}
\usepackage{booktabs,graphicx}
\begin{document}
"""
# Boxes of the line's width at most. Alone on its page a table has a line of 60 cm.
_FITTED = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%" + "\n"
_NOTE = r"\parbox{\ifdim\linewidth>24cm 24cm\else\linewidth\fi}"


def latex(grids: Sequence[Grid], title: str, notes: Sequence[str] = ()) -> str:
    parts = [LATEX_HEAD, r"\noindent\textbf{" + latex_escape(title) + "}\n"]
    for shown in grids:
        parts += ["\n\\medskip\\noindent " + latex_escape(shown.title) + "\n", "\n\\smallskip\\noindent\n" + _FITTED
                  + r"\begin{tabular}{l" + "r" * (len(shown.heads) - 1) + "}\n" + r"\toprule" + "\n",
                  " & ".join(map(latex_escape, shown.heads)) + r" \\" + "\n" + r"\midrule" + "\n",
                  *(" & ".join(map(_latex_cell, row)) + r" \\" + "\n" for row in shown.rows),
                  r"\bottomrule" + "\n" + r"\end{tabular}}" + "\n", *(_latex_note(note) for note in shown.notes)]
    return "".join([*parts, *map(_latex_note, notes), "\\end{document}\n"])


def _latex_cell(cell: Cell) -> str:
    text = latex_escape(cell.text)
    return r"\textbf{" + text + "}" if cell.bold else text


def _latex_note(note: str) -> str:
    return "\n\\smallskip\\noindent" + _NOTE + "{\\footnotesize " + latex_escape(note) + "}\n"


# -- HTML --------------------------------------------------------------------------------------------------------------

def html_table(shown: Grid, link: str = "#run-") -> str:
    """A `<table>`; a number is a link to the card of its run, or has one for each of its runs."""
    def cell(value: Cell, head: bool) -> str:
        text = html.escape(value.text)
        if value.runs:
            first, *rest = (html.escape(link + run, quote=True) for run in value.runs)
            text = f'<a href="{first}">{text}</a>'
            text += "".join(f' <a class="more" href="{each}">{number}</a>' for number, each in enumerate(rest, 2))
        text = f"<strong>{text}</strong>" if value.bold else text
        return f'<th scope="row">{text}</th>' if head else f"<td>{text}</td>"

    rows = "\n".join("<tr>" + "".join(cell(value, number == 0) for number, value in enumerate(row)) + "</tr>"
                     for row in shown.rows)
    heads = "".join(f'<th scope="col">{html.escape(head)}</th>' for head in shown.heads)
    notes = "".join(map(html_note, shown.notes))
    return (f'<h3>{html.escape(shown.title)}</h3>\n<div class="scroll"><table>\n<thead><tr>{heads}</tr></thead>\n'
            f"<tbody>\n{rows}\n</tbody></table></div>\n{notes}\n")


def html_note(note: str) -> str:
    """A line below a table; the long list of what stays constant is folded."""
    if note.startswith(CONSTANT):
        summary, said = map(html.escape, note.split(":", 1))
        return f'<details class="note"><summary>{summary}:</summary>{said}</details>'
    return f'<p class="note">{html.escape(note)}</p>'
