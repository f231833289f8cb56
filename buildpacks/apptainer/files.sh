# What %files copies, as Apptainer does it (cp -fLr), before %post. Symlinks lead to what the step reads of the
# repository (see pack.py), and no login is here: from the first line on, programs may be the repository's.
tab=$(printf '\t')
while IFS="$tab" read -r from to; do
    mkdir -p "$(dirname "$to")"
    cp -fLr "/run/hpcbinder/step/repo/$from" "$to"
    readable "$to"
done </run/hpcbinder/step/files/files
timeless /
