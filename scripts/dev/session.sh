# shellcheck shell=bash
#
# Several calls of ./dev share the servers. This file has the locks between them, and the clean-up when a call ends.
#
# Two locks, both flock(2), so that the kernel releases them when a process dies:
#   file descriptor 9, exclusive   this call starts or stops servers
#   file descriptor 8, shared      this call uses the servers

is_locked=''

lock() {
    [ -z "$is_locked" ] || return 0
    exec 9>>"$dev_dir/lock"
    if ! flock -n 9; then
        say "waiting for another ./dev to finish starting or stopping"
        flock 9
    fi
    is_locked=yes
}

unlock() {
    exec 9>&-
    is_locked=''
}

is_joined=''

# Registers this call as a user of the servers. When the call ends for any reason, `leave` runs.
join() {
    [ -r /proc/self/cmdline ] || die 3 "the private servers need Linux with /proc. On another system set DATABASE_URL, AMQP_URL and GRANTONCE_MANAGEMENT_URL to servers of your own"
    has flock || install_or_explain flock
    if ! mkdir -p "$dev_dir" 2>/dev/null || [ ! -w "$dev_dir" ]; then
        die 3 "cannot write $dev_dir (owner: $(owner_of "$dev_dir" 2>/dev/null || echo none)): run ./dev as that user, or set DEV_DIR"
    fi
    lock
    exec 8>>"$dev_dir/users"
    flock -s 8
    locate_data
    is_joined=yes
}

# Stops the servers that nobody uses any more and that nobody started with `./dev up`. No other call can join while this
# one holds the lock, so exactly the last user stops them.
leave() {
    local server
    is_joined=''
    lock
    if flock -n -x 8; then
        for server in rabbitmq postgres; do
            [ -e "$dev_dir/keep.$server" ] || stop "$server" gently
        done
    fi
    exec 8>&-
    unlock
}

# The child runs in a process group of its own. A Ctrl-C reaches it once, through on_signal, and `run` can end every
# process that the child started.
child='' signalled='' interrupted=''

on_signal() { # NAME NUMBER
    signalled=$2
    if [ -z "$child" ]; then exit $((128 + $2)); fi
    kill -s "$1" -- "-$child" 2>/dev/null || :
}

on_exit() {
    local code=$?
    set +e
    trap '' INT TERM HUP
    if [ -n "$child" ]; then kill -s KILL -- "-$child" 2>/dev/null; fi
    if [ -n "${scratch_dir:-}" ]; then rm -rf "$scratch_dir"; fi
    if [ -n "${scratch_database:-}" ]; then
        private_psql -d postgres -qc "drop database if exists $scratch_database with (force)" 2>/dev/null
    fi
    allow_services
    if [ -n "$is_joined" ]; then leave; fi
    exit "$code"
}

trap on_exit EXIT
trap 'on_signal INT 2' INT
trap 'on_signal TERM 15' TERM
trap 'on_signal HUP 1' HUP

# run COMMAND…: runs it to its end and returns its exit code. Sets $interrupted if a signal came meanwhile.
run() {
    local code
    interrupted=''
    set -m
    "$@" </dev/null 8>&- 9>&- &
    child=$!
    set +m
    while :; do
        signalled=''
        code=0
        wait "$child" || code=$?
        # `wait` also returns when a signal arrives. Only a return without a signal gives the child's exit code.
        [ -n "$signalled" ] || break
        interrupted=yes
    done
    # The child may have left processes of its own behind.
    kill -s KILL -- "-$child" 2>/dev/null || :
    child=''
    return "$code"
}
