# Makes a Debian image of a registry what a bootstrapped base is: its packages, nothing of this moment, bytecode that
# does not look at times.
files=/run/hpcbinder/step/files
work=$PWD
# Debian's images before bookworm have it, and would name every package twice.
rm -f /etc/apt/sources.list
mkdir -p "$work/lists/partial" "$work/cache"
set -- -q -y -o Dir::State::Lists="$work/lists" \
    -o Dir::Cache::pkgcache="$work/cache/pkgcache.bin" -o Dir::Cache::srcpkgcache="$work/cache/srcpkgcache.bin" \
    -o APT::Sandbox::User=root -o APT::Install-Recommends=false -o Dpkg::Use-Pty=0 -o Acquire::Retries=3
apt-get "$@" update
# shellcheck disable=SC2046
if ! apt-get "$@" install -- $(cat "$files/packages"); then
    echo "hpcbinder: the packages that every base has could not be installed into this image of a registry (bases.source)." >&2
    exit 1
fi
apt-get "$@" clean

has=$(/usr/bin/python3 -I -S -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [ "$has" != "$(cat "$files/python")" ]; then
    echo "hpcbinder: this image has Python $has as /usr/bin/python3, not Debian's $(cat "$files/python")." >&2
    exit 1
fi
PYTHONHASHSEED=0 /usr/bin/python3 -I -S -B -m compileall -q -f --invalidation-mode unchecked-hash \
    /usr/lib/python3 "/usr/lib/python$has" >/dev/null || :

rm -rf /etc/.pwd.lock /etc/group- /etc/gshadow- /etc/passwd- /etc/shadow- /etc/subgid- /etc/subuid- /etc/machine-id \
    /var/log/apt/* /var/log/*.log /var/log/btmp /var/log/faillog /var/log/lastlog /var/log/wtmp \
    /var/cache/debconf/*-old /var/cache/ldconfig/aux-cache /var/cache/apt/*.bin /var/cache/apt/archives/lock \
    /var/lib/apt/lists/*_* /var/lib/apt/lists/lock /var/lib/dbus/machine-id /var/lib/dpkg/*-old /var/lib/dpkg/lock*
timeless /
