"""What a stage says that a run will read and write is what its records say that it read and wrote."""

import json
import shlex
from pathlib import Path

import pytest
from conftest import ROOT
from ulmfit import lineage, names, records
from ulmfit.errors import UsageError

COMMITTED = sorted((ROOT / "results" / "runs").glob("*/run.json"))
STAGES = {"get_data", "create_toks", "tok2id", "sample_train", "pretrain_lm", "finetune_lm", "train_clas", "eval_clas",
          "train_baseline"}


def of(stage, **flags):
    return lineage.of_command(stage, [f"--{name}={value}" for name, value in flags.items()])


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.parent.name)
def test_a_records_command_leads_to_its_name_and_its_inputs(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    if record["stage"] not in STAGES | {"ensemble"}:
        pytest.skip("no stage of a sweep")
    words = shlex.split(record["command"])
    if "--weights=val" in words:
        with pytest.raises(UsageError, match="in a plan give numbers, or no weights"):
            lineage.of_command("analysis.ensemble", words[4:])
        return
    if record["stage"] == "ensemble":
        run = lineage.of_command("analysis.ensemble", words[4:])
    elif record["stage"] == "get_data":
        # Its source is known by its bare name, and need not be on this machine.
        run = lineage.of_command("get_data", [word for word in words[2:] if not word.startswith("--source")]
                                 + ["--source=."])
    else:
        run = lineage.of_command(record["stage"], words[2:])
    assert run.run_id == record["id"] and run.dataset == record["dataset"]
    # The same command asks for another run where a default has changed since.
    changed = {} if record["flags"].get("sampled") in (None, run.flags.get("sampled")) else {"sampled": False}
    assert run.config(record) == record["config"] | changed
    said = {role: given["path"] for role, given in record["inputs"].items()}
    for role, places in run.reads.items():
        if role == "labels":  # the ids, of which it reads labels alone
            continue
        shown = [names.portable(place) for place in places]
        assert said[role] in shown or any(said[role].startswith(place) for place in shown), role
    if record["stage"] not in ("create_toks", "get_data"):  # these also read what is only known when it is there
        assert set(run.reads) == set(said)


def test_nothing_has_to_be_there():
    run = of("train_clas", dir_path="nowhere", lm_id="a", clas_id="b", seed=3, backwards=True)
    assert run.run_id == "nowhere--train_clas--bwd--word--b--all--s3"
    assert run.reads == {"ids": (Path("nowhere/word/ids"),),
                         "language_model": (Path("nowhere/models/lm--bwd--word--a--all--s3"),)}
    assert run.artefact == Path("nowhere/models/clas--bwd--word--b--all--s3")
    assert run.writes == (Path("nowhere/models/clas--bwd--word--b--all--s3--intermediate"),)
    assert set(run.missing()) == {"ids", "language_model"}
    # Where nothing unfreezes gradually there is no intermediate classifier.
    for flags in ({"last": True}, {"startat": 2}, {"chain_thaw": True}, {"from_scratch": True}):
        assert of("train_clas", dir_path="nowhere", **flags).writes == ()
    assert "language_model" not in of("train_clas", from_scratch=True).reads
    assert of("train_clas", dir_path="x", startat=1).reads["intermediate"] == (
        Path("x/models/clas--fwd--word--default--all--s0--intermediate"),)
    assert of("finetune_lm", dir_path="x", train_file_id="100").reads["subset"] == (Path("x/subsets/100.txt"),)
    assert of("sample_train", dir_path="x", n=100, seed=2).writes == (Path("x/subsets/100-s2.txt"),)
    assert of("get_data", name="wt103", dir_path="x").writes == (Path("x/wt103-fwd.tgz"), Path("x/wt103-bwd.tgz"))


def test_the_pretrained_model_may_be_ours_or_fastais():
    ours, *fastais = of("finetune_lm", dir_path="x", pretrain_path="w", pretrain_id="a").reads["pretrained"]
    assert ours == Path("w/models/pretrained--fwd--word--a--all--s0") and Path("w/a-fwd.tgz") in fastais
    assert "pretrained" not in of("finetune_lm", dir_path="x", preload=False).reads
    assert len(of("finetune_lm", dir_path="x", bpe=True).reads["pretrained"]) == 1


def test_a_command_that_its_stage_would_refuse():
    with pytest.raises(UsageError, match="--lst is not a flag of train_clas; did you mean --last"):
        lineage.of_command("train_clas", ["--lst"])
    with pytest.raises(UsageError, match="there is no trian_clas"):
        lineage.of_command("trian_clas", [])
    with pytest.raises(UsageError, match="show_batch is no stage of a sweep"):
        lineage.of_command("show_batch", [])


def test_a_fingerprint_is_that_of_the_record(tmp_path):
    import get_data
    from flow import call, make_ids

    data, where = make_ids(tmp_path)
    call("sample_train", **where, n=30)
    for stage, flags in (("create_toks", {"workers": 1}), ("tok2id", {}), ("sample_train", {"n": 30})):
        run = of(stage, **where, **flags)
        record = records.read_run(run.folder)
        assert run.missing() == {} and run.inputs().keys() == record["inputs"].keys()
        assert run.fingerprint(record, run.inputs()) == record["fingerprint"], stage
    other = of("tok2id", **where, max_vocab=50)
    assert other.fingerprint(record, other.inputs()) != records.read_run(other.folder)["fingerprint"]
    get_data.get_data("copy", source=str(data), dir_path=str(tmp_path / "copy"), results_dir=where["results_dir"])
    run = of("get_data", name="copy", source=data, dir_path=tmp_path / "copy", results_dir=where["results_dir"])
    record = records.read_run(run.folder)
    assert run.fingerprint(record, run.inputs()) == record["fingerprint"]
