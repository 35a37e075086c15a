"""launch on a Slurm cluster, a real one of this machine."""

import signal
import subprocess
import sys

import cluster
import pytest
from conftest import ROOT
from sweep_flow import Place, essence, table
from ulmfit import names
from ulmfit.errors import UserError

import flow
from launching import plan, slurm, states

ROWS = {"ROWS": "last freez_discr_stlr"}
LONG_LM = "--cl=50 --bs=4 --bptt=20"
LM = "smoke--finetune_lm--fwd--word--smoke--all--s0"
CLAS = "smoke--train_clas--fwd--word--smoke--all--s0"
LAST = "smoke--train_clas--fwd--word--smoke-last--all--s0"
SWEEP = "table7_clas_finetuning"

needs_slurm = pytest.mark.skipif(cluster.lacking() is not None, reason=str(cluster.lacking()))


# -- without a cluster -------------------------------------------------------------------------------------------------

def test_the_options_of_a_users_file(tmp_path):
    file = tmp_path / "slurm.ini"
    file.write_text("[all]\naccount = nlp\nexclusive\n[gpu]\npartition = a100\ngres = gpu:1\n[cpu]\ntime = 1:00:00\n")
    both = ["--account=nlp", "--exclusive"]
    assert slurm.read_options(str(file)) == {"gpu": [*both, "--partition=a100", "--gres=gpu:1"],
                                             "cpu": [*both, "--time=1:00:00"]}
    for text, said in (("[gpus]\na=b\n", r"\[gpus\] is no section; there are \[all\], \[gpu\], \[cpu\]"),
                       ("[all]\ndependency = afterok:1\n", "dependency is set by launch itself"),
                       ("[all]\n-p = x\n", "-p is set by launch itself or no long option"),
                       ("partition = x\n", "File contains no section headers")):
        file.write_text(text)
        with pytest.raises(UserError, match=said):
            slurm.read_options(str(file))
    with pytest.raises(UserError, match="there is no file"):
        slurm.read_options(str(tmp_path / "none"))


def test_without_slurm_one_line_says_so(tmp_path):
    place = Place(tmp_path)
    line = place.command("get_data", name="bbc").replace("--name=", "")
    done = subprocess.run([sys.executable, "sweeps/launch.py", "--backend=slurm"], cwd=ROOT, input=line,
                          text=True, capture_output=True, env={**place.environment(), "PATH": "/nowhere"})
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == ("launch: error: squeue is not on this machine; BACKEND=slurm needs a host that submits to a "
                           "cluster\n")


@pytest.fixture
def submitted(monkeypatch):
    """The names, options and scripts of what is submitted to a cluster that has an empty queue."""
    found = {}

    def answer(*command, script=None):
        if command[0] == "squeue":
            return ""
        options = dict(option.removeprefix("--").partition("=")[::2] for option in command[1:])
        found[options["job-name"]] = (options, script)
        return f"{100 + len(found)}\n"

    monkeypatch.setattr(slurm, "_slurm", answer)
    return found


def steps_of(place):
    return plan.read("\n".join(place.plan(SWEEP)))


def test_no_job_waits_for_what_runs_outside_the_queue(base, submitted, tmp_path, capsys):
    place = base.copy(tmp_path)
    steps = steps_of(place)
    claim = states.claim(next(step.run for step in steps if step.name == LM))
    with pytest.raises(UserError, match="2 of 8 runs wait for what is running outside the queue; call again"):
        slurm.Cluster(None).submit(steps, place.results, False)
    assert not submitted and f"not submitted: {CLAS}: waits for {LM}" in capsys.readouterr().out
    claim.close()
    slurm.Cluster(None).submit(steps, place.results, False)
    assert list(submitted) == [LM, LAST, CLAS, "analysis runs"]
    assert submitted[CLAS][0]["dependency"] == "afterok:101"


def test_a_job_that_left_no_record_has_failed(base, submitted, tmp_path, capsys):
    place = base.copy(tmp_path)
    steps = steps_of(place)
    slurm.Cluster(None).submit(steps, place.results, False)
    script = submitted.pop(LM)[1]
    submitted.clear()
    # As the cluster runs it, on a machine where it cannot begin.
    script = script.replace("exec ", "echo 'no fp16 here'; exit 1; exec ")
    names.launch_log(place.results, LM).write_text(subprocess.run(
        ["bash", "-c", script], env={"SLURM_JOB_ID": "17", "PATH": "/usr/bin:/bin"}, text=True, stdout=subprocess.PIPE).stdout)
    capsys.readouterr()
    with pytest.raises(UserError, match="3 of 8 runs cannot be made"):
        slurm.Cluster(None).submit(steps, place.results, False)
    printed = capsys.readouterr().out
    assert f"failed: {LM}: job 17 left no record: no fp16 here\nblocked: {LAST}: {LM} failed" in printed
    assert LM not in submitted
    slurm.Cluster(None).submit(steps, place.results, True)
    assert list(submitted)[:1] == [LM] and not names.launch_begun(place.results, LM).exists()


# -- with one ----------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def slurm_cluster(tmp_path_factory):
    with cluster.Cluster(tmp_path_factory.mktemp("cluster")) as running:
        (running.folder / "slurm.ini").write_text("[all]\ntime = 60\n[gpu]\ngres = gpu:1\n")
        yield running


def on_cluster(running, place, name=SWEEP, *flags, **variables):
    where = {"SLURM_CONF": running.environment["SLURM_CONF"], "BACKEND": "slurm",
             "PATH": f"{place.environment()['PATH']}:{cluster.PATH}", "SLURM_FILE": str(running.folder / "slurm.ini")}
    return place.sweep(name, *flags, **{**where, **variables})


@pytest.fixture(scope="module")
def base(base):
    return Place(base.folder, **ROWS)


@pytest.fixture(scope="module")
def local(base, tmp_path_factory):
    place = base.copy(tmp_path_factory.mktemp("local"), LM=LONG_LM)
    done = place.sweep(SWEEP)
    assert done.returncode == 0, done.stdout
    return place


def jobs_of(output):
    """The numbers of the jobs submitted, by run."""
    return {line.split(": ")[1].split(",")[0]: line.split(": ")[0].removeprefix("job ") for line in output.splitlines()
            if line.startswith("job ")}


@needs_slurm
def test_a_plan_on_the_cluster_gives_the_records_of_this_machine(slurm_cluster, base, local, tmp_path):
    place = base.copy(tmp_path, LM=LONG_LM)
    done = on_cluster(slurm_cluster, place)
    assert done.returncode == 0, done.stdout
    jobs = jobs_of(done.stdout)
    assert list(jobs) == [LM, LAST, CLAS, "analysis runs"] and "3 jobs submitted" in done.stdout
    shown = slurm_cluster.run("scontrol", "show", "job", jobs[CLAS]).stdout
    assert f"Dependency=afterok:{jobs[LM]}" in shown and "Requeue=1" in shown and "gres:gpu:1" in shown.replace(
        "gres/gpu", "gres:gpu")
    # Called again while they wait and run, it submits nothing.
    again = on_cluster(slurm_cluster, place)
    assert again.returncode == 0 and jobs_of(again.stdout) == {} and "0 jobs submitted" in again.stdout
    status = table(on_cluster(slurm_cluster, place, SWEEP, "--status").stdout)
    assert status[LM] in ("queued", "running") and status[CLAS] == "queued"
    slurm_cluster.wait_until_empty()
    assert essence(place) == essence(local)
    # A finished sweep submits nothing and makes its table at once.
    last = on_cluster(slurm_cluster, place)
    assert last.returncode == 0 and jobs_of(last.stdout) == {} and CLAS in last.stdout, last.stdout
    assert set(table(on_cluster(slurm_cluster, place, SWEEP, "--status").stdout).values()) == {"done"}


@pytest.mark.slow
@needs_slurm
def test_a_requeued_job_goes_on_from_its_checkpoint(slurm_cluster, base, local, tmp_path):
    place = base.copy(tmp_path, LM=LONG_LM)
    number = jobs_of(on_cluster(slurm_cluster, place).stdout)[LM]
    place.wait_for(lambda records: records.get(LM, {}).get("progress", {}).get("epochs", 0) >= 3, "some epochs")
    slurm_cluster.run("scontrol", "requeue", number)
    # A requeued job waits for a while by itself.
    slurm_cluster.wait(lambda: "PENDING" in slurm_cluster.run("squeue", f"--jobs={number}", "--noheader",
                                                              "--format=%T").stdout, "the job to be queued again")
    assert jobs_of(on_cluster(slurm_cluster, place).stdout) == {}
    slurm_cluster.run("scontrol", "update", f"JobId={number}", "StartTime=now")
    slurm_cluster.wait_until_empty()
    assert len(place.records()[LM]["sessions"]) == 2 and essence(place) == essence(local)


@pytest.mark.slow
@needs_slurm
def test_the_controller_is_killed_and_comes_back(slurm_cluster, base, local, tmp_path):
    place = base.copy(tmp_path, LM=LONG_LM)
    assert on_cluster(slurm_cluster, place).returncode == 0
    place.wait_for(lambda records: records.get(LM, {}).get("progress", {}).get("epochs", 0) >= 1, "an epoch")
    slurm_cluster.wait_until_saved()
    slurm_cluster.kill("slurmctld", signal.SIGKILL)
    try:
        gone = on_cluster(slurm_cluster, place)
        assert gone.returncode == 1 and gone.stdout.splitlines()[-1].startswith("launch: error: squeue failed: ")
    finally:
        slurm_cluster.start("slurmctld")
    again = on_cluster(slurm_cluster, place)
    assert again.returncode == 0 and jobs_of(again.stdout) == {}, again.stdout
    slurm_cluster.wait_until_empty()
    assert {len(record["sessions"]) for record in place.records().values()} == {1}
    assert essence(place) == essence(local)


@pytest.mark.slow
@needs_slurm
def test_children_of_a_job_that_fails_are_cancelled_and_named(slurm_cluster, base, tmp_path):
    place = base.copy(tmp_path, LM="--cl=2 --bs=4 --bptt=20 --lr=1e30 --clip=0")
    assert len(jobs_of(on_cluster(slurm_cluster, place).stdout)) == 4
    slurm_cluster.wait_until_empty()
    records = place.records()
    assert records[LM]["status"] == "failed" and CLAS not in records
    done = on_cluster(slurm_cluster, place)
    assert done.returncode == 1 and jobs_of(done.stdout) == {}
    assert f"failed: {LM}: UserError: the training loss is no longer finite" in done.stdout
    for child in (LAST, CLAS):
        assert f"blocked: {child}: {LM} failed" in done.stdout
    retried = on_cluster(slurm_cluster, place, SWEEP, "--retry_failed")
    jobs = jobs_of(retried.stdout)
    assert list(jobs) == [LM, LAST, CLAS, "analysis runs"]
    slurm_cluster.run("scancel", *jobs.values())
    slurm_cluster.wait_until_empty()


@pytest.mark.slow
@needs_slurm
def test_a_cancelled_job_leaves_its_checkpoint(slurm_cluster, base, tmp_path):
    place = base.copy(tmp_path, LM="--cl=2000 --bs=4 --bptt=20", ROWS="last")
    jobs = jobs_of(on_cluster(slurm_cluster, place).stdout)
    place.wait_for(lambda records: records.get(LM, {}).get("progress", {}).get("epochs", 0) >= 1, "an epoch")
    # SIGTERM reaches the stage, which took the place of the batch script. Its child is cancelled with it.
    slurm_cluster.run("scancel", jobs[LM])
    slurm_cluster.wait_until_empty()
    assert place.records()[LM]["status"] == "interrupted"
    assert (tmp_path / "smoke" / "models" / "lm--fwd--word--smoke--all--s0" / "checkpoint.pt").exists()
    assert table(on_cluster(slurm_cluster, place, SWEEP, "--status").stdout)[LM] == "to resume"


@pytest.mark.slow
@needs_slurm
def test_before_the_time_limit_a_checkpoint_is_written(slurm_cluster, tmp_path):
    # So many updates of many small layers that an epoch takes minutes on any machine, while a checkpoint, of 6 MB, is
    # written in a moment: what is written is not an epoch's checkpoint.
    data, results = tmp_path / "long", tmp_path / "results"
    flow.write_corpus(data)
    flow.write_csv(data / "unsup.csv", [[text] for _, text in flow.labelled_rows(3000, 3)])
    where = {"dir_path": str(data), "results_dir": str(results)}
    flow.call("create_toks", **where, workers=1)
    flow.call("tok2id", **where)
    place = Place(tmp_path, DATA=str(data), SIZES="--emb_sz=16 --n_hid=24 --n_layers=100",
                  LM="--cl=2 --bs=1 --bptt=5", ROWS="without", REPORT="none")
    done = on_cluster(slurm_cluster, place, "table4_pretraining")
    run = "long--finetune_lm--fwd--word--smoke-without--all--s0"
    jobs = jobs_of(done.stdout)
    assert list(jobs) == [run, run.replace("finetune_lm", "train_clas")], done.stdout
    log = names.launch_log(results, run)
    slurm_cluster.wait(lambda: log.exists() and "phase 1/1" in log.read_text(), "the training to begin")
    # The limit comes near only now, however long loading took. Slurm looks at it twice a minute: at the next look it
    # asks for a checkpoint, at the second or third one it ends the job.
    slurm_cluster.run("scontrol", "update", f"JobId={jobs[run]}", "EndTime=now+45")
    checkpoint = data / "models" / "lm--fwd--word--smoke-without--all--s0" / "checkpoint.pt"
    slurm_cluster.wait(checkpoint.exists, "a checkpoint")
    record = place.records()[run]
    assert record["status"] == "running" and "progress" not in record
    slurm_cluster.wait_until_empty()
    record = place.records()[run]
    assert record["status"] == "interrupted" and "progress" not in record
