# Sourced by scripts/demo and scripts/test: the few things that must be there before Python can take over.
# Installs named Debian packages that are missing, and the project into .venv of this checkout; changes nothing else.

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# Run a command as root: directly, or through sudo.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo -- "$@"; else
        die "this needs root or sudo (to install packages and to start a container engine)"; fi
}

# install_packages NAME...: those that are missing.
install_packages() {
    missing=
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    say "installing Debian packages:$missing"
    as_root apt-get -qq update
    # shellcheck disable=SC2086  # a list of names of ours
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $missing >/dev/null
}

# install_project EXTRA: .venv with the project, editable; again only when pyproject.toml changed.
install_project() {
    stamp=.venv/installed-$1
    if [ -f "$stamp" ] && cmp -s pyproject.toml "$stamp"; then return 0; fi
    # The system's Python, so that kernels of this checkout work for other users too (a private one may be unreadable).
    [ -x .venv/bin/python ] || /usr/bin/python3 -m venv .venv
    say "installing the project into .venv"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[$1]"
    cp pyproject.toml "$stamp"
}

[ -x /usr/bin/apt-get ] || die "this installs Debian packages; on other systems: pip install . (see README.md)"
install_packages python3-venv git ca-certificates
