#!/usr/bin/env bash
# What each file system keeps and what is said of it: as what is backed up, as where is restored to, as storage.
# file-systems.sh PROGRAM [NAME]...: tries each for real on a loop device, prints what docs/file-systems.md has of it, and ends with 1
# if anything was lost without a word. Without a NAME: all that this machine can mount. Needs root, and restic.
set -euo pipefail
program=$(realpath "$1")
shift
[ $# -gt 0 ] || set -- ext4 xfs btrfs f2fs tmpfs exfat fat ntfs nfs
export LC_ALL=C.UTF-8 RESTIC_PASSWORD='correct horse battery staple'

# No mount stays behind, whatever happens, and nobody else holds one. A file system's own daemons end with it.
if [ "${OWN_MOUNTS:-}" != yes ]; then
    OWN_MOUNTS=yes exec unshare --mount --propagation private "$0" "$program" "$@"
fi
work=$(mktemp -d /tmp/pi-agent-test-XXXXXX)
cleanup() {
    cd /
    exportfs -u 127.0.0.1:"$work/nfs.exported" 2>/dev/null || true
    umount --lazy "$work"/*.at "$work/nfs.exported" 2>/dev/null || true
    losetup --noheadings --list --output NAME,BACK-FILE | awk -v work="$work/" 'index($2, work) == 1 { print $1 }' |
        xargs --no-run-if-empty losetup --detach
    rm -rf --one-file-system "$work"
}
trap cleanup EXIT
failed=0
wrong() { echo "WRONG: $*"; failed=1; }

# -- File systems --

has() { grep -qw "$1" /proc/filesystems || modprobe --quiet "$1" 2>/dev/null; }

make() { # NAME: an empty one in NAME.image; 1 when this machine has none
    local image=$work/$1.image
    truncate --size=400M "$image"
    case $1 in
    ext4) mkfs.ext4 -q "$image" ;;
    xfs) mkfs.xfs -q "$image" ;;
    btrfs) mkfs.btrfs -q "$image" >/dev/null 2>&1 ;;
    f2fs) has f2fs && mkfs.f2fs -q "$image" >/dev/null ;;
    exfat) mkfs.exfat "$image" >/dev/null ;;
    fat) has vfat && mkfs.vfat "$image" >/dev/null ;;
    ntfs) has ntfs3 && mkfs.ntfs --quick --force --quiet "$image" >/dev/null 2>&1 ;;
    nfs) has nfsd && has nfs && mkfs.ext4 -q "$image" ;;
    tmpfs) ;;
    *) echo "$0: no file system $1" >&2 && exit 2 ;;
    esac
}

mount_it() { # NAME: at NAME.at, each time with another number
    local image=$work/$1.image at=$work/$1.at device
    mkdir -p "$at"
    [ "$1" = tmpfs ] || device=$(losetup --find --show "$image")
    case $1 in
    tmpfs) mount -t tmpfs -o size=400m tmpfs "$at" ;;
    exfat) if has exfat; then mount -t exfat "$device" "$at"; else mount.exfat-fuse "$device" "$at" >/dev/null 2>&1; fi ;;
    fat) mount -t vfat "$device" "$at" ;;
    ntfs) mount -t ntfs3 "$device" "$at" ;;
    nfs)
        mkdir -p "$work/nfs.exported"
        mount "$device" "$work/nfs.exported"
        exportfs -o rw,no_root_squash,no_subtree_check,fsid=99 127.0.0.1:"$work/nfs.exported"
        mount -t nfs -o "vers=4.2,soft" 127.0.0.1:"$work/nfs.exported" "$at"
        ;;
    *) mount "$device" "$at" ;;
    esac
}

unmount() { # NAME
    umount "$work/$1.at"
    [ "$1" != nfs ] || { exportfs -u 127.0.0.1:"$work/nfs.exported" && umount "$work/nfs.exported"; }
}

# -- A household --

fill() { # DIRECTORY: what a file system may refuse, it refuses
    mkdir -p "$1/folder/deeper"
    (
        cd "$1"
        set +e
        echo text >file
        echo text >folder/deeper/file
        : >empty
        head -c 300000 /dev/zero | tr '\0' x >folder/large
        echo ünï >'ünïcödé 🎲'
        echo long >"$(printf 'n%.0s' $(seq 255))"
        echo upper >README
        set -o noclobber
        { echo lower >readme; } 2>/dev/null
        { echo shell >'a "quote" and a ?'; } 2>/dev/null
        { echo control >$'tab\tand line\nbreak'; } 2>/dev/null
        { echo space >'ends with a space '; } 2>/dev/null
        set +o noclobber
        { truncate --size=50M sparse && echo end >>sparse; } 2>/dev/null
        ln file 'hard link' 2>/dev/null
        ln -s file link 2>/dev/null
        mkfifo fifo 2>/dev/null
        chmod 640 folder/large 2>/dev/null
        chown 1234:5678 folder/deeper 2>/dev/null
        chmod 2750 folder/deeper 2>/dev/null
        setfattr -n user.comment -v text file 2>/dev/null
        touch -d '2001-02-03 04:05:07.123456789' folder/deeper/file
        touch -d '1980-01-02 00:00:00' empty
    )
}

# A line for each thing of each path, for `comm`: PATH<tab>THING<tab>VALUE
described() { # DIRECTORY
    (
        cd "$1"
        find . -mindepth 1 -name lost+found -prune -o -mindepth 1 -printf '%P\0%y\0%m\0%U:%G\0%T@\0%n\0%l\0' |
            python3 -c '
import hashlib, os, sys
fields = sys.stdin.buffer.read().split(b"\0")[:-1]
for i in range(0, len(fields), 7):
    path, kind, mode, owner, time, links, target = fields[i : i + 7]
    told = {"type": kind, "owner": owner, "target": target, "mode": b"" if kind == b"l" else mode}
    told["time"] = time
    if kind == b"f":
        told["content"] = hashlib.sha256(open(path, "rb").read()).hexdigest().encode()
        told["links"] = links
    if kind != b"l":
        try:
            names = [n for n in os.listxattr(path) if n.startswith("user.")]
        except OSError:
            names = []
        told["attributes"] = repr(sorted((n, os.getxattr(path, n)) for n in names)).encode()
    for thing, value in told.items():
        sys.stdout.buffer.write(repr(path)[2:-1].encode() + b"\t" + thing.encode() + b"\t" + value + b"\n")
'
    ) | sort
}

configure() { # PATH STORAGE [LINES OF [storage]]
    rm -rf "$work/etc" "$work/state" "$work/cache"
    mkdir -p "$work/etc/secrets"
    chmod 700 "$work/etc/secrets"
    (umask 077 && echo "$RESTIC_PASSWORD" >"$work/etc/secrets/restic.key")
    cat >"$work/etc/config.toml" <<TOML
[host]
name = "test-host"
[storage]
url = "file://$2"
[secrets]
directory = "$work/etc/secrets"
[local]
cache = "$work/cache"
spool = "$work/spool"
runtime = "$work/runtime"
[limits]
give-way = false
[[step]]
name = "d"
kind = "directory"
paths = ["$1"]
keep = "forever"
TOML
}

agent() { # ARGUMENT...: prints its exit code; what it said is in `said`
    local code=0
    "$program" --config "$work/etc/config.toml" --state-directory "$work/state" "$@" >"$work/said" 2>&1 || code=$?
    printf '%s' "$code"
}

# What differs between two trees, as words: "time (2 paths)". Each must have been told when `told` is given.
differences() { # ORIGINAL COPY
    comm -3 <(described "$1") <(described "$2") | sed 's/^\t//' | cut -f 1,2 | sort -u
}

in_words() { cut -f 2 | sort | uniq -c | awk '{ printf "%s%s of %d", (NR > 1 ? ", " : ""), $2, $1 } END { if (!NR) printf "nothing" }'; }

# -- As what is backed up, where is restored to, and storage --

as_source() { # NAME
    local at=$work/$1.at/data code
    fill "$at"
    rm -rf "$work/storage" "$work/to"
    configure "$at" "$work/storage"
    code=$(agent run)
    [ "$code" = 0 ] || wrong "$1 as source: run ends with $code: $(cat "$work/said")"
    code=$(agent restore d --to "$work/to")
    [ "$code" = 0 ] || wrong "$1 as source: restore ends with $code: $(cat "$work/said")"
    differences "$at" "$work/to$at" >"$work/differences"
    [ ! -s "$work/differences" ] || wrong "$1 as source: $(cat "$work/differences")"
    # The same disk by another number is the same source; without it nothing is made.
    if [ "$1" != tmpfs ]; then
        unmount "$1"
        code=$(agent run)
        [ "$code" = 3 ] || wrong "$1 as source that is not there: run ends with $code: $(cat "$work/said")"
        mount_it "$1"
        code=$(agent run)
        [ "$code" = 0 ] || wrong "$1 as source, mounted again: run ends with $code: $(cat "$work/said")"
    fi
    printf '%s as source: %s paths, all as they were\n' "$1" "$(find "$at" -mindepth 1 | wc -l)"
}

as_target() { # NAME: the household is on this machine's own disk, and has everything
    local source=$work/source/data to=$work/$1.at/to code path thing untold=0
    rm -rf "$work/storage"
    [ -d "$source" ] || fill "$source"
    configure "$source" "$work/storage"
    code=$(agent run)
    [ "$code" = 0 ] || wrong "run ends with $code: $(cat "$work/said")"
    code=$(agent restore d --to "$to")
    cp "$work/said" "$work/said.restore"
    differences "$source" "$to$source" >"$work/differences"
    while IFS=$'\t' read -r path thing; do
        # What is said of a path names it; what is true of all is said once.
        grep -qF -- "$(printf '%s' "${path##*/}" | sed 's/\\.*//')" "$work/said.restore" || {
            untold=$((untold + 1))
            echo "untold: $path $thing"
        }
    done <"$work/differences"
    if [ -s "$work/differences" ]; then
        [ "$code" = 5 ] || wrong "$1 as target: restore ends with $code, and differs: $(head -n 5 "$work/differences")"
    else
        [ "$code" = 0 ] || wrong "$1 as target: restore ends with $code: $(cat "$work/said.restore")"
    fi
    printf '%s as target: exit %s; differs in %s; untold %s\n' "$1" "$code" "$(in_words <"$work/differences")" "$untold"
    grep '^!' "$work/said.restore" || true
}

as_storage() { # NAME
    local source=$work/source/data at=$work/$1.at/place code
    [ -d "$source" ] || fill "$source"
    rm -rf "$work/to"
    configure "$source" "$at"
    code=$(agent run)
    [ "$code" = 0 ] || wrong "$1 as storage: run ends with $code: $(cat "$work/said")"
    echo more >>"$source/folder/grows"
    code=$(agent run)
    [ "$code" = 0 ] || wrong "$1 as storage: the second run ends with $code: $(cat "$work/said")"
    agent doctor >/dev/null
    grep -i 'storage' "$work/said" | sed "s|$work|…|g; s/^/  doctor: /" || true
    if [ "$1" != tmpfs ]; then
        unmount "$1"
        code=$(agent run)
        [ "$code" = 3 ] || [ "$code" = 1 ] || wrong "$1 as storage that is not there: run ends with $code: $(cat "$work/said")"
        [ ! -e "$at" ] || wrong "$1 as storage that is not there: something was written below where it is mounted"
        mount_it "$1"
        code=$(agent run)
        [ "$code" = 0 ] || wrong "$1 as storage, mounted again: run ends with $code: $(cat "$work/said")"
    fi
    code=$(agent check d)
    [ "$code" = 0 ] || wrong "$1 as storage: check ends with $code: $(cat "$work/said")"
    restic --no-cache --quiet -r "$at/d" check --read-data >"$work/restic" 2>&1 || wrong "$1 as storage: restic: $(cat "$work/restic")"
    code=$(agent restore d --to "$work/to")
    [ "$code" = 0 ] || wrong "$1 as storage: restore ends with $code: $(cat "$work/said")"
    differences "$source" "$work/to$source" >"$work/differences"
    [ ! -s "$work/differences" ] || wrong "$1 as storage: $(cat "$work/differences")"
    printf '%s as storage: three nights, gone and there again, checked, restored\n' "$1"
}

for name; do
    if ! make "$name"; then
        echo "$name: this machine cannot mount it"
        continue
    fi
    mount_it "$name"
    as_source "$name"
    as_target "$name"
    as_storage "$name"
    unmount "$name"
done
exit $failed
