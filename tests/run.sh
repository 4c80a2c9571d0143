#!/bin/bash
# `make test`: every check there is, each step named, the first failure told. Installs what it needs.
set -euo pipefail

cd "$(dirname "$0")/.."
# mkfs and its kin, which `su` does not give the path of.
export PATH="$PATH:/usr/sbin:/sbin"
# Either would change what is built from what the project's configuration says.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
soak=
case ${1-} in
    '') ;;
    --soak) soak=--soak ;;
    *) echo "usage: tests/run.sh [--soak]" >&2 && exit 2 ;;
esac

step() {
    echo "== $1"
    shift
    local start=$SECONDS
    "$@" || {
        echo "== FAILED after $((SECONDS - start)) s: $*" >&2
        exit 1
    }
    echo "== ok, $((SECONDS - start)) s"
}

rust_tools() {
    for tool in rustfmt clippy; do
        cargo "${tool/rustfmt/fmt}" --version >/dev/null 2>&1 || rustup component add "$tool"
    done
}

# What needs a /dev/kvm and no more: the guests are a few instructions, which one that interprets them runs too.
on_any_kvm() {
    if [ -w /dev/kvm ]; then
        "$@"
    else
        tests/harness/kvm-host.sh -- "$@"
    fi
}

# Each starts hosts of its own, of one processor: both at once.
ends_of_hosts() {
    local reboots status=0
    export BANTAM_SOAK=${soak:+1}
    cargo test --quiet -p vmm --test power_cut --test reboot --no-run || return
    cargo test --quiet -p vmm --test reboot &
    reboots=$!
    cargo test --quiet -p vmm --test power_cut -- --nocapture || status=1
    wait "$reboots" || status=1
    return "$status"
}

# Jails, taps and namespaces are root's to make.
[ "$(id -u)" -eq 0 ] || {
    echo "tests/run.sh: jails, taps and namespaces are made: going on as root, by sudo"
    exec sudo env "PATH=$PATH" "HOME=$HOME" "$PWD/tests/run.sh" "$@"
}
[ -z "$soak" ] || export BANTAM_CASES=20000

# Mostly a matter of downloads: beside what is compiled.
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

step "packages" resources/install.sh build guest host test
begin_images
step "rust tools" rust_tools
step "format" cargo fmt --all --check
step "lints" cargo clippy --quiet --workspace --all-targets -- -D warnings
step "unit, hostile and conformance tests" cargo test --quiet --workspace --lib --bins
step "layout" cargo test --quiet -p vmm --test layering
step "clients of the registry" tests/clients.sh --prepare
step "guest images" end_images
step "KVM host" tests/harness/kvm-host.sh --prepare
step "API tests" on_any_kvm env "BANTAM_SOAK=${soak:+1}" cargo test --quiet -p vmm --test api
step "clients" on_any_kvm tests/clients.sh
step "jailer" cargo build --quiet -p jailer
step "jailer tests" on_any_kvm env "BANTAM_SOAK=${soak:+1}" cargo test --quiet -p vmm --test jailer
step "end-to-end tests on KVM" tests/e2e.sh $soak
step "power cuts and reboots of the host" ends_of_hosts
step "release build" cargo build --quiet --release -p vmm -p jailer
step "make boot, without a terminal" resources/boot.sh </dev/null
echo "== all passed in $SECONDS s"
