"""Our models against fastai's own, and each row of a batch against the document run alone."""

import numpy as np
import pytest
import torch
from fastai.losses import CrossEntropyLossFlat
from fastai.text.data import TensorText, pad_input_chunk
from fastai.text.models.awdlstm import AWD_LSTM, awd_lstm_clas_config, awd_lstm_lm_config
from fastai.text.models.core import get_language_model, get_text_classifier, masked_concat_pool

from ulmfit import models
from ulmfit.errors import UsageError
from ulmfit.hyperparameters import Dropouts
from ulmfit.training import activation_regularization

SIZES = {"emb_sz": 12, "n_hid": 20, "n_layers": 3}
VOCAB, CLASSES, BPTT = 50, 4, 7


def documents(lengths: list[int], seed: int = 0) -> list[np.ndarray]:
    # From 2 on: fastai takes every 1 for padding.
    generator = np.random.default_rng(seed)
    return [generator.integers(2, VOCAB, length) for length in sorted(lengths, reverse=True)]


def our_classifier(max_len: int = 4 * BPTT, dropmult: float = 0.0) -> models.TextClassifier:
    torch.manual_seed(1)
    return models.classifier(VOCAB, CLASSES, **SIZES, bptt=BPTT, max_len=max_len, dropmult=dropmult)


def logits_of(model: models.TextClassifier, texts: list[np.ndarray]) -> torch.Tensor:
    ids, lengths = models.pad_batch(texts, BPTT)
    return model(torch.from_numpy(ids), torch.from_numpy(lengths))[0]


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("dropmult", [0.0, 1.0])
def test_language_model_equals_stock(dropmult, torchs_dropout):
    config = {**awd_lstm_lm_config, **SIZES}
    ours = models.language_model(VOCAB, **SIZES, dropmult=dropmult)
    stock = get_language_model(AWD_LSTM, VOCAB, config=config, drop_mult=dropmult)
    stock.load_state_dict(ours.state_dict())
    x = torch.randint(0, VOCAB, (3, 11), generator=torch.Generator().manual_seed(0))
    y = torch.randint(0, VOCAB, (3, 11), generator=torch.Generator().manual_seed(1))
    found = []
    for model in (ours, stock):
        torch.manual_seed(5)
        model.reset()
        logits = model(x)[0]
        loss = CrossEntropyLossFlat()(logits, y)
        loss.backward()
        found.append((logits, loss, gradients(model)))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=0, atol=1e-5)
    for name, gradient in found[0][2].items():
        torch.testing.assert_close(gradient, found[1][2][name], rtol=0, atol=1e-5)


# The longest document is a whole number of chunks, so that stock's batch is; the short ones are of any length.
@pytest.mark.parametrize("lengths, max_len", [([21] * 8, 28), ([21, 21, 18, 15, 15, 9, 8, 3, 1], 28),
                                              ([42, 41, 36, 22, 21, 20, 15, 8, 1], 28), ([35] * 5 + [30, 28, 2], 14)])
@pytest.mark.parametrize("dropmult, training, tolerance", [(0.0, False, 1e-5), (0.0, True, 1e-4), (1.0, True, 1e-4)])
def test_classifier_equals_stock_on_whole_chunks(lengths, max_len, dropmult, training, tolerance, torchs_dropout):
    # In training, batch normalisation divides by the spread of a few rows and enlarges the rounding of gradients.
    ours = our_classifier(max_len, dropmult)
    config = {**awd_lstm_clas_config, **SIZES}
    stock = get_text_classifier(AWD_LSTM, VOCAB, CLASSES, seq_len=BPTT, config=config, drop_mult=dropmult,
                                lin_ftrs=[50], ps=[0.1], max_len=max_len)
    stock.load_state_dict(ours.state_dict())
    texts = documents(lengths)
    ids, counts = models.pad_batch(texts, BPTT)
    assert ids.shape[1] % BPTT == 0
    labels = torch.arange(len(texts)) % CLASSES
    found = []
    for model, batch in ((ours, (torch.from_numpy(ids), torch.from_numpy(counts))), (stock, (torch.from_numpy(ids),))):
        torch.manual_seed(5)
        model.train(training)
        logits = model(*batch)[0]
        loss = CrossEntropyLossFlat()(logits, labels)
        loss.backward()
        found.append((logits, loss, gradients(model)))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=0, atol=1e-5)
    assert any(gradient.abs().sum() > 0 for gradient in found[0][2].values())
    for name, gradient in found[0][2].items():
        torch.testing.assert_close(gradient, found[1][2][name], rtol=0, atol=tolerance)


def test_stocks_own_layout_gives_the_same_but_for_documents_that_it_cuts_short():
    # Two rows have words in the last chunk, the first and the last one. fastai runs as many rows from the top, which
    # are the first and the second one, and the last document ends in zeros.
    texts = documents([3 * BPTT + 1, 3 * BPTT - 1, 3 * BPTT - 2, 2 * BPTT + 1])
    ours = our_classifier().eval()
    stock = get_text_classifier(AWD_LSTM, VOCAB, CLASSES, seq_len=BPTT, config={**awd_lstm_clas_config, **SIZES},
                                drop_mult=0.0, lin_ftrs=[50], ps=[0.1], max_len=4 * BPTT).eval()
    stock.load_state_dict(ours.state_dict())
    padded = pad_input_chunk([(TensorText(text), 0) for text in texts], seq_len=BPTT)
    with torch.no_grad():
        found = stock(torch.stack([torch.Tensor(ids).long() for ids, _ in padded]))[0]
        expected = logits_of(ours, texts)
    difference = (found - expected).abs().amax(dim=1)
    assert (difference[:3] < 1e-5).all() and difference[3] > 1e-3


@pytest.mark.parametrize("max_len", [7, 14, 28, 30, 1400])
def test_each_row_equals_the_document_alone(max_len):
    model = our_classifier(max_len).eval()
    texts = documents([1, 2, 6, 7, 8, 13, 14, 15, 20, 21, 22, 29, 34, 35, 36, 61, 70, 71])
    with torch.no_grad():
        together = logits_of(model, texts)
        alone = torch.cat([logits_of(model, [text]) for text in texts])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_a_word_that_is_the_padding_token_counts_as_a_word():
    model = our_classifier().eval()
    text = np.array([5, models.PAD_ID, 9, models.PAD_ID])
    with torch.no_grad():
        whole = logits_of(model, [text])
        cut = logits_of(model, [text[:3]])
        together = logits_of(model, [documents([12])[0], text])[1:]
    assert (whole - cut).abs().max() > 1e-4
    torch.testing.assert_close(together, whole, rtol=0, atol=1e-5)


def test_max_len_keeps_the_last_tokens_only():
    # Without a hidden state to carry it on, what lies before the kept tokens must not reach the pool.
    text = documents([28])[0]
    ids, lengths = models.pad_batch([text], BPTT)
    encoder = our_classifier(max_len=14)[0].eval()
    states, padding = encoder((torch.from_numpy(ids), torch.from_numpy(lengths)))
    assert states.shape[:2] == (1, 14) and not padding.any()
    everything, _ = our_classifier(max_len=28)[0].eval()((torch.from_numpy(ids), torch.from_numpy(lengths)))
    torch.testing.assert_close(states, everything[:, 14:])


def test_each_chunk_starts_from_the_state_the_last_one_ended_in():
    encoder = our_classifier()[0].eval()
    text = documents([3 * BPTT])[0]
    ids, lengths = models.pad_batch([text], BPTT)
    states, _ = encoder((torch.from_numpy(ids), torch.from_numpy(lengths)))
    encoder.module.reset()
    whole = encoder.module(torch.from_numpy(text)[None])
    torch.testing.assert_close(states, whole, rtol=0, atol=1e-5)


def test_gradient_reaches_every_kept_token_and_no_other():
    model = our_classifier(max_len=14)
    embedded = []

    def watch(module, given, out):
        embedded.append(out)
        if out.requires_grad:
            out.retain_grad()

    model[0].module.input_dp.register_forward_hook(watch)
    logits = logits_of(model.train(), documents([28, 27]))
    logits.sum().backward()
    assert [out.grad is not None and bool((out.grad.abs().sum(-1) > 0).any()) for out in embedded] == [
        False, False, True, True]


def test_concat_pool_against_its_definition():
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(3, 6, 5, generator=generator)
    padding = torch.tensor([[0, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 1], [1, 1, 1, 1, 0, 1]], dtype=torch.bool)
    pooled = models.concat_pool(states, padding)
    for row, (begin, end) in enumerate([(0, 6), (2, 5), (4, 5)]):
        kept = states[row, begin:end]
        expected = torch.cat([kept[-1], kept.max(0).values, kept.mean(0)])
        torch.testing.assert_close(pooled[row], expected)
    # In chunks of 2, each row's last chunk begins with a word: there stock's pooling is the same.
    torch.testing.assert_close(pooled, masked_concat_pool(states, padding, bptt=2))


def test_pad_batch_puts_documents_on_chunk_borders():
    ids, lengths = models.pad_batch(documents([17, 9, 3]), BPTT)
    assert ids.shape == (3, 2 * BPTT + 3) and lengths.tolist() == [17, 9, 3]
    assert (ids[1, :BPTT] == models.PAD_ID).all() and (ids[1, BPTT:BPTT + 9] != models.PAD_ID).all()
    assert (ids[2, :2 * BPTT] == models.PAD_ID).all() and (ids[2, 2 * BPTT:] != models.PAD_ID).all()


@pytest.mark.parametrize("texts", [[[2], [3, 4]], [[2], []]])
def test_pad_batch_refuses_what_the_encoder_cannot_take(texts):
    with pytest.raises(ValueError):
        models.pad_batch([np.array(text) for text in texts], BPTT)


def test_activation_regularization_against_its_definition():
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(2, 4, 3, generator=generator)
    padding = torch.tensor([[0, 0, 0, 0], [1, 1, 0, 0]], dtype=torch.bool)
    real = torch.cat([states[0], states[1, 2:]])
    steps = torch.cat([states[0, 1:] - states[0, :-1], states[1, 3:] - states[1, 2:3]])
    expected = 2.0 * real.pow(2).mean() + 1.0 * steps.pow(2).mean()
    torch.testing.assert_close(activation_regularization(states, padding, 2.0, 1.0), expected)
    torch.testing.assert_close(activation_regularization(states, padding, 0.0, 1.0), steps.pow(2).mean())


def test_activation_regularization_equals_stock_without_padding():
    states = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    stock = 2.0 * states.pow(2).mean() + (states[:, 1:] - states[:, :-1]).pow(2).mean()
    ours = activation_regularization(states, torch.zeros(2, 5, dtype=torch.bool), 2.0, 1.0)
    torch.testing.assert_close(ours, stock)


@pytest.mark.parametrize("lin_ftrs", [[], [30], [30, 20]])
def test_hidden_layers_of_the_head_equal_stocks(lin_ftrs, torchs_dropout):
    sizes = {"bptt": BPTT, "max_len": 28}
    ours = models.classifier(VOCAB, CLASSES, **SIZES, **sizes, dropmult=1.0, lin_ftrs=lin_ftrs)
    stock = get_text_classifier(AWD_LSTM, VOCAB, CLASSES, seq_len=BPTT, config={**awd_lstm_clas_config, **SIZES},
                                lin_ftrs=lin_ftrs, ps=[0.1] * len(lin_ftrs), max_len=28)
    assert str(ours[1].layers) == str(stock[1].layers)
    stock.load_state_dict(ours.state_dict())
    texts = documents([21, 21, 14, 9, 3])
    ids, counts = models.pad_batch(texts, BPTT)
    found = []
    for model, batch in ((ours, (torch.from_numpy(ids), torch.from_numpy(counts))), (stock, (torch.from_numpy(ids),))):
        torch.manual_seed(5)
        found.append(model.train()(*batch)[0])
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-5)


def probabilities(model: torch.nn.Module) -> dict[str, float]:
    if isinstance(model[0], AWD_LSTM):
        encoder, last = model[0], {"output": model[1].output_dp.p}
    else:
        encoder = model[0].module
        head = [layer.p for layer in model[1].modules() if isinstance(layer, torch.nn.Dropout)]
        # A dropout of 0 is no layer to fastai; the last one is always that behind the hidden layer.
        assert head[-1] == 0.1
        last = {"head": head[0] if len(head) == 2 else 0.0}
    assert len({rnn.weight_p for rnn in encoder.rnns}) == len({dropout.p for dropout in encoder.hidden_dps}) == 1
    return {"input": encoder.input_dp.p, "weight": encoder.rnns[0].weight_p, "embed": encoder.encoder_dp.embed_p,
            "hidden": encoder.hidden_dps[0].p, **last}


@pytest.mark.parametrize("dropmult", [0.0, 0.5])
@pytest.mark.parametrize("name", ["input", "output", "weight", "embed", "hidden", "head"])
@pytest.mark.parametrize("value", [0.0, 0.37])
def test_a_dropout_that_is_set_is_taken_as_it_is_and_the_others_times_dropmult(dropmult, name, value):
    dropouts = Dropouts(**{f"dropout_{name}": value})
    if name != "head":
        of_2018 = {"input": 0.25, "output": 0.1, "weight": 0.2, "embed": 0.02, "hidden": 0.15}
        lm = models.language_model(VOCAB, **SIZES, dropmult=dropmult, dropouts=dropouts)
        assert probabilities(lm) == pytest.approx({**{key: p * dropmult for key, p in of_2018.items()}, name: value})
    if name != "output":
        of_2018 = {"input": 0.4, "head": 0.4, "weight": 0.5, "embed": 0.05, "hidden": 0.3}
        clas = models.classifier(VOCAB, CLASSES, **SIZES, bptt=BPTT, max_len=28, dropmult=dropmult, dropouts=dropouts)
        assert probabilities(clas) == pytest.approx({**{key: p * dropmult for key, p in of_2018.items()}, name: value})


def test_a_dropout_of_one_or_more_is_refused():
    with pytest.raises(UsageError, match="--dropmult=4 makes the input dropout 1, .* by --dropout_input"):
        models.language_model(VOCAB, **SIZES, dropmult=4.0)
    dropouts = Dropouts(dropout_input=0.4, dropout_weight=0.2, dropout_hidden=0.3)
    with pytest.raises(UsageError, match="--dropmult=2.5 makes the head dropout 1, .* by --dropout_head"):
        models.classifier(VOCAB, CLASSES, **SIZES, bptt=BPTT, max_len=28, dropmult=2.5, dropouts=dropouts)


def test_a_weight_dropout_of_zero_goes_from_training_to_evaluation():
    lm = models.language_model(VOCAB, **SIZES, dropmult=1.0, dropouts=Dropouts(dropout_weight=0.0))
    ids = torch.randint(0, VOCAB, (2, 5))
    for training in (True, False, True):
        lm.train(training)(ids)


def test_the_vanilla_language_model_of_table_5_is_plain_lstms():
    """`--dropmult=0`: in training too, it computes what torch's own layers do."""
    torch.manual_seed(3)
    lm = models.language_model(VOCAB, **SIZES, dropmult=0.0).train()
    lm.reset()
    ids = torch.randint(0, VOCAB, (2, 9), generator=torch.Generator().manual_seed(0))
    found = torch.cat([lm(ids[:, :4])[0], lm(ids[:, 4:])[0]], dim=1)
    weights = lm.state_dict()
    states = weights["0.encoder.weight"][ids]
    for layer, (n_in, n_out) in enumerate([(12, 20), (20, 20), (20, 12)]):
        lstm = torch.nn.LSTM(n_in, n_out, batch_first=True)
        own = f"0.rnns.{layer}."
        lstm.load_state_dict({"weight_hh_l0": weights[own + "weight_hh_l0_raw"],
                              **{name: weights[f"{own}module.{name}"] for name in ("weight_ih_l0", "bias_ih_l0",
                                                                                  "bias_hh_l0")}})
        states = lstm(states)[0]
    logits = states @ weights["0.encoder.weight"].T + weights["1.decoder.bias"]
    torch.testing.assert_close(found, logits, rtol=0, atol=1e-5)


def test_dropouts_are_those_of_2018_times_dropmult():
    model = models.classifier(VOCAB, CLASSES, **SIZES, bptt=BPTT, max_len=28, dropmult=0.5)
    encoder, head = model[0].module, model[1]
    assert encoder.input_dp.p == pytest.approx(0.2) and encoder.encoder_dp.embed_p == pytest.approx(0.025)
    assert {round(rnn.weight_p, 6) for rnn in encoder.rnns} == {0.25}
    assert {round(dropout.p, 6) for dropout in encoder.hidden_dps} == {0.15}
    assert [layer.p for layer in head.modules() if isinstance(layer, torch.nn.Dropout)] == pytest.approx([0.2, 0.1])
    lm = models.language_model(VOCAB, **SIZES, dropmult=2.0)
    assert (lm[0].input_dp.p, lm[1].output_dp.p) == pytest.approx((0.5, 0.2))
    assert (lm[0].encoder_dp.embed_p, lm[0].rnns[0].weight_p, lm[0].hidden_dps[0].p) == pytest.approx((0.04, 0.4, 0.3))
