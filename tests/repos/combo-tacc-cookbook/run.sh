#!/bin/bash
conda env create
