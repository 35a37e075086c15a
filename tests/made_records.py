"""Writes results folders as the stages would leave them, with invented predictions: the analysis's tests read them."""

import gzip
import hashlib
import importlib
import inspect
import json
import os
import socket
from pathlib import Path

import numpy as np
from ulmfit import metrics, names, predictions, records
from ulmfit.records import Input

SIZES = {"emb_sz": 16, "n_hid": 24, "n_layers": 2}
CLASSES = ["neg", "pos"]


class Made:
    """A results folder being filled. Fingerprints, parents and metrics are those that the stages would record."""

    def __init__(self, folder: Path, documents: int = 200, classes: list[str] = CLASSES, seed: int = 0):
        self.folder, self.documents, self.classes = Path(folder), documents, classes
        self.random = np.random.default_rng(seed)
        self.records: dict[str, dict] = {}
        self.difficulty: dict[tuple[str, str], np.ndarray] = {}

    def input(self, path: str, run: str, suffix: str = "") -> Input:
        return Input(path, self.records[run]["fingerprint"] + suffix, run)

    def run(self, stage: str, run_id: str, flags: dict, inputs: dict[str, Input], resolved: dict | None = None,
            **facts) -> str:
        """Writes run.json and returns the run's id. facts: replace or add to what the record says."""
        function = getattr(importlib.import_module(stage), stage)
        defaults = {name: p.default for name, p in inspect.signature(function).parameters.items()}
        every = {**defaults, **flags}
        config = {**records.config_of(function, every), **(resolved or {})}
        dataset = run_id.split("--")[0]
        record = {
            "schema": 1, "id": run_id, "stage": stage, "stage_version": records.STAGE_VERSIONS[stage],
            "dataset": dataset, "status": "finished", "error": None,
            "fingerprint": records.fingerprint(stage, config, inputs),
            "command": f"python imdb_scripts/{stage}.py --dir_path=data/{dataset} "
                       + " ".join(f"--{name}={value}" for name, value in flags.items()),
            "seed": every.get("seed"), "device": "cpu", "threads": 1, "flags": every, "config": config,
            "inputs": {name: given.as_json() for name, given in inputs.items()},
            "parents": sorted({given.run for given in inputs.values() if given.run}),
            "git": {"commit": "0" * 40, "dirty": False}, "versions": {"python": "3.11.7", "torch": "2.6.0"},
            "started": "2026-01-01T00:00:00+00:00", "wall_seconds": 60.0, "peak_memory_mb": 100.0,
            "sessions": [{"started": "2026-01-01T00:00:00+00:00", "ended": "2026-01-01T00:01:00+00:00", "seconds": 60.0,
                          "host": socket.gethostname(), "pid": os.getpid()}],
            "metrics": {}, **facts}
        self.records[run_id] = record
        (self.folder / "runs" / run_id).mkdir(parents=True, exist_ok=True)
        self.save(run_id)
        return run_id

    def save(self, run_id: str, **changes) -> None:
        self.records[run_id].update(changes)
        (self.folder / "runs" / run_id / "run.json").write_text(json.dumps(self.records[run_id], indent=1),
                                                                encoding="utf-8")

    # -- data and language models --------------------------------------------------------------------------------------

    def corpus(self, dataset: str, bpe: bool = False, train: int = 1000) -> str:
        """create_toks and tok2id. Returns the id of the latter."""
        unit = names.unit(bpe)
        splits = {split: {"documents": n, "tokens": 10 * n}
                  for split, n in (("train", train), ("val", self.documents), ("test", self.documents))}
        tokens = self.run("create_toks", f"{dataset}--create_toks--{unit}", {"bpe": bpe},
                          {"train": Input(f"data/{dataset}/train.csv", hash_of(dataset))}, splits=splits,
                          classes=self.classes, duplicates={"val in train": 0, "test in train": 0, "test in val": 0})
        return self.run("tok2id", f"{dataset}--tok2id--{unit}", {"bpe": bpe},
                        {"tokens": self.input(f"data/{dataset}/{unit}/tokens", tokens)}, splits=splits,
                        classes=self.classes)

    def subset(self, dataset: str, n: int, seed: int) -> tuple[str, Input]:
        """sample_train. Returns the subset's name and what reads it."""
        name = names.sample_name(n, seed, "")
        digest = hash_of(f"{dataset}/{name}") * 4
        self.run("sample_train", f"{dataset}--sample_train--{name}", {"n": n, "seed": seed}, {}, train_file_id=name,
                 documents=n, sha256=digest, rows_per_class={label: n // 2 for label in self.classes})
        return name, Input(f"data/{dataset}/subsets/{name}.txt", digest[:16])

    def pretrained(self, flags: dict | None = None, backwards: bool = False, bpe: bool = False,
                   name: str = "wiki") -> str:
        if f"wiki--tok2id--{names.unit(bpe)}" not in self.records:
            self.corpus("wiki", bpe)
        kind = f"{names.direction(backwards)}--{names.unit(bpe)}"
        run = self.run("pretrain_lm", f"wiki--pretrain_lm--{kind}--{name}--all--s0",
                       {**(flags or {}), "backwards": backwards, "bpe": bpe},
                       {"ids": self.input("data/wiki/ids", f"wiki--tok2id--{names.unit(bpe)}")}, SIZES)
        return self.perplexities(run, 60.0)

    def language_model(self, dataset: str, pretrained: str | Input | None, name: str = "default",
                       flags: dict | None = None, seed: int = 0, backwards: bool = False, bpe: bool = False,
                       subset: tuple[str, Input] | None = None) -> str:
        """finetune_lm. pretrained: a run, or a file of weights that none made."""
        fields = names.lm_name(backwards, bpe, name, subset[0] if subset else "", seed).split("--")[1:]
        inputs = {"ids": self.input(f"data/{dataset}/ids", f"{dataset}--tok2id--{names.unit(bpe)}")}
        if subset:
            inputs["subset"] = subset[1]
        if pretrained:
            inputs["pretrained"] = (pretrained if isinstance(pretrained, Input)
                                    else self.input("data/wiki/models/x", pretrained))
        run = self.run("finetune_lm", names.run_id(dataset, "finetune_lm", *fields),
                       {**(flags or {}), "lm_id": name, "seed": seed, "backwards": backwards, "bpe": bpe,
                        "train_file_id": subset[0] if subset else ""}, inputs, SIZES)
        return self.perplexities(run, 39.0, 40.0)

    def perplexities(self, run: str, *epochs: float) -> str:
        """Gives a language model an epoch for each perplexity. Returns the run."""
        rows = [{"epoch": epoch, "val_loss": float(np.log(value)), "perplexity": value}
                for epoch, value in enumerate(epochs)]
        self.epochs(run, rows)
        self.save(run, metrics={"last": rows[-1], "best": min(rows, key=lambda row: row["val_loss"])})
        return run

    def epochs(self, run: str, rows: list[dict]) -> None:
        """Writes metrics.jsonl."""
        (self.folder / "runs" / run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows),
                                                                  encoding="utf-8")

    # -- classifiers ---------------------------------------------------------------------------------------------------

    def classifier(self, dataset: str, language_model: str | None, error: float, name: str = "default",
                   flags: dict | None = None, seed: int = 0, backwards: bool = False, bpe: bool = False,
                   subset: tuple[str, Input] | None = None, epochs: int = 4, test: bool = True,
                   details: bool = False) -> str:
        """train_clas with val predictions that are wrong for about `error` % of the documents, and eval_clas on test.

        details: also steps.csv.gz.
        """
        fields = names.clas_name(backwards, bpe, name, None, subset[0] if subset else "", seed).split("--")[1:]
        ids = self.input(f"data/{dataset}/ids", f"{dataset}--tok2id--{names.unit(bpe)}")
        inputs = {"ids": ids}
        if subset:
            inputs["subset"] = subset[1]
        if language_model:
            inputs["language_model"] = self.input(f"data/{dataset}/models/x", language_model)
        every = {**(flags or {}), "lm_id": name, "seed": seed, "backwards": backwards, "bpe": bpe,
                 "train_file_id": subset[0] if subset else ""}
        run = self.run("train_clas", names.run_id(dataset, "train_clas", *fields), every, inputs,
                       {**SIZES, "max_len": 1400}, split="val", classes=self.classes,
                       progress={"epochs": epochs, "of": epochs})
        scores = self.predict(run, dataset, "val", error)
        rows = [{"epoch": epoch, "phase": "all", "steps": 10 * (epoch + 1), "train_loss": 0.9 / (epoch + 1),
                 "val_loss": scores["loss"] + 0.1 * (epochs - 1 - epoch),
                 "error": scores["error"] + 3 * (epochs - 1 - epoch), "macro_f1": 0.9,
                 "seconds": 1.0} for epoch in range(epochs)]
        rows[-1]["macro_f1"] = scores["macro_f1"]
        self.save(run, metrics={"last": rows[-1], "best": rows[-1]})
        self.epochs(run, rows)
        if details:
            self.steps(run, len(rows))
        if test:
            self.evaluation(run, error)
        return run

    def steps(self, run: str, epochs: int) -> None:
        """Writes steps.csv.gz, of ten steps an epoch."""
        lines = ["step,phase,groups,lr_0,lr_1,lr_2,lr_3"]
        lines += [f"{step},{step // 10},{'+'.join(map(str, range(max(0, 3 - step // 10), 4)))},"
                  + ",".join(f"{0.01 / 2.6 ** (3 - group) * (1 + step % 10) / 10:.6g}" for group in range(4))
                  for step in range(10 * epochs)]
        text = "\n".join([*lines, ""])
        (self.folder / "runs" / run / "steps.csv.gz").write_bytes(gzip.compress(text.encode(), mtime=0))

    def evaluation(self, run: str, error: float) -> str:
        record = self.records[run]
        dataset, _, *fields = run.split("--")
        made = self.run("eval_clas", names.run_id(dataset, "eval_clas", *fields, "test"),
                        {"split": "test", **{name: record["flags"][name] for name in ("backwards", "bpe", "seed")}},
                        {"classifier": self.input("data/x", run), "ids": Input(**record["inputs"]["ids"])},
                        split="test", classes=self.classes)
        scores = self.predict(made, dataset, "test", error)
        self.save(made, metrics={"last": scores, "best": scores})
        return made

    def baseline(self, dataset: str, error: float, model: str = "tfidf", split: str = "val",
                 subset: tuple[str, Input] | None = None, seed: int = 0) -> str:
        fields = names.baseline_name(model, 2, subset[0] if subset else "", seed).split("--")[1:]
        inputs = {"tokens": self.input(f"data/{dataset}/word/tokens", f"{dataset}--create_toks--word")}
        if subset:
            inputs["subset"] = subset[1]
        run = self.run("train_baseline", names.run_id(dataset, "train_baseline", *fields, split),
                       {"model": model, "split": split, "seed": seed, "train_file_id": subset[0] if subset else ""},
                       inputs, {"ngrams": 2}, split=split, classes=self.classes)
        scores = self.predict(run, dataset, split, error)
        self.save(run, metrics={"last": scores, "best": scores})
        return run

    def predict(self, run: str, dataset: str, split: str, error: float) -> dict:
        """Writes predictions.csv and returns its metrics. Hard documents are hard for every run of a dataset."""
        n, k = self.documents, len(self.classes)
        labels = np.arange(n) % k
        hard = self.difficulty.setdefault((dataset, split), self.random.permutation(n) / n)
        wrong = (0.6 * hard + 0.4 * self.random.random(n)).argsort() >= n - round(n * error / 100)
        chosen = np.where(wrong, (labels + 1) % k, labels)
        probabilities = np.full((n, k), 0.3 / (k - 1))
        probabilities[np.arange(n), chosen] = 0.7
        # A validation document's id is its row of train.csv when there is no val.csv.
        ids = [f"{'train' if split == 'val' else 'test'}:{row}" for row in range(n)]
        path = self.folder / "runs" / run / "predictions.csv"
        predictions.write(path, ids, [self.classes[label] for label in labels], probabilities, self.classes)
        return metrics.classification(labels, predictions.read(path).probabilities)


def hash_of(text: str) -> str:
    """16 hex digits for a text, the same in every process."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def paper_tables(made: Made, dataset: str, seeds=(0, 1, 2), details: bool = False, test: bool = True) -> None:
    """Every run of Tables 4 to 7, forward, by the flags that PAPER's rows say."""
    if f"{dataset}--tok2id--word" not in made.records:
        made.corpus(dataset)
    pretrained, vanilla = made.pretrained(), made.pretrained({"dropmult": 0.0}, name="vanilla")
    stops, flat, constant = {"early_stopping": True}, {"use_discriminative": False, "lr": 0.001}, {
        "use_regular_schedule": True}
    cl, short = {"cl": 2}, {"cl": 15}
    for seed in seeds:
        def tuned(name: str, source: str | None = pretrained, **flags) -> str:
            return made.language_model(dataset, source, name, {**short, **flags}, seed)

        def trained(model: str | None, error: float, name: str, **flags) -> str:
            return made.classifier(dataset, model, error + made.random.normal(0, 0.4), name, {**cl, **flags}, seed,
                                   details=details, test=test)

        default = tuned("default")
        trained(default, 5, "default")
        trained(tuned("random", None, preload=False), 9, "random", **stops)
        trained(tuned("vanilla", vanilla, dropmult=0.0), 7, "vanilla", **{**stops, "cl": 5})
        trained(tuned("none", notrain=True), 8, "none", **stops)
        trained(tuned("full", use_discriminative=False, **constant), 6.5, "full", **stops)
        trained(tuned("discr", **constant), 6, "discr", **stops)
        trained(None, 12, "scratch", from_scratch=True, **flat, **stops)
        for error, name, flags in ((7, "t7-full", {"startat": 2, **flat, **constant}),
                                   (6, "t7-full-discr", {"startat": 2, **constant}),
                                   (14, "t7-last", {"last": True, **flat, **constant}),
                                   (6.5, "t7-thaw", {"chain_thaw": True, **constant}),
                                   (7, "t7-freez", {**flat, **constant}),
                                   (5.5, "t7-freez-discr", constant),
                                   (6, "t7-freez-stlr", flat),
                                   (6, "t7-freez-cos", {"use_clr": False, **flat})):
            trained(default, error, name, **flags, **stops)


def few_labels(made: Made, dataset: str, sizes=(100, 500), seeds=(0, 1, 2)) -> None:
    """The runs of Figure 3: one language model on all text, one on each subset, from scratch, and a linear baseline."""
    if f"{dataset}--tok2id--word" not in made.records:
        made.corpus(dataset)
    pretrained = made.pretrained()
    shared = made.language_model(dataset, pretrained, "shared", {"cl": 15})
    for n in sizes:
        for seed in seeds:
            subset = made.subset(dataset, n, seed)
            gain = 10 * np.log10(n / 100)
            own = made.language_model(dataset, pretrained, "own", {"cl": 15}, seed, subset=subset)
            made.classifier(dataset, own, 25 - gain, "own", {"cl": 2}, seed, subset=subset)
            made.classifier(dataset, shared, 18 - gain, "shared", {"cl": 2}, seed, subset=subset)
            made.classifier(dataset, None, 40 - gain, "scratch", {
                "cl": 2, "from_scratch": True, "use_discriminative": False, "lr": 0.001, "early_stopping": True}, seed,
                subset=subset)
            made.baseline(dataset, 30 - gain, subset=subset, seed=seed)
