#!/bin/bash
# Boots and operates a small guest with clients from the package registries that nobody here wrote. Each client has an environment
# of its own in target/clients and a network namespace of its own.
#
# tests/clients/NAME_drive.py drives a client in Python, the package tests/clients/NAME one in Rust.
#
# usage: clients.sh [CLIENT]...
#        clients.sh --prepare       only downloads and builds
set -euo pipefail

cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/sbin:/sbin"
home=$PWD/target/clients
# The debug build exists after the other tests, and is fast enough.
monitor=$PWD/target/x86_64-unknown-linux-gnu/debug/bantam
# Time limit of one client. Each takes seconds, also where KVM interprets guests.
seconds_each=180

# Clients with a version are Python packages. The version of a crate is in the package that drives it.
clients=(celesto==0.1.10 bunkervm==0.14.0 hysn-firecracker-python==1.0.7 firecracker-rs-sdk)

[ "$(id -u)" -eq 0 ] || { echo "clients: must run as root, to create taps" >&2 && exit 1; }
python=$(command -v python3) || { echo "clients: python3 is missing" >&2 && exit 1; }
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "clients: $("$python" --version) is too old: celesto needs 3.11 or later" >&2
    exit 1
}

# Installs a client in its version, unless it is installed.
install() {
    local client=$1 environment=$home/$1
    if [ -d "tests/clients/$client" ]; then
        cargo build --quiet --locked --manifest-path "tests/clients/$client/Cargo.toml" --target-dir "$home/cargo"
        return
    fi
        # An environment is invalid without the interpreter that created it.
    [ -e "$environment/installed" ] && "$environment/bin/python" -c '' 2>/dev/null && return
    echo "clients: installing $client"
    rm -rf "$environment"
    "$python" -m venv "$environment"
    "$environment/bin/pip" install --quiet --disable-pip-version-check "$client"
    touch "$environment/installed"
}

# Runs a command in a network namespace with a default route that leads nowhere, and in a PID namespace, with which all
# processes of a client end.
# shellcheck disable=SC2016
lonely='ip link set lo up
ip link add eth0 type veth peer name eth8
ip address add 10.9.9.1/24 dev eth0
ip link set eth0 up
ip link set eth8 up
ip route add default via 10.9.9.2 dev eth0
exec "$@"'

drive() {
    local client=$1 name=${1%%==*} directory drive
    drive=("$home/$client/bin/python" -P "tests/clients/${name}_drive.py")
    [ ! -d "tests/clients/$client" ] || drive=("$home/cargo/x86_64-unknown-linux-gnu/debug/$name-drive")
        # Lower case, because one client puts the socket's path where a URL has its host; short, because it is a Unix socket.
    directory=/tmp/bantam-clients-$$-$name
    mkdir -m 700 "$directory"
    truncate -s 16M "$directory/disk.img"
    mkdir "$directory/work"
    if timeout -k 5 "$seconds_each" unshare -n -p -f --kill-child --mount-proc sh -ec "$lonely" sh \
        "${drive[@]}" "$monitor" "$home/guest.elf" "$directory/disk.img" "$directory/work" >"$directory/said" 2>&1; then
        echo "clients: ok $client"
        rm -rf "$directory"
    else
        echo "clients: FAILED $client; $directory has its files:" >&2
        tail -n 60 "$directory/said" >&2
        return 1
    fi
}

if [ "${1-}" = --prepare ]; then
    cargo build --quiet -p vmm
    mkdir -p "$home"
    tests/guest/build.sh "$home/guest.elf"
    for client in "${clients[@]}"; do install "$client"; done
    exit
fi
tests/clients.sh --prepare
# The drivers import shared code.
export PYTHONPATH=$PWD/tests/clients PYTHONDONTWRITEBYTECODE=1
failed=0
for client in "${clients[@]}"; do
    [ $# -eq 0 ] || [[ " $* " == *" ${client%%==*} "* ]] || continue
    drive "$client" || failed=1
done
exit "$failed"
