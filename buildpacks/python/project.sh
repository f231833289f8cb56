# Installs the repository's own project: from a copy in memory, or in place (-e) in /srv/repo.
files=/run/hpcbinder/step/files
uv=/run/hpcbinder/tools/uv
python=/opt/env/bin/python
errors=/run/hpcbinder/work/errors
export UV_CACHE_DIR=/opt/env/.uv-cache
trap 'rm -rf /opt/env/.uv-cache' EXIT
if [ "$(cat "$files/into-repo")" = yes ]; then
    source=/srv/repo
else
    source=/run/hpcbinder/work/source
    cp -a /run/hpcbinder/step/repo "$source"
fi

set --
tab=$(printf '\t')
while IFS="$tab" read -r how path extras; do
    if [ "$how" = editable ]; then set -- "$@" --editable "$source/$path$extras"; else set -- "$@" "$source/$path$extras"; fi
done <"$files/targets"
if [ "$(cat "$files/dependencies")" = yes ]; then
    set -- "$@" -r "$files/always.txt" -r "$files/requirements.txt" -c "$files/constraints.txt"
else
    set -- "$@" --no-deps
fi
if ! "$uv" pip install --quiet --python "$python" "$@" 2>"$errors"; then
    cat "$errors" >&2
    if ! command -v cc >/dev/null && grep -qiE 'gcc|g\+\+|compiler|Python\.h' "$errors"; then
        echo "hpcbinder: building it takes a compiler: write build-essential and python3-dev into apt.txt." >&2
    fi
    exit 1
fi
cat "$errors" >&2

# What is new has a time; all else is compiled already.
find /opt/env/lib -name '*.py' -newermt "@$SOURCE_DATE_EPOCH" |
    "$python" -I -m compileall -q --invalidation-mode unchecked-hash -i - >/dev/null || :
mkdir -p /opt/hpcbinder/packages
"$uv" pip list --quiet --python "$python" --format json >/opt/hpcbinder/packages/python.json
rm -rf /opt/env/.uv-cache
settle /opt
