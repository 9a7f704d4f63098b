# shellcheck shell=bash
#
# The private Postgres.

# find_postgres [keep]: sets $pg_bin to the programs of the newest Postgres on this machine. With `keep`, it accepts only
# the version that made the data folder.
find_postgres() {
    local dir version wanted='' newest=0
    pg_bin=''
    if [ -n "${1:-}" ] && [ -r "$data/postgres/PG_VERSION" ]; then read -r wanted <"$data/postgres/PG_VERSION"; fi
    for dir in /usr/lib/postgresql/*/bin "$(pg_config --bindir 2>/dev/null)" "$(dirname "$(command -v postgres)" 2>/dev/null)"; do
        if [ ! -x "$dir/initdb" ] || [ ! -x "$dir/postgres" ]; then continue; fi
        version=$("$dir/postgres" --version)
        version=${version##*) }
        version=${version%%[!0-9]*}
        if [ -z "$wanted" ] || [ "$version" = "$wanted" ]; then
            if [ "$version" -gt "$newest" ]; then newest=$version pg_bin=$dir; fi
        fi
    done
    if [ -n "$wanted" ] && [ -z "$pg_bin" ]; then return 1; fi
    [ "$newest" -eq 0 ] || [ "$newest" -ge 15 ] || die 3 "Postgres $newest is too old: install 15 or newer"
    [ -n "$pg_bin" ]
}

postgres_password() {
    local password
    read -r password <"$data/postgres/grantonce.password"
    echo "$password"
}

database_url() { echo "postgres://grantonce:$(postgres_password)@127.0.0.1:$(port_of postgres)/grantonce"; }

# private_psql ARGS…: runs psql without the caller's PG… variables and ~/.psqlrc. The password does not appear on a
# command line.
private_psql() {
    env -i PATH="$PATH" LC_ALL=C PGCONNECT_TIMEOUT=5 PGPASSWORD="$(postgres_password)" \
        "$pg_bin/psql" -X -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$(port_of postgres)" -U grantonce "$@" </dev/null
}

# Succeeds when our own server answers: another server on this port would refuse the password.
is_postgres_ready() { [ "$(private_psql -d postgres -Atqc 'select 1' 2>/dev/null)" = 1 ]; }

ensure_database() {
    if [ "$(private_psql -d postgres -Atqc "select 1 from pg_database where datname = 'grantonce'")" != 1 ]; then
        private_psql -d postgres -qc 'create database grantonce'
    fi
}

# Makes the data folder. initdb works under another name, so an interruption never leaves half a folder "postgres".
make_cluster() {
    local new=$data/postgres.new locale=C
    say "making a Postgres data folder in $data"
    case $(locale -a 2>/dev/null) in *C.UTF-8* | *C.utf8*) locale=C.UTF-8 ;; esac
    as_server rm -rf "$new"
    random_text | write "$data/postgres.password"
    as_server env -i PATH="$PATH" HOME="$data" LC_ALL=C "$pg_bin/initdb" -D "$new" -U grantonce -E UTF8 \
        --locale="$locale" --lc-messages=C --auth=scram-sha-256 --pwfile="$data/postgres.password" \
        2>&1 >/dev/null | { grep -v '^$' || :; } >&2 || die 3 "initdb failed"
    as_server mv "$data/postgres.password" "$new/grantonce.password"
    as_server mv "$new" "$data/postgres"
}

configure_postgres() {
    # The path of a socket may have at most 107 bytes. With a longer path, Postgres listens on TCP only.
    local socket_dir=${data//\'/\'\'}/postgres
    if [ "${#socket_dir}" -gt 80 ]; then socket_dir=''; fi
    write "$data/postgres/postgresql.conf" <<CONF
# ./dev writes this file at every start.
listen_addresses = '127.0.0.1'
port = $(port_of postgres)
unix_socket_directories = '$socket_dir'
max_connections = 300
shared_buffers = '256MB'
max_wal_size = '4GB'
# The tests check that data survives a crash.
fsync = on
synchronous_commit = on
lc_messages = 'C'
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %d '
CONF
}

start_postgres() {
    local try
    if is_running postgres; then
        find_postgres keep || find_postgres || :
        # An interrupted call may have left it starting.
        if port_of postgres >/dev/null && wait_until 15 is_postgres_ready; then
            ensure_database
            return
        fi
        say "Postgres does not answer: starting it again"
    fi
    rm -f "$dev_dir/keep.postgres"
    stop postgres hard
    if [ -e "$data/postgres" ] && ! find_postgres keep; then
        say "another version of Postgres made $data/postgres: it is kept as postgres.old, and a new folder is made"
        as_server rm -rf "$data/postgres.old"
        as_server mv "$data/postgres" "$data/postgres.old"
        find_postgres
    fi
    [ -e "$data/postgres" ] || make_cluster
    for try in 1 2 3; do
        claim_port postgres
        say "starting Postgres on port $(port_of postgres)"
        configure_postgres
        # All its processes have ended, so these files are stale. Postgres would refuse to start if another process
        # had the old process id by now.
        as_server rm -f "$data/postgres/postmaster.pid" "$data/postgres"/.s.PGSQL.*
        spawn "$data/postgres.log" env -i PATH="$PATH" HOME="$data" LC_ALL=C "$pg_bin/postgres" -D "$data/postgres"
        if spawned_until 60 is_postgres_ready; then
            ensure_database
            return
        fi
        stop postgres hard
    done
    give_up Postgres "$data/postgres.log" "$try"
}
