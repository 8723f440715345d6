# boot.sh NAME SYSTEM DISK: boots SYSTEM with every change on DISK. Runs in a mount namespace of its own, so that its
# mounts are gone with it, whatever happens.
set -euo pipefail
name=$1 system=$2 disk=$3

places=$(dirname "$disk")
mkdir -p "$places/changes" "$places/root"
mount -o loop "$disk" "$places/changes"
mkdir -p "$places/changes/upper" "$places/changes/work"
mount -t overlay overlay -o "lowerdir=$system,upperdir=$places/changes/upper,workdir=$places/changes/work" "$places/root"

# Where a service manager runs, it gives every machine a place among the control groups; elsewhere we do.
own=(--register=no)
if [ ! -d /run/systemd/system ]; then
    own+=(--keep-unit)
    for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
        [ -e "$hierarchy/cgroup.procs" ] || continue
        mkdir -p "$hierarchy/$name"
        echo $$ >"$hierarchy/$name/cgroup.procs"
    done
fi

# Docker needs a disk that is no overlay, and what nspawn takes away from a machine unless told not to.
more=()
if [ -x "$system/usr/sbin/dockerd" ]; then
    mkdir -p "$places/changes/docker"
    more=(--capability=all "--system-call-filter=add_key keyctl bpf" --bind="$places/changes/docker:/var/lib/docker")
fi

# As on a Pi: one hierarchy of control groups.
export UNIFIED_CGROUP_HIERARCHY=1
exec systemd-nspawn --quiet "${own[@]}" "${more[@]}" --machine="$name" --directory="$places/root" --private-network --console=pipe --boot
