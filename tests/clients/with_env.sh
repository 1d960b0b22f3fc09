#!/bin/sh
# with_env.sh FILE COMMAND...: writes the environment that COMMAND gets to FILE, then becomes COMMAND.
set -eu
file=$1
shift
env >"$file"
exec "$@"
