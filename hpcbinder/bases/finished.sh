ln -s "python$version" "$target/bin/python${version%%.*}"
ln -s "python${version%%.*}" "$target/bin/python"
case $version in
# 2.7 has no -I. Old ones cannot make bytecode that does not look at times: their files get the one that all have.
2.7) isolated="-E -s" needs="bz2, ctypes, hashlib, sqlite3, ssl, zlib" bytecode="" ;;
3.5 | 3.6) isolated=-I needs="bz2, ctypes, hashlib, lzma, sqlite3, ssl, zlib" bytecode="-j 0" ;;
*) isolated=-I needs="bz2, ctypes, hashlib, lzma, sqlite3, ssl, zlib"
    bytecode="-j 0 --invalidation-mode unchecked-hash" ;;
esac
python() {
    # shellcheck disable=SC2086
    PYTHONHASHSEED=0 "$target/bin/python$version" $isolated -S -B "$@"
}
# An environment of 2.7 has a copy of the program, which does not find the libraries beside the original.
if [ "$version" = 2.7 ] || ! python -c "import $needs" 2>/dev/null; then
    # It names no place for its own libraries.
    if [ -n "$(find "$target/lib" -maxdepth 1 -name 'lib*.so*')" ]; then
        mkdir -p /etc/ld.so.conf.d
        printf '%s\n' "$target/lib" >"/etc/ld.so.conf.d/zz-python$version.conf"
        ldconfig
        rm -f /var/cache/ldconfig/aux-cache
    fi
fi
if ! python -c "import $needs" 2>errors; then
    cat errors >&2
    echo "hpcbinder: Python $version does not run on this base, or lacks a module that notebooks need: see the message" \
        "above." >&2
    exit 1
fi
find "$target" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
# shellcheck disable=SC2086
python -m compileall -q -f $bytecode "$target/lib/python$version" >/dev/null || [ "$version" = 2.7 ]
settle /opt
timeless /etc /var/cache/ldconfig
