# Installs the repository's own project: from a copy in memory, or in place (-e) in /srv/repo.
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
if [ -e "$files/requirements.txt" ]; then
    install_packages "$@" -r "$files/always.txt" -r "$files/requirements.txt"
    fix_kernel
else
    install --no-deps "$@" || failed
    cat "$errors" >&2
fi

# uv's note of when it looked at the sources serves nobody in an image.
for folder in /opt/env/lib/python3.*/site-packages/*.dist-info; do
    if [ -e "$folder/uv_cache.json" ]; then
        rm "$folder/uv_cache.json"
        sed -i '/\/uv_cache\.json,/d' "$folder/RECORD"
    fi
done
finish
if [ -d /srv/repo ]; then settle /srv; fi
