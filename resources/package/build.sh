#!/bin/bash
# Builds the Debian package (target/package) and the tarball of static binaries (target/dist).
#
# usage: build.sh [--programs DIR] [--version VERSION] deb|dist...
#
#   --programs DIR     where the built programs are (default: the release build)
#   --version VERSION  version of the package (default: that of the workspace)
#   --out DIR          where the results go (default: target/package and target/dist)
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
project=$(cd "$here/../.." && pwd)
programs=$project/target/x86_64-unknown-linux-gnu/release
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$project/Cargo.toml" | head -n 1)
out=
wanted=()
while [ $# -gt 0 ]; do
    case $1 in
        --programs) programs=${2:?} && shift ;;
        --version) version=${2:?} && shift ;;
        --out) out=${2:?} && shift ;;
        deb | dist) wanted+=("$1") ;;
        -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0" && exit ;;
        *) echo "package: unknown argument $1 (see --help)" >&2 && exit 2 ;;
    esac
    shift
done
[ ${#wanted[@]} -gt 0 ] || { echo "package: say deb or dist (see --help)" >&2 && exit 2; }
for program in bantam jailer bantamctl bantam-image-reader; do
    [ -x "$programs/$program" ] || { echo "package: $programs/$program is missing: run \`make build\`" >&2 && exit 1; }
done

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
chmod 755 "$tree"

# pages DIR FILE...: installs Markdown pages to DIR, below /usr/share/doc/bantam. Links to files that are installed lead there; other
# links to files of the source become plain text.
pages() {
    local dir=$1 page
    shift
    install -d "$dir"
    for page; do
        sed -E -e 's#\]\(resources/docs/#](manual/#g' -e 's#\]\(resources/(examples|openapi)#](\1#g' \
            -e 's#\]\(\.\./\.\./SECURITY#](../SECURITY#g' \
            -e 's#!?\[([^]]*)\]\((boot|devices|jailer|vmm|tests|resources|CONTRIBUTING|\.\./src|\.\./guest)[^)]*\)#\1#g' \
            "$page" >"$dir/${page##*/}"
        chmod 644 "$dir/${page##*/}"
    done
}

# lay ROOT: everything that an installation has, below ROOT.
lay() {
    local root=$1 share=$1/usr/share page
    install -s -D -m 755 -t "$root/usr/bin" "$programs"/{bantam,jailer,bantamctl}
    # Not readable: the kernel then protects the process from other processes of its user.
    install -s -D -m 711 -t "$root/usr/libexec/bantam" "$programs/bantam-image-reader"
    install -D -m 644 -t "$root/usr/lib/systemd/system" "$project"/resources/systemd/*
    install -d "$share/man/man1" "$share/man/man8"
    install -m 644 "$project/resources/man/bantam.1" "$share/man/man1"
    install -m 644 "$project/resources/man/jailer.8" "$share/man/man8"
    "$programs/bantamctl" man "$share/man/man1"
    for page in "$share"/man/*/*; do gzip -9n "$page"; done
    install -d "$share/bash-completion/completions" "$share/zsh/vendor-completions" "$share/fish/vendor_completions.d"
    "$programs/bantamctl" completion bash >"$share/bash-completion/completions/bantamctl"
    "$programs/bantamctl" completion zsh >"$share/zsh/vendor-completions/_bantamctl"
    "$programs/bantamctl" completion fish >"$share/fish/vendor_completions.d/bantamctl.fish"
    pages "$share/doc/bantam" "$project"/{README.md,CHANGELOG.md,SECURITY.md}
    pages "$share/doc/bantam/manual" "$project"/resources/docs/*.md
    install -m 644 -t "$share/doc/bantam/manual" "$project"/resources/docs/*.svg
    install -D -m 644 -t "$share/doc/bantam/examples" "$project"/resources/examples/*.json
    install -D -m 644 "$project/resources/openapi.yaml" "$share/doc/bantam/openapi.yaml"
}

deb() {
    local out=${out:-$project/target/package} root=$tree/deb
    lay "$root"
    install -D -m 644 "$here/copyright" "$root/usr/share/doc/bantam/copyright"
    install -d "$root/DEBIAN"
    sed -e "s/@VERSION@/$version/" -e "s/@SIZE@/$(du -sk --exclude=DEBIAN "$root" | cut -f1)/" "$here/control" >"$root/DEBIAN/control"
    install -m 755 "$here"/{postinst,prerm,postrm} "$root/DEBIAN"
    (cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
    mkdir -p "$out"
    dpkg-deb --root-owner-group --build "$root" "$out/bantam_${version}_amd64.deb" >/dev/null
    echo "package: $out/bantam_${version}_amd64.deb"
}

dist() {
    local out=${out:-$project/target/dist} name=bantam-$version-x86_64-linux
    lay "$tree/$name"
    install -m 644 "$project/LICENSE" "$tree/$name"
    (cd "$tree/$name" && find . -type f ! -name SHA256SUMS -printf '%P\0' | sort -z | xargs -0 sha256sum >SHA256SUMS)
    mkdir -p "$out"
    tar -C "$tree" --sort=name --owner=0 --group=0 --numeric-owner -czf "$out/$name.tar.gz" "$name"
    (cd "$out" && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
    echo "package: $out/$name.tar.gz"
}

for what in "${wanted[@]}"; do "$what"; done
