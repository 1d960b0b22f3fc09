# Keyferry as a peer of a load comparison, with everything on that is on by default.
#
# Sourced by a harness that sets RUN (its state, with upstream-ca.pem and an upstream on 127.0.0.1:8443 for
# api.bench.test) and starts CMD. Set KEYFERRY to the binary; without it, the release build of this checkout is taken.
# KEYFERRY_EXTRA is text that is added to the configuration (`scrub: off`, say).
KEYFERRY=${KEYFERRY:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/target/release/keyferry}
KIND=connect PORT=3200
KF=$RUN/keyferry-home CA=$KF/ca/ca.pem
rm -rf "$KF" && mkdir -m 700 -p "$KF"
cat >"$KF/keyferry.yaml" <<C
listen: {proxy: "127.0.0.1:$PORT", base_url: "127.0.0.1:3201", admin: "127.0.0.1:3202"}
upstream:
  extra_roots: ["$RUN/upstream-ca.pem"]
  resolve: {"api.bench.test:8443": "127.0.0.1:8443"}
providers:
  bench:
    hosts: ["api.bench.test:8443"]
    inject: {header: Authorization, value: "Bearer {secret}"}
    env: BENCH_API_KEY
${KEYFERRY_EXTRA:-}
C
chmod 600 "$KF/keyferry.yaml"
# Long enough to be searched for in responses: a value of under 8 bytes is not, and would make this cheaper than it is.
value=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
printf %s "$value" | "$KEYFERRY" --home "$KF" secret set bench:one --quiet - >/dev/null
token=$("$KEYFERRY" --home "$KF" agent create bench --json | sed -n 's/.*"token": *"\([^"]*\)".*/\1/p')
# The upstream says back what it was sent. It was sent the value, and the agent reads its placeholder instead: an answer
# with the placeholder proves both (what the client itself sends is neither).
AUTH="Bearer $("$KEYFERRY" --home "$KF" run --no-daemon -q --agent bench -- sh -c 'printf %s "$BENCH_API_KEY"')"
EXTRA=(--proxy-auth "Basic $(printf 'bench:%s' "$token" | base64 -w0)")
CMD=("$KEYFERRY" --home "$KF" serve)
