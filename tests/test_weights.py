"""Weights on disk: what is saved comes back bit for bit, and what does not fit is refused in one line."""

import errno
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import flow
from ulmfit import models, weights
from ulmfit.errors import UserError
from ulmfit.vocab import vocab_fingerprint

torch.set_num_threads(1)
SIZES = {"emb_sz": 6, "n_hid": 8, "n_layers": 3}
WORDS = ["xxunk", "xxpad", "xxbos", "the", "film", "was", "good"]
MARK = vocab_fingerprint(WORDS)
FACTS = {"kind": "language_model", "sizes": SIZES, "vocab_size": len(WORDS), "vocab_fingerprint": MARK}


def language_model(seed: int = 1, vocab_size: int = len(WORDS), **sizes) -> torch.nn.Module:
    torch.manual_seed(seed)
    model = models.language_model(vocab_size, **{**SIZES, **sizes}, dropmult=1.0)
    # Away from its initial zeros, so that a bias that got lost shows.
    torch.nn.init.normal_(model[1].decoder.bias)
    return model


def classifier(seed: int = 2, vocab_size: int = len(WORDS), **sizes) -> models.TextClassifier:
    torch.manual_seed(seed)
    return models.classifier(vocab_size, 3, **{**SIZES, **sizes}, bptt=5, max_len=10, dropmult=1.0)


def model_folder(folder: Path, model: torch.nn.Module, words: list[str] = WORDS) -> Path:
    folder.mkdir(exist_ok=True)
    weights.save(model, folder / weights.WEIGHTS, FACTS)
    (folder / "vocab.json").write_text(json.dumps(words), encoding="utf-8")
    return folder


def same_bits(left: dict, right: dict) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


# -- round trip ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("make", [language_model, classifier])
def test_what_is_saved_comes_back_bit_for_bit(tmp_path, make):
    saved, other = make(seed=1), make(seed=7)
    digest = weights.save(saved, tmp_path / "w.safetensors", FACTS)
    assert not same_bits(saved.state_dict(), other.state_dict())
    weights.load_whole(other, tmp_path / "w.safetensors")
    assert same_bits(saved.state_dict(), other.state_dict())
    assert weights.facts(tmp_path / "w.safetensors") == FACTS
    assert weights.save(other, tmp_path / "again.safetensors", FACTS) == digest
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "w.safetensors").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"w.safetensors", "again.safetensors"}


def test_a_full_disk_is_an_os_error_and_leaves_nothing(tmp_path):
    model = language_model()
    paths = [tmp_path / name for name in ("m.pth", "m.pkl", "m_encoder.pth")]
    for write in (lambda: weights.save(model, tmp_path / "w.safetensors", FACTS),
                  lambda: weights.export(model, WORDS, *paths)):
        # Cut off in the header, in a tensor, at the end.
        for size in (0, 100, 1000, 4000):
            with flow.full_disk(size), pytest.raises(OSError) as caught:
                write()
            assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(tmp_path))
            assert list(tmp_path.iterdir()) == []


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path):
    model = language_model()
    weights.save(model, tmp_path / "w.safetensors", FACTS)
    stored = load_file(tmp_path / "w.safetensors")
    assert [name for name in weights.EMBEDDING if name in stored] == [weights.EMBEDDING[0]]
    other = language_model(seed=7)
    weights.load_whole(other, tmp_path / "w.safetensors")
    assert other[1].decoder.weight is other[0].encoder.weight is other[0].encoder_dp.emb.weight
    torch.testing.assert_close(other[1].decoder.weight, model[0].encoder.weight, rtol=0, atol=0)


def test_a_loaded_model_computes_the_same(tmp_path):
    saved, other = language_model(), language_model(seed=7)
    weights.save(saved, tmp_path / "w.safetensors", FACTS)
    weights.load_whole(other, tmp_path / "w.safetensors")
    x = torch.arange(6)[None]
    for model in (saved, other):
        model.eval()
        model.reset()
    assert torch.equal(saved(x)[0], other(x)[0])


def test_the_same_weights_are_the_same_bytes_in_every_process(tmp_path):
    script = ("import sys, torch\n"
              "from ulmfit import models, weights\n"
              "torch.set_num_threads(1)\n"
              "torch.manual_seed(1)\n"
              "model = models.language_model(7, emb_sz=6, n_hid=8, n_layers=3, dropmult=1.0)\n"
              "weights.save(model, sys.argv[1], {name: 1 for name in 'the quick brown fox jumps'.split()})\n")
    library = str(Path(weights.__file__).parents[1])
    found = []
    for seed in ("1", "2"):
        path = tmp_path / f"{seed}.safetensors"
        subprocess.run([sys.executable, "-c", script, str(path)], check=True,
                       env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": library})
        found.append(path.read_bytes())
    assert found[0] == found[1]


# -- refusals --------------------------------------------------------------------------------------------------------

def refused(call, *arguments) -> str:
    with pytest.raises(UserError) as error:
        call(*arguments)
    message = str(error.value)
    assert "\n" not in message
    return message


def spoil(path: Path, how: str) -> None:
    whole = path.read_bytes()
    if how == "cut off":
        path.write_bytes(whole[:-10])
    elif how == "cut off in the header":
        path.write_bytes(whole[:40])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "pickle":
        path.write_bytes(pickle.dumps({"0.encoder.weight": [1.0]}))
    elif how == "torch.save":
        torch.save({"0.encoder.weight": torch.ones(2)}, path)
    elif how == "no header of ours":
        save_file({"0.encoder.weight": torch.ones(2)}, str(path))
    elif how == "another header":
        save_file({"0.encoder.weight": torch.ones(2)}, str(path), metadata={"format": "pt"})
    elif how == "missing":
        path.unlink()


@pytest.mark.parametrize("how", ["cut off", "cut off in the header", "empty", "pickle", "torch.save", "missing",
                                 "no header of ours", "another header"])
def test_files_that_are_no_weights_of_ours_are_refused_in_one_line(tmp_path, how):
    folder = model_folder(tmp_path / "lm", language_model())
    spoil(folder / weights.WEIGHTS, how)
    said = "header of this project" if "header" in how and "cut" not in how else "cannot be read as safetensors"
    for message in (refused(weights.facts, folder / weights.WEIGHTS),
                    refused(weights.load_whole, language_model(), folder / weights.WEIGHTS),
                    refused(weights.load_encoder, classifier(), folder, MARK),
                    refused(weights.load_pretrained, folder, WORDS)):
        assert said in message and str(folder / weights.WEIGHTS) in message


@pytest.mark.parametrize("other", [{"vocab_size": 8}, {"emb_sz": 5}, {"n_hid": 9}, {"n_layers": 2}, {"n_layers": 4}])
def test_load_whole_refuses_another_model(tmp_path, other):
    path = tmp_path / "w.safetensors"
    weights.save(language_model(), path, FACTS)
    assert "does not fit this model" in refused(weights.load_whole, language_model(**other), path)
    assert "does not fit this model" in refused(weights.load_whole, classifier(), path)


def test_load_encoder_copies_the_language_models_encoder_exactly(tmp_path):
    lm, clas = language_model(), classifier()
    head = {name: tensor.clone() for name, tensor in clas[1].state_dict().items()}
    weights.load_encoder(clas, model_folder(tmp_path / "lm", lm), MARK)
    assert same_bits(clas[0].module.state_dict(), lm[0].state_dict())
    assert same_bits(clas[1].state_dict(), head)
    assert clas[0].module.encoder.weight is clas[0].module.encoder_dp.emb.weight
    # The states of a document are the language model's.
    text = torch.tensor([[2, 3, 4, 5, 6]])
    clas.eval()
    lm.eval()
    lm.reset()
    states, _ = clas[0]((text, torch.tensor([5])))
    torch.testing.assert_close(states, lm[0](text), rtol=0, atol=0)


@pytest.mark.parametrize("other, named", [
    ({"emb_sz": 5}, "encoder.weight"), ({"vocab_size": 8}, "encoder.weight"),
    ({"n_hid": 9}, "rnns.0"), ({"n_layers": 4}, "rnns.2"), ({"n_layers": 2}, "rnns.1")])
def test_load_encoder_refuses_other_sizes(tmp_path, other, named):
    clas = classifier(**other)
    before = {name: tensor.clone() for name, tensor in clas.state_dict().items()}
    message = refused(weights.load_encoder, clas, model_folder(tmp_path / "lm", language_model()), MARK)
    assert named in message
    assert same_bits(clas.state_dict(), before)


@pytest.mark.parametrize("n_layers, said", [(2, "holds rnns.2"), (4, "lacks rnns.3")])
def test_load_encoder_counts_layers_where_all_sizes_are_equal(tmp_path, n_layers, said):
    folder = model_folder(tmp_path / "lm", language_model(emb_sz=8))
    assert said in refused(weights.load_encoder, classifier(emb_sz=8, n_layers=n_layers), folder, MARK)


def test_load_encoder_refuses_another_vocabulary(tmp_path):
    message = refused(weights.load_encoder, classifier(), model_folder(tmp_path / "lm", language_model()), "f2")
    assert "another vocabulary" in message and MARK in message and "f2" in message


# -- another vocabulary ----------------------------------------------------------------------------------------------

def test_match_vocabulary_takes_rows_by_word_and_the_mean_for_the_others():
    lm = language_model()
    tensors = {name: tensor.clone() for name, tensor in lm.state_dict().items()}
    new = ["xxunk", "xxpad", "good", "actor", "the", "plot", "xxbos", "was", "scene"]
    matched, counts = weights.match_vocabulary(tensors, WORDS, new)
    assert counts == {"matched": 6, "filled": 3}
    old, bias = lm[0].encoder.weight.detach(), lm[1].decoder.bias.detach()
    for row, word in enumerate(new):
        vector, value = (old[WORDS.index(word)], bias[WORDS.index(word)]) if word in WORDS else (old.mean(0),
                                                                                                bias.mean())
        for name in weights.EMBEDDING:
            assert torch.equal(matched[name][row], vector)
        assert torch.equal(matched["1.decoder.bias"][row], value)
    untouched = tensors.keys() - {*weights.EMBEDDING, "1.decoder.bias"}
    assert untouched and all(torch.equal(matched[name], tensors[name]) for name in untouched)
    model = language_model(seed=7, vocab_size=len(new))
    model.load_state_dict(matched)
    assert model[1].decoder.weight is model[0].encoder.weight


def test_match_vocabulary_leaves_the_given_tensors_as_they_are():
    tensors = language_model().state_dict()
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    weights.match_vocabulary(tensors, WORDS, WORDS[::-1])
    assert same_bits(tensors, before)


def test_the_same_vocabulary_gives_the_same_weights(tmp_path):
    lm = language_model()
    tensors, counts = weights.load_pretrained(model_folder(tmp_path / "lm", lm), WORDS)
    assert counts == {"matched": len(WORDS), "filled": 0}
    assert same_bits(tensors, dict(lm.state_dict()))


def test_pretrained_weights_are_arranged_for_the_datasets_words(tmp_path):
    lm = language_model()
    tensors, counts = weights.load_pretrained(model_folder(tmp_path / "lm", lm), ["film", "xxunk", "new"])
    assert counts == {"matched": 2, "filled": 1}
    old = lm[0].encoder.weight.detach()
    torch.testing.assert_close(tensors["1.decoder.weight"], torch.stack([old[4], old[0], old.mean(0)]), rtol=0, atol=0)


@pytest.mark.parametrize("words", [WORDS[:-1], WORDS[::-1]], ids=["fewer", "another order"])
def test_a_vocabulary_of_another_model_is_refused(tmp_path, words):
    folder = model_folder(tmp_path / "lm", language_model(), words)
    said = f"{folder / 'vocab.json'} is not the vocabulary that {folder} was made with"
    assert said in refused(weights.load_pretrained, folder, WORDS)
    assert said in refused(weights.vocabulary, folder)
    assert weights.vocabulary(model_folder(folder, language_model())) == WORDS
