# An interpreter from a folder of the machine that built the image, in a folder of its own.
version=$(cat /run/hpcbinder/step/files/version)
target=/opt/python/$version
python=$target/bin/python$version
mkdir -p /opt/python
cp -a /run/hpcbinder/image/python "$target"
ln -s "python$version" "$target/bin/python3"
ln -s python3 "$target/bin/python"
if ! "$python" -I -S -B -c '' 2>/dev/null; then
    # It names no place for its own libraries.
    mkdir -p /etc/ld.so.conf.d
    printf '%s\n' "$target/lib" >"/etc/ld.so.conf.d/zz-python$version.conf"
    ldconfig
    rm -f /var/cache/ldconfig/aux-cache
fi
if ! "$python" -I -S -B -c 'import bz2, ctypes, hashlib, lzma, sqlite3, ssl, zlib' 2>errors; then
    cat errors >&2
    echo "hpcbinder: Python $version from a folder of bases.pythons does not run on this base, or lacks a module that" \
        "notebooks need: see the message above." >&2
    exit 1
fi
# Bytecode that does not look at times, and the same every time it is made.
PYTHONHASHSEED=0 "$python" -I -S -B -m compileall -q -f -j 0 --invalidation-mode unchecked-hash \
    "$target/lib/python$version" >/dev/null
settle /opt
timeless /etc /var/cache/ldconfig
