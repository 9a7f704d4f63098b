# shellcheck shell=bash
#
# The commands that build and run grantonce: demo, test, faults, bench, fuzz. And sqlx, which describes the queries.

target_directory() {
    cargo metadata --format-version 1 --no-deps --locked | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

command_demo() {
    local target profile
    need_rust
    use_servers
    cd "$root"
    export SQLX_OFFLINE=true
    profile=${DEMO_PROFILE:-demo}
    case $profile in
    demo | release) ;;
    *) die 2 "DEMO_PROFILE must be demo or release, not $profile" ;;
    esac
    say "building with the profile $profile"
    [ "$profile" != demo ] || say "it builds fast and is not optimised: DEMO_PROFILE=release ./dev demo shows the speed of a release"
    run cargo build --profile "$profile" --locked --package grantonce --package grantonce-demo --bins >&2
    [ -z "$interrupted" ] || exit 130
    target=$(target_directory)
    run "$target/$profile/grantonce-demo" "$@"
}

command_test() {
    local program
    need_rust
    for program in browser promtool pgbouncer; do "find_$program" || install_or_explain "$program"; done
    use_servers
    cd "$root"
    export SQLX_OFFLINE=true
    AXE_CORE=${AXE_CORE:-$(axe_core)}
    [ -z "$AXE_CORE" ] || export AXE_CORE
    run cargo test --locked --workspace --features grantonce/failpoints "$@"
}

# The test starts servers of its own, because it crashes them.
command_faults() {
    [ $# -eq 0 ] || die 2 "faults takes no arguments. It reads FAULTS_SEED and FAULTS_ONLY from the environment"
    need_rust
    cd "$root"
    export SQLX_OFFLINE=true
    run cargo test --locked --features failpoints --test it -- --ignored --nocapture all_faults
}

command_bench() {
    need_rust
    case " $* " in *" --help "* | *" -h "*) ;; *) use_servers ;; esac
    cd "$root"
    export SQLX_OFFLINE=true
    run cargo bench --locked --bench bench -- "$@"
}

# Works with every toolchain: the coverage comes from a pass of the compiler. No sanitizer is needed, because the code
# forbids `unsafe`.
command_fuzz() {
    local targets=(webhooks messages requests answers) seconds=60 host name seeds
    case ${1:-all} in
    all) ;;
    webhooks | messages | requests | answers) targets=("$1") ;;
    *) die 2 "fuzz takes a target (${targets[*]} or all) and a number of seconds" ;;
    esac
    seconds=${2:-60}
    [[ $seconds =~ ^[1-9][0-9]{0,5}$ ]] || die 2 "fuzz: \"$seconds\" is not a number of seconds"
    need_rust
    cd "$root"
    host=$(rustc -vV | sed -n 's/^host: //p')
    export SQLX_OFFLINE=true RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module
        -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
        -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
    # With --target, cargo does not use these flags for build scripts.
    run cargo build --release --locked --manifest-path fuzz/Cargo.toml --target-dir fuzz/target --target "$host"
    for name in "${targets[@]}"; do
        [ -z "$interrupted" ] || exit 130
        say "fuzzing $name for $seconds s"
        mkdir -p "fuzz/corpus/$name" "fuzz/artifacts/$name"
        case $name in messages) seeds=contract/examples ;; *) seeds=fuzz/seeds/$name ;; esac
        run "fuzz/target/$host/release/$name" "fuzz/corpus/$name" "$seeds" -max_total_time="$seconds" -max_len=8192 \
            -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="fuzz/artifacts/$name/"
    done
}

# The query macros of sqlx ask a database that has exactly the migrations, and write the answers to files.
command_sqlx() {
    local is_check='' file target
    [ -d "$root/migrations" ] || die 1 "no migrations/ in $root"
    case $# in
    0) ;;
    *)
        [ "$*" = --check ] || die 2 "sqlx takes only --check"
        is_check=yes
        ;;
    esac
    need_rust
    start postgres
    unlock
    cd "$root"
    scratch_database=sqlx_$(random_text)
    private_psql -d postgres -qc "create database $scratch_database"
    for file in migrations/*.sql; do
        case $file in *.down.sql) continue ;; esac
        private_psql -d "$scratch_database" -q1 -f "$file" >&2 || die 1 "$file failed"
    done
    scratch_dir=$(mktemp -d)
    # A target folder of its own: the usual one holds code that was compiled with .sqlx/. Our crate is cleaned, because
    # the macros run only when it is compiled again.
    target=$(target_directory)
    export CARGO_TARGET_DIR=${target:-$root/target}/sqlx
    cargo clean --locked -p grantonce >/dev/null 2>&1 || :
    DATABASE_URL=$(database_url)
    export DATABASE_URL=${DATABASE_URL%/*}/$scratch_database SQLX_OFFLINE=false SQLX_OFFLINE_DIR=$scratch_dir
    run cargo check --locked --all-targets --features failpoints >&2
    if [ -n "$is_check" ]; then
        diff -rq .sqlx "$scratch_dir" >&2 || die 1 ".sqlx/ is out of date. To write it again: ./dev sqlx"
        say ".sqlx/ is up to date"
        return
    fi
    mkdir -p .sqlx
    rm -f .sqlx/query-*.json
    find "$scratch_dir" -name 'query-*.json' -exec cp {} .sqlx/ \;
    say "wrote $(find .sqlx -name 'query-*.json' | wc -l) queries to .sqlx/"
}
