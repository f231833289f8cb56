# A kernel for R, where every Jupyter looks.
mkdir -p /usr/local/share/jupyter/kernels/ir
cp /run/hpcbinder/step/files/kernel.json /usr/local/share/jupyter/kernels/ir/kernel.json
settle /usr/local/share/jupyter
