#!/usr/bin/env bash
# Table 6: how the language model is fine-tuned; the classifier is the same.
#     SEEDS="0 1 2" DATA=data/trec6 PROFILE=small bash sweeps/table6_lm_finetuning.sh [--print | --dry_run | --status]
# Runs: 12 language models (3 of them not trained) and 12 classifiers for three seeds, one pretraining for all. Cost
# besides pretraining, at `small` on 2 cores with bfloat16, measured on TREC-6: 20 minutes. At `paper` on one GPU,
# estimated and not measured: two hours for TREC-6, two days for IMDb.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
needs_pretraining
TABLE_ROWS="none full full_discr full_discr_stlr"

# The flags of a row's language model.
row() { # ROW
    case $1 in
        none) echo "--notrain" ;;
        full) echo "$LM $LM_DROPOUT --use_discriminative=False $CONSTANT" ;;
        full_discr) echo "$LM $LM_DROPOUT $LM_RATES $CONSTANT" ;;
    esac
}

plan() {
    local seed name
    for seed in $SEEDS; do
        dataset
        pretrained
        for name in none full full_discr; do
            wanted "$name" || continue
            stage finetune_lm "--dir_path=$DATA" "--lm_id=$PROFILE-lm_$name" "--seed=$seed" "$(from_pretrained)" \
                "$(row "$name")"
            PROFILE=$PROFILE-lm_$name classifier "$seed" "" "$CLAS" "$GRADUAL" "$STLR" $STOP
        done
        if wanted full_discr_stlr; then ulmfit "$seed"; fi
    done
    report table6
}

sweep "$@"
