"""One self-contained HTML page: what failed and what is missing, the tables, the figures, a card for every run."""

import base64
import html
import tempfile
from pathlib import Path

from ulmfit import files, names

from . import provenance, rendering
from .archive import Run
from .paper import Section, missing_rows, sections
from .study import Study

_STYLE = """
:root{--ink:#1a1a1a;--soft:#5c5c5c;--line:#d5d5d5;--link:#0b5394;--bad:#a4161a;--shade:#f5f5f3}
*{box-sizing:border-box}
body{margin:0;font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu
Sans",sans-serif;color:var(--ink);
background:#fff} header,main{max-width:96rem;margin:0 auto;padding:0 1rem}
h1{font-size:1.6rem;margin:1.4rem 0 .2rem}
h2{font-size:1.25rem;margin:2.4rem 0 .6rem;padding-top:.6rem;border-top:2px
solid var(--ink)} h3{font-size:1rem;margin:1.4rem 0 .4rem}
a{color:var(--link)}a:focus-visible,summary:focus-visible{outline:2px solid var(--link);outline-offset:2px}
nav ul{display:flex;flex-wrap:wrap;gap:.3rem 1.1rem;list-style:none;padding:0;margin:.6rem 0}
.scroll{overflow-x:auto;-webkit-overflow-scrolling:touch}
table{border-collapse:collapse;font-size:.82rem;font-variant-numeric:tabular-nums}
thead th{border-bottom:1px solid var(--ink);border-top:2px solid
var(--ink);text-align:right;
font-weight:600;vertical-align:bottom} tbody tr:last-child>*{border-bottom:2px solid
var(--ink)} th,td{padding:.22rem .5rem;white-space:nowrap}
td{text-align:right}th[scope=row]{text-align:left;font-weight:400;position:sticky;left:0;background:#fff}
thead th:first-child{text-align:left;position:sticky;left:0;background:#fff}
tbody tr:hover>*{background:var(--shade)}
.more{font-size:.75em;vertical-align:super;text-decoration:none;padding:0 .1em}
.note{color:var(--soft);font-size:.84rem;margin:.4rem 0;max-width:62rem;overflow-wrap:anywhere}
.bad{color:var(--bad);font-weight:600}
figure{display:inline-block;margin:.6rem 1.4rem .6rem 0;vertical-align:top;width:22rem;max-width:100%}
figure img{width:100%;height:auto;display:block}figcaption{font-size:.8rem;color:var(--soft)}
.card{border-bottom:1px solid var(--line);padding:.3rem 0;overflow-wrap:anywhere;scroll-margin-top:1rem}
.card>summary{cursor:pointer}.card[open]{background:var(--shade)}
.card:target>summary{font-weight:600}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1rem;margin:.5rem 0 .8rem;font-size:.86rem}
dt{color:var(--soft)}dd{margin:0}code{font:.92em ui-monospace,"DejaVu Sans Mono",monospace}
@media(max-width:40rem){dl{grid-template-columns:1fr}dt{margin-top:.3rem}body{font-size:14px}th,td{padding:.22rem .4rem}
th[scope=row]{white-space:normal;min-width:6.5rem}figure{margin:.6rem 0}}
@page{size:A4 landscape;margin:12mm}
@media print{nav,.more{display:none}a{color:inherit;text-decoration:none}.scroll{overflow:visible}table{font-size:7pt}
th,td{padding:.1rem .25rem;white-space:normal}figure,tr{break-inside:avoid}h2,h3{break-after:avoid}.cards{display:none}}
"""

# A link to a card opens it; without scripts it is still scrolled to.
_SCRIPT = """
function unfold(){const card=document.getElementById(decodeURIComponent(location.hash.slice(1)));
if(card&&card.tagName==="DETAILS"){card.open=true;card.scrollIntoView()}}
addEventListener("hashchange",unfold);addEventListener("DOMContentLoaded",unfold);
"""


def page(found: Study, made: list[Section], title: str) -> str:
    """The whole page as text; images are in it, nothing is fetched."""
    parts = [_failed(found, made)]
    contents = [("failed", "Failed, stale and missing")]
    for section in made:
        contents.append((section.product.name, section.product.title))
        parts.append(_section(section))
    shown = _shown_runs(found, made)
    contents.append(("runs", "Runs"))
    cards = "\n".join(_card(found, run, shown) for run in shown.values())
    parts.append(f'<section id="runs" class="cards"><h2>Runs</h2>\n<p class="note">Each with what made it; '
                 f"<code>python -m analysis show ID</code> prints the commands that make it again, down to the csv "
                 f"files."
                 f"</p>\n{cards}\n</section>")
    links = "".join(f'<li><a href="#{name}">{html.escape(text)}</a></li>' for name, text in contents)
    latest = max((run.record["started"] for run in shown.values()), default="")
    said = f"{len(shown):,} runs" + (f", the last started {latest[:16].replace('T', ' ')} UTC" if latest else "")
    return (f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            # Nothing can be fetched, whatever a label says.
            f'<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
            f'style-src \'unsafe-inline\'; script-src \'unsafe-inline\'">\n'
            f'<link rel="icon" href="data:,">\n<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n'
            f"<script>{_SCRIPT}</script>\n</head>\n<body>\n<header><h1>{html.escape(title)}</h1>\n"
            f'<p class="note">{html.escape(said)}. Numbers are links to their runs.</p>\n'
            f'<nav aria-label="Contents"><ul>'
            f"{links}</ul></nav></header>\n<main>\n" + "\n".join(parts) + "\n</main>\n</body>\n</html>\n")


def _failed(found: Study, made: list[Section]) -> str:
    lines = [f'<li class="bad">{html.escape(line)}</li>' for line in found.archive.unreadable]
    for run in found.archive:
        if found.concerns(run) and (problem := found.archive.problem(run)):
            lines.append(f'<li>{_link(run.id)}: <span class="bad">{html.escape(problem)}</span></li>')
    corpus = None if found.dataset is None else found.archive.corpus(found.dataset)
    gaps = [f"<li>{html.escape(section.product.title)}: {html.escape('; '.join(rows))}</li>"
            for section in made if (rows := missing_rows(section, corpus))]
    gaps += [f"<li>{html.escape(section.product.title)}: {html.escape(section.product.notes[0])}</li>"
             for section in made if not section.product.grids]
    none = "<p>None: every run here is finished and stands.</p>"
    return (f'<section id="failed"><h2>Failed, stale and missing</h2>\n<h3>Runs whose numbers do not stand</h3>\n'
            + (f"<ul>{''.join(lines)}</ul>" if lines else none)
            + "\n<h3>Rows without runs</h3>\n" + (f"<ul>{''.join(gaps)}</ul>" if gaps else "<p>None.</p>")
            + "</section>")


def _section(section: Section) -> str:
    product = section.product
    images = "\n".join(_figure(path, what) for path, what in section.images)
    grids = "\n".join(map(rendering.html_table, product.grids))
    notes = "".join(map(rendering.html_note, product.notes))
    return (f'<section id="{product.name}"><h2>{html.escape(product.title)}</h2>\n{grids}\n{notes}\n{images}\n'
            f"</section>")


def _figure(path: Path, what: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    text = html.escape(what, quote=True)
    return (f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>')


def _link(run: str) -> str:
    return f'<a href="#run-{html.escape(run, quote=True)}">{html.escape(run)}</a>'


def _shown_runs(found: Study, made: list[Section]) -> dict[str, Run]:
    """The runs that have a card: those behind a number, those that do not stand, and all that these descend from."""
    wanted = [run for section in made for shown in section.product.grids for row in shown.rows
              for cell in row for run in cell.runs]
    wanted += [run.id for run in found.archive if found.concerns(run) and found.archive.problem(run)]
    chosen: dict[str, Run] = {}
    for run in dict.fromkeys(wanted):
        for each in (*found.archive.ancestors(found.archive.get(run)), found.archive.get(run)):
            chosen[each.id] = each
    return dict(sorted(chosen.items()))


def _card(found: Study, run: Run, shown: dict[str, Run]) -> str:
    lines = [(name, f"<code>{html.escape(value)}</code>" if name == "command" else html.escape(value))
             for name, value in provenance.summary(run)]
    if problem := found.archive.problem(run):
        lines.insert(0, ("does not stand", f'<span class="bad">{html.escape(problem)}</span>'))
    parents = [_link(parent.id) for parent in found.archive.parents(run)]
    parents += [f"{html.escape(name)} (its record is not here)" for name in provenance.missing(found.archive, [run])]
    lines.append(("made from", ", ".join(parents) or "files alone"))
    lines += [("reads", html.escape(f"{path} ({mark})")) for path, mark in provenance.outside(found.archive, [run])]
    rows = "".join(f"<dt>{html.escape(name)}</dt><dd>{value}</dd>" for name, value in lines)
    return (f'<details class="card" id="run-{html.escape(run.id, quote=True)}"><summary>{html.escape(run.id)}</summary>'
            f"<dl>{rows}</dl></details>")


def write(found: Study, made: list[Section], path: Path, title: str) -> Path:
    files.write_text(path, page(found, made, title))
    return path


def make(found: Study, output: Path, by: str | None = None, title: str = "ULMFiT ablations") -> Path:
    """The page alone: its figures are drawn into a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        return write(found, sections(found, Path(folder), by), output, title)


def said(path: Path) -> str:
    return f"{names.shown(path)}: {path.stat().st_size / 1e6:.1f} MB, opens in any browser, offline"
