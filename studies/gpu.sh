#!/bin/bash
# What needs a GPU, in slices: run it again and again, it goes on where it was, also after it was killed.
#
#     SOL_DATA=/path/to/data studies/gpu.sh            # ten minutes, then it stops
#     SOL_DATA=/path/to/data studies/gpu.sh 3600       # an hour
#
# It needs one GPU, PyTorch with CUDA, PyTorch Geometric and Transformers, the four packages, and no network. It prints
# "nothing left" and returns 0 once everything is done, 75 while something is left, and 1 where a step failed.
# Results: JSON in studies and benchmarks, docs/results.md; logs and marks in runs/gpu. SOL_DEVICE (default: cuda) is the
# device, SIZE (default: paper) the size of the studies.
set -u
cd "$(dirname "$0")/.." || exit 1
: "${SOL_DATA:?set SOL_DATA to the folder with data sets}"
export SOL_DATA SOL_DEVICE="${SOL_DEVICE:-cuda}"
size="${SIZE:-paper}"
end=$((SECONDS + ${1:-600} - 20)) # studies need some seconds to write a checkpoint
marks=runs/gpu
mkdir -p "$marks"

steps() {
    echo "tests python -m pytest -q -p no:cacheprovider tests/test_device.py packages/sol-tasks/tests/test_tasks_classification.py packages/sol-learner/tests/inner packages/sol-learner/tests/estimators"
    echo "step-cost python benchmarks/device_step.py --device $SOL_DEVICE --json benchmarks/device_step.json"
    echo "table4 python studies/table4.py --size $size --device $SOL_DEVICE"
    echo "table2 python studies/table2.py --size $size --device $SOL_DEVICE"
    echo "table3 python studies/table3.py --size $size --device $SOL_DEVICE"
    echo "figure5 python studies/figure5.py --size $size --device $SOL_DEVICE"
}

failed=0
while read -r name command; do
    [ -e "$marks/$name.done" ] && continue
    left=$((end - SECONDS))
    if [ "$left" -le 0 ]; then
        echo "time is up before $name; run it again"
        exit 75
    fi
    echo "$name: $command"
    # Interrupted like by Control-C, a study keeps what it has; what ignores that is killed.
    timeout --signal=INT --kill-after=15 "$left" $command </dev/null >>"$marks/$name.log" 2>&1
    status=$?
    if [ "$status" -eq 0 ]; then
        touch "$marks/$name.done"
    elif [ "$status" -eq 124 ] || [ "$status" -eq 137 ] || [ "$SECONDS" -ge "$end" ]; then
        echo "time is up during $name; run it again"
        exit 75
    else
        echo "$name failed with $status; see $marks/$name.log"
        tail -n 5 "$marks/$name.log"
        failed=1
    fi
done < <(steps)
python studies/results.py || failed=1
[ "$failed" -eq 0 ] && echo "nothing left"
exit "$failed"
