from setuptools import setup
setup(name='waves', py_modules=['waves'])
