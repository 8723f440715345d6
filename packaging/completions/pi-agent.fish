# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_pi_agent_global_optspecs
    string join \n config= state-directory= no-limits h/help V/version
end

function __fish_pi_agent_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_pi_agent_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_pi_agent_using_subcommand
    set -l cmd (__fish_pi_agent_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c pi-agent -n "__fish_pi_agent_needs_command" -l config -d 'The configuration file' -r -F
complete -c pi-agent -n "__fish_pi_agent_needs_command" -l state-directory -d 'Where history and the run lock are kept [default: $STATE_DIRECTORY, else /var/lib/pi-agent]' -r -F
complete -c pi-agent -n "__fish_pi_agent_needs_command" -l no-limits -d 'As fast as machine and line give, whatever [limits] says and whoever else waits'
complete -c pi-agent -n "__fish_pi_agent_needs_command" -s h -l help -d 'Print help'
complete -c pi-agent -n "__fish_pi_agent_needs_command" -s V -l version -d 'Print version'
complete -c pi-agent -n "__fish_pi_agent_needs_command" -f -a "setup" -d 'The first hour: write the configuration and the keys, say what else is to do, enable the timers'
complete -c pi-agent -n "__fish_pi_agent_needs_command" -f -a "recovery-kit" -d 'Write everything that a blank machine needs, the keys too, as one text to print'
complete -c pi-agent -n "__fish_pi_agent_needs_command" -f -a "run" -d 'Back up now: the whole sequence, or the named steps'
complete -c pi-agent -n "__fish_pi_agent_needs_command" -f -a "plan" -d 'Say what the next run would do'
complete -c pi-agent -n "__fish_pi_agent_needs_command" -f -a "doctor" -d 'Find out what is wrong, and what to do about it'
complete -c pi-agent -n "__fish_pi_agent_needs_command" -f -a "adopt" -d 'Take over the storage place from another machine; with STEP, accept its changed source'
complete -c pi-agent -n "__fish_pi_agent_needs_command" -f -a "status" -d 'Am I safe? The last backups, their age and size'
complete -c pi-agent -n "__fish_pi_agent_needs_command" -f -a "alarms" -d 'Look whether anything needs a person, and tell them (what the timer does every ten minutes)'
complete -c pi-agent -n "__fish_pi_agent_needs_command" -f -a "repair" -d 'Mend a damaged repository as far as that is possible; says first what is wrong and what it would do'
complete -c pi-agent -n "__fish_pi_agent_needs_command" -f -a "points" -d 'Every point one can restore to'
complete -c pi-agent -n "__fish_pi_agent_needs_command" -f -a "restore" -d 'Get something back; on a terminal it asks for what is not said'
complete -c pi-agent -n "__fish_pi_agent_needs_command" -f -a "recover" -d 'The whole host back, onto a blank machine, with its recovery kit; goes on where it was interrupted'
complete -c pi-agent -n "__fish_pi_agent_needs_command" -f -a "check" -d 'Check the repositories now: their structure, and the part of their contents whose turn it is'
complete -c pi-agent -n "__fish_pi_agent_needs_command" -f -a "restore-test" -d 'Restore for real into a temporary place, look at what came back, and remove it again'
complete -c pi-agent -n "__fish_pi_agent_needs_command" -f -a "prune" -d 'Remove what retention no longer keeps from the repositories now'
complete -c pi-agent -n "__fish_pi_agent_needs_command" -f -a "wal" -d 'PostgreSQL\'s write-ahead log'
complete -c pi-agent -n "__fish_pi_agent_needs_command" -f -a "logs" -d 'The logs of the services on this machine'
complete -c pi-agent -n "__fish_pi_agent_needs_command" -f -a "notify" -d 'Tell people something'
complete -c pi-agent -n "__fish_pi_agent_needs_command" -f -a "heartbeat" -d 'Tell how the last month went, as the timer does'
complete -c pi-agent -n "__fish_pi_agent_needs_command" -f -a "boot" -d 'Start the backup again if the last one was cut off (for pi-agent-boot.service)'
complete -c pi-agent -n "__fish_pi_agent_needs_command" -f -a "resume" -d 'Let go on what a backup that was cut off left paused (for pi-agent-backup.service)'
complete -c pi-agent -n "__fish_pi_agent_needs_command" -f -a "guard" -d 'The process that keeps a step\'s writer quiet (internal)'
complete -c pi-agent -n "__fish_pi_agent_needs_command" -f -a "step" -d 'The process of one step (internal)'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand setup" -l name -d 'What this machine is called in snapshots and reports [default: its host name]' -r
complete -c pi-agent -n "__fish_pi_agent_using_subcommand setup" -l storage -d 'Where backups go: s3://BUCKET/PREFIX or file:///ABSOLUTE/PATH' -r
complete -c pi-agent -n "__fish_pi_agent_using_subcommand setup" -l region -d 'The bucket\'s region' -r
complete -c pi-agent -n "__fish_pi_agent_using_subcommand setup" -l endpoint -d 'An S3 server other than AWS: https://HOST[:PORT]' -r
complete -c pi-agent -n "__fish_pi_agent_using_subcommand setup" -l path-style -d 'Ask for ENDPOINT/BUCKET (true) or BUCKET.ENDPOINT (false) [default: true with --endpoint or a dot in BUCKET]' -r -f -a "true\t''
false\t''"
complete -c pi-agent -n "__fish_pi_agent_using_subcommand setup" -l ca-file -d 'The authority (PEM) that signed the endpoint\'s certificate' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand setup" -l aws-env -d 'Copy the storage keys from FILE: AWS_ACCESS_KEY_ID=… and AWS_SECRET_ACCESS_KEY=…' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand setup" -l discord-env -d 'Copy the webhook from FILE: DISCORD_WEBHOOK_URL=…' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand setup" -l postgres -d 'Back up the PostgreSQL cluster in DIR; may be repeated; `none` [default: the clusters found]' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand setup" -l directory -d 'Back up these paths as the step NAME; may be repeated; `none` [default: what is found]' -r
complete -c pi-agent -n "__fish_pi_agent_using_subcommand setup" -l upload -d 'What uploads may take, per second, such as 2MiB' -r
complete -c pi-agent -n "__fish_pi_agent_using_subcommand setup" -l secrets -d 'Where the secrets are kept [default: `secrets` beside the configuration]' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand setup" -l cache -d 'Where the cache is kept [default: /var/cache/pi-agent]' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand setup" -l spool -d 'Where servers leave their WAL, in DIR/STANZA [default: /var/spool/pgbackrest]' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand setup" -l runtime -d 'Where locks are kept [default: /run/pi-agent]' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand setup" -l kit -d 'Write the recovery kit to FILE' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand setup" -l config -d 'The configuration file' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand setup" -l state-directory -d 'Where history and the run lock are kept [default: $STATE_DIRECTORY, else /var/lib/pi-agent]' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand setup" -l unattended -d 'Ask nothing: flags and what is found on the machine are the answers (also when there is no terminal)'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand setup" -l overwrite -d 'Replace the configuration there is; the old one stays beside it'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand setup" -l kit-saved -d 'Confirm that the recovery kit is saved somewhere else: enables the timers'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand setup" -l first-run -d 'Make the first backup now'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand setup" -l no-enable -d 'Do not enable the timers'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand setup" -l no-limits -d 'As fast as machine and line give, whatever [limits] says and whoever else waits'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand setup" -s h -l help -d 'Print help'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand setup" -s V -l version -d 'Print version'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand recovery-kit" -l to -d 'Into this file; `-` is standard output, even if that is a terminal' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand recovery-kit" -l config -d 'The configuration file' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand recovery-kit" -l state-directory -d 'Where history and the run lock are kept [default: $STATE_DIRECTORY, else /var/lib/pi-agent]' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand recovery-kit" -l no-limits -d 'As fast as machine and line give, whatever [limits] says and whoever else waits'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand recovery-kit" -s h -l help -d 'Print help'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand recovery-kit" -s V -l version -d 'Print version'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand run" -l reason -d 'Why, for the record' -r
complete -c pi-agent -n "__fish_pi_agent_using_subcommand run" -l config -d 'The configuration file' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand run" -l state-directory -d 'Where history and the run lock are kept [default: $STATE_DIRECTORY, else /var/lib/pi-agent]' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand run" -l dry-run -d 'Say what would be done, and change nothing'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand run" -l wait -d 'First wait up to ten minutes for a clock that is set, the network, and another run to end: as the timer does'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand run" -l json -d 'As JSON'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand run" -l no-limits -d 'As fast as machine and line give, whatever [limits] says and whoever else waits'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand run" -s h -l help -d 'Print help'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand run" -s V -l version -d 'Print version'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand plan" -l config -d 'The configuration file' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand plan" -l state-directory -d 'Where history and the run lock are kept [default: $STATE_DIRECTORY, else /var/lib/pi-agent]' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand plan" -l json -d 'As JSON'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand plan" -l no-limits -d 'As fast as machine and line give, whatever [limits] says and whoever else waits'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand plan" -s h -l help -d 'Print help'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand plan" -s V -l version -d 'Print version'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand doctor" -l config -d 'The configuration file' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand doctor" -l state-directory -d 'Where history and the run lock are kept [default: $STATE_DIRECTORY, else /var/lib/pi-agent]' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand doctor" -l json -d 'As JSON'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand doctor" -l no-limits -d 'As fast as machine and line give, whatever [limits] says and whoever else waits'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand doctor" -s V -l version -d 'Print version'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand adopt" -l config -d 'The configuration file' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand adopt" -l state-directory -d 'Where history and the run lock are kept [default: $STATE_DIRECTORY, else /var/lib/pi-agent]' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand adopt" -l no-limits -d 'As fast as machine and line give, whatever [limits] says and whoever else waits'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand adopt" -s h -l help -d 'Print help'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand adopt" -s V -l version -d 'Print version'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand status" -l html -d 'As one page with charts and calendars, into this file' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand status" -l config -d 'The configuration file' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand status" -l state-directory -d 'Where history and the run lock are kept [default: $STATE_DIRECTORY, else /var/lib/pi-agent]' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand status" -l json -d 'As JSON'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand status" -l no-limits -d 'As fast as machine and line give, whatever [limits] says and whoever else waits'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand status" -s h -l help -d 'Print help'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand status" -s V -l version -d 'Print version'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand alarms" -l config -d 'The configuration file' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand alarms" -l state-directory -d 'Where history and the run lock are kept [default: $STATE_DIRECTORY, else /var/lib/pi-agent]' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand alarms" -l trust-clock -d 'The clock is right, whatever it showed before'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand alarms" -l json -d 'As JSON'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand alarms" -l no-limits -d 'As fast as machine and line give, whatever [limits] says and whoever else waits'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand alarms" -s h -l help -d 'Print help'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand alarms" -s V -l version -d 'Print version'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand repair" -l config -d 'The configuration file' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand repair" -l state-directory -d 'Where history and the run lock are kept [default: $STATE_DIRECTORY, else /var/lib/pi-agent]' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand repair" -l read-data -d 'Also read the contents of all packs: a flipped bit shows in nothing else'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand repair" -l yes -d 'Ask nothing'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand repair" -l no-limits -d 'As fast as machine and line give, whatever [limits] says and whoever else waits'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand repair" -s h -l help -d 'Print help'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand repair" -s V -l version -d 'Print version'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand points" -l path -d 'Only snapshots that hold this path' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand points" -l config -d 'The configuration file' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand points" -l state-directory -d 'Where history and the run lock are kept [default: $STATE_DIRECTORY, else /var/lib/pi-agent]' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand points" -l json -d 'As JSON'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand points" -l no-limits -d 'As fast as machine and line give, whatever [limits] says and whoever else waits'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand points" -s h -l help -d 'Print help'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand points" -s V -l version -d 'Print version'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand restore" -l to -d 'Into this directory' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand restore" -l at -d 'As it was then: a time (2026-11-20 21:30, or with an offset), or an id from `points` [default: latest]' -r
complete -c pi-agent -n "__fish_pi_agent_using_subcommand restore" -l timeline -d 'Databases: along this timeline [default: the one that the database was on then]' -r
complete -c pi-agent -n "__fish_pi_agent_using_subcommand restore" -l path -d 'Only this path, as it was on the source' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand restore" -l config -d 'The configuration file' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand restore" -l state-directory -d 'Where history and the run lock are kept [default: $STATE_DIRECTORY, else /var/lib/pi-agent]' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand restore" -l in-place -d 'Where it was: who uses it is stopped and started, what is there is kept beside it'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand restore" -l overwrite -d 'Even if the directory holds something'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand restore" -l privileges -d 'With set-id bits, capabilities and device files too, which come back in their own places anyway'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand restore" -l yes -d 'Ask nothing'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand restore" -l json -d 'As JSON'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand restore" -l no-limits -d 'As fast as machine and line give, whatever [limits] says and whoever else waits'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand restore" -s h -l help -d 'Print help'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand restore" -s V -l version -d 'Print version'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand recover" -l kit -d 'The recovery kit' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand recover" -l at -d 'As it was then: a time (2026-11-20 21:30, or with an offset)' -r
complete -c pi-agent -n "__fish_pi_agent_using_subcommand recover" -l config -d 'The configuration file' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand recover" -l state-directory -d 'Where history and the run lock are kept [default: $STATE_DIRECTORY, else /var/lib/pi-agent]' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand recover" -l overwrite -d 'What is there already gives way, and is kept as *.before-restore-TIME'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand recover" -l start-timers -d 'Enable and start the timers when everything is back'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand recover" -l only-files -d 'Only the configuration and the keys; nothing is taken over, nothing restored'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand recover" -l json -d 'As JSON'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand recover" -l no-limits -d 'As fast as machine and line give, whatever [limits] says and whoever else waits'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand recover" -s h -l help -d 'Print help'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand recover" -s V -l version -d 'Print version'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand check" -l config -d 'The configuration file' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand check" -l state-directory -d 'Where history and the run lock are kept [default: $STATE_DIRECTORY, else /var/lib/pi-agent]' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand check" -l read-data -d 'All contents: everything is downloaded'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand check" -l json -d 'As JSON'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand check" -l no-limits -d 'As fast as machine and line give, whatever [limits] says and whoever else waits'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand check" -s h -l help -d 'Print help'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand check" -s V -l version -d 'Print version'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand restore-test" -l config -d 'The configuration file' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand restore-test" -l state-directory -d 'Where history and the run lock are kept [default: $STATE_DIRECTORY, else /var/lib/pi-agent]' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand restore-test" -l wait -d 'First wait up to ten minutes for a clock that is set, the network, and another run to end: as the timer does'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand restore-test" -l json -d 'As JSON'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand restore-test" -l no-limits -d 'As fast as machine and line give, whatever [limits] says and whoever else waits'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand restore-test" -s h -l help -d 'Print help'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand restore-test" -s V -l version -d 'Print version'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand prune" -l config -d 'The configuration file' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand prune" -l state-directory -d 'Where history and the run lock are kept [default: $STATE_DIRECTORY, else /var/lib/pi-agent]' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand prune" -l json -d 'As JSON'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand prune" -l no-limits -d 'As fast as machine and line give, whatever [limits] says and whoever else waits'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand prune" -s h -l help -d 'Print help'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand prune" -s V -l version -d 'Print version'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand wal; and not __fish_seen_subcommand_from push" -l config -d 'The configuration file' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand wal; and not __fish_seen_subcommand_from push" -l state-directory -d 'Where history and the run lock are kept [default: $STATE_DIRECTORY, else /var/lib/pi-agent]' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand wal; and not __fish_seen_subcommand_from push" -l no-limits -d 'As fast as machine and line give, whatever [limits] says and whoever else waits'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand wal; and not __fish_seen_subcommand_from push" -s h -l help -d 'Print help'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand wal; and not __fish_seen_subcommand_from push" -s V -l version -d 'Print version'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand wal; and not __fish_seen_subcommand_from push" -f -a "push" -d 'Move what the servers left in the spool into the repositories, and what a stopped one still has; say what waits in one that runs'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand wal; and __fish_seen_subcommand_from push" -l retry-for -d 'Only the spools; when the storage is away, try again for so long: 4m' -r
complete -c pi-agent -n "__fish_pi_agent_using_subcommand wal; and __fish_seen_subcommand_from push" -l config -d 'The configuration file' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand wal; and __fish_seen_subcommand_from push" -l state-directory -d 'Where history and the run lock are kept [default: $STATE_DIRECTORY, else /var/lib/pi-agent]' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand wal; and __fish_seen_subcommand_from push" -l switch -d 'First let the servers hand over what they wrote last, and wait until it is in storage: ten minutes at most'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand wal; and __fish_seen_subcommand_from push" -l no-limits -d 'As fast as machine and line give, whatever [limits] says and whoever else waits'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand wal; and __fish_seen_subcommand_from push" -s h -l help -d 'Print help'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand wal; and __fish_seen_subcommand_from push" -s V -l version -d 'Print version'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand logs; and not __fish_seen_subcommand_from audit" -l config -d 'The configuration file' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand logs; and not __fish_seen_subcommand_from audit" -l state-directory -d 'Where history and the run lock are kept [default: $STATE_DIRECTORY, else /var/lib/pi-agent]' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand logs; and not __fish_seen_subcommand_from audit" -l no-limits -d 'As fast as machine and line give, whatever [limits] says and whoever else waits'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand logs; and not __fish_seen_subcommand_from audit" -s h -l help -d 'Print help'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand logs; and not __fish_seen_subcommand_from audit" -s V -l version -d 'Print version'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand logs; and not __fish_seen_subcommand_from audit" -f -a "audit" -d 'Who writes logs, how large they are, whether anything rotates them, and what to set; changes nothing'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand logs; and __fish_seen_subcommand_from audit" -l config -d 'The configuration file' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand logs; and __fish_seen_subcommand_from audit" -l state-directory -d 'Where history and the run lock are kept [default: $STATE_DIRECTORY, else /var/lib/pi-agent]' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand logs; and __fish_seen_subcommand_from audit" -l json -d 'As JSON'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand logs; and __fish_seen_subcommand_from audit" -l no-limits -d 'As fast as machine and line give, whatever [limits] says and whoever else waits'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand logs; and __fish_seen_subcommand_from audit" -s h -l help -d 'Print help'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand logs; and __fish_seen_subcommand_from audit" -s V -l version -d 'Print version'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand notify; and not __fish_seen_subcommand_from test deliver" -l config -d 'The configuration file' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand notify; and not __fish_seen_subcommand_from test deliver" -l state-directory -d 'Where history and the run lock are kept [default: $STATE_DIRECTORY, else /var/lib/pi-agent]' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand notify; and not __fish_seen_subcommand_from test deliver" -l no-limits -d 'As fast as machine and line give, whatever [limits] says and whoever else waits'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand notify; and not __fish_seen_subcommand_from test deliver" -s h -l help -d 'Print help'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand notify; and not __fish_seen_subcommand_from test deliver" -s V -l version -d 'Print version'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand notify; and not __fish_seen_subcommand_from test deliver" -f -a "test" -d 'Send one message of each kind to every service, marked as a test'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand notify; and not __fish_seen_subcommand_from test deliver" -f -a "deliver" -d 'Send what waits in the outbox (internal)'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand notify; and __fish_seen_subcommand_from test" -l config -d 'The configuration file' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand notify; and __fish_seen_subcommand_from test" -l state-directory -d 'Where history and the run lock are kept [default: $STATE_DIRECTORY, else /var/lib/pi-agent]' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand notify; and __fish_seen_subcommand_from test" -l no-limits -d 'As fast as machine and line give, whatever [limits] says and whoever else waits'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand notify; and __fish_seen_subcommand_from test" -s h -l help -d 'Print help'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand notify; and __fish_seen_subcommand_from test" -s V -l version -d 'Print version'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand notify; and __fish_seen_subcommand_from deliver" -l for -d 'Try again for so long' -r
complete -c pi-agent -n "__fish_pi_agent_using_subcommand notify; and __fish_seen_subcommand_from deliver" -l config -d 'The configuration file' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand notify; and __fish_seen_subcommand_from deliver" -l state-directory -d 'Where history and the run lock are kept [default: $STATE_DIRECTORY, else /var/lib/pi-agent]' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand notify; and __fish_seen_subcommand_from deliver" -l no-limits -d 'As fast as machine and line give, whatever [limits] says and whoever else waits'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand notify; and __fish_seen_subcommand_from deliver" -s h -l help -d 'Print help'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand notify; and __fish_seen_subcommand_from deliver" -s V -l version -d 'Print version'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand heartbeat" -l config -d 'The configuration file' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand heartbeat" -l state-directory -d 'Where history and the run lock are kept [default: $STATE_DIRECTORY, else /var/lib/pi-agent]' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand heartbeat" -l no-limits -d 'As fast as machine and line give, whatever [limits] says and whoever else waits'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand heartbeat" -s h -l help -d 'Print help'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand heartbeat" -s V -l version -d 'Print version'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand boot" -l config -d 'The configuration file' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand boot" -l state-directory -d 'Where history and the run lock are kept [default: $STATE_DIRECTORY, else /var/lib/pi-agent]' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand boot" -l no-limits -d 'As fast as machine and line give, whatever [limits] says and whoever else waits'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand boot" -s h -l help -d 'Print help'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand boot" -s V -l version -d 'Print version'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand resume" -l config -d 'The configuration file' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand resume" -l state-directory -d 'Where history and the run lock are kept [default: $STATE_DIRECTORY, else /var/lib/pi-agent]' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand resume" -l no-limits -d 'As fast as machine and line give, whatever [limits] says and whoever else waits'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand resume" -s h -l help -d 'Print help'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand resume" -s V -l version -d 'Print version'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand guard" -l config -d 'The configuration file' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand guard" -l state-directory -d 'Where history and the run lock are kept [default: $STATE_DIRECTORY, else /var/lib/pi-agent]' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand guard" -l no-limits -d 'As fast as machine and line give, whatever [limits] says and whoever else waits'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand guard" -s h -l help -d 'Print help'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand guard" -s V -l version -d 'Print version'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand step" -l config -d 'The configuration file' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand step" -l state-directory -d 'Where history and the run lock are kept [default: $STATE_DIRECTORY, else /var/lib/pi-agent]' -r -F
complete -c pi-agent -n "__fish_pi_agent_using_subcommand step" -l no-limits -d 'As fast as machine and line give, whatever [limits] says and whoever else waits'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand step" -s h -l help -d 'Print help'
complete -c pi-agent -n "__fish_pi_agent_using_subcommand step" -s V -l version -d 'Print version'
