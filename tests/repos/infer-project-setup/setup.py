from setuptools import setup

setup(name="fitter", version="1.0", packages=["fitter"], install_requires=["scipy"])
