"""launch on this machine: plans that are refused, runs that fail, are cut off, and are shared by two launches."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from sweep_flow import Place, essence, table
from ulmfit import files, replacement
from ulmfit.errors import Interrupted, UsageError, UserError

from launching import estimates, local, machine, plan, states, view
from launching.estimates import Corpus, Past
from launching.states import Kind, State

LONG_LM = "--cl=50 --bs=4 --bptt=20"
LM = "smoke--finetune_lm--fwd--word--smoke--all--s0"
CLAS = "smoke--train_clas--fwd--word--smoke--all--s0"


def steps_of(*lines):
    return plan.read("\n".join(lines))


# -- plans -------------------------------------------------------------------------------------------------------------

GET = "python imdb_scripts/get_data.py bbc --dir_path={0}/x --results_dir={0}/results"
TOKENS = "python imdb_scripts/create_toks.py --dir_path={0}/x --results_dir={0}/results"
IDS = "python imdb_scripts/tok2id.py --dir_path={0}/x --results_dir={0}/results"
BASELINE = "python imdb_scripts/train_baseline.py --dir_path={0}/x --results_dir={0}/results"


def lines(tmp_path, *commands):
    return [command.format(tmp_path) for command in commands]


def test_a_step_needs_those_that_make_what_it_reads(tmp_path):
    steps = steps_of("# a comment", "", *lines(tmp_path, GET, TOKENS, IDS, BASELINE), "python -m analysis runs")
    get, tokens, ids, baseline, table_ = steps
    assert [step.line for step in steps] == [3, 4, 5, 6, 7]
    assert (get.needs, tokens.needs, ids.needs) == ([], [get], [tokens])
    assert baseline.needs == [tokens, ids] and table_.needs == steps[:4] and table_.run is None


def test_a_command_that_stands_there_twice_is_one(tmp_path):
    again = lines(tmp_path, GET, TOKENS, TOKENS + " --quiet", GET)
    assert [step.name for step in steps_of(*again)] == ["x--get_data", "x--create_toks--word"]


@pytest.mark.parametrize(("commands", "said"), [
    ((TOKENS,), "line 1 of the plan: x--create_toks--word reads .*train.csv, which is not there and no command"),
    ((GET, IDS, TOKENS), "line 2 of the plan: x--tok2id--word reads .*tokens, which line 3 makes; put that one first"),
    ((GET, TOKENS, TOKENS + " --lang=de"), "lines 2 and 3 of the plan make x--create_toks--word by different commands"),
    ((GET, TOKENS, IDS, IDS + " --max_vocab=9"), "lines 3 and 4 of the plan make x--tok2id--word by different"),
])
def test_a_plan_that_cannot_come_true_is_refused(tmp_path, commands, said):
    with pytest.raises(UserError, match=said):
        steps_of(*lines(tmp_path, *commands))


@pytest.mark.parametrize(("line", "said"), [
    ("rm -rf data", "is none; a plan holds lines like"), ("python -c 1", "is none"),
    ("python 'x", "No closing quotation"),
    ("python imdb_scripts/tok2id.py --max_vocb=1", "--max_vocb is not a flag of tok2id; did you mean --max_vocab"),
    ("python imdb_scripts/show_batch.py", "show_batch is no stage of a sweep"), ("python other/tok2id.py", "is none"),
    ("python -m analysis ensemble one", "ensemble averages two runs or more")])
def test_a_line_that_is_no_command_of_a_plan(line, said):
    with pytest.raises(UsageError, match=said) as error:
        steps_of(line)
    assert str(error.value).startswith("line 1 of the plan: ")


def test_refusals_are_one_line_and_nothing_runs(tmp_path):
    place = Place(tmp_path)
    done = place.launch(TOKENS.format(tmp_path))
    assert done.returncode == 1 and len(done.stdout.splitlines()) == 1
    assert done.stdout.startswith("launch: error: line 1 of the plan") and not place.results.exists()
    assert place.launch("").stdout == "launch: error: the plan is empty\n"
    done = place.launch("\n".join([GET.format(tmp_path), GET.format(tmp_path).replace("/results", "/other")
                                   .replace("/x", "/y")]))
    assert "give all of them the same --results_dir" in done.stdout
    assert "--gpus='0 0': expected the numbers of GPUs, each once" in place.launch(GET.format(tmp_path),
                                                                                   "--gpus=0 0").stdout


def test_the_members_of_an_average_may_be_runs_of_the_plan(tmp_path):
    members = [f"x--train_baseline--word--{model}--all--s0--val" for model in ("tfidf-2grams", "nbsvm-3grams")]
    steps = steps_of(*lines(tmp_path, GET, TOKENS, IDS, BASELINE, BASELINE + " --model=nbsvm"),
                     f"python -m analysis ensemble {' '.join(members)} --results_dir={tmp_path}/results")
    assert steps[-1].needs == [steps[4], steps[3]]
    assert steps[-1].name.startswith("x--ensemble--word--nbsvm-3grams+tfidf-2grams--all--s0--val--")


# -- slots and estimates -----------------------------------------------------------------------------------------------

def test_slots(monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 8)
    assert machine.cpu_slots(None, [1, 2, 1]) == 4 and machine.cpu_slots(None, [3]) == 2
    assert machine.cpu_slots(None, [None, 1]) == 1 and machine.cpu_slots(None, [16]) == 1
    assert machine.cpu_slots(2, [4]) == 2 and machine.cpu_slots(1, [16]) == 1
    with pytest.raises(UsageError, match="3 commands of 4 threads need more than the 8 cores"):
        machine.cpu_slots(3, [4])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert machine.gpu_slots(None) == ["2", "5"] and machine.gpu_slots("0 1") == ["0", "1"]
    assert machine.gpu_slots("none") == []
    for value in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        assert machine.gpu_slots(None) == []


def test_gpus_that_are_not_there_are_refused(monkeypatch):
    monkeypatch.setattr(machine, "_listed_gpus", lambda: ["0", "1"])
    assert machine.gpu_slots("0 1") == ["0", "1"] and machine.gpu_slots("GPU-7f3a") == ["GPU-7f3a"]
    with pytest.raises(UsageError, match="nvidia-smi lists the GPUs 0 1, and no 9"):
        machine.gpu_slots("0 9")


def test_a_slot_is_one_launchs_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert [slot.name for slot in machine.slots_of(["1", "3"], 4)] == ["gpu1", "gpu3"]
    first, second = machine.slots_of([], 2)
    lock = first.acquire()
    assert lock is not None and first.acquire() is None and second.acquire() is not None
    lock.close()
    assert first.acquire() is not None


@pytest.mark.parametrize("folder", [None, "", "gone"])
def test_slots_need_no_folder_of_the_login(tmp_path, monkeypatch, folder):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "tmp"))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    if folder is not None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder and str(tmp_path / folder))
    slot, = machine.slots_of([], 1)
    assert slot.acquire() is not None and any((tmp_path / "tmp").rglob(slot.name))


def test_the_end_of_a_plan(tmp_path):
    get, tokens, ids, baseline = steps_of(*lines(tmp_path, GET, TOKENS, IDS, BASELINE))
    other = steps_of(GET.format(tmp_path).replace("/x", "/y"))[0]
    left = {get: 1.0, tokens: 10.0, ids: 2.0, baseline: 5.0, other: 7.0}
    assert estimates.until_the_end([get, tokens, ids, baseline, other], left, 1) == 25.0
    assert estimates.until_the_end([get, tokens, ids, baseline], left, 2) == 18.0
    assert estimates.until_the_end([get, other], left, 2) == 7.0
    assert estimates.until_the_end([ids], {}, 2) == 0.0


def past_run(stage, seconds, dataset="x", epochs=1, device="cpu", subset="", **config):
    return estimates.Run(stage, Corpus(dataset, "word", subset), device, config, epochs, seconds)


def test_an_estimate_is_that_of_the_nearest_runs(tmp_path):
    command = f"python imdb_scripts/finetune_lm.py --dir_path={tmp_path}/x --preload=False --bs=16 --cl=4"
    run = plan._step(1, command).run
    size = {"train": {"tokens": 1000, "documents": 10}, "unsup": {"tokens": 3000, "documents": 30}}
    half = {"train": {"tokens": 2000, "documents": 10}}
    sizes = {("x", "word"): size, ("y", "word"): half}
    shape = {"preload": False, "emb_sz": 400, "n_hid": 1152, "n_layers": 3}
    near, far = past_run("finetune_lm", 30.0, bs=16, cl=2, epochs=2, seed=7, **shape), past_run("finetune_lm", 9.0)
    assert estimates.seconds(run, Past([near, far, past_run("train_clas", 1.0)], sizes), "cpu") == 60.0
    assert estimates.seconds(run, Past([far], sizes), "cpu") == 36.0
    # Of another dataset by its tokens: 4,000 here, 2,000 there; where they are not known, nothing is said.
    there = past_run("finetune_lm", 5.0, dataset="y")
    assert estimates.seconds(run, Past([there], sizes), "cpu") == 40.0
    assert estimates.seconds(run, Past([there], {}), "cpu") is None
    subset = past_run("finetune_lm", 5.0, subset="2")  # of 200 tokens
    assert estimates.seconds(run, Past([subset], sizes), "cpu") == 5.0 * 4 * 4000 / 200
    # A GPU tells more of a GPU.
    gpu = past_run("finetune_lm", 1.0, device="cuda")
    assert estimates.seconds(run, Past([near, gpu], sizes), "cuda") == 4.0
    # What only matches a vocabulary takes no time that training could be measured by.
    untrained = plan._step(1, f"python imdb_scripts/finetune_lm.py --dir_path={tmp_path}/x --pretrain_path={tmp_path}/w "
                              f"--notrain").run
    matched = past_run("finetune_lm", 3.0, epochs=untrained.flags["cl"], notrain=True)
    assert estimates.seconds(run, Past([near, matched], sizes), "cpu") == 60.0
    assert estimates.seconds(untrained, Past([near, matched], sizes), "cpu") == 3.0
    assert estimates.seconds(untrained, Past([near], sizes), "cpu") is None


def test_durations_and_counts():
    assert [view.duration(seconds) for seconds in (3.2, 89, 120, 5400, 11100)] == [
        "3 s", "89 s", "2 min", "1 h 30 min", "3 h 05 min"]
    found = [State(Kind.FAILED), State(Kind.DONE), State(Kind.DONE)]
    assert view.counts(found) == "2 done, 1 failed"


# -- runs --------------------------------------------------------------------------------------------------------------

def test_what_is_done_is_not_done_again(base, tmp_path):
    place = base.copy(tmp_path)
    lines_ = "\n".join([place.command("sample_train", n=12), place.command("sample_train", n=6),
                        place.command("train_baseline", train_file_id=12),
                        f"python -m analysis runs --results_dir={place.results}"])
    assert set(table(place.launch(lines_, "--dry_run").stdout).values()) == {"to run"}
    done = place.launch(lines_)
    assert done.returncode == 0 and "4 commands: 4 done" in done.stdout, done.stdout
    before = {name: record["sessions"] for name, record in place.records().items()}
    done = place.launch(lines_)
    assert done.returncode == 0 and done.stdout.count("begins") == 1  # the table
    assert {name: record["sessions"] for name, record in place.records().items()} == before
    assert set(table(place.launch(lines_, "--status").stdout).values()) == {"done"}


def test_a_failure_stops_what_depends_on_it_and_nothing_else(base, tmp_path):
    place = base.copy(tmp_path)
    diverging = place.command("train_clas", clas_id="bad", from_scratch=True, emb_sz=8, n_hid=8, n_layers=1, lr=1e30,
                              clip=0, cl=3, threads=1, cuda_id=-1)
    evaluation = place.command("eval_clas", clas_id="bad", threads=1)
    too_large, on_it = place.command("sample_train", n=3000), place.command("train_baseline", train_file_id=3000)
    lines_ = "\n".join([diverging, evaluation, too_large, on_it, place.command("sample_train", n=12),
                        f"python -m analysis runs --results_dir={place.results}"])
    bad, dependent = "smoke--train_clas--fwd--word--bad--all--s0", "smoke--eval_clas--fwd--word--bad--all--s0--val"
    done = place.launch(lines_)
    assert done.returncode == 1 and "6 commands: 2 done, 2 failed, 2 blocked" in done.stdout, done.stdout
    assert f"blocked: {dependent}: {bad} failed" in done.stdout
    assert "the training loss is no longer finite" in done.stdout and "the end of" in done.stdout
    assert "the largest balanced subset has 81" in done.stdout and "Traceback" not in done.stdout
    assert done.stdout.splitlines()[-1] == ("launch: error: 4 of 6 commands are not finished; --retry_failed runs the "
                                            "failed ones again")
    sessions = len(place.records()[bad]["sessions"])
    states_ = table(place.launch(lines_, "--status").stdout)
    assert (states_[bad], states_[dependent]) == ("failed", "blocked")
    # A run that failed is not run again, unless one asks for it.
    again = place.launch(lines_)
    assert again.returncode == 1 and f"{bad}: begins" not in again.stdout
    assert len(place.records()[bad]["sessions"]) == sessions == 1
    assert "smoke--sample_train--3000: begins" in place.launch(f"{too_large}\n{on_it}", "--retry_failed").stdout


def test_a_run_whose_replacement_was_cut_off_is_put_back(base, tmp_path):
    place = base.copy(tmp_path)
    line = place.command("train_clas", clas_id="kept", from_scratch=True, emb_sz=8, n_hid=8, n_layers=1, cl=1, threads=1,
                         cuda_id=-1)
    run = "smoke--train_clas--fwd--word--kept--all--s0"
    assert place.launch(line).returncode == 0
    before = place.records()[run]
    artefact, = place.folder.rglob("models/clas--fwd--word--kept--*")
    for folder in (place.results / "runs" / run, artefact):
        replacement.set_aside(folder)
    files.write_json(place.results / "runs" / run / "run.json",
                     {**before, "status": "interrupted", "fingerprint": "0" * 16, "config": {"cl": 9}})
    (artefact / "checkpoint.pt").write_bytes(b"of the other")
    assert table(place.launch(line, "--dry_run").stdout) == {run: "to run"}
    assert place.launch(line).returncode == 0 and place.records()[run] == before
    assert not (artefact / "checkpoint.pt").exists() and not (artefact / ".replaced").exists()


def test_a_run_of_the_same_name_with_other_flags_is_refused(base, tmp_path):
    place = base.copy(tmp_path)
    sample = place.command("sample_train", n=12, train_file_id="few")
    assert place.launch(sample).returncode == 0
    other, after = place.command("sample_train", n=6, train_file_id="few"), place.command("train_baseline",
                                                                                          train_file_id="few")
    done = place.launch(f"{other}\n{after}")
    assert done.returncode == 1 and "smoke--sample_train--few: begins" not in done.stdout
    assert "refused: smoke--sample_train--few" in done.stdout and "n: 12 there, 6 asked" in done.stdout
    assert "blocked: smoke--train_baseline--word--tfidf-2grams--few--s0--val: smoke--sample_train--few refused" \
        in done.stdout
    assert table(place.launch(other, "--dry_run").stdout) == {"smoke--sample_train--few": "refused"}


def test_models_of_other_records_are_in_the_way_too(base, tmp_path):
    place = base.copy(tmp_path)
    shutil.rmtree(place.results)
    refused, replaced = (states.judge(plan._step(1, place.command("tok2id", max_vocab=40, overwrite=overwrite)).run,
                                      states.alive_here) for overwrite in (False, True))
    assert refused.kind is Kind.REFUSED and "word/ids with other flags (max_vocab: " in refused.why
    assert replaced == State(Kind.MISSING, "replaces another run")
    # The very run that made them is made once more, for a record.
    assert set(table(place.sweep("table7_clas_finetuning", "--dry_run").stdout).values()) == {"to run"}


def test_files_that_are_gone_are_made_again_only_where_they_are_needed(base, tmp_path):
    place = base.copy(tmp_path)
    sample, baseline = place.command("sample_train", n=12), place.command("train_baseline", train_file_id=12)
    assert place.launch(f"{sample}\n{baseline}").returncode == 0
    (tmp_path / "smoke" / "subsets" / "12.txt").unlink()
    found = table(place.launch(f"{sample}\n{baseline}", "--dry_run").stdout)
    assert list(found.values()) == ["done, files gone", "done"]
    other = place.command("train_baseline", train_file_id=12, model="nbsvm")
    assert list(table(place.launch(f"{sample}\n{baseline}\n{other}", "--dry_run").stdout).values()) == [
        "to run", "done", "to run"]
    done = place.launch(f"{sample}\n{baseline}\n{other}")
    assert done.returncode == 0 and done.stdout.count("begins") == 2, done.stdout


def test_what_was_cut_by_a_sentencepiece_model_that_is_gone_is_done(base, tmp_path):
    place = base.copy(tmp_path)
    wiki = tmp_path / "smoke_wiki"
    cut = (place.command("create_toks", dir_path=wiki, n_lbls=0, bpe=True, sp_vocab=300, workers=1) + "\n"
           + place.command("create_toks", bpe=True, sp_model=wiki, workers=1))
    done = place.launch(cut)
    assert done.returncode == 0, done.stdout
    assert place.records()["smoke--create_toks--bpe"]["parents"] == ["smoke_wiki--create_toks--bpe"]
    shutil.rmtree(wiki / "bpe" / "tokens")
    assert list(table(place.launch(cut, "--dry_run").stdout).values()) == ["done, files gone", "done"]


@pytest.mark.slow
def test_an_evaluation_ends_with_the_digits_that_it_read(base, tmp_path):
    place = base.copy(tmp_path, ROWS="scratch", TEST="1", CLAS="--cl=1 --bs=16 --bptt=20")
    assert place.sweep("table7_clas_finetuning").returncode == 0
    name = next(run for run in place.records() if "train_clas" in run)
    manifest = next((tmp_path / "smoke" / "models").glob("clas--*scratch*/manifest.json"))
    made = json.loads(manifest.read_text(encoding="utf-8"))
    # As if the classifier had been made again on another kind of machine.
    manifest.write_text(json.dumps({**made, "weights_sha256": "0" * 64}), encoding="utf-8")
    found = table(place.sweep("table7_clas_finetuning", "--dry_run").stdout)
    assert {run.split("--")[1] for run, state in found.items() if state != "done"} == {"eval_clas"}
    done = place.sweep("table7_clas_finetuning")
    assert done.returncode == 0 and done.stdout.count("begins") == 2, done.stdout  # the evaluation and the table
    evaluation = place.records()[name.replace("train_clas", "eval_clas") + "--test"]
    assert evaluation["inputs"]["classifier"]["content"] == "weights:" + "0" * 16
    assert set(table(place.sweep("table7_clas_finetuning", "--status").stdout).values()) == {"done"}


@pytest.fixture(scope="module")
def undisturbed(base, tmp_path_factory):
    """A language model of many epochs and a classifier, in one go."""
    place = base.copy(tmp_path_factory.mktemp("undisturbed"), LM=LONG_LM, ROWS="freez_discr_stlr")
    done = place.sweep("table7_clas_finetuning")
    assert done.returncode == 0, done.stdout
    return place


def epochs_done(records, at_least):
    return records.get(LM, {}).get("progress", {}).get("epochs", 0) >= at_least


def long_place(base, folder):
    return base.copy(folder, LM=LONG_LM, ROWS="freez_discr_stlr")


def launch_of(place, plan_):
    process = subprocess.Popen([sys.executable, "sweeps/launch.py"], cwd=ROOT, stdin=subprocess.PIPE, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=place.environment())
    process.stdin.write(plan_)
    process.stdin.close()
    return process


def test_a_signal_stops_cleanly_and_the_next_call_goes_on(base, undisturbed, tmp_path):
    place = long_place(base, tmp_path)
    plan_ = "\n".join(place.plan("table7_clas_finetuning"))
    before = 0
    for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        process = launch_of(place, plan_)
        place.wait_for(lambda records: epochs_done(records, before + 3), "some epochs")
        process.send_signal(number)
        output = process.stdout.read()
        assert process.wait() == status, output
        assert output.splitlines()[-1] == f"launch: stopped by signal {int(number)}"
        record = place.records()[LM]
        assert record["status"] == "interrupted" and (tmp_path / "smoke" / "models").exists()
        assert table(place.launch(plan_, "--status").stdout)[LM] == "to resume"
        before = record["progress"]["epochs"]
    done = place.launch(plan_)
    assert done.returncode == 0, done.stdout
    assert len(place.records()[LM]["sessions"]) == 3 and essence(place) == essence(undisturbed)


def test_a_signal_while_runs_are_started_starts_no_more(tmp_path, monkeypatch):
    acquire, taken = machine.Slot.acquire, []

    def with_a_signal(slot):
        taken.append(slot)
        if len(taken) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return acquire(slot)

    monkeypatch.setattr(machine.Slot, "acquire", with_a_signal)
    steps = [plan.Step(number, ["-c", "import time; time.sleep(600)", f"s{number}"], None) for number in range(3)]
    slots = [machine.Slot(f"started{number}") for number in range(3)]
    with pytest.raises(Interrupted):
        local.Launch(steps, tmp_path, slots, view.View(), False).run()
    assert len(taken) == 2 and all(slot.acquire() is not None for slot in slots)


@pytest.mark.slow
def test_a_run_or_a_launch_that_died_without_a_word_harms_nothing(base, undisturbed, tmp_path):
    place = long_place(base, tmp_path)
    process = place.start("table7_clas_finetuning")
    place.wait_for(lambda records: epochs_done(records, 2), "some epochs")
    os.kill(place.records()[LM]["sessions"][-1]["pid"], signal.SIGKILL)
    output, _ = process.communicate()
    assert process.returncode == 1 and f"{LM}: failed after" in output and "ended by signal 9 (SIGKILL)" in output
    assert f"blocked: {CLAS}: {LM} failed" in output
    record = place.records()[LM]
    assert record["status"] == "running"
    status = place.sweep("table7_clas_finetuning", "--status").stdout
    assert table(status)[LM] == "to resume" and "its process died without a word after epoch" in status

    # The next launch takes it up; killed itself, it leaves the run alive, and the one after waits for that.
    plan_ = "\n".join(place.plan("table7_clas_finetuning"))
    process = launch_of(place, plan_)
    place.wait_for(lambda records: epochs_done(records, record["progress"]["epochs"] + 1), "an epoch")
    process.kill()
    process.wait()
    assert table(place.launch(plan_, "--status").stdout)[LM] == "running"
    done = place.launch(plan_)
    assert done.returncode == 0 and f"{LM}: is being made by another process" in done.stdout, done.stdout
    assert len(place.records()[LM]["sessions"]) == 2 and essence(place) == essence(undisturbed)


@pytest.mark.slow
def test_two_launches_of_one_plan_do_nothing_twice(base, tmp_path):
    place = base.copy(tmp_path, ROWS="full last freez_discr_stlr")
    both = [place.start("table7_clas_finetuning") for _ in range(2)]
    outputs = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    records = place.records()
    assert {len(record["sessions"]) for record in records.values()} == {1}
    began = [line.split(":")[2].split("  ")[-1] for output in outputs for line in output.splitlines()
             if line.endswith("begins") and "analysis" not in line]
    assert len(began) == len(set(began)) == 4


def test_a_terminal_shows_what_runs(base, tmp_path):
    place = base.copy(tmp_path)
    plan_ = tmp_path / "plan"
    plan_.write_text(place.command("sample_train", n=12) + "\n" + place.command("train_baseline", train_file_id=12))
    parent, child = pty.openpty()
    process = subprocess.Popen([sys.executable, "sweeps/launch.py", f"--plan_file={plan_}"], cwd=ROOT, stdout=child,
                               stderr=child, stdin=child, env={**place.environment(), "TERM": "xterm"})
    os.close(child)
    shown = b""
    while True:
        try:
            part = os.read(parent, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    assert process.wait() == 0, shown
    text = shown.decode()
    assert "1 of 2 ended (1 done)" in text and "running" in text and "2 commands: 2 done" in text


def test_a_claim_is_one_launchs_alone(base, tmp_path):
    place = base.copy(tmp_path)
    run = plan._step(1, place.command("sample_train", n=12)).run
    first = states.claim(run)
    assert first is not None and states.claim(run) is None
    assert states.alive_here(run, None).kind is Kind.RUNNING
    first.close()
    second = states.claim(run)
    assert second is not None and not states.made_elsewhere(run)
    second.close()
    assert states.alive_here(run, None) is None


@pytest.mark.slow
def test_killed_at_ten_moments_the_results_are_the_same(base, undisturbed, tmp_path):
    import random

    place, moments = long_place(base, tmp_path), random.Random(0)
    finished = {}
    for _ in range(10):
        process = place.start("table7_clas_finetuning")
        time.sleep(moments.uniform(0.5, 8))
        # Now launch alone, now with all that it started.
        records = place.records()
        for name, record in finished.items():
            assert records[name]["sessions"] == record["sessions"], name
        victims = [process.pid]
        if moments.random() < 0.7:
            victims += [record["sessions"][-1]["pid"] for record in records.values() if record["status"] == "running"]
        for victim in victims:
            try:
                os.killpg(victim, signal.SIGKILL)
            except ProcessLookupError:
                pass
        process.communicate()
        finished = {name: record for name, record in place.records().items() if record["status"] == "finished"}
    done = place.sweep("table7_clas_finetuning")
    assert done.returncode == 0, done.stdout
    records = place.records()
    assert all(records[name]["sessions"] == record["sessions"] for name, record in finished.items())
    assert essence(place) == essence(undisturbed)


def test_without_a_plan_file_one_line_says_so(tmp_path):
    done = Place(tmp_path).launch("", f"--plan_file={tmp_path}/none")
    assert done.returncode == 1 and done.stdout == f"launch: error: --plan_file: there is no file {tmp_path}/none\n"
    assert not Path(tmp_path, "results").exists()
