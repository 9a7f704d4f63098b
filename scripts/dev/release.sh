# shellcheck shell=bash
#
# The command release: the deployed binary, its bill of materials (SBOM), and checksums.

cargo_cyclonedx_version=0.5.9

# Sets $binary. The same sources and the same Rust and C compilers give the same bytes, in every folder: the binary has
# no time in it, and names of folders are replaced. The variables take the place of flags that the caller may have set.
build_binary() {
    local cargo_home=${CARGO_HOME:-$HOME/.cargo} sysroot separator=$'\x1f'
    need_rust
    cd "$root"
    sysroot=$(rustc --print sysroot)
    export SQLX_OFFLINE=true
    export CARGO_ENCODED_RUSTFLAGS="--remap-path-prefix=$sysroot=/rust${separator}--remap-path-prefix=$cargo_home=/cargo${separator}--remap-path-prefix=$root=/grantonce"
    export CFLAGS="-ffile-prefix-map=$cargo_home=/cargo -ffile-prefix-map=$root=/grantonce"
    run cargo build --profile dist --locked --bin grantonce >&2 || die 1 "the build failed"
    [ -z "$interrupted" ] || exit 130
    binary=$(target_directory)/dist/grantonce
}

command_release() {
    local version folder name
    if [ "$*" = --binary ]; then
        build_binary
        echo "$binary"
        return
    fi
    [ $# -eq 0 ] || die 2 "release takes only --binary"
    cd "$root"
    version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
    grep -qF "## [$version]" CHANGELOG.md || die 1 "CHANGELOG.md has no section for $version"
    [ -z "$(git status --porcelain)" ] || die 1 "there are changes that are not committed"
    need_tool cargo-cyclonedx "$cargo_cyclonedx_version"
    build_binary
    folder=${binary%/dist/grantonce}/release-$version
    name=grantonce-$version-$(rustc -vV | sed -n 's/^host: //p')
    rm -rf "$folder" && mkdir "$folder"
    cp "$binary" "$folder/$name"
    write_sbom "$folder/$name.cdx.json"
    (cd "$folder" && sha256sum -- * >SHA256SUMS && cat SHA256SUMS)
    say "the release is in $folder"
}

# write_sbom FILE: writes the SBOM as CycloneDX 1.5: every crate in the binary, with its licence and its checksum. The
# tool writes one file into the folder of each workspace member; only the one of grantonce is kept.
write_sbom() {
    local scratch=grantonce.release.sbom
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) run "$tool" cyclonedx --quiet --format json --spec-version 1.5 \
        --no-build-deps --override-filename "$scratch" >&2 || die 1 "cannot write the SBOM"
    sed "s#path+file://$root#path+file:///grantonce#g" "$scratch.json" >"$1"
    rm -f "$scratch.json" ./*/"$scratch.json"
}
