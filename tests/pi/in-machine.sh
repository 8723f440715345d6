#!/bin/bash
# Runs inside the emulated Pi, started by systemd; what it prints goes to the console, and pi.sh reads it there.
set -Eeuo pipefail
export LC_ALL=C.UTF-8 HOME=/root DEBIAN_FRONTEND=noninteractive
trap 'journalctl --no-pager --boot --lines=60; echo "PI-TEST FAILED in line $LINENO"' ERR

say() { echo "PI-TEST $*"; }

storage=/mnt/usb/pi-hosting

stored() { # MiB of files' backups
    { du -sm $storage/foundry 2>/dev/null || echo 0; } | cut -f 1
}

first_day() {
    say "$(uname -m), $(grep -m 1 'CPU part' /proc/cpuinfo | tr -d '\t'), $(awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo) MiB"
    apt-get install --yes --quiet /root/pi-agent.deb
    mkdir -p $storage /srv/foundry/data/Data/worlds
    for number in $(seq 200); do head -c 20000 /dev/urandom >/srv/foundry/data/Data/worlds/$number.db; done
    head -c 150M /dev/urandom >/srv/foundry/data/map.webp
    (cd /srv/foundry && find . -type f -exec sha256sum {} + | sort) >/root/before
    sync
    pi-agent setup --unattended --name pi-hosting --storage file://$storage --postgres none \
        --directory foundry=/srv/foundry --directory configs=/etc --kit /root/kit.txt --kit-saved || [ $? = 5 ]
    say "set up; timers: $(systemctl is-active pi-agent-backup.timer)"
    mkdir -p /etc/systemd/system/pi-agent-backup.timer.d
    date --date='+15 seconds' '+[Timer]%nOnCalendar=%nOnCalendar=%F %T%nAccuracySec=1s' \
        >/etc/systemd/system/pi-agent-backup.timer.d/now.conf
    systemctl daemon-reload
    systemctl restart pi-agent-backup.timer
    # Nobody will be there to sync the disk when the plug is pulled; what is not in the middle of being written, is there.
    sync
    until [ "$(stored)" -gt 20 ]; do sleep 0.5; done
    say "the timer's run: $(systemctl show --property=StatusText --value pi-agent-backup)"
    say PULL THE PLUG
    sleep infinity
}

second_day() {
    until [ -n "$(journalctl --boot --quiet --unit=pi-agent-backup)" ]; do sleep 1; done
    say "caught up by: $(journalctl --boot --quiet --no-pager --output=cat --unit=pi-agent-boot -g 'cut off' | head -n 1)"
    while [ "$(systemctl is-active pi-agent-backup || true)" = activating ] ||
        [ "$(systemctl is-active pi-agent-backup || true)" = active ]; do sleep 1; done
    say "result: $(systemctl show --property=Result --value pi-agent-backup)," \
        "peak memory $(($(systemctl show --property=MemoryPeak --value pi-agent-backup) / 1048576)) MiB," \
        "journal: $(journalctl --boot --quiet --no-pager --output=cat --unit=pi-agent-backup STEP=foundry | tail -n 1)"
    [ "$(systemctl show --property=Result --value pi-agent-backup)" = success ]
    pi-agent status --json >/root/status.json
    say "status: $(tr -d ' \n' </root/status.json | grep -o '"name":"foundry".*"success_rate_30d":[0-9.]*' | head -c 600)"
    tr -d ' \n' </root/status.json | grep -q '"last_outcome":"succeeded"'
    journalctl --boot --quiet --no-pager MESSAGE_ID=28e5c9d07b3f4f61a8d4b6f0e1957c3a STEP=foundry | grep -q .
    say "restic check: $(restic --no-cache -r $storage/foundry --password-file /etc/pi-agent/secrets/restic.key check --read-data 2>&1 | tail -n 1)"
    restic --no-cache --quiet -r $storage/foundry --password-file /etc/pi-agent/secrets/restic.key check
    pi-agent restore foundry --to /srv/restored
    (cd /srv/restored/srv/foundry && find . -type f -exec sha256sum {} + | sort) | cmp - /root/before
    say "restored: $(wc -l </root/before) files are as they were"
    [ -z "$(systemctl --failed --quiet --no-legend)" ]
    say GOOD
    systemctl poweroff
}

file_systems() {
    [ -x /usr/bin/pi-agent ] || apt-get install --yes --quiet /root/pi-agent.deb
    systemctl start nfs-server
    /root/file-systems.sh /usr/bin/pi-agent | while IFS= read -r line; do say "$line"; done
    say GOOD
    systemctl poweroff
}

case $(cat /proc/cmdline) in
*pi-test=first*) first_day ;;
*pi-test=second*) second_day ;;
*pi-test=files*) file_systems ;;
esac
