#!/bin/sh
# Installs what the end-to-end tests talk to: etcd, an S3 server with atomic conditional puts (moto) and the Azure
# emulator (Azurite); and what judges the deployment's manifests. Idempotent: what is there is left alone. Debian packages
# go to the system, the rest below target/e2e-servers/. Elsewhere than on Debian it says what to install by hand.
set -eu

cd "$(dirname "$0")/.."
servers="${CARGO_TARGET_DIR:-target}/e2e-servers"
moto_version=5.2.5
azurite_version=3.37.0
kubernetes_validate_version=1.37.0

say() {
    echo "e2e/install.sh: $*" >&2
}

# Runs a command quietly; shows what it said only if it fails.
quietly() {
    log=$(mktemp)
    if ! "$@" >"$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        say "failed: $*"
        exit 1
    fi
    rm -f "$log"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

# Debian packages, for what is missing of: etcd, etcdctl, protoc with its well-known types, python's venv, npm, and what
# the chaos runs cut networks with.
packages=
command -v etcd >/dev/null || packages="$packages etcd-server"
command -v etcdctl >/dev/null || packages="$packages etcd-client"
command -v protoc >/dev/null || packages="$packages protobuf-compiler"
[ -e /usr/include/google/protobuf/duration.proto ] || packages="$packages libprotobuf-dev"
command -v python3 >/dev/null || packages="$packages python3"
python3 -c 'import venv, ensurepip' 2>/dev/null || packages="$packages python3-venv"
command -v npm >/dev/null || packages="$packages npm"
# /usr/sbin is not in everybody's path.
PATH="$PATH:/usr/sbin:/sbin"
command -v ip >/dev/null || packages="$packages iproute2"
command -v iptables >/dev/null || packages="$packages iptables"
if [ -n "$packages" ]; then
    if ! command -v apt-get >/dev/null; then
        say "this is not Debian; install what provides:$packages"
        exit 1
    fi
    say "installing$packages"
    quietly as_root apt-get update
    # shellcheck disable=SC2086 # a list of packages
    quietly as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $packages
fi

mkdir -p "$servers"

if [ "$(cat "$servers/moto/.version" 2>/dev/null)" != "$moto_version" ]; then
    say "installing moto $moto_version"
    rm -rf "$servers/moto"
    quietly python3 -m venv "$servers/moto"
    quietly "$servers/moto/bin/pip" install --quiet --disable-pip-version-check "moto[server]==$moto_version"
    echo "$moto_version" >"$servers/moto/.version"
fi

if [ "$(cat "$servers/azurite/.version" 2>/dev/null)" != "$azurite_version" ]; then
    say "installing azurite $azurite_version"
    rm -rf "$servers/azurite"
    mkdir -p "$servers/azurite"
    quietly npm install --prefix "$servers/azurite" --no-audit --no-fund --no-save "azurite@$azurite_version"
    echo "$azurite_version" >"$servers/azurite/.version"
fi

if [ "$(cat "$servers/kubernetes/.version" 2>/dev/null)" != "$kubernetes_validate_version" ]; then
    say "installing kubernetes-validate $kubernetes_validate_version"
    rm -rf "$servers/kubernetes"
    quietly python3 -m venv "$servers/kubernetes"
    quietly "$servers/kubernetes/bin/pip" install --quiet --disable-pip-version-check \
        "kubernetes-validate==$kubernetes_validate_version"
    echo "$kubernetes_validate_version" >"$servers/kubernetes/.version"
fi
