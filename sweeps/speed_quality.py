"""Whether what makes training quick costs quality: ours and stock fastai after the same tokens of IMDb.

Language models from random weights, one epoch of fastai's `fit_one_cycle` over 2 million tokens, 30,000 words; every
validation by the full softmax in single precision, on 5,000 reviews of the training split that nothing else reads. What
is done is kept in results/tables/speed_quality.csv, a row a model, and not done again. Called by sweeps/speed_quality.sh.
"""

import argparse
import csv
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "imdb_scripts"))

from ulmfit import corpus, files, names, records, vocab  # noqa: E402
from ulmfit.names import DataFolder  # noqa: E402

TOKENS, VAL_REVIEWS = 2_000_000, 5_000
SIZES = {"emb_sz": 200, "n_hid": 400, "n_layers": 2}
LR, BS, BPTT = 4e-3, 64, 70
# Dropouts, momentum, AR and TAR are the same by default; the rest is set below.
OURS = {"full precision": ["--precision=full"], "bfloat16": ["--precision=bf16"],
        "bfloat16, sampled": ["--precision=bf16", "--sampled"]}
COLUMNS = ("whose", "seed", "tokens", "val_tokens", "val_loss", "perplexity", "minutes", "commit")
TABLE = ROOT / "results" / "tables" / "speed_quality.csv"


def prepare(source: Path, folder: Path) -> None:
    """A dataset with 5,000 balanced reviews of the training split as val.csv, tokenized and numericalized, and the
    subset `quality`: its first training reviews, up to 2 million tokens."""
    if not (folder / "train.csv").exists():
        folder.mkdir(parents=True, exist_ok=True)
        with open(source / "train.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        order = sorted(range(len(rows)), key=corpus.fixed_order(len(rows), 0).__getitem__)
        chosen = set()
        for label in sorted({row[0] for row in rows}):
            chosen |= set([row for row in order if rows[row][0] == label][:VAL_REVIEWS // 2])
        for split, of_split in (("val", chosen), ("train", set(range(len(rows))) - chosen)):
            with files.replacing(folder / f"{split}.csv") as temporary, \
                    open(temporary, "w", encoding="utf-8", newline="") as file:
                csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(rows[row]
                                                                                       for row in sorted(of_split))
        shutil.copyfile(source / "unsup.csv", folder / "unsup.csv")
    command("create_toks", folder)
    command("tok2id", folder, "--max_vocab=30000")
    documents = vocab.load_ids(DataFolder(folder).ids(False), "train")
    count = int(np.searchsorted(documents.offsets, TOKENS))
    rows = [document.partition(":")[2] for document in documents.document_ids[:count]]
    (folder / "subsets").mkdir(exist_ok=True)
    files.write_text(folder / "subsets" / "quality.txt", "\n".join([*rows, ""]))


def command(stage: str, folder: Path, *flags: str) -> None:
    subprocess.run([sys.executable, str(ROOT / "imdb_scripts" / f"{stage}.py"), f"--dir_path={folder}",
                    f"--results_dir={folder / 'results'}", *flags], check=True)


def ours(folder: Path, seed: int, whose: str) -> dict:
    lm_id = "quality_" + whose.replace(", ", "_").replace(" ", "_")
    command("finetune_lm", folder, "--preload=False", "--cl=1", "--schedule=one_cycle", "--nouse_discriminative",
            f"--lr={LR}", "--eps=1e-5", "--wd=0", "--clip=0", f"--bs={BS}", f"--bptt={BPTT}", f"--seed={seed}",
            "--train_file_id=quality", f"--lm_id={lm_id}", *(f"--{name}={value}" for name, value in SIZES.items()),
            *OURS[whose])
    name = names.lm_name(False, False, lm_id, "quality", seed)
    run = names.run_id(DataFolder(folder).name, "finetune_lm", *name.split(names.SEPARATOR)[1:])
    record = records.read_run(names.run_folder(folder / "results", run))
    return {**record["metrics"]["last"], "minutes": record["wall_seconds"] / 60}


def stock(folder: Path, seed: int) -> dict:
    import torch
    from fastai.text.all import (AWD_LSTM, Adam, DataLoaders, LMDataLoader, TensorText, awd_lstm_lm_config,
                                 language_model_learner, set_seed)
    from ulmfit import language_model, models

    data = DataFolder(folder)
    documents = vocab.load_ids(data.ids(False), "train")
    words = vocab.load_vocab(data.ids(False))
    count = int(np.searchsorted(documents.offsets, TOKENS))
    set_seed(seed)
    texts = [TensorText(torch.from_numpy(documents[row].astype(np.int64))) for row in range(count)]
    loader = partial(LMDataLoader, texts, bs=BS, seq_len=BPTT, num_workers=0)
    dls = DataLoaders(loader(shuffle=True), loader())
    dls.vocab = words
    learn = language_model_learner(dls, AWD_LSTM, config={**awd_lstm_lm_config, **SIZES}, pretrained=False, wd=0.0,
                                   opt_func=partial(Adam, eps=1e-5))
    began = time.monotonic()
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(1, LR, cbs=[_no_validation()])
    minutes = (time.monotonic() - began) / 60
    # The weights, measured by the very code that measures ours.
    model = models.language_model(len(words), **SIZES, dropmult=1.0)
    model.load_state_dict(learn.model.state_dict())
    val = language_model.text(data, ("val",), False)
    return {**language_model.evaluate(model, val, bs=BS, bptt=BPTT, device=torch.device("cpu")), "minutes": minutes}


def _no_validation():
    from fastai.callback.core import Callback, CancelValidException

    class NoValidation(Callback):
        def before_validate(self) -> None:
            raise CancelValidException

    return NoValidation()


def kept() -> list[dict]:
    if not TABLE.exists():
        return []
    with open(TABLE, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def keep(row: dict) -> None:
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    rows = sorted([*kept(), row], key=lambda row: (int(row["seed"]), row["whose"]))
    with files.replacing(TABLE) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    files.write_text(TABLE.with_suffix(".md"), markdown(rows))


def markdown(rows: list[dict]) -> str:
    """A line a model; ours with the perplexity relative to stock of the same seed."""
    of_stock = {row["seed"]: float(row["perplexity"]) for row in map(_as_text, rows) if row["whose"] == "stock"}
    lines = [f"One epoch of {TOKENS:,} tokens of IMDb, 30,000 words, emb {SIZES['emb_sz']}, hidden {SIZES['n_hid']}, "
             f"{SIZES['n_layers']} layers; {VAL_REVIEWS:,} validation reviews, full softmax in single precision.", "",
             "| seed | whose | validation perplexity | against stock | minutes |", "|---|---|---|---|---|"]
    for row in map(_as_text, rows):
        against = ""
        if row["whose"] != "stock" and row["seed"] in of_stock:
            against = f"{100 * (float(row['perplexity']) / of_stock[row['seed']] - 1):+.2f}%"
        lines.append(f"| {row['seed']} | {row['whose']} | {float(row['perplexity']):.2f} | {against} | "
                     f"{float(row['minutes']):.1f} |")
    return "\n".join([*lines, ""])


def _as_text(row: dict) -> dict:
    return {name: str(value) for name, value in row.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default=str(ROOT / "data" / "imdb"), help="folder with IMDb's csv files")
    parser.add_argument("--data", default=str(ROOT / "data" / "imdb_quality"), help="folder made from it")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--whose", nargs="+", default=["stock", *OURS], choices=["stock", *OURS])
    given = parser.parse_args()
    if not (Path(given.source) / "unsup.csv").exists():
        sys.exit(f"speed_quality: {given.source} holds no unsup.csv; get_data imdb makes it")
    prepare(Path(given.source), Path(given.data))
    for seed in given.seeds:
        for whose in given.whose:
            if any(row["whose"] == whose and int(row["seed"]) == seed for row in kept()):
                print(f"seed {seed}, {whose}: already measured", flush=True)
                continue
            found = stock(Path(given.data), seed) if whose == "stock" else ours(Path(given.data), seed, whose)
            commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
            keep({"whose": whose, "seed": seed, "tokens": TOKENS, "val_tokens": found["val_tokens"],
                  "val_loss": round(found["val_loss"], 6), "perplexity": round(found["perplexity"], 4),
                  "minutes": round(found["minutes"], 2), "commit": commit.stdout.strip()})
            print(f"seed {seed}, {whose}: perplexity {found['perplexity']:.2f}, {found['minutes']:.1f} min", flush=True)


if __name__ == "__main__":
    main()
