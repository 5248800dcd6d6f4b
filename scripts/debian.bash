# Debian's packages of any suite and architecture, without touching this machine's own. Sourced by scripts/kernels and
# scripts/arm64, which set root, the project's folder, and store, the folder that apt keeps its lists in.
# shellcheck shell=bash
: "${root:?}" "${store:?}"

# private_apt <suite> <architecture> <command...>: an apt that knows this suite and nothing of this machine but its way
# to the net. Signatures are checked, the age of the lists is not: a mirror may be a snapshot.
private_apt() {
    local dir=$store/apt/$1-$2
    env "$3" -q -o Dir::Etc::SourceList="$dir/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
        -o Dir::State="$dir" -o Dir::State::status=/dev/null -o Dir::Cache="$dir" \
        -o APT::Architecture="$2" -o APT::Architectures="$2" -o APT::Sandbox::User=root \
        -o Acquire::Languages=none -o Acquire::Check-Valid-Until=false "${@:4}"
}

# list_suite <suite> <architecture>: what there is, as of now.
list_suite() {
    local dir=$store/apt/$1-$2 keyring=/usr/share/keyrings/debian-archive-keyring.gpg from
    from=$("$root/scripts/mirror") || exit 1
    mkdir -p "$dir/lists/partial" "$dir/archives/partial"
    printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$from" "$1" >"$dir/sources.list"
    private_apt "$1" "$2" apt-get update >"$dir/log" 2>&1 || { cat "$dir/log" >&2; die "apt-get update failed for $1"; }
}

# unpack <suite> <architecture> <dir> <package...>: these and all that they depend on, their files only: no script of
# theirs runs, so the architecture need not be this machine's.
unpack() {
    local dir=$store/apt/$1-$2 deb
    list_suite "$1" "$2"
    private_apt "$1" "$2" apt-get install -y --download-only --no-install-recommends "${@:4}" >"$dir/log" 2>&1 ||
        { cat "$dir/log" >&2; die "cannot download ${*:4} of $1 for $2"; }
    empty_root "$3"
    for deb in "$dir"/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -C "$3"
    done
    rm -f "$dir"/archives/*.deb
}

# empty_root <dir>: /bin, /lib and so on are links into /usr, as Debian has them.
empty_root() {
    local name
    mkdir -p "$1/tmp"
    for name in bin sbin lib lib64; do
        mkdir -p "$1/usr/$name"
        ln -s "usr/$name" "$1/$name"
    done
}
