#!/bin/bash
# Runs the end-to-end suites on real KVM: builds them, splits the tests over two software hosts (or uses this machine's own
# KVM), runs each share with a time limit, repeats what a failed host left, and prints a summary.
set -euo pipefail

cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/sbin:/sbin"
# Cargo's output is parsed below.
export CARGO_TERM_COLOR=never
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
harness=tests/harness
out=$PWD/target/e2e
suites="boot lifecycle disk network devices bad_input storage guests image snapshot fork seccomp documents"
# The jailer suite runs on any /dev/kvm, so it is run here only if named, on the software host's kernel.
known="$suites jailer"

# Each kernel in each form, each form with each number of vCPUs, and boot's other tests.
boots='cloud_bzimage_1\|cloud_vmlinux_2\|generic_bzimage_2\|generic_vmlinux_4\|backport_bzimage_4\|backport_vmlinux_1'
boots="$boots"'\|^a_root\|^memory'

# words_for [ACTION]: the suites and tests to run if none is named, without or with ACTION on their guests. Without full counts
# kernels are not booted in all combinations, and a few tests, which together use everything, are repeated after each action.
words_for() {
    case ${1-},$soak in
        ,0) echo "boot::$boots" "${suites#boot }" ;;
        ,1) echo "$suites" ;;
        pause,0) echo devices::limits_hold ;;
        restore,0) echo disk::a_sparse_image ;;
        diff,0) echo devices::vsock_carries_streams ;;
        fork,0) echo network::tcp_arrives ;;
        *) echo boot lifecycle disk network devices ;;
    esac
}

usage() {
    cat <<'END'
usage: tests/e2e.sh [--soak] [--after ACTION]... [SUITE[::TEST-PATTERN]]...

Runs the end-to-end suites (boot lifecycle disk network devices bad_input storage guests image snapshot fork seccomp documents), or those named, on real KVM.
Without arguments it runs a third of boot's tests, all tests of the others, and a few again after each ACTION.

  --soak          full counts, which take hours on an emulated host: all of boot's tests, and all repetitions after each ACTION
  --after ACTION  performs ACTION on the guest of each test, again and again while the test runs: pause (and resume), restore (in
                  another process, from a snapshot), diff (the same with diff snapshots), fork (the child replaces the guest),
                  or all. Each test runs once per action. Without suites these are a few tests, others for each action; with
                  --soak all of boot lifecycle disk network devices. Tests for which an action has no meaning are counted, with
                  the reason

Exit status 0 only if every test ran and passed. Logs are in target/e2e/share-N-ATTEMPT/logs.
END
}

soak=0
wanted=()
actions=()
while [ $# -gt 0 ]; do
    case $1 in
        --help | -h) usage && exit ;;
        --soak) soak=1 ;;
        --after)
            shift
            case ${1-} in
                pause | restore | diff | fork) actions+=("$1") ;;
                all) actions=(pause restore diff fork) ;;
                *) echo "e2e: --after ${1-}: not pause, restore, diff, fork or all (see --help)" >&2 && exit 2 ;;
            esac
            ;;
        -*) echo "e2e: unknown option $1 (see --help)" >&2 && exit 2 ;;
        *) wanted+=("$1") ;;
    esac
    shift
done
export BANTAM_SOAK=$soak

mode=$($harness/kvm-host.sh --print-mode)
shares=2
timeout=1500
if [ "$mode" = hardware ]; then
    shares=1
    # /tmp may be mounted so that no jail can be in it.
    export TMPDIR="${TMPDIR:-/var/tmp}"
fi
[ "$soak" = 0 ] || timeout=14400

echo "e2e: building"
rm -rf "$out"
mkdir -p "$out"
targets=()
for suite in $known; do
    targets+=(--test "$suite")
done
cargo build --quiet -p jailer
cargo test --quiet -p vmm "${targets[@]}" --no-run
cargo test -p vmm "${targets[@]}" --no-run 2>&1 |
    sed -n 's,.*Executable .*tests/\(.*\)\.rs (\(.*\)).*,\1 \2,p' >"$out/executables"

# tests_of WORD [ACTION]: a line for each test of SUITE[::TEST-PATTERN]
tests_of() {
    local suite=${1%%::*} pattern= executable found
    [ "$suite" = "$1" ] || pattern=${1#*::}
    executable=$(awk -v suite="$suite" '$1 == suite {print $2}' "$out/executables")
    [ -n "$executable" ] || {
        echo "e2e: there is no suite $suite (see --help)" >&2
        exit 2
    }
    found=$("$executable" --list --format terse | sed -n 's/: test$//p' | grep -e "$pattern" |
        sed "s,^,$PWD/$executable ,; s,$PWD//,/,; s,^$PWD/$PWD/,$PWD/,; s,$,${2:+ after $2},") || {
        echo "e2e: no test of $suite matches '$pattern'" >&2
        exit 2
    }
    printf '%s\n' "$found"
}

# tests_after [ACTION]
tests_after() {
    local words=("${wanted[@]}") word
    [ ${#words[@]} -gt 0 ] || read -r -a words <<<"$(words_for "${1-}")"
    for word in "${words[@]}"; do
        tests_of "$word" "${1-}"
    done
}

: >"$out/tests"
if [ ${#actions[@]} -eq 0 ]; then
    tests_after >>"$out/tests"
    [ ${#wanted[@]} -gt 0 ] || actions=(pause restore diff fork)
fi
for action in "${actions[@]}"; do
    tests_after "$action" >>"$out/tests"
done
total=$(wc -l <"$out/tests")
[ "$total" -gt 0 ] || {
    echo "e2e: no test matches" >&2
    exit 2
}

# run_once N ATTEMPT: 0 if all of the share's tests passed, 1 if some failed, 2 if its host did.
run_once() {
    local dir=$out/share-$1-$2
    mkdir -p "$dir"
    $harness/kvm-host.sh --timeout "$timeout" --dir "$dir" -- \
        "$PWD/$harness/share.sh" "$out/list-$1" >>"$out/output-$1" 2>&1 || true
    case $(cat "$dir/outcome" 2>/dev/null) in
        'status 0') return 0 ;;
        # share.sh reports a wedged host.
        'status 77') return 2 ;;
        status*) return 1 ;;
        *) return 2 ;;
    esac
}

# run_share N: like run_once, but tests that a failed host left go to another, with a message. An emulated host wedges in about
# one of thirty boots with several vCPUs; three failures in a row are no accident.
run_share() {
    local attempt status dir
    for attempt in 1 2 3; do
        status=0
        run_once "$1" "$attempt" || status=$?
        [ "$status" = 2 ] || return "$status"
        dir=$out/share-$1-$attempt
        echo "e2e: host $attempt of share $1 failed ($(cat "$dir/outcome" 2>/dev/null || echo 'no outcome')," \
            "during $(cat "$dir/current" 2>/dev/null || echo nothing)): another host runs the rest" |
            tee -a "$out/output-$1"
        # `ok SUITE::TEST N s` in the results is ` TEST` at the end of a line of the list; TEST may have modules.
        sed -n 's/^ok [^:]*::\(.*\) [0-9]* s$/ \1$/p' "$dir/results" >"$out/done-$1" 2>/dev/null || true
        if [ -s "$out/done-$1" ]; then
            grep -v -f "$out/done-$1" "$out/list-$1" >"$out/left-$1" || return 2
            mv "$out/left-$1" "$out/list-$1"
        fi
    done
    return 2
}

# Each test goes to the share with the least work so far.
echo "e2e: $total tests on $shares $mode KVM host(s), at most $timeout s each"
running=()
for share in $(seq "$shares"); do
    awk -v share="$share" -v shares="$shares" '
        { seconds = 20 }
        / debians_own_disk/ { seconds = 280 }
        / every_call| synced_data_survives| disk_and_tcp| two_restores| the_balloon_returns| the_readme/ { seconds = 70 }
        / after / { seconds += 5 }
        /(tcp_arrives|limits_hold).* after / { seconds += 15 }
        {
            least = 1
            for (i = 2; i <= shares; i++) if (sum[i] < sum[least]) least = i
            sum[least] += seconds
            if (least == share) print
        }' "$out/tests" >"$out/list-$share"
    run_share "$share" &
    running+=($!)
done

failed=0
for share in $(seq "$shares"); do
    status=0
    wait "${running[share - 1]}" || status=$?
    cat "$out/output-$share"
    [ "$status" = 0 ] || failed=1
done

# A test that failed before its host failed has failed, even if it passed on the next host.
! grep -h '^FAILED' "$out"/share-*/results || failed=1
passed=$(cat "$out"/share-*/results | grep -c '^ok ' || true)
echo "e2e: $passed of $total passed on $mode KVM"
for action in ${actions[@]+"${actions[@]}"}; do
    done=$(cat "$out"/share-*/results | grep -c "^ok .* after $action [0-9]* s$" || true)
    none=$(cat "$out"/share-*/none | grep " after $action: " | sort || true)
    without=$(printf '%s' "$none" | grep -c . || true)
    echo "e2e: $((done - without)) checks were run after $action, $without have no such action"
    [ -z "$none" ] || printf '%s\n' "$none" | sed "s, after $action: ,: ,; s,^,e2e:   ,"
done
[ "$failed" = 0 ] && [ "$passed" = "$total" ]
