"""What asking for a run means: new, reused, resumed, refused, stale; and what its record holds."""

import fcntl
import inspect
import json
import os
from pathlib import Path

import pytest

from ulmfit import files, names, records
from ulmfit.errors import Interrupted, UserError
from ulmfit.records import Input, open_run

RUN = "imdb--train_clas--fwd--word--a--all--s0"
IDS = {"ids": Input("data/imdb/word/ids", "0123", "imdb--tok2id--word")}


def train_clas(dir_path=None, cuda_id=None, lm_id="", clas_id=None, lr=0.01, backwards=False, train_file_id="", seed=0,
               lm_seed=None, threads=None, results_dir=None, overwrite=False, quiet=False):
    """A stage of this name with a few of its flags."""


def with_a_new_flag(stage=train_clas):
    """The stage as a later version has it, with one more flag."""
    def later(*given, dropmult=1.0, **named):
        stage(*given, **named)

    known = inspect.signature(stage).parameters.values()
    new = inspect.Parameter("dropmult", inspect.Parameter.KEYWORD_ONLY, default=1.0)
    later.__name__, later.__signature__ = stage.__name__, inspect.Signature([*known, new])
    return later


@pytest.fixture
def ask(tmp_path):
    """Asks for the run as a script does: ask(lr=0.02, inputs=...) returns the Run."""
    def ask(stage=train_clas, inputs=None, run_id=RUN, artefact=tmp_path / "model", writes=(), **typed):
        flags = {name: parameter.default for name, parameter in inspect.signature(stage).parameters.items()}
        flags.update({"results_dir": str(tmp_path / "results"), "dir_path": str(tmp_path / "imdb"), **typed})
        return open_run(stage, run_id, flags, IDS if inputs is None else inputs, artefact=artefact, writes=writes,
                        dataset="imdb")

    return ask


def make(run, metrics=None) -> dict:
    with run:
        run.finish(metrics or {"last": {"error": 5.0}}, kind="classifier")
    return record(run)


def record(run) -> dict:
    return json.loads((run.folder / "run.json").read_text(encoding="utf-8"))


def refused(call) -> str:
    with pytest.raises(UserError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def changed(fingerprint: str) -> dict[str, Input]:
    return {"ids": Input("data/imdb/word/ids", fingerprint, "imdb--tok2id--word")}


# -- new and reused --------------------------------------------------------------------------------------------------

def test_a_new_run_has_its_record_before_the_work_begins(ask, tmp_path):
    run = ask(lr=0.02, seed=3, lm_id="1e5")
    assert not run.reused and not run.resumed
    assert run.folder == tmp_path / "results" / "runs" / RUN and run.artefact.is_dir()
    begun = record(run)
    assert begun["status"] == "running" and begun["error"] is None and begun["metrics"] == {}
    assert (begun["id"], begun["stage"], begun["dataset"], begun["seed"]) == (RUN, "train_clas", "imdb", 3)
    assert begun["config"] == {"lr": 0.02, "seed": 3}
    assert begun["flags"].keys() == inspect.signature(train_clas).parameters.keys()
    assert begun["flags"]["lm_id"] == "1e5" and begun["flags"]["backwards"] is False
    assert begun["inputs"] == {"ids": {"path": "data/imdb/word/ids", "fingerprint": "0123",
                                       "run": "imdb--tok2id--word"}}
    assert begun["parents"] == ["imdb--tok2id--word"]
    assert begun["versions"]["python"] and begun["git"].keys() == {"commit", "dirty"}
    assert begun["command"] == ("python imdb_scripts/train_clas.py --dir_path=imdb --lm_id=1e5 --lr=0.02 --seed=3 "
                                "--results_dir=results")
    assert not (run.artefact / records.MANIFEST).exists()
    run.__exit__(None, None, None)


def test_a_finished_run_has_metrics_and_a_manifest(ask):
    run = ask()
    done = make(run, {"best": {"error": 4.5}, "last": {"error": 5.0}})
    assert done["status"] == "finished" and done["error"] is None and done["kind"] == "classifier"
    assert done["metrics"] == {"best": {"error": 4.5}, "last": {"error": 5.0}}
    assert done["wall_seconds"] >= 0 and done["peak_memory_mb"] > 1
    manifest = json.loads((run.artefact / records.MANIFEST).read_text(encoding="utf-8"))
    assert manifest["run"] == RUN and manifest["kind"] == "classifier"
    assert all(manifest[key] == done[key] for key in ("stage", "stage_version", "fingerprint", "config", "inputs"))
    assert records.artefact_input(run.artefact, "train_clas") == Input("model", done["fingerprint"], RUN)
    assert records.read_run(run.folder) == done


def test_a_finished_run_is_reused_in_one_line(ask, capsys):
    first = ask()
    before = make(first)
    capsys.readouterr()
    again = ask()
    assert again.reused and not again.resumed and again.record == before == record(first)
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1 and RUN in printed and "reused" in printed


@pytest.mark.parametrize("other", [
    {"dir_path": "elsewhere/imdb"}, {"cuda_id": -1}, {"lm_id": "x"}, {"clas_id": "y"}, {"train_file_id": "few"},
    {"lm_seed": 4}, {"threads": 2}, {"quiet": True}, {"inputs": {"ids": Input("elsewhere/ids", "0123", "other")}}])
def test_what_does_not_change_the_result_is_no_other_run(ask, other):
    mark = make(ask())["fingerprint"]
    again = ask(**other)
    assert again.reused and again.record["fingerprint"] == mark


@pytest.mark.parametrize("other", [
    {"lr": 0.02}, {"backwards": True}, {"seed": 1}, {"inputs": changed("4567")}, {"inputs": {}},
    {"inputs": {**IDS, "subset": Input("few.txt", "89")}}, {"inputs": {"tokens": IDS["ids"]}}])
def test_what_changes_the_result_changes_the_fingerprint(ask, tmp_path, other):
    first = make(ask())
    second = make(ask(run_id=RUN + "2", artefact=tmp_path / "other", **other))
    assert first["fingerprint"] != second["fingerprint"] and len(second["fingerprint"]) == 16


def test_the_fingerprint_takes_the_stages_version(ask, monkeypatch):
    make(ask())
    monkeypatch.setitem(records.STAGE_VERSIONS, "train_clas", 99)
    assert "older version of train_clas" in refused(ask)


def test_a_changed_default_leaves_the_meaning_of_earlier_records(ask, monkeypatch):
    """As if --lr had once been 0.02 without being typed: a run of then and one of now are not the same."""
    monkeypatch.setitem(records.FIRST_DEFAULTS, ("train_clas", "lr"), 0.02)
    default = inspect.signature(train_clas).parameters["lr"].default
    made = make(ask())
    assert made["config"]["lr"] == default
    assert f"lr: {default} there, 0.02 asked" in refused(lambda: ask(lr=0.02))
    assert records.config_of(train_clas, {**made["flags"], "lr": 0.02}).get("lr") is None


def test_resolved_values_enter_the_fingerprint(tmp_path):
    flags = {name: parameter.default for name, parameter in inspect.signature(train_clas).parameters.items()}
    marks = set()
    for number, sizes in enumerate(({"emb_sz": 4}, {"emb_sz": 5}, {})):
        run = open_run(train_clas, RUN, {**flags, "results_dir": tmp_path / str(number)}, IDS, resolved=sizes)
        assert record(run)["config"] == sizes
        marks.add(record(run)["fingerprint"])
    assert len(marks) == 3


def test_a_flag_that_comes_later_leaves_older_runs_as_they_are(ask):
    mark = make(ask(lr=0.02))["fingerprint"]
    later = with_a_new_flag()
    again = ask(later, lr=0.02)
    assert again.reused and again.record["fingerprint"] == mark
    again.__exit__(None, None, None)
    assert "dropmult: 1.0 there, 0.5 asked" in refused(lambda: ask(later, lr=0.02, dropmult=0.5))


# -- resumed ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("error, status, shown", [
    (ValueError("no such luck"), "failed", "ValueError: no such luck"),
    (UserError("mend this"), "failed", "UserError: mend this"),
    (Interrupted(15), "interrupted", "Interrupted: stopped by signal 15"),
    (KeyboardInterrupt(), "interrupted", "KeyboardInterrupt: ")])
def test_a_run_that_ended_early_says_how_and_is_resumed(ask, error, status, shown):
    run = ask()
    with pytest.raises(type(error)):
        with run:
            run.append_epoch({"epoch": 0})
            raise error
    ended = record(run)
    assert (ended["status"], ended["error"]) == (status, shown)
    assert not (run.artefact / records.MANIFEST).exists()

    again = ask()
    assert again.resumed and not again.reused and again.epochs() == [{"epoch": 0}]
    assert record(again)["status"] == "running" and record(again)["error"] is None
    done = make(again)
    assert done["status"] == "finished" and done["error"] is None and done["started"] == ended["started"]
    assert len(done["sessions"]) == 2 and done["sessions"][0] == ended["sessions"][0]
    assert ask().reused


def test_a_killed_run_is_resumed_and_its_time_counts(ask):
    run = ask()
    run.record["sessions"][-1]["seconds"] = 0
    run._began -= 100
    run.save()
    # The process is gone without a word: the record says "running", the lock is free.
    for lock in run._locks:
        lock.close()
    again = ask()
    assert again.resumed
    done = make(again)
    assert 100 <= done["wall_seconds"] < 160 and done["sessions"][0]["seconds"] >= 100 > done["sessions"][1]["seconds"]


def test_a_failed_run_keeps_its_traceback(ask):
    def deep():
        raise ValueError("no such luck\nsecond line")

    run = ask()
    with pytest.raises(ValueError), run:
        run.say("phase 1")
        deep()
    assert record(run)["error"] == "ValueError: no such luck"
    log = (run.folder / "log.txt").read_text(encoding="utf-8")
    assert "phase 1" in log and "Traceback" in log and "in deep" in log and log.endswith("second line\n")


def test_an_error_of_the_users_and_an_interruption_leave_no_traceback(ask):
    for error in (UserError("mend this"), Interrupted(2)):
        run = ask()
        with pytest.raises(type(error)), run:
            raise error
    log = (run.folder / "log.txt").read_text(encoding="utf-8")
    assert "failed: UserError: mend this" in log and "interrupted: " in log and "Traceback" not in log


def test_an_error_after_the_end_leaves_the_run_finished(ask):
    run = ask()
    with pytest.raises(ValueError), run:
        run.finish()
        raise ValueError("while printing")
    assert record(run)["status"] == "finished" and ask().reused


def test_a_run_whose_artefact_is_gone_is_made_again(ask):
    run = ask()
    make(run)
    (run.artefact / records.MANIFEST).unlink()
    (run.folder / "metrics.jsonl").write_text('{"epoch": 0}\n', encoding="utf-8")
    again = ask()
    # Nothing of it is to be trusted: it is made anew, not resumed.
    assert not again.reused and not again.resumed and again.epochs() == []
    assert record(again)["status"] == "running" and len(make(again)["sessions"]) == 1
    assert ask().reused


def test_a_run_whose_record_is_gone_is_made_again(ask):
    run = ask()
    make(run)
    (run.folder / "run.json").unlink()
    again = ask()
    assert not again.reused and not again.resumed and not (run.artefact / records.MANIFEST).exists()


def test_a_run_without_an_artefact_needs_none(ask):
    make(ask(artefact=None))
    assert ask(artefact=None).reused


def test_a_run_that_failed_before_it_made_anything_stands_in_nobodys_way(ask):
    run = ask(lr=0.02)
    with pytest.raises(UserError), run:
        run.say("a line of the failed run")
        raise UserError("lr is too high")
    run = ask(seed=5)
    assert not run.resumed and record(run)["config"] == {"seed": 5}
    assert not (run.folder / "log.txt").exists()
    # A checkpoint is hours of somebody's work.
    (run.artefact / "checkpoint.pt").write_bytes(b"")
    with pytest.raises(ValueError), run:
        raise ValueError
    assert "seed: 5 there, 6 asked" in refused(lambda: ask(seed=6))


# -- refused ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("end", ["finished", "failed", "killed"])
def test_other_flags_under_the_same_name_are_refused_with_the_difference(ask, end):
    run = ask(lr=0.02)
    if end == "finished":
        make(run)
    elif end == "failed":
        with pytest.raises(ValueError), run:
            run.append_epoch({"epoch": 0, "val_loss": 1.0})
            raise ValueError
    else:
        for lock in run._locks:
            lock.close()
    before = record(run)
    message = refused(lambda: ask(seed=5))
    assert RUN in message and "--overwrite" in message
    assert "lr: 0.02 there, 0.01 asked" in message and "seed: 0 there, 5 asked" in message
    assert "backwards" not in message
    assert record(run) == before
    # The lock is free again: the run can be asked for as it was.
    assert ask(lr=0.02).reused == (end == "finished")


@pytest.mark.parametrize("now, named", [
    (changed("4567"), "data/imdb/word/ids"), ({**IDS, "subset": Input("subsets/few.txt", "89")}, "subsets/few.txt"),
    ({}, "data/imdb/word/ids")])
def test_a_changed_input_makes_the_run_stale_and_is_named(ask, now, named):
    make(ask(inputs=IDS))
    message = refused(lambda: ask(inputs=now))
    assert "stale" in message and named in message and "--overwrite" in message
    assert ("data/imdb/word/ids" in message) == (named == "data/imdb/word/ids")


@pytest.mark.parametrize("now, said", [
    (Input("data/imdb/bpe/ids", "4567", "imdb--tok2id--bpe"), "made from data/imdb/word/ids, where data/imdb/bpe/ids"),
    (Input("data/imdb/word/ids", "4567", "other--tok2id--word"),
     "made from imdb--tok2id--word, where other--tok2id--word")], ids=["path", "run"])
def test_another_input_is_told_from_one_that_changed(ask, now, said):
    make(ask())
    message = refused(lambda: ask(inputs={"ids": now}))
    assert f"{said} is asked for; give this run a name of its own or replace that one with --overwrite" in message
    assert "stale" not in message


def test_another_runs_artefact_is_not_replaced_unasked(ask, tmp_path):
    make(ask(results_dir=str(tmp_path / "first")))
    assert "lr: 0.01 there, 0.02 asked" in refused(lambda: ask(results_dir=str(tmp_path / "second"), lr=0.02))
    make(ask(results_dir=str(tmp_path / "second"), lr=0.02, overwrite=True))
    # The first record is still there and finished, but what it made is not.
    assert "lr: 0.02 there, 0.01 asked" in refused(lambda: ask(results_dir=str(tmp_path / "first")))
    assert ask(results_dir=str(tmp_path / "second"), lr=0.02).reused


def test_overwrite_replaces_a_run(ask):
    run = ask(lr=0.02)
    run.append_epoch({"epoch": 0})
    (run.folder / "predictions.csv").write_text("old", encoding="utf-8")
    (run.folder / "plots").mkdir()
    run.say("the old one")
    make(run)
    again = ask(seed=5, overwrite=True)
    assert not again.reused and not again.resumed and again.epochs() == []
    assert {path.name for path in again.folder.iterdir()} == {".lock", ".replaced", "run.json"}
    done = make(again)
    assert {path.name for path in again.folder.iterdir()} == {".lock", "run.json"}
    assert done["config"] == {"seed": 5} and "overwrite" not in done["command"]
    assert ask(seed=5).reused


# -- what is replaced ------------------------------------------------------------------------------------------------

def whole(run) -> dict[str, bytes]:
    """Every file of a run's record and artefact, the locks aside."""
    return {str(path): path.read_bytes() for folder in (run.folder, run.artefact) for path in folder.rglob("*")
            if path.is_file() and path.name != ".lock"}


def of_note(ask, **typed) -> tuple:
    """A finished run with weights and predictions, and all of its files."""
    run = ask(**typed)
    (run.artefact / "weights.safetensors").write_bytes(b"of note")
    (run.folder / "predictions.csv").write_text("of note", encoding="utf-8")
    make(run)
    return run, whole(run)


def die(run) -> None:
    """As a process that is killed leaves a run."""
    for lock in run._locks:
        lock.close()


def half_made(run, checkpoint: bool) -> None:
    (run.artefact / "weights.safetensors").write_bytes(b"half")
    run.append_epoch({"epoch": 0})
    if checkpoint:
        (run.artefact / "checkpoint.pt").write_bytes(b"half way")


@pytest.mark.parametrize("error", [UserError("the loss is no longer finite"), ValueError("a defect"), Interrupted(15)])
@pytest.mark.parametrize("flags", [{"lr": 0.5}, {}], ids=["other", "equal"])
def test_a_run_is_kept_when_what_would_replace_it_comes_to_nothing(ask, capsys, error, flags):
    run, before = of_note(ask)
    with pytest.raises(type(error)), ask(**flags, overwrite=True) as again:
        half_made(again, checkpoint=False)
        raise error
    assert "the earlier run is kept as it was" in capsys.readouterr().out
    assert whole(run) == before and ask().reused


@pytest.mark.parametrize("flags", [{"lr": 0.5}, {}], ids=["other", "equal"])
def test_a_run_is_kept_when_the_process_that_would_replace_it_is_killed(ask, flags):
    run, before = of_note(ask)
    again = ask(**flags, overwrite=True)
    half_made(again, checkpoint=False)
    die(again)
    assert ask().reused and whole(run) == before


@pytest.mark.parametrize("end", ["failed", "interrupted", "killed"])
def test_a_replacement_that_can_go_on_does_and_the_earlier_run_stays_beside_it(ask, capsys, end):
    run, before = of_note(ask)
    again = ask(lr=0.5, overwrite=True)
    half_made(again, checkpoint=True)
    if end == "killed":
        die(again)
    else:
        with pytest.raises((OSError, Interrupted)), again:
            raise OSError("disk full") if end == "failed" else Interrupted(15)
        assert f"the earlier run stays in {run.folder / '.replaced'}" in capsys.readouterr().out
    assert (run.artefact / ".replaced" / "weights.safetensors").read_bytes() == b"of note"
    resumed = ask(lr=0.5)
    assert resumed.resumed and (resumed.artefact / "checkpoint.pt").exists()
    make(resumed)
    assert not (run.artefact / ".replaced").exists() and not (run.folder / ".replaced").exists()
    assert ask(lr=0.5).reused


def test_the_earlier_run_comes_back_when_it_is_asked_for(ask):
    run, before = of_note(ask)
    again = ask(lr=0.5, overwrite=True)
    half_made(again, checkpoint=True)
    die(again)
    assert "with other flags" in refused(lambda: ask(lr=0.7))
    assert ask().reused and whole(run) == before


def test_a_second_attempt_keeps_the_run_that_was_whole(ask):
    run, before = of_note(ask)
    for lr in (0.5, 0.6):
        again = ask(lr=lr, overwrite=True)
        half_made(again, checkpoint=True)
        die(again)
    assert not (again.artefact / ".replaced" / "checkpoint.pt").exists()
    assert ask().reused and whole(run) == before


def keep_intermediate(run) -> None:
    place, = run.writes
    files.write_json(place / records.MANIFEST, {"fingerprint": run.record["fingerprint"] + "-intermediate"})


@pytest.mark.parametrize("end", ["failed", "interrupted", "killed", "finished"])
@pytest.mark.parametrize("earlier", [True, False], ids=["beside one", "beside none"])
def test_what_a_run_writes_besides_is_replaced_with_it(ask, tmp_path, end, earlier):
    place = tmp_path / "model--intermediate"
    run = ask(writes=(place,) if earlier else ())
    if earlier:
        keep_intermediate(run)
    make(run)
    before = whole(run) | {str(path): path.read_bytes() for path in place.glob("*.json")}
    for lr in (0.4, 0.5):
        again = ask(lr=lr, overwrite=True, writes=(place,))
        assert not (place / records.MANIFEST).exists()
        keep_intermediate(again)
        half_made(again, checkpoint=end != "failed")
        if end in ("failed", "interrupted"):
            with pytest.raises((ValueError, Interrupted)), again:
                raise ValueError if end == "failed" else Interrupted(15)
        else:
            die(again)
    if end == "finished":
        resumed = ask(lr=0.5, writes=(place,))
        assert resumed.resumed and (place / records.MANIFEST).exists()
        make(resumed)
        assert ask(lr=0.5, writes=(place,)).reused and [path.name for path in place.iterdir()] == [records.MANIFEST]
    else:
        assert ask(writes=(place,)).reused == earlier == (place / records.MANIFEST).exists()
        assert not earlier or whole(run) | {str(path): path.read_bytes() for path in place.glob("*.json")} == before


def test_of_a_shared_folder_the_manifest_alone_is_set_aside(ask, tmp_path):
    def make_data(**typed):
        flags = {"results_dir": str(tmp_path / "results"), "overwrite": False, "quiet": False, **typed}
        return open_run(train_clas, "imdb--get_data", flags, IDS, artefact=tmp_path / "imdb", shared=True)

    (tmp_path / "imdb" / "models").mkdir(parents=True)
    (tmp_path / "imdb" / "mine.txt").write_text("mine", encoding="utf-8")
    make(make_data())
    before = whole(make_data())
    again = make_data(overwrite=True)
    assert (tmp_path / "imdb" / "mine.txt").exists() and not (tmp_path / "imdb" / "manifest.json").exists()
    with pytest.raises(UserError), again:
        raise UserError("no such archive")
    assert whole(again) == before and (tmp_path / "imdb" / "models").is_dir()
    make(make_data(overwrite=True))
    assert (tmp_path / "imdb" / "mine.txt").exists() and "files" not in records.read_manifest(tmp_path / "imdb", "")


def test_a_move_that_was_cut_off_is_undone(ask):
    run, before = of_note(ask)
    for folder in (run.folder, run.artefact):
        (folder / ".replacing").mkdir()
        name = "run.json" if folder == run.folder else "weights.safetensors"
        (folder / name).rename(folder / ".replacing" / name)
    assert ask().reused and whole(run) == before


def test_another_results_folder_gets_back_what_it_asks_for(ask, tmp_path):
    """The artefact is one of both: an attempt of the second is no reason to make the first again."""
    first, second = (str(tmp_path / name) for name in ("first", "second"))
    run, before = of_note(ask, results_dir=first)
    again = ask(lr=0.5, overwrite=True, results_dir=second)
    half_made(again, checkpoint=True)
    die(again)
    assert ask(results_dir=first).reused and whole(run) == before


# -- what was deleted by hand ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("spoil, problem", [
    (lambda path: path.unlink(), "is missing"),
    (lambda path: path.write_bytes(b"of"), "has 2 bytes, where 7 were written")], ids=["deleted", "cut off"])
def test_a_run_whose_files_were_lost_is_made_again(ask, capsys, spoil, problem):
    run, before = of_note(ask)
    weights = run.artefact / "weights.safetensors"
    spoil(weights)
    assert problem in refused(lambda: records.read_manifest(run.artefact, "train_clas.py"))
    capsys.readouterr()
    again = ask()
    said = capsys.readouterr().out
    assert not again.reused and f"{RUN}: made again, as {weights} {problem}" in said
    with pytest.raises(ValueError), again:
        raise ValueError
    # The record of the run, with its numbers, has outlived the attempt.
    assert (run.folder / "predictions.csv").read_text(encoding="utf-8") == "of note" and record(run)["status"] == "finished"
    make(ask())
    assert ask().reused


def test_a_run_is_made_again_when_what_it_wrote_besides_was_lost(ask, tmp_path, capsys):
    place = tmp_path / "model--intermediate"
    run = ask(writes=(place,))
    keep_intermediate(run)
    make(run)
    assert ask(writes=(place,)).reused
    (place / records.MANIFEST).unlink()
    capsys.readouterr()
    again = ask(writes=(place,))
    assert not again.reused and f"made again, as {place} is missing or unfinished" in capsys.readouterr().out
    keep_intermediate(again)
    make(again)
    assert ask(writes=(place,)).reused


def test_overwrite_makes_an_equal_run_again(ask):
    make(ask())
    again = ask(overwrite=True)
    assert not again.reused and not again.resumed and not (again.artefact / records.MANIFEST).exists()


@pytest.mark.parametrize("begun, error, flags, checkpoint", [
    ({}, Interrupted(15), {}, True), ({"overwrite": True}, ValueError(), {}, True),
    ({"overwrite": True}, None, {}, True), ({"overwrite": True}, Interrupted(15), {"lr": 0.7}, True),
    ({"overwrite": True}, Interrupted(15), {}, False)],
    ids=["begun without it", "failed", "finished", "other flags", "no checkpoint"])
def test_overwrite_does_not_resume(ask, begun, error, flags, checkpoint):
    run = ask(lr=0.5, **begun)
    half_made(run, checkpoint)
    if error is None:
        make(run)
    else:
        with pytest.raises(type(error)), run:
            raise error
    again = ask(**{"lr": 0.5, **flags, "overwrite": True})
    assert not again.resumed and not again.reused and not (again.artefact / "checkpoint.pt").exists()


@pytest.mark.parametrize("killed", [True, False])
def test_an_overwrite_that_was_stopped_goes_on_when_it_is_repeated(ask, killed):
    run, before = of_note(ask)
    for _ in range(2):
        again = ask(lr=0.5, overwrite=True)
        half_made(again, checkpoint=True)
        if killed:
            die(again)
        else:
            with pytest.raises(Interrupted), again:
                raise Interrupted(15)
    assert again.resumed and len(again.epochs()) == 2
    assert (run.artefact / ".replaced" / "weights.safetensors").read_bytes() == b"of note"
    die(ask(lr=0.5, overwrite=True))
    assert ask().reused and whole(run) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_that_another_process_makes_is_left_alone(ask, tmp_path, overwrite):
    folder = tmp_path / "results" / "runs" / RUN
    folder.mkdir(parents=True)
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with open(folder / ".lock", "w", encoding="ascii") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                os.write(ready[1], b"x")
                os.read(done[0], 1)
        finally:
            os._exit(0)
    try:
        os.read(ready[0], 1)
        message = refused(lambda: ask(overwrite=overwrite))
        assert RUN in message and "another process" in message and not (folder / "run.json").exists()
    finally:
        os.write(done[1], b"x")
        os.waitpid(child, 0)
        for end in (*ready, *done):
            os.close(end)
    assert not ask(overwrite=overwrite).reused


def test_the_lock_is_held_until_the_run_ends(ask):
    run = ask()
    assert "another process" in refused(ask)
    make(run)
    assert ask().reused


# -- what a record holds ---------------------------------------------------------------------------------------------

def test_records_hold_no_path_from_outside_the_project(ask, tmp_path):
    source = tmp_path / "private" / "few.txt"
    source.parent.mkdir()
    source.write_text("1\n", encoding="utf-8")
    run = ask(inputs={**IDS, "subset": records.subset_input(source)})
    run.say(f"reading {source}")
    with pytest.raises(FileNotFoundError), run:
        (tmp_path / "private" / "missing.csv").read_text(encoding="utf-8")
    assert record(run)["status"] == "failed" and "missing.csv" in record(run)["error"]
    for path in run.folder.iterdir():
        text = path.read_text(encoding="utf-8")
        assert all(f"{outside}/" not in text for outside in (tmp_path, names.project_root(), Path.home()))
    make(ask(inputs={**IDS, "subset": records.subset_input(source)}))
    for path in (run.folder / "run.json", run.artefact / records.MANIFEST):
        assert str(tmp_path) not in path.read_text(encoding="utf-8")


def test_paths_of_the_project_are_relative_to_it(tmp_path):
    root = names.project_root()
    flags = {name: parameter.default for name, parameter in inspect.signature(train_clas).parameters.items()}
    flags.update(dir_path=str(root / "data" / "trec6"), results_dir=str(tmp_path / "with space"))
    run = open_run(train_clas, RUN, flags, IDS)
    assert record(run)["flags"]["dir_path"] == "data/trec6"
    assert record(run)["command"] == ("python imdb_scripts/train_clas.py --dir_path=data/trec6 "
                                      "'--results_dir=with space'")


@pytest.mark.parametrize("write", ["save", "finish"])
def test_a_record_is_whole_at_every_moment(ask, monkeypatch, write):
    run = ask()
    moves = []
    replace = os.replace

    def watched(source, target):
        # What is moved into place is whole already, and what it replaces still is.
        json.loads(Path(source).read_text(encoding="utf-8"))
        assert Path(source).parent == Path(target).parent
        if Path(target).name == "run.json":
            assert record(run)["status"] == "running"
        moves.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", watched)
    getattr(run, write)()
    # A record that says "finished" has all its files: it comes last.
    assert moves == (["run.json"] if write == "save" else [records.MANIFEST, "run.json"])


def test_a_write_that_fails_leaves_the_record_as_it_was(ask, monkeypatch):
    run = ask()
    before = record(run)

    def full(descriptor):
        raise OSError("no space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError):
        run.finish()
    assert record(run) == before
    assert not [path for folder in (run.folder, run.artefact) for path in folder.iterdir() if "tmp" in path.name]


def test_epochs_are_lines_and_can_be_set_back(ask):
    run = ask()
    assert run.epochs() == []
    for epoch in range(3):
        run.append_epoch({"epoch": epoch, "val_loss": 1 / (epoch + 1)})
    run.write_epochs(run.epochs()[:2])
    run.append_epoch({"epoch": 2, "val_loss": 7})
    assert [row["epoch"] for row in run.epochs()] == [0, 1, 2] and run.epochs()[2]["val_loss"] == 7
    assert len((run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()) == 3


def test_quiet_prints_the_result_alone_and_logs_everything(ask, capsys):
    run = ask(quiet=True)
    run.say("epoch 1")
    run.say("error 5.00%", important=True)
    assert capsys.readouterr().out == "error 5.00%\n"
    log = (run.folder / "log.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split("  ", 1)[1] for line in log] == ["epoch 1", "error 5.00%"]


# -- inputs ----------------------------------------------------------------------------------------------------------

def test_a_file_is_known_by_its_bytes(tmp_path):
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    first.write_bytes(b"1,x\n")
    second.write_bytes(b"1,x\n")
    assert records.file_input(first).fingerprint == records.file_input(second).fingerprint
    assert records.file_input(first).path == "a.csv" and records.file_input(first).run is None
    second.write_bytes(b"1,y\n")
    assert records.file_input(first).fingerprint != records.file_input(second).fingerprint


def test_a_missing_input_names_what_makes_it(tmp_path):
    assert "run first: python tok2id.py" in refused(lambda: records.artefact_input(tmp_path, "python tok2id.py"))
    assert "one row number" in refused(lambda: records.subset_input(tmp_path / "few.txt"))
    assert "run.json" in refused(lambda: records.read_run(tmp_path))


def test_a_damaged_record_is_refused_in_one_line(ask):
    run = ask()
    make(run)
    (run.folder / "run.json").write_text('{"id": "im', encoding="utf-8")
    assert "run.json is not readable as JSON" in refused(ask)


def test_sizes_come_from_the_weights_unless_typed_otherwise(tmp_path):
    sizes = {"emb_sz": 400, "n_hid": 1152, "n_layers": 3}
    stored = {"emb_sz": 100, "n_hid": 200, "n_layers": 3}
    files.write_json(tmp_path / records.MANIFEST, {"sizes": stored})

    def loaded(typed: set[str], **other) -> dict:
        return records.loaded_sizes(tmp_path, "finetune_lm", {**sizes, **other}, typed)

    assert loaded(set()) == stored == loaded({"emb_sz", "n_layers"}, emb_sz=100)
    message = refused(lambda: loaded({"emb_sz"}))
    assert "--emb_sz=400" in message and "emb_sz=100" in message


def read_of(content: str | None) -> dict[str, Input]:
    return {"ids": Input("data/imdb/models/a", "0123", "imdb--finetune_lm--a", content)}


def test_what_was_read_with_other_digits_is_read_again(ask, capsys):
    first = make(ask(inputs=read_of("weights:aa"), artefact=None), {"last": {"error": 5.0}})
    assert first["inputs"]["ids"]["content"] == "weights:aa"
    assert ask(inputs=read_of("weights:aa"), artefact=None).reused
    capsys.readouterr()
    again = ask(inputs=read_of("weights:bb"), artefact=None)
    assert not again.reused and not again.resumed
    assert capsys.readouterr().out == f"{RUN}: made again, as data/imdb/models/a was, with other digits\n"
    assert make(again)["inputs"]["ids"]["content"] == "weights:bb"
    # What an earlier version recorded, without a digest, stands as before.
    old = record(again)
    del old["inputs"]["ids"]["content"]
    files.write_json(again.folder / "run.json", old)
    assert ask(inputs=read_of("weights:cc"), artefact=None).reused
