#!/usr/bin/env bash
# ULMFiT from raw text to a measured classifier on BBC News (2,225 articles, 5 topics), forward, backward, averaged:
#     bash sweeps/demo.sh            makes its environment on first use, then runs the commands below
#     bash sweeps/demo.sh --print    prints them
# The language models start from random weights, so that nothing but a package index is needed, and are small enough for
# two CPU cores. Called again, it reuses the runs that are done and goes on where it was stopped.
set -euo pipefail

DATA=data/bbc
SIZES="--emb_sz=100 --n_hid=256 --n_layers=2"
LM="--cl=1 --bs=16"
CLAS="--cl=5 --bs=16"

case "$*" in
    "") ;;
    --print) print=1 ;;
    *) echo "usage: bash sweeps/demo.sh [--print]" >&2; exit 2 ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."

plan() {
    echo "python imdb_scripts/get_data.py bbc --dir_path=$DATA"
    echo "python imdb_scripts/create_toks.py --dir_path=$DATA"
    echo "python imdb_scripts/tok2id.py --dir_path=$DATA --max_vocab=10000"
    local direction
    for direction in "" " --backwards"; do
        echo "python imdb_scripts/finetune_lm.py --dir_path=$DATA --preload=False $LM $SIZES$direction"
        echo "python imdb_scripts/train_clas.py --dir_path=$DATA $CLAS$direction"
        echo "python imdb_scripts/eval_clas.py --dir_path=$DATA --split=test$direction"
    done
    local run="bbc--eval_clas--%s--word--default--all--s0--test"
    # shellcheck disable=SC2059  # the format is the run's name
    echo "python -m analysis ensemble $(printf "$run" fwd) $(printf "$run" bwd)"
    echo "python -m analysis runs --dataset=bbc"
}

if [ -n "${print:-}" ]; then
    plan
    exit
fi

source sweeps/environment.sh
choose_python train
total=$(plan | wc -l)
number=0
while read -r command <&3; do
    number=$((number + 1))
    printf '\n[%d/%d, %d s] %s\n' "$number" "$total" "$SECONDS" "$command"
    read -ra words <<<"$command"
    "$PYTHON" "${words[@]:1}" || {
        status=$?
        echo "demo: command $number of $total ended with status $status, see above; called again, it goes on" >&2
        exit "$status"
    }
done 3< <(plan)
printf '\ndone in %d s; the records lie in %s/runs, data and weights in %s\n' \
    "$SECONDS" "$(realpath "${RESULTS:-results}")" "$(realpath "$DATA")"
