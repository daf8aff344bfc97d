#!/usr/bin/env bash
# Usage: vllm.sh [MODEL] [--port N] [VLLM_ARGUMENTS...]
#
# Starts vLLM on a machine with a GPU, with the settings of slugline's reference workload, in the foreground.
#
#   MODEL       Qwen/Qwen2.5-7B-Instruct-AWQ, or the environment variable MODEL
#   --port N    8000, or the environment variable PORT
#   others      go to `vllm serve` after the settings below; of an option that is given twice, vLLM takes the last
#
# Variant with lower latency under load, at a lower peak of throughput (fewer sequences share the GPU at a time):
#   vllm.sh --max-num-seqs 64 --gpu-memory-utilization 0.95
#
# vLLM itself: https://docs.vllm.ai (pip install vllm). The first start downloads the model from huggingface.co.
# End of the usage text.
set -euo pipefail

usage() { sed -n '2,/^# End of the usage text/{/^# End of the usage text/d; s/^# \{0,1\}//; p;}' "${BASH_SOURCE[0]}"; }
misuse() { printf 'vllm.sh: %s (try --help)\n' "$*" >&2; exit 2; }

model=${MODEL:-Qwen/Qwen2.5-7B-Instruct-AWQ} port=${PORT:-8000} extra=()
if (( $# )) && [[ $1 != -* ]]; then model=$1; shift; fi
while (( $# )); do
  case $1 in
    -h|--help) usage; exit 0 ;;
    --) shift; extra+=("$@"); break ;;
    --port) (( $# > 1 )) || misuse "--port takes a value"; port=$2; shift 2 ;;
    --port=*) port=${1#*=}; shift ;;
    *) extra+=("$1"); shift ;;
  esac
done
if ! [[ $port =~ ^[1-9][0-9]{0,4}$ ]] || (( port > 65535 )); then misuse "--port takes a number from 1 to 65535, not '$port'"; fi
command -v vllm > /dev/null || {
  echo "vllm.sh: vllm is not on the PATH: install it (https://docs.vllm.ai) or activate its environment; without a GPU, take run.sh" >&2
  exit 1
}

cat <<TEXT
When vLLM says that its startup is complete, try, from the crate's root:

  cargo run --release --example categorize -- --input items.jsonl --output out.jsonl --taxonomy categories/newsroom.toml --base-url http://127.0.0.1:$port/v1 --model $model

TEXT

# --max-num-seqs 128                 more than the library ever has in flight (10 to 25 by default), so no request queues
# --max-model-len 4096               prompt about 1,100 tokens + answer at most 200; the library's default context
# --enable-prefix-caching            the system message is the same bytes in every request
# --enable-prompt-tokens-details     else the answer does not say how much of the prompt was cached
# --structured-outputs-config        no white space in constrained JSON: fewer output tokens an item, and no loop of blanks
#                                    up to max_tokens. vLLM refuses the flag with its default backend "auto", so the
#                                    backend is named. vLLM before 0.11 calls the option --guided-decoding-... instead.
exec vllm serve "$model" --host 127.0.0.1 --port "$port" --max-num-seqs 128 --max-model-len 4096 \
  --gpu-memory-utilization 0.90 --enable-prefix-caching --enable-prompt-tokens-details \
  --structured-outputs-config '{"backend": "xgrammar", "disable_any_whitespace": true}' ${extra[@]+"${extra[@]}"}
