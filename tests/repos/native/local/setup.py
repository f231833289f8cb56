from setuptools import setup

setup(name="tool", version="1", py_modules=["tool"], install_requires=["six"])
