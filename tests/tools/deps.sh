#!/bin/bash
# Installs what building and testing need. Asks nothing, says what it does, does nothing twice.
#
# Only apache2-bin is installed, not apache2: the latter starts a server on port 80.
set -eu

packages=(
    gcc make libc6-dev pkg-config ca-certificates curl procps # to build and to test at all
    apache2-bin apache2-dev media-types                       # httpd, apxs and the headers
    libclang-dev                                              # bindgen reads the headers with it
    python3 python3-dev python3-venv                          # the default Python
    openssl nghttp2-client                                    # TLS and HTTP/2 tests
    wrk valgrind strace                                       # load, memory, instructions, system calls
)
rust_needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

as_root() {
    if [ "$(id -u)" = 0 ]; then
        DEBIAN_FRONTEND=noninteractive "$@"
    elif command -v sudo >/dev/null; then
        echo "== sudo $*"
        sudo DEBIAN_FRONTEND=noninteractive "$@"
    else
        echo "This needs root, and there is no sudo. Run as root: $*" >&2
        return 1
    fi
}

log=build/deps.log
updated=
apt_install() {
    if [ -z "$updated" ]; then
        echo "== updating the list of Debian packages"
        # A foreign repository that is down must not stop us; a missing package shows below.
        as_root apt-get -qq update || true
        updated=yes
    fi
    echo "== installing: $* (details in $log)"
    mkdir -p "$(dirname "$log")"
    as_root apt-get -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 install "$@" \
        </dev/null >>"$log" 2>&1 || {
        tail -n 30 "$log" >&2
        return 1
    }
}

installed() {
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# at_least HAVE WANT: compares versions.
at_least() {
    [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

candidate() {
    apt-cache policy "$1" 2>/dev/null | sed -n 's/^  Candidate: \([0-9.]*\).*/\1/p'
}

# Debian 12's own rustc (1.63) is too old, but Debian also keeps a current one for its browsers, in
# the packages *-web. Later releases are recent enough. Elsewhere rustup, from its own site.
install_rust() {
    if command -v apt-get >/dev/null; then
        [ -n "$updated" ] || { as_root apt-get -qq update || true; updated=yes; }
        if at_least "$(candidate cargo)" "$rust_needed"; then
            apt_install cargo rustc rustfmt rust-clippy
            return
        elif at_least "$(candidate cargo-web)" "$rust_needed"; then
            apt_install cargo-web rustc-web rustfmt-web rust-web-clippy
            return
        fi
    fi
    echo "== installing Rust with rustup (https://rustup.rs) into ~/.cargo"
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |
        sh -s -- -y --quiet --profile default --no-modify-path
}

missing_rust_tools() {
    cargo fmt --version >/dev/null 2>&1 || echo rustfmt
    cargo clippy --version >/dev/null 2>&1 || echo clippy
}

if command -v dpkg-query >/dev/null; then
    missing=()
    for package in "${packages[@]}"; do
        installed "$package" || missing+=("$package")
    done
    [ ${#missing[@]} = 0 ] || apt_install "${missing[@]}"
else
    for program in gcc "${APXS:-apxs}" openssl curl valgrind wrk; do
        command -v "$program" >/dev/null ||
            echo "no $program here: install it, or expect what needs it to fail" >&2
    done
fi

command -v cargo >/dev/null || install_rust
hash -r
rust_here=$(cargo --version | cut -d ' ' -f 2)
if ! at_least "$rust_here" "$rust_needed"; then
    echo "Rust $rust_here is too old, $rust_needed is needed. Update it, for example with" >&2
    echo "'rustup update', or remove Debian's cargo and rustc and run 'make deps' again." >&2
    exit 1
fi
tools=$(missing_rust_tools)
if [ -n "$tools" ]; then
    if command -v rustup >/dev/null; then
        echo "== rustup component add" $tools
        # shellcheck disable=SC2086 # one word per tool
        rustup component add $tools
    elif installed cargo-web; then
        apt_install rustfmt-web rust-web-clippy
    elif installed cargo; then
        apt_install rustfmt rust-clippy
    else
        echo "cargo has no $tools; 'make check' and 'make test' need them" >&2
        exit 1
    fi
fi
