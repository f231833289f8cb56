# Debian packages, all in one transaction. Lists, archives and logs stay out of the image.
work=$PWD
ready=/run/hpcbinder/cache/apt
mkdir -p "$work/lists/partial" "$work/cache"
set -- \
    -o Dir::Cache::pkgcache="$work/cache/pkgcache.bin" -o Dir::Cache::srcpkgcache="$work/cache/srcpkgcache.bin" \
    -o APT::Sandbox::User=root -o APT::Install-Recommends=false -o Dpkg::Use-Pty=0
if [ -d "$ready/lists" ]; then
    # An image that is assembled: all was fetched and checked beforehand, and nobody is asked.
    set -- "$@" -o APT::Get::Download=false -o Dir::State::Lists="$ready/lists" -o Dir::Cache::Archives="$ready/archives" \
        -o Dir::Etc::SourceList="$ready/sources.list" -o Dir::Etc::SourceParts=/dev/null
else
    set -- "$@" -o Dir::State::Lists="$work/lists" -o Acquire::Retries=3
    apt-get -q -y "$@" update
fi
# The names were checked to be names, without options; the shell is not to look for files by their patterns.
set -f
# shellcheck disable=SC2046
if ! apt-get -q -y "$@" install -- $(cat /run/hpcbinder/step/files/packages); then
    echo "hpcbinder: apt could not install what is asked for in apt.txt (or by a buildpack): see its message above." >&2
    # What is near to a name that is not there only the lists tell.
    apt-cache "$@" pkgnames >"$work/names" || :
    apt-cache "$@" madison $(sed 's/=.*//' /run/hpcbinder/step/files/packages) >"$work/versions" 2>/dev/null || :
    if command -v python3 >/dev/null; then
        python3 /run/hpcbinder/step/files/near.py "$work" /run/hpcbinder/step/files/packages >&2 || :
    fi
    exit 1
fi
set +f

apt-get -q "$@" clean
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
