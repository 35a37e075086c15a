"""Language models of fastai's earlier generations, made in their true layout: rows by word, aliases, refusals; and the
way back, by what stock fastai makes of an exported model."""

import io
import json
import pickle
import tarfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from fastai.imports import L
from safetensors.torch import load_file

import flow
from ulmfit import foreign_weights, models, weights
from ulmfit.errors import UsageError, UserError
from ulmfit.names import DataFolder

torch.set_num_threads(1)
OLD_VOCAB = ["_unk_", "_pad_", "xbos", "xfld", "t_up", "tk_rep", "tk_wrep", "the", "film", "was", "story"]
NEW_VOCAB = ["xxunk", "xxpad", "xxbos", "xxeos", "xxfld", "xxrep", "xxwrep", "xxup", "xxmaj", "the", "film", "story",
             "xxfake", "xxfake"]
OURS = ["xxunk", "xxpad", "xxbos", "xxeos", "xxfld", "xxrep", "xxwrep", "xxup", "xxmaj", "film", "zebra", "the", "t_up",
        "xxfake"]
EMB, HID, LAYERS = 6, 8, 3
SIZES = {"emb_sz": EMB, "n_hid": HID, "n_layers": LAYERS}


# -- files as each generation wrote them -------------------------------------------------------------------------------

def lstm_tensors(emb=EMB, hid=HID, layers=LAYERS) -> list[dict[str, torch.Tensor]]:
    tensors = []
    for layer in range(layers):
        inputs, outputs = emb if layer == 0 else hid, emb if layer == layers - 1 else hid
        shapes = {"weight_ih_l0": (4 * outputs, inputs), "bias_ih_l0": (4 * outputs,), "bias_hh_l0": (4 * outputs,),
                  "weight_hh_l0_raw": (4 * outputs, outputs)}
        tensors.append({name: torch.randn(shape) for name, shape in shapes.items()})
    return tensors


def state_07(rows: int, emb=EMB, hid=HID, layers=LAYERS) -> OrderedDict:
    """0.7's names in its order: the raw recurrent weights come last and inside `module`; the decoder has no bias."""
    embedding = torch.randn(rows, emb)
    state = OrderedDict({"0.encoder.weight": embedding, "0.encoder_with_dropout.embed.weight": embedding})
    for layer, tensors in enumerate(lstm_tensors(emb, hid, layers)):
        state.update({f"0.rnns.{layer}.module.{name}": tensor for name, tensor in tensors.items()})
    state["1.decoder.weight"] = embedding
    return state


def state_v2(rows: int, v1: bool = False) -> OrderedDict:
    """v2's names in its order; v1 also saved the recurrent weights as dropout had left them."""
    embedding = torch.randn(rows, EMB)
    state = OrderedDict({"0.encoder.weight": embedding, "0.encoder_dp.emb.weight": embedding.clone()})
    for layer, tensors in enumerate(lstm_tensors()):
        state[f"0.rnns.{layer}.weight_hh_l0_raw"] = tensors.pop("weight_hh_l0_raw")
        state.update({f"0.rnns.{layer}.module.{name}": tensor for name, tensor in tensors.items()})
        if v1:
            state[f"0.rnns.{layer}.module.weight_hh_l0"] = torch.zeros(1)
    state.update({"1.decoder.weight": embedding.clone(), "1.decoder.bias": torch.randn(rows)})
    return state


class TensorOf2018(torch.Tensor):
    """Pickled as torch 0.3 did: by `_rebuild_tensor`, which knew neither strides' hooks nor requires_grad."""

    def __reduce_ex__(self, protocol):
        plain = self.as_subclass(torch.Tensor)
        storage = torch.storage.TypedStorage(wrap_storage=plain.untyped_storage(), dtype=plain.dtype, _internal=True)
        return torch._utils._rebuild_tensor, (storage, plain.storage_offset(), tuple(plain.size()), plain.stride())


def write_07(folder: Path, way: str = "fwd", model_id: str = "wt103", words=OLD_VOCAB, state=None, vocab_dir=None):
    """As saved from a GPU by torch 0.3."""
    folder.mkdir(parents=True, exist_ok=True)
    state = state_07(len(words)) if state is None else state
    old = {id(tensor): tensor.as_subclass(TensorOf2018) for tensor in state.values()}
    content = io.BytesIO()
    torch.save(OrderedDict((name, old[id(tensor)]) for name, tensor in state.items()), content,
               _use_new_zipfile_serialization=False)
    on_gpu = content.getvalue()
    for was, became in ((b"torch\nFloatStorage", b"torch.cuda\nFloatStorage"),
                        (b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")):
        assert was in on_gpu
        on_gpu = on_gpu.replace(was, became)
    (folder / f"{way}_{model_id}.h5").write_bytes(on_gpu)
    write_words(vocab_dir or folder, words, f"itos_{model_id}.pkl")
    return state


def write_words(folder: Path, words, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(pickle.dumps(words))
    return folder / name


def write_pair(folder: Path, name="wt103-fwd", words_name=None, words=NEW_VOCAB, state=None, wrapped=None) -> dict:
    folder.mkdir(parents=True, exist_ok=True)
    state = state_v2(len(words)) if state is None else state
    torch.save(state if wrapped is None else wrapped(state), folder / f"{name}.pth")
    write_words(folder, words, words_name or f"{name}.pkl")
    return state


def write_archive(folder: Path, way="fwd", names=None, state=None, words=NEW_VOCAB) -> dict:
    """wt103-fwd.tgz with a folder inside, as published."""
    state = state_v2(len(words)) if state is None else state
    weights_file = io.BytesIO()
    torch.save(state, weights_file)
    members = dict(zip(names or (f"wt103-{way}/lstm_{way}.pth", f"wt103-{way}/itos_wt103.pkl"),
                       (weights_file.getvalue(), pickle.dumps(words))))
    write_tgz(folder / f"wt103-{way}.tgz", members)
    return state


def write_tgz(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def read(folder: Path, backwards=False, model_id="wt103") -> foreign_weights.ForeignModel:
    return foreign_weights.find(folder, backwards, model_id).read()


def refused(folder: Path, backwards=False, model_id="wt103") -> str:
    with pytest.raises(UserError) as error:
        read(folder, backwards, model_id)
    message = str(error.value)
    assert "\n" not in message and len(message) < 400
    assert str(folder) in message
    return message


def check_lstm(model: foreign_weights.ForeignModel, state: dict) -> None:
    """Every LSTM tensor is the one of its own name."""
    raw = {name: tensor for name, tensor in state.items()
           if name.startswith("0.rnns") and not name.endswith(".weight_hh_l0")}
    assert len(raw) == 4 * LAYERS
    for name, tensor in raw.items():
        ours = name.replace(".module.weight_hh_l0_raw", ".weight_hh_l0_raw")
        assert torch.equal(model.tensors[ours], tensor), name


# -- what is read ------------------------------------------------------------------------------------------------------

def test_07_is_read_by_name_with_its_special_tokens_and_no_bias(tmp_path):
    state = write_07(tmp_path)
    model = read(tmp_path)
    assert (model.generation, model.sizes, model.words) == ("fastai 0.7", SIZES, OLD_VOCAB)
    check_lstm(model, state)
    tensors, counts = model.arranged(OURS)
    old = state["0.encoder.weight"]
    aliases = {"xxunk": "_unk_", "xxpad": "_pad_", "xxbos": "xbos", "xxfld": "xfld", "xxup": "t_up", "xxrep": "tk_rep",
               "xxwrep": "tk_wrep"}
    for row, word in enumerate(OURS):
        word = aliases.get(word, word)
        # A t_up in today's text is a word that the old vocabulary never saw: there it meant capitals.
        known = word in OLD_VOCAB and OURS[row] != "t_up"
        expected = old[OLD_VOCAB.index(word)] if known else old.mean(0)
        for name in weights.EMBEDDING:
            assert torch.equal(tensors[name][row], expected), OURS[row]
    assert torch.equal(tensors["1.decoder.bias"], torch.zeros(len(OURS)))
    assert counts == {"matched": 9, "filled": 5, "aliased": 7}
    models.language_model(len(OURS), **SIZES, dropmult=1.0).load_state_dict(tensors)


@pytest.mark.parametrize("write", ["archive", "pair", "pair of v1", "first pair of v1", "with optimizer", "L"])
def test_v1_and_v2_are_read_in_every_form(tmp_path, write):
    words, state = NEW_VOCAB, state_v2(len(NEW_VOCAB), v1="v1" in write)
    if write == "archive":
        write_archive(tmp_path, state=state)
    elif write == "pair":
        write_pair(tmp_path / "models", state=state)
    elif write == "pair of v1":
        write_pair(tmp_path, "lstm_fwd", "itos_wt103.pkl", state=state)
    elif write == "first pair of v1":
        write_pair(tmp_path, "lstm_wt103", "itos_wt103.pkl", state=state)
    elif write == "with optimizer":
        # v2's state: fastcore lists, numpy scalars and tensors.
        hypers = L({"lr": np.float64(0.1), "mom": np.float32(0.9)}, {"lr": np.float64(0.2)})
        write_pair(tmp_path, state=state, wrapped=lambda state: {
            "model": state, "opt": {"state": [{"grad_avg": torch.ones(2), "step": 3}], "hypers": hypers}})
    else:
        write_pair(tmp_path, state=state, words=L(words))
    model = read(tmp_path)
    assert (model.sizes, model.words) == (SIZES, NEW_VOCAB)
    assert model.generation == ("fastai v1/v2 archive" if write == "archive" else "fastai v1/v2 pair")
    check_lstm(model, state)
    tensors, counts = model.arranged(OURS)
    old, bias = state["0.encoder.weight"], state["1.decoder.bias"]
    for row, word in enumerate(OURS):
        known = word in NEW_VOCAB and word != "xxfake"  # the rows that pad v2's vocabulary belong to no word
        place = NEW_VOCAB.index(word) if known else None
        assert torch.equal(tensors["0.encoder.weight"][row], old[place] if known else old.mean(0)), word
        assert torch.equal(tensors["1.decoder.bias"][row], bias[place] if known else bias.mean()), word
    assert counts == {"matched": 11, "filled": 3, "aliased": 0}
    models.language_model(len(OURS), **SIZES, dropmult=1.0).load_state_dict(tensors)


def test_the_decoder_may_be_left_out_and_half_precision_becomes_single(tmp_path):
    state = state_v2(len(NEW_VOCAB))
    halves = OrderedDict((name, tensor.half()) for name, tensor in state.items() if name != "1.decoder.weight")
    write_pair(tmp_path, state=halves)
    tensors = read(tmp_path).tensors
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert torch.equal(tensors["1.decoder.weight"], halves["0.encoder.weight"].float())


def test_a_model_of_one_layer(tmp_path):
    write_07(tmp_path, state=state_07(len(OLD_VOCAB), layers=1))
    assert read(tmp_path).sizes == {"emb_sz": EMB, "n_hid": EMB, "n_layers": 1}


# -- which files -------------------------------------------------------------------------------------------------------

def test_each_direction_has_files_of_its_own(tmp_path):
    states = {way: write_07(tmp_path / "old", way) for way in ("fwd", "bwd")}
    states |= {f"tgz {way}": write_archive(tmp_path / "new", way) for way in ("fwd", "bwd")}
    for backwards, way in ((False, "fwd"), (True, "bwd")):
        check_lstm(read(tmp_path / "old", backwards), states[way])
        check_lstm(read(tmp_path / "new", backwards), states[f"tgz {way}"])


@pytest.mark.parametrize("name", ["lstm_wt103", "lstm_fwd", "wt103-fwd"])
def test_forward_files_are_never_taken_backwards(tmp_path, name):
    write_pair(tmp_path, name, "itos_wt103.pkl")
    write_words(tmp_path, NEW_VOCAB, "wt103-fwd.pkl")
    assert foreign_weights.find(tmp_path, False, "wt103") is not None
    assert foreign_weights.find(tmp_path, True, "wt103") is None


def test_a_renamed_archive_of_the_other_direction_is_refused(tmp_path):
    write_archive(tmp_path, "bwd", names=("lstm_fwd.pth", "itos_wt103.pkl"))
    assert "lstm_fwd.pth, of the other direction" in refused(tmp_path, backwards=True)


def test_the_folders_of_the_2018_scripts(tmp_path):
    state = write_07(tmp_path / "models", vocab_dir=tmp_path / "tmp")
    check_lstm(read(tmp_path), state)


def test_several_generations_are_refused_and_named(tmp_path):
    write_07(tmp_path)
    write_archive(tmp_path)
    message = refused(tmp_path)
    assert "wt103-fwd.tgz (fastai v1/v2 archive)" in message and "fwd_wt103.h5 (fastai 0.7)" in message
    # Backwards there is none at all.
    assert foreign_weights.find(tmp_path, True, "wt103") is None


def test_weights_without_their_vocabulary_are_refused(tmp_path):
    write_07(tmp_path)
    (tmp_path / "itos_wt103.pkl").unlink()
    assert "no vocabulary beside it" in refused(tmp_path) and "itos_wt103.pkl" in refused(tmp_path)


def test_nothing_there_is_no_error_of_its_own(tmp_path):
    assert foreign_weights.find(tmp_path, False, "wt103") is None
    assert foreign_weights.find(tmp_path / "absent", False, "wt103") is None


def test_inputs_are_known_by_their_bytes(tmp_path):
    state = write_07(tmp_path)
    found = foreign_weights.find(tmp_path, False, "wt103")
    first = found.inputs()
    assert {name: given.path for name, given in first.items()} == {"pretrained": "fwd_wt103.h5",
                                                                  "pretrained_vocab": "itos_wt103.pkl"}
    write_07(tmp_path, state=state, words=OLD_VOCAB[:-1] + ["plot"])
    second = found.inputs()
    assert second["pretrained"] == first["pretrained"] and second["pretrained_vocab"] != first["pretrained_vocab"]
    write_archive(tmp_path / "new")
    assert list(foreign_weights.find(tmp_path / "new", False, "wt103").inputs()) == ["pretrained"]


# -- refusals ----------------------------------------------------------------------------------------------------------

class Evil:
    """Makes a file when it is unpickled without care."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_that_would_run_code_runs_nothing(tmp_path):
    made = tmp_path / "made"
    for number, content in enumerate([Evil(made), ["the", Evil(made)]]):
        folder = tmp_path / f"words{number}"
        write_07(folder)
        write_words(folder, content, "itos_wt103.pkl")
        assert "io.open, which could run code" in refused(folder)
    for number, legacy in enumerate([False, True]):
        folder = tmp_path / f"weights{number}"
        write_07(folder)
        torch.save({**state_07(len(OLD_VOCAB)), "more": Evil(made)}, folder / "fwd_wt103.h5",
                   _use_new_zipfile_serialization=not legacy)
        assert "open, which could run code" in refused(folder)
    write_pair(tmp_path / "opt", wrapped=lambda state: {"model": state, "opt": Evil(made)})
    assert "could run code" in refused(tmp_path / "opt")
    assert not made.exists()
    pickle.loads(pickle.dumps(Evil(made))).close()
    assert made.exists()


@pytest.mark.parametrize("rows", [-1, 1])
def test_another_number_of_words_than_rows_is_refused(tmp_path, rows):
    write_07(tmp_path, state=state_07(len(OLD_VOCAB) + rows))
    message = refused(tmp_path)
    assert "11 words" in message and f"{11 + rows} rows" in message


@pytest.mark.parametrize("content, said", [
    ({"the": 0}, "holds a dict"), (["the", 3], "entry 1 (from 0) is a int"), ([b"the"], "entry 0 (from 0) is a bytes"),
    (OrderedDict(), "collections.OrderedDict")])
def test_a_vocabulary_that_is_no_list_of_words_is_refused(tmp_path, content, said):
    write_07(tmp_path)
    write_words(tmp_path, content, "itos_wt103.pkl")
    assert said in refused(tmp_path) and "itos_wt103.pkl" in refused(tmp_path)


@pytest.mark.parametrize("gone", ["0.encoder.weight", "0.rnns.0.module.weight_hh_l0_raw",
                                  "0.rnns.1.module.weight_ih_l0", "0.rnns.2.module.bias_hh_l0"])
def test_a_missing_tensor_is_named(tmp_path, gone):
    state = state_07(len(OLD_VOCAB))
    del state[gone]
    write_07(tmp_path, state=state)
    assert f"lacks {gone.replace('0.module.weight_hh', '0.weight_hh')}" in refused(tmp_path)


@pytest.mark.parametrize("name, value, said", [
    ("1.decoder.weight", torch.ones(11, EMB), "only models with tied weights"),
    ("0.rnns.1.module.weight_ih_l0", torch.ones(4 * HID, HID + 1), "is (32, 9); expected (32, 8)"),
    ("0.rnns.0.module.weight_ih_l0_reverse", torch.ones(1), "which an AWD-LSTM language model lacks"),
    ("1.decoder.bias", torch.ones(3), "1.decoder.bias is (3,); expected (11,)"),
    ("0.encoder.weight", torch.ones(11), "has 1 dimensions"),
    ("0.encoder.weight", torch.ones(11, EMB, dtype=torch.int64), "not a dense tensor of floats"),
    ("0.rnns.0.module.bias_ih_l0", "text", "not a dense tensor of floats")])
def test_another_model_is_refused_by_the_tensor_that_differs(tmp_path, name, value, said):
    write_words(tmp_path, OLD_VOCAB, "itos_wt103.pkl")
    torch.save({**state_07(len(OLD_VOCAB)), name: value}, tmp_path / "fwd_wt103.h5")
    assert said in refused(tmp_path)


def test_what_is_no_dictionary_of_weights_is_refused(tmp_path):
    write_07(tmp_path)
    torch.save([torch.ones(2)], tmp_path / "fwd_wt103.h5")
    assert "holds a list" in refused(tmp_path)


@pytest.mark.parametrize("kept", [0, 1, 20, 0.5, 0.99])
def test_files_that_are_cut_off_are_refused(tmp_path, kept):
    def cut(path: Path) -> None:
        whole = path.read_bytes()
        path.write_bytes(whole[:kept if isinstance(kept, int) else int(len(whole) * kept)])

    write_07(tmp_path / "old")
    write_pair(tmp_path / "pair")
    write_archive(tmp_path / "archive")
    write_07(tmp_path / "words")
    for folder, name in (("old", "fwd_wt103.h5"), ("pair", "wt103-fwd.pth"), ("archive", "wt103-fwd.tgz"),
                         ("words", "itos_wt103.pkl")):
        cut(tmp_path / folder / name)
        assert "cannot be read" in refused(tmp_path / folder) and name in refused(tmp_path / folder)


def test_an_hdf5_file_is_told_apart(tmp_path):
    write_07(tmp_path)
    (tmp_path / "fwd_wt103.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(2048))
    assert "is an HDF5 file" in refused(tmp_path)


def test_archives_are_read_without_writing_and_hold_one_of_each(tmp_path):
    state = state_v2(len(NEW_VOCAB))
    write_archive(tmp_path / "a", names=("../../lstm_fwd.pth", "/etc/itos_wt103.pkl"), state=state)
    before = sorted(tmp_path.rglob("*"))
    check_lstm(read(tmp_path / "a"), state)
    assert sorted(tmp_path.rglob("*")) == before
    write_tgz(tmp_path / "b/wt103-fwd.tgz", {"one.pth": b"1", "two.pth": b"2", "itos.pkl": b"3"})
    assert "holds one.pth and two.pth" in refused(tmp_path / "b")
    write_tgz(tmp_path / "c/wt103-fwd.tgz", {"lstm_fwd.pth": b"1"})
    assert "holds no *.pkl" in refused(tmp_path / "c")


def test_links_in_an_archive_are_not_followed(tmp_path):
    write_pair(tmp_path / "real")
    (tmp_path / "linked").mkdir()
    with tarfile.open(tmp_path / "linked/wt103-fwd.tgz", "w:gz") as tar:
        for suffix, kind in ((".pth", tarfile.SYMTYPE), (".pkl", tarfile.LNKTYPE)):
            link = tarfile.TarInfo(f"wt103-fwd{suffix}")
            link.type, link.linkname = kind, str(tmp_path / f"real/wt103-fwd{suffix}")
            tar.addfile(link)
    assert "holds no *.pth" in refused(tmp_path / "linked")


def test_a_member_larger_than_any_model_is_not_unpacked(tmp_path):
    member = tarfile.TarInfo("lstm_fwd.pth")
    member.size = 2**40
    with tarfile.open(tmp_path / "wt103-fwd.tgz", "w:gz") as tar:
        tar.fileobj.write(member.tobuf())
    assert "1,099,511,627,776 bytes" in refused(tmp_path)


# -- by command line ---------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    base = tmp_path_factory.mktemp("foreign")
    flow.write_corpus(base / "imdb")
    flow.call("create_toks", dir_path=str(base / "imdb"), results_dir=str(base / "results"), workers=1)
    flow.call("tok2id", dir_path=str(base / "imdb"), results_dir=str(base / "results"))
    return base


def tune(corpus: Path, pretrain_path: Path, lm_id: str, **flags) -> dict:
    """finetune_lm --notrain in this process; returns its record."""
    flow.call("finetune_lm", dir_path=str(corpus / "imdb"), results_dir=str(corpus / "results"), lm_id=lm_id,
              pretrain_path=str(pretrain_path), notrain=True, **flow.SMALL, **flags)
    way = "bwd" if flags.get("backwards") else "fwd"
    return flow.record(corpus / "results", f"imdb--finetune_lm--{way}--word--{lm_id}--all--s0")


def tuned(corpus: Path, lm_id: str, way: str = "fwd") -> tuple[dict[str, torch.Tensor], list[str]]:
    folder = corpus / f"imdb/models/lm--{way}--word--{lm_id}--all--s0"
    return load_file(folder / "weights.safetensors"), json.loads((folder / "vocab.json").read_text())


def test_finetune_lm_takes_07s_weights(corpus, tmp_path):
    state = write_07(tmp_path)
    done = flow.run_here("finetune_lm", cwd=corpus, dir_path="imdb", results_dir="results", lm_id="old",
                         pretrain_path=tmp_path, notrain=True, **flow.SMALL)
    assert done.returncode == 0, done.stderr
    assert "11 words of the vocabulary have pretrained vectors (7 special tokens by their old name)" in done.stdout
    tensors, words = tuned(corpus, "old")
    for ours, theirs in (("film", "film"), ("xxbos", "xbos"), ("xxunk", "_unk_"), ("xxup", "t_up")):
        assert torch.equal(tensors["0.encoder.weight"][words.index(ours)],
                           state["0.encoder.weight"][OLD_VOCAB.index(theirs)])
    assert not tensors["1.decoder.bias"].any()
    record = flow.record(corpus / "results", "imdb--finetune_lm--fwd--word--old--all--s0")
    assert record["vocabulary_match"] == {"matched": 11, "filled": len(words) - 11, "aliased": 7}
    assert (record["sizes"], record["pretrained_format"]) == (SIZES, "fastai 0.7")
    assert record["inputs"]["pretrained"]["path"] == "fwd_wt103.h5" and record["inputs"]["pretrained"]["run"] is None
    assert str(tmp_path) not in json.dumps(record)
    again = flow.run_here("finetune_lm", cwd=corpus, dir_path="imdb", results_dir="results", lm_id="old",
                          pretrain_path=tmp_path, notrain=True, **flow.SMALL)
    assert again.returncode == 0 and "already done, reused" in again.stdout
    write_07(tmp_path)
    with pytest.raises(UserError, match="stale: fwd_wt103.h5 changed since"):
        tune(corpus, tmp_path, "old")


@pytest.mark.parametrize("form, backwards", [("archive", False), ("archive", True), ("pair", True), ("07", True)])
def test_finetune_lm_takes_every_form(corpus, tmp_path, form, backwards):
    way = "bwd" if backwards else "fwd"
    write = {"archive": write_archive, "07": write_07,
             "pair": lambda folder, way: write_pair(folder, f"wt103-{way}")}[form]
    state = write(tmp_path, way)
    record = tune(corpus, tmp_path, f"{form}-{way}", backwards=backwards)
    tensors, words = tuned(corpus, f"{form}-{way}", way)
    vocab = OLD_VOCAB if form == "07" else NEW_VOCAB
    assert torch.equal(tensors["0.encoder.weight"][words.index("film")], state["0.encoder.weight"][vocab.index("film")])
    assert record["vocabulary_match"]["aliased"] == (7 if form == "07" else 0)
    assert record["vocabulary_match"]["matched"] + record["vocabulary_match"]["filled"] == len(words)
    assert record["metrics"]["last"]["perplexity"] > 0


def test_finetune_lm_names_what_it_looked_for(corpus, tmp_path):
    write_07(tmp_path, "fwd")
    with pytest.raises(UserError) as error:
        tune(corpus, tmp_path, "absent", backwards=True)
    message = str(error.value)
    for name in ("pretrained--bwd--word--wt103--all--s0", "wt103-bwd.tgz", "wt103-bwd.pth", "lstm_bwd.pth",
                 "bwd_wt103.h5"):
        assert name in message
    assert "fwd_wt103.h5" not in message and "\n" not in message


def test_finetune_lm_refuses_sizes_that_the_weights_have_not(corpus, tmp_path):
    write_07(tmp_path)
    with pytest.raises(UserError, match=r"--n_hid=9 does not fit .*fwd_wt103.h5, which has n_hid=8"):
        tune(corpus, tmp_path, "sizes", n_hid=9)


def test_an_own_model_comes_first_even_unfinished(corpus, tmp_path):
    write_07(tmp_path)
    (tmp_path / "models/pretrained--fwd--word--wt103--all--s0").mkdir(parents=True)
    with pytest.raises(UserError, match="missing or unfinished"):
        tune(corpus, tmp_path, "own")


# -- the way back ------------------------------------------------------------------------------------------------------

def stock_learners(folder: Path, vocab: list[str], n_classes: int = 2):
    """fastai's own language model and classifier learners over a vocabulary, on data that is never looked at."""
    from fastai.data.core import DataLoaders
    from fastai.data.load import DataLoader
    from fastai.losses import CrossEntropyLossFlat
    from fastai.text.learner import language_model_learner, text_classifier_learner
    from fastai.text.models.awdlstm import AWD_LSTM, awd_lstm_clas_config, awd_lstm_lm_config

    dls = DataLoaders(DataLoader([0]), DataLoader([0]), path=folder, device=torch.device("cpu"))
    dls.vocab = vocab
    return (language_model_learner(dls, AWD_LSTM, config={**awd_lstm_lm_config, **SIZES}, pretrained=False),
            text_classifier_learner(dls, AWD_LSTM, config={**awd_lstm_clas_config, **SIZES}, pretrained=False,
                                    n_out=n_classes, loss_func=CrossEntropyLossFlat()))


def logits(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    model.eval()
    model.reset()
    with torch.no_grad():
        return model(ids)[0]


@pytest.fixture(scope="module")
def exported(corpus, tmp_path_factory) -> tuple[Path, torch.nn.Module, list[str]]:
    """A language model of ours, exported by the command line; and the model and its vocabulary."""
    write_pair(corpus / "wt103")
    tune(corpus, corpus / "wt103", "mine")
    # Inside a learner's models folder, where fastai looks.
    to = tmp_path_factory.mktemp("learner") / "models"
    done = flow.run_stage("export", cwd=corpus, dir_path="imdb", lm_id="mine", to=to)
    assert done.returncode == 0, done.stderr
    assert "emb_sz=6, n_hid=8, n_layers=3" in done.stdout
    folder = DataFolder(corpus / "imdb").model("lm--fwd--word--mine--all--s0")
    words = json.loads((folder / "vocab.json").read_text())
    model = models.language_model(len(words), **SIZES, dropmult=1.0)
    weights.load_whole(model, folder / weights.WEIGHTS)
    return to, model, words


def test_fastai_loads_an_exported_language_model(exported):
    to, model, words = exported
    assert sorted(path.name for path in to.iterdir()) == ["mine-fwd.pkl", "mine-fwd.pth", "mine-fwd_encoder.pth"]
    assert pickle.loads((to / "mine-fwd.pkl").read_bytes()) == words
    ids = torch.randint(len(words), (2, 12), generator=torch.Generator().manual_seed(0))
    expected = logits(model, ids)
    learner, _ = stock_learners(to.parent, words)
    assert not torch.allclose(logits(learner.model, ids), expected, atol=1e-3)
    learner.load_pretrained(to / "mine-fwd.pth", to / "mine-fwd.pkl")
    torch.testing.assert_close(logits(learner.model, ids), expected, rtol=0, atol=1e-6)


def test_fastai_arranges_an_exported_model_for_other_words_as_we_do(exported):
    to, model, words = exported
    other = ["xxunk", "xxpad", "film", "zebra", "the"]
    learner, _ = stock_learners(to.parent, other)
    learner.load_pretrained(to / "mine-fwd.pth", to / "mine-fwd.pkl")
    tensors, _ = weights.match_vocabulary(dict(model.state_dict()), words, other)
    ours = models.language_model(len(other), **SIZES, dropmult=1.0)
    ours.load_state_dict(tensors)
    ids = torch.tensor([[2, 3, 4, 0, 4, 3]])
    torch.testing.assert_close(logits(learner.model, ids), logits(ours, ids), rtol=0, atol=1e-6)


def test_fastai_loads_an_exported_encoder(exported):
    to, model, words = exported
    ids = torch.randint(len(words), (2, 12), generator=torch.Generator().manual_seed(0))
    learner, classifier = stock_learners(to.parent, words)
    expected = logits(model[0], ids)
    for encoder, name in ((learner.model[0], "language model"), (classifier.model[0].module, "classifier")):
        assert not torch.allclose(logits(encoder, ids), expected, atol=1e-3), name
        (learner if name == "language model" else classifier).load_encoder("mine-fwd_encoder")
        torch.testing.assert_close(logits(encoder, ids), expected, rtol=0, atol=1e-6)


def test_an_exported_model_is_read_again(corpus, exported):
    to, model, words = exported
    record = tune(corpus, to, "again", pretrain_id="mine")
    assert record["vocabulary_match"] == {"matched": len(words), "filled": 0, "aliased": 0}
    tensors, _ = tuned(corpus, "again")
    assert all(torch.equal(tensors[name], model.state_dict()[name]) for name in tensors)


def test_export_replaces_only_when_told(corpus, exported):
    to, *_ = exported
    call = {"dir_path": str(corpus / "imdb"), "lm_id": "mine", "to": str(to)}
    before = {path.name: path.stat().st_mtime_ns for path in to.iterdir()}
    with pytest.raises(UserError, match="mine-fwd.pth, .* exists; choose"):
        flow.call("export", **call)
    assert {path.name: path.stat().st_mtime_ns for path in to.iterdir()} == before
    flow.call("export", **call, overwrite=True)
    after = {path.name: path.stat().st_mtime_ns for path in to.iterdir()}
    assert after.keys() == before.keys() and all(after[name] > before[name] for name in after)
    flow.call("export", **call, export_id="other")
    assert (to / "other-fwd.pth").exists()
    for path in to.glob("other-*"):
        path.unlink()


def test_export_says_what_is_missing(corpus, tmp_path):
    with pytest.raises(UserError, match="run first: python imdb_scripts/finetune_lm.py .*--lm_id=absent"):
        flow.call("export", dir_path=str(corpus / "imdb"), lm_id="absent")
    with pytest.raises(UserError, match="run first: python imdb_scripts/pretrain_lm.py .*--pretrain_id=absent"):
        flow.call("export", dir_path=str(corpus / "imdb"), pretrain_id="absent")
    with pytest.raises(UsageError, match="choose one"):
        flow.call("export", dir_path=str(corpus / "imdb"), pretrain_id="wiki", lm_id="mine")


def test_a_pretrained_model_is_exported(tmp_path):
    flow.write_general_corpus(tmp_path / "wiki")
    at = {"dir_path": str(tmp_path / "wiki"), "results_dir": str(tmp_path / "results")}
    flow.call("create_toks", **at, n_lbls=0, workers=1)
    flow.call("tok2id", **at)
    flow.call("pretrain_lm", **at, backwards=True, **flow.SIZES, **flow.SMALL)
    flow.call("export", dir_path=at["dir_path"], pretrain_id="", backwards=True)
    model = read(tmp_path / "wiki/export", backwards=True, model_id="wiki")
    stored = load_file(tmp_path / "wiki/models/pretrained--bwd--word--wiki--all--s0/weights.safetensors")
    assert model.sizes == flow.SIZES
    assert all(torch.equal(model.tensors[name], tensor) for name, tensor in stored.items())


# -- true sizes --------------------------------------------------------------------------------------------------------

@pytest.mark.slow
def test_07_in_its_true_size(corpus, tmp_path):
    rows = 238462
    vocab = OLD_VOCAB + [f"word{number}" for number in range(rows - len(OLD_VOCAB))]
    state = write_07(tmp_path, words=vocab, state=state_07(rows, 400, 1150, 3))
    record = tune(corpus, tmp_path, "full")
    (tmp_path / "fwd_wt103.h5").unlink()  # half a gigabyte, which pytest would keep
    assert record["sizes"] == {"emb_sz": 400, "n_hid": 1150, "n_layers": 3}
    tensors, words = tuned(corpus, "full")
    for ours, theirs in (("film", "film"), ("xxbos", "xbos")):
        assert torch.equal(tensors["0.encoder.weight"][words.index(ours)],
                           state["0.encoder.weight"][vocab.index(theirs)])
    assert torch.equal(tensors["0.rnns.1.weight_hh_l0_raw"], state["0.rnns.1.module.weight_hh_l0_raw"])
    torch.testing.assert_close(tensors["0.encoder.weight"][words.index("brilliant")],
                               state["0.encoder.weight"].mean(0), rtol=0, atol=1e-6)
    assert record["vocabulary_match"] == {"matched": 11, "filled": len(words) - 11, "aliased": 7}
