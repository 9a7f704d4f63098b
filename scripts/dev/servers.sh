# shellcheck shell=bash
#
# The commands about the private servers: up, down, reset, env, psql, rabbitmqctl.

# parse_servers [SERVER…]: checks the names and sets $servers. No names mean all servers.
parse_servers() {
    local server
    for server in "$@"; do
        case $server in postgres | rabbitmq) ;; *) die 2 "no such server: $server (postgres, rabbitmq)" ;; esac
    done
    servers=("$@")
    [ "$#" -gt 0 ] || servers=(postgres rabbitmq)
}

# start SERVER…: starts the servers and registers this call as one of their users.
start() {
    local server
    join
    # Install first: a package may create the user that the servers run as.
    for server in "$@"; do "find_$server" || install_or_explain "$server"; done
    make_places
    for server in "$@"; do "start_$server"; done
}

command_up() {
    local server
    parse_servers "$@"
    start "${servers[@]}"
    for server in "${servers[@]}"; do : >"$dev_dir/keep.$server"; done
    say "running: ${servers[*]}. To use them in this shell: eval \"\$(./dev env)\". To stop them: ./dev down"
}

command_down() {
    local manner=gently server pids
    if [ "${1:-}" = --hard ]; then manner=hard && shift; fi
    parse_servers "$@"
    if [ -d "$dev_dir" ]; then
        [ -w "$dev_dir" ] || die 3 "$dev_dir belongs to $(owner_of "$dev_dir"): run ./dev as that user or as root"
        lock
    fi
    locate_data
    for server in "${servers[@]}"; do
        rm -f "$dev_dir/keep.$server"
        pids=$(processes "$server")
        stop "$server" "$manner"
        if [ -n "$pids" ]; then say "$server is stopped"; else say "$server was not running"; fi
    done
}

command_reset() {
    [ "$#" -eq 0 ] || die 2 "reset takes no arguments"
    command_down --hard
    if [ "$UID" -eq 0 ]; then rm -rf "$elsewhere"; fi
    # The lock file stays, because another call may be waiting for it.
    rm -rf "$dev_dir/data" "$dev_dir/ports"
    say "the data in $dev_dir is deleted"
}

command_env() {
    local is_found='' missing=''
    [ "$#" -eq 0 ] || die 2 "env takes no arguments"
    locate_data
    if is_running postgres && port_of postgres >/dev/null; then
        echo "export DATABASE_URL=$(database_url)"
        # Otherwise a build in this shell compares the queries with DATABASE_URL, which may have no tables yet.
        echo "export SQLX_OFFLINE=true"
        is_found=yes
    else
        missing='Postgres'
    fi
    if is_running rabbitmq && port_of amqp >/dev/null; then
        echo "export AMQP_URL=$(amqp_url)"
        echo "export GRANTONCE_MANAGEMENT_URL=$(management_url)"
        is_found=yes
    else
        missing="${missing:+$missing, }RabbitMQ"
    fi
    [ -n "$is_found" ] || die 3 "the private servers are not running. To start them: ./dev up"
    if [ -n "$missing" ]; then say "not running: $missing"; fi
}

command_psql() {
    start postgres
    unlock
    trap : INT # psql handles Ctrl-C itself: it cancels the query
    PGPASSWORD=$(postgres_password) "$pg_bin/psql" -h 127.0.0.1 -p "$(port_of postgres)" -U grantonce -d grantonce "$@"
}

# Debian's rabbitmqctl works only for the packaged service. The plain program is in the server's own folder.
command_rabbitmqctl() {
    local dir node
    start rabbitmq
    unlock
    dir=$data/rabbitmq
    node=$(as_server cat "$dir/nodename")
    as_server env -i PATH="$PATH" HOME="$dir" LC_ALL=C.UTF-8 ERL_EPMD_PORT="$(port_of epmd)" RABBITMQ_NODENAME="$node" \
        RABBITMQ_CONF_ENV_FILE="$dir/rabbitmq-env.conf" "${rabbitmq_server%-server}ctl" "$@"
}

# Decides which servers demo, test and bench use. Starts the private servers if they are needed, and exports the addresses.
use_servers() {
    if has_external_servers; then
        say "using the servers of DATABASE_URL and AMQP_URL"
        return
    fi
    if [ -n "${DATABASE_URL:-}${AMQP_URL:-}" ] && [ -z "${DATABASE_URL:+${AMQP_URL:-}}" ]; then
        say "only one of DATABASE_URL and AMQP_URL is set: using private servers for both"
    fi
    start postgres rabbitmq
    unlock
    DATABASE_URL=$(database_url)
    AMQP_URL=$(amqp_url)
    GRANTONCE_MANAGEMENT_URL=$(management_url)
    export DATABASE_URL AMQP_URL GRANTONCE_MANAGEMENT_URL
}

# Succeeds when both variables name servers of the caller. After `eval "$(./dev env)"` they name the private servers,
# which ./dev must be able to start.
has_external_servers() {
    [ -n "${DATABASE_URL:-}" ] && [ -n "${AMQP_URL:-}" ] || return 1
    locate_data
    [ "$DATABASE_URL" != "$(database_url 2>/dev/null)" ]
}
