#!/usr/bin/env bash
# Table 5: a vanilla language model (the same sizes, no dropout) against the AWD-LSTM.
#     SEEDS="0 1 2" DATA=data/trec6 PROFILE=small bash sweeps/table5_language_model.sh [--print | --dry_run | --status]
# Runs: 6 language models and 6 classifiers for three seeds, two pretrainings for all. Cost besides pretraining, at
# `small` on 2 cores with bfloat16, by the records of TREC-6: 11 minutes. At `paper` on one GPU, estimated and not
# measured: an hour for TREC-6 and a day for IMDb, and days for the vanilla pretraining on WikiText-103.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
needs_pretraining
TABLE_ROWS="vanilla awd_lstm"

plan() {
    local seed
    for seed in $SEEDS; do
        dataset
        if wanted vanilla; then
            pretrained vanilla
            stage finetune_lm "--dir_path=$DATA" "--lm_id=$PROFILE-vanilla" "--seed=$seed" --dropmult=0 \
                "$(from_pretrained vanilla)" "$LM" "$LM_RATES" "$LM_STLR"
            # Its classifier has dropout and few epochs, so as not to overfit.
            PROFILE=$PROFILE-vanilla classifier "$seed" "" "$VANILLA_CLAS" "$GRADUAL" "$STLR" $STOP
        fi
        if wanted awd_lstm; then ulmfit "$seed"; fi
    done
    report table5
}

sweep "$@"
