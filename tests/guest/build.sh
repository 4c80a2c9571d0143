#!/bin/sh
# Compiles the guest of bare.c, or of another file here, into FILE: an ELF kernel for a 64-bit entry.
#
# usage: build.sh FILE [SOURCE]
set -eu
out=${1:?usage: build.sh FILE [SOURCE]}
cd "$(dirname "$0")"
exec gcc -O1 -Wall -Werror -ffreestanding -fno-pic -mno-red-zone -mgeneral-regs-only -fno-stack-protector \
    -fcf-protection=none -nostdlib -static -no-pie -Wl,-T,bare.ld -Wl,--build-id=none,--no-warn-rwx-segments \
    -o "$out" "${2:-bare.c}"
