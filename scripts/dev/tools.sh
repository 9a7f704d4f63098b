# shellcheck shell=bash
#
# The commands that need a tool of their own: docs, deny, scripts. Cargo builds the tools once, in the
# version named here, into target/tools/.

mdbook_version=0.5.4
cargo_deny_version=0.20.2

# need_tool CRATE VERSION: builds the tool if it is missing, and sets $tool to its program. A debug build is fast enough
# and takes about a minute of two cores.
need_tool() {
    local folder
    need_rust
    cd "$root"
    folder=$(target_directory)/tools/$1-$2
    tool=$folder/bin/$1
    if [ -x "$tool" ]; then return; fi
    say "building $1 $2, once; this takes about a minute"
    run env -u CARGO_TARGET_DIR CARGO_PROFILE_DEV_DEBUG=false \
        cargo install --quiet "$1" --version "=$2" --locked --debug --root "$folder" >&2 || die 1 "cannot build $1 $2"
    [ -z "$interrupted" ] || exit 130
}

# mdBook only warns about some faults, such as a link to a page that is missing. Here a warning is a failure.
command_docs() {
    local printed
    need_tool mdbook "$mdbook_version"
    if [ "$*" != --build ]; then
        run "$tool" serve docs "$@"
        return
    fi
    printed=$("$tool" build docs 2>&1) || die 1 "$printed"
    printf '%s\n' "$printed" >&2
    case $printed in *WARN* | *ERROR*) die 1 "mdBook warns: correct the pages" ;; esac
    say "the book is in target/book/index.html"
}

# The database of advisories is a repository at GitHub. If it cannot be fetched, the other checks still run, and a message
# says that advisories were not checked.
command_deny() {
    [ $# -eq 0 ] || die 2 "deny takes no arguments"
    need_tool cargo-deny "$cargo_deny_version"
    if run timeout 120 "$tool" --locked fetch db >&2; then
        run "$tool" --locked --workspace check --hide-inclusion-graph
    else
        say "ADVISORIES ARE NOT CHECKED: the database at https://github.com/RustSec/advisory-db cannot be fetched"
        run "$tool" --locked --workspace check --hide-inclusion-graph bans licenses sources
    fi
}

command_scripts() {
    [ $# -eq 0 ] || die 2 "scripts takes no arguments"
    find_shellcheck || install_or_explain shellcheck
    cd "$root"
    # `dev` reads the files in scripts/dev/, and -a reports on these too.
    run shellcheck -a dev .ci/run scripts/docs-links bench/peers/setup deploy/*.sh
}
