# The kernel itself is Debian's; the environment is where Jupyter looks.
mkdir -p /opt/env/share/jupyter/kernels/ir
cp /run/hpcbinder/step/files/kernel.json /opt/env/share/jupyter/kernels/ir/kernel.json
