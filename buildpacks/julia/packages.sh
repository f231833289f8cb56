# The project's packages and the kernel's, compiled for any processor of this kind, in a depot of the image.
files=/run/hpcbinder/step/files
JULIA_PROJECT=$(cat "$files/project")
export JULIA_PROJECT JULIA_DEPOT_PATH=/opt/julia/depot JUPYTER_DATA_DIR=/usr/local/share/jupyter
/opt/julia/bin/julia --startup-file=no --color=no "$files/packages.jl" </dev/null
rm -rf /opt/julia/depot/registries /opt/julia/depot/logs /opt/julia/depot/clones /opt/julia/depot/scratchspaces
settle /opt/julia /usr/local/share/jupyter /srv/repo /opt/hpcbinder
