# A Spack of a known commit installs the environment; the image keeps what it installed, not Spack.
files=/run/hpcbinder/step/files
read -r version commit <"$files/release"
place=$(mktemp -d /var/tmp/spack.XXXXXX)
trap 'rm -rf "$place"' EXIT

git init --quiet "$place/spack"
git -C "$place/spack" fetch --quiet --depth 1 https://github.com/spack/spack.git "$commit"
# What is fetched by its hash is what has this hash.
git -C "$place/spack" checkout --quiet FETCH_HEAD
[ "$(git -C "$place/spack" rev-parse HEAD)" = "$commit" ]

export SPACK_DISABLE_LOCAL_CONFIG=1 SPACK_USER_CACHE_PATH="$place/cache" SPACK_PYTHON=/usr/bin/python3
spack=$place/spack/bin/spack
"$spack" config --scope site add "config:install_tree:root:/opt/spack/store"
"$spack" config --scope site add "config:build_stage:[$place/stage]"
"$spack" compiler find --scope site
"$spack" mirror add --scope site "v$version" "https://binaries.spack.io/v$version"
"$spack" buildcache keys --install --trust
mkdir -p /opt/spack/environment
cp "$files/spack.yaml" /opt/spack/environment/
"$spack" -e /opt/spack/environment concretize --fresh
"$spack" -e /opt/spack/environment install --fail-fast
"$spack" -e /opt/spack/environment gc -y || :

if [ -s "$files/kernel.json" ]; then
    mkdir -p /usr/local/share/jupyter/kernels/spack
    cp "$files/kernel.json" /usr/local/share/jupyter/kernels/spack/
    settle /usr/local/share/jupyter
fi
mkdir -p /opt/hpcbinder/packages
"$spack" -e /opt/spack/environment find --format '{name} {version}' >"$place/found"
{
    printf '['
    sort -u "$place/found" | sed -e 's/^\([^ ]*\) \([^ ]*\)$/{"name": "\1", "version": "\2"}/' -e '$!s/$/,/'
    printf ']\n'
} >/opt/hpcbinder/packages/spack.json
settle /opt/spack /opt/hpcbinder/packages
