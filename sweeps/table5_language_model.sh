#!/usr/bin/env bash
# Table 5: a vanilla language model (the same sizes, no dropout) against the AWD-LSTM.
#     SEEDS="0 1 2" DATA=data/trec6 PROFILE=small bash sweeps/table5_language_model.sh [--print | --dry_run | --status]
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
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
