# Runs the repository's postBuild, in the repository's folder.
step=/run/hpcbinder/step
path=$(cat "$step/files/path")
interpreter=$(cat "$step/files/interpreter")
cd /srv/repo
rc=0
if [ -n "$interpreter" ]; then
    "$interpreter" "./$path" </dev/null || rc=$?
else
    if [ ! -x "./$path" ]; then chmod 755 "./$path"; fi
    "./$path" </dev/null || rc=$?
fi
if [ "$rc" -ne 0 ]; then
    echo "hpcbinder: postBuild ended with status $rc." >&2
    exit "$rc"
fi

# Any user of the image may read what it made; what it installed is part of the record.
readable /srv/repo /opt/env
if [ -x /opt/env/bin/python ]; then
    mkdir -p /opt/hpcbinder/packages
    /run/hpcbinder/tools/uv pip list --quiet --python /opt/env/bin/python --format json >/run/hpcbinder/work/python.json
    cmp -s /run/hpcbinder/work/python.json /opt/hpcbinder/packages/python.json ||
        cp /run/hpcbinder/work/python.json /opt/hpcbinder/packages/python.json
fi
timeless /
