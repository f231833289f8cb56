#!/usr/bin/env python
import numpy
import cowsay
