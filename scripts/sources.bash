# The servers' sources, as Debian's suites have them now. Sourced by scripts/layouts and scripts/commands, which set work,
# a temporary folder, and root, the project's, and say what goes wrong.
# shellcheck shell=bash
: "${work:?}" "${root:?}"

mirror=$("$root/scripts/mirror")
security_mirror=$("$root/scripts/mirror" security)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
# As in scripts/servers; security updates keep the version's number and may not keep its layout.
suites=(bullseye bookworm bookworm-backports trixie forky sid experimental)
security=(bullseye bookworm trixie)

# apt with lists and settings of its own: this machine's are left alone.
write_apt_settings() {
    mkdir -p "$work/apt/lists/partial" "$work/apt/cache/archives/partial" "$work/apt/state"
    local suite
    for suite in "${suites[@]}"; do
        printf 'deb-src [signed-by=%s] %s %s main\n' "$keyring" "$mirror" "$suite"
    done >"$work/apt/sources"
    for suite in "${security[@]}"; do
        printf 'deb-src [signed-by=%s] %s %s-security main\n' "$keyring" "$security_mirror" "$suite"
    done >>"$work/apt/sources"
    cat >"$work/apt/conf" <<END
Dir::Etc::sourcelist "$work/apt/sources";
Dir::Etc::sourceparts "-";
Dir::Etc::preferencesparts "-";
Dir::State "$work/apt/state";
Dir::State::lists "$work/apt/lists";
Dir::State::status "/var/lib/dpkg/status";
Dir::Cache "$work/apt/cache";
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
APT::Sandbox::User "$(id -un)";
END
    export APT_CONFIG=$work/apt/conf
}

# Each source package of each suite, unpacked into a folder of its own. A mirror may list what it no longer has.
fetch_sources() {
    local name version count=0
    write_apt_settings
    apt-get update -qq >"$work/log" 2>&1 || { cat "$work/log" >&2; die "cannot get the package lists from $mirror"; }
    while read -r name version; do
        count=$((count + 1))
        mkdir -p "$work/source/$count"
        say "fetching $name $version"
        (cd "$work/source/$count" && apt-get source -qq --only-source "$name=$version") >"$work/log" 2>&1 ||
            say "this mirror does not have $name $version"
    done < <(apt-cache showsrc redis valkey 2>/dev/null |
        awk '/^Package:/ { name = $2 } /^Version:/ { print name, $2 }' | sort -u)
}

# "valkey 9.1.2", as the server itself says it.
version_of() {
    sed -nE 's/^#define (VALKEY|REDIS)_VERSION "(.*)"/\L\1 \2/p' "$1/src/version.h" | sort | tail -n 1
}
