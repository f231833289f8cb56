from setuptools import setup

setup(name="tool", py_modules=["tool"], install_requires=["six"])
