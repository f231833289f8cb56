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
install "$@"
finish
if [ -d /srv/repo ]; then settle /srv; fi
