#!/usr/bin/env bash
# What a GPU does with the study, in one command and under 40 minutes on one card:
#
#     bash benchmarks/gpu.sh
#
# It times training steps of the three arms against stock nnU-Net's and the memory of each, prediction against
# nnUNetv2_predict and against the CPU, a shortened gpu_demo (full-size phantoms) from nothing to its report, how long
# training waits for data, and the choices of layout and torch.compile. Each part keeps its section of
# benchmarks/results/gpu.md when it is done. "--parts steps prediction" runs some of them (these took 4 and 3 minutes on an
# H100), "--keep folder" copies sections and logs there. Without a GPU it stops. "bash benchmarks/gpu.sh --cpu" goes the
# same way with coarse phantoms and the smoke study on the CPU, in minutes, and keeps no results: it shows that the script
# works.
#
# The environment is, in this order: WHEELS (a folder, read from the checkout), .venv (see the Makefile), or whatever
# PYTHON (python3) has installed.
# WHEELS=folder is for a machine that has a CUDA torch and no network: it installs the folder's wheels, and nothing
# else, into work/gpu_benchmark_env beside the machine's own torch. Fill the folder where there is a network, with the
# Python version and system of the machine:
#
#     grep -vE '^(torch|torchvision|triton|nvidia-|cuda-)' requirements.lock > others.txt
#     pip wheel --no-deps --wheel-dir wheels -r others.txt
#
# torchvision is left out on purpose: nnU-Net's networks do without it, and one that does not match torch breaks them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3}
if [[ -n ${WHEELS:-} ]]; then
    [[ -d $WHEELS ]] || { echo "WHEELS: '$WHEELS' is no folder" >&2; exit 2; }
    env=$PWD/work/gpu_benchmark_env
    rm -rf "$env"
    "$python" -m pip install --quiet --no-index --no-deps --target "$env" "$WHEELS"/*.whl
    export PYTHONPATH="$env${PYTHONPATH:+:$PYTHONPATH}"
    export JUPYTER_PATH="$env/share/jupyter${JUPYTER_PATH:+:$JUPYTER_PATH}" # the report's page templates
elif [[ -z ${PYTHON:-} && -x .venv/bin/python ]]; then
    python=.venv/bin/python
fi

export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
if [[ " $* " == *" --cpu "* ]]; then export CUDA_VISIBLE_DEVICES=; fi
exec timeout --kill-after=60 2400 "$python" benchmarks/gpu.py "$@"
