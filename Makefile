# `make boot` and `make test` do everything on a fresh Debian machine with Rust.

TARGET := target/x86_64-unknown-linux-gnu

.PHONY: help build boot guest check test soak bench deb dist clean

help:
	@echo 'make boot    build, prepare a guest image, and boot it with a disk and a network'
	@echo 'make test    every check: format, lints, unit, hostile, conformance and end-to-end tests'
	@echo 'make check   the quick part of it: format, lints, unit tests, layering'
	@echo 'make soak    the same as make test with full counts; takes hours on a machine without KVM'
	@echo 'make bench   measure against the other monitors on PATH'
	@echo 'make build   the programs: bantam, jailer, bantamctl and bantam-image-reader in $(TARGET)/release'
	@echo 'make guest   kernels, initrds and root file systems in target/guest'
	@echo 'make deb     a Debian package in target/package'
	@echo 'make dist    a tarball of static binaries with checksums in target/dist'
	@echo 'make clean   remove everything built'

build:
	resources/install.sh build
	cargo build --release -p vmm -p jailer

guest:
	resources/install.sh guest
	resources/guest/build.sh cloud generic backport

boot: build
	resources/install.sh guest host
	resources/guest/build.sh cloud
	resources/boot.sh

check:
	resources/install.sh build
	tests/run.sh --check

test:
	tests/run.sh

soak:
	tests/run.sh --soak

bench: build
	resources/install.sh guest host bench
	resources/guest/build.sh cloud
	tests/bench/run.sh

deb: build
	resources/install.sh package
	resources/package/build.sh deb

dist: build
	resources/install.sh package
	resources/package/build.sh dist

clean:
	rm -rf target
