# shellcheck shell=bash
#
# Finds, starts and stops the processes of the private servers, and gives them ports.
#
# There are no pid files, because they go stale. A process is ours when its command line names our data folder.

# processes SERVER [leader]: prints the ids of the server's processes, or only of the one that receives signals.
#   postgres   the main process names the data folder; its children rename themselves, but their working folder is there
#   rabbitmq   the Erlang VM and the shell script around it have the argument -grantonce_dev FOLDER
#   epmd       its program is a link in the data folder
processes() {
    local entry argv
    for entry in /proc/[0-9]*; do
        argv=()
        { mapfile -d '' -t argv <"$entry/cmdline"; } 2>/dev/null || continue
        [ "${#argv[@]}" -gt 0 ] || continue
        if is_ours "$1" "${2:-}" "${argv[*]} " "${argv[0]}"; then
            echo "${entry#/proc/}"
        elif [ "$1${2:-}" = postgres ] && [ "${argv[0]#postgres: }" != "${argv[0]}" ] && [ "$entry/cwd" -ef "$data/postgres" ]; then
            echo "${entry#/proc/}"
        fi
    done
}

# is_ours SERVER leader? COMMAND_LINE PROGRAM
is_ours() {
    case $1 in
    postgres) [[ ${4##*/} == postgres && $3 == *" -D $data/postgres "* ]] ;;
    epmd) [[ $3 == "$data/rabbitmq/epmd "* ]] ;;
    rabbitmq) [[ $3 == *" -grantonce_dev $data/rabbitmq "* && ($2 == '' || ${4##*/} == beam*) ]] ;;
    esac
}

is_running() { [ -n "$(processes "$1" leader)" ]; }

# spawn LOG COMMAND…: starts a process that outlives this script. Sets $spawned to its id. One earlier log is kept.
spawn() {
    local log=$1
    shift
    # shellcheck disable=SC2016 # the inner shell expands it
    as_server sh -c 'if [ -e "$0" ]; then mv -f "$0" "$0.1"; fi' "$log"
    # shellcheck disable=SC2016 # the inner shell expands it
    become_server setsid sh -c 'log=$0; exec "$@" </dev/null >>"$log" 2>&1' "$log" "$@" &
    spawned=$!
    disown
}

# spawned_until SECONDS COMMAND…: like wait_until, but it fails at once when the spawned process has died.
spawned_until() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        kill -0 "$spawned" 2>/dev/null || return 1
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.1
    done
}

# stop SERVER gently|hard: returns when all its processes have ended.
stop() {
    case $1-$2 in
    postgres-gently) end_processes postgres INT 30 ;; # "fast shutdown": closes all connections, writes a checkpoint
    postgres-hard) end_processes postgres QUIT 5 ;;   # "immediate shutdown": the next start recovers, as after a crash
    rabbitmq-*)
        # If the first start was never completed, there is no data to save.
        if [ "$2" = gently ] && [ -e "$data/rabbitmq/complete" ]; then
            end_processes rabbitmq TERM 30
        else
            end_processes rabbitmq KILL 5
        fi
        end_processes epmd TERM 2
        ;;
    esac
}

# end_processes SERVER SIGNAL SECONDS: sends the signal to the leader once and waits for all processes. After that many
# seconds it kills those that are left.
end_processes() {
    local server=$1 signal=$2 end=$((SECONDS + $3)) signalled_pids=' ' pid pids orphans_since=''
    while pids=$(processes "$server") && [ -n "$pids" ]; do
        for pid in $(processes "$server" leader); do
            orphans_since=$SECONDS
            if [[ $signalled_pids == *" $pid "* ]]; then continue; fi
            signalled_pids+="$pid "
            kill -s "$signal" "$pid" 2>/dev/null || :
        done
        # Without their leader the other processes end by themselves, usually at once.
        if [ "$SECONDS" -ge "$end" ] || [ "$SECONDS" -gt $((${orphans_since:=$SECONDS} + 2)) ]; then
            for pid in $pids; do kill -s KILL "$pid" 2>/dev/null || :; done
            [ "$SECONDS" -lt $((end + 10)) ] || die 3 "cannot stop $server (process $pid)"
        fi
        sleep 0.05
    done
}

crash_all() {
    stop rabbitmq hard
    stop postgres hard
}

# ---------------------------------------------------------------------------------------------------------------------
# Ports. .dev/ports/ remembers them, so that a server returns to the port that its clients know.

# port_of NAME: prints the remembered port.
port_of() {
    local port=''
    read -r port 2>/dev/null <"$dev_dir/ports/$1" || :
    case $port in '' | *[!0-9]*) return 1 ;; esac
    echo "$port"
}

is_port_busy() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# claim_port NAME: keeps the remembered port if it is free, else remembers another. The server must be down.
claim_port() {
    local name=$1 port try
    if port=$(port_of "$name") && ! is_port_busy "$port"; then return; fi
    for try in {1..200}; do
        # Kernels take ports for outgoing connections from 32768 on. Stay below.
        port=$((20000 + RANDOM % 12000))
        if ! is_port_busy "$port" && ! grep -qsx "$port" "$dev_dir"/ports/*; then
            echo "$port" >"$dev_dir/ports/$name.new"
            mv -f "$dev_dir/ports/$name.new" "$dev_dir/ports/$name"
            return
        fi
    done
    die 3 "found no free port in $try tries"
}

# give_up NAME LOG TRIES: shows the end of the server's log and ends the script.
give_up() {
    say "$1 did not start ($3 tries). The end of $2:"
    as_server tail -n 20 "$2" | sed 's/^/  | /' >&2 || :
    die 3 "$1 did not start. To delete its data and start anew: ./dev reset"
}
