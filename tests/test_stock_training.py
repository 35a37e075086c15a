"""Whole updates of a classifier against fastai's own Learner: loss, regularization, optimizer, schedule, order of
random numbers (with torch's dropout of weights, ours being another draw)."""

import sys
from functools import partial

import numpy as np
import torch
from fastai.text.all import AWD_LSTM, Adam, DataLoaders, L, awd_lstm_clas_config, text_classifier_learner

from conftest import ROOT
from ulmfit import loaders, models, phases, training
from ulmfit.hyperparameters import Optimization
from ulmfit.schedules import ScheduleFlags

sys.path.insert(0, str(ROOT / "sweeps"))

from speed_measure import NoRun  # noqa: E402

SIZES, WORDS, BPTT, MAX_LEN, LR = {"emb_sz": 8, "n_hid": 12, "n_layers": 2}, 60, 10, 30, 2e-3


class OurBatches(loaders._Loader):
    def __init__(self, batches: list):
        self.batches = batches

    def updates(self, epoch: int) -> int:
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


class StockBatches:
    device = torch.device("cpu")

    def __init__(self, batches: list):
        self.batches, self.dataset, self.bs = batches, range(1), 8

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self):
        return iter([(ids, labels) for ids, _, labels in self.batches])


def test_ten_updates_are_those_of_fastais_learner(monkeypatch, torchs_dropout):
    torch.manual_seed(1)
    generator = np.random.default_rng(0)
    batches = []
    # Whole chunks, as padding inside of one counts in stock's AR and TAR; one document longer than what is kept.
    for chunks in (3, 2, 4, 1, 2):
        documents = [generator.integers(9, WORDS, size=BPTT * chunks) for _ in range(8)]
        ids, lengths = models.pad_batch(documents, BPTT)
        batches.append((torch.from_numpy(ids), torch.from_numpy(lengths),
                        torch.from_numpy(generator.integers(0, 2, size=8))))

    ours = models.classifier(WORDS, 2, **SIZES, bptt=BPTT, max_len=MAX_LEN, dropmult=1.0)
    dls = DataLoaders(StockBatches(batches), StockBatches(batches))
    dls.vocab = L([str(word) for word in range(WORDS)], ["0", "1"])
    stock = text_classifier_learner(dls, AWD_LSTM, n_out=2, config={**awd_lstm_clas_config, **SIZES}, pretrained=False,
                                    seq_len=BPTT, max_len=MAX_LEN, drop_mult=1.0, wd=0.0,
                                    opt_func=partial(Adam, eps=1e-5), loss_func=torch.nn.functional.cross_entropy)
    stock.model.load_state_dict({name: tensor.clone() for name, tensor in ours.state_dict().items()})
    before = {name: tensor.clone() for name, tensor in ours.named_parameters()}
    stock.unfreeze()
    monkeypatch.setattr(stock, "_do_epoch_validate", lambda *args, **kwargs: None)
    torch.manual_seed(3)
    with stock.no_bar(), stock.no_logging():
        stock.fit_one_cycle(2, LR)

    [phase] = phases.classifier_phases(
        epochs=2, lr=LR, n_groups=4, startat=2, use_discriminative=False,
        schedules=ScheduleFlags(schedule="one_cycle", mom_max=0.8, mom_min=0.7))
    job = training.Training(NoRun(), ours, models.classifier_groups, [phase], OurBatches(batches), OurBatches(batches),
                            validation=training.ClassifierValidation(None),
                            callbacks=[training.ClassifierOutput(2.0, 1.0)],
                            optimization=Optimization(clip=0.0, wd=0.0, eps=1e-5, precision="full"),
                            device=torch.device("cpu"), unit="documents",
                            loss_func=torch.nn.functional.cross_entropy)
    job.thaw(phase.groups)
    job.phase_steps = 2 * len(batches)
    monkeypatch.setattr(job, "end_epoch", lambda seconds: None)
    monkeypatch.setattr(job, "validates", lambda: False)
    torch.manual_seed(3)
    with job.learn.no_bar(), job.learn.no_logging():
        job.learn.fit(2, cbs=[training._ValidationPace(job), training._Steps(job)])

    assert len(job.step_log) == 10
    theirs = dict(stock.model.state_dict())
    for name, found in ours.state_dict().items():
        assert (found - theirs[name]).abs().max() < 2e-6, name
    # Far more than the tolerance: that both stood still is not what was seen.
    assert all((parameter - before[name]).abs().max() > 1e-3 for name, parameter in ours.named_parameters())
