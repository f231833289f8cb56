# Runs %post, as Apptainer does: by its shell, which ends at the first error, in the root folder.
step=/run/hpcbinder/step
path=$(cat "$step/files/path")
rc=0
(cd / && "$(cat "$step/files/shell")" -e "$step/files/post" </dev/null) || rc=$?
if [ "$rc" -ne 0 ]; then
    echo "hpcbinder: %post of $path ended with status $rc (line numbers above are those of $path)." >&2
    exit "$rc"
fi

# What it installed is part of the record, and any user of the image may read it.
find /var/lib/apt/lists /var/cache/apt -type f -delete
rm -rf /var/log/apt /var/log/dpkg.log /var/log/alternatives.log /var/cache/debconf/*-old /var/lib/dpkg/*-old
mkdir -p /var/log/apt /opt/hpcbinder/packages
readable /opt /usr/local /srv
{
    printf '['
    dpkg-query -W -f '{"name": "${Package}", "version": "${Version}"}\n' | LC_ALL=C sort | sed '$!s/$/,/'
    printf ']\n'
} >/opt/hpcbinder/packages/debian.json
if [ -x /opt/env/bin/python ]; then
    /run/hpcbinder/tools/uv pip list --quiet --python /opt/env/bin/python --format json >/opt/hpcbinder/packages/python.json
fi
timeless /
