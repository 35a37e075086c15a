#!/usr/bin/env bash
# Table 7: how the classifier is fine-tuned, ten rows on one language model a seed.
#     SEEDS="0 1 2" DATA=data/trec6 PROFILE=small bash sweeps/table7_clas_finetuning.sh [--print | --dry_run | --status]
# Runs: 3 language models and 30 classifiers for three seeds, one pretraining for all. Cost besides pretraining, at
# `small` on 2 cores with bfloat16, measured on TREC-6 beside other work: 37 minutes. At `paper` on one GPU, estimated
# and not measured: two hours for TREC-6, four days for IMDb.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
needs_pretraining
TABLE_ROWS="scratch full full_discr last chain_thaw freez freez_discr freez_stlr freez_cos freez_discr_stlr"

# The flags of a row's classifier.
row() { # ROW
    case $1 in
        scratch) echo "--from_scratch $SIZES $ONE_RATE" ;;
        full) echo "--startat=2 $ONE_RATE $CONSTANT" ;;
        full_discr) echo "--startat=2 $CONSTANT" ;;
        last) echo "--last $ONE_RATE $CONSTANT" ;;
        chain_thaw) echo "--chain_thaw $CONSTANT" ;;
        freez) echo "$GRADUAL $ONE_RATE $CONSTANT" ;;
        freez_discr) echo "$GRADUAL $CONSTANT" ;;
        freez_stlr) echo "$GRADUAL $ONE_RATE $STLR" ;;
        freez_cos) echo "$GRADUAL $ONE_RATE --use_clr=False" ;;
    esac
}

plan() {
    local seed name
    for seed in $SEEDS; do
        language_model "$seed"
        for name in $TABLE_ROWS; do
            wanted "$name" || continue
            if [ "$name" = freez_discr_stlr ]; then  # full ULMFiT
                ulmfit "$seed"
            else
                classifier "$seed" "$name" "$CLAS" "$(row "$name")" $STOP
            fi
        done
    done
    report table7
}

sweep "$@"
