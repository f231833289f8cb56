# Julia from where its makers, or the site, have it, if it is the very tar that is meant.
files=/run/hpcbinder/step/files
url=${HPCBINDER_JULIA:-https://julialang-s3.julialang.org/bin}/$(cat "$files/path")
# A mirror's login is not for the list of processes, which everybody on this machine can read.
if ! printf 'url = "%s"\n' "$url" |
    curl --fail --silent --show-error --location --retry 3 --output julia.tar.gz --config -; then
    echo "hpcbinder: Julia cannot be had from ${url##*@}: see site.julia_mirror." >&2
    exit 1
fi
sha256sum --check --quiet "$files/sha256"
mkdir -p /opt/julia
tar -xzf julia.tar.gz --strip-components 1 --no-same-owner -C /opt/julia
settle /opt/julia
