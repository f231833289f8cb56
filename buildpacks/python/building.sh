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
        if "$uv" pip install --quiet --python "$python" "$@" -c "$limits" -c "$files/locked.txt" 2>"$errors"; then
            cat "$errors" >&2
            return
        elif grep -q 'No solution found' "$errors"; then
            cat "$errors" >&2
            echo "hpcbinder: what is built needs other versions than were resolved before; looking for them." >&2
        else
            failed
        fi
    fi
    "$uv" pip install --quiet --python "$python" "$@" -c "$limits" 2>"$errors" || failed
    cat "$errors" >&2
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

