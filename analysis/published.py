"""The paper's tables: which flags make each row, and the error rates (in %) that it printed.

Howard & Ruder 2018, arXiv 1801.06146. Tables 4 to 7 are validation error, forward only; Tables 2 and 3 and the
bidirectional result are test error. A row's flags are those of settings.py that differ from full ULMFiT's.
"""

from dataclasses import dataclass, field

DATASETS = {"imdb": "IMDb", "trec6": "TREC-6", "ag": "AG", "dbpedia": "DBpedia", "yelp_bi": "Yelp-bi",
            "yelp_full": "Yelp-full"}

# Every classifier but full ULMFiT's stops early.
_STOPS = {"early_stopping": True}
_FLAT = {"use_discriminative": False, "lr": 0.001}
_CONSTANT = {"use_regular_schedule": True}


@dataclass(frozen=True)
class Row:
    """flags: what differs from full ULMFiT. errors: by dataset, in %. without: flags that mean nothing to this row or
    are its own, such as those of a language model that it does not have (`lm.*`)."""

    name: str
    flags: dict = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """The last row is full ULMFiT, the reference that the others are compared with."""

    name: str
    title: str
    rows: tuple[Row, ...]

    @property
    def reference(self) -> Row:
        return self.rows[-1]


def _errors(imdb: float, trec6: float, ag: float) -> dict[str, float]:
    return {"imdb": imdb, "trec6": trec6, "ag": ag}


_ULMFIT = _errors(5.00, 5.69, 5.38)

# A language model that begins with random weights, trained at rates and with a dropout of its own.
WITHOUT_PRETRAINING = Row("without pretraining", {"lm.preload": False}, without=("lm.*", "pre.*"))

TABLES = {
    "table4": Table("table4", "Table 4: pretraining", (
        Row("without pretraining", {"lm.preload": False, **_STOPS}, _errors(5.63, 10.67, 5.52), ("pre.*",)),
        Row("with pretraining", {}, _ULMFIT))),
    "table5": Table("table5", "Table 5: quality of the language model", (
        Row("vanilla LM", {"pre.dropmult": 0.0, "lm.dropmult": 0.0, "cl": 5, **_STOPS}, _errors(5.98, 7.41, 5.76),
            # Its language model has a pretraining of its own, without dropout.
            ("pre.*", "lm.dropout_*")),
        Row("AWD-LSTM LM", {}, _ULMFIT))),
    "table6": Table("table6", "Table 6: fine-tuning of the language model", (
        Row("no LM fine-tuning", {"lm.notrain": True, **_STOPS}, _errors(6.99, 6.38, 6.09), ("lm.*",)),
        Row("full", {"lm.use_discriminative": False, "lm.use_regular_schedule": True, **_STOPS},
            _errors(5.86, 6.54, 5.61)),
        Row("full + discr", {"lm.use_regular_schedule": True, **_STOPS}, _errors(5.55, 6.36, 5.47)),
        Row("full + discr + stlr", {}, _ULMFIT))),
    "table7": Table("table7", "Table 7: fine-tuning of the classifier", (
        Row("from scratch", {"from_scratch": True, **_FLAT, **_STOPS}, _errors(9.93, 13.36, 6.81), ("lm.*", "pre.*")),
        Row("full", {"startat": 2, **_FLAT, **_CONSTANT, **_STOPS}, _errors(6.87, 6.86, 5.81)),
        Row("full + discr", {"startat": 2, **_CONSTANT, **_STOPS}, _errors(5.57, 6.21, 5.62)),
        Row("last", {"last": True, **_FLAT, **_CONSTANT, **_STOPS}, _errors(6.49, 16.09, 8.38)),
        Row("chain-thaw", {"chain_thaw": True, **_CONSTANT, **_STOPS}, _errors(5.39, 6.71, 5.90), ("lr",)),
        Row("freez", {**_FLAT, **_CONSTANT, **_STOPS}, _errors(6.37, 6.86, 5.81)),
        Row("freez + discr", {**_CONSTANT, **_STOPS}, _errors(5.39, 5.86, 6.04)),
        Row("freez + stlr", {**_FLAT, **_STOPS}, _errors(5.04, 6.02, 5.35)),
        Row("freez + cos", {"use_clr": False, **_FLAT, **_STOPS}, _errors(5.70, 6.38, 5.29)),
        Row("freez + discr + stlr", {}, _ULMFIT))),
}

# Test error of other methods and of ULMFiT, forward and backward averaged.
OTHER_METHODS = {
    "imdb": {"CoVe": 8.2, "oh-LSTM": 5.9, "Virtual": 5.9},
    "trec6": {"CoVe": 4.2, "TBCNN": 4.0, "LSTM-CNN": 3.9},
    "ag": {"Char-level CNN": 9.51, "CNN": 6.57, "DPCNN": 6.87},
    "dbpedia": {"Char-level CNN": 1.55, "CNN": 0.84, "DPCNN": 0.88},
    "yelp_bi": {"Char-level CNN": 4.88, "CNN": 2.90, "DPCNN": 2.64},
    "yelp_full": {"Char-level CNN": 37.95, "CNN": 32.39, "DPCNN": 30.58},
}
ULMFIT_TEST = {"imdb": 4.6, "trec6": 3.6, "ag": 5.01, "dbpedia": 0.80, "yelp_bi": 2.16, "yelp_full": 29.98}
BIDIRECTIONAL = {"imdb": {"forward": 5.30, "averaged": 4.58}}

# What full ULMFiT leaves at its default in every table. `early_stopping` and `cl` are looked at apart: a run that
# follows the paper in all but these still is that row, and the table says so.
VARIED = tuple(dict.fromkeys(flag for table in TABLES.values() for row in table.rows for flag in row.flags
                             if flag not in ("early_stopping", "cl", "lr")))
# Of these only 0 makes a row, the vanilla language model's. Another factor on the dropouts (a small model needs less) is
# chosen for all rows of a table together.
DROPOUT_FACTORS = ("pre.dropmult", "lm.dropmult")


def dataset_order(dataset: str, corpus: str | None = None) -> tuple:
    """Sorts datasets as the paper does, others behind by name."""
    order, corpus = list(DATASETS), corpus or dataset
    return order.index(corpus) if corpus in order else len(order), dataset
