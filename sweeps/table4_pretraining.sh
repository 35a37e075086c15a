#!/usr/bin/env bash
# Table 4: with and without pretraining.
#     SEEDS="0 1 2" DATA=data/trec6 PROFILE=small bash sweeps/table4_pretraining.sh [--print | --dry_run | --status]
# Runs: 6 language models and 6 classifiers for three seeds, one pretraining for all. Cost besides pretraining, at
# `small` on 2 cores with bfloat16, by the records of TREC-6: 11 minutes. At `paper` on one GPU, estimated and not
# measured: an hour for TREC-6, a day for IMDb.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
TABLE_ROWS="without with"
needs_pretraining

plan() {
    local seed
    for seed in $SEEDS; do
        dataset
        if wanted without; then
            stage finetune_lm "--dir_path=$DATA" "--lm_id=$PROFILE-without" "--seed=$seed" --preload=False \
                "$SIZES" "$LM" "$LM_DROPOUT" "$LM_RATES" "$LM_STLR"
            PROFILE=$PROFILE-without classifier "$seed" "" "$CLAS" "$GRADUAL" "$STLR" $STOP
        fi
        if wanted with; then ulmfit "$seed"; fi
    done
    report table4
}

sweep "$@"
