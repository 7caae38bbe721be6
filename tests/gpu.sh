#!/usr/bin/env bash
# The engine on a CUDA device, in under 8 minutes; nothing is downloaded:
#
#     tests/gpu.sh [--cpu]
#
# Runs the engine's tests on tiny models on the device, then inferences of 8 and 64 particles on
# models with random weights of SmolLM2's and of a 7B model's shape, in bfloat16 and float32, and
# prints a table (tests/benchmarks/gpu_steps.py). Exits with 1 where there is no CUDA, or something
# fails. With --cpu it runs with a tiny model on the CPU: that tries the script and measures nothing.
# PYTHON names another Python than .venv/bin/python.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
[ -x "$python" ] || python=python3
export PYTHONPATH=$PWD HF_HUB_OFFLINE=1
device=cuda
[ "${1:-}" = "--cpu" ] && device=cpu
started=$SECONDS
if [ "$device" = cuda ] && ! "$python" -c 'import torch; raise SystemExit(not torch.cuda.is_available())'; then
    echo "tests/gpu.sh: there is no CUDA device that torch can use; --cpu tries the script" >&2
    exit 1
fi
failed=0
# New tensors of the tests, and so their models, are made on the device.
timeout 200 "$python" - "$device" <<'TESTS' || failed=1
import sys

import pytest
import torch

torch.set_default_device(sys.argv[1])
torch.backends.cudnn.allow_tf32 = False
chosen = "is_cached or planted or own_masks or of_one_model or share_keys or one_row"
files = [f"tests/lm/test_{name}.py" for name in ("architectures", "reach", "snapshots")]
if sys.argv[1] == "cpu":
    chosen = "share_keys or one_row"
raise SystemExit(pytest.main(["-q", "-p", "no:cacheprovider", "-k", chosen, *files]))
TESTS
echo "the tests took $((SECONDS - started)) s"
options=()
[ "$device" = cpu ] && options=(--tokens 4 --repetitions 1)
timeout 270 "$python" tests/benchmarks/gpu_steps.py --device "$device" "${options[@]}" || failed=1
echo "all took $((SECONDS - started)) s"
[ "$failed" = 0 ] || echo "tests/gpu.sh: something failed" >&2
exit "$failed"
