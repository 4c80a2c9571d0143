#!/bin/sh
# Installs missing Debian packages for the named needs. guest/packages.txt lists the packages.
#
# usage: install.sh NEED...      (build, guest, debian, host, test, package, bench: see guest/packages.txt)
set -eu
# dpkg's tools are in these directories, which `su` does not add to PATH.
export PATH="$PATH:/usr/sbin:/sbin"

list=$(dirname "$0")/guest/packages.txt
missing=
for need; do
    while read -r package commands needs _; do
        case $package in '' | '#'*) continue ;; esac
        case ,$needs, in *,"$need",*) ;; *) continue ;; esac
        for command in $(echo "$commands" | tr ',' ' '); do
            case $command in
                python3/*) python3 -c "import ${command#*/}" 2>/dev/null && continue ;;
                *) command -v "$command" >/dev/null && continue ;;
            esac
            case " $missing " in *" $package "*) ;; *) missing="$missing $package" ;; esac
        done
    done <"$list"
done
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
        echo "install: as root, run: apt-get install -y$missing" >&2
        exit 1
    }
    as_root=sudo
fi
echo "install: installing missing Debian packages:$missing"
export DEBIAN_FRONTEND=noninteractive
# Split on purpose: a list of packages.
# shellcheck disable=SC2086
$as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1 || {
    $as_root apt-get update -qq
    # shellcheck disable=SC2086
    $as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null
}
