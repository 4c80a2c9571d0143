# shellcheck shell=sh
# Functions of the guest recipe's scripts: messages, tool checks, a lock, and Debian packages from a private apt. Scripts source
# this file after they have set `GUEST_DIR`, the directory of this file, and `OUT`, the output directory.

GUEST_MIRROR=${BANTAM_DEBIAN_MIRROR:-}
GUEST_KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
# Seconds after which package lists are refreshed: a day. Security updates arrive, and a working day of rebuilding asks the
# mirror once.
GUEST_INDEX_MINUTES=1440

say() { printf 'guest: %s\n' "$*" >&2; }
die() { printf 'guest: error: %s\n' "$*" >&2; exit 1; }

# need COMMAND...: ends with the packages to install if a command is missing.
need() {
    missing=
    for command_name in "$@"; do
        PATH="$PATH:/usr/sbin:/sbin" command -v "$command_name" >/dev/null 2>&1 && continue
        package=$(awk -v c=",$command_name," '!/^#/ && index("," $2 ",", c) { print $1 }' "$GUEST_DIR/packages.txt")
        missing="$missing $command_name (package ${package:-unknown})"
    done
    [ -z "$missing" ] || die "missing:$missing; install with: apt-get install (see resources/guest/packages.txt)"
}

# lock_out: allows one recipe at a time per output directory; a second one waits.
lock_out() {
    mkdir -p "$OUT"
    exec 9>"$OUT/.lock"
    flock -n 9 || { say "waiting for another run on $OUT"; flock 9; }
}

# publish TEMPORARY FINAL: renames a finished file, so that its name never stands for a partial one.
publish() { mv -f -T -- "$1" "$2"; }

# Prints the machine's Debian mirror if its configuration names one, else the public one.
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

# private_apt COMMAND ARGUMENT...: runs apt with its own lists, cache and sources. The system's proxy settings apply; its
# sources, preferences and package database do not.
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

# refresh_index: makes sure that package lists exist and are fresh. If lists exist, a failed refresh is a warning, so that the image
# can be built without a network.
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
        # Error-Mode makes a failed download an error instead of silently using the old list.
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

# package_field PACKAGE[/SUITE] FIELD: prints a field of the version that apt would install. Answers are cached until the next
# refresh, because apt needs over a second to read the lists.
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

# unpack_package PACKAGE VERSION DIRECTORY: unpacks the package's files. apt verifies the checksum, from the archive's signature
# on.
unpack_package() {
    archive=$OUT/apt/archives/${1}_$(printf %s "$2" | sed 's/:/%3a/g')_
    found=$(find "$OUT/apt/archives" -maxdepth 1 -name "$(basename "$archive")*.deb" | head -n 1)
    if [ -z "$found" ]; then
        say "download $1 $2"
                # apt renames a file to its final name after verifying it, in its own directory only. So an interrupted download is
                # never taken for a package.
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

# fetch_source PACKAGE DIRECTORY: unpacks the upstream source of a bookworm package. The list of sources is separate, because it
# is rarely needed. A downloaded archive is used again.
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

# Runs apt with the list of sources. The later of two equal options counts.
source_apt() {
    private_apt apt-get -o Dir::State="$sources/state" -o Dir::State::status="$sources/state/status" \
        -o Dir::Cache="$sources/cache" -o Dir::Etc::SourceList="$sources/sources.list" "$@"
}

# Prints the upstream archive of PACKAGE in DIRECTORY, without its signature.
source_archive() {
    find "$2" -maxdepth 1 -name "${1}_*.orig.tar.*" ! -name '*.asc' | sort | tail -n 1
}

# copy_modules SOURCE DESTINATION MODULE...: copies kernel modules with their dependencies, uncompressed (busybox loads no others),
# and writes modules.dep. SOURCE and DESTINATION are roots with one lib/modules/RELEASE. Modules that are built into the kernel,
# or that it does not have, are left out.
copy_modules() {
    source_root=$1
    destination_root=$2
    shift 2
    release=$(basename "$source_root"/lib/modules/*)
    source_modules=$source_root/lib/modules/$release
    destination_modules=$destination_root/lib/modules/$release
    mkdir -p "$destination_modules"
        # "kernel/a/b.ko.xz: kernel/c.ko.xz ...": selects the wanted lines, then every path in them once. Module names and file
        # names differ in - and _ only.
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
        # Only depmod reads these.
    rm -f "$destination_modules/modules.order" "$destination_modules/modules.builtin.modinfo"
}
