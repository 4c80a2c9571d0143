#!/bin/bash
# `make bench`: measures the release build beside the other monitors of this machine; the report goes to
# target/bench. `--help` tells the options, which are main.rs's.
set -euo pipefail

cd "$(dirname "$0")/../.."
target=$(realpath "${CARGO_TARGET_DIR:-target}")
BANTAM=${BANTAM:-$target/x86_64-unknown-linux-gnu/release/bantam}
export BANTAM

case " $* " in
    *' --help '* | *' -h '*) ;;
    *)
        [ -x "$BANTAM" ] || {
            echo "bench: $BANTAM is missing: run \`make build\`" >&2
            exit 2
        }
        tests/harness/kvm-host.sh --prepare
        ;;
esac
# The measuring program itself needs no optimisation, and shares the tests' build.
exec cargo bench --quiet -p vmm --profile dev --bench bench -- "$@"
