#!/usr/bin/env bash
# Tables 2 and 3: test error of full ULMFiT, forward and backward averaged, for several datasets.
#     DATASETS="data/imdb data/trec6" PROFILE=paper bash sweeps/tables2_3_test_error.sh [--print | --dry_run | --status]
# Runs: for each dataset 6 language models, 6 classifiers, 6 predictions of test and 3 averages for three seeds; a
# pretraining forward and one backward for all. Cost besides pretraining, at `small` on 2 cores with bfloat16, by the
# records of TREC-6: 11 minutes a dataset of its size. At `paper` on one GPU, estimated and not measured: an hour for
# TREC-6, two days for IMDb.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
needs_pretraining
if [ -n "${SOURCE:-}" ] && [[ "${DATASETS:-}" = *[[:space:]]* ]]; then
    echo "SOURCE=$SOURCE: the folders in DATASETS have a source each; call get_data for them first" >&2
    exit 2
fi

plan() {
    local folder
    for folder in ${DATASETS:-$DATA}; do
        # By itself, as a profile's epochs depend on the dataset.
        DATA=$folder REPORT=none bash sweeps/bidirectional.sh --print
    done
    [ -z "${DATASETS:-}" ] || DATASET=""
    report tables2_3
}

sweep "$@"
