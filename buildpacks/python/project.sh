# Installs the repository's own project: from a copy in memory, or in place (-e) in /srv/repo.
files=/run/hpcbinder/step/files
uv=/run/hpcbinder/tools/uv
python=/opt/env/bin/python
errors=/run/hpcbinder/work/errors
export UV_CACHE_DIR=/opt/env/.uv-cache
trap 'rm -rf /opt/env/.uv-cache' EXIT
copy=/run/hpcbinder/work/source
if grep -q '^plain' "$files/targets"; then cp -a /run/hpcbinder/step/repo "$copy"; fi

set --
tab=$(printf '\t')
while IFS="$tab" read -r how path extras; do
    case $how in
    editable) set -- "$@" --editable "/srv/repo/$path$extras" ;;
    plain) set -- "$@" "$copy/$path$extras" ;;
    esac
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

# uv's note of when it looked at the sources serves nobody in an image.
for folder in /opt/env/lib/python3.*/site-packages/*.dist-info; do
    if [ -e "$folder/uv_cache.json" ]; then
        rm "$folder/uv_cache.json"
        sed -i '/\/uv_cache\.json,/d' "$folder/RECORD"
    fi
done
# All that is older is compiled already.
find /opt/env/lib -name '*.py' -newer /run/hpcbinder/work/.begin |
    PYTHONHASHSEED=0 "$python" -s -B -m compileall -q -f --invalidation-mode unchecked-hash -i - >/dev/null || :
mkdir -p /opt/hpcbinder/packages
"$uv" pip list --quiet --python "$python" --format json >/opt/hpcbinder/packages/python.json
rm -rf /opt/env/.uv-cache
settle /opt
if [ -d /srv/repo ]; then settle /srv; fi
