#!/bin/sh
# Runs a share of the end-to-end tests, one after the other, on the host on which it is started. e2e.sh uses it through
# kvm-host.sh. The results are in the directory that outlives a software host.
#
# usage: share.sh LIST      a line of LIST is: EXECUTABLE TEST [after ACTION]
set -eu

list=$1
results=${BANTAM_KVM_DIR:?is set by kvm-host.sh}
# Time limit of one test. The longest, which boots a whole Debian twice, takes four minutes; with full counts others take an
# hour.
seconds_each=700
[ "${BANTAM_SOAK-0}" != 1 ] || seconds_each=7200
failed=0

mkdir -p "$results/logs"
: >"$results/results"
: >"$results/none"
if grep -q ' after fork$' "$list"; then
    # The drives of forked guests are on a file system with reflinks.
    place=$(mktemp -d)
    modprobe -a loop btrfs 2>/dev/null || true
    truncate -s 4G "$place/disk"
    mkfs.btrfs -q "$place/disk"
    mkdir "$place/fs"
    mount "$place/disk" "$place/fs"
    trap 'umount "$place/fs"; rm -rf "$place"' EXIT
fi
while read -r executable test _ action; do
    name="$(basename "$executable" | sed 's/-[0-9a-f]*$//')::$test${action:+ after $action}"
    log=$results/logs/$(echo "$name" | tr ': ' '__')
    echo "$name" >"$results/current"
    scratch=${TMPDIR:-/tmp}
    [ "$action" != fork ] || scratch=$place/fs
    start=$(date +%s)
    if env "BANTAM_AFTER=$action" "TMPDIR=$scratch" \
        timeout -k 5 "$seconds_each" "$executable" --exact "$test" --nocapture --test-threads=1 \
        >"$log" 2>&1 </dev/null && grep -q '^test result: ok. 1 passed' "$log"; then
        verdict=ok
        # A guest without the action that it should have had has failed its test.
        if [ -n "$action" ] && ! grep -q 'lifecycle: [A-Z][a-z]* [1-9][0-9]* times' "$log"; then
            why=$(sed -n 's/.*lifecycle: none: //p' "$log" | sort -u | paste -s -d ';')
            echo "$name: ${why:-no Linux guest is started}" >>"$results/none"
        fi
    elif [ "${BANTAM_KVM_MODE-}" = software ] && grep -q 'the guest never printed a word' "$log"; then
        # The emulation hangs sometimes with guests of several vCPUs: mostly the host, else the guest. Either way another host
        # runs the rest, and a guest that is silent on three hosts has failed.
        echo "e2e: $name: time limit passed, and the guest never printed a word"
        exit 77
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
