"""Whether what makes training quick costs quality: ours and stock fastai after the same tokens of IMDb.

Language models from random weights, one epoch of fastai's `fit_one_cycle` over 2 million tokens, 30,000 words; every
validation by the full softmax in single precision, on 5,000 reviews of the training split that nothing else reads.
Classifiers from a language model in full precision (their seed modulo 3 is its seed: their errors vary more than
perplexities do, and more of them can be had), over the same reviews, by the two recipes of RECIPES.
What is done is kept in results/tables/speed_quality.csv, a row a model, and not done again; which reviews a classifier
got wrong is in speed_quality_wrong.csv. Called by sweeps/speed_quality.sh.
"""

import argparse
import base64
import csv
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Callable

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "imdb_scripts"), str(ROOT)]

from analysis import statistics  # noqa: E402
from ulmfit import corpus, files, machine, names, predictions, records, vocab  # noqa: E402
from ulmfit.names import DataFolder  # noqa: E402

TOKENS, VAL_REVIEWS = 2_000_000, 5_000
SIZES = {"emb_sz": 200, "n_hid": 400, "n_layers": 2}
LR, BS, BPTT = 4e-3, 64, 70
CLAS_BS, CLAS_BPTT, CLAS_DROPMULT = 32, 72, 0.5
# Dropouts, AR and TAR are the same by default; the rest is set below. The momentum is that of fastai's text learners.
ONE_CYCLE = ["--schedule=one_cycle", "--mom_max=0.8", "--mom_min=0.7", "--eps=1e-5", "--wd=0", "--clip=0"]
SAME_RATE = "--nouse_discriminative"
OURS = {"full precision": ["--precision=full"], "full precision, sampled": ["--precision=full", "--sampled"],
        "bfloat16": ["--precision=bf16"], "bfloat16, sampled": ["--precision=bf16", "--sampled"]}


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained, each phase by a `fit_one_cycle` of its own.

    gradual: first the last group, then the last two, an epoch each; the rate of a group is that of the one above
    divided by 2.6, as fastai's documentation of its text learner has it. Else all groups from the start, at one rate.
    """

    what: str
    lr: float
    gradual: bool

    def flags(self) -> list[str]:
        return [f"--lr={self.lr}", f"--cl={EPOCHS}", *ONE_CYCLE, *([] if self.gradual else ["--startat=2", SAME_RATE])]


EPOCHS = 2
RECIPES = {"classifier": Recipe(f"all groups from the start, {EPOCHS} epochs", 2e-3, gradual=False),
           "gradual classifier": Recipe(f"the last group, the last two, then all for {EPOCHS} epochs, discriminative rates",
                                        5e-3, gradual=True)}
CLAS_PRECISIONS = {"full precision": "full", "bfloat16": "bf16"}
LM_OF_CLAS, LM_SEEDS = "full precision", 3
STOCK = "stock"


def classifiers(recipe: str) -> list[str]:
    """Stock's and ours by this recipe."""
    return [f"{STOCK} {recipe}", *(f"{recipe}, {precision}" for precision in CLAS_PRECISIONS)]


# In the order in which they need one another.
WHOSE = [STOCK, *OURS, *(whose for recipe in RECIPES for whose in classifiers(recipe))]
COLUMNS = ("whose", "seed", "tokens", "val_loss", "perplexity", "error", "minutes", "commit")
TABLE = ROOT / "results" / "tables" / "speed_quality.csv"
WRONG = TABLE.with_name("speed_quality_wrong.csv")


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


def lm_id(whose: str) -> str:
    return "quality_" + whose.replace(", ", "_").replace(" ", "_")


def record_of(folder: Path, stage: str, name: str) -> dict:
    run = names.run_id(DataFolder(folder).name, stage, *name.split(names.SEPARATOR)[1:])
    return records.read_run(names.run_folder(folder / "results", run))


def ours(folder: Path, seed: int, whose: str) -> dict:
    command("finetune_lm", folder, "--preload=False", "--cl=1", *ONE_CYCLE, SAME_RATE, f"--lr={LR}", f"--bs={BS}",
            f"--bptt={BPTT}", f"--seed={seed}", "--train_file_id=quality", f"--lm_id={lm_id(whose)}",
            *(f"--{name}={value}" for name, value in SIZES.items()), *OURS[whose])
    record = record_of(folder, "finetune_lm", names.lm_name(False, False, lm_id(whose), "quality", seed))
    return {**record["metrics"]["last"], "minutes": record["wall_seconds"] / 60}


def lm_of_clas(folder: Path, seed: int) -> str:
    """The name of a classifier's language model; it is trained here when another machine measured it."""
    from ulmfit import weights

    name = names.lm_name(False, False, lm_id(LM_OF_CLAS), "quality", seed % LM_SEEDS)
    if not (DataFolder(folder).model(name) / weights.WEIGHTS).exists():
        ours(folder, seed % LM_SEEDS, LM_OF_CLAS)
    return name


def ours_clas(folder: Path, seed: int, whose: str) -> dict:
    lm_of_clas(folder, seed)
    recipe, _, precision = whose.partition(", ")
    clas_id = lm_id(whose)
    command("train_clas", folder, f"--lm_id={lm_id(LM_OF_CLAS)}", "--lm_train_file_id=quality",
            f"--lm_seed={seed % LM_SEEDS}", "--train_file_id=quality", f"--clas_id={clas_id}", f"--seed={seed}",
            *RECIPES[recipe].flags(), f"--bs={2 * CLAS_BS}", f"--bptt={CLAS_BPTT}", f"--dropmult={CLAS_DROPMULT}",
            f"--precision={CLAS_PRECISIONS[precision]}")
    name = names.clas_name(False, False, "", clas_id, "quality", seed)
    record = record_of(folder, "train_clas", name)
    predicted = predictions.read(names.run_folder(folder / "results", record["id"]) / "predictions.csv")
    return {**record["metrics"]["last"], "minutes": record["wall_seconds"] / 60,
            "wrong": predicted.probabilities.argmax(1) != predicted.label_indices()}


def stock(folder: Path, seed: int, whose: str) -> dict:
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


def stock_clas(folder: Path, seed: int, whose: str) -> dict:
    """fastai's classifier on our encoder, evaluated by its own `get_preds`."""
    import torch
    from fastai.text.all import (AWD_LSTM, Adam, DataLoaders, L, SortedDL, TensorCategory, TensorText,
                                 awd_lstm_clas_config, pad_input_chunk, set_seed, text_classifier_learner)
    from ulmfit import models, phases, weights

    data = DataFolder(folder)
    words = vocab.load_vocab(data.ids(False))
    set_seed(seed)
    loaders = []
    for split in ("train", "val"):
        documents = vocab.load_ids(data.ids(False), split)
        count = int(np.searchsorted(documents.offsets, TOKENS)) if split == "train" else len(documents)
        items = [(TensorText(torch.from_numpy(documents[row].astype(np.int64))), TensorCategory(int(documents.labels[row])))
                 for row in range(count)]
        loaders.append(SortedDL(items, bs=CLAS_BS, num_workers=0, sort_func=lambda item: len(item[0]),
                                shuffle=split == "train", before_batch=partial(pad_input_chunk, seq_len=CLAS_BPTT)))
    dls = DataLoaders(*loaders)
    dls.vocab = L(words, ["0", "1"])
    learn = text_classifier_learner(dls, AWD_LSTM, n_out=2, config={**awd_lstm_clas_config, **SIZES}, pretrained=False,
                                    seq_len=CLAS_BPTT, drop_mult=CLAS_DROPMULT, wd=0.0, opt_func=partial(Adam, eps=1e-5),
                                    loss_func=torch.nn.functional.cross_entropy)
    source = models.language_model(len(words), **SIZES, dropmult=1.0)
    weights.load_whole(source, data.model(lm_of_clas(folder, seed)) / weights.WEIGHTS)
    learn.model[0].module.load_state_dict(source[0].state_dict())
    recipe = RECIPES[whose.removeprefix(f"{STOCK} ")]
    lr = recipe.lr
    if recipe.gradual:
        lr = slice(lr / phases.DIVISOR ** (len(learn.splitter(learn.model)) - 1), lr)
    began = time.monotonic()
    with learn.no_bar(), learn.no_logging():
        for last in (1, 2) if recipe.gradual else ():
            learn.freeze_to(-last)
            learn.fit_one_cycle(1, lr, cbs=[_no_validation()])
        learn.unfreeze()
        learn.fit_one_cycle(EPOCHS, lr, cbs=[_no_validation()])
        minutes = (time.monotonic() - began) / 60
        scores, labels = learn.get_preds(dl=dls.valid, act=torch.nn.Identity())
    wrong = (scores.argmax(1) != labels).numpy()
    loss = float(torch.nn.functional.cross_entropy(scores.as_subclass(torch.Tensor), labels.as_subclass(torch.Tensor)))
    return {"val_loss": loss, "error": 100 * float(wrong.mean()), "minutes": minutes, "wrong": wrong}


def _no_validation():
    from fastai.callback.core import Callback, CancelValidException

    class NoValidation(Callback):
        def before_validate(self) -> None:
            raise CancelValidException

    return NoValidation()


def kept(table: Path) -> list[dict]:
    if not table.exists():
        return []
    with open(table, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def keep(row: dict) -> None:
    """Adds a row to the table, and what its classifier got wrong, (VAL_REVIEWS,) in the order of val.csv, to the other
    file first: a row of the table says that the model is done."""
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    if "wrong" in row:
        packed = base64.b64encode(np.packbits(row["wrong"])).decode()
        _add({**row, "wrong": packed}, WRONG, ("whose", "seed", "wrong"))
    files.write_text(TABLE.with_suffix(".md"), markdown(_add(row, TABLE, COLUMNS)))


def _add(row: dict, table: Path, columns: tuple[str, ...]) -> list[dict]:
    """All rows, this one in the place of an older one of its model."""
    others = [other for other in kept(table) if (other["whose"], int(other["seed"])) != (row["whose"], row["seed"])]
    rows = sorted([*others, row], key=lambda row: (int(row["seed"]), WHOSE.index(row["whose"])))
    with files.replacing(table) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return rows


def wrong_reviews(whose: str, seeds: list[str]) -> np.ndarray:
    """(VAL_REVIEWS, seeds) of 0 and 1."""
    packed = {(row["whose"], row["seed"]): row["wrong"] for row in kept(WRONG)}
    return np.stack([np.unpackbits(np.frombuffer(base64.b64decode(packed[whose, seed]), dtype=np.uint8),
                                   count=VAL_REVIEWS) for seed in seeds], axis=1).astype(int)


def markdown(rows: list[dict]) -> str:
    """A line a model; ours relative to stock of the same seed, and classifiers of all seeds together."""
    rows = list(map(_as_text, rows))
    lines = [f"One epoch of {TOKENS:,} tokens of IMDb, 30,000 words, emb {SIZES['emb_sz']}, hidden {SIZES['n_hid']}, "
             f"{SIZES['n_layers']} layers; {VAL_REVIEWS:,} validation reviews, full softmax in single precision. How long "
             "each took is in speed.md: what ran beside these differs from row to row.", "",
             "| seed | language model | validation perplexity | against stock |", "|---|---|---|---|",
             *_lines(rows, [STOCK, *OURS], "perplexity", lambda ours, theirs: f"{100 * (ours / theirs - 1):+.2f}%")]
    for recipe, how in RECIPES.items():
        lines += _of_classifiers(rows, recipe, how)
    return "\n".join([*lines, ""])


def _of_classifiers(rows: list[dict], recipe: str, how: Recipe) -> list[str]:
    """A line a classifier, and one for each of ours over all its seeds; none where none was trained."""
    reference, *of_ours = classifiers(recipe)
    seeds = {whose: [row["seed"] for row in rows if row["whose"] == whose] for whose in (reference, *of_ours)}
    if not any(seeds.values()):
        return []
    lines = ["", f"{recipe.capitalize()}s from a language model in {LM_OF_CLAS} (of their seed modulo {LM_SEEDS}): {how.what}, "
             "over the same reviews.", "", "| seed | classifier | validation error % | against stock |", "|---|---|---|---|",
             *_lines(rows, [reference, *of_ours], "error", lambda ours, theirs: f"{ours - theirs:+.2f}"), ""]
    for whose in of_ours:
        both = [seed for seed in seeds[whose] if seed in seeds[reference]]
        if both:
            wrong, of_stock = wrong_reviews(whose, both), wrong_reviews(reference, both)
            bounds = statistics.difference_interval(wrong, of_stock)
            lines.append(f"{whose} less {reference}, {len(both)} seed{'s' * (len(both) > 1)}: "
                         f"{100 * (wrong - of_stock).mean():+.2f} points, 95% interval over documents and seeds "
                         f"{bounds.low:+.2f} to {bounds.high:+.2f}.")
    return lines


def _lines(rows: list[dict], whose: list[str], measure: str, compare: Callable[[float, float], str]) -> list[str]:
    """A line for each row of these models, the first of which is stock."""
    of_stock = {row["seed"]: float(row[measure]) for row in rows if row["whose"] == whose[0]}
    return [f"| {row['seed']} | {row['whose']} | {float(row[measure]):.2f} | "
            + (compare(float(row[measure]), of_stock[row["seed"]])
               if row["whose"] != whose[0] and row["seed"] in of_stock else "")
            + " |" for row in rows if row["whose"] in whose]


def _as_text(row: dict) -> dict:
    return {name: str(value) for name, value in row.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default=str(ROOT / "data" / "imdb"), help="folder with IMDb's csv files")
    parser.add_argument("--data", default=str(ROOT / "data" / "imdb_quality"), help="folder made from it")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    quick = [whose for whose in WHOSE if "bfloat16" not in whose or machine.cpu_flags() & machine.BFLOAT16_FLAGS]
    parser.add_argument("--whose", nargs="+", default=quick, choices=WHOSE,
                        help="which models; without it all, but those in bfloat16 where the processor only imitates it")
    given = parser.parse_args()
    if not (Path(given.source) / "unsup.csv").exists():
        sys.exit(f"speed_quality: {given.source} holds no unsup.csv; get_data imdb makes it")
    prepare(Path(given.source), Path(given.data))
    for seed in given.seeds:
        for whose in given.whose:
            if any(row["whose"] == whose and int(row["seed"]) == seed for row in kept(TABLE)):
                print(f"seed {seed}, {whose}: already measured", flush=True)
                continue
            of_stock = whose.startswith(STOCK)
            if whose in (STOCK, *OURS):
                measure = stock if of_stock else ours
            else:
                measure = stock_clas if of_stock else ours_clas
            found = measure(Path(given.data), seed, whose)
            commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
            keep({**found, "whose": whose, "seed": seed, "tokens": TOKENS, "minutes": round(found["minutes"], 2),
                  "commit": commit.stdout.strip()})
            what = f"perplexity {found['perplexity']:.2f}" if "perplexity" in found else f"error {found['error']:.2f}%"
            print(f"seed {seed}, {whose}: {what}, {found['minutes']:.1f} min", flush=True)


if __name__ == "__main__":
    main()
