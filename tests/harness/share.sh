#!/bin/sh
# Runs a share of the end-to-end tests, one after the other, on the host it is started on. Used by
# e2e.sh through kvm-host.sh; results go to the directory that outlives a software host.
#
# usage: share.sh LIST      a line of LIST is: EXECUTABLE TEST
set -eu

list=$1
results=${BANTAM_KVM_DIR:?is set by kvm-host.sh}
# Bounds one test: the longest, which boots a whole Debian twice, takes four minutes, and with full
# counts others take an hour.
seconds_each=700
[ "${BANTAM_SOAK-0}" != 1 ] || seconds_each=7200
failed=0

mkdir -p "$results/logs"
: >"$results/results"
while read -r executable test; do
    name=$(basename "$executable" | sed 's/-[0-9a-f]*$//')::$test
    log=$results/logs/$(echo "$name" | tr ':' '_')
    echo "$name" >"$results/current"
    start=$(date +%s)
    if timeout -k 5 "$seconds_each" "$executable" --exact "$test" --nocapture --test-threads=1 \
        >"$log" 2>&1 </dev/null && grep -q '^test result: ok. 1 passed' "$log"; then
        verdict=ok
    else
        verdict=FAILED
        failed=$((failed + 1))
    fi
    echo "$verdict $name $(($(date +%s) - start)) s" | tee -a "$results/results"
    if [ "$verdict" = FAILED ]; then
        sed 's/^/    /' "$log" | tail -n 120
    fi
done <"$list"
[ "$failed" -eq 0 ]
