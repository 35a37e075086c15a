#!/usr/bin/env bash
# Figure 4: validation error epoch by epoch, full fine-tuning against ULMFiT, neither of them stopped early.
#     SEEDS="0 1 2" DATA=data/trec6 PROFILE=small bash sweeps/figure4_stability.sh [--print | --dry_run | --status]
# Runs: 3 language models and 6 classifiers for three seeds, one pretraining for all. Cost besides pretraining, at
# `small` on 2 cores with bfloat16, by the records of TREC-6: 8 minutes. At `paper` on one GPU, estimated and not
# measured: an hour for TREC-6, a day for IMDb.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
needs_pretraining
TABLE_ROWS="full ulmfit"

plan() {
    local seed
    for seed in $SEEDS; do
        language_model "$seed"
        if wanted full; then
            classifier "$seed" full-to_the_end "$CLAS" --startat=2 "$ONE_RATE" "$CONSTANT"
        fi
        if wanted ulmfit; then ulmfit "$seed"; fi
    done
    report figure4
}

sweep "$@"
