# shellcheck shell=sh
# Shared by the scripts of the guest recipe: messages, tool checks, a lock, and Debian packages
# fetched through a private apt. Sourced, never run. `GUEST_DIR` is the directory of this file and
# `OUT` the output directory; both are set by the script that sources it.

GUEST_MIRROR=${BANTAM_DEBIAN_MIRROR:-}
GUEST_KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
# A package index older than this is fetched anew. A day: security updates arrive, and a working day
# of rebuilding asks the mirror once.
GUEST_INDEX_MINUTES=1440

say() { printf 'guest: %s\n' "$*" >&2; }
die() { printf 'guest: error: %s\n' "$*" >&2; exit 1; }

# need COMMAND...: end with the name of the package to install if a command is missing.
need() {
    missing=
    for command_name in "$@"; do
        PATH="$PATH:/usr/sbin:/sbin" command -v "$command_name" >/dev/null 2>&1 && continue
        package=$(awk -v c=",$command_name," '!/^#/ && index("," $2 ",", c) { print $1 }' "$GUEST_DIR/packages.txt")
        missing="$missing $command_name (package ${package:-unknown})"
    done
    [ -z "$missing" ] || die "missing:$missing; install with: apt-get install (see resources/guest/packages.txt)"
}

# lock_out: one recipe at a time per output directory; a second waits for the first.
lock_out() {
    mkdir -p "$OUT"
    exec 9>"$OUT/.lock"
    flock -n 9 || { say "waiting for another run on $OUT"; flock 9; }
}

# publish TEMPORARY FINAL: a finished file appears under its name at once or not at all.
publish() { mv -f -T -- "$1" "$2"; }

# The machine's own Debian mirror if its configuration names one, else the public one.
mirror() {
    if [ -z "$GUEST_MIRROR" ]; then
        # shellcheck disable=SC2016  # the dollar signs are apt's format language
        GUEST_MIRROR=$(apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
            awk '$1 == "Debian" && $2 ~ /^https?:/ { print $2; exit }')
        GUEST_MIRROR=${GUEST_MIRROR:-http://deb.debian.org/debian}
        GUEST_MIRROR=${GUEST_MIRROR%/}
    fi
    printf '%s\n' "$GUEST_MIRROR"
}

security_mirror() {
    case $(mirror) in
        */debian) printf '%s-security\n' "$(mirror)" ;;
        *) printf 'http://deb.debian.org/debian-security\n' ;;
    esac
}

# private_apt COMMAND ARGUMENT...: apt with its own lists, cache and sources. The system's proxy
# settings still hold; its sources, preferences and package database are not looked at.
private_apt() {
    private_command=$1
    shift
    "$private_command" -q \
        -o Dir::State="$OUT/apt/state" -o Dir::State::status="$OUT/apt/state/status" \
        -o Dir::Cache="$OUT/apt/cache" -o Dir::Cache::archives="$OUT/apt/archives" \
        -o Dir::Etc::SourceList="$OUT/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
        -o APT::Architecture=amd64 -o APT::Architectures::=amd64 -o APT::Sandbox::User="$(id -un)" \
        -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
        -o Acquire::Retries=3 "$@"
}

# refresh_index: the package lists are present and of today. With lists at hand, a failed refresh is
# a warning: the image can still be built without a network.
refresh_index() {
    [ -z "$(find "$OUT/apt/fresh" -mmin "-$GUEST_INDEX_MINUTES" 2>/dev/null)" ] || return 0
    [ -r "$GUEST_KEYRING" ] || die "$GUEST_KEYRING is missing; install the package debian-archive-keyring"
    mkdir -p "$OUT/apt/state/lists/partial" "$OUT/apt/cache" "$OUT/apt/archives/partial"
    : >>"$OUT/apt/state/status"
    {
        for suite in bookworm bookworm-updates bookworm-backports; do
            printf 'deb [arch=amd64 signed-by=%s] %s %s main\n' "$GUEST_KEYRING" "$(mirror)" "$suite"
        done
        printf 'deb [arch=amd64 signed-by=%s] %s bookworm-security main\n' "$GUEST_KEYRING" "$(security_mirror)"
    } >"$OUT/apt/sources.list"
    say "package lists from $(mirror)"
    # Error-Mode: a list that cannot be had is an error, not a quiet use of the old one.
    if private_apt apt-get -o APT::Update::Error-Mode=any update >"$OUT/apt/update.log" 2>&1; then
        rm -f "$OUT/apt/fields"
        touch "$OUT/apt/fresh"
    elif [ -e "$OUT/apt/fresh" ]; then
        say "warning: package lists not refreshed, using those of $(date -r "$OUT/apt/fresh" '+%F %R') (see $OUT/apt/update.log)"
    else
        tail -n 5 "$OUT/apt/update.log" >&2
        die "no package lists from $(mirror) (see $OUT/apt/update.log; BANTAM_DEBIAN_MIRROR names another mirror)"
    fi
}

# package_field PACKAGE[/SUITE] FIELD: a field of the version apt would install. Answers are kept
# until the next refresh: reading the lists takes apt over a second.
package_field() {
    field_value=$(awk -v p="$1" -v f="$2" '$1 == p && $2 == f { $1 = $2 = ""; print substr($0, 3); exit }' "$OUT/apt/fields" 2>/dev/null) || true
    if [ -z "$field_value" ]; then
        field_value=$(private_apt apt-cache show --no-all-versions "$1" 2>/dev/null |
            awk -v f="$2:" '$1 == f { sub(/^[^ ]* /, ""); print; exit }')
        [ -n "$field_value" ] || die "package $1 is not in the package lists of $(mirror)"
        printf '%s %s %s\n' "$1" "$2" "$field_value" >>"$OUT/apt/fields"
    fi
    printf '%s\n' "$field_value"
}

# unpack_package PACKAGE VERSION DIRECTORY: the package's files in a directory; its checksum is apt's
# to verify, down from the archive's signature.
unpack_package() {
    archive=$OUT/apt/archives/${1}_$(printf %s "$2" | sed 's/:/%3a/g')_
    found=$(find "$OUT/apt/archives" -maxdepth 1 -name "$(basename "$archive")*.deb" | head -n 1)
    if [ -z "$found" ]; then
        say "download $1 $2"
        # apt verifies a file before it takes its final name only in its own directory, so that an
        # interrupted download is never mistaken for a package.
        rm -rf "$OUT/apt/incoming"
        mkdir -p "$OUT/apt/incoming"
        (cd "$OUT/apt/incoming" && private_apt apt-get download "$1=$2" >"$OUT/apt/download.log" 2>&1) || {
            tail -n 5 "$OUT/apt/download.log" >&2
            die "cannot download $1 $2"
        }
        mv -f "$OUT/apt/incoming/"*.deb "$OUT/apt/archives/"
        rmdir "$OUT/apt/incoming"
        found=$(find "$OUT/apt/archives" -maxdepth 1 -name "$(basename "$archive")*.deb" | head -n 1)
        [ -n "$found" ] || die "apt did not leave $1 $2 in $OUT/apt/archives"
    fi
    dpkg-deb -x "$found" "$3" || die "cannot unpack $found"
}

# fetch_source PACKAGE DIRECTORY: a bookworm package's source as its authors released it. The list of sources is
# kept apart, as hardly anybody needs it; the archive, once there, is used again.
fetch_source() {
    sources=$OUT/apt/source
    mkdir -p "$sources/archives" "$sources/cache/archives/partial" "$sources/state/lists/partial"
    found=$(source_archive "$1" "$sources/archives")
    if [ -z "$found" ]; then
        say "download the source of $1"
        printf 'deb-src [signed-by=%s] %s bookworm main\n' "$GUEST_KEYRING" "$(mirror)" >"$sources/sources.list"
        : >>"$sources/state/status"
        rm -rf "$sources/incoming"
        mkdir "$sources/incoming"
        (
            cd "$sources/incoming"
            source_apt -o APT::Update::Error-Mode=any update && source_apt source --download-only --only-source "$1"
        ) >"$sources/download.log" 2>&1 || {
            tail -n 5 "$sources/download.log" >&2
            die "cannot download the source of $1"
        }
        mv -f "$(source_archive "$1" "$sources/incoming")" "$sources/archives/"
        rm -rf "$sources/incoming" "$sources/state/lists"
        found=$(source_archive "$1" "$sources/archives")
    fi
    mkdir -p "$2"
    tar -xf "$found" -C "$2" --strip-components=1 || die "cannot unpack $found"
}

# apt with the list of sources. Of an option that is given twice the later holds.
source_apt() {
    private_apt apt-get -o Dir::State="$sources/state" -o Dir::State::status="$sources/state/status" \
        -o Dir::Cache="$sources/cache" -o Dir::Etc::SourceList="$sources/sources.list" "$@"
}

# The authors' archive of PACKAGE in DIRECTORY, if it is there; not their signature beside it.
source_archive() {
    find "$2" -maxdepth 1 -name "${1}_*.orig.tar.*" ! -name '*.asc' | sort | tail -n 1
}

# copy_modules SOURCE DESTINATION MODULE...: kernel modules with what they depend on, uncompressed
# (busybox loads no others), and their modules.dep. SOURCE and DESTINATION are roots with one
# lib/modules/RELEASE. A module built into the kernel, or that this kernel does not have, is left out.
copy_modules() {
    source_root=$1
    destination_root=$2
    shift 2
    release=$(basename "$source_root"/lib/modules/*)
    source_modules=$source_root/lib/modules/$release
    destination_modules=$destination_root/lib/modules/$release
    mkdir -p "$destination_modules"
    # "kernel/a/b.ko.xz: kernel/c.ko.xz ...": the wanted lines, then every path in them once. Module
    # names and file names differ in - and _ only.
    printf '%s\n' "$@" | tr - _ | awk -v dep="$source_modules/modules.dep" '
        { wanted[$1] = 1 }
        END {
            while ((getline line < dep) > 0) {
                n = split(line, path, /:? +/)
                sub(/:$/, "", path[1])
                name = path[1]; sub(/.*\//, "", name); sub(/\.ko.*/, "", name); gsub(/-/, "_", name)
                if (!(name in wanted)) continue
                for (i = 1; i <= n; i++) if (path[i] != "" && !(path[i] in seen)) { seen[path[i]] = 1; print path[i] }
            }
        }' | while read -r module; do
        plain=${module%.xz}
        plain=${plain%.zst}
        mkdir -p "$destination_modules/$(dirname "$plain")"
        case $module in
            *.xz) xz -dc "$source_modules/$module" >"$destination_modules/$plain" ;;
            *.zst) zstd -qdc "$source_modules/$module" >"$destination_modules/$plain" ;;
            *) cp "$source_modules/$module" "$destination_modules/$plain" ;;
        esac
    done
    for list in modules.order modules.builtin modules.builtin.modinfo; do
        [ ! -e "$source_modules/$list" ] || cp "$source_modules/$list" "$destination_modules/"
    done
    depmod -b "$destination_root" "$release"
    # Read by depmod only.
    rm -f "$destination_modules/modules.order" "$destination_modules/modules.builtin.modinfo"
}
