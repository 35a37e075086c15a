"""The page and the figures: read as HTML, opened in a browser, and held against the csv."""

import html
import re
import shutil
import subprocess
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pandas as pd
import pytest
from analysis import commands, figures, paper, report, study, style, tables
from analysis.archive import Run
from analysis.comparison import Block
from flow import interpret
from made_records import Made, few_labels, paper_tables
from ulmfit.errors import UserError

ODD = 'a&b"<c>'
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A sweep with a failed run, a missing one, an odd error and class names that are no HTML."""
    results = Made(tmp_path_factory.mktemp("results"), documents=120, classes=[ODD, "pos"])
    paper_tables(results, "trec6", seeds=(0, 1), details=True)
    few_labels(results, "imdb", sizes=(100, 1000), seeds=(0, 1))
    failed = "trec6--train_clas--fwd--word--t7-last--all--s1"
    results.save(failed, status="failed", error=f"RuntimeError: {ODD}</script><script>alert(1)</script>")
    shutil.rmtree(results.folder / "runs" / "trec6--train_clas--fwd--word--t7-thaw--all--s0")
    shutil.rmtree(results.folder / "runs" / "trec6--train_clas--fwd--word--t7-thaw--all--s1")
    (results.folder / "runs" / "cut").mkdir()
    (results.folder / "runs" / "cut" / "run.json").write_text('{"id": "cu')
    return results


@pytest.fixture(scope="module")
def page(made):
    """The page's path and the sections that it shows."""
    found = study.load(made.folder)
    sections = paper.sections(found, made.folder / "figures")
    for section in sections:
        section.product.write(made.folder / "tables")
    return report.write(found, sections, made.folder / "report.html", "A sweep"), sections


class Page(HTMLParser):
    """Ids, links, images, and the cells of every table under its section."""

    VOID = {"meta", "link", "img", "br"}

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.sources, self.open, self.tables = [], [], [], [], {}
        self.section = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag == "a":
            self.links.append(attributes["href"])
        if "src" in attributes:
            self.sources.append(attributes["src"])
        if tag == "section":
            self.section = attributes["id"]
        if tag == "table":
            self.tables.setdefault(self.section, []).append([])
        if tag == "tr":
            self.tables[self.section][-1].append([])
        if tag in ("td", "th"):
            self.tables[self.section][-1][-1].append("")
        if tag not in self.VOID:
            self.open.append((tag, attributes))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        tags = [tag for tag, _ in self.open]
        if ("td" in tags or "th" in tags) and not any(each.get("class") == "more" for _, each in self.open):
            self.tables[self.section][-1][-1][-1] += data


def check_cells(tables, folder):
    """Every number of Table 7 on the page is that of the csv."""
    frame = pd.read_csv(folder / "tables" / "table7.csv")
    heads, *rows = tables["table7"][-1]
    val = frame[(frame["split"] == "val") & (frame["dataset"] == "trec6")].set_index("row")
    assert [row[0] for row in rows] == list(val.index)
    for row in rows:
        line, cells = val.loc[row[0]], dict(zip(heads, row))
        spread = "" if np.isnan(line["sd"]) else f" ± {line['sd']:.2f}"
        expected = f"{line['error']:.2f}{spread}" if line["n_seeds"] else "missing"
        assert cells["val error %"].strip() == expected and cells["n"] == str(line["n_seeds"])
        assert cells["paper"] == f"{line['paper']:.2f}"
        if not np.isnan(line["difference"]):
            shown = float(cells["difference"].partition("*")[0].split()[0])
            assert shown == pytest.approx(line["difference"], abs=0.006)


def test_the_page_holds_together(page, made):
    path, _ = page
    text = path.read_text(encoding="utf-8")
    read = Page(text)
    assert not read.open and len(read.ids) == len(set(read.ids))
    assert read.links and all(link.startswith("#") and html.unescape(link[1:]) in read.ids for link in read.links)
    assert read.sources and all(source.startswith("data:image/png;base64,") for source in read.sources)
    assert not re.search(r"""(src|href)=["']?(https?:)?//|url\(|@import|<link[^>]+href="(?!data:)""", text)
    assert "<script>alert" not in text and "<c>" not in text
    check_cells(read.tables, made.folder)


def test_failed_and_missing_runs_come_first(page):
    text = page[0].read_text(encoding="utf-8")
    first = text[text.index('<section id="failed">'):text.index('<section id="tables2_3">')]
    assert "failed: RuntimeError: a&amp;b&quot;&lt;c&gt;" in first
    assert "TREC-6: chain-thaw" in first and "AG: no run" in first and "cut/run.json" in first


def test_each_number_leads_to_its_run(page, made):
    text = page[0].read_text(encoding="utf-8")
    run = "trec6--train_clas--fwd--word--t7-freez--all--s1"
    assert f'href="#run-{run}"' in text
    card = text[text.index(f'id="run-{run}"'):]
    card = card[:card.index("</details>")]
    assert made.records[run]["fingerprint"] in card and "python imdb_scripts/train_clas.py" in card
    assert 'href="#run-trec6--finetune_lm--fwd--word--default--all--s1"' in card


def test_the_page_of_nothing(tmp_path):
    path = report.make(study.load(tmp_path), tmp_path / "empty.html")
    read = Page(path.read_text())
    assert not read.open and all(link[1:] in read.ids for link in read.links)


def test_the_page_of_a_users_own_sweep(tmp_path):
    made = Made(tmp_path, documents=60)
    made.corpus("own")
    model = made.language_model("own", made.pretrained())
    for lr, error in ((0.01, 10), (0.02, 20)):
        made.classifier("own", model, error, f"lr{lr}", {"lr": lr})
    found = study.load(tmp_path)
    found.dataset = "own"
    page = report.make(found, tmp_path / "own.html", by="lr").read_text()
    assert page.index("Ablation by lr") < page.index("Tables 2 and 3") and "IMDb: no run" not in page


@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser (Debian's chromium)")
def test_in_a_browser(page, made, tmp_path):
    """No message on the console, a link to a card opens it, nothing is wider than a phone's screen, and the cells that
    the browser has are those of the csv."""
    path, _ = page
    run = "run-trec6--train_clas--fwd--word--default--all--s0"
    # A browser's window has no less than 500 pixels, a phone's has; tables scroll for themselves.
    narrow = ("<script>function narrow(){document.body.style.width='360px';const wide=[...document.querySelectorAll("
              "'body *')].filter(e=>!e.closest('.scroll')&&e.getBoundingClientRect().right>361);"
              "document.body.style.width='';return innerWidth>640||!wide.length}</script>")
    probe = narrow + (f"<script>addEventListener('load',()=>setTimeout(()=>{{document.body.dataset.probe=["
             f"document.getElementById('{run}').open,document.documentElement.scrollWidth<=innerWidth,narrow(),"
             f"[...document.querySelectorAll('a')].every(a=>"
             f"document.getElementById(decodeURIComponent(a.hash.slice(1)))),"
             f"[...document.images].every(i=>i.complete&&i.naturalWidth>0)]}},50))</script></body>")
    probed = tmp_path / "probed.html"
    probed.write_text(path.read_text(encoding="utf-8").replace("</body>", probe), encoding="utf-8")
    for width in (1400, 500):
        done = subprocess.run(
            [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
             "--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr",
             f"--window-size={width},900", "--virtual-time-budget=3000", "--dump-dom", f"file://{probed}#{run}"],
            capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "CONSOLE" not in done.stderr, done.stderr
        assert 'data-probe="true,true,true,true,true"' in done.stdout, re.findall(r'data-probe="[^"]*"', done.stdout)
    check_cells(Page(done.stdout).tables, made.folder)


# -- figures -----------------------------------------------------------------------------------------------------------

def test_every_figure_is_one_column_wide_with_its_fonts(page, made):
    drawn = sorted((made.folder / "figures").iterdir())
    names = {path.stem for path in drawn}
    assert {"table6-trec6", "table7-trec6", "low_shot-imdb", "epochs-trec6", "schedules-trec6", "losses-trec6",
            "confusion-trec6"} <= names
    assert {path.suffix for path in drawn} == {".pdf", ".png"} and len(drawn) == 2 * len(names)
    for path in drawn:
        if path.suffix == ".pdf":
            content = path.read_bytes()
            assert b"/Type3" not in content.replace(b" ", b"") and b"/FontFile2" in content, path.name
        else:
            assert matplotlib.image.imread(path).shape[1] == pytest.approx(style.WIDTH * style.DPI, abs=1)


def test_nothing_in_a_figure_is_cut_or_covers_another(page, made, monkeypatch):
    """Texts lie inside the figure, and tick labels of an axis apart from each other."""
    checked = []

    def look(figure, folder, name):
        figure.canvas.draw()
        whole = figure.bbox
        for axes in figure.axes:
            ticks = [[tick.label1 for tick in axis.get_major_ticks() if tick.label1.get_text()
                      and min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())]
                     for axis in (axes.xaxis, axes.yaxis)]
            for text in [*ticks[0], *ticks[1], axes.xaxis.label, axes.yaxis.label, axes._left_title, *axes.texts]:
                box = text.get_window_extent()
                assert not text.get_text() or (box.x0 >= -1 and box.y0 >= -1 and box.x1 <= whole.x1 + 1
                                               and box.y1 <= whole.y1 + 1), (name, text.get_text())
            for labels in ticks:
                boxes = [label.get_window_extent() for label in labels]
                assert not any(first.overlaps(second) for first, second in zip(boxes, boxes[1:])), name
        checked.append(name)
        return []

    monkeypatch.setattr(style, "save", look)
    paper.sections(study.load(made.folder), made.folder / "nowhere")
    assert "schedules-trec6" in checked and "low_shot-imdb" in checked


def smallest_gap(points):
    """The smallest distance of two points, shape (points, dimensions)."""
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
    return apart[np.triu_indices(len(points), 1)].min()


def test_every_two_colours_differ_in_grey_and_each_line_has_its_own_marks():
    greys = np.array([np.dot(matplotlib.colors.to_rgb(colour), (0.299, 0.587, 0.114)) for colour in style.COLOURS])
    assert smallest_gap(greys[:, None]) >= 0.09 and smallest_gap(greys[:4, None]) >= 0.19
    assert greys.max() < 0.75  # seen on white paper
    assert len(set(style.MARKERS)) == len(set(map(str, style.LINES))) == len(style.COLOURS)


# Machado, Oliveira & Fernandes 2009, at full severity, of linear RGB.
@pytest.mark.parametrize("seen", [
    np.eye(3),
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]],
    ids=["all cones", "protanopia", "deuteranopia", "tritanopia"])
def test_colour_blind_readers_tell_every_two_colours_apart(seen):
    """By their distance in CIELAB (1976): 2.3 is just noticeable, Okabe & Ito's seven come to 16."""
    rgb = np.array([matplotlib.colors.to_rgb(colour) for colour in style.COLOURS])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = np.clip(linear @ np.transpose(seen), 0, 1) @ to_xyz.T / to_xyz.sum(axis=1)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116).T
    assert smallest_gap(np.column_stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])) >= 16


def test_learning_rates_are_those_of_the_steps(made):
    run = study.load(made.folder).archive.get("trec6--train_clas--fwd--word--default--all--s0")
    rates, trains = figures.learning_rates(run)
    assert rates.shape == trains.shape == (40, 4)
    assert rates[9] == pytest.approx([0.01 / 2.6 ** 3, 0.01 / 2.6 ** 2, 0.01 / 2.6, 0.01], rel=1e-4)
    assert trains[0].tolist() == [False, False, False, True] and trains[35].all()


def test_runs_without_what_a_figure_needs(tmp_path):
    run = Run(tmp_path, {"id": "x"})
    with pytest.raises(UserError, match="has no steps.csv.gz"):
        figures.learning_rates(run)
    (tmp_path / "steps.csv.gz").write_bytes(b"no gzip")
    with pytest.raises(UserError, match="not readable"):
        figures.learning_rates(run)
    assert figures.training_curves({"x": run}, tmp_path, "x") == []
    assert figures.errors_by_epoch({"x": [run]}, tmp_path, "x") == []
    assert figures.confusion(np.zeros((2, 2)), ["a", "b"], tmp_path, "x")  # a class without documents divides by none


@pytest.fixture
def drawn(monkeypatch):
    """What each figure shows, instead of its files: by name the legend's texts, and of its axes title, lines, ticks."""
    shown = {}

    def look(figure, folder, name):
        figure.canvas.draw()
        legends = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
        assert all(legend.get_window_extent().x1 <= figure.bbox.x1 + 1 for legend in figure.legends), name
        shown[name] = legends, [
            (axes.get_title(loc="left"), [line.get_xydata() for line in axes.get_lines()],
             [tick.label1.get_text() for tick in axes.xaxis.get_major_ticks()
              if axes.get_xlim()[0] <= tick.get_loc() <= axes.get_xlim()[1]]) for axes in figure.axes]
        return []

    monkeypatch.setattr(style, "save", look)
    return shown


def test_bars_have_the_stars_of_the_table(tmp_path, monkeypatch):
    stars = []
    monkeypatch.setattr(style, "save", lambda figure, *_: stars.extend(
        text.get_position()[1] for text in figure.axes[0].texts if text.get_text() == "*"))
    frame = pd.DataFrame([{"row": row, "split": "val", "reference": row == "full", "n_seeds": 3, "error": 10.0,
                           "low": 9.0, "high": 11.0, "paper": np.nan, "note": "", "p_holm": p,
                           "significant": significant}
                          for row, p, significant in (("full", np.nan, False), ("interval with 0", 0.01, False),
                                                      ("last", 0.01, True))])
    figures.bars(frame, tmp_path, "x")
    assert stars == [0]  # the lowest bar


def test_a_curve_of_few_labels_is_broken_where_no_run_is(tmp_path, drawn):
    frame = pd.DataFrame([{"dataset": "imdb", "corpus": "imdb", "split": "val", "row": row, "n_labels": n,
                           "n_seeds": seeds, "error": 10.0 if seeds else np.nan, "low": 9.0 if seeds else np.nan,
                           "high": 11.0 if seeds else np.nan}
                          for row, missing in (("ULMFiT", 500), ("tf-idf", None), ("never run", "all"))
                          for n in (100, 500, 1000) for seeds in [3 * (missing not in ("all", n))]])
    figures.low_shot(frame, tmp_path, "x", "imdb")
    legend, [(title, lines, ticks)] = drawn["x"]
    assert legend == ["ULMFiT", "tf-idf"] and title == "IMDb, 3 seeds" and ticks == ["100", "500", "1,000"]
    curves = [line for line in lines if len(line) == 3 and len(set(line[:, 0])) == 3]
    assert np.isnan(curves[0][:, 1]).tolist() == [False, True, False]
    assert any((line[:, 1] == 10).all() for line in curves)
    # A single size is a point and no curve.
    assert figures.low_shot(frame[frame["n_labels"] == 100], tmp_path, "y", "imdb") == [] and "y" not in drawn


def of_epochs(folder, *errors):
    """A run with these validation errors, an epoch each."""
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(
        f'{{"epoch": {epoch}, "error": {error}, "train_loss": 1.0, "val_loss": 2.0}}\n'
        for epoch, error in enumerate(errors)))
    return Run(folder, {"id": folder.name})


def test_the_range_over_seeds_and_their_number_are_named(tmp_path, drawn):
    runs = [of_epochs(tmp_path / f"s{seed}", 30, 20 + seed) for seed in range(3)]
    figures.errors_by_epoch({"full": runs}, tmp_path, "alike", "TREC-6")
    legend, [(title, _, ticks)] = drawn["alike"]
    assert title == "TREC-6, 3 seeds" and legend == ["full", "mean and range over seeds"]
    figures.errors_by_epoch({"full": runs, "from scratch (early stopping)": runs[:1]}, tmp_path, "unlike", "TREC-6")
    assert drawn["unlike"][0] == ["full, n=3", "from scratch (early stopping), n=1", "mean and range over seeds"]
    figures.errors_by_epoch({"full": runs[:1]}, tmp_path, "one", "TREC-6")
    assert drawn["one"][0] == ["full"] and drawn["one"][1][0][0] == "TREC-6, 1 seed"


def test_epochs_are_whole_numbers(tmp_path, drawn):
    one, two = of_epochs(tmp_path / "one", 30), of_epochs(tmp_path / "two", 30, 20)
    figures.training_curves({"one": one, "two": two}, tmp_path, "losses")
    figures.errors_by_epoch({"one": [one]}, tmp_path, "errors")
    assert [ticks for _, _, ticks in drawn["losses"][1]] == [["1"], ["1", "2"]]
    assert [ticks for _, _, ticks in drawn["errors"][1]] == [["1"]]


def test_groups_at_one_rate_are_one_line(tmp_path, drawn):
    """Rates of three groups; the last column is the last group, which is trained first."""
    nan, gradual = np.nan, np.array([[0, 0, 1], [0, 1, 1], [1, 1, 1], [1, 1, 1]], dtype=bool)
    alone = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0], [1, 1, 1]], dtype=bool)  # chain-thaw
    one_rate, thaw = np.full((4, 3), 0.1), np.tile([0.1, 0.1, 0.2], (4, 1))
    for name, rates, trains, expected in (
            ("full", one_rate, np.ones((4, 3), bool), {"all groups": [0.1] * 4}),
            ("freez", one_rate, gradual, {"last group": [0.1, nan, nan, nan], "all groups": [nan, nan, 0.1, 0.1],
                                          "last 2 groups": [nan, 0.1, nan, nan]}),
            ("discriminative", np.tile([0.1, 0.2, 0.3], (4, 1)), gradual, {
                "last group": [0.3] * 4, "1 below": [nan, 0.2, 0.2, 0.2], "2 below": [nan, nan, 0.1, 0.1]}),
            ("chain-thaw", thaw, alone, {"last group": [0.2, nan, nan, 0.2], "1 below": [nan, nan, 0.1, nan],
                                         "2 below": [nan, 0.1, nan, nan], "1 to 2 below": [nan, nan, nan, 0.1]})):
        figures.schedules({name: (rates, trains)}, tmp_path, name)
        legend, [(_, lines, _)] = drawn[name]
        assert legend == list(expected)
        by_line = {tuple(np.nan_to_num(line[:, 1])) for line in lines}
        assert by_line == {tuple(np.nan_to_num(line)) for line in expected.values()}


def test_rates_within_a_factor_of_ten_have_an_axis_with_numbers(tmp_path, monkeypatch):
    def look(figure, folder, name):
        figure.canvas.draw()
        labels.append([tick.label1.get_text() for tick in figure.axes[0].yaxis.get_major_ticks()
                       if figure.axes[0].get_ylim()[0] <= tick.get_loc() <= figure.axes[0].get_ylim()[1]])
        return []

    labels = []
    monkeypatch.setattr(style, "save", look)
    for rates in ([0.004 / 3, 0.002, 0.004], [0.0001, 0.0001, 0.001], [0.0001, 0.001, 0.01], [0.001] * 3):
        figures.schedules({"x": (np.tile(rates, (4, 1)), np.ones((4, 3), bool))}, tmp_path, "x")
    assert labels == [["0.00133", "0.004"], ["0.0001", "0.001"], *[["0.0001", "0.001", "0.01"]] * 2]


# -- of the runs that one names, and of a dataset of one's own ---------------------------------------------------------

@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A dataset without full ULMFiT: two seeds without pretraining, and a worse classifier."""
    results = Made(tmp_path_factory.mktemp("own"), documents=60)
    results.corpus("own")
    for seed in (0, 1):
        model = results.language_model("own", None, "small", {"preload": False}, seed)
        results.classifier("own", model, 10, "small", seed=seed, details=True, test=False)
    results.classifier("own", model, 30, "worse", {"bs": 16}, details=True, test=False)
    return results


GOOD, SECOND, WORSE = (f"own--train_clas--fwd--word--{name}" for name in ("small--all--s0", "small--all--s1",
                                                                         "worse--all--s0"))


def test_a_dataset_without_full_ulmfit_has_the_figures_of_its_best_classifier(own, tmp_path, drawn):
    found = study.load(own.folder)
    blocks = tables.paper_table(found, "table7")[1]
    paper._training_figures(found, blocks, tmp_path)
    assert set(drawn) == {"epochs-own", "schedules-own", "losses-own", "confusion-own"}
    assert drawn["epochs-own"][0] == ["small", "mean and range over seeds"]
    assert [title for title, *_ in drawn["schedules-own"][1]] == ["own, small"]
    assert [title for title, *_ in drawn["confusion-own"][1]] == ["own, val"]
    found.dataset = "another"
    drawn.clear()
    assert paper._training_figures(found, blocks, tmp_path) == [] and not drawn


def test_curves_schedule_and_confusion_of_the_runs_named(own, drawn, monkeypatch):
    def call(*words):
        return interpret(["-m", "analysis", *words, f"--results_dir={own.folder}"])

    monkeypatch.setattr(study, "said", str)  # nothing is written here
    for words in (("curves", GOOD), ("schedule", GOOD, str(own.folder / "runs" / WORSE), GOOD), ("confusion", WORSE)):
        done = call(*words)
        assert (done.returncode, done.stderr) == (0, "")
    curves, schedule, confusion = drawn
    assert curves == f"curves-{GOOD}" and re.fullmatch("schedule-2runs-[0-9a-f]{8}", schedule)
    assert confusion == f"confusion-{WORSE}"

    def titles(name):
        return ["".join(title.split()) for title, *_ in drawn[name][1]]

    assert titles(curves) == [GOOD] and titles(schedule) == [GOOD, WORSE] and titles(confusion) == [f"{WORSE},val"]
    losses = [line for line in drawn[curves][1][0][1] if len(line) == 4]
    assert losses[0][:, 1] == pytest.approx([0.9 / (epoch + 1) for epoch in range(4)])


def test_the_commands_write_their_figures_and_say_so(own):
    done = interpret(["-m", "analysis", "confusion", SECOND, f"--results_dir={own.folder}"])
    paths = [own.folder / "figures" / f"confusion-{SECOND}.{ending}" for ending in ("pdf", "png")]
    assert done.returncode == 0 and all(path.stat().st_size > 1000 for path in paths)
    assert done.stdout.startswith("written: ") and f"confusion-{SECOND}.png" in done.stdout


@pytest.mark.parametrize("words, status, said", [
    (["curves"], 2, "curves draws one run or more"),
    (["schedule"], 2, "schedule draws one run or more"),
    (["curves", "nowhere"], 1, "there is no run nowhere in "),
    (["curves", "own--tok2id--word"], 1, "has no epoch in metrics.jsonl; a run of pretrain_lm, finetune_lm or"),
    (["schedule", "own--tok2id--word"], 1, "has no steps.csv.gz; a run of"),
    (["confusion", "own--tok2id--word"], 1, "has no predictions.csv; a run of train_clas, eval_clas"),
    (["confusion", GOOD, WORSE], 2, "confusion"),
    (["curves", GOOD, "--resluts_dir=x"], 2, "did you mean --results_dir")])
def test_runs_that_cannot_be_drawn(own, words, status, said):
    where = [] if "resluts" in words[-1] else [f"--results_dir={own.folder}"]
    done = interpret(["-m", "analysis", *words, *where])
    assert done.returncode == status and len(done.stderr.splitlines()) == 1 and said in done.stderr


def test_a_run_that_failed_is_drawn_as_far_as_it_came(own):
    own.save(WORSE, status="failed", error="out of memory")
    done = interpret(["-m", "analysis", "curves", WORSE, f"--results_dir={own.folder}"])
    own.save(WORSE, status="finished", error=None)
    assert done.returncode == 0 and f"{WORSE}: its numbers do not stand: failed: out of memory" in done.stdout


def test_titles_name_what_tells_the_blocks_of_a_dataset_apart():
    def titles(*constants, dataset="trec6"):
        return study.block_titles([Block("t", dataset, [], constant) for constant in constants])

    assert titles({"cl": 15, "bs": 8}) == ["TREC-6"]
    # The fewest: where cl tells both apart, pre.sampled is not named as well.
    assert titles({"cl": 15, "pre.sampled": False}, {"cl": 10}) == ["TREC-6, cl=15", "TREC-6, cl=10"]
    assert titles({"cl": 15}, {}) == ["TREC-6, cl=15", "TREC-6, default cl"]
    assert titles({"a": 1, "b": 1}, {"a": 1, "b": 2}, {"a": 2, "b": 2}) == [
        "TREC-6, a=1, b=1", "TREC-6, a=1, b=2", "TREC-6, a=2, b=2"]
    # What the title says anyhow is not said twice.
    assert titles({"cl": 15}, {"cl": 10, "bpe": True}, {"n_labels": 1000}, dataset="x") == [
        "x", "x, subwords", "x, 1,000 labels"]


def test_a_folder_is_no_page(made, tmp_path):
    with pytest.raises(UserError, match=r"--output=.* is a folder; name a file, as .*report.html"):
        commands.report(results_dir=str(made.folder), output=str(tmp_path))
    assert not any(tmp_path.iterdir())
