#!/bin/sh
# What a build needs and a fresh Debian 12 lacks: system packages, and RocksDB's static library in a cache outside
# `target`. Safe to run again: does nothing when all is there.
set -eu
cd "$(dirname "$0")/.."

packages="g++ libclang-dev"
# Tests of a full disk make a small file system of their own; the cluster's tests will make network namespaces.
test_packages="e2fsprogs mount"

missing=""
command -v g++ >/dev/null 2>&1 || missing="g++"
# bindgen needs libclang with its headers; the library alone is not enough.
ls /usr/lib/llvm-*/lib/libclang*.so* >/dev/null 2>&1 && ls -d /usr/lib/llvm-*/lib/clang/*/include >/dev/null 2>&1 \
    || missing="$missing libclang-dev"
command -v mkfs.ext4 >/dev/null 2>&1 || [ -x /sbin/mkfs.ext4 ] || missing="$missing e2fsprogs"
command -v mount >/dev/null 2>&1 || missing="$missing mount"
if [ -n "$missing" ]; then
    install="apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $packages $test_packages"
    if [ "$(id -u)" != 0 ]; then
        echo "Missing:$missing. Install them with:" >&2
        echo "    sudo sh -c '$install'" >&2
        exit 1
    fi
    echo "Installing system packages:$missing"
    sh -c "$install" >/tmp/haystore-apt.$$ 2>&1 || { cat /tmp/haystore-apt.$$ >&2; rm -f /tmp/haystore-apt.$$; exit 1; }
    rm -f /tmp/haystore-apt.$$
fi
command -v cargo >/dev/null 2>&1 || { echo "cargo is missing: install Rust 1.95 or later (https://rustup.rs)" >&2; exit 1; }

# RocksDB: about ten minutes of C++ on two cores, once for each version and compiler.
version=$(sed -n '/^name = "librocksdb-sys"$/{n;s/^version = "\(.*\)"$/\1/p;}' Cargo.lock)
[ -n "$version" ] || { echo "Cargo.lock names no librocksdb-sys: the checkout is damaged" >&2; exit 1; }
compiler=$(g++ -dumpfullversion)-$(uname -m)
cache="${HAY_BUILD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/haystore}/rocksdb-$version-g++$compiler"
if [ ! -f "$cache/librocksdb.a" ]; then
    echo "Building RocksDB $version once into $cache: about 10 minutes on 2 cores."
    mkdir -p "$cache.build"
    ROCKSDB_COMPILE=1 cargo build --locked --release -p librocksdb-sys --target-dir "$cache.build"
    built=$(find "$cache.build/release/build" -name librocksdb.a | head -n 1)
    [ -n "$built" ] || { echo "the build left no librocksdb.a in $cache.build" >&2; exit 1; }
    mkdir -p "$cache"
    # Whole or not there: another build may look at the same moment.
    cp "$built" "$cache/librocksdb.a.$$"
    mv "$cache/librocksdb.a.$$" "$cache/librocksdb.a"
    rm -rf "$cache.build"
fi
mkdir -p .cache
ln -sfn "$cache" .cache/rocksdb
