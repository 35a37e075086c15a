#!/usr/bin/env bash
# Figure 3: few labels. Class-balanced subsets of the sizes in LABELS, one validation set for all, four ways to use
# them: ULMFiT whose language model read the labelled texts alone (supervised) or all text (semi_supervised), a
# classifier from scratch, and a linear baseline. Sizes that exceed a class are skipped. CLAS_100, CLAS_200, ... stand
# in the place of CLAS for a size, as few labels need more epochs; VAL_EVERY_100, ... are the epochs between validations
# of the rows that do not stop early.
#     SEEDS="0 1 2" DATA=data/imdb PROFILE=small bash sweeps/figure3_low_shot.sh [--print | --dry_run | --status]
# Runs: for each size and seed a subset, a language model, 3 classifiers and a baseline; one language model of all text.
# Cost besides pretraining, on 2 cores in full precision: at `small` for TREC-6, to 200 labels, 17 minutes a seed; at
# `reviews` for IMDb, semi-supervised and linear alone, 27 minutes a seed, and the language model's 72 minutes; TEST=1
# adds 15 a seed. At `paper` on one GPU, estimated and not measured: two hours a seed for IMDb.
# The language model of all text is one for all seeds; LM_SEED="" makes one a seed.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
TABLE_ROWS="supervised semi_supervised scratch linear"
LM_SEED=${LM_SEED-0}

plan() {
    local seed n subset lm_seed pace
    for seed in $SEEDS; do
        lm_seed=${LM_SEED:-$seed}
        dataset
        if wanted semi_supervised; then language_model "$lm_seed"; fi
        if wanted supervised; then pretrained; fi
        for n in $(sizes); do
            subset=$n pace=VAL_EVERY_$n
            pace=${!pace:+--val_every=${!pace}}
            [ "$seed" = 0 ] || subset=$n-s$seed
            stage sample_train "--dir_path=$DATA" "--n=$n" "--seed=$seed"
            if wanted supervised; then
                stage finetune_lm "--dir_path=$DATA" "--lm_id=$PROFILE" "--seed=$seed" "--train_file_id=$subset" \
                    "$(from_pretrained)" "$LM" "$LM_DROPOUT" "$LM_RATES" "$LM_STLR"
                classifier_on "$subset" supervised "--lm_train_file_id=$subset" "$GRADUAL" "$STLR" $pace
            fi
            if wanted semi_supervised; then
                classifier_on "$subset" semi "--lm_seed=$lm_seed" "$GRADUAL" "$STLR" $pace
            fi
            if wanted scratch; then
                classifier_on "$subset" scratch --from_scratch "$SIZES" "$ONE_RATE" $STOP
            fi
            if wanted linear; then
                stage train_baseline "--dir_path=$DATA" "--seed=$seed" "--train_file_id=$subset"
                [ -z "${TEST:-}" ] || stage train_baseline "--dir_path=$DATA" "--seed=$seed" \
                    "--train_file_id=$subset" --split=test
            fi
        done
    done
    report low_shot
}

classifier_on() { # SUBSET ID FLAGS...
    local subset=$1 id=$2 of_size=CLAS_$n
    shift 2
    local who=("--dir_path=$DATA" "--lm_id=$PROFILE" "--clas_id=$PROFILE-$id" "--seed=$seed" "--train_file_id=$subset")
    stage train_clas "${who[@]}" "${!of_size-$CLAS}" "$@"
    [ -z "${TEST:-}" ] || stage eval_clas "${who[@]}" --split=test
}

# The sizes that the dataset has labels for. They are known once it is numericalized; before that all are taken.
sizes() {
    local largest n
    if ! largest=$("${PYTHON:-python3}" sweeps/largest_subset.py "$DATA" 2>/dev/null); then
        echo "$LABELS"
        return
    fi
    for n in $LABELS; do
        if [ "$n" -le "$largest" ]; then echo "$n"; else
            echo "skipped: $n labels; the largest balanced subset of $DATA has $largest" >&2
        fi
    done
}

# To know the sizes, the dataset is made before the plan.
prepare() {
    dataset
}

sweep "$@"
