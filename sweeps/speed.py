"""Ours and stock fastai in turn, round after round: medians, ratios within a round, and their spread.

Writes results/tables/speed.json (every measurement), .csv and .md, and results/figures/speed.pdf and .png; with --name
speed-NAME.json and so on, so that another machine's can stand beside. Each measurement is a process of its own
(speed_measure.py). Called by sweeps/speed.sh.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "imdb_scripts"))

from speed_measure import SIZES  # noqa: E402
from ulmfit import files, machine, names, vocab  # noqa: E402
from ulmfit.errors import UserError  # noqa: E402
from ulmfit.names import DataFolder  # noqa: E402
from ulmfit.tokenization import available_cores  # noqa: E402

FULL, SAMPLED = {"precision": "full"}, {"sampled": True}


@dataclass(frozen=True)
class Work:
    """What is compared. variants: label of ours -> what it changes of the sizes; the first is the default."""

    name: str
    what: str
    unit: str
    sizes: dict
    variants: dict[str, dict] = field(default_factory=lambda: {"default": {}})


def works(data: str, threads: int, bfloat16: bool) -> list[Work]:
    """bfloat16: whether the processor multiplies it; without it the default is full precision."""
    common = {"data": data, "threads": threads}
    lm, clas = {**common, "documents": 2000, "bs": 64}, {**common, "bs": 32}
    precisions = {"default": {}, **({"full precision": FULL} if bfloat16 else {})}
    every = {**precisions, "sampled": SAMPLED}
    return [
        Work("tokens", "create_toks, 25,000 reviews", "tokens/s",
             {**common, "documents": 25_000, "workers": threads}),
        Work("lm small", "LM step, small (emb 200, hidden 400, 2 layers), bs 64, bptt 70", "tokens/s",
             {**lm, "model": SIZES["small"], "batches": 10}, every),
        Work("lm paper", "LM step, paper's size (emb 400, hidden 1152, 3 layers)", "tokens/s",
             {**lm, "model": SIZES["paper"], "batches": 4}, every),
        Work("clas small", "classifier training, small, all groups, 256 reviews, bs 32", "documents/s",
             {**clas, "model": SIZES["small"], "documents": 256}, precisions),
        Work("clas paper", "classifier training, paper's size, 64 reviews, bs 16", "documents/s",
             {**clas, "bs": 16, "model": SIZES["paper"], "documents": 64}, precisions),
        Work("head small", "classifier training, small, last group alone, 512 reviews", "documents/s",
             {**clas, "model": SIZES["small"], "documents": 512, "unfrozen": False}, precisions),
        Work("eval small", "evaluation, small, 1,024 reviews", "documents/s",
             {**clas, "bs": 64, "model": SIZES["small"], "documents": 1024, "predict": True}, precisions),
        Work("eval paper", "evaluation, paper's size, 256 reviews", "documents/s",
             {**clas, "bs": 64, "model": SIZES["paper"], "documents": 256, "predict": True}, precisions),
        Work("help", "train_clas.py --help, against importing fastai.text.all", "calls/s", common),
    ]


def growths(data: str, threads: int) -> dict[str, list[tuple[int, str, dict]]]:
    """What grows -> [(its size, the work, the sizes of it)]."""
    lm = {"documents": 600, "bs": 64, "batches": 6, "threads": threads}
    model = SIZES["small"]
    clas = {"bs": 32, "threads": threads, "model": model}
    return {
        "words in the vocabulary": [(words, "lm", {**lm, "model": model, "words": words})
                                    for words in (10_000, 30_000, 60_000, 120_000)],
        "hidden size": [(n_hid, "lm", {**lm, "model": {**model, "n_hid": n_hid}, "words": 30_000})
                        for n_hid in (200, 400, 800, 1600)],
        "tokens of a document": [(length, "clas", {**clas, "documents": 64, "length": length, "words": 30_000})
                                 for length in (100, 400, 1400, 5000)],
        "reviews tokenized": [(count, "tokens", {"data": data, "documents": count, "workers": threads})
                              for count in (2500, 5000, 10_000, 20_000)],
    }


def measured(work: str, whose: str, sizes: dict) -> dict:
    """One measurement. Raises UserError when it fails."""
    done = subprocess.run([sys.executable, str(Path(__file__).with_name("speed_measure.py")), work, whose, json.dumps(sizes)],
                          capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"measuring {work} of {whose} failed ({last}); by hand: python sweeps/speed_measure.py {work} "
                        f"{whose} '{json.dumps(sizes)}'")
    return json.loads(done.stdout.splitlines()[-1])


def gflop_a_token(model: dict, words: int = 0, passes: int = 3) -> float:
    """Matrix products for a token, two operations a weight: of the LSTMs, and of the softmax where `words` is given.

    passes: 3 of a training step, which goes forward once and backward by inputs and by weights; 1 without backward.
    """
    inside = [model["emb_sz"], *[model["n_hid"]] * (model["n_layers"] - 1), model["emb_sz"]]
    weights = sum(4 * out * (into + out) for into, out in zip(inside, inside[1:])) + words * model["emb_sz"]
    return passes * 2 * weights / 1e9


def gflops(entry: dict, rate: float, words: int) -> float | None:
    """GFLOP/s of a work done at `rate`; None where it has no products, or its measurements do not say how many."""
    kind, sizes = entry["name"].split()[0], entry["sizes"]
    if kind == "lm":
        return rate * gflop_a_token(sizes["model"], words)
    tokens = entry["measured"]["stock"][0].get("tokens_a_document")
    if kind in ("clas", "head", "eval") and tokens:
        return rate * tokens * gflop_a_token(sizes["model"], passes=3 if kind == "clas" else 1)
    return None


def compare(data: str, rounds: int, only: list[str]) -> dict:
    threads = available_cores()
    about = about_machine(threads)
    chosen = [work for work in works(data, threads, bool(about["bfloat16"])) if not only or work.name in only]
    found: dict = {"machine": about, "rounds": rounds,
                   "words": len(vocab.load_vocab(DataFolder(data).ids(False))), "works": [], "growth": {}, "product": {}}
    for precision in ("bf16", "full"):
        # What the processor only imitates takes a minute a product of the larger size.
        n = 2048 if precision == "full" or about["bfloat16"] else 512
        found["product"][precision] = measured("product", "ours", {"n": n, "precision": precision,
                                                                   "threads": threads})["rate"]
        print(f"matrix product, {precision}: {found['product'][precision]:,.0f} GFLOP/s", flush=True)
    for work in chosen:
        rows: dict[str, list[dict]] = {"stock": [], **{label: [] for label in work.variants}}
        kind = "clas" if work.name.split()[0] in ("head", "eval") else work.name.split()[0]
        for _ in range(rounds):
            rows["stock"].append(measured(kind, "stock", work.sizes))
            for label, more in work.variants.items():
                rows[label].append(measured(kind, "ours", {**work.sizes, **more}))
        entry = {"name": work.name, "what": work.what, "unit": work.unit, "sizes": work.sizes, "measured": rows}
        digests = {row["digest"] for of_one in rows.values() for row in of_one if "digest" in row}
        if len(digests) > 1:
            raise UserError(f"{work.what}: the tokens of ours and of stock differ")
        found["works"].append(entry)
        print("\n".join(lines_of(entry, found)), flush=True)
    if not only:
        for what, cases in growths(data, threads).items():
            found["growth"][what] = [{"size": size, **measured(work, "ours", sizes)} for size, work, sizes in cases]
            print(f"{what}: " + ", ".join(f"{row['size']:,}: {row['rate']:,.0f}/s" for row in found["growth"][what]),
                  flush=True)
    return found


def about_machine(threads: int) -> dict:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
                 platform.processor() or platform.machine())
    return {"processor": model, "threads": threads, "bfloat16": sorted(machine.cpu_flags() & machine.BFLOAT16_FLAGS),
            "load_average_before": round(os.getloadavg()[0], 2), "python": platform.python_version(),
            **{package: metadata.version(package) for package in ("torch", "fastai", "spacy")}}


# -- tables and figure -------------------------------------------------------------------------------------------------

def summary(entry: dict, found: dict) -> list[dict]:
    """A row a variant: medians, ratios to stock in the same round with their extremes, memory, part of the machine's
    limit."""
    stock = [row["rate"] for row in entry["measured"]["stock"]]
    rows = []
    for label, measurements in entry["measured"].items():
        rates = [row["rate"] for row in measurements]
        ratios = [ours / theirs for ours, theirs in zip(rates, stock)]
        row = {"work": entry["what"], "unit": entry["unit"], "whose": label if label == "stock" else f"ours, {label}",
               "median": median(rates), "lowest": min(rates), "highest": max(rates), "ratio": median(ratios),
               "lowest_ratio": min(ratios), "highest_ratio": max(ratios),
               "peak_memory_mb": max(row["peak_memory_mb"] for row in measurements)}
        achieved = gflops(entry, row["median"], found["words"])
        if achieved and label != "sampled":
            full = label in ("stock", "full precision") or not found["machine"]["bfloat16"]
            row.update(gflop_s=achieved, part_of_limit=achieved / found["product"]["full" if full else "bf16"])
        rows.append(row)
    return rows


def lines_of(entry: dict, found: dict) -> list[str]:
    return [f"{row['work']}; {row['whose']}: {row['median']:,.3g} {row['unit']} ({row['lowest']:,.3g} to "
            f"{row['highest']:,.3g}), {row['ratio']:.2f} x stock ({row['lowest_ratio']:.2f} to "
            f"{row['highest_ratio']:.2f}), {row['peak_memory_mb']:,} MB" for row in summary(entry, found)]


def markdown(found: dict) -> str:
    about = found["machine"]
    lines = [f"{about['processor']}, {about['threads']} threads; bfloat16 in hardware: "
             f"{', '.join(about['bfloat16']) or 'no'}; torch {about['torch']}, fastai {about['fastai']}, spaCy "
             f"{about['spacy']}. Matrix product: {found['product']['full']:,.0f} GFLOP/s in single precision, "
             f"{found['product']['bf16']:,.0f} in bfloat16. {found['rounds']} rounds, in each stock and ours in turn; "
             f"medians, in brackets the extremes.", "",
             "| work | whose | a second | x stock | GFLOP/s (of the limit) | peak MB |", "|---|---|---|---|---|---|"]
    for entry in found["works"]:
        for row in summary(entry, found):
            flops = f"{row['gflop_s']:,.0f} ({row['part_of_limit']:.0%})" if "gflop_s" in row else ""
            ratio = "" if row["whose"] == "stock" else (f"**{row['ratio']:.1f}** ({row['lowest_ratio']:.1f} to "
                                                        f"{row['highest_ratio']:.1f})")
            lines.append(f"| {row['work']} | {row['whose']} | {row['median']:,.3g} {row['unit'].removesuffix('/s')} | "
                         f"{ratio} | {flops} | {row['peak_memory_mb']:,} |")
    for what, rows in found["growth"].items():
        lines += ["", f"{what}: " + ", ".join(f"{row['size']:,}: {row['rate']:,.3g}/s" for row in rows)]
    return "\n".join([*lines, ""])


def write(found: dict, stem: str = "speed") -> None:
    import pandas as pd

    tables, figures = (names.results_folder(None) / folder for folder in ("tables", "figures"))
    for folder in (tables, figures):
        folder.mkdir(parents=True, exist_ok=True)
    files.write_text(tables / f"{stem}.json", json.dumps(found, indent=1) + "\n")
    frame = pd.DataFrame([row for entry in found["works"] for row in summary(entry, found)])
    files.write_text(tables / f"{stem}.csv", frame.to_csv(index=False, float_format="%.6g"))
    files.write_text(tables / f"{stem}.md", markdown(found))
    draw(found, figures, stem)


def draw(found: dict, folder: Path, stem: str) -> None:
    """Left: how many times as fast as stock, with the extremes. Right: what one unit costs as something grows."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    # Type 42: fonts that a publisher's check accepts.
    matplotlib.rcParams["pdf.fonttype"] = 42
    rows = [row for entry in found["works"] for row in summary(entry, found)
            if row["whose"] != "stock" and entry["name"] != "help"]
    growth = found["growth"]
    figure = Figure(figsize=(9, 0.34 * max(8, len(rows)) + 1), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 3, width_ratios=[2.2, 1, 1]) if growth else figure.add_gridspec(2, 1)
    bars = figure.add_subplot(grid[:, 0])
    ratios = [row["ratio"] for row in rows]
    spread = [[row["ratio"] - row["lowest_ratio"] for row in rows], [row["highest_ratio"] - row["ratio"] for row in rows]]
    bars.barh(range(len(rows)), ratios, xerr=spread, color="0.65", ecolor="black", capsize=2)
    bars.axvline(1, color="black", linewidth=1)
    names = {"lm small": "LM, small", "lm paper": "LM, paper's size", "clas small": "classifier, small",
             "clas paper": "classifier, paper's size", "head small": "last group, small", "eval small":
             "evaluation, small", "eval paper": "evaluation, paper's size", "tokens": "tokens"}
    bars.set_yticks(range(len(rows)), [f"{names[entry['name']]}: {label}" for entry in found["works"]
                                       if entry["name"] != "help" for label in entry["measured"] if label != "stock"],
                    fontsize=7)
    bars.invert_yaxis()
    bars.set_xlabel("times as fast as stock fastai", fontsize=8)
    bars.tick_params(axis="x", labelsize=7)
    for place, (what, cases) in enumerate(growth.items()):
        axes = figure.add_subplot(grid[place // 2, 1 + place % 2])
        axes.loglog([row["size"] for row in cases], [row["rate"] for row in cases], "o-", color="black", markersize=3)
        axes.set_xlabel(what, fontsize=7)
        axes.set_ylabel("documents/s" if what.startswith("tokens of") else "tokens/s", fontsize=7)
        for axis, sizes in ((axes.xaxis, [row["size"] for row in cases]), (axes.yaxis, [row["rate"] for row in cases])):
            axis.set_major_locator(FixedLocator(apart(sizes)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            axis.set_minor_locator(NullLocator())
        axes.tick_params(axis="x", labelsize=6, labelrotation=30)
        axes.tick_params(axis="y", labelsize=6)
    for suffix in ("pdf", "png"):
        with files.replacing(folder / f"{stem}.{suffix}") as temporary:
            figure.savefig(temporary, format=suffix, dpi=200)


def apart(values: list[float], ratio: float = 1.15) -> list[float]:
    """Those of positive values that can be written beside a logarithmic axis without touching, the largest first."""
    kept: list[float] = []
    for value in sorted(values, reverse=True):
        if not kept or kept[-1] / value >= ratio:
            kept.append(value)
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=str(ROOT / "data" / "imdb"), help="folder of IMDb, tokenized and numericalized")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--name", default="", help="of the machine, in the names of the files; without it they are speed.*")
    parser.add_argument("--only", nargs="*", default=[], help="some of the works alone: prints, and writes nothing")
    given = parser.parse_args()
    folder = DataFolder(given.data)
    try:
        names.check_id(given.name, "name")
    except UserError as error:
        sys.exit(f"speed: {error}")
    if not (folder.ids(False) / "manifest.json").exists():
        sys.exit(f"speed: {given.data} has no ids; run get_data, create_toks and tok2id --max_vocab=30000 first")
    try:
        found = compare(given.data, given.rounds, given.only)
        if not given.only:
            write(found, "-".join(filter(None, ["speed", given.name])))
    except UserError as error:
        sys.exit(f"speed: {error}")


if __name__ == "__main__":
    main()
