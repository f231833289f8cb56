# Debian packages, all in one transaction. Lists, archives and logs stay out of the image.
work=$PWD
ready=/run/hpcbinder/cache/apt
mkdir -p "$work/lists/partial" "$work/cache"
set -- -q -y \
    -o Dir::Cache::pkgcache="$work/cache/pkgcache.bin" -o Dir::Cache::srcpkgcache="$work/cache/srcpkgcache.bin" \
    -o APT::Sandbox::User=root -o APT::Install-Recommends=false -o Dpkg::Use-Pty=0
if [ -d "$ready/lists" ]; then
    # An image that is assembled: all was fetched and checked beforehand, and nobody is asked.
    set -- "$@" --no-download -o Dir::State::Lists="$ready/lists" -o Dir::Cache::Archives="$ready/archives" \
        -o Dir::Etc::SourceList="$ready/sources.list" -o Dir::Etc::SourceParts=/dev/null
else
    set -- "$@" -o Dir::State::Lists="$work/lists" -o Acquire::Retries=3
    apt-get "$@" update
fi
# The names were checked to be names: no options, no patterns.
# shellcheck disable=SC2046
if ! apt-get "$@" install -- $(cat /run/hpcbinder/step/files/packages); then
    echo "hpcbinder: apt could not install what is asked for in apt.txt (or by a buildpack): see its message above." >&2
    exit 1
fi

apt-get "$@" clean
rm -rf /var/log/apt /var/log/dpkg.log /var/log/alternatives.log /var/cache/debconf/*-old /var/lib/dpkg/*-old \
    /var/cache/ldconfig/aux-cache /var/cache/apt/archives/lock
mkdir -p /opt/hpcbinder/packages /var/log/apt
{
    printf '['
    # Names and versions have no character that JSON would have to escape (Debian policy 5.6).
    dpkg-query -W -f '{"name": "${Package}", "version": "${Version}"}\n' | LC_ALL=C sort | sed '$!s/$/,/'
    printf ']\n'
} >/opt/hpcbinder/packages/debian.json
timeless /
