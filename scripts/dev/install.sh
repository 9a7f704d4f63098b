# shellcheck shell=bash
#
# Programs that are missing. On Debian and its relatives apt-get installs them; elsewhere a message names them.

# The tests drive a browser. testkit/src/browser.rs looks for the same names.
find_browser() { has chromedriver && { has chromium || has chromium-browser || has google-chrome; }; }

# The tests check the alert rules with it. No other program of the package Prometheus runs.
find_promtool() { has promtool; }

# The tests connect through it. tests/it/support/pgbouncer.rs looks in the same places.
find_pgbouncer() { has pgbouncer || [ -x /usr/sbin/pgbouncer ]; }

find_flock() { has flock; }

# The console's tests look with it for faults of accessibility. npm fetches it once, in this version and no other. Where npm is
# missing, the test says that it did not look.
axe_version=4.11.0
axe_sha256=e9e5863c33a874f09bc01acd9234b7e3c871479f5eef8802fa582544465e6d01

# Prints the path of axe.min.js; nothing where it cannot be had.
axe_core() {
    local folder=$dev_dir/axe-core-$axe_version file
    file=$folder/package/axe.min.js
    if [ ! -f "$file" ] && has npm; then
        mkdir -p "$folder"
        (cd "$folder" && npm pack --silent "axe-core@$axe_version" && tar xzf "axe-core-$axe_version.tgz") >&2 || :
    fi
    [ -f "$file" ] || return 0
    echo "$axe_sha256  $file" | sha256sum --check --status || die 1 "$file is not axe-core $axe_version: remove $folder"
    echo "$file"
}

find_shellcheck() { has shellcheck; }

# install_or_explain postgres|rabbitmq|browser|promtool|pgbouncer|flock|shellcheck: installs it, or ends with a message that says
# what to install.
install_or_explain() {
    local package sudo=''
    case $1 in
    postgres) package=postgresql ;;
    rabbitmq) package=rabbitmq-server ;;
    browser) package='chromium chromium-driver' ;;
    promtool) package=prometheus ;;
    pgbouncer) package=pgbouncer ;;
    flock) package=util-linux ;;
    shellcheck) package=shellcheck ;;
    esac
    has apt-get || die 3 "$1 is missing, and ./dev can install only with apt-get. Install what Debian calls: $package. ./dev needs Postgres (15 or newer), RabbitMQ and flock; ./dev test needs Chromium with chromedriver, promtool and PgBouncer too"
    if [ "$UID" -ne 0 ]; then
        if ! has sudo || { [ ! -t 0 ] && ! sudo -n true 2>/dev/null; }; then
            die 3 "$1 is missing. As root: apt-get install $package"
        fi
        sudo=sudo
    fi
    say "installing $package"
    # shellcheck disable=SC2086 # several packages are several words
    install_with_apt "$sudo" $package >&2 || die 3 "apt-get could not install $package"
    "find_$1" || die 3 "apt-get installed $package, but ./dev still cannot find $1"
}

# Debian starts a service when its package is installed, unless the program policy-rc.d forbids it. Our servers are
# private, so the packaged services must run neither now nor after the next boot.
policy=/usr/sbin/policy-rc.d
policy_mark='Made by grantonce ./dev for the time of one installation.'
forbade_services=''

allow_services() {
    case $forbade_services in
    '') ;;
    sudo) sudo rm -f "$policy" ;;
    root) rm -f "$policy" ;;
    esac
    forbade_services=''
}

install_with_apt() { # sudo? PACKAGE…
    local sudo=$1 status=0
    shift
    if [ -z "$(find /var/lib/apt/lists -maxdepth 1 -name '*Packages*' -mtime -1 2>/dev/null | head -n 1)" ]; then
        $sudo apt-get -q -o DPkg::Lock::Timeout=300 update || :
    fi
    if [ ! -e "$policy" ] || grep -qs "$policy_mark" "$policy"; then
        forbade_services=${sudo:-root}
        printf '#!/bin/sh\n# %s\nexit 101\n' "$policy_mark" | $sudo tee "$policy" >/dev/null
        $sudo chmod 755 "$policy"
    fi
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@" || status=$?
    allow_services
    case $1 in
    postgresql) disable_services "$sudo" postgresql ;;
    rabbitmq-server) disable_services "$sudo" rabbitmq-server epmd.socket epmd.service ;;
    prometheus) disable_services "$sudo" prometheus ;;
    pgbouncer) disable_services "$sudo" pgbouncer ;;
    esac
    return "$status"
}

disable_services() { # sudo? SERVICE…
    local sudo=$1 service
    shift
    [ -d /run/systemd/system ] || return 0
    for service in "$@"; do $sudo systemctl disable --now "$service" >/dev/null 2>&1 || :; done
}

need_rust() {
    has cargo || die 2 "cargo is missing: install Rust (https://rustup.rs)"
    has cc || has clang || has gcc || die 2 "a C compiler is missing, and Rust links with it. On Debian: apt-get install build-essential"
}
