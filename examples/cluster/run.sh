#!/usr/bin/env bash
# Usage: run.sh [--items N] [--kill for-good|restart|none] [--pack-size N] [--folder DIR]
#
# Starts two SIMULATED model servers, a Ballista scheduler and two executors on this machine, and runs
# `SELECT … categorize(title, body) … FROM news` over Parquet on them. When half of the items are asked, executor 2 is
# killed with SIGKILL. At the end the result must have exactly one row for each item; what was asked twice is counted.
#
#   --items N        100000
#   --kill for-good  (default) executor 2 stays dead: executor 1 does the rest, with its own share of the quotas
#          restart   executor 2 is started again at once, with the ledger that the killed one had
#          none      nothing is killed
#   --pack-size N    the most items that share a request (3)
#   --folder DIR     where data, ledgers and logs go; must be new (a temporary folder, removed when all went well)
#
# Environment: SIMULATED_SERVER, the example simulated_server of slugline, if it is built already. `cargo build` says no
# more than that it builds; CARGO_FLAGS=--release makes the real thing.
# End of the usage text.
set -euo pipefail

die() { printf 'run.sh: %s\n' "$*" >&2; exit 1; }
usage() { sed -n '2,/^# End of the usage text/{/^# End of the usage text/d; s/^# \{0,1\}//; p;}' "${BASH_SOURCE[0]}"; }

items=100000 kill=for-good pack_size=3 folder=
while (( $# )); do
  case $1 in
    -h|--help) usage; exit 0 ;;
    --items|--kill|--pack-size|--folder)
      (( $# > 1 )) || die "$1 takes a value"
      case $1 in
        --items) items=$2 ;;
        --kill) kill=$2 ;;
        --pack-size) pack_size=$2 ;;
        --folder) folder=$2 ;;
      esac
      shift 2 ;;
    *) die "'$1' is not known (try --help)" ;;
  esac
done
[[ $items =~ ^[1-9][0-9]{0,8}$ ]] || die "--items takes a number, not '$items'"
[[ $pack_size =~ ^[1-9][0-9]?$ ]] || die "--pack-size takes a number, not '$pack_size'"
[[ $kill == for-good || $kill == restart || $kill == none ]] || die "--kill takes for-good, restart or none, not '$kill'"

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
keeps_folder=$folder
folder=${folder:-$(mktemp -d)}
mkdir -p "$folder"
[[ -z $(ls -A "$folder") ]] || die "$folder is not empty"
read -ra flags <<< "${CARGO_FLAGS:-}"

declare -A process
stop() { # stop SIGNAL NAME...: ends processes that are ours, and waits for them
  local signal=$1 name; shift
  for name in "$@"; do
    [[ -n ${process[$name]:-} ]] || continue
    kill "-$signal" "${process[$name]}" 2>/dev/null || true
    wait "${process[$name]}" 2>/dev/null || true
    unset "process[$name]"
  done
}
leave() {
  local status=$?
  stop KILL "${!process[@]}"
  if (( status )); then
    printf 'run.sh: failed; data and logs are in %s\n' "$folder" >&2
  elif [[ -z $keeps_folder ]]; then
    rm -rf "$folder"
  fi
}
trap leave EXIT
trap 'exit 130' INT TERM

wait_for() { # wait_for SECONDS WHAT COMMAND...
  local end=$((SECONDS + $1)) what=$2; shift 2
  until "$@" > /dev/null 2>&1; do
    (( SECONDS < end )) || die "waited too long for $what"
    sleep 0.2
  done
}
taken=" "
free_port() { # sets port
  while port=$((RANDOM % 10000 + 20000)); [[ $taken == *" $port "* ]] || (exec 3<> "/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
  taken+="$port "
}

cargo build "${flags[@]}" --quiet --manifest-path "$here/Cargo.toml"
[[ " ${flags[*]} " == *" --release "* ]] && profile=release || profile=debug
cluster=${CARGO_TARGET_DIR:-$here/target}/$profile/slugline-cluster
if [[ -z ${SIMULATED_SERVER:-} ]]; then
  cargo build --release --quiet --manifest-path "$root/Cargo.toml" --example simulated_server
  SIMULATED_SERVER=${CARGO_TARGET_DIR:-$root/target}/release/examples/simulated_server
fi

# The servers.
endpoints=()
for server in server-1 server-2; do
  "$SIMULATED_SERVER" --port 0 --latency none > "$folder/$server.log" &
  process[$server]=$!
  wait_for 10 "$server" grep -q '^SIMULATED' "$folder/$server.log"
  endpoints+=("$(sed -n 's/^SIMULATED server at \([^,]*\),.*/\1/p' "$folder/$server.log")")
done
asked() { # the requests that the servers have answered
  local endpoint
  for endpoint in "${endpoints[@]}"; do curl -sf "${endpoint%/v1}/metrics"; done |
    awk '/^vllm:request_success_total/ { sum += $NF } END { print sum + 0 }'
}
half_is_asked() { (( $(asked) * pack_size * 2 >= items )); }

# The cluster. Both executors are told the quotas of the whole, and how many they are.
free_port; scheduler_port=$port
RUST_LOG=${RUST_LOG:-info} "$cluster" scheduler --port "$scheduler_port" --executors 2 2> "$folder/scheduler.log" &
process[scheduler]=$!
start_executor() { # start_executor NAME LEDGER
  free_port; local results_port=$port
  free_port; local task_port=$port
  mkdir "$folder/$1"
  RUST_LOG=${RUST_LOG:-info} "$cluster" executor --scheduler-port "$scheduler_port" --port "$results_port" --task-port "$task_port" \
    --work-dir "$folder/$1" --endpoint "${endpoints[0]}" --endpoint "${endpoints[1]}" --model simulated \
    --taxonomy "$root/categories/newsroom.toml" --pack-size "$pack_size" --concurrency 24 --executors 2 \
    --ledger "$folder/$2.ledger" 2> "$folder/$1.log" &
  process[$1]=$!
}
start_executor executor-1 1
start_executor executor-2 2
wait_for 60 "the executors" curl -sf "http://127.0.0.1:$scheduler_port/readyz"
echo "two SIMULATED servers, a scheduler and two executors are up"

# The query.
"$cluster" generate --out "$folder/news" --items "$items"
begun=$SECONDS
"$cluster" client --scheduler "df://127.0.0.1:$scheduler_port" --news "$folder/news" --out "$folder/result.parquet" &
process[client]=$!
if [[ $kill != none ]]; then
  wait_for 3600 "half of the items" half_is_asked
  stop KILL executor-2
  echo "executor 2 was killed after $((SECONDS - begun)) s and $(asked) requests"
  [[ $kill == for-good ]] || start_executor executor-2-again 2
fi
wait "${process[client]}" || die "the query failed"
unset "process[client]"

# What came of it.
"$cluster" check --news "$folder/news" --result "$folder/result.parquet"
stop INT server-1 server-2
awk -v items="$items" '/ requests, / { requests += $1; asked += $3 }
  END { printf "%d requests; %d items were asked, %d of them a second time\n", requests, asked, asked - items }' \
  "$folder"/server-[12].log
