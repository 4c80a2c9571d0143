#!/bin/bash
# `make test` runs every check, `make check` (--check) the quick ones. Each step is named, and the first failure ends the
# run. The end of a run lists the time of each step and the ten slowest end-to-end tests. `make test` installs what it needs.
set -euo pipefail

cd "$(dirname "$0")/.."
# mkfs and its kin, which `su` does not give the path of.
export PATH="$PATH:/usr/sbin:/sbin"
# Either would change what is built from what the project's configuration says.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
soak=
quick=
case ${1-} in
    '') ;;
    --soak) soak=--soak ;;
    --check) quick=yes ;;
    *) echo "usage: tests/run.sh [--check | --soak]" >&2 && exit 2 ;;
esac

times=()
step() {
    local name=$1 start=$SECONDS
    echo "== $name"
    shift
    "$@" || {
        echo "== FAILED after $((SECONDS - start)) s: $name: $*" >&2
        exit 1
    }
    echo "== ok, $((SECONDS - start)) s"
    times+=("$(printf '%5d s  %s' $((SECONDS - start)) "$name")")
}

# summary: the time of each step, and the slowest end-to-end tests by the results of e2e.sh.
summary() {
    printf '== the steps:\n'
    printf '%s\n' "${times[@]}"
    if [ -z "$quick" ]; then
        printf '== the ten slowest end-to-end tests:\n'
        cat target/e2e/share-*/results | sed -n 's/^ok \(.*\) \([0-9]*\) s$/\2 \1/p' | sort -rn | head -n 10 |
            awk '{ seconds = $1; $1 = ""; printf "%5d s %s\n", seconds, $0 }'
    fi
    echo "== all passed in $SECONDS s"
}

rust_tools() {
    for tool in rustfmt clippy; do
        cargo "${tool/rustfmt/fmt}" --version >/dev/null 2>&1 || rustup component add "$tool"
    done
}

# Runs tests that need any /dev/kvm. Their guests have a few instructions, so a KVM that interprets guests will do.
on_any_kvm() {
    if [ -w /dev/kvm ]; then
        "$@"
    else
        tests/harness/kvm-host.sh -- "$@"
    fi
}

# Both tests start software hosts of one processor, so they run side by side.
hosts_that_end() {
    local reboots status=0
    export BANTAM_SOAK=${soak:+1}
    cargo test --quiet -p vmm --test power_cut --test reboot --no-run || return
    cargo test --quiet -p vmm --test reboot &
    reboots=$!
    cargo test --quiet -p vmm --test power_cut -- --nocapture || status=1
    wait "$reboots" || status=1
    return "$status"
}

checks() {
    step "format" cargo fmt --all --check
    step "lints" cargo clippy --quiet --workspace --all-targets -- -D warnings
    step "unit, hostile and conformance tests" cargo test --quiet --workspace --lib --bins --test image_reader
    step "layering" cargo test --quiet -p vmm --test layering
}

if [ -n "$quick" ]; then
    step "rust tools" rust_tools
    checks
    summary
    exit
fi

# Creating jails, taps and namespaces takes root.
[ "$(id -u)" -eq 0 ] || {
    echo "tests/run.sh: continuing as root, by sudo, to create jails, taps and namespaces"
    exec sudo env "PATH=$PATH" "HOME=$HOME" "$PWD/tests/run.sh" "$@"
}
[ -z "$soak" ] || export BANTAM_CASES=20000

# Mostly downloads, so it runs beside the compiler.
begin_images() {
    mkdir -p target
    resources/guest/build.sh --fio --disk cloud generic backport >target/guest-images.log 2>&1 </dev/null &
    images=$!
}

end_images() {
    local status=0
    wait "$images" || status=$?
    cat target/guest-images.log
    return "$status"
}

# Link-time optimization leaves a processor idle, so it runs beside tests that wait.
begin_release() {
    nice cargo build --quiet --release -p vmm -p jailer >target/release-build.log 2>&1 </dev/null &
    release=$!
}

end_release() {
    local status=0
    wait "$release" || status=$?
    cat target/release-build.log
    return "$status"
}

step "packages" resources/install.sh build guest host test package
begin_images
step "rust tools" rust_tools
checks
begin_release
step "clients of the registry" tests/clients.sh --prepare
step "guest images" end_images
step "KVM host" tests/harness/kvm-host.sh --prepare
step "API tests" on_any_kvm env "BANTAM_SOAK=${soak:+1}" cargo test --quiet -p vmm --test api
step "clients" on_any_kvm tests/clients.sh
step "jailer and bantamctl" cargo build --quiet -p jailer
step "jailer tests" on_any_kvm env "BANTAM_SOAK=${soak:+1}" cargo test --quiet -p vmm --test jailer
step "end-to-end tests on KVM" tests/e2e.sh $soak
step "release build" end_release
step "package" resources/package/build.sh deb dist
step "power cuts, and the package on a host that reboots" hosts_that_end
step "make boot, without a terminal" resources/boot.sh </dev/null
summary
