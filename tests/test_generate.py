"""generate: the distribution that is drawn from, the state that is carried, and the text that is shown."""

import random
import re
import shutil
import subprocess
import sys
import warnings
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from fastai.text.learner import LMLearner, decode_spec_tokens

import flow
from flow import ROOT, SIZES, SMALL
from ulmfit import files, generation, models, vocab
from ulmfit.decoding import join_words, readable, undo_markers
from ulmfit.errors import UserError
from ulmfit.generation import draw, next_logits, next_probabilities, shown
from ulmfit.tokenization import tokenize_texts
from ulmfit.tokens import SPECIAL_TOKENS

LM = "lm--{}--word--default--all--s0"


# -- from tokens to text -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("line", ("a film", "xxmaj film of xxup tv", "xxmaj xxup tv", "so xxrep 4 !", "xxwrep 3 so",
                                  "xxmaj", "a xxrep", "a xxrep 4"))
def test_markers_are_undone_as_fastai_does(line):
    assert undo_markers(line.split()) == decode_spec_tokens(line.split())


@pytest.mark.parametrize("line, expected", (
    ("xxbos xxrep 3 ! xxmaj good film", "!!! Good film"),  # fastai repeats every later word as well
    ("xxwrep 3 xxmaj the end", "The The The end"),
    ("xxrep five stars", "five stars"),
    ("xxrep 0 a film", "film"),
    ("xxrep 999999999 a", "999999999 a"),
    ("xxrep xxmaj film", "Film"),
    ("xxbos xxfld 1 xxmaj title xxfld 2 text", "Title | text"),
    ("xxfld film xxpad xxeos", "film"),
    ("", ""),
))
def test_markers_where_fastai_does_otherwise(line, expected):
    assert " ".join(undo_markers(line.split())) == expected


@pytest.mark.parametrize("text", (
    "I don't think it's well-made; we'll see, can't we?", 'He said "yes, I do" and left.',
    "The films' plot (all of it) is 'new'.", "It cost $5.50, or 5% more...", "A 10/10 film!", "L'homme qu'on aime",
    "Really :) fine", "“Quoted” and ‘so’", "a [b] {c}: d", "It's called ``The Egg'' here"))
def test_words_are_spaced_as_in_print(text):
    # Capitals are tested above; the rules lose that of a word of one letter.
    assert readable(tokenize_texts([[text]])[0]).lower() == text.lower().replace("...", "…")


def test_the_text_of_the_first_words_begins_the_text_of_all():
    random_words = random.Random(0)
    pool = ["film", "films", "'", '"', "-", "(", ")", "n't", "'s", ".", "/", "$", "5", "%", "l'", "\n\n", "a▁b", "…"]
    for _ in range(300):
        words = random_words.choices(pool, k=12)
        whole = join_words(words)
        assert all(whole.startswith(join_words(words[:count])) for count in range(13))
        assert "\n" not in whole and whole == whole.strip()


# -- the distribution --------------------------------------------------------------------------------------------------

LOGITS = torch.tensor([3.0, 4.0, 1.0, 0.5, 2.0, -1.0])


class Captured(Exception):
    """Ends fastai's prediction at its draw; `weights` are what it would have drawn by."""

    def __init__(self, weights: torch.Tensor):
        super().__init__()
        self.weights = weights


def fastai_distribution(monkeypatch, logits: torch.Tensor, temperature: float, min_p: float | None) -> torch.Tensor:
    """What `LMLearner.predict` itself draws the next word by, for a model with these logits."""
    def multinomial(weights, count):
        raise Captured(weights)

    learner = MagicMock()
    learner.dls.test_dl.return_value.items = [torch.tensor([2])]
    learner.dls.device = "cpu"
    learner.dls.vocab = [*SPECIAL_TOKENS]
    learner.get_preds.return_value = (logits.softmax(0)[None, None], None)
    monkeypatch.setattr(torch, "multinomial", multinomial)
    with pytest.raises(Captured) as captured, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that nothing reaches min_p
        LMLearner.predict(learner, "", temperature=temperature, min_p=min_p, no_bar=True)
    return captured.value.weights / captured.value.weights.sum()


@pytest.mark.parametrize("temperature", (0.5, 0.8, 1.0, 2.0))
@pytest.mark.parametrize("min_p", (None, 0.0, 0.03, 0.05, 0.99))
def test_probabilities_are_those_of_fastai(monkeypatch, temperature, min_p):
    # Padding, which fastai may draw, has no probability here.
    logits = torch.where(torch.arange(len(LOGITS)) == vocab.PAD_ID, -torch.inf, LOGITS)
    found, reached = next_probabilities(logits, temperature=temperature, min_p=min_p)
    np.testing.assert_allclose(found, fastai_distribution(monkeypatch, logits, temperature, min_p), atol=1e-6)
    assert reached == (min_p != 0.99)


def test_probabilities_by_hand():
    # Softmax over four words, the first two of which are never drawn: 1/8 and 3/8 are left, squared 1/64 and 9/64.
    logits = torch.tensor([1 / 4, 1 / 4, 1 / 8, 3 / 8]).log()
    assert next_probabilities(logits, temperature=0.5, min_p=None)[0] == pytest.approx([0, 0, 1 / 10, 9 / 10])
    # min_p is of the softmax before xxunk and xxpad are left out: 1/8 is below it, though it is 1/4 of what is left.
    assert next_probabilities(logits, temperature=1.0, min_p=0.2)[0] == pytest.approx([0, 0, 0, 1])


@pytest.mark.parametrize("temperature", (1e-3, 1e-300))
def test_a_temperature_near_nothing_takes_the_likeliest_word(temperature):
    found, _ = next_probabilities(LOGITS, temperature=temperature, min_p=None)
    assert found.tolist() == [0, 0, 0, 0, 1, 0]  # neither the padding with its logit of 4 nor xxunk with 3


def test_draws_follow_the_probabilities():
    probabilities = np.array([0.0, 0.25, 0.0, 0.75, 0.0])
    generator = np.random.default_rng(0)
    counts = np.bincount([draw(probabilities, generator) for _ in range(4000)], minlength=5)
    assert counts[[0, 2, 4]].sum() == 0
    # Within four standard deviations of a binomial.
    assert abs(counts[1] - 1000) < 4 * (4000 * 0.25 * 0.75) ** 0.5

    class Edge:
        def __init__(self, value):
            self.value = value

        def random(self):
            return self.value

    assert draw(probabilities, Edge(0.0)) == 1 and draw(probabilities, Edge(1 - 2**-53)) == 3


# -- the model ---------------------------------------------------------------------------------------------------------

def tiny_model(vocab_size: int = 40):
    torch.manual_seed(0)
    model = models.language_model(vocab_size, **SIZES, dropmult=1.0).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # far from uniform, so that an error in the state shows
            parameter.uniform_(-1.5, 1.5)
        model[1].decoder.bias.zero_()
    model.reset()
    return model


def test_the_carried_state_gives_the_logits_of_the_whole_text(monkeypatch):
    model = tiny_model()
    ids = np.random.default_rng(0).integers(2, 40, 23)
    with torch.no_grad():
        whole = model(torch.from_numpy(ids)[None])[0][0]
    model.reset()
    for place, number in enumerate(ids):
        torch.testing.assert_close(next_logits(model, [number]), whole[place])
    model.reset()
    monkeypatch.setattr(generation, "CHUNK", 7)
    torch.testing.assert_close(next_logits(model, ids), whole[-1])


def drawn(model, words, prompt, **flags):
    return list(generation.continuations(model, words, prompt, **{
        "backwards": False, "n_words": 8, "n_sentences": 1, "temperature": 1e-6, "min_p": None, "seed": 0, **flags}))


@pytest.mark.parametrize("backwards", (False, True))
def test_greedy_words_are_the_argmax_of_the_whole_text_so_far(backwards):
    words = [*SPECIAL_TOKENS, *(f"w{number}" for number in range(31))]
    model = tiny_model(len(words))
    with torch.no_grad():
        model[1].decoder.bias[2] = -50.0  # no end
    stoi, prompt = vocab.ids_by_word(words), ["xxbos", "w3", "unheard", "w7"]
    found, again = drawn(model, words, prompt, backwards=backwards, n_sentences=2)
    assert again == found and len(set(found.tokens)) > 2
    reading = ["xxbos", "w7", "xxunk", "w3"] if backwards else ["xxbos", "w3", "xxunk", "w7"]
    for word in found.tokens:
        model.reset()
        with torch.no_grad():
            logits = model(torch.tensor([[stoi[token] for token in reading]]))[0][0, -1]
        logits[[0, 1]] = -torch.inf
        assert word == words[int(logits.argmax())]
        reading.append(word)
    assert len(found.tokens) == 8 and not found.ended
    text = shown("w3 unheard w7", prompt, found.tokens, backwards=backwards)
    plain = [word for word in found.tokens if word not in SPECIAL_TOKENS]
    assert text.lower().split() == ([*plain[::-1], "w3", "unheard", "w7"] if backwards
                                    else ["w3", "unheard", "w7", *plain])


def test_a_seed_gives_the_same_words_and_another_one_others():
    words = [*SPECIAL_TOKENS, *(f"w{number}" for number in range(31))]
    model = tiny_model(len(words))
    flags = {"temperature": 1.0, "n_words": 20}
    three = drawn(model, words, ["xxbos", "w1"], n_sentences=3, **flags)
    assert three == drawn(model, words, ["xxbos", "w1"], n_sentences=3, **flags)
    assert three[:1] == drawn(model, words, ["xxbos", "w1"], **flags)
    assert len({tuple(made.tokens) for made in three}) == 3
    assert three != drawn(model, words, ["xxbos", "w1"], n_sentences=3, seed=1, **flags)
    assert not {"xxunk", "xxpad", "xxbos"} & {token for made in three for token in made.tokens}


def test_a_document_ends_where_the_model_begins_another_one():
    words = [*SPECIAL_TOKENS, "w"]
    model = tiny_model(len(words))
    with torch.no_grad():
        model[1].decoder.bias[2] = 50.0
    assert drawn(model, words, ["xxbos", "w"], min_p=0.5) == [generation.Continuation([], True, 0)]
    with torch.no_grad():
        model[1].decoder.bias[:2] = 100.0  # nearly all the probability is of what is never drawn
    assert drawn(model, words, ["xxbos", "w"], min_p=0.5) == [generation.Continuation([], True, 1)]


@pytest.mark.parametrize("text, made, backwards, expected", (
    ("I liked\n it ", [",", "xxmaj", "mr", ".", "x"], False, "I liked it, Mr. x"),
    ("", ["xxmaj", "good", "."], False, "Good."),
    ("xxbos", ["good"], False, "xxbos good"),
    ("I was", ["and", "came", "xxmaj"], True, "Came and I was"),
    ("film.", ["xxmaj", "good"], True, "good Film."),
    ("", ["end", "the"], True, "the end"),
    ("said (", ["so", ")"], False, "said (so)"),
))
def test_what_is_shown(text, made, backwards, expected):
    assert shown(text, tokenize_texts([[text]])[0], made, backwards=backwards) == expected


def test_prompts_of_several_columns_begin_the_first_one():
    flags = {"lang": "en", "text_columns": 2}
    assert generation.prompt_tokens("Good", **flags, backwards=False) == "xxbos xxfld 1 xxmaj good".split()
    assert generation.prompt_tokens("Good", **flags, backwards=True) == "xxbos xxmaj good".split()


# -- the command line --------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A dataset with a forward and a backward language model."""
    folder = flow.write_corpus(tmp_path_factory.mktemp("generate") / "imdb")
    place = {"dir_path": str(folder), "results_dir": str(folder.parent / "results"), "quiet": True}
    flow.call("create_toks", **place, workers=1)
    flow.call("tok2id", **place)
    for backwards in (False, True):
        flow.call("finetune_lm", **place, backwards=backwards, preload=False, cl=2, lr=0.02, **SIZES, **SMALL)
    return folder


@pytest.fixture
def go_on(data, capsys):
    """Calls generate and returns (lines, what stands on stderr)."""
    def call(text: str, **flags) -> tuple[list[str], str]:
        capsys.readouterr()
        flow.call("generate", text=text, **{"dir_path": str(data), "cuda_id": -1, "threads": 1, "n_words": 12, **flags})
        found = capsys.readouterr()
        return found.out.splitlines(), found.err
    return call


def test_a_text_is_gone_on_with(go_on):
    lines, err = go_on("The film was", n_sentences=4)
    assert len(lines) == 4 and err == ""
    assert all(line.startswith("The film was") for line in lines) and len(set(lines)) > 1
    assert not any(re.search("xx(unk|pad|bos|maj|up|rep|wrep)", line) for line in lines)
    assert go_on("The film was", n_sentences=4) == (lines, "") and go_on("The film was", seed=1)[0] != lines[:1]


def test_a_backward_model_writes_what_comes_before(data, go_on):
    lines, _ = go_on("a story of people", backwards=True, n_sentences=3)
    assert all(line.endswith("a story of people") and len(line) > 20 for line in lines)
    # By hand: the greedy words of the model, read from the prompt's end, stand in front of it from right to left.
    model = generation.load(data / "models" / LM.format("bwd"))
    words = vocab.load_vocab(data / "word/ids")
    stoi = vocab.ids_by_word(words)
    ids = [stoi[word] for word in ("xxbos", "people", "of", "story", "a")]
    for _ in range(3):
        model.reset()
        with torch.no_grad():
            logits = model(torch.tensor([ids]))[0][0, -1]
        logits[[0, 1]] = -torch.inf
        ids.append(int(logits.argmax()))
    made = [words[number] for number in ids[5:]]
    line, _ = go_on("a story of people", backwards=True, n_words=3, temperature=1e-6)
    assert line == [shown("a story of people", ["xxbos", "a", "story", "of", "people"], made, backwards=True)]


@pytest.mark.parametrize("text", ("", " ", "-", "-bad film", "xxbos xxpad xxmaj", "xxrep 999999999 a", "xxfld 1 a",
                                  "first\nsecond", "🎬 映画", '"quoted" and {braces} 1e5'))
@pytest.mark.parametrize("backwards", (False, True))
def test_texts_of_every_kind_give_one_line(go_on, text, backwards):
    lines, _ = go_on(text, backwards=backwards, n_words=5)
    assert len(lines) == 1 and len(lines[0]) < 300
    if text.startswith("-"):
        assert lines[0].startswith("-") != backwards and text.split()[-1] in lines[0]


def test_what_the_model_cannot_do_is_said(go_on):
    _, err = go_on("The film was flabbergasting")
    assert err == "not in the model's vocabulary, read as xxunk: flabbergasting\n"
    _, err = go_on("the film", min_p=1.0, n_words=4)
    assert re.fullmatch(r"--min_p=1.0: no word had that probability in [1-4] of [1-4] draws, .*\n", err)
    with pytest.raises(UserError, match="run first: python imdb_scripts/finetune_lm.py .*--bpe"):
        go_on("a", bpe=True)
    with pytest.raises(UserError, match="run first: python imdb_scripts/finetune_lm.py .*--lm_id=other --seed=2"):
        go_on("a", lm_id="other", lm_seed=2)
    with pytest.raises(UserError, match="finetune_lm.py .*--train_file_id=few"):
        go_on("a", train_file_id="few")


def test_the_model_brings_its_own_vocabulary(data, go_on, tmp_path):
    """Ids that were made anew since leave the model able to write."""
    copy = tmp_path / "imdb"
    shutil.copytree(data, copy)
    expected = go_on("The film was")
    flow.call("tok2id", dir_path=str(copy), max_vocab=20, results_dir=str(tmp_path / "results"), overwrite=True,
              quiet=True)
    assert go_on("The film was", dir_path=str(copy)) == expected


def test_words_that_are_not_the_models_are_refused(data, go_on, tmp_path):
    copy = tmp_path / "imdb"
    shutil.copytree(data, copy)
    path = copy / "models/lm--fwd--word--default--all--s0/vocab.json"
    files.write_json(path, vocab.load_vocab(path.parent)[::-1])
    said = "vocab.json is not the vocabulary that .*lm--fwd--word--default--all--s0 was made with"
    with pytest.raises(UserError, match=said):
        go_on("The film was", dir_path=str(copy))
    with pytest.raises(UserError, match=said):
        flow.call("export", dir_path=str(copy), to=str(tmp_path / "exported"))
    assert not (tmp_path / "exported").exists()


def test_the_command_line(data, go_on):
    options = {"dir_path": data, "cuda_id": -1, "threads": 1, "n_words": 12}
    done = flow.run_here("generate", "-bad film", **options, n_sentences=2)
    assert (done.returncode, done.stdout.splitlines()) == (0, go_on("-bad film", n_sentences=2)[0])
    for flags, message in (({"temperature": 0}, "above 0"), ({"min_p": 1.5}, "from 0 to 1")):
        done = flow.run_here("generate", "a", **{**options, **flags})
        assert done.returncode == 2 and message in done.stderr
    done = flow.run_here("generate", **options)
    assert done.returncode == 2 and "text must be given" in done.stderr


def test_a_pipe_that_closes(data):
    """`| head -1` of ten thousand texts ends quietly after the first."""
    script = [sys.executable, *flow.command("generate", "the film", dir_path=data, cuda_id=-1, threads=1, n_words=12,
                                            n_sentences=10000)]
    with subprocess.Popen(script, cwd=ROOT, env=flow.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as process:
        assert process.stdout.readline().startswith("the film")
        process.stdout.close()
        assert process.stderr.read() == "" and process.wait(timeout=60) == 141
