#!/usr/bin/env bash
# Tables 2 and 3: test error of full ULMFiT, forward and backward averaged, for several datasets.
#     DATASETS="data/imdb data/trec6" PROFILE=paper bash sweeps/tables2_3_test_error.sh [--print | --dry_run | --status]
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

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
