# shellcheck shell=bash
#
# The private RabbitMQ.

# Sets $rabbitmq_server and $epmd. Debian's /usr/sbin/rabbitmq-server is a wrapper that insists on the user and the folders
# of the packaged service, so the program behind it comes first.
find_rabbitmq() {
    for rabbitmq_server in /usr/lib/rabbitmq/bin/rabbitmq-server /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server \
        "$(command -v rabbitmq-server)"; do
        if [ -x "$rabbitmq_server" ]; then
            find_epmd
            return
        fi
    done
    return 1
}

find_epmd() {
    local erlang
    if epmd=$(command -v epmd); then return; fi
    erlang=$(erl -noshell -eval 'io:put_chars(code:root_dir()), halt().' 2>/dev/null) || return 1
    for epmd in "$erlang"/erts-*/bin/epmd; do
        if [ -x "$epmd" ]; then return; fi
    done
    return 1
}

amqp_url() { echo "amqp://guest:guest@127.0.0.1:$(port_of amqp)/%2f"; }
management_url() { echo "http://guest:guest@127.0.0.1:$(port_of management)"; }

# Succeeds when the HTTP API accepts our user and the broker answers an AMQP client. The script speaks both protocols
# itself: RabbitMQ's tools need seconds for the same check.
is_rabbitmq_ready() { speaks_http 2>/dev/null && speaks_amqp 2>/dev/null; }

speaks_http() (
    exec 3<>"/dev/tcp/127.0.0.1/$(port_of management)"
    # The base64 text is guest:guest.
    printf 'GET /api/whoami HTTP/1.0\r\nAuthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n\r\n' >&3
    IFS= read -r -t 5 line <&3
    [[ $line == HTTP/*' 200 '* ]]
)

speaks_amqp() (
    exec 3<>"/dev/tcp/127.0.0.1/$(port_of amqp)"
    printf 'AMQP\x00\x00\x09\x01' >&3
    IFS= read -r -n 1 -t 5 byte <&3
    [ "$byte" = $'\x01' ]
)

# Makes the node's name and cookie, once. The name does not contain the machine's name, because that may change.
make_node() {
    local new=$data/rabbitmq.new
    say "making a RabbitMQ data folder in $data"
    as_server rm -rf "$new"
    as_server mkdir -m 700 "$new"
    random_text | write "$new/.erlang.cookie"
    as_server chmod 400 "$new/.erlang.cookie"
    echo "grantonce-$(random_text | cut -c1-8)@localhost" | write "$new/nodename"
    as_server mv "$new" "$data/rabbitmq"
}

# Every file that RabbitMQ would read in /etc/rabbitmq gets a private counterpart.
configure_rabbitmq() {
    local dir=$data/rabbitmq
    as_server ln -sf "$epmd" "$dir/epmd"
    as_server mkdir -p "$dir/conf.d"
    write "$dir/rabbitmq-env.conf" </dev/null
    echo '[].' | write "$dir/advanced.config"
    echo '[rabbitmq_management].' | write "$dir/enabled_plugins"
    write "$dir/rabbitmq.conf" <<CONF
# ./dev writes this file at every start.
listeners.tcp.default = 127.0.0.1:$(port_of amqp)
management.tcp.ip = 127.0.0.1
management.tcp.port = $(port_of management)
# The defaults suit a machine that runs only RabbitMQ. On a laptop with little free disk they block publishers, and they
# reserve half a gigabyte for the log of the quorum queues.
disk_free_limit.absolute = 200MB
vm_memory_high_watermark.absolute = 2GB
raft.wal_max_size_bytes = 64000000
log.file.level = info
log.file.rotation.size = 20000000
log.file.rotation.count = 1
CONF
}

spawn_rabbitmq() {
    local dir=$data/rabbitmq files node
    read -r node <"$dir/nodename"
    # Erlang reserves memory for every file that it may open, and containers allow a billion files.
    files=$(ulimit -Hn)
    if [ "$files" = unlimited ] || [ "$files" -gt 65536 ]; then files=65536; fi
    # A private epmd on loopback. Otherwise the first Erlang program would start one for the whole machine.
    spawn "$data/epmd.log" env -i "$dir/epmd" -port "$(port_of epmd)" -address 127.0.0.1
    spawned_until 5 is_port_busy "$(port_of epmd)" || return 1
    # The management plugin waits five seconds when it stops. The data is closed before that, so -shutdown_time limits
    # the wait.
    # shellcheck disable=SC2016 # the inner shell expands it
    spawn "$data/rabbitmq.out" env -i PATH="$PATH" HOME="$dir" LC_ALL=C \
        ERL_EPMD_PORT="$(port_of epmd)" ERL_EPMD_ADDRESS=127.0.0.1 ERL_CRASH_DUMP_BYTES=0 \
        RABBITMQ_NODENAME="$node" RABBITMQ_DIST_PORT="$(port_of distribution)" \
        RABBITMQ_MNESIA_BASE="$dir/mnesia" RABBITMQ_LOG_BASE="$data" RABBITMQ_LOGS="$data/rabbitmq.log" \
        RABBITMQ_CONF_ENV_FILE="$dir/rabbitmq-env.conf" RABBITMQ_CONFIG_FILE="$dir/rabbitmq.conf" \
        RABBITMQ_CONFIG_FILES="$dir/conf.d" RABBITMQ_ADVANCED_CONFIG_FILE="$dir/advanced.config" \
        RABBITMQ_ENABLED_PLUGINS_FILE="$dir/enabled_plugins" \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-kernel inet_dist_use_interface {127,0,0,1} -shutdown_time 3000' \
        sh -c 'ulimit -n "$0"; exec "$@"' "$files" "$rabbitmq_server" -grantonce_dev "$dir"
}

start_rabbitmq() {
    local try name
    if is_running rabbitmq; then
        if port_of amqp >/dev/null && port_of management >/dev/null && wait_until 15 is_rabbitmq_ready; then return; fi
        say "RabbitMQ does not answer: starting it again"
    fi
    rm -f "$dev_dir/keep.rabbitmq"
    stop rabbitmq hard
    [ -e "$data/rabbitmq" ] || make_node
    for try in 1 2 3; do
        # An interrupted first start may leave half-made data. Nobody has used that server yet, so the data goes.
        [ -e "$data/rabbitmq/complete" ] || as_server rm -rf "$data/rabbitmq/mnesia"
        for name in amqp management distribution epmd; do claim_port "$name"; done
        say "starting RabbitMQ on port $(port_of amqp)"
        configure_rabbitmq
        if spawn_rabbitmq && spawned_until 90 is_rabbitmq_ready; then
            write "$data/rabbitmq/complete" </dev/null
            return
        fi
        stop rabbitmq hard
    done
    as_server test -s "$data/rabbitmq.log" || give_up RabbitMQ "$data/rabbitmq.out" "$try"
    give_up RabbitMQ "$data/rabbitmq.log" "$try"
}
