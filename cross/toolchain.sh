# Sourced, by bash: compilers for a Debian architecture. cross/README.md says why it is as it is.

oldest_rust=1.91 # rust-version in Cargo.toml

rust_target() { # ARCH
    case $1 in
    amd64) echo x86_64-unknown-linux-gnu ;;
    arm64) echo aarch64-unknown-linux-gnu ;;
    *)
        echo "toolchain: packages are made for amd64 and arm64, not for $1" >&2
        return 1
        ;;
    esac
}

# Sets $cargo and $target, and exports what compiling for it needs.
use_toolchain() { # ARCH
    local gnu name
    target=$(rust_target "$1")
    cargo=cargo
    [ "$1" != "$(dpkg --print-architecture)" ] || return 0

    gnu=$(dpkg-architecture --host-arch "$1" --query DEB_HOST_GNU_TYPE 2>/dev/null)
    name=${target//-/_}
    export "CC_$name=$gnu-gcc" "AR_$name=$gnu-ar" "CARGO_TARGET_${name^^}_LINKER=$gnu-gcc"
    if command -v rustup >/dev/null && rustup target list --installed | grep -qx "$target"; then return 0; fi
    # Debian's own. rustup's come first in PATH, so they are named.
    cargo=/usr/bin/cargo
    export RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc
    [ -d "$("$RUSTC" --print sysroot)/lib/rustlib/$target/lib" ] || {
        echo "toolchain: no Rust for $target: tests/setup.sh deb-$1" >&2
        return 1
    }
}
