#!/bin/sh
# Unpacks the ELF vmlinux of an x86 bzImage. build.sh uses it; it works on any bzImage.
#
# The setup header has the position of the compressed kernel (Linux Documentation/arch/x86/boot.rst: setup_sects,
# payload_offset, payload_length).
set -eu

GUEST_DIR=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=resources/guest/lib.sh
. "$GUEST_DIR/lib.sh"

if [ $# -ne 2 ]; then
    echo "usage: extract-vmlinux.sh BZIMAGE VMLINUX" >&2
    exit 2
fi
image=$1
vmlinux=$2
[ -r "$image" ] || die "$image cannot be read"
need lz4 xz zstd gzip

# field OFFSET LENGTH: a little-endian number of the image.
field() { od -An -v -t "u$2" -j "$1" -N "$2" "$image" | tr -d ' '; }
# bytes OFFSET LENGTH FILE: in hexadecimal.
bytes() { od -An -v -t x1 -j "$1" -N "$2" "$3" | tr -d ' \n'; }

[ "$(bytes 514 4 "$image")" = 48647253 ] || die "$image is not an x86 bzImage (no HdrS at 0x202)"
[ "$(field 518 2)" -ge 520 ] || die "$image has a boot protocol before 2.08, which does not name its payload"
setup_sectors=$(field 497 1)
[ "$setup_sectors" -ne 0 ] || setup_sectors=4
offset=$(((setup_sectors + 1) * 512 + $(field 584 4)))
length=$(field 588 4)
size=$(stat -L -c %s "$image")
if [ "$length" -le 8 ] || [ $((offset + length)) -gt "$size" ]; then
    die "$image is truncated: its payload is to end at byte $((offset + length)) of $size"
fi
# The uncompressed size: gzip has it in its trailer, and Linux appends it for the other formats.
unpacked_size=$(field $((offset + length - 4)) 4)

case $(bytes "$offset" 6 "$image") in
    1f8b*) unpack='gzip -dc' trailer=0 ;;
    fd377a585a00) unpack='xz -dc' trailer=4 ;;
    28b52ffd*) unpack='zstd -qdc' trailer=4 ;;
    02214c18*) unpack='lz4 -dc' trailer=4 ;;
        *) die "$image has an unknown compression ($(bytes "$offset" 6 "$image"))" ;;
esac

temporary=$vmlinux.new.$$
trap 'rm -f "$temporary"' EXIT
tail -c "+$((offset + 1))" "$image" | head -c $((length - trailer)) | $unpack >"$temporary" ||
    die "the payload of $image does not unpack"
[ "$(stat -c %s "$temporary")" -eq "$unpacked_size" ] ||
    die "the payload of $image unpacks to $(stat -c %s "$temporary") bytes, not $unpacked_size"
[ "$(bytes 0 4 "$temporary")" = 7f454c46 ] || die "the payload of $image is not an ELF file"
publish "$temporary" "$vmlinux"
