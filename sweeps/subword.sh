#!/usr/bin/env bash
# Words against subwords, forward and backward, and every average of two, three or all four, on test.
#     SEEDS="0 1 2" DATA=data/trec6 PROFILE=small bash sweeps/subword.sh [--print | --dry_run | --status]
# Runs: 12 language models, 12 classifiers, 12 predictions of test and 33 averages for three seeds, four pretrainings
# for all. Cost besides pretraining, at `small` on 2 cores with bfloat16, by the records of TREC-6: 25 minutes. At
# `paper` on one GPU, estimated and not measured: two hours for TREC-6 and four days for IMDb, and days for the
# pretraining on WikiText-103.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

plan() {
    local seed
    for seed in $SEEDS; do
        ulmfit_on_test "$seed"
        ulmfit_on_test "$seed" --backwards
        ulmfit_on_test "$seed" --bpe
        ulmfit_on_test "$seed" --bpe --backwards
        ensemble "$seed" fwd bwd
        ensemble "$seed" fwd fwd-bpe
        ensemble "$seed" fwd bwd-bpe
        ensemble "$seed" bwd fwd-bpe
        ensemble "$seed" bwd bwd-bpe
        ensemble "$seed" fwd-bpe bwd-bpe
        ensemble "$seed" fwd bwd fwd-bpe
        ensemble "$seed" fwd bwd bwd-bpe
        ensemble "$seed" fwd fwd-bpe bwd-bpe
        ensemble "$seed" bwd fwd-bpe bwd-bpe
        ensemble "$seed" fwd bwd fwd-bpe bwd-bpe
    done
    report subword
}

sweep "$@"
