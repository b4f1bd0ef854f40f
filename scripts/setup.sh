#!/bin/sh
# What a build needs and a fresh Debian 12 lacks: system packages, and RocksDB's static library in a cache outside
# `target`. Safe to run again: does nothing when all is there. `setup.sh tests` adds what only tests need.
set -eu
cd "$(dirname "$0")/.."

packages="g++ libclang-dev"
# Tests of a full disk make a small file system of their own; the cluster's tests will make network namespaces.
[ "${1:-}" != tests ] || packages="$packages e2fsprogs mount"

missing=""
command -v g++ >/dev/null 2>&1 || missing="g++"
# bindgen needs libclang with its headers; the library alone is not enough.
ls /usr/lib/llvm-*/lib/libclang*.so* >/dev/null 2>&1 && ls -d /usr/lib/llvm-*/lib/clang/*/include >/dev/null 2>&1 \
    || missing="$missing libclang-dev"
if [ "${1:-}" = tests ]; then
    command -v mkfs.ext4 >/dev/null 2>&1 || [ -x /sbin/mkfs.ext4 ] || missing="$missing e2fsprogs"
    command -v mount >/dev/null 2>&1 || missing="$missing mount"
fi
if [ -n "$missing" ]; then
    install="apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $packages"
    if [ "$(id -u)" != 0 ]; then
        echo "Missing:$missing. Install them with:" >&2
        echo "    sudo sh -c '$install'" >&2
        exit 1
    fi
    echo "Installing system packages:$missing"
    log=$(mktemp)
    sh -c "$install" >"$log" 2>&1 || { cat "$log" >&2; rm -f "$log"; exit 1; }
    rm -f "$log"
fi
command -v cargo >/dev/null 2>&1 || { echo "cargo is missing: install Rust 1.95 or later (https://rustup.rs)" >&2; exit 1; }

# RocksDB: about 15 minutes of C++ on two cores, once for each version and compiler.
version=$(sed -n '/^name = "librocksdb-sys"$/{n;s/^version = "\(.*\)"$/\1/p;}' Cargo.lock)
[ -n "$version" ] || { echo "Cargo.lock names no librocksdb-sys: the checkout is damaged" >&2; exit 1; }
compiler=$(g++ -dumpfullversion)-$(uname -m)
cache="${HAY_BUILD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/haystore}/rocksdb-$version-g++$compiler"
# One builds, the others wait for it and find the library there. The lock goes with the process.
if [ ! -f "$cache/librocksdb.a" ]; then
    mkdir -p "$(dirname "$cache")"
    exec 9>"$cache.lock"
    flock 9
fi
if [ ! -f "$cache/librocksdb.a" ]; then
    echo "Building RocksDB $version once into $cache: about 15 minutes on 2 cores."
    mkdir -p "$cache.build"
    # Without debug information, and with the optimisation that RocksDB's own build takes: a third less to compile.
    ROCKSDB_COMPILE=1 CARGO_PROFILE_RELEASE_DEBUG=0 CARGO_PROFILE_RELEASE_OPT_LEVEL=2 \
        cargo build --locked --release -p librocksdb-sys --target-dir "$cache.build" 9>&-
    built=$(find "$cache.build/release/build" -name librocksdb.a | head -n 1)
    [ -n "$built" ] || { echo "the build left no librocksdb.a in $cache.build" >&2; exit 1; }
    mkdir -p "$cache"
    # Whole or not there, whenever this ends.
    cp "$built" "$cache/librocksdb.a.$$"
    mv "$cache/librocksdb.a.$$" "$cache/librocksdb.a"
    rm -rf "$cache.build"
fi
exec 9>&-
mkdir -p .cache
ln -sfn "$cache" .cache/rocksdb
