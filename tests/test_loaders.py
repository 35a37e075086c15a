"""Batches against brute force: documents joined by hand, one token after the other."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ulmfit import training
from ulmfit.errors import UserError
from ulmfit.vocab import read_subset
from ulmfit.loaders import ClassifierLoader, LMLoader, TextStream, bptt_lengths, sortish_batches
from ulmfit.models import PAD_ID
from ulmfit.vocab import Documents

torch.set_num_threads(1)
# Document i of these holds 1000 * (i + 1) and the numbers after it, so that a token tells where it is from.
STEP = 1000


def documents(lengths, first: int = 0, dtype=np.uint16) -> Documents:
    texts = [STEP * (first + number + 1) + np.arange(length) for number, length in enumerate(lengths)]
    return Documents(Path(), "train", np.concatenate([np.zeros(0, int), *texts]).astype(dtype),
                     np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]), np.arange(len(lengths), dtype=np.int16))


def random_lengths(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 40, count)


def language_model_loader(lengths=None, *, backwards=False, bs=4, bptt=10, seed=3) -> LMLoader:
    stream = TextStream([(documents(random_lengths(30) if lengths is None else lengths), None)], backwards)
    return LMLoader(stream, bs=bs, bptt=bptt, seed=seed, what="the training text")


def epoch_of(loader: LMLoader, epoch: int, batch: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    loader.start(epoch, batch)
    return list(loader)


def same(left, right) -> bool:
    return len(left) == len(right) and all(torch.equal(a, b) for one, other in zip(left, right)
                                           for a, b in zip(one, other, strict=True))


def rows_joined(batches) -> tuple[np.ndarray, np.ndarray]:
    inputs, targets = (torch.cat(part, dim=1).numpy() for part in zip(*batches))
    return inputs, targets


def read_back(text: np.ndarray, lengths, backwards: bool) -> list[int]:
    """The documents' numbers in the order they were read in; asserts that each is there whole (the last may be cut)."""
    order, place = [], 0
    while place < len(text):
        number = int(text[place]) // STEP - 1
        whole = STEP * (number + 1) + np.arange(lengths[number])
        whole = whole[::-1] if backwards else whole
        piece = text[place:place + len(whole)]
        assert (piece == whole[:len(piece)]).all()
        order.append(number)
        place += len(whole)
    return order


# -- language model --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("bs, bptt", [(1, 10), (4, 10), (7, 5), (16, 70), (50, 5)])
def test_an_epoch_is_the_shuffled_documents_one_after_the_other(backwards, bs, bptt):
    lengths = random_lengths(30)
    loader = language_model_loader(lengths, backwards=backwards, bs=bs, bptt=bptt)
    for epoch in range(3):
        batches = epoch_of(loader, epoch)
        assert len(batches) == loader.updates(epoch) == len(loader)
        inputs, targets = rows_joined(batches)
        assert inputs.shape == targets.shape == (bs, (lengths.sum() - 1) // bs)
        text = np.append(inputs.ravel(), targets[-1, -1])
        order = read_back(text, lengths, backwards)
        assert len(set(order)) == len(order) and order != sorted(order)
        # What does not fill a row is left out, less than a token a row.
        assert lengths.sum() - len(text) < bs
        np.testing.assert_array_equal(targets.ravel(), text[1:])


@pytest.mark.parametrize("backwards", [False, True])
def test_validation_is_in_order_with_fixed_pieces(backwards):
    lengths = [3, 1, 12, 7, 20, 5]
    loader = language_model_loader(lengths, backwards=backwards, bs=2, bptt=10, seed=None)
    for epoch in (0, 1):
        batches = epoch_of(loader, epoch)
        assert [inputs.shape[1] for inputs, _ in batches] == [10, 10, 3]
        assert all(inputs.dtype == targets.dtype == torch.int64 for inputs, targets in batches)
        inputs, targets = rows_joined(batches)
        assert read_back(np.append(inputs.ravel(), targets[-1, -1]), lengths, backwards) == [0, 1, 2, 3, 4, 5]
        np.testing.assert_array_equal(targets.ravel()[:-1], inputs.ravel()[1:])


def test_several_splits_and_rows_are_one_text():
    first, second = documents([4, 6, 2, 5]), documents([3, 8, 1], first=4, dtype=np.uint32)
    chosen = np.array([3, 1])
    for backwards in (False, True):
        stream = TextStream([(first, chosen), (second, None)], backwards)
        expected = [first[3], first[1], second[0], second[1], second[2]]
        expected = np.concatenate([text[::-1] if backwards else text for text in expected]).astype(np.int64)
        assert len(stream) == len(expected) == 23
        for start in range(len(stream)):
            for stop in range(start, len(stream) + 1):
                np.testing.assert_array_equal(stream.read(start, stop), expected[start:stop])
        stream.arrange(np.array([4, 0, 2, 3, 1]))
        assert stream.read(0, 3).tolist() == [7000, *(first[3][::-1] if backwards else first[3])[:2]]


def test_empty_documents_and_missing_splits_are_no_text():
    stream = TextStream([(documents([0, 2, 0, 0, 3, 0]), None)], False)
    assert stream.read(0, 5).tolist() == [2000, 2001, 5000, 5001, 5002] and stream.read(1, 3).tolist() == [2001, 5000]
    assert len(TextStream([], False)) == len(TextStream([(documents([]), None)], False)) == 0


@pytest.mark.parametrize("lengths", [[], [1]])
def test_a_text_without_anything_to_predict_is_refused(lengths):
    with pytest.raises(UserError, match=f"the training text has {sum(lengths)} tokens") as error:
        language_model_loader(lengths)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("seed", [3, None])
@pytest.mark.parametrize("tokens", [2, 3, 4, 5, 6, 9])
def test_a_text_smaller_than_the_batch_gives_fewer_rows(tokens, seed):
    batches = epoch_of(language_model_loader([tokens], bs=4, bptt=5, seed=seed), 0)
    inputs, targets = rows_joined(batches)
    rows = min(4, tokens - 1)
    assert inputs.shape == (rows, (tokens - 1) // rows)
    assert inputs.ravel().tolist() == list(range(STEP, STEP + inputs.size))
    assert (targets == inputs + 1).all()


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("epoch", [0, 4])
def test_a_loader_started_in_the_middle_goes_on_as_if_it_had_not_stopped(backwards, epoch):
    undisturbed = epoch_of(language_model_loader(backwards=backwards), epoch)
    assert len(undisturbed) > 8
    for batch in range(len(undisturbed) + 1):
        loader = language_model_loader(backwards=backwards)
        epoch_of(loader, 1)
        assert same(epoch_of(loader, epoch, batch), undisturbed[batch:])


def test_the_order_is_a_function_of_seed_and_epoch():
    first = epoch_of(language_model_loader(), 0)
    assert same(first, epoch_of(language_model_loader(), 0))
    for loader, epoch in ((language_model_loader(), 1), (language_model_loader(seed=4), 0)):
        other = epoch_of(loader, epoch)
        assert [x.shape for x, _ in other] != [x.shape for x, _ in first]
        assert (rows_joined(other)[0] != rows_joined(first)[0]).any()


@pytest.mark.parametrize("total", [1, 2, 4, 5, 6, 69, 70, 71, 1000])
@pytest.mark.parametrize("bptt", [5, 10, 70])
def test_variable_pieces_cover_the_text(total, bptt):
    for seed in range(50):
        lengths = bptt_lengths(total, bptt, np.random.default_rng(seed))
        assert lengths.sum() == total
        assert lengths[-1] >= 1 and (lengths[:-1] >= 5).all()


def test_variable_pieces_have_meritys_distribution():
    lengths = bptt_lengths(2_000_000, 70, np.random.default_rng(0))[:-1]
    # Half-way between the two means lies 3.5 standard deviations from each.
    short, long = lengths[lengths < 52.5], lengths[lengths >= 52.5]
    n = len(lengths)
    assert abs(len(short) / n - 0.05) < 5 * np.sqrt(0.05 * 0.95 / n)
    # Whole tokens are cut off, not rounded: half a token less on average.
    assert abs(long.mean() - 69.5) < 5 * 5 / np.sqrt(len(long)) and abs(long.std() - 5) < 0.2
    assert abs(short.mean() - 34.5) < 5 * 5 / np.sqrt(len(short)) and abs(short.std() - 5) < 0.5


def test_variable_pieces_are_at_least_5():
    lengths = bptt_lengths(100_000, 10, np.random.default_rng(0))[:-1]
    # N(10, 5) cut off below 6 is 5 or less with probability 0.212, N(5, 5) with 0.579.
    assert lengths.min() == 5 and (lengths == 5).mean() == pytest.approx(0.95 * 0.2119 + 0.05 * 0.5793, abs=0.02)


# -- classifier ------------------------------------------------------------------------------------------------------

def classifier_loader(lengths, rows=None, *, bs=4, bptt=7, backwards=False, seed=3) -> ClassifierLoader:
    return ClassifierLoader(documents(lengths, dtype=np.uint32), rows, bs=bs, bptt=bptt, backwards=backwards, seed=seed)


def texts_of(ids: torch.Tensor, lengths: torch.Tensor, bptt: int) -> list[np.ndarray]:
    """The documents of a batch; asserts that everything beside them is padding."""
    chunks = -(-ids.shape[1] // bptt)
    texts, rest = [], ids.numpy().copy()
    for row, length in enumerate(lengths.tolist()):
        begin = (chunks - -(-length // bptt)) * bptt
        texts.append(ids[row, begin:begin + length].numpy())
        rest[row, begin:begin + length] = PAD_ID
    assert (rest == PAD_ID).all()
    return texts


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("seed", [3, None])
def test_classifier_batches_hold_each_document_once_with_its_label(backwards, seed):
    lengths = random_lengths(45)
    rows = np.random.default_rng(1).permutation(45)[:30]
    for chosen in (None, rows):
        loader = classifier_loader(lengths, chosen, backwards=backwards, seed=seed)
        found = []
        for ids, counts, labels in loader:
            assert ids.dtype == counts.dtype == labels.dtype == torch.int64
            assert (counts.diff() <= 0).all()
            for text, label in zip(texts_of(ids, counts, 7), labels.tolist()):
                whole = loader.documents[label]
                np.testing.assert_array_equal(text, whole[::-1] if backwards else whole)
                found.append(label)
        assert sorted(found) == sorted(range(45) if chosen is None else rows.tolist())


@pytest.mark.parametrize("bs", [2, 3, 4, 5, 8, 32])
def test_every_epoch_covers_the_documents_without_a_batch_of_one(bs):
    # Pools are of 50 batches: 50 bs + 1 documents leave a pool of one.
    for count in [*range(2, 3 * bs + 3), 50 * bs - 1, 50 * bs, 50 * bs + 1, 50 * bs + 2, 100 * bs + 1]:
        loader = classifier_loader(random_lengths(count, seed=count), bs=bs)
        for epoch in (0, 1):
            batches = loader.batches(epoch)
            assert len(batches) == loader.updates(epoch)
            assert sorted(np.concatenate(batches)) == list(range(count))
            assert min(map(len, batches)) >= 2 and max(map(len, batches)) <= bs + 1
            assert loader.lengths[batches[0]].max() == loader.lengths.max()
            assert all((np.diff(loader.lengths[batch]) <= 0).all() for batch in batches)


@pytest.mark.parametrize("seed", [3, None])
@pytest.mark.parametrize("count, bs", [(2, 2), (3, 2), (9, 2), (33, 8), (34, 8), (5, 64)])
def test_updates_are_the_batches_really_yielded(count, bs, seed):
    loader = classifier_loader(random_lengths(count), bs=bs, seed=seed)
    for epoch in range(3):
        loader.start(epoch)
        assert len(list(loader)) == loader.updates(epoch) == len(loader)


def test_batches_are_of_similar_length():
    lengths = np.random.default_rng(0).integers(1, 1000, 2000)
    batches = sortish_batches(lengths, 20, np.random.default_rng(1))
    # Two pools of 50 batches: sorted as one, the same documents would always meet.
    pools = [set(pool) for pool in np.split(np.random.default_rng(1).permutation(2000), 2)]
    assert sum(set(batch) <= pools[0] for batch in batches) == sum(set(batch) <= pools[1] for batch in batches) == 50
    within = np.mean([lengths[batch].max() - lengths[batch].min() for batch in batches])
    assert within < 40
    # In random order after the first, not from long to short.
    longest = [lengths[batch].max() for batch in batches]
    assert abs(np.corrcoef(np.arange(len(longest)), longest)[0, 1]) < 0.3


def test_classifier_order_is_a_function_of_seed_and_epoch():
    lengths = random_lengths(60)

    def epoch(number: int, batch: int = 0, seed: int = 3) -> list:
        loader = classifier_loader(lengths, seed=seed)
        loader.start(number, batch)
        return list(loader)

    undisturbed = epoch(2)
    for batch in range(len(undisturbed) + 1):
        assert same(epoch(2, batch), undisturbed[batch:])
    for other in (epoch(1), epoch(2, seed=4)):
        assert not same(other, undisturbed)


# -- prediction ------------------------------------------------------------------------------------------------------

class FirstToken(torch.nn.Module):
    """Gives every document the number in its first token as logit, and 0 beside it."""

    def forward(self, ids, lengths):
        chunks = -(-ids.shape[1] // 7)
        begin = (chunks - -(-lengths // 7)) * 7
        numbers = ids[torch.arange(len(ids)), begin].float() / STEP
        return torch.stack([numbers, torch.zeros_like(numbers)], dim=1), None, None


@pytest.mark.parametrize("bs", [1, 4, 64])
def test_predictions_come_back_in_the_documents_own_order(bs):
    lengths = random_lengths(23)
    for rows in (None, np.array([20, 3, 11, 4, 5])):
        loader = classifier_loader(lengths, rows, bs=bs, seed=None)
        probabilities = training.predict(FirstToken(), loader, torch.device("cpu"))
        numbers = 1.0 + (np.arange(23) if rows is None else rows)
        assert probabilities.dtype == np.float64
        np.testing.assert_allclose(np.log(probabilities[:, 0] / probabilities[:, 1]), numbers, atol=0.05, rtol=0.05)
        counts = [count for _, batch, _ in loader for count in batch.tolist()]
        assert counts == sorted(loader.lengths.tolist(), reverse=True)


def test_in_document_order_undoes_the_sorting():
    loader = classifier_loader([3, 9, 1, 9, 4], bs=2, seed=None)
    parts = [torch.stack([labels.float(), -labels.float()], dim=1) for _, _, labels in loader]
    np.testing.assert_array_equal(training.in_document_order(parts, loader), [[i, -i] for i in range(5)])


# -- training subsets ------------------------------------------------------------------------------------------------

def split_of_train() -> Documents:
    """Rows 0, 2, 5 and 10 of train.csv; the others were set aside."""
    return Documents(Path(), "train", np.arange(8), np.arange(0, 9, 2), np.zeros(4, dtype=np.int16),
                     ["train:0", "train:2", "train:5", "train:10"])


@pytest.mark.parametrize("text, expected", [("10\n2\n", [1, 3]), ("0", [0]), ("5\r\n0\r\n", [0, 2]), (" 10 \n", [3])])
def test_a_subset_is_rows_of_train_csv(tmp_path, text, expected):
    path = tmp_path / "few.txt"
    path.write_text(text, encoding="utf-8", newline="")
    assert read_subset(path, split_of_train()).tolist() == expected


@pytest.mark.parametrize("content, said", [
    (b"0\n1\n", "line 2: '1' is not a row"), (b"0\n\n2\n", "line 2: '' is not a row"), (b"11", "line 1: '11' is not"),
    (b"-1", "line 1: '-1' is not"), (b"2.0", "line 1: '2.0' is not"), (b"row\n0", "line 1: 'row' is not"),
    (b"0\n5\n0\n", "line 3: row 0 stands there twice"), (b"", "names no document"),
    (b"0\n\xff2\n", "line 2: "), ("٢".encode(), "line 1: ")])
def test_a_wrong_subset_is_refused_with_the_line(tmp_path, content, said):
    path = tmp_path / "few.txt"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_subset(path, split_of_train())
    assert said in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)


# -- progress --------------------------------------------------------------------------------------------------------

def test_the_meter_speaks_every_few_seconds_of_what_was_done_here(monkeypatch, capsys):
    clock = [100.0]
    monkeypatch.setattr(training.time, "monotonic", lambda: clock[0])
    meter = training.Meter("epoch 1/2 training", "tokens", batches=50, done=10, quiet=False)
    shown = []
    for _ in range(20):
        clock[0] += 1
        meter.add(300, lambda: shown.append(clock[0]) or "  loss 1.5")
    assert shown == [110, 120]  # On a GPU a loss that nobody sees would be waited for.
    # After 10 and 20 seconds: 20 and 30 of 50 batches, of which 10 were done before; a batch a second.
    assert capsys.readouterr().out.splitlines() == [
        "  epoch 1/2 training 20/50  loss 1.5  300 tokens/s  30 s left",
        "  epoch 1/2 training 30/50  loss 1.5  300 tokens/s  20 s left"]


def test_a_quiet_meter_says_nothing(monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(training.time, "monotonic", lambda: clock[0])
    meter = training.Meter("predicting", "documents", batches=3, done=0, quiet=True)
    for _ in range(3):
        clock[0] += 60
        meter.add(8)
    assert capsys.readouterr().out == ""
