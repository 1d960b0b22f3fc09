#!/usr/bin/env bash
# What a request costs as an installation grows: credentials, routes, agents, open connections.
#
#   scale.sh PX [SECONDS]      PX is the load generator of the comparison (see ../README.md)
#
# Prints one line for each size: CPU of the proxy in microseconds a request and the median latency, at 16 connections
# with the proxy on one core and everything else on the other. Loopback only.
set -euo pipefail
PX=$1 SECS=${2:-3}
HERE=$(cd "$(dirname "$0")" && pwd)
KEYFERRY=${KEYFERRY:-$HERE/../../target/release/keyferry}
RUN=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; rm -rf "$RUN"' EXIT
ulimit -n "$(ulimit -Hn)"
getent hosts api.bench.test >/dev/null || { echo "add '127.0.0.1 api.bench.test' to /etc/hosts" >&2; exit 1; }
"$PX" ca --dir "$RUN" --name upstream-ca
"$PX" ca --dir "$RUN" --name mitm-ca --leaf api.bench.test
taskset -c 0 "$PX" upstream --dir "$RUN" --listen 127.0.0.1:8443 2>/dev/null &
pids+=($!)

wait_port() { for _ in $(seq 600); do (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return; sleep .1; done; return 1; }

# measure LABEL SIZE: starts Keyferry as keyferry.sh set it up and loads it.
measure() {
  taskset -c 1 "${CMD[@]}" >/dev/null 2>&1 &
  local proxy=$! open=${OPEN:-16}
  wait_port "$PORT"
  local target=(--proxy "127.0.0.1:$PORT" --url https://api.bench.test:8443 --ca "$CA" --auth "Bearer DUMMY" --expect-auth "$AUTH")
  local held=
  if [ "$open" -gt 16 ]; then
    taskset -c 0 "$PX" load --scenario idle --c $((open - 16)) --hold $((SECS + 8)) --peer keyferry --label held --round 1 "${target[@]}" "${EXTRA[@]}" >/dev/null &
    held=$!
    sleep 6
  fi
  # One short run first, so that what is made once is made.
  taskset -c 0 "$PX" load --scenario closed --c 16 --secs 1 --peer keyferry --label warm --round 1 "${target[@]}" "${EXTRA[@]}" >/dev/null
  taskset -c 0 "$PX" load --scenario closed --c 16 --secs "$SECS" --peer keyferry --label "$1" --round 1 "${target[@]}" --pid $proxy "${EXTRA[@]}" |
    sed -n 's/.*"cpu_us":\([0-9.]*\).*"p50_us":\([0-9.]*\).*/\1 \2/p' | while read -r cpu p50; do printf '%-12s %6s  %7s us/request  p50 %7s us\n' "$1" "$2" "$cpu" "$p50"; done
  [ -z "$held" ] || kill $held 2>/dev/null || true
  kill $proxy && wait $proxy 2>/dev/null || true
}

for count in 1 100 1000 10000; do
  . "$HERE/keyferry.sh"
  if [ "$count" -gt 1 ]; then
    for at in $(seq 2 "$count"); do printf 'OTHER_%s_KEY=%s\n' "$at" "$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')"; done >"$RUN/many.env"
    "$KEYFERRY" --home "$KF" secret import "$RUN/many.env" --all --quiet >/dev/null
    rm "$RUN/many.env"
  fi
  measure credentials "$count"
done

for count in 1 100 1000; do
  KEYFERRY_EXTRA=$(echo 'routes:'; for at in $(seq "$count"); do echo "  - {host: \"host$at.example\", methods: [GET], paths: [\"/a/*/b/**\"], action: deny}"; done)
  . "$HERE/keyferry.sh"
  measure routes "$count"
done

for count in 1 100 1000; do
  KEYFERRY_EXTRA=$(echo 'agents:'; for at in $(seq "$count"); do echo "  agent$at: {allow: [bench, openai, {provider: github, methods: [GET], paths: [\"/repos/acme/**\"]}]}"; done)
  . "$HERE/keyferry.sh"
  for at in $(seq "$((count < 200 ? count : 200))"); do "$KEYFERRY" --home "$KF" agent create "agent$at" --json >/dev/null; done
  measure agents "$count"
done

KEYFERRY_EXTRA=
for count in 16 500 2000 5000; do
  . "$HERE/keyferry.sh"
  OPEN=$count measure connections "$count"
done
