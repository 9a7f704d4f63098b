# shellcheck shell=bash
#
# Where the private servers keep their files, and which user they run as.
#
#   $root      the checkout
#   $dev_dir   DEV_DIR, or .dev in the checkout: locks, ports, and
#   $data      $dev_dir/data: everything that the servers write. It belongs to the servers' user.

case ${DEV_DIR:-.dev} in
/*) dev_dir=$DEV_DIR ;;
*) dev_dir=$root/${DEV_DIR:-.dev} ;;
esac
if [ -d "$dev_dir" ]; then dev_dir=$(cd -P "$dev_dir" && pwd); fi

# Prints the folder that holds the data when the servers' user cannot reach the checkout.
folder_elsewhere() { echo "/var/tmp/grantonce-$(printf %s "$dev_dir" | cksum | cut -d' ' -f1)"; }
elsewhere=$(folder_elsewhere)

# Sets $data. This also works after somebody deleted .dev/, so that servers that still run from it are found.
locate_data() {
    data=$dev_dir/data
    if [ -d "$data/." ]; then
        data=$(cd -P "$data" 2>/dev/null && pwd) ||
            die 3 "$data belongs to $(owner_of "$data"): run ./dev as that user or as root"
    elif [ "$UID" -eq 0 ] && [ -d "$elsewhere" ]; then
        data=$elsewhere
    fi
}

owner_of() { stat -L -c %U "$1"; }

# Sets $server_user. Servers never run as root: Postgres refuses to, and RabbitMQ does not need it. If there is data
# already, its owner stays the servers' user.
choose_server_user() {
    local path user
    if [ "$UID" -ne 0 ]; then
        server_user=$(id -un)
        return
    fi
    for path in "$dev_dir/data" "$dev_dir"; do
        [ -e "$path" ] || continue
        server_user=$(owner_of "$path")
        if [ "$server_user" != root ] && id "$server_user" >/dev/null 2>&1; then return; fi
    done
    for user in postgres rabbitmq nobody; do
        server_user=$user
        if id "$user" >/dev/null 2>&1; then return; fi
    done
}

# become_server COMMAND…: replaces this (sub)shell with the command. The command runs as the servers' user, without our
# locks, in a folder that this user can enter.
become_server() {
    cd /
    exec 8>&- 9>&-
    if [ "$UID" -ne 0 ]; then exec "$@"; fi
    # setpriv replaces itself with the command. su would stay as the parent process and open a login session, so it is
    # used only where setpriv does not work.
    if setpriv --reuid=0 --regid=0 --keep-groups true 2>/dev/null; then
        exec setpriv --reuid="$server_user" --regid="$(id -g "$server_user")" --init-groups "$@"
    fi
    # shellcheck disable=SC2016 # the inner shell expands it
    exec su -s /bin/sh "$server_user" -c 'exec "$0" "$@"' -- "$@"
}

# as_server COMMAND…: runs the command as the servers' user.
as_server() { (become_server "$@"); }

# write FILE: writes stdin to the file as the servers' user. An interruption leaves the old file, never half a file.
# shellcheck disable=SC2016 # the inner shell expands it
write() { as_server sh -c 'umask 077 && cat >"$0.new" && mv -f "$0.new" "$0"' "$1"; }

# Makes $dev_dir and $data.
make_places() {
    mkdir -p "$dev_dir/ports"
    dev_dir=$(cd -P "$dev_dir" && pwd)
    elsewhere=$(folder_elsewhere)
    choose_server_user
    local folder=$dev_dir/data
    # A copy of .dev/ has a link that leads nowhere or into the data of another checkout.
    if [ -L "$folder" ] && { [ "$(readlink "$folder")" != "$elsewhere" ] || [ ! -d "$folder/." ]; }; then
        rm -f "$folder"
    fi
    # Without .dev/data, the ports and passwords of servers that still run from an earlier .dev/ are lost. Stop them.
    if [ ! -e "$folder" ]; then
        locate_data
        crash_all
        if [ "$UID" -eq 0 ]; then rm -rf "$elsewhere"; fi
        mkdir -m 700 "$folder"
    fi
    if [ "$UID" -eq 0 ]; then
        if [ "$(owner_of "$folder")" != "$server_user" ]; then chown "$server_user" "$folder"; fi
        if [ ! -L "$folder" ] && ! as_server test -w "$folder"; then move_data "$folder"; fi
    elif [ ! -O "$folder" ]; then
        die 3 "$folder belongs to $(owner_of "$folder"): run ./dev as that user or as root, or set DEV_DIR"
    fi
    locate_data
}

# move_data FOLDER: moves the data to $elsewhere and leaves a link. It is called when the servers' user cannot reach the
# checkout, for example below /root.
move_data() {
    say "$server_user cannot reach $1: the data moves to $elsewhere"
    rm -rf "$elsewhere"
    mkdir -m 700 "$elsewhere" || die 3 "cannot create $elsewhere"
    find "$1" -mindepth 1 -maxdepth 1 -exec mv {} "$elsewhere/" \;
    chown "$server_user" "$elsewhere"
    rmdir "$1"
    ln -s "$elsewhere" "$1"
}
