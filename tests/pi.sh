#!/usr/bin/env bash
# An emulated Raspberry Pi 4 with build/pi-agent_*_arm64.deb: pi.sh [night] [files], both without an argument. Needs root.
# `night` sets it up, lets the timer back up, pulls the plug in the middle, starts it again and looks: up to 30 minutes.
# `files` tries tests/file-systems.sh with all file systems that a Pi's kernel has. The whole console goes to build/pi.log.
set -euo pipefail

[ "$(id -u)" -eq 0 ] || exec sudo --preserve-env=PI_AGENT_TEST_CACHE "$0" "$@"
here=$(cd "$(dirname "$0")" && pwd)
machines=${PI_AGENT_TEST_CACHE:-/var/cache/pi-agent-tests}/machines
package=$(ls -t "$here"/../build/pi-agent_*_arm64.deb 2>/dev/null | head -n 1)
[ -n "$package" ] || { echo "pi: no build/pi-agent_*_arm64.deb: make deb ARCH=arm64" >&2; exit 1; }
"$here/setup-machines.sh" pi

log=$here/../build/pi.log
work=$(mktemp -d)
emulator=
cleanup() {
    [ -z "$emulator" ] || kill -9 "$emulator" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

echo "pi: making its card"
cp --sparse=always "$machines/pi.img" "$work/card"
mkdir "$work/mounted"
# The mount is gone with its namespace.
unshare --mount bash -euo pipefail -c '
    mount -o loop "$1/card" "$1/mounted"
    cp "$2" "$1/mounted/root/pi-agent.deb"
    install -m 0755 "$3"/pi/in-machine.sh "$1/mounted/root/in-machine"
    install -m 0755 "$3"/file-systems.sh "$1/mounted/root/file-systems.sh"
    unit=$1/mounted/etc/systemd/system/pi-test.service
    printf "[Service]\nExecStart=/root/in-machine\nStandardOutput=tty\nStandardError=tty\nTTYPath=/dev/console\n" >"$unit"
    mkdir -p "$1/mounted/etc/systemd/system/multi-user.target.wants"
    ln -s ../pi-test.service "$1/mounted/etc/systemd/system/multi-user.target.wants/"
    umount "$1/mounted"
' bash "$work" "$package" "$here"

switch_on() { # DAY
    # The Pi 4: four cores of this kind and, in its smallest form, 1 GB. Two cores are what a build machine has.
    qemu-system-aarch64 -M virt -cpu cortex-a72 -m 1024 -smp 2 -accel tcg,thread=multi -nographic -no-reboot \
        -kernel "$machines"/pi/boot/vmlinuz-* -initrd "$machines"/pi/boot/initrd.img-* \
        -append "root=/dev/vda rw console=ttyAMA0 psi=1 quiet systemd.show_status=no pi-test=$1" \
        -drive "file=$work/card,format=raw,if=virtio" -nic none -monitor none -serial "file:$work/$1.log" </dev/null &
    emulator=$!
}

wait_for() { # DAY TEXT SECONDS
    local deadline=$((SECONDS + $3))
    until grep -q "PI-TEST $2" "$work/$1.log" 2>/dev/null; do
        if grep -q 'PI-TEST FAILED' "$work/$1.log" 2>/dev/null || ! kill -0 "$emulator" 2>/dev/null ||
            [ $SECONDS -ge $deadline ]; then
            tail -n 100 "$work/$1.log" >&2
            echo "pi: no \"$2\" on the console of the $1 day" >&2
            exit 1
        fi
        sleep 0.2
    done
}

trap 'cat "$work"/*.log >"$log" 2>/dev/null || true; cleanup' EXIT

# It has switched itself off.
ends_well() { # DAY SECONDS
    wait_for "$1" GOOD "$2"
    wait "$emulator" || true
    emulator=
    grep -h -a 'PI-TEST' "$work/$1.log" | tr -d '\r'
}

night() {
    echo "pi: the first day (its console: $log)"
    switch_on first
    wait_for first "PULL THE PLUG" 1000
    kill -9 "$emulator"
    wait "$emulator" 2>/dev/null || true
    grep -h -a 'PI-TEST' "$work/first.log" | tr -d '\r'
    echo "pi: the plug was pulled after $SECONDS s; the second day"
    switch_on second
    ends_well second 800
}

files() {
    echo "pi: file systems (its console: $log)"
    switch_on files
    ends_well files 1800
}

[ $# -gt 0 ] || set -- night files
for day; do "$day"; done
echo "pi: good after $SECONDS s"
