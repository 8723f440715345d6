#!/usr/bin/env bash
# Installs what is needed on a fresh Debian-like machine with Rust: setup.sh [test [short|full]|elsewhere|lint|demo|bench|deb-ARCH].
# Does nothing that is done already; says one line for each thing it does.
set -euo pipefail

. "$(dirname "$0")/setup-common.sh"

# Tools that are used, not shipped: compiled in a third of the time.
cargo_tool() { # PROGRAM CRATE ARGUMENT...
    CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        CARGO_PROFILE_RELEASE_DEBUG=false CARGO_PROFILE_RELEASE_PANIC=unwind cargo_install "$cache/$2" "$@"
}

# What is measured, and the server that it is measured at: as their authors build them.
cargo_peer() { # PROGRAM CRATE ARGUMENT...
    cargo_install "$cache/peers/$2" "$@"
}

cargo_install() { # PLACE PROGRAM CRATE ARGUMENT...
    local root=$1 program=$2 crate=$3
    shift 3
    if [ ! -x "$root/bin/$program" ]; then
        say "building $crate (once, into $root)"
        "${as_root[@]}" mkdir -p "$root"
        "${as_root[@]}" chown "$(id -u)" "$root"
        quietly env CARGO_TARGET_DIR="$root/target" cargo install "$crate" --locked --root "$root" "$@"
        rm -rf "$root/target"
    fi
}

cargo_command() { # NAME VERSION: `cargo NAME` of that version or a later one, wherever it comes from
    local installed
    installed=$(cargo "$1" --version 2>/dev/null | sed -n '1s/[^0-9]*\([0-9][0-9.]*\).*/\1/p') || true
    [ -z "$installed" ] || ! dpkg --compare-versions "$installed" ge "$2" || return 0
    cargo_tool "cargo-$1" "cargo-$1" --version "$2"
    say "linking cargo-$1 into ${CARGO_HOME:-$HOME/.cargo}/bin"
    mkdir -p "${CARGO_HOME:-$HOME/.cargo}/bin"
    ln -sf "$cache/cargo-$1/bin/cargo-$1" "${CARGO_HOME:-$HOME/.cargo}/bin/"
}

# A C compiler for another architecture, and Rust for it: rustup's where there is one, Debian's where not.
cross_compilers() { # ARCH
    local arch=$1 package
    debian_packages "crossbuild-essential-$arch"
    if ! dpkg --print-foreign-architectures | grep -qx "$arch"; then
        say "adding the architecture $arch to this machine's packages"
        quietly "${as_root[@]}" dpkg --add-architecture "$arch"
        update_lists
    fi
    # What the program is linked with: dpkg-shlibdeps reads from these what the package depends on.
    debian_packages "libc6-dev:$arch" "libgcc-s1:$arch"
    . "$(dirname "$0")/../cross/toolchain.sh"
    if (use_toolchain "$arch") 2>/dev/null; then return 0; fi
    if command -v rustup >/dev/null; then
        say "asking rustup for $(rust_target "$arch")"
        if timeout 60 rustup target add "$(rust_target "$arch")" >/dev/null 2>&1; then return 0; fi
        say "rustup has no $(rust_target "$arch") for us: Debian's compiler then"
    fi
    # rustc-web is the newer one that Debian keeps for its browsers.
    for package in rustc-web rustc; do
        if dpkg --compare-versions "$(candidate "$package")" ge "$oldest_rust"; then
            debian_packages "$package" "${package/rustc/cargo}" "lib${package/rustc/std-rust}-dev:$arch"
            return 0
        fi
    done
    say "this machine has no Rust of version $oldest_rust or later for $arch" >&2
    return 1
}

candidate() { # PACKAGE: the version that apt would install, or 0
    apt-cache policy "$1" 2>/dev/null | awk '$1 == "Candidate:" && $2 != "(none)" { v = $2 } END { print v ? v : 0 }'
}

# The runner of the tests, and the S3 server that they use.
test_tools() {
    cargo_command nextest 0.9.143
    cargo_tool garage garage --version 2.5.0 --no-default-features --features bundled-libs,sqlite
}

# A machine without an id (a fresh container) cannot claim a place for its backups.
machine_id() {
    [ ! -s /etc/machine-id ] || return 0
    say "giving this machine an id"
    od -An -N16 -tx1 /dev/urandom | tr -d ' \n' | "${as_root[@]}" tee /etc/machine-id >/dev/null
}

case ${1:-test} in
demo)
    debian_packages build-essential openssl postgresql pgbackrest
    machine_id
    ;;
lint)
    debian_packages build-essential git
    cargo_command deny 0.20.2
    cargo_command machete 0.9.2
    ;;
test)
    machines=(bookworm bookworm-docker trixie docker)
    [ "${2:-short}" = short ] || machines+=(arm64)
    [ -e "$cache/garage/bin/garage" ] && [ -e "$cache/machines/docker.tar" ] && [ -e "$cache/trixie" ] ||
        say "a first run installs Debian packages, makes $((${#machines[@]} + 1)) Debian systems in $cache (6 GB) and compiles" \
            "Garage, an S3 server: about 20 minutes on two processors, once"
    debian_packages acl attr btrfs-progs build-essential busybox-static ca-certificates curl docker.io docker-compose \
        e2fsprogs exfat-fuse exfatprogs faketime iproute2 logrotate openssl procps strace time util-linux xfsprogs postgresql pgbackrest restic
    machine_id
    "$(dirname "$0")/setup-machines.sh" "${machines[@]}"
    "$(dirname "$0")/setup-elsewhere.sh" trixie
    [ "${2:-short}" = short ] || "$(dirname "$0")/setup-elsewhere.sh" sid
    test_tools
    # What checks that the program compiles for a Raspberry Pi.
    [ "$(dpkg --print-architecture)" = arm64 ] || cross_compilers arm64
    ;;
elsewhere)
    debian_packages build-essential
    test_tools
    ;;
bench)
    debian_packages build-essential iproute2 openssl time util-linux restic borgbackup nginx-light python3-minimal
    machine_id
    case " ${BENCH_TOOLS:-rustic} " in *" rustic "*) cargo_peer rustic rustic-rs ;; esac
    cargo_peer garage garage --version 2.5.0 --no-default-features --features bundled-libs,sqlite
    ;;
deb-*)
    debian_packages build-essential debhelper dpkg-dev fakeroot lintian
    [ "$1" = "deb-$(dpkg --print-architecture)" ] || cross_compilers "${1#deb-}"
    ;;
*)
    echo "usage: setup.sh [test [short|full]|elsewhere|lint|demo|bench|deb-ARCH]" >&2
    exit 2
    ;;
esac
