# An interpreter out of the packages of an older Debian release, in a folder of its own: apt fetches and checks them,
# and none is installed.
files=/run/hpcbinder/step/files
work=$PWD
release=$(cat "$files/release")
version=$(cat "$files/version")
target=/opt/python/$version
mkdir -p lists/partial cache/archives/partial debs root "$target/bin" "$target/lib" "$target/include"

# The mirrors that have this base's release have the older one beside it.
if [ -r /run/hpcbinder/site/sources.list ]; then
    sed -n -e "s/ $(cat "$files/suite")\(-security\)\{0,1\} main\$/ $release\1 main/" \
        -e "/ $release\(-security\)\{0,1\} main\$/s/^deb \[/deb [check-valid-until=no /p" \
        /run/hpcbinder/site/sources.list >sources.list
else
    cp "$files/sources.list" sources.list
fi
# As if nothing were installed: else apt wants the versions of this base.
: >status
set -- -q -y -o Dir::State::Lists="$work/lists" -o Dir::State::Status="$work/status" -o Dir::Cache="$work/cache" \
    -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null -o APT::Sandbox::User=root \
    -o Acquire::Retries=3
cd debs
# shellcheck disable=SC2046
if ! apt-get "$@" update || ! apt-get "$@" download $(cat "$files/packages"); then
    echo "hpcbinder: Python $version comes from the packages of Debian $release, which could not be had from the mirror" \
        "(site.apt_mirror): see apt's message above. A folder of bases.pythons that has it does without." >&2
    exit 1
fi
cd "$work"
for deb in debs/*.deb; do dpkg -x "$deb" root; done
rm -rf debs lists cache

cp -a "root/usr/bin/python$version" "$target/bin/"
cp -a "root/usr/lib/python$version" "$target/lib/"
cp -a "root/usr/include/python$version" "$target/include/"
# Its headers' settings lie in a folder of the processor's.
find root/usr/include -path "*-linux-gnu*/python$version/pyconfig.h" -exec cp {} "$target/include/python$version/" \;
find root/usr/lib root/lib \( -name 'libssl.so.*' -o -name 'libcrypto.so.*' -o -name 'libffi.so.*' -o -name 'libmpdec*.so.*' \) \
    -exec cp -a {} "$target/lib/" \; 2>/dev/null || :
find "$target" \( -name '*.a' -o -name '*.pyc' -o -name 'nis.*.so' -o -name EXTERNALLY-MANAGED -o -xtype l \) -delete
