# An interpreter from a folder of the machine that built the image, in a folder of its own.
version=$(cat /run/hpcbinder/step/files/version)
target=/opt/python/$version
mkdir -p /opt/python
cp -a /run/hpcbinder/image/python "$target"
