cp -a /run/hpcbinder/step/repo package
R CMD INSTALL --library="$library" package </dev/null || {
    echo "hpcbinder: the repository's own R package (DESCRIPTION) could not be installed: see above." >&2
    exit 1
}
settle "$library"
