"""Names: no two runs share one, and no id leaves its folder."""

import itertools
import os
import random
import subprocess
import sys
from pathlib import Path

import flow
import pytest

from ulmfit import names
from ulmfit.errors import UsageError, UserError
from ulmfit.names import DataFolder

ROOT = Path(names.__file__).resolve().parents[2]
GOOD_IDS = ["a", "1e5", "0x10", "20261121_1030", "a#b", "None", "x-y", "a.b", "a+b=c", "50%", "m@1,2", "s0", "fwd", "_",
            "A" * 60]
BAD_IDS = ["../x", "a/b", "/etc", "a\\b", ".", "..", ".hidden", "-a", "a-", "--", "a--b", "a b", "a\nb", "a\n", "é",
           "a:b", "a*", "A" * 61, "\0"]


def makers(model_id: str, subset: str, seed: int = 0) -> list:
    return [lambda: names.lm_name(False, False, model_id, subset, seed),
            lambda: names.clas_name(False, False, model_id, None, subset, seed),
            lambda: names.clas_name(False, False, "fine", model_id, subset, seed)]


# -- injectivity -----------------------------------------------------------------------------------------------------

def tricky_ids() -> list[str]:
    """Ids made of the very pieces that names are made of, those that are accepted."""
    pieces = ["a", "-", "--", "s0", "s1", "fwd", "bwd", "word", "bpe", "lm", "all", "default", "intermediate", "start",
              "."]
    generator = random.Random(0)
    found = {"", *GOOD_IDS}
    for _ in range(400):
        candidate = "".join(generator.choices(pieces, k=generator.randint(1, 4)))
        try:
            found.add(names.check_id(candidate, "lm_id"))
        except UsageError:
            continue
    return sorted(found - {"default"})


def test_different_runs_have_different_names():
    ids = tricky_ids()
    assert len(ids) > 100
    generator = random.Random(1)
    made = {}
    for _ in range(20_000):
        subset = generator.choice(ids)
        key = (generator.choice(["lm", "clas", "pretrained"]), generator.random() < 0.5, generator.random() < 0.5,
               generator.choice(ids), "" if subset == "all" else subset, generator.choice([0, 1, 10, 2**32 - 1]))
        kind, backwards, bpe, model_id, subset, seed = key
        if kind == "lm":
            name = names.lm_name(backwards, bpe, model_id, subset, seed)
        elif kind == "clas":
            name = names.clas_name(backwards, bpe, "other", model_id, subset, seed)
        else:
            key = (kind, backwards, bpe, model_id, "", seed)
            name = names.pretrained_name(backwards, bpe, model_id, seed)
        for variant, full in ((key, name), ((*key, "kept"), names.intermediate_name(name)),
                              ((*key, "start"), names.start_name(name))):
            assert made.setdefault(full, variant) == variant
        # A name can be taken apart again.
        assert name.split(names.SEPARATOR) == [key[0], "bwd" if backwards else "fwd", "bpe" if bpe else "word",
                                               model_id or "default", key[4] or "all", f"s{seed}"]


def test_each_of_direction_unit_id_subset_and_seed_is_in_the_name():
    variants = itertools.product((False, True), (False, True), ("", "a"), ("", "b"), (0, 1))
    found = {maker(*values) for values in variants
             for maker in (names.lm_name, lambda b, p, i, t, s: names.clas_name(b, p, "lm", i, t, s))}
    assert len(found) == 2 * 2**5


def test_a_classifier_takes_its_language_models_id_unless_it_has_one():
    assert names.clas_name(False, False, "x", None, "", 0) == names.clas_name(False, False, "y", "x", "", 0)
    assert names.clas_name(True, False, "x", "z", "", 3) == "clas--bwd--word--z--all--s3"
    assert names.clas_name(False, False, "x", "", "", 0) == names.clas_name(False, False, "", None, "", 0)


def test_the_longest_run_still_fits_a_file_name():
    name = names.clas_name(True, False, "A" * 60, None, "B" * 60, 2**32 - 1)
    run = names.run_id(DataFolder("/data/" + "C" * 200).name, "eval_clas", *name.split(names.SEPARATOR)[1:], "test")
    assert len(f".{run}.1234567.tmp") <= 255 and len(names.intermediate_name(name)) <= 255
    assert names.run_folder("results", run) == Path("results/runs") / run


# -- ids -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("value", GOOD_IDS)
def test_ids_that_look_like_numbers_or_words_stay_as_they_are(value):
    assert names.check_id(value, "lm_id") == value
    assert all(f"--{value}--" in make() for make in makers(value, ""))
    assert DataFolder("data/imdb").subset(value) == Path(f"data/imdb/subsets/{value}.txt")


@pytest.mark.parametrize("value", BAD_IDS)
def test_ids_that_cannot_stand_in_a_name_are_refused(value):
    calls = [*makers(value, ""), *makers("fine", value), lambda: names.pretrained_name(False, False, value, 0),
             lambda: DataFolder("data/imdb").subset(value)]
    for call in calls:
        with pytest.raises(UsageError) as error:
            call()
        assert repr(value) in str(error.value) and "\n" not in str(error.value)
    for call, flag in ((calls[0], "--lm_id="), (calls[2], "--clas_id="), (calls[3], "--train_file_id="),
                       (calls[6], "--pretrain_id=")):
        with pytest.raises(UsageError, match=flag):
            call()


def test_the_name_of_the_whole_split_is_no_subset():
    for make in makers("fine", "all"):
        with pytest.raises(UsageError, match="train_file_id"):
            make()
    assert names.lm_name(False, False, "all", "", 0) == "lm--fwd--word--all--all--s0"


def test_an_empty_id_is_the_default_one():
    assert names.check_id("", "lm_id") == ""
    assert names.lm_name(False, False, "", "", 0) == "lm--fwd--word--default--all--s0"


# -- folders ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("folder, expected", [
    ("imdb", "imdb"), ("my data", "my_data"), ("a--b", "a-b"), ("a---b", "a-b"), ("-a-", "a"), (".hidden", "hidden"),
    ("v1.0.", "v1.0"), ("a (copy)", "a_copy_"), ("ü", "_"), ("x#y", "x_y"), ("--", "data"), ("a\nb", "a_b"),
    ("y" * 200, "y" * 60), ("z" * 59 + "-tail", "z" * 59), ("z" * 59 + ". tail", "z" * 59),
    ("-" * 70 + "w" * 59 + "-x", "w" * 59)])
def test_a_datasets_name_can_stand_in_a_run_id(tmp_path, folder, expected):
    name = DataFolder(tmp_path / folder).name
    assert name == expected
    # pretrain_lm takes it for an id.
    assert names.check_id(name, "pretrain_id") == name
    assert names.run_id(name, "train_clas", "fwd").split(names.SEPARATOR) == [expected, "train_clas", "fwd"]


def test_a_datasets_name_is_its_folders_whatever_the_path_looks_like(tmp_path, monkeypatch):
    folder = tmp_path / "imdb"
    (folder / "deeper").mkdir(parents=True)
    monkeypatch.chdir(folder)
    assert {DataFolder(path).name for path in (".", folder, f"{folder}/", "deeper/..", "../imdb")} == {"imdb"}
    assert DataFolder("/").name == "data"


def test_words_and_subwords_lie_apart():
    folder = DataFolder("data/imdb")
    assert folder.tokens() == Path("data/imdb/word/tokens") and folder.tokens(bpe=True) == Path("data/imdb/bpe/tokens")
    assert folder.ids() == Path("data/imdb/word/ids") and folder.ids(bpe=True) == Path("data/imdb/bpe/ids")
    assert folder.csv("unsup") == Path("data/imdb/unsup.csv") and folder.model("lm") == Path("data/imdb/models/lm")


def test_existing_dir(tmp_path):
    assert names.existing_dir(str(tmp_path), "dir_path", "make it") == tmp_path
    with pytest.raises(UserError, match="--dir_path: there is no folder .*nowhere; make it"):
        names.existing_dir(tmp_path / "nowhere", "dir_path", "make it")


# -- paths in records and messages -----------------------------------------------------------------------------------

@pytest.mark.parametrize("path, expected", [
    (ROOT / "data" / "imdb", "data/imdb"), (ROOT / "data" / ".." / "results", "results"), (ROOT, "."),
    ("/somewhere/secret/imdb", "imdb"), ("/somewhere/secret/reviews.csv", "reviews.csv"),
    (str(ROOT) + "-other/imdb", "imdb"),
    ("https://host.org/a/b.tgz", "https://host.org/a/b.tgz"), ("HTTP://host.org/a", "HTTP://host.org/a"),
    ("https://user:word@host.org/b.tgz?key=1&x=/y", "https://host.org/b.tgz"),
    ("https://user:w@rd@host.org/b.tgz", "https://host.org/b.tgz"),
    ("https://host.org/@me//you@x", "https://host.org/@me//you@x")])
def test_paths_as_records_show_them(path, expected):
    assert names.portable(path) == expected


def test_relative_paths_are_the_callers(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT / "imdb_scripts")
    assert names.portable("ulmfit") == "imdb_scripts/ulmfit" and names.portable("../data/imdb") == "data/imdb"
    assert names.shown("ulmfit") == "ulmfit" and names.shown(ROOT / "data") == (ROOT / "data").as_posix()
    monkeypatch.chdir(tmp_path)
    assert names.portable("imdb") == "imdb" and names.shown("imdb") == "imdb"
    assert names.shown(ROOT / "data") == (ROOT / "data").as_posix()


@pytest.mark.parametrize("folder, script", [
    (ROOT, "imdb_scripts/tok2id.py"), (ROOT / "imdb_scripts", "tok2id.py"),
    (ROOT / "tests", f"{ROOT}/imdb_scripts/tok2id.py")])
def test_a_command_is_one_for_the_folder_in_which_it_is_read(monkeypatch, folder, script):
    monkeypatch.chdir(folder)
    assert names.command("tok2id", dir_path="../data/x y", bpe=True, seed=0) == (
        f"python {script} '--dir_path=../data/x y' --bpe")


@pytest.mark.parametrize("text, expected", [
    (f"{ROOT}/data/imdb/train.csv, row 3: no", "data/imdb/train.csv, row 3: no"),
    ("[Errno 2] No such file: '/somewhere/secret/x.csv'", "[Errno 2] No such file: 'x.csv'"),
    ('  File "/usr/lib/python3/json.py", line 3, in loads', '  File "json.py", line 3, in loads'),
    ("see https://host.org/a/b and 3/4 of train/val", "see https://host.org/a/b and 3/4 of train/val"),
    ("1/2 and data/imdb/x and ./y and ../z and ~/w", "1/2 and data/imdb/x and ./y and ../z and ~/w"),
    ("/a/b.csv: bad (see /c/d) a / b", "b.csv: bad (see d) a / b")])
def test_messages_as_records_keep_them(text, expected):
    assert names.portable_text(text) == expected


def test_messages_of_a_project_with_a_space_in_its_path(tmp_path, monkeypatch):
    root = tmp_path / "my project"
    monkeypatch.setattr(names, "project_root", lambda: root)
    assert names.portable_text(f"{root}/data/imdb: no; {root}-2/x: no") == "data/imdb: no; my project-2/x: no"


# -- where records go ----------------------------------------------------------------------------------------------

def test_the_folder_of_results_is_typed_or_that_of_the_variable_or_the_projects(monkeypatch, tmp_path):
    assert names.results_folder(None) == names.results_folder("") == ROOT / "results"
    monkeypatch.setenv("RESULTS", "results/mine")
    assert names.results_folder(None) == ROOT / "results" / "mine"
    monkeypatch.setenv("RESULTS", str(tmp_path))
    assert names.results_folder(None) == tmp_path and names.results_folder("typed") == Path("typed")
    monkeypatch.setenv("RESULTS", "")
    assert names.results_folder(None) == ROOT / "results"


def test_stages_launch_and_the_analysis_go_by_the_variable(tmp_path):
    (tmp_path / "toy").mkdir()
    flow.write_csv(tmp_path / "toy" / "train.csv", flow.labelled_rows(30, 0))
    stage = f"python imdb_scripts/create_toks.py --dir_path={tmp_path}/toy --workers=1"
    env = {**os.environ, "RESULTS": str(tmp_path / "mine")}

    def call(command: list[str], plan: str = "") -> str:
        done = subprocess.run([sys.executable, *command], cwd=ROOT, env=env, input=plan, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    call(stage.split()[1:])
    assert (tmp_path / "mine" / "runs" / "toy--create_toks--word" / "run.json").exists()
    assert "1 runs: 1 done" in call(["sweeps/launch.py", "-", "--status"], stage)
    assert "1 runs, " in call(["-m", "analysis", "collect"])
    assert (tmp_path / "mine" / "tables" / "runs.csv").exists()


def test_a_linked_dataset_has_the_name_of_the_link(tmp_path, monkeypatch):
    (tmp_path / "store_v2").mkdir()
    (tmp_path / "reviews").symlink_to(tmp_path / "store_v2")
    assert names.DataFolder(tmp_path / "reviews").name == "reviews"
    monkeypatch.chdir(tmp_path / "store_v2")
    assert names.DataFolder(".").name == "store_v2" and names.DataFolder("../store_v2/").name == "store_v2"
