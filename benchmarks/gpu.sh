#!/usr/bin/env bash
# What a GPU does with the study, in one command and under 40 minutes on one card:
#
#     bash benchmarks/gpu.sh
#
# It runs the smoke study and a shortened gpu_demo (full-size phantoms) end to end, then times training steps of the
# three arms against stock nnU-Net's, prediction against nnUNetv2_predict, and the memory of each, and writes
# benchmarks/results/gpu.md. Without a GPU it stops. "bash benchmarks/gpu.sh --cpu" goes the same way with the smoke
# study on the CPU, in minutes, and writes nothing: it shows that the script works.
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
    "$python" -m venv --system-site-packages work/gpu_benchmark_env
    work/gpu_benchmark_env/bin/python -m pip install --quiet --no-index --no-deps "$WHEELS"/*.whl
    python=work/gpu_benchmark_env/bin/python
elif [[ -z ${PYTHON:-} && -x .venv/bin/python ]]; then
    python=.venv/bin/python
fi

export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
if [[ " $* " == *" --cpu "* ]]; then export CUDA_VISIBLE_DEVICES=; fi
exec timeout --kill-after=60 2400 "$python" benchmarks/gpu.py "$@"
