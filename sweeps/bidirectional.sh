#!/usr/bin/env bash
# What averaging a forward and a backward classifier brings, on test.
#     SEEDS="0 1 2" DATA=data/trec6 PROFILE=small bash sweeps/bidirectional.sh [--print | --dry_run | --status]
# Runs: 6 language models, 6 classifiers, 6 predictions of test and 3 averages for three seeds; a pretraining forward
# and one backward for all. Cost besides pretraining, at `small` on 2 cores with bfloat16, by the records of TREC-6: 11
# minutes; for all of IMDb two hours a seed, with the sampled softmax. At `paper` on one GPU, estimated and not measured: an
# hour for TREC-6, two days for IMDb.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

plan() {
    local seed
    for seed in $SEEDS; do
        ulmfit_on_test "$seed"
        ulmfit_on_test "$seed" --backwards
        ensemble "$seed" fwd bwd
    done
    report bidirectional
}

sweep "$@"
