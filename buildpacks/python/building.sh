# For steps that build packages, and so run code of the repository's choosing.
# A cache on disk for this step alone: a large package does not fit into memory.
export UV_CACHE_DIR=/opt/env/.uv-cache
trap 'rm -rf /opt/env/.uv-cache' EXIT
errors=/run/hpcbinder/work/errors

# install_packages ARGUMENT...: with the versions of the lock, if there is one. What is built may need others: only its build
# tells what it depends on.
install_packages() {
    limits="$files/constraints.txt"
    if [ -e "$files/locked.txt" ]; then
        if install "$@" -c "$limits" -c "$files/locked.txt"; then
            cat "$errors" >&2
            return
        elif grep -q 'No solution found' "$errors"; then
            cat "$errors" >&2
            echo "hpcbinder: what is built needs other versions than were resolved before; looking for them." >&2
        else
            failed
        fi
    fi
    install "$@" -c "$limits" || failed
    cat "$errors" >&2
}

# install ARGUMENT...: as of the plan's date, if it has one and if that is possible.
install() {
    if [ -z "${UV_EXCLUDE_NEWER:-}" ]; then
        "$uv" pip install --quiet --python "$python" "$@" 2>"$errors"
    elif "$uv" pip install --quiet --python "$python" $(undated) "$@" 2>"$errors"; then
        return
    elif grep -q -e 'exclude-newer' -e 'missing an upload date' "$errors"; then
        echo "hpcbinder: as of $UV_EXCLUDE_NEWER not all that this needs was there, or the package index does not say" \
            "when its files were uploaded: taking the newest versions." >&2
        env -u UV_EXCLUDE_NEWER "$uv" pip install --quiet --python "$python" "$@" 2>"$errors"
    else
        return 1
    fi
}

undated() {
    for name in ${HPCBINDER_UNDATED:-}; do printf '%s %s=false ' --exclude-newer-package "$name"; done
}

failed() {
    cat "$errors" >&2
    if ! command -v cc >/dev/null && grep -qiE 'gcc|g\+\+|compiler|Python\.h' "$errors"; then
        echo "hpcbinder: building a package takes a compiler: write build-essential and python3-dev (and the" \
            "libraries it needs) into apt.txt, or ask for a version that has a wheel." >&2
    fi
    exit 1
}

finish() {
    compile_bytecode
    mkdir -p /opt/hpcbinder/packages
    "$uv" pip list --quiet --python "$python" --format json >/opt/hpcbinder/packages/python.json
    rm -rf /opt/env/.uv-cache /opt/env/.lock
    settle /opt
}

