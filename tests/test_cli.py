"""The guard before Fire: every trap of the command line, in process and through real scripts."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ulmfit import cli
from ulmfit.errors import Interrupted, UserError
from ulmfit.flags import FLAGS

LIBRARY = Path(cli.__file__).resolve().parents[1]
calls = []


def train_clas(dir_path="data/imdb", cuda_id=None, lm_id="", clas_id=None, bs=64, backwards=False, lr=0.01,
               use_clr=True, notrain=False, n_lbls=1):
    """Trains a classifier.

        python train_clas.py --backwards

    Reads ids, writes a model.
    """
    calls.append({**locals(), "typed": cli.typed()})
    return "a value that nobody prints"


def predict(text=None, csv="", lm_id="", split="val", quiet=False):
    """Predicts."""
    calls.append({**locals(), "typed": cli.typed()})


def get_data(name, dir_path=None):
    """Gets a dataset."""
    calls.append(locals())


def ensemble(*runs, split="val", quiet=False):
    """Averages runs.

    More about it.
    """
    calls.append({**locals(), "typed": cli.typed()})


@pytest.fixture(autouse=True)
def no_calls():
    calls.clear()


def accepted(stage, *argv):
    cli.main(stage, list(argv))
    assert len(calls) == 1
    return calls[0]


def refused(capsys, stage, *argv, code=2):
    """The one line on stderr; the stage was not called."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(stage, list(argv))
    out, err = capsys.readouterr()
    assert stopped.value.code == code
    assert calls == [] and out == ""
    assert err.count("\n") == 1 and err.startswith(f"{stage.__name__}: error: ")
    return err


# values

def test_defaults_and_nothing_printed(capsys):
    got = accepted(train_clas)
    assert got == {"dir_path": "data/imdb", "cuda_id": None, "lm_id": "", "clas_id": None, "bs": 64,
                   "backwards": False, "lr": 0.01, "use_clr": True, "notrain": False, "n_lbls": 1, "typed": set()}
    assert capsys.readouterr() == ("", "")


STRINGS = ["1e5", "0x10", "20261121_1030", "a#b", "None", "True", "1_000", "01", "3.0", "a,b", "a=b"]


@pytest.mark.parametrize("value", STRINGS)
def test_ids_stay_strings(value):
    for argv in ([f"--clas_id={value}"], ["--clas_id", value], [f"--clas-id={value}"], ["d", "0", "l", value]):
        calls.clear()
        assert accepted(train_clas, *argv)["clas_id"] == value


TEXTS = ["-bad film", "yes, no", "a#b", "-", "--great film, really", "'quoted'", "(1, 2)", "{a: 1}", "", " ", "-5",
         "two\nlines", "None", "-bad", "--with space=1", "--two\nlines", "été", "--bad--"]


@pytest.mark.parametrize("value", TEXTS + ["--", "--help", "-h", "--text=x", "--quiet"])
def test_texts_after_an_equals_sign_are_untouched(value):
    got = accepted(predict, f"--text={value}")
    assert got["text"] == value and got["typed"] == {"text"}


@pytest.mark.parametrize("value", TEXTS)
def test_texts_after_a_space_are_untouched(value):
    assert accepted(predict, "--text", value, "--quiet")["text"] == value


@pytest.mark.parametrize("value", [value for value in TEXTS if value != "--bad--"])
def test_texts_by_position_are_untouched(value):
    assert accepted(predict, "--quiet", value)["text"] == value


@pytest.mark.parametrize("value", TEXTS + ["--", "--quiet", "--text=x", "-text"])
def test_everything_after_two_dashes_is_positional(value):
    got = accepted(predict, "--quiet", "--", value)
    assert got["text"] == value and got["quiet"] is True


def test_a_leading_tilde_of_a_path_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    for typed, path in (("~/r", "/home/me/r"), ("~", "/home/me"), ("a/~", "a/~"), ("http://x.y/~z", "http://x.y/~z")):
        assert cli.convert("source", FLAGS["source"], typed, None) == path
    assert accepted(predict, "--text=~/r")["text"] == "~/r"


def test_a_long_text_passes():
    assert accepted(predict, "x" * 100_000)["text"] == "x" * 100_000


@pytest.mark.parametrize("value", ["../other", "a/b", "a b", "-x", "a--b", ".hidden", "x" * 61])
def test_ids_that_cannot_be_file_names(capsys, value):
    assert "--lm_id=" in refused(capsys, train_clas, f"--lm_id={value}")


# booleans

@pytest.mark.parametrize("argv, backwards, use_clr, notrain", [
    (["--backwards"], True, True, False),
    (["--backwards=True"], True, True, False),
    (["--backwards", "True"], True, True, False),
    (["--backwards", "False"], False, True, False),
    (["--nouse_clr"], False, False, False),
    (["--no-use-clr"], False, False, False),
    (["--no_use_clr"], False, False, False),
    (["--use_clr=False"], False, False, False),
    (["--use_clr", "False"], False, False, False),
    (["--use-clr", "False", "--backwards"], True, False, False),
    (["--notrain"], False, True, True),
    (["--notrain=False"], False, True, False),
    (["--nonotrain"], False, True, False),
    (["--no-notrain"], False, True, False),
])
def test_boolean_forms(argv, backwards, use_clr, notrain):
    got = accepted(train_clas, *argv)
    assert (got["backwards"], got["use_clr"], got["notrain"]) == (backwards, use_clr, notrain)
    assert got["dir_path"] == "data/imdb"
    assert all(type(got[name]) is bool for name in ("backwards", "use_clr", "notrain"))


@pytest.mark.parametrize("argv", [
    ["--backwards=false"], ["--backwards=1"], ["--backwards=0"], ["--backwards="], ["--backwards=None"],
    ["--backwards", "false"], ["--backwards", "0"], ["data/imdb", "--backwards", "1"], ["--backwards", "no"],
    ["--nobackwards=True"], ["--nobackwards", "False"], ["data/imdb", "0", "a", "b", "64", "true"],
])
def test_boolean_forms_that_are_refused(capsys, argv):
    err = refused(capsys, train_clas, *argv)
    assert "--backwards, --nobackwards, --backwards=True or --backwards=False" in err


def test_a_boolean_does_not_swallow_what_follows():
    got = accepted(train_clas, "--backwards", "data/imdb", "0")
    assert (got["backwards"], got["dir_path"], got["cuda_id"]) == (True, "data/imdb", 0)
    assert got["typed"] == {"backwards", "dir_path", "cuda_id"}


# numbers

@pytest.mark.parametrize("argv", [["--cuda_id", "-1"], ["--cuda_id=-1"], ["data/imdb", "-1"], ["--cuda-id", "-1"],
                                  ["--backwards", "data/imdb", "-1"], ["--", "data/imdb", "-1"]])
def test_minus_one_as_the_device(argv):
    assert accepted(train_clas, *argv)["cuda_id"] == -1


@pytest.mark.parametrize("argument, number", [("--bs=16", 16), ("--bs=1", 1), ("--n_lbls=0", 0), ("--n_lbls=1", 1),
                                              ("--lr=1e-3", 1e-3), ("--lr=.5", 0.5), ("--lr=1", 1.0)])
def test_numbers(argument, number):
    name = argument[2:].split("=")[0]
    got = accepted(train_clas, argument)[name]
    assert got == number and type(got) is (float if name == "lr" else int)


@pytest.mark.parametrize("argument, reason", [
    ("--bs=64.0", "a whole number"), ("--bs=1_000", "a whole number"), ("--bs=0x10", "a whole number"),
    ("--bs=1e2", "a whole number"), ("--bs=", "a whole number"), ("--bs= 64", "a whole number"),
    ("--bs=None", "a whole number"), ("--bs=True", "a whole number"), ("--bs=٣", "a whole number"),
    ("--bs=0", "at least 1"), ("--bs=-3", "at least 1"), ("--cuda_id=-2", "at least -1"),
    ("--n_lbls=2", "from 0 to 1"), ("--lr=0", "above 0"), ("--lr=-1", "above 0"), ("--lr=nan", "finite"),
    ("--lr=inf", "finite"), ("--lr=1e999", "finite"), ("--lr=1_0", "finite"), ("--lr=", "finite"),
    ("--lr=0,01", "finite"),
])
def test_impossible_numbers(capsys, argument, reason):
    err = refused(capsys, train_clas, argument)
    assert reason in err and argument.split("=")[0] in err


def test_choices(capsys):
    assert accepted(predict, "--split=test")["split"] == "test"
    calls.clear()
    err = refused(capsys, predict, "--split=tset")
    assert "did you mean test" in err and "val, test" in err


def test_an_empty_path_is_refused_unless_it_is_the_default(capsys):
    assert "a path is expected" in refused(capsys, train_clas, "--dir_path=")
    assert accepted(predict, "--csv=")["csv"] == ""


def test_a_value_with_a_space_is_positional_wherever_it_stands():
    assert accepted(train_clas, "-my data", "0")["dir_path"] == "-my data"


# names

@pytest.mark.parametrize("argument, near", [
    ("--backward", "--backwards"), ("--bakwards=True", "--backwards"), ("--no-backward", "--nobackwards"),
    ("--lmid=x", "--lm_id"), ("--use_crl", "--use_clr"), ("--dir", "--dir_path"), ("--BS=3", "--bs"),
    ("--Backwards", "--backwards"),
])
def test_a_mistyped_flag_names_the_near_one(capsys, argument, near):
    for argv in ([argument], [argument, "data/imdb"], ["data/imdb", "0", argument]):
        err = refused(capsys, train_clas, *argv)
        assert f"did you mean {near}?" in err and "see --help" in err


def test_an_unknown_flag_with_nothing_near(capsys):
    err = refused(capsys, train_clas, "--zzzzz=1")
    assert "--zzzzz is not a flag" in err and "did you mean" not in err and "--text" not in err


def test_an_unknown_flag_where_a_text_is_taken(capsys):
    assert '--text="--..."' in refused(capsys, predict, "--bad--")


@pytest.mark.parametrize("argv", [
    ["--bs=1", "--bs=2"], ["--bs=1", "--bs=1"], ["--lm_id=a", "--lm-id=b"], ["--backwards", "--nobackwards"],
    ["data/imdb", "--dir_path=data/imdb"], ["--dir_path=data/imdb", "data/imdb"],
    ["--dir_path", "data/imdb", "0"],
])
def test_the_same_flag_twice(capsys, argv):
    assert "given twice" in refused(capsys, train_clas, *argv)


def test_an_extra_positional_lists_the_order(capsys):
    err = refused(capsys, predict, "a film", "f.csv", "x", "val", "True", "surplus")
    assert "'surplus' is one value too many" in err and "text, csv, lm_id, split, quiet" in err


def test_a_wrong_positional_value_shows_the_order(capsys):
    err = refused(capsys, train_clas, "data", "imdb")
    assert "--cuda_id='imdb'" in err and "dir_path, cuda_id, lm_id" in err


@pytest.mark.parametrize("argv", [
    ["--lm_id"], ["data/imdb", "--lm_id"], ["--lm_id", "--backwards"], ["--lm_id", "--nobackwards"],
    ["--lm_id", "--bs=3"], ["--lm_id", "--"], ["--lm_id", "--bakwards"],
])
def test_a_value_flag_without_value(capsys, argv):
    assert "--lm_id needs a value" in refused(capsys, train_clas, *argv)


def test_only_a_text_may_look_like_an_unknown_flag(capsys):
    assert accepted(predict, "--text", "--bad--")["text"] == "--bad--"
    calls.clear()
    assert "--text needs a value" in refused(capsys, predict, "--text", "--quiet")
    assert "--csv needs a value" in refused(capsys, predict, "--csv", "--quite")


@pytest.mark.parametrize("token, hint", [
    ("-lm_id", "write --lm_id;"), ("-lm_id=x", "write --lm_id=x"), ("-lm-id=x", "write --lm_id=x"),
    ("-backwards", "write --backwards"), ("-nobackwards", "write --nobackwards"), ("-b", "--bs or --backwards"),
    ("-backward", "write --backwards"), ("-x", "see --help"), ("bs=64", "write --bs=64"),
    ("\N{EM DASH}backwards", "write --backwards"), ("-help", "write --help"),
])
def test_one_dash(capsys, token, hint):
    for argv in ([token], ["data/imdb", token]):
        assert hint in refused(capsys, train_clas, *argv).replace("\n", ";")


@pytest.mark.parametrize("token", ["-text", "-text=a film", "-quiet", "-lm-id=x"])
def test_one_dash_before_a_name_is_no_text(capsys, token):
    assert "write --" in refused(capsys, predict, token)


def test_a_required_parameter(capsys):
    assert accepted(get_data, "imdb")["name"] == "imdb"
    calls.clear()
    assert "name must be given: write --name=<id>" in refused(capsys, get_data, "--dir_path=x")


def test_a_message_is_one_line_and_cut(capsys):
    assert len(refused(capsys, train_clas, "--bs=" + "x\n" * 500)) < 200


def test_a_parameter_outside_the_register_is_a_bug():
    def stage(dir_path="", no_such_flag=1):
        calls.append(1)

    for argv in ([], ["--help"]):
        with pytest.raises(RuntimeError, match="no_such_flag"):
            cli.main(stage, argv)
    assert calls == []


# help

@pytest.mark.parametrize("argv", [
    ["--help"], ["-h"], ["data/imdb", "--help"], ["--backwards", "-h"], ["--nosuch", "x", "y", "--help"],
    ["--bs=0", "--help"], ["--", "--help"], ["--bs=0", "--", "-h"], ["--lm_id", "--help"], ["--lm_id", "-h"],
    ["--help", "--lm_id"],
])
def test_help_calls_nothing(capsys, argv):
    with pytest.raises(SystemExit) as stopped:
        cli.main(train_clas, argv)
    out, err = capsys.readouterr()
    assert stopped.value.code == 0 and calls == [] and err == ""
    assert out.startswith("usage: ") and "\n    python train_clas.py --backwards\n" in out


@pytest.mark.parametrize("columns", [50, 80, 300])
def test_help_text(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    text = cli.help_text(train_clas, "train_clas.py")
    assert max(len(line) for line in text.splitlines()) <= min(columns, 100)
    usage, docstring = text.split("\n\n")[:2]
    assert " ".join(usage.split()).startswith("usage: train_clas.py [dir_path] [cuda_id] [lm_id] [clas_id] [bs]")
    assert docstring == "Trains a classifier."
    groups = [line[:-1] for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert groups == ["Data", "Names", "Learning rates", "Training", "The run"]
    words = " ".join(text.split())
    for entry in ("--dir_path=data/imdb folder of the dataset", "--lm_id='' name of", "--clas_id=<id> name of",
                  "--[no]use_clr slanted", "(default True)", "--bs=64 batch size (at least 1)", "(above 0)",
                  "(from 0 to 1)"):
        assert entry in words
    assert "--split=val split to predict (val or test)" in " ".join(cli.help_text(predict, "p").split())
    assert "--name=<id>" in cli.help_text(get_data, "g") and "required" in cli.help_text(get_data, "g")


def test_every_kind_of_the_register_is_known():
    assert {flag.kind for flag in FLAGS.values()} <= {"bool", "int", "float", "id", "path", "text", "choice"}


# what the user chose

def test_typed_or_changed():
    seen = {}

    def tok2id(dir_path="data/imdb", max_vocab=30000, min_freq=1):
        seen["chosen"] = cli.typed_or_changed(tok2id, locals())

    cli.main(tok2id, ["--max_vocab=30000"])
    assert seen["chosen"] == {"max_vocab"}
    tok2id(min_freq=2, max_vocab=30000)
    assert seen["chosen"] == {"min_freq"} and cli.typed() == set()

    def create_toks(dir_path="data/imdb", chunksize=24000):
        seen["outer"] = cli.typed_or_changed(create_toks, locals())
        tok2id(dir_path, min_freq=3)

    cli.main(create_toks, ["--chunksize=24000"])
    assert seen == {"outer": {"chunksize"}, "chosen": {"min_freq"}}


# errors of the stage

@pytest.mark.parametrize("error, code, line", [
    (UserError("data/imdb/train.csv, row 7: a label\nis missing"), 1, "tok2id: error: data/imdb/train.csv, row 7: a"),
    (Interrupted(signal.SIGTERM), 143, "tok2id: stopped by signal 15"),
    (KeyboardInterrupt(), 130, "tok2id: interrupted"),
])
def test_errors_of_the_stage_are_one_line(capsys, error, code, line):
    def tok2id(dir_path="data/imdb"):
        raise error

    with pytest.raises(SystemExit) as stopped:
        cli.main(tok2id, [])
    err = capsys.readouterr().err
    assert stopped.value.code == code and err.startswith(line) and err.count("\n") == 1


def test_a_bug_keeps_its_traceback():
    def tok2id(dir_path="data/imdb"):
        return {}["missing"]

    with pytest.raises(KeyError):
        cli.main(tok2id, [])


# groups

def group(*argv):
    cli.main_group({"ensemble": ensemble, "runs": predict}, "python -m analysis", list(argv))


@pytest.mark.parametrize("runs", [[], ["a"], ["imdb--a--fwd", "b", "1e5"], ["-x", "a b", "", "--great film, really"]])
def test_any_number_of_values(runs):
    group("ensemble", *runs, "--split=test")
    assert calls == [{"runs": tuple(runs), "split": "test", "quiet": False,
                      "typed": {"split"} | ({"runs"} if runs else set())}]


def test_any_number_of_values_after_two_dashes():
    group("ensemble", "a", "--", "--", "-", "--quiet", "--help")
    assert calls[0]["runs"] == ("a", "--", "-", "--quiet", "--help") and calls[0]["quiet"] is False


@pytest.mark.parametrize("argv", [["ensembel"], ["ensembel", "--help"], ["Ensemble", "a"]])
def test_an_unknown_command(capsys, argv):
    with pytest.raises(SystemExit) as stopped:
        group(*argv)
    out, err = capsys.readouterr()
    assert stopped.value.code == 2 and out == "" and calls == [] and err.count("\n") == 1
    assert err.startswith("analysis: error:") and "did you mean ensemble?" in err and "ensemble, runs" in err


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["--", "--help"]])
def test_the_list_of_commands(capsys, argv):
    with pytest.raises(SystemExit) as stopped:
        group(*argv)
    out = capsys.readouterr().out
    assert stopped.value.code == 0 and calls == []
    assert "ensemble  Averages runs." in out and "More about it" not in out


def test_a_command_is_guarded_like_a_script(capsys):
    with pytest.raises(SystemExit):
        group("ensemble", "a", "--splt=val")
    assert capsys.readouterr().err.startswith("analysis ensemble: error: --splt is not a flag of ensemble; did you")
    with pytest.raises(SystemExit):
        group("ensemble", "a", "--help")
    assert capsys.readouterr().out.startswith("usage: python -m analysis ensemble [runs...]")


# real command lines

SCRIPT = """
import json, sys
sys.path.insert(0, {library!r})
from ulmfit import cli

def {name}({parameters}):
    '''A stage.'''
    with open({sentinel!r}, "w") as file:
        file.write("called")
    print(json.dumps(locals() | {{"file": None}}))
    {body}
    return "not printed"

if __name__ == "__main__":
    cli.main({name})
"""
TRAIN = "dir_path='data/imdb', cuda_id=None, lm_id='', clas_id=None, bs=64, backwards=False, lr=0.01, use_clr=True"
PREDICT = "text=None, csv=None, quiet=False"


@pytest.fixture
def script(tmp_path):
    """Runs a script of one stage; returns (exit code, what it received or None, stdout, stderr)."""
    def run(parameters, *argv, body="", name="train_clas"):
        sentinel = tmp_path / "called"
        sentinel.unlink(missing_ok=True)
        path = tmp_path / f"{name}.py"
        path.write_text(SCRIPT.format(library=str(LIBRARY), name=name, parameters=parameters, sentinel=str(sentinel),
                                      body=body or "pass"))
        done = subprocess.run([sys.executable, str(path), *argv], capture_output=True, text=True, cwd=tmp_path)
        received = json.loads(done.stdout) if sentinel.exists() else None
        return done.returncode, received, done.stdout, done.stderr
    return run


@pytest.mark.parametrize("parameters, argv, expected", [
    (TRAIN, ["--backwards", "data/imdb", "0"], {"backwards": True, "dir_path": "data/imdb", "cuda_id": 0}),
    (TRAIN, ["--use_clr", "False", "--lm-id", "1e5", "--clas_id=None"],
     {"use_clr": False, "lm_id": "1e5", "clas_id": "None"}),
    (TRAIN, ["data/imdb", "-1", "0x10", "a#b"], {"cuda_id": -1, "lm_id": "0x10", "clas_id": "a#b"}),
    (TRAIN, ["--lm_id=20261121_1030", "--lr", "1e-3"], {"lm_id": "20261121_1030", "lr": 0.001}),
    (PREDICT, ["-bad film"], {"text": "-bad film"}),
    (PREDICT, ["yes, no", "--quiet"], {"text": "yes, no", "quiet": True}),
    (PREDICT, ["--text", "--great film, really", "--csv=a -- b"], {"text": "--great film, really", "csv": "a -- b"}),
    (PREDICT, ["--quiet", "--", "--"], {"text": "--", "quiet": True}),
    (PREDICT, ["--text=-", "--csv", "-"], {"text": "-", "csv": "-"}),
    (PREDICT, ["--text=", "--csv=two\nlines"], {"text": "", "csv": "two\nlines"}),
])
def test_script_receives(script, parameters, argv, expected):
    code, received, out, err = script(parameters, *argv)
    assert code == 0 and err == "" and out.count("\n") == 1
    assert received | expected == received


@pytest.mark.parametrize("parameters, argv, message", [
    (TRAIN, ["--bakwards"], "did you mean --backwards?"),
    (TRAIN, ["data/imdb", "0", "a", "b", "64", "True", "0.1", "True", "surplus"], "one value too many"),
    (TRAIN, ["--backwards=false"], "--backwards=False"),
    (TRAIN, ["data/imdb", "--lm_id"], "needs a value"),
    (TRAIN, ["--bs=1", "--bs=2"], "given twice"),
    (TRAIN, ["--bs=64.0"], "a whole number"),
    (TRAIN, ["--bs=0"], "at least 1"),
    (TRAIN, ["--lr=-1"], "above 0"),
    (TRAIN, ["--lm_id=../x"], "cannot hold a path"),
    (TRAIN, ["-lm_id"], "write --lm_id"),
    (PREDICT, ["--bad--"], '--text="--..."'),
])
def test_script_refuses(script, parameters, argv, message):
    code, received, out, err = script(parameters, *argv)
    assert code == 2 and received is None and out == ""
    assert message in err and err.count("\n") == 1 and err.startswith("train_clas: error: ")


def test_script_shows_help_after_other_arguments(script):
    code, received, out, err = script(TRAIN, "data/imdb", "--bs=0", "--nosuch", "--help")
    assert code == 0 and received is None and err == ""
    assert out.startswith("usage: train_clas.py [dir_path] [cuda_id]")


@pytest.mark.parametrize("body, code, last", [
    ("from ulmfit.errors import UserError; raise UserError('no train.csv')", 1, "train_clas: error: no train.csv"),
    ("from ulmfit.errors import Interrupted; raise Interrupted(10)", 138, "train_clas: stopped by signal 10"),
    ("import os, signal; os.kill(os.getpid(), signal.SIGINT); [0 for _ in range(10**9)]", 130,
     "train_clas: interrupted"),
])
def test_script_that_fails_has_one_line_and_its_code(script, body, code, last):
    returned, received, _, err = script(TRAIN, body=body)
    assert (returned, err) == (code, last + "\n") and received is not None


def test_script_with_a_bug_has_a_traceback(script):
    code, _, _, err = script(TRAIN, body="raise KeyError('bug')")
    assert code == 1 and "Traceback" in err and err.endswith("KeyError: 'bug'\n")


@pytest.mark.parametrize("unbuffered", ["", "1"])  # when buffered, a short output meets the closed pipe at the end only
@pytest.mark.parametrize("argv, body", [([], "pass"), ([], "[print('x' * 100) for _ in range(10_000)]"),
                                        (["--help"], "pass")])
def test_a_closed_pipe_ends_quietly(script, tmp_path, argv, body, unbuffered):
    script(TRAIN, "--help", body=body)  # writes the script
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, str(tmp_path / "train_clas.py"), *argv], stdout=writing,
                          stderr=subprocess.PIPE, env=os.environ | {"PYTHONUNBUFFERED": unbuffered})
    os.close(writing)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_another_broken_pipe_is_not_hushed(script):
    code, _, _, err = script(TRAIN, body="raise BrokenPipeError('of a worker')")
    assert code == 1 and "BrokenPipeError: of a worker" in err


def test_help_imports_nothing_heavy(tmp_path):
    path = tmp_path / "train_clas.py"
    path.write_text(f"import sys, atexit\nsys.path.insert(0, {str(LIBRARY)!r})\n"
                    "heavy = {'torch', 'fastai', 'pandas', 'numpy', 'spacy', 'fire'}\n"
                    "atexit.register(lambda: print(sorted(heavy & set(sys.modules)), file=sys.stderr))\n"
                    "from ulmfit import cli\n"
                    "def train_clas(dir_path='data/imdb'):\n    'Trains.'\n"
                    "cli.main(train_clas)\n")
    shown = subprocess.run([sys.executable, str(path), "--help"], capture_output=True, text=True)
    assert shown.returncode == 0 and "--dir_path=data/imdb" in shown.stdout and shown.stderr == "[]\n"
    called = subprocess.run([sys.executable, str(path)], capture_output=True, text=True)
    assert called.returncode == 0 and called.stderr == "['fire']\n"


def test_a_text_that_is_not_utf8_is_refused(tmp_path):
    script = tmp_path / "stage.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(Path(cli.__file__).parents[1])!r})\n"
                      "from ulmfit import cli\n"
                      "def generate(text=''):\n    print('called')\n"
                      "cli.main(generate)\n")
    done = subprocess.run([sys.executable, script, b"caf\xe9"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "generate: error: --text: the text is not UTF-8; "
                                                           "the order by position is text\n")


def test_what_the_file_system_refuses_is_one_line_that_names_the_file(tmp_path, capsys):
    (tmp_path / "file").write_text("")

    def get_data(name):
        (tmp_path / name / "below").mkdir()

    with pytest.raises(SystemExit) as stopped:
        cli.main(get_data, ["file"])
    assert stopped.value.code == 1
    assert capsys.readouterr().err == f"get_data: error: {tmp_path / 'file' / 'below'}: Not a directory\n"

    def predict(text):
        with open("/dev/full", "w") as file:
            file.write(text)

    with pytest.raises(SystemExit):
        cli.main(predict, ["a text"])
    assert capsys.readouterr().err == "predict: error: No space left on device\n"

    def export(name):
        raise OSError("a bug of ours")

    with pytest.raises(OSError, match="a bug of ours"):
        cli.main(export, ["file"])
