"""The sweeps' plans, and every sweep run to its end on the smoke corpus."""

import re
import shlex
import subprocess
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT
from sweep_flow import Place, table

from launching import plan

SWEEPS = ("table4_pretraining", "table5_language_model", "table6_lm_finetuning", "table7_clas_finetuning",
          "tables2_3_test_error", "figure3_low_shot", "figure4_stability", "bidirectional", "subword")
PROFILES = ("paper", "reviews", "small", "smoke")


def stages(lines):
    return Counter(line.split()[1].removeprefix("imdb_scripts/").removesuffix(".py") for line in lines
                   if "imdb_scripts" in line)


def elsewhere(tmp_path, profile="small", **variables):
    """A sweep's place in which nothing is there yet."""
    return Place(tmp_path, PROFILE=profile, DATA=str(tmp_path / "trec6"), WIKI_DATA=str(tmp_path / "wikitext2"),
                 **variables)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", SWEEPS)
def test_a_plan_holds_all_that_it_needs_in_order(tmp_path, monkeypatch, name, profile):
    monkeypatch.chdir(ROOT)
    lines = elsewhere(tmp_path, profile).plan(name)
    steps = plan.read("\n".join(lines))
    assert len(steps) == len(lines) == len(set(lines))  # no command twice, none without a purpose
    assert steps[-1].run is None and all(step.run for step in steps[:-1])
    needed = {need for step in steps[:-1] for need in step.needs}
    assert all(step in needed or step.run.stage.__name__ in ("train_clas", "eval_clas", "ensemble", "train_baseline")
               for step in steps[:-1])


def test_the_sweeps_are_all_there_are():
    others = {"common", "environment", "demo", "speed", "speed_quality"}
    assert {path.stem for path in (ROOT / "sweeps").glob("*.sh")} - others == set(SWEEPS)
    assert {path.stem for path in (ROOT / "sweeps" / "profiles").glob("*.env")} == set(PROFILES)


def test_table_7_shares_its_language_models(tmp_path):
    lines = elsewhere(tmp_path, SEEDS="0 1 2").plan("table7_clas_finetuning")
    assert stages(lines) == {"get_data": 2, "create_toks": 2, "tok2id": 2, "pretrain_lm": 1, "finetune_lm": 3,
                             "train_clas": 30}


def flags_of(lines, stage, **ids):
    """The flags of the one command of a stage with these ids, those that all rows share left out."""
    found = []
    for line in lines:
        words = shlex.split(line)
        flags = dict(word[2:].partition("=")[::2] for word in words[2:])
        if words[1] == f"imdb_scripts/{stage}.py" and all(flags.get(name) == value for name, value in ids.items()):
            found.append({name: value or True for name, value in flags.items() if name not in (
                "dir_path", "results_dir", "lm_id", "clas_id", "seed", "threads", "precision", "pretrain_path",
                "pretrain_id", "cl", "bs", "emb_sz", "n_hid", "n_layers")})
    assert len(found) == 1, (stage, ids, found)
    return found[0]


ONE_RATE = {"use_discriminative": "False", "lr": "0.001"}
CONSTANT = {"use_regular_schedule": True}
STOP = {"early_stopping": True}


def test_the_rows_of_table_7_are_the_papers(tmp_path):
    lines = elsewhere(tmp_path, SEEDS="0").plan("table7_clas_finetuning")
    rows = {"scratch": {"from_scratch": True, **ONE_RATE}, "full": {"startat": "2", **ONE_RATE, **CONSTANT},
            "full_discr": {"startat": "2", **CONSTANT}, "last": {"last": True, **ONE_RATE, **CONSTANT},
            "chain_thaw": {"chain_thaw": True, **CONSTANT}, "freez": {**ONE_RATE, **CONSTANT}, "freez_discr": CONSTANT,
            "freez_stlr": ONE_RATE, "freez_cos": {**ONE_RATE, "use_clr": "False"}}
    for row, flags in rows.items():
        assert flags_of(lines, "train_clas", clas_id=f"small-{row}") == {**flags, **STOP}, row
    # Full ULMFiT has the defaults and is not stopped.
    assert flags_of([line for line in lines if "clas_id" not in line], "train_clas") == {}


def test_the_rows_of_the_other_tables_are_the_papers(tmp_path):
    place = elsewhere(tmp_path, SEEDS="0")
    lines = place.plan("table6_lm_finetuning")
    rows = {"lm_none": {"notrain": True}, "lm_full": {"use_discriminative": "False", **CONSTANT},
            "lm_full_discr": CONSTANT}
    for row, flags in rows.items():
        assert flags_of(lines, "finetune_lm", lm_id=f"small-{row}") == flags
        assert flags_of(lines, "train_clas", lm_id=f"small-{row}") == STOP
    assert flags_of(lines, "finetune_lm", lm_id="small") == {} == flags_of(lines, "train_clas", lm_id="small")
    lines = place.plan("table4_pretraining")
    assert flags_of(lines, "finetune_lm", lm_id="small-without") == {"preload": "False"}
    assert flags_of(lines, "train_clas", lm_id="small-without") == STOP
    lines = place.plan("table5_language_model")
    assert flags_of(lines, "pretrain_lm", pretrain_id="small-vanilla")["dropmult"] == "0"
    assert flags_of(lines, "finetune_lm", lm_id="small-vanilla") == {"dropmult": "0"}
    assert flags_of(lines, "train_clas", lm_id="small-vanilla", cl="5") == STOP
    lines = place.plan("figure4_stability")
    assert flags_of(lines, "train_clas", clas_id="small-full-to_the_end") == {"startat": "2", **ONE_RATE, **CONSTANT}


def test_the_papers_hyper_parameters(tmp_path):
    lines = elsewhere(tmp_path, "paper", SEEDS="0").plan("table7_clas_finetuning")
    language_model = flags_of(lines, "finetune_lm")
    assert language_model == {"beta1": "0.7", "divisor": "2.6", "dropout_input": "0.4", "dropout_output": "0.4",
                              "dropout_weight": "0.5", "dropout_embed": "0.05", "dropout_hidden": "0.3"}
    gradual, stlr = {"beta1": "0.7", "unfreezing": "one_per_epoch"}, {"cut_frac": "0.1", "ratio": "32"}
    assert flags_of([line for line in lines if "clas_id" not in line], "train_clas") == {**gradual, **stlr}
    assert flags_of(lines, "train_clas", clas_id="paper-freez") == {**gradual, **ONE_RATE, **CONSTANT, **STOP}
    assert flags_of(lines, "train_clas", clas_id="paper-last") == {"beta1": "0.7", "last": True, **ONE_RATE, **CONSTANT,
                                                                   **STOP}
    assert all("--cl=50" in line for line in lines if "train_clas" in line)
    assert any("get_data.py wt103" in line for line in lines) and stages(lines)["pretrain_lm"] == 0


def test_variables_choose(tmp_path):
    place = elsewhere(tmp_path, SEEDS="0 5")
    lines = place.plan("table7_clas_finetuning", ROWS="last freez_discr_stlr", TEST="1", SOURCE="some/where")
    assert stages(lines)["train_clas"] == stages(lines)["eval_clas"] == 4
    assert all("--split=test" in line for line in lines if "eval_clas" in line)
    assert any("--source=some/where" in line for line in lines) and any("--seed=5" in line for line in lines)
    done = place.sweep("table7_clas_finetuning", "--print", ROWS="last frist")
    assert done.returncode == 2 and "frist is no row of this sweep; it has scratch full" in done.stdout
    done = place.sweep("table7_clas_finetuning", "--print", PROFILE="tiny")
    assert done.returncode == 2 and done.stdout == "PROFILE=tiny: there are paper reviews small smoke\n"
    own = place.plan("table7_clas_finetuning", PRETRAIN="my/weights", PRETRAIN_ID="mine", SEEDS="0")
    assert stages(own)["pretrain_lm"] == 0 and stages(own)["get_data"] == 1
    assert "--pretrain_path=my/weights --pretrain_id=mine" in next(line for line in own if "finetune_lm" in line)
    fast = place.plan("table7_clas_finetuning", PRECISION="", THREADS="2", LM="--cl=3", SEEDS="0")
    assert not any("precision" in line for line in fast) and any("--cl=3 --threads=2" in line for line in fast)


def test_table_5_pretrains_on_the_corpus_and_not_in_the_folder_of_the_users_model(tmp_path):
    place = elsewhere(tmp_path, SEEDS="0", PRETRAIN="my/weights")
    commands = [line for line in place.plan("table5_language_model") if "pretrain_lm" in line or "small-vanilla" in line]
    corpus = place.variables["WIKI_DATA"]
    assert commands[0].split()[1:3] == ["imdb_scripts/pretrain_lm.py", f"--dir_path={corpus}"]
    assert [f"--pretrain_path={corpus} --pretrain_id=small-vanilla" in line for line in commands[1:]] == [True, False]


def test_a_failed_preparation_is_tried_again_before_the_plan(tmp_path):
    place = Place(tmp_path, SOURCE=str(tmp_path / "none"))
    for flags in ((), ("--retry_failed",)):
        done = place.sweep("figure3_low_shot", *flags)
        assert done.returncode == 1 and "none" in done.stdout and "sample_train" not in done.stdout


@pytest.mark.parametrize("flag", ["--dry_run", "--dry-run", "--status", "--help", "-h"])
def test_what_only_shows_a_plan_prepares_nothing(tmp_path, flag):
    done = Place(tmp_path).sweep("figure3_low_shot", flag)
    assert done.returncode == 0 and "begins" not in done.stdout and not (tmp_path / "smoke").exists()


def test_few_labels_have_epochs_of_their_own(tmp_path):
    place = elsewhere(tmp_path, "reviews", SEEDS="0", LABELS="100 300")
    for variables, (few, more, pace) in (({}, ("20", "15", {"val_every": "22"})),
                                         ({"CLAS": "--cl=9"}, ("9", "9", {})),
                                         ({"CLAS": "--cl=9", "CLAS_300": "--cl=8", "VAL_EVERY_100": "5"},
                                          ("9", "8", {"val_every": "5"}))):
        lines = place.plan("figure3_low_shot", **variables)
        for subset, epochs in (("100", few), ("300", more)):
            for row in ("supervised", "semi", "scratch"):
                [line] = [line for line in lines if f"--clas_id=reviews-{row} " in line
                          and f"--train_file_id={subset} " in line]
                assert f"--cl={epochs} " in line
                # Early stopping looks after every epoch.
                assert ("val_every" in line) == (bool(pace) and subset == "100" and row != "scratch")
                assert all(f"--{flag}={value} " in line for flag, value in pace.items()) or "val_every" not in line


def test_sweeps_without_pretraining(tmp_path):
    place = elsewhere(tmp_path, SEEDS="0", PRETRAIN="none")
    for name, models in (("bidirectional", 2), ("figure3_low_shot", 1 + 5)):
        lines = place.plan(name)
        made = stages(lines)
        assert made["get_data"] == made["create_toks"] == 1 and made["finetune_lm"] == models and not made["pretrain_lm"]
        assert all("--preload=False --emb_sz=200 --n_hid=400 --n_layers=2" in line for line in lines
                   if "finetune_lm" in line)
        assert not any("pretrain_path" in line for line in lines)
    # Subwords are the dataset's own, of the size that the profile has for a pretraining corpus.
    made = [line for line in place.plan("subword") if "create_toks" in line]
    assert len(made) == 2 and "--bpe --sp_vocab=10000" in made[1]
    for name in set(SWEEPS) - {"bidirectional", "figure3_low_shot", "subword"}:
        done = place.sweep(name, "--print")
        assert done.returncode == 2 and done.stdout.startswith(f"PRETRAIN=none: the rows of {name} are pretrained")


def test_the_papers_profile_pretrains_where_fastais_weights_are_not_wanted(tmp_path):
    place = elsewhere(tmp_path, "paper", SEEDS="0", ROWS="last")
    kinds = stages(place.plan("table7_clas_finetuning"))
    assert (kinds["pretrain_lm"], kinds["get_data"]) == (0, 2)  # the dataset and the weights
    lines = place.plan("table7_clas_finetuning", WEIGHTS="")
    assert stages(lines)["pretrain_lm"] == 1 and not any("wt103" in line for line in lines)


def test_a_path_with_a_space_is_refused(tmp_path):
    done = elsewhere(tmp_path).sweep("table7_clas_finetuning", "--print", DATA="my data")
    assert done.returncode == 2 and done.stdout.startswith("DATA=my data: a plan is plain words")


def test_the_plans_in_the_readme_are_printed(tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^(?:[A-Z]+=\S+ |[A-Z]+=\"[^\"]*\" )*bash sweeps/\w+\.sh.*?--print", text,
                          flags=re.MULTILINE)
    assert len(commands) >= 3
    for command in commands:
        done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout.startswith("python imdb_scripts/"), command
    assert set(re.findall(r"sweeps/(\w+)\.sh", text)) <= {*SWEEPS, "demo", "environment", "speed", "speed_quality"}


def test_data_that_is_there_is_taken_as_it_is(tmp_path):
    place = elsewhere(tmp_path)
    Path(place.variables["DATA"]).mkdir()
    Path(place.variables["DATA"], "train.csv").touch()
    assert [line.split()[2] for line in place.plan("table4_pretraining") if "get_data" in line] == ["wikitext2"]


def test_the_tables_2_and_3_hold_several_datasets(tmp_path):
    place = elsewhere(tmp_path, SEEDS="0", DATASETS=f"{tmp_path}/imdb {tmp_path}/trec6")
    lines = place.plan("tables2_3_test_error")
    assert stages(lines)["eval_clas"] == 4 and sum("analysis ensemble" in line for line in lines) == 2
    epochs = [re.search("--cl=([0-9]+)", line)[1] for line in lines if "finetune_lm" in line]
    assert epochs == ["1", "1", "15", "15"] and "--dataset" not in lines[-1]


def test_subword_averages_every_set_of_models(tmp_path):
    lines = elsewhere(tmp_path, SEEDS="0").plan("subword")
    averages = [frozenset(word for word in line.split() if "--eval_clas--" in word) for line in lines
                if "analysis ensemble" in line]
    assert Counter(map(len, averages)) == {2: 6, 3: 4, 4: 1} and len(set(averages)) == 11
    assert stages(lines)["pretrain_lm"] == 4


def test_the_smoke_corpus_is_what_its_script_writes(tmp_path):
    subprocess.run(["python3", ROOT / "sweeps" / "smoke" / "generate.py", tmp_path], check=True)
    made = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*.csv")}
    kept = {path.relative_to(ROOT / "sweeps" / "smoke"): path.read_bytes()
            for path in (ROOT / "sweeps" / "smoke").rglob("*.csv")}
    assert made == kept and len(kept) == 5


def test_the_printed_plan_is_a_script(tmp_path):
    place = Place(tmp_path, ROWS="scratch", SEEDS="0")
    lines = place.plan("table7_clas_finetuning")
    script = "\n".join(line for line in lines if "smoke_wiki" not in line and "finetune_lm" not in line)
    done = subprocess.run(["bash", "-e"], cwd=ROOT, input=script, capture_output=True, text=True,
                          env=place.environment())
    assert done.returncode == 0, done.stderr
    # launch finds the same runs, all of them finished.
    found = table(place.sweep("table7_clas_finetuning", "--status").stdout)
    assert [state for name, state in found.items() if "wiki" not in name and "finetune_lm" not in name] == ["done"] * 3


@pytest.fixture(scope="module")
def everything(base, tmp_path_factory):
    """A place in which every sweep runs, one after the other: what they share is made once."""
    return base.copy(tmp_path_factory.mktemp("everything"))


@pytest.mark.slow
@pytest.mark.parametrize("name", SWEEPS)
def test_every_sweep_runs_to_its_end(everything, name):
    before = everything.records()
    if name != "tables2_3_test_error":
        # launch itself runs those of one sweep alone, whose plan has stages of every kind: here it finds all done.
        everything.make(everything.plan(name, REPORT="none"))
        made = everything.records()
        assert all(made[run]["sessions"] == record["sessions"] for run, record in before.items())
        before = made
    done = everything.sweep(name)
    assert done.returncode == 0, done.stdout
    records = everything.records()
    assert {record["status"] for record in records.values()} == {"finished"}
    assert all(records[run]["sessions"] == record["sessions"] for run, record in before.items())
    assert set(table(everything.sweep(name, "--status").stdout).values()) == {"done"}
    # Its own table has a run in every row; Figure 4 is a figure alone.
    shown = everything.sweep(name, REPORT="")
    assert shown.returncode == 0, shown.stdout
    if name != "figure4_stability":
        report = re.search(r"analysis (\w+)", everything.plan(name, REPORT="")[-1])[1]
        frame = pd.read_csv(everything.results / "tables" / f"{report}-smoke.csv")
        assert (frame.groupby("row")["n_seeds"].max() > 0).all() and set(frame["dataset"]) == {"smoke"}
    if name == "figure3_low_shot":
        assert "skipped: 60 labels" not in done.stdout  # 81 documents, of three classes
        again = everything.sweep(name, LABELS="6 300")
        assert again.returncode == 0 and "skipped: 300 labels; the largest balanced subset of" in again.stdout
