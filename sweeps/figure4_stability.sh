#!/usr/bin/env bash
# Figure 4: validation error epoch by epoch, full fine-tuning against ULMFiT, neither of them stopped early.
#     SEEDS="0 1 2" DATA=data/trec6 PROFILE=small bash sweeps/figure4_stability.sh [--print | --dry_run | --status]
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
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
    report runs
}

sweep "$@"
