# Sourced by the sweeps: the variables, the stages that several sweeps share, and what happens to the plan. A sweep
# defines `plan`, which prints its commands, and ends with `sweep "$@"`.
#
# Variables, all optional: PROFILE (small, reviews, paper, smoke), DATA (the dataset's folder), SOURCE (where get_data finds it,
# without it the public address), SEEDS, ROWS (of the table's rows, those wanted), THREADS; WIKI (a folder of text to
# pretrain on) or PRETRAIN and PRETRAIN_ID (a folder with a pretrained language model, and its name; PRETRAIN=none begins
# with random weights); RESULTS (where records go); TEST=1 (each row on test, too); GPUS, SLOTS, BACKEND=slurm,
# SLURM_FILE. Whatever a profile sets can be set from outside.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PROFILE=${PROFILE:-small}
if [ ! -f "sweeps/profiles/$PROFILE.env" ]; then
    echo "PROFILE=$PROFILE: there are $(cd sweeps/profiles && ls ./*.env | sed 's|./||; s|.env$||' | paste -sd' ')" >&2
    exit 2
fi
source "sweeps/profiles/$PROFILE.env"
for variable in DATA SOURCE WIKI WIKI_DATA PRETRAIN RESULTS; do
    if [[ "${!variable:-}" = *[[:space:]]* ]]; then
        echo "$variable=${!variable}: a plan is plain words, and no path in it may hold a space" >&2
        exit 2
    fi
done
DATASET=$(basename "$DATA")
# Every row but full ULMFiT stops early.
STOP=--early_stopping
ONE_RATE="--use_discriminative=False --lr=0.001"
CONSTANT="--use_regular_schedule"

# -- stages ------------------------------------------------------------------------------------------------------------

# Prints the command of a stage, without what is empty; the records' folder and the threads are added to each.
stage() { # NAME FLAGS...
    local name=$1 words
    shift
    case $name in
        create_toks) set -- "$@" "--workers=$THREADS" ;;
        finetune_lm | pretrain_lm | train_clas)
            # --notrain trains nothing and refuses flags of training.
            [[ " $* " = *" --notrain "* ]] || set -- "$@" "$PRECISION"
            set -- "$@" "--threads=$THREADS"
            ;;
        eval_clas) set -- "$@" "--threads=$THREADS" ;;
    esac
    # shellcheck disable=SC2068  # flags that hold several words are to be split
    words=(python "imdb_scripts/$name.py" $@ ${RESULTS:+"--results_dir=$RESULTS"})
    echo "${words[*]}"
}

# The table or figure that a sweep ends with; REPORT=NAME takes another, REPORT=none leaves it out.
report() { # NAME
    if [ "${REPORT:-}" != none ]; then
        echo "python -m analysis ${REPORT:-$1}${DATASET:+ --dataset=$DATASET}${RESULTS:+ --results_dir=$RESULTS}"
    fi
}

# A corpus from its source to ids. One that is there already is taken as it is.
corpus() { # FOLDER NAME SOURCE FLAGS-OF-CREATE_TOKS FLAGS-OF-TOK2ID
    [ -f "$1/train.csv" ] || stage get_data "$2" "--dir_path=$1" ${3:+"--source=$3"}
    stage create_toks "--dir_path=$1" "$4"
    stage tok2id "--dir_path=$1" "$5"
}

# The dataset as words, or as the subwords (--bpe) of the pretraining corpus, its own where there is none.
dataset() { # [--bpe]
    if [ "${1:-}" = --bpe ] && from_random; then
        corpus "$DATA" "$DATASET" "${SOURCE:-}" "--bpe $SUBWORDS" --bpe
    elif [ "${1:-}" = --bpe ]; then
        corpus "$DATA" "$DATASET" "${SOURCE:-}" "--bpe --sp_model=${PRETRAIN:-$(wiki_data)}" --bpe
    else
        corpus "$DATA" "$DATASET" "${SOURCE:-}" "" "$VOCAB"
    fi
}

# The folder of the corpus that models of our own are pretrained on.
wiki_data() {
    if [ -n "${WIKI_DATA:-}" ]; then
        echo "$WIKI_DATA"
    elif [ -n "${WIKI:-}" ]; then
        echo "data/$(basename "$WIKI")"
    else
        echo "data/${CORPUS:-wikitext2}"
    fi
}

# Whether nothing is pretrained.
from_random() {
    [ "${PRETRAIN:-}" = none ]
}

# Called by the sweeps whose rows are all pretrained.
needs_pretraining() {
    if from_random; then
        echo "PRETRAIN=none: the rows of $(basename "$0" .sh) are pretrained; without pretraining there are" \
            "bidirectional, subword and figure3_low_shot" >&2
        exit 2
    fi
}

# The pretrained language model: the user's (PRETRAIN), fastai's (WEIGHTS), or our own of the corpus. Its kind is words
# or --bpe, forward or --backwards, and AWD-LSTM or `vanilla`.
pretrained() { # KIND...
    local wiki name=$PROFILE
    if from_random; then
        return
    fi
    if foreign "$@"; then
        [ -n "${PRETRAIN:-}" ] || stage get_data "$WEIGHTS" "--dir_path=data/$WEIGHTS"
        return
    fi
    wiki=$(wiki_data)
    local bpe="" way="" dropmult=""
    case " $* " in *" --bpe "*) bpe=--bpe ;; esac
    case " $* " in *" --backwards "*) way=--backwards ;; esac
    case " $* " in *" vanilla "*) dropmult=--dropmult=0 name=$PROFILE-vanilla ;; esac
    corpus "$wiki" "$(basename "$wiki")" "${WIKI:-}" "--n_lbls=0 $bpe ${bpe:+$SUBWORDS}" "${bpe:-$VOCAB}"
    stage pretrain_lm "--dir_path=$wiki" "--pretrain_id=$name" "$PRETRAINING" "$SIZES" $dropmult $bpe $way
}

# Whether the pretrained model is not of our making. There is no vanilla one of elsewhere, nor one of subwords but the
# user's.
foreign() { # KIND...
    case " $* " in
        *" vanilla "*) return 1 ;;
        *" --bpe "*) [ -n "${PRETRAIN:-}" ] ;;
        *) [ -n "${PRETRAIN:-}${WEIGHTS:-}" ] ;;
    esac
}

# The flags by which finetune_lm finds it.
from_pretrained() { # KIND...
    local name=$PROFILE
    if from_random; then
        echo "--preload=False $SIZES"
        return
    fi
    if foreign "$@"; then
        if [ -n "${PRETRAIN:-}" ]; then
            echo "--pretrain_path=$PRETRAIN --pretrain_id=${PRETRAIN_ID:-$(basename "$PRETRAIN")}"
        else
            echo "--pretrain_path=data/$WEIGHTS --pretrain_id=$WEIGHTS"
        fi
        return
    fi
    case " $* " in *" vanilla "*) name=$PROFILE-vanilla ;; esac
    echo "--pretrain_path=$(wiki_data) --pretrain_id=$name"
}

# The language model of full ULMFiT, and what it needs; KIND is words or --bpe, forward or --backwards.
language_model() { # SEED KIND...
    local seed=$1
    shift
    # The dataset is cut into the subwords of the pretraining corpus, which come first.
    pretrained "$@"
    case " $* " in *" --bpe "*) dataset --bpe ;; *) dataset ;; esac
    stage finetune_lm "--dir_path=$DATA" "--lm_id=$PROFILE" "--seed=$seed" "$(from_pretrained "$@")" \
        "$LM" "$LM_DROPOUT" "$LM_RATES" "$LM_STLR" "$@"
}

# A classifier, on test too when TEST=1. Without an id it is full ULMFiT of that language model.
classifier() { # SEED ID FLAGS...
    local seed=$1 id=$2
    shift 2
    local who=("--dir_path=$DATA" "--lm_id=$PROFILE" ${id:+"--clas_id=$PROFILE-$id"} "--seed=$seed")
    stage train_clas "${who[@]}" "$@"
    [ -z "${TEST:-}" ] || stage eval_clas "${who[@]}" --split=test
}

# Full ULMFiT from the dataset to the classifier.
ulmfit() { # SEED KIND...
    local seed=$1
    language_model "$@"
    shift
    classifier "$seed" "" "$CLAS" "$GRADUAL" "$STLR" "$@"
}

# As `ulmfit`, and its error on test.
ulmfit_on_test() { # SEED KIND...
    TEST="" ulmfit "$@"
    local seed=$1
    shift
    stage eval_clas "--dir_path=$DATA" "--lm_id=$PROFILE" "--seed=$seed" "$@" --split=test
}

# The average of runs of `ulmfit_on_test`: fwd, bwd, fwd-bpe, bwd-bpe.
ensemble() { # SEED MEMBER...
    local seed=$1 member runs=()
    shift
    for member in "$@"; do
        case $member in *-bpe) unit=bpe ;; *) unit=word ;; esac
        runs+=("$DATASET--eval_clas--${member%-bpe}--$unit--$PROFILE--all--s$seed--test")
    done
    echo "python -m analysis ensemble ${runs[*]}${RESULTS:+ --results_dir=$RESULTS}"
}

# Whether a row of the table is wanted: all are, unless ROWS names some.
wanted() { # ROW
    [ -z "${ROWS:-}" ] || [[ " $ROWS " = *" $1 "* ]]
}

# -- the plan ----------------------------------------------------------------------------------------------------------

# Each command once, where it first comes.
distinct() {
    awk '!seen[$0]++'
}

# Prints the plan, or hands it to launch.
sweep() { # [--print | FLAGS-OF-LAUNCH...]
    local row
    for row in ${ROWS:-}; do
        if [ -z "${TABLE_ROWS:-}" ] || [[ " $TABLE_ROWS " != *" $row "* ]]; then
            echo "ROWS: $row is no row of this sweep; it has ${TABLE_ROWS:-none to choose from}" >&2
            exit 2
        fi
    done
    if [ "$*" = --print ]; then
        plan | distinct
        return
    fi
    source sweeps/environment.sh
    choose_python train
    local text retry="" launch=("$PYTHON" sweeps/launch.py ${GPUS:+"--gpus=$GPUS"} ${SLOTS:+"--slots=$SLOTS"}
        ${SLURM_FILE:+"--slurm_file=$SLURM_FILE"})
    [[ ! " $*" =~ " --retry"[-_]failed ]] || retry=--retry_failed
    # Before everything that runs the plan, and nothing that only shows it.
    if [ "$(type -t prepare)" = function ] && [[ ! " $*" =~ " -"(-dry[-_]run|-status|-help|h) ]]; then
        text=$(prepare | distinct)
        "${launch[@]}" --backend=local $retry <<<"$text"
    fi
    text=$(plan | distinct)
    # In the place of this script, so that whoever stops the one stops the other.
    exec "${launch[@]}" ${BACKEND:+"--backend=$BACKEND"} "$@" <<<"$text"
}
