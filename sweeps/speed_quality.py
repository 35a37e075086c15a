"""Whether what makes training quick costs quality: ours and stock fastai after the same tokens of IMDb.

Language models from random weights, one epoch of fastai's `fit_one_cycle` over 2 million tokens, 30,000 words; every
validation by the full softmax in single precision, on 5,000 reviews of the training split that nothing else reads.
Classifiers, all groups, two epochs of `fit_one_cycle` over the same reviews, from these language models in full precision
(their seed modulo 3 is its seed: their errors vary more than perplexities do, and more of them can be had), and from one
that was pretrained on other text (--pretrain_path), as ULMFiT's are.
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
CLAS_LR, CLAS_BS, CLAS_BPTT, CLAS_EPOCHS, CLAS_DROPMULT = 2e-3, 32, 72, 2, 0.5
# Dropouts, AR and TAR are the same by default; the rest is set below. The momentum is that of fastai's text learners.
ONE_CYCLE = ["--schedule=one_cycle", "--mom_max=0.8", "--mom_min=0.7", "--nouse_discriminative", "--eps=1e-5", "--wd=0",
             "--clip=0"]
OURS = {"full precision": ["--precision=full"], "full precision, sampled": ["--precision=full", "--sampled"],
        "bfloat16": ["--precision=bf16"], "bfloat16, sampled": ["--precision=bf16", "--sampled"]}
LM_OF_CLAS, LM_SEEDS, PRETRAINED_LM = "full precision", 3, "quality_pretrained"
STOCK = "stock"
# Whose classifiers -> the language model that they begin with.
CLASSIFIERS = {"classifier": f"a language model in {LM_OF_CLAS} (of their seed modulo {LM_SEEDS})",
               "pretrained classifier": "one pretrained language model, fine-tuned on these reviews"}
CLAS_PRECISIONS = {"full precision": "full", "bfloat16": "bf16"}


def classifiers(kind: str) -> list[str]:
    """Stock's and ours of this kind."""
    return [f"{STOCK} {kind}", *(f"{kind}, {precision}" for precision in CLAS_PRECISIONS)]


# In the order in which they need one another.
WHOSE = [STOCK, *OURS, *(whose for kind in CLASSIFIERS for whose in classifiers(kind))]
COLUMNS = ("whose", "seed", "tokens", "val_loss", "perplexity", "error", "minutes", "commit")
TABLE = names.results_folder(None) / "tables" / "speed_quality.csv"
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
    command("finetune_lm", folder, "--preload=False", "--cl=1", *ONE_CYCLE, f"--lr={LR}", f"--bs={BS}",
            f"--bptt={BPTT}", f"--seed={seed}", "--train_file_id=quality", f"--lm_id={lm_id(whose)}",
            *(f"--{name}={value}" for name, value in SIZES.items()), *OURS[whose])
    record = record_of(folder, "finetune_lm", names.lm_name(False, False, lm_id(whose), "quality", seed))
    return {**record["metrics"]["last"], "minutes": record["wall_seconds"] / 60}


def lm_of_clas(folder: Path, seed: int, kind: str) -> tuple[str, str, int]:
    """The folder's name, the id and the seed of a classifier's language model; one from random weights is trained here
    where it is not there, as another machine measured it."""
    from ulmfit import weights

    lm, lm_seed = (lm_id(LM_OF_CLAS), seed % LM_SEEDS) if kind == "classifier" else (PRETRAINED_LM, 0)
    name = names.lm_name(False, False, lm, "quality", lm_seed)
    if kind == "classifier" and not (DataFolder(folder).model(name) / weights.WEIGHTS).exists():
        ours(folder, lm_seed, LM_OF_CLAS)
    return name, lm, lm_seed


def fine_tune(folder: Path, pretrain_path: str, pretrain_id: str) -> None:
    """The language model of the pretrained classifiers, stock's and ours."""
    command("finetune_lm", folder, f"--pretrain_path={pretrain_path}", f"--pretrain_id={pretrain_id}", "--cl=1",
            "--lr=6e-3", "--dropmult=0.5", "--sampled", "--train_file_id=quality", f"--lm_id={PRETRAINED_LM}",
            *(f"--{name}={value}" for name, value in SIZES.items()))


def ours_clas(folder: Path, seed: int, whose: str) -> dict:
    kind, _, precision = whose.partition(", ")
    _, lm, lm_seed = lm_of_clas(folder, seed, kind)
    clas_id = lm_id(whose)
    command("train_clas", folder, f"--lm_id={lm}", "--lm_train_file_id=quality", f"--lm_seed={lm_seed}",
            "--train_file_id=quality", f"--clas_id={clas_id}", f"--seed={seed}", "--startat=2", f"--cl={CLAS_EPOCHS}",
            *ONE_CYCLE, f"--lr={CLAS_LR}", f"--bs={2 * CLAS_BS}", f"--bptt={CLAS_BPTT}", f"--dropmult={CLAS_DROPMULT}",
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
    from ulmfit import models, weights

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
    name, _, _ = lm_of_clas(folder, seed, whose.removeprefix(f"{STOCK} "))
    weights.load_whole(source, data.model(name) / weights.WEIGHTS)
    learn.model[0].module.load_state_dict(source[0].state_dict())
    learn.unfreeze()
    began = time.monotonic()
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(CLAS_EPOCHS, CLAS_LR, cbs=[_no_validation()])
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
    for kind, begins_with in CLASSIFIERS.items():
        lines += _of_classifiers(rows, kind, begins_with)
    return "\n".join([*lines, ""])


def _of_classifiers(rows: list[dict], kind: str, begins_with: str) -> list[str]:
    """A line a classifier, and one for each of ours over all its seeds; none where none was trained."""
    reference, *of_ours = classifiers(kind)
    seeds = {whose: [row["seed"] for row in rows if row["whose"] == whose] for whose in (reference, *of_ours)}
    if not any(seeds.values()):
        return []
    lines = ["", f"Classifiers from {begins_with}, all groups, {CLAS_EPOCHS} epochs over the same reviews.", "",
             "| seed | classifier | validation error % | against stock |", "|---|---|---|---|",
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
    parser.add_argument("--whose", nargs="+", choices=WHOSE, help="which models; without it all, but those in bfloat16 "
                        "where the processor only imitates it, and pretrained ones only with --pretrain_path")
    parser.add_argument("--pretrain_path", help="folder with the language model that pretrained classifiers begin with")
    parser.add_argument("--pretrain_id", default="wt103", help="its id, as finetune_lm has it")
    given = parser.parse_args()
    if given.whose is None:
        given.whose = [whose for whose in quick if "pretrained" not in whose or given.pretrain_path]
    # Said now, not after hours.
    if any("pretrained" in whose for whose in given.whose) and not given.pretrain_path:
        sys.exit(f"speed_quality: pretrained classifiers need a language model of {SIZES} that pretrain_lm made; give "
                 "--pretrain_path and --pretrain_id")
    if not (Path(given.source) / "unsup.csv").exists():
        sys.exit(f"speed_quality: {given.source} holds no unsup.csv; get_data imdb makes it")
    prepare(Path(given.source), Path(given.data))
    if given.pretrain_path:
        fine_tune(Path(given.data), given.pretrain_path, given.pretrain_id)
    for seed in given.seeds:
        for whose in given.whose:
            if any(row["whose"] == whose and int(row["seed"]) == seed for row in kept(TABLE)):
                print(f"seed {seed}, {whose}: already measured", flush=True)
                continue
            if whose in (STOCK, *OURS):
                measure = stock if whose == STOCK else ours
            else:
                measure = stock_clas if whose.startswith(STOCK) else ours_clas
            found = measure(Path(given.data), seed, whose)
            commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
            keep({**found, "whose": whose, "seed": seed, "tokens": TOKENS, "minutes": round(found["minutes"], 2),
                  "commit": commit.stdout.strip()})
            what = f"perplexity {found['perplexity']:.2f}" if "perplexity" in found else f"error {found['error']:.2f}%"
            print(f"seed {seed}, {whose}: {what}, {found['minutes']:.1f} min", flush=True)


if __name__ == "__main__":
    main()
