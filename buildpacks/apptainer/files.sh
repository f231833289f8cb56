# What %files copies, as Apptainer does it (cp -fLr), before %post.
tab=$(printf '\t')
while IFS="$tab" read -r from to; do
    mkdir -p "$(dirname "$to")"
    cp -fLr "/run/hpcbinder/step/repo/$from" "$to"
    readable "$to"
done </run/hpcbinder/step/files/files
timeless /
