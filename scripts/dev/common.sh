# shellcheck shell=bash
#
# Small helpers that every other file of ./dev uses: messages, waiting, random text.

# Messages go to stderr. Stdout carries only the result of a command, for example of `env` or `demo --json`.
if [ -t 2 ] && [ -z "${NO_COLOR:-}" ]; then
    bold=$'\e[1m' red=$'\e[31m' plain=$'\e[0m'
else
    bold='' red='' plain=''
fi

say() { printf '%sdev:%s %s\n' "$bold" "$plain" "$*" >&2; }

# die EXIT_CODE MESSAGE…: prints the message and ends the script. `./dev help` lists the exit codes.
die() {
    local code=$1
    shift
    printf '%sdev:%s %s\n' "$red" "$plain" "$*" >&2
    exit "$code"
}

# has PROGRAM: succeeds when the program is in PATH.
has() { command -v "$1" >/dev/null 2>&1; }

# wait_until SECONDS COMMAND…: repeats the command until it succeeds. Fails after that many seconds.
wait_until() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.1
    done
}

# Prints 32 random hexadecimal digits.
random_text() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }
