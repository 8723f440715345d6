# A household's files: Foundry's data, logs and configs. Sourced by demo.sh.

household=$demo/household

incompressible() { head -c "$1" /dev/urandom; } # BYTES

make_household() {
    local data=$household/foundry/Data number world
    mkdir -p "$data"/assets/{maps,music,tokens} "$household"/{logs/nginx,logs/foundry,configs/app}
    for number in $(seq 1 12); do incompressible 3000000 >"$data/assets/maps/map-$number.webp"; done
    for number in $(seq 1 4); do incompressible 5000000 >"$data/assets/music/theme-$number.mp3"; done
    for number in $(seq 1 300); do
        printf '{"name":"Token %d","x":%d,"y":%d}\n' "$number" $((number * 70)) $((number * 35)) >"$data/assets/tokens/token $number.json"
    done
    for world in curse-of-strahd lost-mine; do
        for number in actors scenes journal; do make_leveldb "$data/worlds/$world/data/$number"; done
        printf '{"id":"%s","system":"dnd5e"}\n' "$world" >"$data/worlds/$world/world.json"
    done
    ln -s maps/map-1.webp "$data/assets/login.webp"
    ln "$data/assets/music/theme-1.mp3" "$data/assets/music/battle.mp3"
    write_logs 2000
    incompressible 24 | base64 >"$household/configs/app/token"
    chmod 0600 "$household/configs/app/token"
    printf 'password=%s\n' "$(incompressible 12 | base64)" >"$household/configs/app/database.env"
    [ "$(id -u)" -ne 0 ] || chown -R nobody "$household/foundry"
}

make_leveldb() { # DIRECTORY: as LevelDB lays it out
    mkdir -p "$1"
    incompressible 400000 >"$1/000005.ldb"
    incompressible 40000 >"$1/000007.log"
    printf 'MANIFEST-000004\n' >"$1/CURRENT"
    incompressible 200 >"$1/MANIFEST-000004"
    : >"$1/LOCK"
}

write_logs() { # LINES
    seq -f '10.0.0.7 - - "GET /game/%g HTTP/1.1" 200 512' "$1" >>"$household/logs/nginx/access.log"
    seq -f 'FoundryVTT | info | Foundry tick %g' "$1" >>"$household/logs/foundry/debug.log"
}

describe_household() {
    local step
    for step in foundry logs configs; do
        say "$step: $(find "$household/$step" -type f | wc -l) files, $(du -sh --apparent-size "$household/$step" | cut -f 1)"
    done
}

change_household() { # DAY
    local world=$household/foundry/Data/worlds/lost-mine/data/actors
    incompressible 1500000 >"$household/foundry/Data/assets/maps/new-map-$1.webp"
    incompressible 30000 >>"$world/000007.log"
    incompressible 300000 >"$world/00001$1.ldb"
    rm "$household/foundry/Data/assets/tokens/token $1.json"
    write_logs 300
    incompressible 24 | base64 >"$household/configs/app/token"
}

# Every entry with its kind, mode, owner, time, links and content.
fingerprint() { # DIRECTORY
    (
        cd "$1"
        find . -mindepth 1 -printf '%P\t%y %m %U:%G %T@ %n %l\n' | sort
        find . -type f -print0 | sort -z | xargs -0 sha256sum
    )
}

remember_household() {
    local step
    for step in foundry logs configs; do fingerprint "$household/$step" >"$demo/remembered/$step"; done
}
