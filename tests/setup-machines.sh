#!/usr/bin/env bash
# Makes the root file systems that tests boot, once, and what boots them: setup-machines.sh [NAME]…
# Needs root. Without arguments: all but `pi`.
#
#   bookworm, trixie  this machine's architecture, with PostgreSQL: booted by systemd-nspawn
#   bookworm-docker   the same with Docker's engine
#   arm64             a lean arm64 bookworm to install a package in, under user-mode emulation
#   docker            an image for Docker: PostgreSQL, and python3-plyvel, which writes LevelDB
#   pi                an arm64 trixie with a kernel, as the disk image of a fully emulated machine
set -euo pipefail

. "$(dirname "$0")/setup-common.sh"
need_root "$0"
machines=$cache/machines

# Lets this machine start arm64 programs; the interpreter is opened at once, so that it works in any chroot.
run_arm64() {
    [ "$(dpkg --print-architecture)" != arm64 ] || return 0
    debian_packages qemu-user-static binfmt-support arch-test
    [ -e /proc/sys/fs/binfmt_misc/register ] || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
    [ -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ] || update-binfmts --import qemu-aarch64 || true
    [ -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ] || update-binfmts --enable qemu-aarch64
}

# Made aside and renamed, so that an interrupted try leaves nothing that looks finished. Another recipe makes another root.
root() { # NAME SUITE PACKAGES [MMDEBSTRAP OPTION]...
    local name=$1 suite=$2 packages=$3 recipe new=$machines/$1.new
    shift 3
    # Two at a time would make the same root twice; the lock ends with this script.
    exec 9>"$machines/$name.lock"
    flock 9
    recipe=$(printf '%s\n' 1 "$suite" "$packages" "$@" | sha256sum | cut -c 1-16)
    [ "$(cat "$machines/$name.recipe" 2>/dev/null)" != "$recipe" ] || return 0
    say "making a $suite in $machines/$name (once)"
    rm -rf --one-file-system "$new" "$machines/$name" "$machines/$name.recipe" "$machines/$name.img"
    # Its mounts end with it, also when it is killed. dpkg syncs every file; an incomplete root is thrown away anyhow.
    if ! quietly unshare --mount mmdebstrap --variant=minbase --include="$packages" --dpkgopt=force-unsafe-io "$@" \
        "$suite" "$new" "deb $mirror $suite main"; then
        rm -rf --one-file-system "$new"
        return 1
    fi
    # Nothing of this machine's: no mirror that nobody can reach in a machine without a network, no name.
    rm -f "$new/etc/apt/sources.list" "$new/etc/hostname" "$new/etc/resolv.conf"
    printf '127.0.0.1 localhost\n::1 localhost\n' >"$new/etc/hosts"
    mv "$new" "$machines/$name"
    echo "$recipe" >"$machines/$name.recipe"
}

# Tests make the clusters they need; one made by a package would only take room.
no_cluster=(
    --essential-hook='mkdir -p "$1/etc/postgresql-common/createcluster.d"'
    --essential-hook='echo "create_main_cluster = false" >"$1/etc/postgresql-common/createcluster.d/tests.conf"'
)

# What the package depends on or recommends is there already: apt has no network in a booted machine.
booted=systemd,systemd-sysv,dbus,libpam-systemd,ca-certificates,curl,procps

# For tests/file-systems.sh.
file_systems=attr,btrfs-progs,dosfstools,e2fsprogs,exfatprogs,f2fs-tools,nfs-common,nfs-kernel-server,ntfs-3g,python3-minimal,xfsprogs

make_root() { # MACHINE
    case $1 in
    bookworm | trixie)
        root "$1" "$1" "$booted,postgresql,pgbackrest,postgresql-client" "${no_cluster[@]}"
        ;;
    bookworm-docker)
        root "$1" bookworm "$booted,postgresql,pgbackrest,postgresql-client,docker.io" "${no_cluster[@]}"
        ;;
    arm64) root arm64 bookworm systemd,ca-certificates,curl --architectures=arm64 ;;
    docker)
        # Debian's spool folder lets only its own `postgres` pass; images that are not Debian's have none. The locale is that of the
        # official images.
        root docker bookworm postgresql,pgbackrest,python3-plyvel,procps "${no_cluster[@]}" \
            --dpkgopt=path-exclude=/usr/share/{doc,locale,man}/'*' \
            --customize-hook='rmdir "$1/var/spool/pgbackrest"' \
            --customize-hook='chroot "$1" localedef -i en_US -f UTF-8 en_US.UTF-8'
        tarball docker
        engine docker engine data
        engine docker remapped data/100000.100000 --userns-remap=daemon
        ;;
    pi)
        # Emulated, making an initramfs takes a quarter of an hour, twice: it is made once, with what this machine needs.
        root pi trixie "$booted,udev,kmod,linux-image-arm64,restic,$file_systems" --architectures=arm64 \
            --essential-hook='chroot "$1" dpkg-divert --quiet --local --rename --add /usr/sbin/update-initramfs' \
            --essential-hook='ln -s /bin/true "$1/usr/sbin/update-initramfs"' \
            --customize-hook='chroot "$1" sh -ec "rm /usr/sbin/update-initramfs
                dpkg-divert --quiet --local --rename --remove /usr/sbin/update-initramfs
                echo MODULES=list >/etc/initramfs-tools/conf.d/tests
                printf \"%s\\n\" virtio_pci virtio_mmio virtio_blk ext4 >>/etc/initramfs-tools/modules
                update-initramfs -c -k all"'
        image pi
        ;;
    esac
}

image() { # NAME: its root as a disk, with room
    local size
    [ ! -e "$machines/$1.img" ] || return 0
    say "making the disk $machines/$1.img (once)"
    size=$(($(du -sm "$machines/$1" | cut -f 1) + 2048))
    rm -f "$machines/$1.img.new"
    mkfs.ext4 -q -L root -d "$machines/$1" "$machines/$1.img.new" "${size}M"
    mv "$machines/$1.img.new" "$machines/$1.img"
}

tarball() { # NAME: its root as one file
    [ "$machines/$1.tar" -nt "$machines/$1.recipe" ] && return 0
    tar --create --numeric-owner --directory "$machines/$1" --file "$machines/$1.tar.new" .
    mv "$machines/$1.tar.new" "$machines/$1.tar"
}

# What Docker's engine makes of it as its image `household`, which takes six seconds of processor time.
engine() { # NAME KIND FOLDER [DOCKERD OPTION]...: made as NAME.KIND of that folder below the engine's own
    local made=$machines/$1.$2 new=$machines/$1.$2.new folder=$3 name=$1 pid tries
    [ "$made" -nt "$machines/$name.tar" ] && return 0
    say "importing $machines/$name.tar into Docker's engine (once)"
    shift 3
    rm -rf "$made" "$new"
    mkdir -p "$new"
    # Whom remapped users are.
    printf 'daemon:100000:65536\n' >"$new/ranges"
    unshare --mount sh -ec 'for file in /etc/subuid /etc/subgid; do touch "$file"; mount --bind "$0" "$file"; done; exec dockerd "$@"' \
        "$new/ranges" "$@" --data-root "$new/data" --exec-root "$new/exec" --pidfile "$new/pid" --host "unix://$new/socket" \
        --bridge=none --iptables=false --ip6tables=false >"$new/log" 2>&1 </dev/null &
    pid=$!
    for tries in $(seq 300); do
        ! docker --host "unix://$new/socket" version >/dev/null 2>&1 || break
        if [ "$tries" = 300 ] || ! kill -0 "$pid" 2>/dev/null; then
            cat "$new/log" >&2
            kill "$pid" 2>/dev/null || true
            return 1
        fi
        sleep 0.2
    done
    docker --host "unix://$new/socket" import "$machines/$name.tar" household >/dev/null || { kill "$pid" && return 1; }
    kill "$pid"
    wait "$pid" || true
    mv "$new/$folder" "$made"
    touch "$made"
    rm -rf "$new"
}

mkdir -p "$machines"
mirror=$(mirror)

[ $# -gt 0 ] || set -- arm64 bookworm bookworm-docker docker trixie
needed=(mmdebstrap e2fsprogs)
for machine in "$@"; do
    case $machine in
    bookworm | bookworm-docker | trixie) needed+=(systemd-container) ;;
    arm64) ;;
    docker) needed+=(docker.io) ;;
    pi) needed+=(qemu-system-arm) ;;
    *)
        echo "usage: setup-machines.sh [bookworm|bookworm-docker|trixie|arm64|docker|pi]..." >&2
        exit 2
        ;;
    esac
done
debian_packages "${needed[@]}"
[[ " $* " != *" arm64 "* && " $* " != *" pi "* ]] || run_arm64

# Emulated, one of them takes as long as all others together: side by side.
pids=()
for machine in "$@"; do
    make_root "$machine" &
    pids+=($!)
done
failed=0
for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
exit $failed
